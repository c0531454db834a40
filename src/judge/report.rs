//! What a face may read: findings, tallies, and the health of the sweep that made them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use super::ends::{Outcome, Outcomes};
pub use super::limits::{Contradiction, LearnedLimit, PeerEndpoint};
use super::memory::Moment;
pub use super::memory::heartbeat::Heartbeats;
pub use super::memory::heartbeat::kinds::Protocol as HeartbeatsOf;
pub use super::memory::{Millis, PeerProbes, Unanswered, Waits};
pub use super::policy::node_limits::Cloud;
pub use super::policy::{LimitSource, OverdueBy, Path, RefreshedBy};
use super::silence::SilenceHistogram;
use super::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, NsId, Owner};
use crate::socket::{Cookie, Endpoint, KeepaliveOptions, Timer};

/// Who opened a connection: it is inbound where a socket listens on its local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Accepted here.
    Inbound,
    /// Opened here.
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
    /// Somebody else's.
    Remote(Endpoint),
    /// Our own port.
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
pub struct PeerFacts {
    /// Its probes, as this socket showed them.
    pub probes: Option<PeerProbes>,
    /// It is a socket of this node.
    pub on_node: bool,
    /// It is a socket of the same network namespace.
    pub same_namespace: bool,
    /// On this node, with an address translated between the two.
    pub translated: bool,
    /// Its keepalive, judged by this path's idle timeout, where it is on this node.
    pub keepalive: Option<Keepalive>,
}

/// One established connection, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The network namespace it lives in.
    pub netns: NsId,
    /// The name of that namespace's bind mount.
    pub netns_name: Option<Arc<str>>,
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// The local endpoint.
    pub local: Endpoint,
    /// The peer's endpoint.
    pub remote: Endpoint,
    /// Who opened it.
    pub direction: Direction,
    /// The timer that the kernel reports.
    pub timer: Timer,
    /// Until it fires; absent without a timer.
    pub expires: Option<Millis>,
    /// What the local side sent and the peer has not answered.
    pub unanswered: Unanswered,
    /// What the local side does.
    pub keepalive: Keepalive,
    /// Lower bound of KEEPIDLE.
    pub keepidle: Option<Millis>,
    /// Lower bound of the longest idle time before a probe of the local side: of the longer one of KEEPIDLE and
    /// KEEPINTVL.
    pub probes_after: Option<Millis>,
    /// The socket options themselves, where they were asked for and could be read.
    pub exact: Option<KeepaliveOptions>,
    /// The process that holds the socket, where it was asked for and could be found.
    pub holder: Option<Arc<Holder>>,
    /// Since the last payload byte.
    pub data_idle: Option<Millis>,
    /// Since the last segment that we know of.
    pub wire_idle: Option<Millis>,
    /// Since the last segment from the peer that we know of.
    pub last_heard: Option<Millis>,
    /// How long we have watched nothing move.
    pub watched: Millis,
    /// Lower bound of the age.
    pub age: Millis,
    /// We sent last, and nothing came back since.
    pub waiting_for_reply: bool,
    /// The path it takes.
    pub path: Arc<Path>,
    /// What is known of the peer.
    pub peer: PeerFacts,
    /// The application's heartbeats, where some were seen.
    pub heartbeats: Option<Heartbeats>,
    /// The verdict.
    pub verdict: Verdict,
    /// What makes a connection overdue, here.
    pub overdue_by: OverdueBy,
    /// The namespace's `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
    /// The socket's user id.
    pub uid: u32,
    /// The socket's inode.
    pub inode: u32,
    /// The socket's cookie.
    pub cookie: Cookie,
    /// For how long its namespace could not be read: it is reported as it was last seen.
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

    /// The count that belongs to the timer: retransmissions, or probes without an answer.
    #[must_use]
    pub fn timer_retransmits(&self) -> u8 {
        match self.timer {
            Timer::Retransmit => self.unanswered.retransmits,
            Timer::KeepAlive | Timer::Persist => self.unanswered.probes,
            _ => 0,
        }
    }
}

/// What became of the namespaces of one sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// Entered and dumped.
    pub dumped: u64,
    /// Without connections, so not dumped.
    pub empty: u64,
    /// With the same connections as at their last dump, which were looked up one by one.
    pub looked_up: u64,
    /// Unchanged since the last look, so left alone.
    pub skipped: u64,
    /// Gone between finding and entering.
    pub vanished: u64,
    /// Not readable.
    pub failed: u64,
}

/// Namespaces that could not be read in this sweep and are reported as they were last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// How many.
    pub namespaces: u64,
    /// Their connections.
    pub connections: u64,
    /// Since the oldest of these reads.
    pub age: Millis,
}

/// The counts of one owner's connections in one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// By keepalive state and verdict, in the order of their `ALL`.
    pub counts: [[u64; Verdict::COUNT]; Keepalive::COUNT],
    /// The longest wire idle of a flagged connection.
    pub flagged_wire_idle_max: Option<Millis>,
    /// Flagged connections by endpoint, path and verdict. Past [`MAX_ENDPOINTS`] distinct ones the rest count under
    /// `None`.
    pub endpoints: BTreeMap<(Option<ServiceEndpoint>, Arc<Path>, Verdict), u64>,
}

