//! When a namespace need not be dumped: nothing moved since the last look at it that could change a verdict, and none changes by time alone.
//!
//! A dump walks the host's whole table of connections, whatever namespace it is for; the namespace's own counters cost a hundredth of that.
//! They count every segment, so that unmoved counters prove that each connection is as it was at the last dump: none opened, closed, spoke,
//! was probed or answered. Keepalive probes of this end are counted apart (`TCPKeepAlive`); where they and their answers are all that
//! moved, they belong to connections that this end keeps alive, and everything else was as silent as before.
//!
//! What no counter shows is a socket option that is set on an open connection: it is seen at the next look, [`longest`] later at most. A verdict
//! that time changes (`young`, `exposed`, `overdue`) is never told from memory: there is another look when the first of them is due.
//!
//! A look need not be a dump. Where the counters say that no connection came or went, the ones that are known are all there are, and are looked up
//! one by one if that costs less than the last dump did. One that is not found makes it a dump.

/// After this long connections are not looked up any more but dumped, milliseconds. What only a dump shows is a listener that has gone, and a
/// connection that opened in the moment in which another closed that the peer had closed before.
const DUMP_AFTER_MS: u64 = 600_000;
/// More connections than this are dumped. A walk of the kernel's largest table costs some milliseconds, a lookup some microseconds.
const MOST_KNOWN: usize = 2000;

/// What a namespace's counters say of all its connections, without a look at any. All but `established` only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// `Tcp: ActiveOpens` and `PassiveOpens`: connections that were begun.
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
    /// Whether the connections are those of `before`: none was begun, and as many are there.
    #[must_use]
    pub fn same_connections(&self, before: &Self) -> bool {
        (self.opens, self.established) == (before.opens, before.established)
    }

    /// Whether nothing moved since `before` but keepalive probes of this end, and answers to them.
    ///
    /// Whatever else arrives for an established connection is answered, ends it, or belongs to data that was just on the wire: an acknowledgement, a
    /// change of the window. An answer that is still to come when this is asked (a delayed acknowledgement, hidden behind a probe without an
    /// answer) is counted when it is asked again.
    #[must_use]
    pub fn only_probes_since(&self, before: &Self) -> bool {
        let probes = self.probes.wrapping_sub(before.probes);
        self.same_connections(before)
            && self.retransmitted == before.retransmitted
            && self.segs_out.wrapping_sub(before.segs_out) == probes
            && self.segs_in.wrapping_sub(before.segs_in) <= probes
    }
}

/// The last whole look at a namespace's connections, and for how long it holds.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// The counters before it: what moved while it went on counts as movement after it.
    pub activity: Activity,
    /// When it began, monotonic milliseconds.
    pub at: u64,
    /// What it leads to expect.
    pub next_change: NextChange,
}

/// What is expected of connections on which nothing moves but this end's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextChange {
    /// When time alone will change a verdict, monotonic milliseconds.
    pub due: u64,
    /// When the first keepalive timer fires, monotonic milliseconds: a probe before that is one of an option that was set meanwhile.
    pub probe: u64,
    /// An acknowledgement is to come: of data that was in flight, or of a probe.
    pub acknowledgement: bool,
}

impl Default for NextChange {
    /// Nothing.
    fn default() -> Self {
        Self { due: u64::MAX, probe: u64::MAX, acknowledgement: false }
    }
}

/// The last dump of a namespace, which may be older than the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpCost {
    /// When it began, monotonic milliseconds.
    pub at: u64,
    /// What it cost, microseconds of CPU.
    pub cost: u64,
}

impl Baseline {
    /// Whether the namespace, with these counters at `now` (monotonic milliseconds), is still as the look found it, and that look not older
    /// than `longest` milliseconds.
    #[must_use]
    pub fn holds(&self, activity: &Activity, now: u64, longest: u64) -> bool {
        let NextChange { due, probe, acknowledgement } = self.next_change;
        // an acknowledgement could hide behind a later probe that has no answer
        let unmoved = if acknowledgement || now < probe {
            *activity == self.activity
        } else {
            activity.only_probes_since(&self.activity)
        };
        now < due && now.saturating_sub(self.at) < longest && unmoved
    }

    /// Whether the connections that it found, `known` by number, are better looked up than dumped again, where the namespace's counters say
    /// `activity` at `now` (monotonic milliseconds), and to look one up costs `each` nanoseconds.
    #[must_use]
    pub fn can_be_renewed(&self, activity: &Activity, now: u64, dump: DumpCost, known: usize, each: u64) -> bool {
        activity.same_connections(&self.activity)
            && now.saturating_sub(dump.at) < DUMP_AFTER_MS
            && known <= MOST_KNOWN
            && (known as u64).saturating_mul(each) < dump.cost.saturating_mul(1000)
    }
}
