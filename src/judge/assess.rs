//! From the memory of a node to a report: every connection judged and counted, and the worst told in detail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::groups::{Groups, OwnerOf};
use super::lasting::lasts;
use super::memory::baseline::NextChange;
use super::memory::{NamespaceMemory, TrackedConnection, Tracker};
use super::pair::{Pairs, Peer};
use super::policy::{LocalScope, Path, Policy};
use super::report::{Direction, Finding, PeerFacts, Report, ServiceEndpoint};
use super::verdict::{Facts, Keepalive, Verdict, judge, keepalive};
use super::worst::{Rank, Worst};
use crate::owner::{NsId, Owner};
use crate::socket::Timer;

/// What the sweep knows of a namespace beside its sockets.
#[derive(Clone, Debug)]
pub struct NamespaceFacts {
    /// The name of its bind mount.
    pub name: Option<Arc<str>>,
    /// Its `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
}

/// The judgement of one sweep: which connections are the worst, and what the memory must know before the next one.
#[derive(Debug, Default)]
pub struct Assessment {
    worst: Worst,
    pairs: Pairs,
    /// By namespace, in the tracker's order.
    namespaces: Vec<NamespaceAssessment>,
    /// When it was judged, monotonic milliseconds.
    now: u64,
}

#[derive(Debug)]
struct NamespaceAssessment {
    id: NsId,
    /// By origin; `None` where only the inodes of its sockets name owners.
    owners: Vec<Option<Arc<Owner>>>,
    /// Connections that are overdue, or were watched in silence for their path's idle timeout.
    marks: Vec<Mark>,
    next_change: NextChange,
}

#[derive(Debug)]
struct Mark {
    at: u32,
    overdue: bool,
    stale: bool,
}

/// Judges every connection that the last sweep showed, and fills in the report's counts. `now` is the monotonic clock in milliseconds.
#[must_use]
pub fn assess(tracker: &Tracker, policy: &Policy, owners: &dyn OwnerOf, now: u64, report: &mut Report) -> Assessment {
    let pairs = Pairs::find(tracker);
    let mut worst = Worst::new(policy.max_findings, tracker.len());
    let mut namespaces = Vec::new();
    for (position, (id, memory)) in (0_u32..).zip(tracker.namespaces()) {
        let assessor = Assessor { tracker, policy, pairs: &pairs, now, id, memory };
        let mut groups = Groups::new(id, memory, policy, owners);
        let mut marks = Vec::new();
        let mut next_change = NextChange::default();
        for (at, tracked) in (0_u32..).zip(memory.entries()).filter(|(_, tracked)| tracked.seen()) {
            let group = groups.of(tracked);
            // what is not shown is judged all the same: it may be the peer of what is shown, and is a connection of the next sweep
            let shown = group.selected && policy.select.takes(|| memory.local(tracked), tracked.remote);
            if group.ignored {
                report.ignored += u64::from(shown);
                continue;
            }
            let judged = assessor.judge(at, tracked);
            if memory.baseline().is_some() {
                assessor.expect(&judged, tracked, &mut next_change);
            }
            let overdue = judged.verdict == Verdict::Overdue;
            if overdue || judged.stale {
                marks.push(Mark { at, overdue, stale: judged.stale });
            }
            if !shown {
                report.not_shown += 1;
                continue;
            }
            report.verdicts[judged.verdict as usize] += 1;
            group.count(judged.direction, judged.keepalive, judged.verdict);
            if judged.verdict.flagged() {
                let endpoint = match judged.direction {
                    Direction::Outbound => ServiceEndpoint::Remote(tracked.remote),
                    Direction::Inbound => ServiceEndpoint::Local(tracked.local_port),
                };
                group.flag(judged.direction, endpoint, judged.path, judged.verdict, judged.facts.wire_idle);
            }
            let silence = judged.facts.wire_idle.unwrap_or(0);
            worst.offer(Rank::new(judged.verdict, silence, position, tracked.cookie(), at));
        }
        namespaces.push(NamespaceAssessment { id, owners: groups.pour_into(&mut report.tallies), marks, next_change });
    }
    report.connections = report.verdicts.iter().sum();
    report.truncated = report.connections.saturating_sub(worst.len() as u64);
    Assessment { worst, pairs, namespaces, now }
}

