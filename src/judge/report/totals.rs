//! Numbers that grow: the kernel's counters of a pod, and the totals since the start of the program.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Direction, Outcomes};
use crate::judge::idle_times::IdleTimeHistogram;
use crate::judge::memory::Moment;
use crate::owner::{NsId, Owner};

/// The sysctl and the counters of a pod's namespace.
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

/// The totals since the start of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Sweeps that ended.
    pub sweeps: u64,
    /// Dumps during which the table changed, or that the kernel ended with an error.
    pub dumps_interrupted: u64,
    /// Namespaces that could not be read, by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// The issues in the search for owners, by kind.
    pub owner_issues: BTreeMap<String, u64>,
    /// The idle times that ended.
    pub idle_times: IdleTimeHistogram,
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
