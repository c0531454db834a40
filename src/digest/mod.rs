//! Turns a stream of records into one report. Pure: a replay gives the same report as the sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::assess::Assessment;
use crate::judge::limits::LearnedLimits;
use crate::judge::memory::baseline::Activity;
use crate::judge::memory::{Millis, Moment, NamespaceMemory, Tracker};
use crate::judge::policy::Policy;
use crate::judge::report::Totals;
use crate::owner::NsId;
use crate::record::{Counters, Loss, LossReason, NodeFacts, Record};

mod consumer;
mod ends;
mod feed;
mod idle_ends;
mod limits;
mod owners;
mod programs;
mod report;
mod sweep;
mod sweep_end;

use ends::Ends;
use owners::KnownOwners;
pub use report::Findings;
use sweep::Sweep;

/// The cost of one lookup until this node has measured it (measured elsewhere: 2.3 µs).
const LOOKUP_COST: Duration = Duration::from_nanos(2500);
/// The time for which a namespace that cannot be read is reported as last seen.
const KEEP_UNREAD: Millis = Millis::from_secs(10 * 60);
/// A node with more connections than this does not read each of those in a namespace with traffic in each sweep. So
/// many lookups take 12 ms, and twice that where the caches are cold.
const FOLLOWS_FROM: usize = 5000;
/// A read of this many lookups measures the cost of one.
const ENOUGH_LOOKUPS: u64 = 16;

/// The facts that the next sweep reads through the processes that hold sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The socket options themselves.
    pub options: bool,
    /// The processes.
    pub holders: bool,
    /// Both, and the owners of sockets that only processes can name, for every connection and at any cost. Otherwise
    /// for those that are listed, with a limit to the number of descriptors that are read.
    pub all: bool,
}

/// Whether sweeps read every connection, due or not.
#[derive(Clone, Copy, Debug, Default)]
struct ReadAll {
    now: bool,
    next: bool,
}

/// Turns sweeps into reports, and stores the state for the judgement from one to the next.
pub struct Digest {
    policy: Arc<Policy>,
    /// The longest time without a read of a namespace whose counters show no change. Zero: each sweep dumps every one.
    skips_for: Duration,
    /// The cost to look up one connection.
    lookup_cost: Duration,
    /// With more connections than this it follows namespaces with traffic: see [`crate::judge::memory::due`].
    follows_from: usize,
    /// The next sweep reads every connection, or the last one did because of this.
    reads_all: ReadAll,
    /// What to read through the processes that hold sockets.
    reads: Reads,
    /// Whether it names the programs of flagged connections.
    names_programs: bool,
    /// When it last searched for programs.
    searched_at: Option<Moment>,
    /// Whether this sweep searches for programs.
    searches: bool,
    tracker: Tracker,
    owners: KnownOwners,
    totals: Totals,
    ends: Ends,
    /// What was learned of the paths' limits.
    limits: LearnedLimits,
    /// What the node says about idle timeouts.
    node: NodeFacts,
    sweep: Sweep,
    /// When each namespace was last read, or found unchanged.
    read_at: BTreeMap<NsId, Moment>,
    /// Monotonic clock at the start of the first sweep.
    first_clock: Option<Moment>,
    /// The last sweep's judgement. Every sweep is judged once, because a judgement sets marks for the next one.
    assessment: Assessment,
    /// The policy from the next sweep on.
    next_policy: Option<Arc<Policy>>,
}

impl Digest {
    /// A digest with an empty memory.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            skips_for: Duration::ZERO,
            lookup_cost: LOOKUP_COST,
            follows_from: FOLLOWS_FROM,
            reads_all: ReadAll::default(),
            reads: Reads::default(),
            names_programs: false,
            searched_at: None,
            searches: false,
            tracker: Tracker::default(),
            owners: KnownOwners::default(),
            totals: Totals::default(),
            ends: Ends::default(),
            limits: LearnedLimits::default(),
            node: NodeFacts::default(),
            sweep: Sweep::default(),
            read_at: BTreeMap::new(),
            first_clock: None,
            assessment: Assessment::default(),
            next_policy: None,
        }
    }

    /// A digest that skips a namespace if nothing can have changed since the last read. See
    /// [`crate::judge::memory::baseline`].
    #[must_use]
    pub fn skipping(self) -> Self {
        Self { skips_for: self.policy.longest_between_reads(), ..self }
    }

    /// On a node with more connections than this (5000 by default), a sweep reads only those connections of namespaces
    /// with traffic that are due. See [`crate::judge::memory::due`].
    #[must_use]
    pub fn follow_from(self, connections: usize) -> Self {
        Self { follows_from: connections, ..self }
    }

    /// A digest for one sweep: it stores nothing for a later one.
    #[must_use]
    pub fn for_single_sweep(mut self) -> Self {
        self.tracker.set_last_sweep();
        self
    }

    /// Makes the next sweep read every connection.
    pub fn read_all(&mut self) {
        self.reads_all.next = true;
    }

    /// Whether the last sweep read every connection that may have moved.
    #[must_use]
    pub fn has_read_all(&self) -> bool {
        self.sweep.followed == 0
    }

    /// Sets what the next sweep reads through the processes that hold sockets.
    pub fn set_reads(&mut self, reads: Reads) {
        self.reads = reads;
    }

    /// Applies another policy from the next sweep on, which reads every namespace. The memory stays: a changed limit
    /// does not make a connection new.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.next_policy = Some(policy);
    }

    fn adopt_policy(&mut self) {
        let Some(policy) = self.next_policy.take() else { return };
        if !self.skips_for.is_zero() {
            self.skips_for = policy.longest_between_reads();
        }
        self.policy = policy;
        self.tracker.drop_judgements();
    }

    /// Ends a failed sweep. Namespaces that it has not read keep their memory, and the report is incomplete.
    ///
    /// False if there was no current sweep: then the last report stays.
    pub fn abandon_sweep(&mut self, detail: &str, clock: u64) -> bool {
        if !self.sweep.is_under_way {
            return false;
        }
        if let Some(reading) = self.sweep.reading.take() {
            self.sweep.read.remove(&reading.id);
        }
        self.tracker.end_read(false, self.sweep.now, |_, _, _| {});
        let loss = Loss { unlisted: true, ..Loss::new(None, LossReason::Other, detail.to_owned()) };
        let unread = self.tracker.namespaces().map(|(id, _)| id).filter(|id| !self.sweep.read.contains(id));
        self.sweep.unread.extend(unread.map(|id| (id, loss.clone())));
        self.feed(&Record::Loss(loss));
        self.feed(&Record::SweepEnd { clock });
        true
    }

    /// What the counters say of the connections of a namespace. Where only some connections are read, the counter of
    /// probes is that of the last whole read. `None` where a counter is missing.
    fn activity_of(&self, id: NsId, counters: &Counters) -> Option<Activity> {
        let baseline = self.tracker.namespace(id).and_then(NamespaceMemory::baseline);
        let probes = baseline.filter(|baseline| baseline.is_followed).map(|baseline| baseline.activity.probes);
        activity(&Counters { keepalive_probes: counters.keepalive_probes.or(probes), ..*counters })
    }
}

/// What the counters say of the connections; `None` where one of them is missing.
fn activity(counters: &Counters) -> Option<Activity> {
    Some(Activity {
        opens: counters.active_opens?.wrapping_add(counters.passive_opens?),
        established: counters.curr_estab?,
        segs_in: counters.in_segs?,
        segs_out: counters.out_segs?,
        retransmitted: counters.retrans_segs?,
        probes: counters.keepalive_probes?,
    })
}
