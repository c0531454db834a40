//! Judges one connection, with the facts of its peer if that is on this node.

use std::sync::Arc;

use super::lasting::lasts;
use super::memory::baseline::NextChange;
use super::memory::due::follow;
use super::memory::{Millis, Moment, NamespaceMemory, TrackedConnection, Tracker};
use super::pair::{self, Pairs, Peer};
use super::policy::{LocalScope, Path, Policy};
use super::report::{Direction, PeerFacts, ServiceEndpoint};
use super::verdict::{Criteria, Facts, Keepalive, Verdict, judge, keepalive};
use crate::owner::NsId;
use crate::socket::Timer;

/// A sweep that takes longer is slow: what it read first may have moved since.
const SLOW: Millis = Millis::from_secs(1);

/// Judges the connections of one namespace.
pub(super) struct Assessor<'a> {
    pub tracker: &'a Tracker,
    pub policy: &'a Policy,
    pub pairs: &'a Pairs,
    pub now: Moment,
    pub id: NsId,
    pub memory: &'a NamespaceMemory,
}

/// The judgement of one connection.
pub(super) struct Judgement<'a> {
    pub facts: Facts,
    /// The moment of these facts.
    pub as_of: Moment,
    criteria: Criteria,
    pub keepalive: Keepalive,
    pub verdict: Verdict,
    pub direction: Direction,
    pub path: &'a Arc<Path>,
    pub peer: PeerFacts,
}

impl Judgement<'_> {
    /// The time since something last refreshed the path.
    pub fn idle(&self) -> Option<Millis> {
        self.criteria.idle(&self.facts)
    }

    /// The path has dropped its state. Only an answer from the peer shows that it has new state.
    pub fn expires(&self) -> bool {
        let unprotected = matches!(self.verdict, Verdict::Overdue | Verdict::Young | Verdict::Undetermined);
        unprotected && self.facts.unanswered.count() == 0 && self.criteria.has_expired(&self.facts)
    }

    /// We watched the whole idle timeout of the path without traffic.
    pub fn is_stale(&self) -> bool {
        self.criteria.reached(self.facts.watched)
    }

    /// Whether the verdict rests on the probes of the peer that samples showed, or may soon.
    fn rests_on_probes(&self) -> bool {
        // the peer's own timer says more than its probes
        self.facts.peer_keepalive.is_none()
            && self.facts.peer_probes.is_some_and(|last| !self.criteria.reached(last.ago))
    }

    /// The service endpoint: the listening end.
    pub fn endpoint(&self, tracked: &TrackedConnection) -> ServiceEndpoint {
        match self.direction {
            Direction::Outbound => ServiceEndpoint::Remote(tracked.remote()),
            Direction::Inbound => ServiceEndpoint::Local(tracked.local_port),
        }
    }
}

