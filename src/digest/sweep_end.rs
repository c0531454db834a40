//! The end of a sweep: drops what is gone, and judges the rest.

use super::idle_ends::IdleEnds;
use super::{Digest, KEEP_UNREAD, ends};
use crate::judge::assess::assess;
use crate::judge::memory::Moment;
use crate::owner::{NsId, OwnerKind};

impl Digest {
    pub(super) fn sweep_end(&mut self, clock: Moment) {
        let Self { sweep, .. } = self;
        sweep.is_under_way = false;
        let now = sweep.now.max(clock);
        sweep.now = now;
        self.read_at.extend(sweep.read.iter().map(|&id| (id, now)));
        for &id in sweep.unread.keys() {
            let Some(memory) = self.tracker.namespace(id) else { continue };
            // a namespace that was never read completely has only the connections of this attempt
            let since = now.since(*self.read_at.entry(id).or_insert(now));
            if since > KEEP_UNREAD {
                self.tracker.drop_unread(id);
                continue;
            }
            sweep.stale.namespaces += 1;
            sweep.stale.connections += memory.entries().len() as u64;
            sweep.stale.age = sweep.stale.age.max(since);
            self.tracker.keep_unread(id);
        }
        let gone = |id: &NsId| !sweep.read.contains(id) && !sweep.unread.contains_key(id);
        let gone: Vec<_> = self.tracker.namespaces().map(|(id, _)| id).filter(gone).collect();
        for id in gone {
            self.collect_ends(id, true);
        }
        let sweep = &mut self.sweep;
        let is_there = |id: NsId| sweep.read.contains(&id) || sweep.unread.contains_key(&id);
        self.ends.finish(&self.tracker, now, is_there, &mut self.totals.ended);
        let Self { policy, totals, limits, sweep, .. } = self;
        let of_lost = IdleEnds { policy, totals, limits, now }.of_lost();
        self.tracker.retain(|id| sweep.read.contains(&id) || sweep.unread.contains_key(&id), now, of_lost);
        self.limits.add_resets(self.ends.resets(), sweep.clock);
        self.limits.finish(&self.policy, &self.tracker, now);
        self.read_at.retain(|id, _| self.tracker.namespace(*id).is_some());
        let known = |id: &NsId| sweep.read.contains(id) || self.read_at.contains_key(id);
        sweep.namespaces.retain(|id, _| known(id));
        sweep.counters.retain(|id, _| known(id));
        self.owners.namespaces.retain(|id, _| known(id));
        self.totals.sweeps += 1;
        self.owners.resolve(&self.tracker);
        self.adopt_node_limits();
        for (id, facts) in &mut self.sweep.namespaces {
            facts.is_host = match (self.node.host, self.owners.namespaces.get(id).map(|owner| owner.kind)) {
                (Some(host), _) => Some(host == *id),
                (None, Some(OwnerKind::Host)) => Some(true),
                (None, Some(OwnerKind::Pod)) => Some(false),
                (None, _) => None,
            };
        }
        self.tracker.set_follows(!self.skips_for.is_zero() && self.tracker.len() > self.follows_from);
        self.assessment = assess(&self.tracker, &self.policy, &self.owners, self.sweep.now);
        let with_connections = self.assessment.counts().tallies.keys();
        ends::expire(&mut self.totals.ended, &self.tracker, now, with_connections);
    }

    /// Stores which flagged connections of a namespace the read that is about to end did not show, or that it is gone.
    pub(super) fn collect_ends(&mut self, id: NsId, is_gone: bool) {
        let Self { ends, tracker, policy, owners, sweep, .. } = self;
        if let Some(memory) = tracker.namespace(id) {
            ends.collect((id, memory), is_gone, policy, owners, sweep.now);
        }
    }
}
