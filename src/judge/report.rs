//! The report that every output format renders: findings, tallies, and the health of the sweep.

mod counts;
mod totals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::counts::{Counts, MAX_ENDPOINTS, NamespaceCounts, Stale, Tally};
pub use self::totals::{EndedTotals, OwnerEnds, PodCounters, Totals};
pub use super::ends::{Outcome, Outcomes};
pub use super::limits::{Contradiction, LearnedLimit, PeerEndpoint};
pub use super::memory::heartbeat::Heartbeats;
pub use super::memory::heartbeat::kinds::Protocol as HeartbeatsOf;
pub use super::memory::{Millis, PeerProbes, Unanswered, Waits};
pub use super::policy::node_limits::Cloud;
pub use super::policy::{LimitSource, OverdueBy, Path, RefreshedBy};
use super::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, NsId, Owner};
use crate::socket::{Cookie, Endpoint, KeepaliveOptions, Timer};

/// The direction of a connection. It is inbound if a socket listens on its local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Accepted by the local side.
    Inbound,
    /// Opened by the local side.
    Outbound,
}

impl Direction {
    /// The label and JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The listening end of a connection: `ip:port` of an outbound one, `:port` of an inbound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceEndpoint {
    /// The endpoint of another process or machine.
    Remote(Endpoint),
    /// The port of the local side.
    Local(u16),
}

impl std::fmt::Display for ServiceEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Remote(endpoint) => endpoint.fmt(f),
            Self::Local(port) => write!(f, ":{port}"),
        }
    }
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not on its own")]
pub struct PeerFacts {
    /// Its probes, as this socket shows them.
    pub probes: Option<PeerProbes>,
    /// Whether it is a socket of this node.
    pub on_node: bool,
    /// Whether it is a socket of the same network namespace.
    pub same_namespace: bool,
    /// Whether it is on this node behind NAT.
    pub translated: bool,
    /// Its keepalive by this path's idle timeout, if it is on this node.
    pub keepalive: Option<Keepalive>,
    /// What it sends is not answered, if it is on this node.
    pub unanswered: bool,
}

/// The judgement of one established connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The network namespace of the socket.
    pub netns: NsId,
    /// The name of that namespace's bind mount.
    pub netns_name: Option<Arc<str>>,
    /// The owner.
    pub owner: Arc<Owner>,
    /// The local endpoint.
    pub local: Endpoint,
    /// The peer's endpoint.
    pub remote: Endpoint,
    /// The direction.
    pub direction: Direction,
    /// The timer that the kernel reports.
    pub timer: Timer,
    /// The time until it fires. `None` without a timer.
    pub expires: Option<Millis>,
    /// Segments of the local side that the peer has not answered.
    pub unanswered: Unanswered,
    /// What the local side does.
    pub keepalive: Keepalive,
    /// Lower bound of KEEPIDLE.
    pub keepidle: Option<Millis>,
    /// A lower bound of the longer one of KEEPIDLE and KEEPINTVL: the longest idle time before a probe of the local
    /// side.
    pub probes_after: Option<Millis>,
    /// The actual socket options, if they were requested and could be read.
    pub exact: Option<KeepaliveOptions>,
    /// The process that holds the socket, if it was requested and found.
    pub holder: Option<Arc<Holder>>,
    /// The sweep searched for that process. If it found none, no process that could be read holds the socket.
    pub is_holder_sought: bool,
    /// Whether the socket is in the host's network namespace. `None` if the sweep did not find out which one that is.
    pub host_network: Option<bool>,
    /// The time since the last payload byte.
    pub data_idle: Option<Millis>,
    /// A lower bound of the time since the last payload that was not an HTTP/2 PING frame.
    pub request_idle: Option<Millis>,
    /// The time since the last known segment.
    pub wire_idle: Option<Millis>,
    /// The time since the last known segment from the peer.
    pub last_heard: Option<Millis>,
    /// The time for which we have watched the connection without traffic.
    pub watched: Millis,
    /// Lower bound of the age.
    pub age: Millis,
    /// The local side sent last, and the peer has sent nothing since.
    pub waiting_for_reply: bool,
    /// The path.
    pub path: Arc<Path>,
    /// What is known of the peer.
    pub peer: PeerFacts,
    /// The application's heartbeats, if some were seen.
    pub heartbeats: Option<Heartbeats>,
    /// The verdict.
    pub verdict: Verdict,
    /// What makes this connection overdue.
    pub overdue_by: OverdueBy,
    /// The namespace's `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
    /// The socket's user id.
    pub uid: u32,
    /// The socket's inode.
    pub inode: u32,
    /// The socket's cookie.
    pub cookie: Cookie,
    /// The time for which its namespace could not be read. Then it is reported as last seen.
    pub stale: Option<Millis>,
}

impl Finding {
    /// The listening end.
    #[must_use]
    pub fn endpoint(&self) -> ServiceEndpoint {
        match self.direction {
            Direction::Outbound => ServiceEndpoint::Remote(self.remote),
            Direction::Inbound => ServiceEndpoint::Local(self.local.port),
        }
    }

