//! From the memory of a node to a report: every connection judged, counted, and the worst kept in detail.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::pair::{Pairs, Peer};
use super::policy::{LocalScope, Path, Policy};
use super::report::{Direction, Finding, MAX_ENDPOINTS, PeerFacts, Report, ServiceEndpoint, Tally};
use super::skip::lasts;
use super::track::{NsMemory, Tracked, Tracker};
use super::verdict::{Facts, Keepalive, Verdict, judge, keepalive};
use crate::owner::{NsId, Owner};
use crate::socket::{Cookie, Timer};

/// What the sweep knows of a namespace beside its sockets.
#[derive(Clone, Debug)]
pub struct NsFacts {
    /// The name of its bind mount.
    pub name: Option<Arc<str>>,
    /// Its `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
}

/// Who owns a socket.
pub trait OwnerOf {
    /// The best known owner of a socket of this namespace, by its cgroup and inode.
    fn owner(&self, namespace: NsId, cgroup: Option<u64>, inode: u32) -> Arc<Owner>;
    /// Whether sockets of one cgroup may have several owners, told apart by inode: on hosts without cgroup v2.
    fn by_inode(&self) -> bool;
}

/// Judges every connection that the last sweep showed, and fills in the report's counts and findings. `now` is the monotonic clock in
/// milliseconds. What is overdue, or was watched in silence for its path's idle timeout, is marked in the tracker for the next sweep.
pub fn assess(
    tracker: &mut Tracker,
    policy: &Policy,
    namespaces: &BTreeMap<NsId, NsFacts>,
    owners: &dyn OwnerOf,
    now: u64,
    report: &mut Report,
) {
    let pairs = Pairs::find(tracker);
    let mut marks = Vec::new();
    let mut dues = Vec::new();
    let mut worst = Worst::new(policy.max_findings);
    for (id, memory) in tracker.namespaces() {
        let assessor = Assessor { tracker, policy, pairs: &pairs, now, id, memory };
        let mut groups = Groups::new(id, memory, policy, owners);
        let mut due = u64::MAX;
        for (at, tracked) in memory.entries().iter().enumerate().filter(|(_, tracked)| tracked.seen()) {
            let group = groups.of(tracked);
            if !group.selected || !policy.select.takes(memory.local(tracked), tracked.remote) {
                continue;
            }
            if group.ignored {
                report.ignored += 1;
                continue;
            }
            let judged = assessor.judge(at, tracked);
            due = due.min(assessor.due(&judged, tracked));
            if judged.stale || judged.verdict == Verdict::Overdue {
                marks.push((id, at, judged.verdict == Verdict::Overdue, judged.stale));
            }
            report.verdicts[judged.verdict as usize] += 1;
            judged.count_in(&mut group.tallies[judged.direction as usize], tracked);
            worst.offer(Rank {
                verdict: judged.verdict,
                idle: Reverse(judged.facts.wire_idle.unwrap_or(0)),
                namespace: id,
                cookie: tracked.cookie(),
                at,
            });
        }
        groups.pour_into(&mut report.tallies);
        dues.push((id, due));
    }
    report.connections = report.verdicts.iter().sum();
    let ranks = worst.into_sorted();
    report.truncated = report.connections.saturating_sub(ranks.len() as u64);
    report.findings = ranks
        .iter()
        .filter_map(|rank| {
            let memory = tracker.namespace(rank.namespace)?;
            let entry = memory.entries().get(rank.at)?;
            let assessor = Assessor { tracker, policy, pairs: &pairs, now, id: rank.namespace, memory };
            let owner = owners.owner(rank.namespace, memory.origin(entry).cgroup, entry.inode);
            Some(assessor.finding(rank.at, entry, owner, namespaces.get(&rank.namespace)))
        })
        .collect();
    for (id, due) in dues {
        if let Some(memory) = tracker.namespace_mut(id) {
            memory.set_due(due);
        }
    }
    for (id, at, overdue, stale) in marks {
        if let Some(tracked) = tracker.namespace_mut(id).and_then(|memory| memory.entries_mut().get_mut(at)) {
            if overdue {
                tracked.mark_overdue();
            }
            if stale {
                tracked.mark_stale();
            }
        }
    }
}

