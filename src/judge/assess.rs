//! Judges and counts every connection in the memory of a node, and reports the worst in detail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::assessor::{Assessor, route};
use super::groups::{Groups, OwnerOf};
use super::memory::baseline::NextChange;
use super::memory::due::DueReads;
use super::memory::{Moment, NamespaceMemory, TrackedConnection, Tracker};
use super::pair::Pairs;
use super::policy::filter::facts::{Judged, Subject};
use super::policy::{Listed, Policy};
use super::report::{Counts, Finding};
use super::verdict::{Keepalive, Verdict, keepalive};
use super::worst::{Rank, Worst};
use crate::owner::{NsId, Owner};
use crate::socket::Timer;

pub use super::assessor::{direction_before, facts};

/// Facts about a namespace other than its sockets.
#[derive(Clone, Debug)]
pub struct NamespaceFacts {
    /// The name of its bind mount.
    pub name: Option<Arc<str>>,
    /// Its `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
    /// The limit of its conntrack, where that follows connections.
    pub conntrack: Option<Duration>,
    /// Whether its conntrack takes a segment of a flow that it has dropped for invalid (`nf_conntrack_tcp_loose` is 0).
    pub is_conntrack_strict: bool,
    /// Whether it is the host's. `None` if the sweep did not find out which one that is.
    pub is_host: Option<bool>,
}

/// The judgement of one sweep: its counts, which connections are the worst, and what the memory must store before the
/// next sweep.
#[derive(Debug, Default)]
pub struct Assessment {
    counts: Counts,
    worst: Worst,
    pairs: Pairs,
    /// The judgement of each namespace, in the tracker's order.
    namespaces: Vec<NamespaceAssessment>,
    /// The moment of the judgement.
    now: Moment,
}

#[derive(Debug)]
struct NamespaceAssessment {
    id: NsId,
    /// The owner of each origin. `None` if only the inodes of the sockets name owners.
    owners: Vec<Option<Arc<Owner>>>,
    changes: Vec<StateChange>,
    next_change: NextChange,
    /// `None` if those of the last read hold, or if the next sweep does not ask.
    due: Option<DueReads>,
}

/// The facts that the memory must store for one connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not on its own")]
struct StateChange {
    at: u32,
    /// The path has dropped it.
    expired: bool,
    /// We have watched nothing move for the path's idle timeout.
    stale: bool,
    /// It is flagged.
    flagged: bool,
    /// There is nothing between the two ends.
    local: bool,
}