impl Assessment {
    /// Puts the connections in order, the worst first: most sweeps are never asked for it.
    pub fn sort(&mut self) {
        self.worst.sort();
    }

    /// The worst connections in detail, one after the other; the tracker is the one that was judged, and unchanged since.
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
            Some(assessor.finding(rank.at, entry, owner, facts))
        })
    }

    /// Marks in the tracker what the next sweep must know: what is overdue, what was watched in silence for its path's idle timeout, and when
    /// time alone will change a verdict.
    pub fn settle(self, tracker: &mut Tracker) {
        for NamespaceAssessment { id, marks, next_change, .. } in self.namespaces {
            let Some(memory) = tracker.namespace_mut(id) else { continue };
            memory.judged(next_change);
            for Mark { at, overdue, stale } in marks {
                let Some(entry) = memory.entries_mut().get_mut(at as usize) else { continue };
                if overdue {
                    entry.mark_overdue();
                }
                if stale {
                    entry.mark_stale();
                }
            }
        }
    }
}

struct Assessor<'a> {
    tracker: &'a Tracker,
    policy: &'a Policy,
    pairs: &'a Pairs,
    now: u64,
    id: NsId,
    memory: &'a NamespaceMemory,
}

/// One connection, judged.
struct Judged<'a> {
    facts: Facts,
    /// The moment whose facts these are.
    as_of: u64,
    keepalive: Keepalive,
    verdict: Verdict,
    direction: Direction,
    path: &'a Arc<Path>,
    peer: PeerFacts,
    /// The path's idle timeout was watched in silence.
    stale: bool,
}