impl Tally {
    /// Adds another owner's counts to these.
    pub fn add(&mut self, other: Self) {
        for (sum, more) in self.counts.iter_mut().flatten().zip(other.counts.into_iter().flatten()) {
            *sum += more;
        }
        self.flagged_wire_idle_max = self.flagged_wire_idle_max.max(other.flagged_wire_idle_max);
        for (key, count) in other.endpoints {
            let room = self.endpoints.len() < MAX_ENDPOINTS || self.endpoints.contains_key(&key);
            let key = if room { key } else { (None, key.1, key.2) };
            *self.endpoints.entry(key).or_default() += count;
        }
    }
}

/// How many distinct endpoints one owner's tally keeps apart in one direction.
pub const MAX_ENDPOINTS: usize = 1024;

/// What a pod's namespace says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounters {
    /// `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
    /// `EstabResets`.
    pub estab_resets: Option<u64>,
    /// `TCPAbortOnTimeout`.
    pub abort_on_timeout: Option<u64>,
    /// `TCPKeepAlive`.
    pub keepalive_probes: Option<u64>,
}

/// What has added up since the program started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Sweeps that ended.
    pub sweeps: u64,
    /// Dumps during which the table changed, or that the kernel ended with an error.
    pub dumps_interrupted: u64,
    /// Namespaces that could not be read, by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// What went wrong while owners were looked up, by kind.
    pub owner_issues: BTreeMap<String, u64>,
    /// The silences that ended.
    pub silences: SilenceHistogram,
    /// The flagged connections that ended.
    pub ended: EndedTotals,
}

/// How flagged connections ended since the program started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndedTotals {
    /// Of the whole node.
    pub node: Outcomes,
    /// By owner and direction.
    pub owners: BTreeMap<(Arc<Owner>, Direction), OwnerEnds>,
}

/// How the flagged connections of one owner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerEnds {
    /// How many, by outcome.
    pub outcomes: Outcomes,
    /// The network namespace of the last one.
    pub namespace: NsId,
    /// When the owner last had a connection.
    pub at: Moment,
    /// The owner is gone. Its counts stay in the sums of workloads and namespaces, which must not fall.
    pub is_gone: bool,
}

/// What one sweep counted of the connections that the policy selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Connections under an ignore rule.
    pub ignored: u64,
    /// Connections that were judged and are not among those to show.
    pub not_shown: u64,
    /// By verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u64; Verdict::COUNT],
    /// Connections whose details were left out.
    pub truncated: u64,
    /// By owner and direction.
    pub tallies: Arc<BTreeMap<(Arc<Owner>, Direction), Tally>>,
    /// Half-closed sockets that processes hold, by owner: counted, not judged.
    pub half_closed: BTreeMap<(Arc<Owner>, Waits), u64>,
}

impl Counts {
    /// Established connections that were judged.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.verdicts.iter().sum()
    }
}

/// One sweep, judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// Wall clock at the start, milliseconds since the Unix epoch.
    pub started_at: u64,
    /// How long the sweep took.
    pub duration: Millis,
    /// How long connections were watched before this judgement.
    pub watched_for: Millis,
    /// What became of the namespaces.
    pub namespaces: NamespaceCounts,
    /// Established connections that were judged.
    pub connections: u64,
    /// Connections under an ignore rule.
    pub ignored: u64,
    /// Connections that were judged and are not among those to show.
    pub not_shown: u64,
    /// Something could not be read; `losses` says what.
    pub incomplete: bool,
    /// Nothing could be read, or namespaces may be hidden behind what could not be listed: the counts say nothing about
    /// the node.
    pub is_blind: bool,
    /// What is reported as it was last seen.
    pub stale: Stale,
    /// Why something could not be read in this sweep: reason, and the first loss with it.
    pub failures: BTreeMap<&'static str, String>,
    /// By verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u64; Verdict::COUNT],
    /// Connections whose details were left out.
    pub truncated: u64,
    /// Connections in detail, worst first; empty where they are made one by one.
    pub findings: Vec<Finding>,
    /// Counts by owner and direction.
    pub tallies: Arc<BTreeMap<(Arc<Owner>, Direction), Tally>>,
    /// Half-closed sockets that processes hold, by owner: counted, not judged.
    pub half_closed: BTreeMap<(Arc<Owner>, Waits), u64>,
    /// Counters of pods' namespaces, by owner.
    pub pods: BTreeMap<Arc<Owner>, PodCounters>,
    /// The host namespace's `net.ipv4.tcp_keepalive_time`, seconds; no pod inherits it.
    pub node_tcp_keepalive_time: Option<u32>,
    /// What the node says about idle timeouts.
    pub node_limits: NodeLimitFacts,
    /// Every path and its idle timeout.
    pub paths: Vec<Arc<Path>>,
    /// What was measured of each of these.
    pub learned: Vec<LearnedLimit>,
    /// What could not be read, for people, at most [`MAX_LOSSES`].
    pub losses: Vec<String>,
    /// Connections in the memory.
    pub tracked: u64,
    /// Since the start of the program.
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

/// How many losses a report spells out.
pub const MAX_LOSSES: usize = 20;

impl Report {
    /// How many connections have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize]
    }

    /// How many half-closed sockets wait for this.
    #[must_use]
    pub fn half_closed(&self, waits: Waits) -> u64 {
        self.half_closed.iter().filter(|((_, of), _)| *of == waits).map(|(_, count)| count).sum()
    }

    /// How many connections are flagged.
    #[must_use]
    pub fn flagged(&self) -> u64 {
        Verdict::ALL.into_iter().filter(|verdict| verdict.flagged()).map(|verdict| self.count(verdict)).sum()
    }
}