/// Judges every connection that the last sweep showed. `now` is the monotonic clock.
///
/// The policy's selection decides which connections are counted and shown. It never changes a judgement: pairs are
/// found across all namespaces, and the state for later comparisons is stored for all.
#[must_use]
pub fn assess(tracker: &Tracker, policy: &Policy, owners: &dyn OwnerOf, now: Moment) -> Assessment {
    let pairs = Pairs::find(tracker);
    let expected = if policy.lists == Listed::All { tracker.len() } else { 0 };
    let mut worst = Worst::new(policy.max_findings, expected);
    let longest = policy.longest_between_reads().into();
    let mut counts = Counts::default();
    let mut tallies = BTreeMap::new();
    let mut namespaces = Vec::new();
    for (position, (id, memory)) in (0_u32..).zip(tracker.namespaces()) {
        let assessor = Assessor { tracker, policy, pairs: &pairs, now, id, memory };
        let mut groups = Groups::new(id, memory, policy, owners);
        let mut changes = Vec::new();
        let mut next_change = NextChange::default();
        let baseline = memory.baseline();
        let follows = tracker.follows() && !memory.skipped();
        let mut due = baseline.filter(|_| follows).map(|baseline| DueReads::new(baseline.at));
        for (at, tracked) in (0_u32..).zip(memory.entries()).filter(|(_, tracked)| tracked.seen()) {
            let judgement = assessor.judge(at, tracked);
            if baseline.is_some() {
                let at_moment = assessor.expect(&judgement, tracked, &mut next_change);
                if let Some(due) = &mut due {
                    due.add(at, at_moment, longest);
                }
            }
            let (flagged, local) = (judgement.verdict.flagged(), judgement.verdict == Verdict::Local);
            let (expired, stale) = (judgement.expires(), judgement.is_stale());
            let is_new = expired && !tracked.has_expired() || stale && !tracked.is_stale();
            let has_changed = is_new || (flagged, local) != (tracked.is_flagged(), tracked.is_local());
            if has_changed && !tracker.is_last_sweep() {
                changes.push(StateChange { at, expired, stale, flagged, local });
            }
            let group = groups.of(tracked);
            let known = || Subject {
                judged: Some(Judged {
                    verdict: judgement.verdict,
                    keepalive: judgement.keepalive,
                    direction: judgement.direction,
                    idle: judgement.idle(),
                    age: judgement.facts.age,
                }),
                owner: Some(group.owner()),
                holder: tracker.holders().get(tracked.inode).map(|holder| &**holder),
            };
            let ends = || (memory.local(tracked), tracked.remote());
            let shown = group.selected && policy.select.takes_judged(ends, known);
            if group.ignored {
                counts.ignored += u64::from(shown);
                continue;
            }
            if !shown {
                counts.not_shown += 1;
                continue;
            }
            let (direction, verdict) = (judgement.direction, judgement.verdict);
            counts.verdicts[verdict as usize] += 1;
            group.count(direction, judgement.keepalive, verdict);
            if verdict.flagged() {
                let endpoint = judgement.endpoint(tracked);
                group.flag(direction, endpoint, judgement.path, verdict, judgement.facts.wire_idle);
            }
            let is_between = verdict == Verdict::Local && !judgement.peer.same_namespace;
            if policy.lists == Listed::All || verdict.flagged() || is_between {
                let idle = judgement.idle().unwrap_or_default();
                worst.offer(Rank::new(verdict, idle, position, tracked.cookie(), at));
            }
        }
        for socket in memory.half_closed() {
            let owner = owners.owner(id, socket.cgroup, socket.inode);
            let known = || Subject { owner: Some(&owner), ..Subject::default() };
            if !policy.select.takes_judged(|| (socket.local, socket.remote), known) {
                continue;
            }
            if policy.select.takes_namespace(id) && policy.select.takes_owner(&owner) && !policy.ignores(&owner) {
                *counts.half_closed.entry((owner, socket.waits)).or_default() += 1;
            }
        }
        namespaces.push(NamespaceAssessment { id, owners: groups.pour_into(&mut tallies), changes, next_change, due });
    }
    counts.tallies = Arc::new(tallies);
    counts.truncated = worst.cut_off();
    Assessment { counts, worst, pairs, namespaces, now }
}

/// Passes each connection that a judgement at `now` flags to `each`.
pub fn flagged<'a>(
    tracker: &'a Tracker,
    policy: &Policy,
    now: Moment,
    mut each: impl FnMut(NsId, &'a NamespaceMemory, &'a TrackedConnection),
) {
    let pairs = Pairs::find(tracker);
    for (id, memory) in tracker.namespaces() {
        let assessor = Assessor { tracker, policy, pairs: &pairs, now, id, memory };
        for (at, tracked) in (0_u32..).zip(memory.entries()).filter(|(_, tracked)| tracked.seen()) {
            if assessor.judge(at, tracked).verdict.flagged() {
                each(id, memory, tracked);
            }
        }
    }
}

impl Assessment {
    /// The counts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sorts the connections, the worst first. After most sweeps nobody needs the order.
    pub fn sort(&mut self) {
        self.worst.sort();
    }

