//! When a sweep need not read a namespace: nothing moved since the last read that could change a verdict, and none
//! changes by time alone.
//!
//! A dump walks the host's whole table of connections, whatever namespace it is for. The namespace's own counters cost
//! a hundredth of that, and they count every segment. Unmoved counters prove that each connection is as the last read
//! found it: none opened, closed, spoke, was probed or answered. The kernel counts keepalive probes of the local side
//! apart (`TCPKeepAlive`). If only these and as many answers moved, they belong to connections that the local side
//! keeps alive, and all others were as idle as before. A probe without an answer makes a read.
//!
//! No counter shows a socket option that a program sets on an open connection. The next read shows it,
//! [`longest`](Baseline::holds) later at most. A verdict that time changes (`young`, `exposed`, `overdue`) never comes
//! from memory: a sweep reads the namespace when the first of them is due.
//!
//! A read need not be a dump. If the counters say that no connection came or went, the stored ones are all there are.
//! The host looks them up one by one, if that costs less than the last dump did. One that it does not find makes it a
//! dump.

use std::time::Duration;

use super::clock::{Millis, Moment};

/// After this long a sweep dumps connections instead of looking them up. Only a dump shows a listener that has gone,
/// and a connection that opened in the moment in which another closed that its peer had closed before.
const DUMP_AFTER: Millis = Millis::from_secs(600);
/// A sweep dumps more connections than this. A walk of the kernel's largest table costs some milliseconds, a lookup
/// some microseconds.
const MOST_LOOKED_UP: usize = 2000;

/// What a namespace's counters say of all its connections together. All but `established` only rise.
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
    /// Whether the connections are those of `before`: none opened, and as many are there.
    #[must_use]
    pub fn same_connections(&self, before: &Self) -> bool {
        (self.opens, self.established) == (before.opens, before.established)
    }

    /// Whether nothing moved since `before` but keepalive probes of the local side, and one answer to each.
    ///
    /// Whatever else arrives for an established connection is answered, ends it, or belongs to data that was just on
    /// the wire: an acknowledgement, a change of the window.
    #[must_use]
    pub fn only_probes_since(&self, before: &Self) -> bool {
        let probes = self.probes.wrapping_sub(before.probes);
        self.same_connections(before)
            && self.retransmitted == before.retransmitted
            && self.segs_out.wrapping_sub(before.segs_out) == probes
            && self.segs_in.wrapping_sub(before.segs_in) == probes
    }
}

/// The last whole read of a namespace's connections, and how long it holds.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// The counters before it: what moved while it went on counts as movement after it.
    pub activity: Activity,
    /// When it began.
    pub at: Moment,
    /// What its judgement expects.
    pub next_change: NextChange,
}

/// What is expected of connections on which nothing moves but the local side's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextChange {
    /// When time alone will change a verdict.
    pub due: Moment,
    /// When the first keepalive timer fires. A probe before that comes from an option that was set since.
    pub probe: Moment,
    /// An acknowledgement is to come: of data that was in flight, or of a probe.
    pub acknowledgement: bool,
}

impl Default for NextChange {
    /// Nothing.
    fn default() -> Self {
        Self { due: Moment::NEVER, probe: Moment::NEVER, acknowledgement: false }
    }
}

/// The last dump of a namespace, which may be older than the last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpCost {
    /// When it began.
    pub at: Moment,
    /// The CPU time that it cost.
    pub cost: Duration,
}

impl Baseline {
    /// Whether the namespace, with these counters at `now`, is still as the read found it, and that read is not older
    /// than `longest`.
    #[must_use]
    pub fn holds(&self, activity: &Activity, now: Moment, longest: Millis) -> bool {
        let NextChange { due, probe, acknowledgement } = self.next_change;
        // an acknowledgement could hide behind a later probe that has no answer
        let unmoved = if acknowledgement || now < probe {
            *activity == self.activity
        } else {
            activity.only_probes_since(&self.activity)
        };
        now < due && now.since(self.at) < longest && unmoved
    }

    /// Whether it is cheaper to look up its `stored` connections than to dump the namespace again. The namespace's
    /// counters say `activity` at `now`, and one lookup costs `each`.
    #[must_use]
    pub fn can_be_renewed(
        &self,
        activity: &Activity,
        now: Moment,
        dump: DumpCost,
        stored: usize,
        each: Duration,
    ) -> bool {
        activity.same_connections(&self.activity)
            && now.since(dump.at) < DUMP_AFTER
            && stored <= MOST_LOOKED_UP
            && u32::try_from(stored).is_ok_and(|stored| each.saturating_mul(stored) < dump.cost)
    }
}
