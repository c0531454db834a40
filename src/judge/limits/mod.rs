//! Limits that are measured: how long idle times were that a path survived, and how long those that it did not.
//!
//! Every idle time that ends with an answer proves that the path keeps its state for at least that long. Every one that
//! ends without an answer, or with a reset, bounds it from above, if the path is to blame and not the peer. The peer is
//! not to blame if an older connection to the same endpoint still was answered afterwards.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::assessor::route;
use super::memory::idle::{EndedBy, IdleEnd, IdleTime, SHORTEST_IDLE};
use super::memory::{Millis, Moment, NamespaceMemory, TrackedConnection, Tracker};
use super::policy::{LimitSource, Path, Policy};
use super::report::Direction;
use crate::owner::NsId;
use crate::socket::Cookie;

mod evidence;
mod learned;

use evidence::{Evidence, RestartedBy};
pub use learned::{Contradiction, LearnedLimit};

/// The most endpoints with evidence of their own.
const MAX_ENDPOINTS: usize = 1024;
/// The most breaks that wait for a proof that the peer still lives.
const MAX_BREAKS: usize = 4096;
/// How long they wait.
const WAIT: Millis = Millis::from_secs(15 * 60);

/// How long the kernel's word on a connection that is gone is waited for.
const WAIT_FOR_EVENT: Millis = Millis::from_secs(60);

/// No peer that crashes accepts connections again so soon. What a sample shows of a connection's age is less than it.
const SOONEST_RETURN: Millis = Millis::from_secs(2);

/// The peer of a connection and the port of its listening end: one machine, or what stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerEndpoint {
    /// Who connects.
    pub direction: Direction,
    /// The peer's address.
    pub remote: IpAddr,
    /// The port of the listening end.
    pub port: u16,
    /// The limit of the path, where that was read from the node.
    pub node_limit: Option<Duration>,
}

/// What was learned since the program started.
#[derive(Debug, Default)]
pub struct LearnedLimits {
    endpoints: HashMap<PeerEndpoint, Evidence>,
    /// Idle times that may have ended because the path dropped its state.
    breaks: HashMap<(NsId, Cookie), Break>,
}

/// An idle time that ended without an answer so far.
#[derive(Clone, Copy, Debug)]
struct Break {
    endpoint: PeerEndpoint,
    restarted_by: RestartedBy,
    idle: IdleTime,
    /// When the peer was last heard before.
    heard: Moment,
    /// When it did not answer.
    unanswered: Moment,
    state: BreakState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BreakState {
    /// The answer may be on its way.
    Sent,
    /// The connection is gone. How it ended is not known yet.
    Gone,
    /// It broke. The path or the peer is to blame.
    Broken,
}

impl LearnedLimits {
    /// An idle time of a connection ended.
    pub fn add(
        &mut self,
        policy: &Policy,
        (id, memory): (NsId, &NamespaceMemory),
        tracked: &TrackedConnection,
        end: &IdleEnd,
        now: Moment,
    ) {
        if end.by == EndedBy::Loss || is_local(memory, tracked) {
            return;
        }
        let key = (id, tracked.cookie());
        let (endpoint, path) = endpoint(policy, memory, tracked);
        let restarted_by = RestartedBy::of(path);
        let idle = match restarted_by {
            RestartedBy::Segment => end.on_wire,
            RestartedBy::Payload => end.of_payload,
            RestartedBy::Request => end.of_request,
        };
        let ended = |state| Break {
            endpoint,
            restarted_by,
            idle,
            heard: now.minus(tracked.last_heard(now).unwrap_or(Millis::MAX)),
            unanswered: now,
            state,
        };
        match end.by {
            EndedBy::Answer => {
                // it was the answer to what an earlier sample showed
                let survived = self.breaks.remove(&key).map_or(idle.at_least, |awaited| awaited.idle.at_least);
                if survived >= SHORTEST_IDLE {
                    self.survived(endpoint, path, survived);
                }
            }
            EndedBy::Send | EndedBy::Close if self.breaks.contains_key(&key) => {
                if let Some(awaited) = self.breaks.get_mut(&key)
                    && end.by == EndedBy::Close
                    && awaited.state == BreakState::Sent
                {
                    awaited.state = BreakState::Gone;
                }
            }
            EndedBy::Send if idle.at_most >= SHORTEST_IDLE => self.insert(key, ended(BreakState::Sent)),
            EndedBy::Close if idle.at_most >= SHORTEST_IDLE => self.insert(key, ended(BreakState::Gone)),
            EndedBy::Hang => {
                if let Some(awaited) = self.breaks.get_mut(&key) {
                    awaited.state = BreakState::Broken;
                }
            }
            EndedBy::Send | EndedBy::Close | EndedBy::Loss => {}
        }
    }

    /// Stores a break that a longer survival does not refute already.
    fn insert(&mut self, key: (NsId, Cookie), ended: Break) {
        let refuted = ended.state == BreakState::Gone && self.has_survived(ended.endpoint, ended.idle.at_most);
        if self.breaks.len() < MAX_BREAKS && !refuted {
            self.breaks.insert(key, ended);
        }
    }

