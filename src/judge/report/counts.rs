//! Numbers of one sweep: namespaces by result, connections by owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Direction, Millis, Path, ServiceEndpoint, Waits};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::Owner;

/// The number of namespaces in one sweep, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// Entered and dumped.
    pub dumped: u64,
    /// Without connections, so not dumped.
    pub empty: u64,
    /// With the same connections as in their last dump, which were looked up one by one.
    pub looked_up: u64,
    /// Unchanged since the last read, so skipped.
    pub skipped: u64,
    /// Gone after they were found and before they were entered.
    pub vanished: u64,
    /// Not readable.
    pub failed: u64,
}

/// Namespaces that could not be read in this sweep and are reported as last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Their number.
    pub namespaces: u64,
    /// Their connections.
    pub connections: u64,
    /// The time since the oldest of these reads.
    pub age: Millis,
}

/// The counts of one owner's connections in one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// By keepalive state and verdict, in the order of their `ALL`.
    pub counts: [[u64; Verdict::COUNT]; Keepalive::COUNT],
    /// The longest wire idle of a flagged connection.
    pub flagged_wire_idle_max: Option<Millis>,
    /// Flagged connections by endpoint, path and verdict. Endpoints beyond [`MAX_ENDPOINTS`] count as `None`.
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

/// The number of distinct endpoints in one owner's tally for one direction.
pub const MAX_ENDPOINTS: usize = 1024;

/// The counts of one sweep, over the connections that the policy selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Connections under an ignore rule.
    pub ignored: u64,
    /// Connections that were judged and are not selected.
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