    /// The worst connections in detail, one after the other. The tracker must be the one that was judged, without later
    /// changes.
    pub fn findings<'a>(
        &'a self,
        tracker: &'a Tracker,
        policy: &'a Policy,
        facts: &'a BTreeMap<NsId, NamespaceFacts>,
        owners: &'a dyn OwnerOf,
    ) -> impl Iterator<Item = Finding> + use<'a> {
        let namespaces: Vec<_> =
            self.namespaces.iter().map(|of| Some((of, tracker.namespace(of.id)?, facts.get(&of.id)))).collect();
        self.worst.ranks().iter().filter_map(move |rank| {
            let (of, memory, facts) = (*namespaces.get(rank.namespace as usize)?)?;
            let entry = memory.entries().get(rank.at as usize)?;
            let assessor = Assessor { tracker, policy, pairs: &self.pairs, now: self.now, id: of.id, memory };
            let owner = of.owners.get(entry.origin()).cloned().flatten();
            let owner = owner.unwrap_or_else(|| owners.owner(of.id, memory.origin(entry).cgroup, entry.inode));
            Some(finding(&assessor, rank.at, entry, owner, facts))
        })
    }

    /// Stores the facts for the next sweep in the tracker: the connections that the path has dropped, those that we
    /// watched without traffic, and the moment at which time alone will change a verdict.
    pub fn store_in(self, tracker: &mut Tracker) {
        for NamespaceAssessment { id, changes, next_change, due, .. } in self.namespaces {
            let Some(memory) = tracker.namespace_mut(id) else { continue };
            memory.expect(next_change, due);
            for StateChange { at, expired, stale, flagged, local } in changes {
                let Some(entry) = memory.entries_mut().get_mut(at as usize) else { continue };
                entry.mark_flagged(flagged);
                entry.mark_local(local);
                if expired {
                    entry.mark_expired();
                }
                if stale {
                    entry.mark_stale();
                }
            }
        }
    }
}

/// One connection in detail.
fn finding(
    assessor: &Assessor<'_>,
    at: u32,
    tracked: &TrackedConnection,
    owner: Arc<Owner>,
    namespace: Option<&NamespaceFacts>,
) -> Finding {
    let Assessor { memory, now, policy, .. } = *assessor;
    let judgement = assessor.judge(at, tracked);
    let facts = judgement.facts;
    Finding {
        netns: assessor.id,
        netns_name: namespace.and_then(|namespace| namespace.name.clone()),
        owner,
        local: memory.local(tracked),
        remote: tracked.remote(),
        direction: judgement.direction,
        timer: tracked.timer(),
        expires: (tracked.timer() != Timer::None)
            .then(|| tracked.expires(if memory.is_unread() { judgement.as_of } else { now })),
        unanswered: facts.unanswered,
        keepalive: judgement.keepalive,
        keepidle: facts.keepidle,
        probes_after: facts.probes_after,
        exact: assessor.tracker.options(tracked.inode).copied(),
        holder: assessor.tracker.holders().get(tracked.inode).cloned(),
        is_holder_sought: assessor.tracker.holders().is_sought(tracked.inode),
        host_network: namespace.and_then(|namespace| namespace.is_host),
        data_idle: facts.data_idle,
        request_idle: facts.request_idle,
        wire_idle: facts.wire_idle,
        last_heard: facts.last_heard,
        watched: facts.watched,
        age: facts.age,
        waiting_for_reply: tracked.waiting_for_reply(),
        path: judgement.path.clone(),
        peer: judgement.peer,
        heartbeats: facts.heartbeats,
        verdict: judgement.verdict,
        overdue_by: policy.overdue_by,
        tcp_keepalive_time: namespace.and_then(|namespace| namespace.tcp_keepalive_time),
        uid: memory.origin(tracked).uid,
        inode: tracked.inode,
        cookie: tracked.cookie(),
        stale: memory.is_unread().then(|| now.since(judgement.as_of)),
    }
}

/// The keepalive state of a connection whose idle time has ended, by traffic or a close. `None` if it is not
/// long-lived.
#[must_use]
pub fn idle_time_keepalive(
    policy: &Policy,
    memory: &NamespaceMemory,
    tracked: &TrackedConnection,
    now: Moment,
) -> Option<Keepalive> {
    if tracked.age(now) < policy.long_lived.into() {
        return None;
    }
    let (_, path) = route(policy, memory, tracked);
    Some(keepalive(path.idle_timeout, &facts(tracked, now)))
}