    /// Whether connections to this endpoint have survived so long for so often that a single break says nothing.
    fn has_survived(&self, endpoint: PeerEndpoint, idle: Millis) -> bool {
        self.breaks.len() >= MAX_BREAKS / 2
            && self.endpoints.get(&endpoint).is_some_and(|evidence| evidence.survived.first() >= Some(&idle))
    }

    /// Connections that were reset: one, or all that went in a namespace since `begun`.
    pub fn add_resets(&mut self, resets: &[(NsId, Option<Cookie>)], begun: Moment) {
        for ((id, cookie), ended) in self.breaks.iter_mut().filter(|(_, ended)| ended.state == BreakState::Gone) {
            let all = ended.unanswered >= begun && resets.contains(&(*id, None));
            if all || resets.contains(&(*id, Some(*cookie))) {
                ended.state = BreakState::Broken;
            }
        }
    }

    /// A sweep is over: breaks count for which the peer is not to blame. What can no longer be explained is dropped.
    pub fn finish(&mut self, policy: &Policy, tracker: &Tracker, now: Moment) {
        self.breaks.retain(|_, ended| {
            let wait = if ended.state == BreakState::Gone { WAIT_FOR_EVENT } else { WAIT };
            now.since(ended.unanswered) < wait
        });
        if !self.breaks.values().any(|ended| ended.state == BreakState::Broken) {
            return;
        }
        let mut suspects: HashMap<PeerEndpoint, Vec<(NsId, Cookie)>> = HashMap::new();
        for (key, ended) in self.breaks.iter().filter(|(_, ended)| ended.state == BreakState::Broken) {
            suspects.entry(ended.endpoint).or_default().push(*key);
        }
        let remotes: HashSet<IpAddr> = suspects.keys().map(|endpoint| endpoint.remote).collect();
        for (_, memory) in tracker.namespaces() {
            for tracked in memory.connections().filter(|tracked| remotes.contains(&tracked.remote().addr)) {
                let (endpoint, _) = endpoint(policy, memory, tracked);
                let Some(keys) = suspects.get_mut(&endpoint) else { continue };
                let Some(last_heard) = tracked.last_heard(now) else { continue };
                let (born, heard) = (now.minus(tracked.age(now)), now.minus(last_heard));
                keys.retain(|key| {
                    let Some(ended) = self.breaks.get(key) else { return false };
                    let is_older = born <= ended.heard.plus(SOONEST_RETURN);
                    let peer_lives = is_older && heard >= ended.unanswered;
                    if peer_lives {
                        let evidence = self.endpoints.entry(endpoint).or_default();
                        evidence.add_broken(ended.restarted_by, ended.idle.at_most);
                        self.breaks.remove(key);
                    }
                    !peer_lives
                });
            }
        }
    }

    fn survived(&mut self, endpoint: PeerEndpoint, path: &Path, idle: Millis) {
        if !self.endpoints.contains_key(&endpoint) && self.endpoints.len() >= MAX_ENDPOINTS {
            // makes room for the stronger evidence
            let weakest = self.endpoints.iter().min_by_key(|(_, evidence)| evidence.strength());
            match weakest.map(|(endpoint, evidence)| (*endpoint, evidence.strength())) {
                Some((weakest, strength)) if strength < idle => drop(self.endpoints.remove(&weakest)),
                _ => return,
            }
        }
        self.endpoints.entry(endpoint).or_default().add_survived(RestartedBy::of(path), idle);
    }

    /// What was learned of each path, in the order of [`Policy::paths`].
    #[must_use]
    pub fn of_paths(&self, policy: &Policy) -> Vec<LearnedLimit> {
        let paths: Vec<&Arc<Path>> = policy.paths().collect();
        paths
            .iter()
            .map(|path| {
                let node_limit = (path.source == LimitSource::ReadFromNode).then_some(path.idle_timeout);
                let takes = |endpoint: &PeerEndpoint| {
                    let is_configured = || Arc::ptr_eq(policy.path(endpoint.remote, endpoint.port), path);
                    endpoint.node_limit == node_limit && (node_limit.is_some() || is_configured())
                };
                let of_path = self
                    .endpoints
                    .iter()
                    .filter(|(endpoint, evidence)| evidence.restarted_by == RestartedBy::of(path) && takes(endpoint));
                LearnedLimit::of(path.idle_timeout.into(), of_path)
            })
            .collect()
    }
}

/// The peer and its endpoint, and the path to it.
fn endpoint<'a>(
    policy: &'a Policy,
    memory: &NamespaceMemory,
    tracked: &TrackedConnection,
) -> (PeerEndpoint, &'a Arc<Path>) {
    let (direction, path) = route(policy, memory, tracked);
    let port = if direction == Direction::Inbound { tracked.local_port } else { tracked.remote().port };
    let node_limit = (path.source == LimitSource::ReadFromNode).then_some(path.idle_timeout);
    (PeerEndpoint { direction, remote: tracked.remote().addr, port, node_limit }, path)
}

/// Whether nothing between the two ends drops idle connections.
fn is_local(memory: &NamespaceMemory, tracked: &TrackedConnection) -> bool {
    let remote = tracked.remote().addr;
    tracked.is_local() || remote.is_loopback() || remote == memory.local(tracked).addr
}