/// The connections of one namespace by owner: what an owner decides is found out once, not for each connection.
struct Groups<'a> {
    all: Vec<Group>,
    /// Positions in `all`, by origin.
    by_origin: Vec<usize>,
    id: NsId,
    memory: &'a NsMemory,
    policy: &'a Policy,
    owners: &'a dyn OwnerOf,
}

struct Group {
    owner: Arc<Owner>,
    ignored: bool,
    selected: bool,
    /// By direction.
    tallies: [Tally; 2],
}

impl<'a> Groups<'a> {
    fn new(id: NsId, memory: &'a NsMemory, policy: &'a Policy, owners: &'a dyn OwnerOf) -> Self {
        let mut groups = Self { all: Vec::new(), by_origin: Vec::new(), id, memory, policy, owners };
        if !owners.by_inode() {
            groups.by_origin =
                memory.origins().iter().map(|origin| groups.position(owners.owner(id, origin.cgroup, 0))).collect();
        }
        groups
    }

    fn position(&mut self, owner: Arc<Owner>) -> usize {
        self.all.iter().position(|group| group.owner == owner).unwrap_or_else(|| {
            self.all.push(Group {
                ignored: self.policy.ignores(&owner),
                selected: self.policy.select.takes_owner(&owner),
                owner,
                tallies: Default::default(),
            });
            self.all.len() - 1
        })
    }

    fn of(&mut self, tracked: &Tracked) -> &mut Group {
        let at = if let Some(&at) = self.by_origin.get(tracked.origin()) {
            at
        } else {
            let cgroup = self.memory.origin(tracked).cgroup;
            self.position(self.owners.owner(self.id, cgroup, tracked.inode))
        };
        &mut self.all[at]
    }