impl<'a> Assessor<'a> {
    fn judge(&self, at: u32, tracked: &TrackedConnection) -> Judged<'a> {
        let local = self.memory.local(tracked);
        let (direction, service_port) = if self.memory.listens(local) {
            (Direction::Inbound, local.port)
        } else {
            (Direction::Outbound, tracked.remote.port)
        };
        let path = self.policy.path(tracked.remote.addr, service_port);
        let idle_timeout = path.idle_timeout;
        let other = self.pairs.peer(self.id, at);
        let peer_keepalive =
            other.and_then(|other| self.peer(other, idle_timeout)).map(|facts| keepalive(idle_timeout, &facts));
        let peer = PeerFacts {
            probes: tracked.peer_probes(self.now),
            on_node: other.is_some(),
            same_namespace: other.is_some_and(|other| other.namespace == self.id),
            translated: other.is_some_and(|other| !other.exact),
            keepalive: peer_keepalive,
        };
        let (as_of, own) = self.facts(self.memory, tracked, idle_timeout);
        let facts = Facts { local: other.is_some_and(|other| self.is_local(other)), peer_keepalive, ..own };
        let state = keepalive(idle_timeout, &facts);
        let verdict = judge(state, idle_timeout, self.policy.long_lived, self.policy.overdue_by, &facts);
        let watched_out = u128::from(facts.watched) >= idle_timeout.as_millis();
        Judged { facts, as_of, keepalive: state, verdict, direction, path, peer, stale: watched_out }
    }

    fn peer(&self, other: Peer, idle_timeout: Duration) -> Option<Facts> {
        let memory = self.tracker.namespace(other.namespace)?;
        Some(self.facts(memory, memory.entries().get(other.at)?, idle_timeout).1)
    }

    /// The facts of one socket, as far as they do not depend on the other end, and of which moment they are. Where its namespace was not dumped
    /// again, a connection that this end keeps alive may have probed meanwhile, as its timer told: it is as its last look found it.
    fn facts(&self, memory: &NamespaceMemory, tracked: &TrackedConnection, idle_timeout: Duration) -> (u64, Facts) {
        let facts = |tracked, now| facts(tracked, now).with_options(self.tracker.options(tracked.inode));
        if memory.skipped() {
            let seen_at = tracked.seen_at(self.now);
            let then = facts(tracked, seen_at);
            if keepalive(idle_timeout, &then) == Keepalive::On {
                return (seen_at, Facts { age: tracked.age(self.now), ..then });
            }
        }
        (self.now, facts(tracked, self.now))
    }

    /// Adds what is expected of a connection.
    fn expect(&self, judged: &Judged<'_>, tracked: &TrackedConnection, expected: &mut NextChange) {
        let Policy { long_lived, overdue_by, .. } = *self.policy;
        let timeout = judged.path.idle_timeout;
        let facts = &judged.facts;
        let lasts = lasts(judged.keepalive, judged.verdict, timeout, long_lived, overdue_by, facts, tracked.settled());
        let after = |ms: Option<u64>| ms.map_or(u64::MAX, |ms| judged.as_of.saturating_add(ms));
        expected.due = expected.due.min(after(lasts));
        expected.probe = expected.probe.min(after(facts.next_probe));
        expected.acknowledgement |= facts.probing || tracked.timer().masks_keepalive();
    }

    /// In one namespace there is nothing between the two ends; between two namespaces of a node there is, where addresses are translated.
    fn is_local(&self, other: Peer) -> bool {
        other.namespace == self.id || (other.exact && self.policy.local_scope == LocalScope::Node)
    }

    fn finding(
        &self,
        at: u32,
        tracked: &TrackedConnection,
        owner: Arc<Owner>,
        namespace: Option<&NamespaceFacts>,
    ) -> Finding {
        let judged = self.judge(at, tracked);
        Finding {
            netns: self.id,
            netns_name: namespace.and_then(|namespace| namespace.name.clone()),
            owner,
            local: self.memory.local(tracked),
            remote: tracked.remote,
            direction: judged.direction,
            timer: tracked.timer(),
            expires: (tracked.timer() != Timer::None).then(|| tracked.expires(self.now)),
            retransmits: tracked.retransmits,
            keepalive: judged.keepalive,
            keepidle: judged.facts.keepidle,
            probes_after: judged.facts.probes_after,
            exact: self.tracker.options(tracked.inode).copied(),
            holder: self.tracker.holder(tracked.inode).cloned(),
            data_idle: tracked.data_idle(self.now),
            wire_idle: judged.facts.wire_idle,
            watched: judged.facts.watched,
            age: judged.facts.age,
            waiting_for_reply: tracked.waiting_for_reply(),
            path: judged.path.clone(),
            peer: judged.peer,
            verdict: judged.verdict,
            overdue_by: self.policy.overdue_by,
            tcp_keepalive_time: namespace.and_then(|namespace| namespace.tcp_keepalive_time),
            uid: self.memory.origin(tracked).uid,
            inode: tracked.inode,
            cookie: tracked.cookie(),
        }
    }
}

/// The facts of one socket, as far as they do not depend on the other end.
#[must_use]
pub fn facts(tracked: &TrackedConnection, now: u64) -> Facts {
    let keepalive_timer = tracked.timer() == Timer::KeepAlive;
    Facts {
        armed: tracked.armed,
        keepidle: tracked.keepidle().map(u64::from),
        probes_after: tracked.probes_after().map(u64::from),
        next_probe: keepalive_timer.then(|| tracked.expires(now)),
        probing: keepalive_timer && tracked.retransmits > 0,
        wire_idle: tracked.wire_idle(now),
        watched: tracked.watched(now),
        age: tracked.age(now),
        unanswered: tracked.unanswered(),
        was_overdue: tracked.was_overdue(),
        local: false,
        peer_probes: tracked.peer_probes(now),
        peer_keepalive: None,
    }
}

/// The keepalive state of a connection that closed or moved on, for the silence that this ended; `None` where it is not long-lived.
#[must_use]
pub fn silence_keepalive(
    policy: &Policy,
    memory: &NamespaceMemory,
    tracked: &TrackedConnection,
    now: u64,
) -> Option<Keepalive> {
    if u128::from(tracked.age(now)) < policy.long_lived.as_millis() {
        return None;
    }
    let local = memory.local(tracked);
    let service_port = if memory.listens(local) { local.port } else { tracked.remote.port };
    Some(keepalive(policy.path(tracked.remote.addr, service_port).idle_timeout, &facts(tracked, now)))
}