    /// The time since something last refreshed the path.
    #[must_use]
    pub fn idle(&self) -> Option<Millis> {
        match self.path.refreshed_by {
            RefreshedBy::Segment => self.wire_idle,
            RefreshedBy::Payload if self.path.reads_http2 => self.request_idle,
            RefreshedBy::Payload => self.data_idle,
        }
    }

    /// HTTP/2 PING frames come, and the path does not count them.
    #[must_use]
    pub fn has_uncounted_pings(&self) -> bool {
        let reads_http2 = self.path.reads_http2 && self.path.refreshed_by == RefreshedBy::Payload;
        let seen = |seen: Heartbeats| seen.protocol == HeartbeatsOf::Http2 && seen.longest_gap > Millis::ZERO;
        reads_http2 && self.heartbeats.is_some_and(seen)
    }

    /// The count that belongs to the timer: retransmissions or unanswered probes.
    #[must_use]
    pub fn timer_retransmits(&self) -> u8 {
        match self.timer {
            Timer::Retransmit => self.unanswered.retransmits,
            Timer::KeepAlive | Timer::Persist => self.unanswered.probes,
            _ => 0,
        }
    }
}

/// The judgement of one sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// The wall clock at the start, in milliseconds since the Unix epoch.
    pub started_at: u64,
    /// The duration of the sweep.
    pub duration: Millis,
    /// The time for which connections were watched before this judgement.
    pub watched_for: Millis,
    /// The namespaces by result.
    pub namespaces: NamespaceCounts,
    /// Established connections that were judged.
    pub connections: u64,
    /// Connections under an ignore rule.
    pub ignored: u64,
    /// Connections that were judged and are not selected.
    pub not_shown: u64,
    /// Whether something could not be read. `losses` has the details.
    pub incomplete: bool,
    /// Whether the counts say nothing about the node: nothing could be read, or namespaces may have been missed because
    /// something could not be listed.
    pub is_blind: bool,
    /// The namespaces that are reported as last seen.
    pub stale: Stale,
    /// Why something could not be read in this sweep: each reason with its first loss.
    pub failures: BTreeMap<&'static str, String>,
    /// By verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u64; Verdict::COUNT],
    /// Connections whose details were left out.
    pub truncated: u64,
    /// Connections in detail, worst first. Empty if the caller gets them one by one.
    pub findings: Vec<Finding>,
    /// Counts by owner and direction.
    pub tallies: Arc<BTreeMap<(Arc<Owner>, Direction), Tally>>,
    /// Half-closed sockets that processes hold, by owner: counted, not judged.
    pub half_closed: BTreeMap<(Arc<Owner>, Waits), u64>,
    /// Counters of pods' namespaces, by owner.
    pub pods: BTreeMap<Arc<Owner>, PodCounters>,
    /// The host namespace's `net.ipv4.tcp_keepalive_time` in seconds. No pod inherits it.
    pub node_tcp_keepalive_time: Option<u32>,
    /// What the node says about idle timeouts.
    pub node_limits: NodeLimitFacts,
    /// Every path and its idle timeout.
    pub paths: Vec<Arc<Path>>,
    /// What was measured of each of these.
    pub learned: Vec<LearnedLimit>,
    /// Sentences about the losses, at most [`MAX_LOSSES`].
    pub losses: Vec<String>,
    /// Connections in the memory.
    pub tracked: u64,
    /// The totals since the start of the program.
    pub totals: Totals,
}

/// What the node says about idle timeouts: facts, whether a path follows from them or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLimitFacts {
    /// Whether they may shorten the default path.
    pub is_used: bool,
    /// The limit of the host's conntrack, where that follows connections.
    pub conntrack: Option<Duration>,
    /// The shortest limit of the conntrack of any other namespace.
    pub shortest_conntrack_elsewhere: Option<Duration>,
    /// The established timeout of IPVS.
    pub ipvs: Option<Duration>,
    /// The cloud that the firmware names.
    pub cloud: Option<Cloud>,
    /// What could not be read, for people.
    pub unread: Vec<String>,
}

impl NodeLimitFacts {
    /// The shortest limit of the node itself.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        self.conntrack.into_iter().chain(self.ipvs).min()
    }
}

/// The number of losses that a report has as sentences.
pub const MAX_LOSSES: usize = 20;

impl Report {
    /// The number of connections with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize]
    }

    /// The number of half-closed sockets that wait for this.
    #[must_use]
    pub fn half_closed(&self, waits: Waits) -> u64 {
        self.half_closed.iter().filter(|((_, of), _)| *of == waits).map(|(_, count)| count).sum()
    }

    /// The number of flagged connections.
    #[must_use]
    pub fn flagged(&self) -> u64 {
        Verdict::ALL.into_iter().filter(|verdict| verdict.flagged()).map(|verdict| self.count(verdict)).sum()
    }
}