impl<'a> Assessor<'a> {
    /// Judges the connection at this position among the entries of its namespace.
    pub fn judge(&self, at: u32, tracked: &TrackedConnection) -> Judgement<'a> {
        let (direction, mut path) = route(self.policy, self.memory, tracked);
        let other = self.pairs.peer(self.id, at).filter(|&other| self.agrees(tracked, other));
        // a socket that is connected to itself
        let is_own_peer = self.memory.local(tracked) == tracked.remote();
        let mut is_local = is_own_peer || other.is_some_and(|other| self.is_local(other));
        if let Some(between) = other.filter(|_| is_local).and_then(|other| self.firewall(tracked, other, path)) {
            (path, is_local) = (between, false);
        }
        let criteria = Criteria::new(path, self.policy);
        let (as_of, mut facts) = self.facts(self.memory, tracked, &criteria);
        // each end's own timer decides its state, so both rows show the same state
        let state = keepalive(criteria.idle_timeout, &facts);
        facts.local = is_local;
        if let Some(other) = other.and_then(|other| self.peer(other, &criteria)) {
            facts.peer_keepalive = Some(keepalive(criteria.idle_timeout, &other));
            facts.peer_unanswered = criteria.is_unanswered(&other);
            facts = shared(facts, &other);
        }
        let peer = PeerFacts {
            probes: facts.peer_probes,
            on_node: is_own_peer || other.is_some(),
            same_namespace: is_own_peer || other.is_some_and(|other| other.namespace == self.id),
            translated: other.is_some_and(|other| !other.exact),
            keepalive: facts.peer_keepalive,
            unanswered: facts.peer_unanswered,
        };
        let verdict = judge(&criteria, state, &facts);
        Judgement { facts, as_of, criteria, keepalive: state, verdict, direction, path, peer }
    }

    /// The conntrack between two namespaces of this node, if it has dropped the connection or may do so before the path
    /// does.
    fn firewall(&self, tracked: &TrackedConnection, other: Peer, path: &Path) -> Option<&'a Arc<Path>> {
        let between = self.policy.path_between().filter(|_| other.namespace != self.id)?;
        let end = self.tracker.namespace(other.namespace)?.entries().get(other.at)?;
        let idle = [tracked, end].into_iter().filter_map(|end| end.wire_idle(self.now)).min();
        let has_dropped = idle.is_some_and(|idle| idle >= between.idle_timeout.into());
        (has_dropped || between.idle_timeout < path.idle_timeout).then_some(between)
    }

    /// Whether the clocks of both sockets allow that they are one connection. Two ends with reversed addresses in one
    /// namespace need no such proof.
    fn agrees(&self, tracked: &TrackedConnection, other: Peer) -> bool {
        let memory = self.tracker.namespace(other.namespace);
        let end = memory.and_then(|memory| Some((memory, memory.entries().get(other.at)?)));
        other.exact && other.namespace == self.id
            || end.is_some_and(|end| pair::agree((self.memory, tracked), end, self.now))
    }

    fn peer(&self, other: Peer, criteria: &Criteria) -> Option<Facts> {
        let memory = self.tracker.namespace(other.namespace)?;
        Some(self.facts(memory, memory.entries().get(other.at)?, criteria).1)
    }

    /// The facts that one socket shows, and their moment.
    ///
    /// If the last sweep did not read the namespace, the local side may have probed since, as its timer predicts. Then
    /// we use the facts of the last read. If it read only other connections of the namespace, or if the sweep was slow,
    /// anything may have moved. But a connection that the path has dropped stays dropped until a sample shows an
    /// answer.
    fn facts(&self, memory: &NamespaceMemory, tracked: &TrackedConnection, criteria: &Criteria) -> (Moment, Facts) {
        let facts = |tracked, now| facts(tracked, now).with_options(self.tracker.options(tracked.inode));
        let sampled_at = tracked.sampled_at(self.now);
        if memory.is_unread() {
            return (sampled_at, facts(tracked, sampled_at));
        }
        let is_left_out = memory.is_followed() && sampled_at < self.tracker.sweep_began();
        let is_old = !memory.skipped() && self.now.since(sampled_at) >= SLOW;
        if is_left_out && !tracked.has_expired() || is_old && !is_left_out {
            return (sampled_at, facts(tracked, sampled_at));
        }
        let now = memory.unchanged_at().filter(|&at| self.now.since(at) >= SLOW).unwrap_or(self.now);
        if memory.skipped() {
            let then = facts(tracked, sampled_at);
            if keepalive(criteria.idle_timeout, &then) == Keepalive::On {
                return (sampled_at, Facts { age: tracked.age(now), ..then });
            }
        }
        (now, facts(tracked, now))
    }

    /// Adds the expected events of a connection. Returns when it is due, if its namespace has traffic.
    pub fn expect(&self, judgement: &Judgement<'_>, tracked: &TrackedConnection, expected: &mut NextChange) -> Moment {
        let Judgement { facts, as_of, criteria, keepalive, verdict, .. } = judgement;
        let lasts = lasts(criteria, *keepalive, *verdict, facts, tracked.timer_is_final());
        let after = |span: Option<Millis>| span.map_or(Moment::NEVER, |span| as_of.plus(span));
        let in_flight = tracked.timer().masks_keepalive();
        // the kernel retries a segment without a route, and no counter changes
        let due = if in_flight { self.now } else { after(lasts) };
        expected.due = expected.due.min(due);
        expected.probe = expected.probe.min(after(facts.next_probe));
        expected.acknowledgement |= facts.probing || in_flight;
        if judgement.rests_on_probes() || tracked.may_have_heartbeats() {
            return *as_of;
        }
        let idle = judgement.idle().unwrap_or_default();
        due.min(follow(idle, criteria.idle_timeout, *as_of))
    }

    /// Nothing is between two ends in one namespace. Between two namespaces of a node there is NAT if addresses are
    /// translated.
    fn is_local(&self, other: Peer) -> bool {
        other.namespace == self.id || (other.exact && self.policy.local_scope == LocalScope::Node)
    }
}

/// The direction of a connection that has ended: the read under way does not show it, or the namespace is gone.
#[must_use]
pub fn direction_before(memory: &NamespaceMemory, tracked: &TrackedConnection) -> Direction {
    if memory.had_accepted(tracked) { Direction::Inbound } else { Direction::Outbound }
}

/// The direction of a connection, and the path that it takes.
pub(super) fn route<'a>(
    policy: &'a Policy,
    memory: &NamespaceMemory,
    tracked: &TrackedConnection,
) -> (Direction, &'a Arc<Path>) {
    let (local, remote) = (memory.local(tracked), tracked.remote());
    let (direction, service_port) =
        if memory.accepted(tracked) { (Direction::Inbound, local.port) } else { (Direction::Outbound, remote.port) };
    (direction, policy.path_from(memory.id(), remote, service_port))
}

/// The facts of one socket.
#[must_use]
pub fn facts(tracked: &TrackedConnection, now: Moment) -> Facts {
    let keepalive_timer = tracked.timer() == Timer::KeepAlive;
    let unanswered = tracked.unanswered();
    Facts {
        timer: tracked.keepalive_timer(),
        keepidle: tracked.keepidle(),
        probes_after: tracked.probes_after(),
        next_probe: (keepalive_timer || tracked.timer().masks_keepalive()).then(|| tracked.expires(now)),
        probing: keepalive_timer && unanswered.probes > 0,
        wire_idle: tracked.wire_idle(now),
        data_idle: tracked.data_idle(now),
        request_idle: tracked.request_idle(now),
        last_heard: tracked.last_heard(now),
        watched: tracked.watched(now),
        age: tracked.age(now),
        unanswered,
        expired: tracked.has_expired(),
        local: false,
        peer_probes: tracked.peer_probes(now),
        heartbeats: tracked.heartbeats(now),
        peer_keepalive: None,
        peer_unanswered: false,
    }
}

/// The facts of one end, with what its peer on this node shows, so that both rows show one idle time.
fn shared(own: Facts, other: &Facts) -> Facts {
    let shorter = |own: Option<Millis>, other: Option<Millis>| own.into_iter().chain(other).min();
    Facts {
        wire_idle: shorter(own.wire_idle, other.wire_idle),
        data_idle: shorter(own.data_idle, other.data_idle),
        request_idle: shorter(own.request_idle, other.request_idle),
        watched: own.watched.min(other.watched),
        heartbeats: own.heartbeats.into_iter().chain(other.heartbeats).max_by_key(|seen| seen.watched),
        age: own.age.max(other.age),
        ..own
    }
}
