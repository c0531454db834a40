//! Decides whether a sweep may skip a namespace: no traffic since the last read could change a verdict, and no verdict
//! changes by time alone.
//!
//! A dump walks the host's whole table of connections, whatever namespace it is for. The namespace's own counters cost
//! a hundredth of that, and they count every segment. Unchanged counters prove that each connection is as the last read
//! found it: none opened, closed, sent, was probed or answered. The kernel counts keepalive probes of the local side
//! apart (`TCPKeepAlive`). If only these and as many answers moved, they belong to connections that the local side
//! keeps alive, and all others were as idle as before. A probe without an answer makes a read.
//!
//! No counter shows a socket option that a program sets on an open connection. The next read shows it, after
//! [`longest`](Baseline::holds) at most. If time alone will change a verdict (`young`, `exposed`, `overdue`), the sweep
//! reads the namespace at that moment.
//!
//! A read is not always a dump. If the counters show that no connection was opened or closed, the stored connections
//! are complete. The host looks them up one by one if that costs less than the last dump. If it does not find one of
//! them, it dumps the namespace.

use std::time::Duration;

use super::clock::{Millis, Moment};

/// After this time a sweep dumps the connections instead of looking them up. Only a dump shows a removed listener. And
/// only a dump shows a new connection that opened in the same moment in which a half-closed one ended.
const DUMP_AFTER: Millis = Millis::from_secs(600);
/// The same on a node with many connections, where every dump takes milliseconds.
const DUMP_AFTER_OF_MANY: Millis = Millis::from_secs(1800);
/// A sweep dumps more connections than this. A walk of the kernel's largest table costs some milliseconds, a lookup
/// some microseconds.
const MOST_LOOKED_UP: usize = 2000;

/// The counters of a namespace, over all its connections. All of them only rise, except `established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// `Tcp: ActiveOpens` and `PassiveOpens`: connections that opened.
    pub opens: u64,
    /// `Tcp: CurrEstab`: connections in ESTABLISHED or CLOSE-WAIT.
    pub established: u64,
    /// `Tcp: InSegs`.
    pub segs_in: u64,
    /// `Tcp: OutSegs`: all but pure retransmissions.
    pub segs_out: u64,
    /// `Tcp: RetransSegs`.
    pub retransmitted: u64,
    /// `TcpExt: TCPKeepAlive`: keepalive probes sent, which are among `segs_out`.
    pub probes: u64,
}

impl Activity {
    /// Whether the connections are those of `before`: none was opened, and their number is the same.
    #[must_use]
    pub fn same_connections(&self, before: &Self) -> bool {
        (self.opens, self.established) == (before.opens, before.established)
    }

    /// Whether the only traffic since `before` was keepalive probes of the local side, and one answer to each.
    ///
    /// Any other segment for an established connection is answered, ends the connection, or belongs to data in flight
    /// (an acknowledgement or a window update).
    #[must_use]
    pub fn only_probes_since(&self, before: &Self) -> bool {
        let probes = self.probes.wrapping_sub(before.probes);
        self.same_connections(before)
            && self.retransmitted == before.retransmitted
            && self.segs_out.wrapping_sub(before.segs_out) == probes
            && self.segs_in.wrapping_sub(before.segs_in) == probes
    }
}

/// The last whole read of a namespace's connections, and how long it holds. It is renewed where the counters prove that
/// what was left out is as the last whole read found it.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// The counters before the read. So traffic during the read counts as traffic after it.
    pub activity: Activity,
    /// When it began.
    pub at: Moment,
    /// When the last read of all connections began.
    pub whole_at: Moment,
    /// What its judgement expects.
    pub next_change: NextChange,
    /// There was traffic since, and only connections that are due are read until the next whole read. The counters can
    /// never prove again that nothing has changed: traffic that is not a probe stays counted.
    pub is_followed: bool,
    /// There was no complete read before it. All namespaces of a node may have been read first in one sweep.
    pub is_first: bool,
}

/// The events that are expected on connections without traffic except the local side's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextChange {
    /// When time alone will change a verdict.
    pub due: Moment,
    /// When the first keepalive timer fires. An earlier probe shows that a program has set an option since.
    pub probe: Moment,
    /// An acknowledgement is still expected, for data in flight or for a probe.
    pub acknowledgement: bool,
}

impl Default for NextChange {
    /// No expected event.
    fn default() -> Self {
        Self { due: Moment::NEVER, probe: Moment::NEVER, acknowledgement: false }
    }
}

/// The last dump of a namespace, which may be older than the last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpCost {
    /// When it began.
    pub at: Moment,
    /// Its CPU time.
    pub cost: Duration,
}

impl Baseline {
    /// Whether these counters at `now` prove that the namespace is as the last read found it, and that read is not
    /// older than `longest`.
    #[must_use]
    pub fn holds(&self, activity: &Activity, now: Moment, longest: Millis) -> bool {
        if self.is_followed {
            return false;
        }
        let NextChange { due, probe, acknowledgement } = self.next_change;
        // the counters cannot separate this acknowledgement from the missing answer to a later probe
        let unmoved = if acknowledgement || now < probe {
            *activity == self.activity
        } else {
            activity.only_probes_since(&self.activity)
        };
        now < due && now.since(self.at) < longest && unmoved
    }

    /// Whether it is enough to read the connections that are due: see [`due`](super::due). Any of the others may have
    /// sent a segment again, which then has no answer.
    #[must_use]
    pub fn can_be_followed(&self, activity: &Activity, now: Moment, longest: Millis) -> bool {
        activity.same_connections(&self.activity)
            && activity.retransmitted == self.activity.retransmitted
            && now.since(self.at) < longest
    }

    /// Whether it is cheaper to look up the `stored` connections than to dump the namespace again. `activity` are the
    /// namespace's counters at `now`, and `each` is the cost of one lookup. `follows`: the node has many connections.
    #[must_use]
    pub fn can_be_renewed(
        &self,
        activity: &Activity,
        now: Moment,
        dump: DumpCost,
        stored: usize,
        each: Duration,
        follows: bool,
    ) -> bool {
        activity.same_connections(&self.activity)
            && now.since(dump.at) < if follows { DUMP_AFTER_OF_MANY } else { DUMP_AFTER }
            && stored <= MOST_LOOKED_UP
            && u32::try_from(stored).is_ok_and(|stored| each.saturating_mul(stored) < dump.cost)
    }
}