    fn pour_into(self, tallies: &mut BTreeMap<(Arc<Owner>, Direction), Tally>) {
        for group in self.all {
            for (direction, tally) in [Direction::Inbound, Direction::Outbound].into_iter().zip(group.tallies) {
                if tally != Tally::default() {
                    tallies.entry((group.owner.clone(), direction)).or_default().add(tally);
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
    memory: &'a NsMemory,
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
    fn judge(&self, at: usize, tracked: &Tracked) -> Judged<'a> {
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
    fn facts(&self, memory: &NsMemory, tracked: &Tracked, idle_timeout: Duration) -> (u64, Facts) {
        if memory.skipped() {
            let seen_at = tracked.seen_at(self.now);
            let then = facts(tracked, seen_at);
            if keepalive(idle_timeout, &then) == Keepalive::On {
                return (seen_at, Facts { age: tracked.age(self.now), ..then });
            }
        }
        (self.now, facts(tracked, self.now))
    }

    /// When time alone will change what is said of a connection, monotonic milliseconds.
    fn due(&self, judged: &Judged<'_>, tracked: &Tracked) -> u64 {
        let Policy { long_lived, overdue_by, .. } = *self.policy;
        let timeout = judged.path.idle_timeout;
        lasts(judged.keepalive, judged.verdict, timeout, long_lived, overdue_by, &judged.facts, tracked.settled())
            .map_or(u64::MAX, |ms| judged.as_of.saturating_add(ms))
    }

    /// In one namespace there is nothing between the two ends; between two namespaces of a node there is, where addresses are translated.
    fn is_local(&self, other: Peer) -> bool {
        other.namespace == self.id || (other.exact && self.policy.local_scope == LocalScope::Node)
    }

    fn finding(&self, at: usize, tracked: &Tracked, owner: Arc<Owner>, namespace: Option<&NsFacts>) -> Finding {
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
            exact: None,
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
fn facts(tracked: &Tracked, now: u64) -> Facts {
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
pub fn silence_keepalive(policy: &Policy, memory: &NsMemory, tracked: &Tracked, now: u64) -> Option<Keepalive> {
    if u128::from(tracked.age(now)) < policy.long_lived.as_millis() {
        return None;
    }
    let local = memory.local(tracked);
    let service_port = if memory.listens(local) { local.port } else { tracked.remote.port };
    Some(keepalive(policy.path(tracked.remote.addr, service_port).idle_timeout, &facts(tracked, now)))
}

impl Judged<'_> {
    fn count_in(&self, tally: &mut Tally, tracked: &Tracked) {
        tally.counts[self.keepalive as usize][self.verdict as usize] += 1;
        if self.verdict.flagged() {
            let endpoint = match self.direction {
                Direction::Outbound => ServiceEndpoint::Remote(tracked.remote),
                Direction::Inbound => ServiceEndpoint::Local(tracked.local_port),
            };
            tally.flag(endpoint, self.path, self.verdict, self.facts.wire_idle);
        }
    }
}

impl Tally {
    fn flag(&mut self, endpoint: ServiceEndpoint, path: &Arc<Path>, verdict: Verdict, wire_idle: Option<u64>) {
        self.flagged_wire_idle_max = self.flagged_wire_idle_max.max(wire_idle);
        let known = self.endpoints.len() < MAX_ENDPOINTS;
        let key = (Some(endpoint), path.clone(), verdict);
        match self.endpoints.get_mut(&key) {
            Some(count) => *count += 1,
            None if known => {
                self.endpoints.insert(key, 1);
            }
            None => *self.endpoints.entry((None, path.clone(), verdict)).or_default() += 1,
        }
    }

    /// Adds another owner's counts to these.
    pub fn add(&mut self, other: Self) {
        for (mine, theirs) in self.counts.iter_mut().flatten().zip(other.counts.into_iter().flatten()) {
            *mine += theirs;
        }
        self.flagged_wire_idle_max = self.flagged_wire_idle_max.max(other.flagged_wire_idle_max);
        for ((endpoint, path, verdict), count) in other.endpoints {
            let endpoint = endpoint.filter(|_| self.endpoints.len() < MAX_ENDPOINTS);
            *self.endpoints.entry((endpoint, path, verdict)).or_default() += count;
        }
    }
}

/// The order in which connections are shown: worst first, then the longest silence, then what stays the same from run to run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    verdict: Verdict,
    idle: Reverse<u64>,
    namespace: NsId,
    cookie: Cookie,
    at: usize,
}

/// The first `limit` ranks of all that are offered, in bounded memory.
struct Worst {
    limit: usize,
    /// At most twice the limit: cut down to it now and then, which costs less than keeping them in order.
    ranks: Vec<Rank>,
    /// The first that was cut off: what does not come before it needs no place.
    beyond: Option<Rank>,
}

impl Worst {
    fn new(limit: usize) -> Self {
        Self { limit, ranks: Vec::new(), beyond: None }
    }

    fn offer(&mut self, rank: Rank) {
        if self.beyond.is_some_and(|beyond| rank >= beyond) {
            return;
        }
        if self.ranks.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
        self.ranks.push(rank);
    }

    fn cut(&mut self) {
        if self.ranks.len() > self.limit {
            self.beyond = Some(*self.ranks.select_nth_unstable(self.limit).1);
            self.ranks.truncate(self.limit);
        }
    }

    fn into_sorted(mut self) -> Vec<Rank> {
        self.cut();
        self.ranks.sort_unstable();
        self.ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_kept_in_order_whatever_comes_first() {
        let rank = |number: u64| Rank {
            verdict: Verdict::ALL[usize::try_from(number % 8).unwrap()],
            idle: Reverse(number % 13),
            namespace: NsId(1),
            cookie: Cookie(number),
            at: 0,
        };
        // every number below 1000 once, in no order
        let numbers = || (0..1000).map(|number: u64| number * 617 % 1000);
        let mut sorted: Vec<Rank> = numbers().map(rank).collect();
        sorted.sort_unstable();
        for limit in [0, 1, 2, 7, 500, 999, 1000, 5000, usize::MAX] {
            let mut worst = Worst::new(limit);
            numbers().for_each(|number| worst.offer(rank(number)));
            let kept: Vec<u64> = worst.into_sorted().iter().map(|rank| rank.cookie.0).collect();
            let expected: Vec<u64> = sorted.iter().take(limit).map(|rank| rank.cookie.0).collect();
            assert_eq!(kept, expected, "limit {limit}");
        }
    }
}
