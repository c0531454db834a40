//! Turns a stream of records into one report. Pure: a replay gives the same report as the sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::assess::{Assessment, NamespaceFacts, assess};
use crate::judge::limits::LearnedLimits;
use crate::judge::memory::baseline::Activity;
use crate::judge::memory::{Millis, Moment, Tracker};
use crate::judge::policy::Policy;
use crate::judge::report::{PodCounters, Totals};
use crate::owner::{NsId, OwnerKind};
use crate::record::{Counters, HeldSockets, Loss, LossReason, Namespace, NodeFacts, ReadMode, Record};
use crate::wire::inet_diag::{Message, Messages};

mod consumer;
mod ends;
mod idle_ends;
mod limits;
mod owners;
mod programs;
mod report;
mod sweep;

use ends::Ends;
use idle_ends::IdleEnds;
use owners::KnownOwners;
pub use report::Findings;
use sweep::{ReadInProgress, Sweep};

/// The cost of one lookup until this node has measured it (measured elsewhere: 2.3 µs).
const LOOKUP_COST: Duration = Duration::from_nanos(2500);
/// The time for which a namespace that cannot be read is reported as last seen.
const KEEP_UNREAD: Millis = Millis::from_secs(10 * 60);
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

/// Turns sweeps into reports, and stores the state for the judgement from one to the next.
pub struct Digest {
    policy: Arc<Policy>,
    /// The longest time without a read of a namespace whose counters show no change. Zero: each sweep dumps every one.
    skips_for: Duration,
    /// The cost to look up one connection.
    lookup_cost: Duration,
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

    /// Takes one record of a sweep, in the order of the stream.
    pub fn feed(&mut self, record: &Record<'_>) {
        match record {
            Record::Header(_) | Record::End => {}
            Record::Sweep { started_at, clock } => {
                let clock = Moment::from_millis(*clock);
                self.first_clock.get_or_insert(clock);
                std::mem::take(&mut self.assessment).store_in(&mut self.tracker);
                self.adopt_policy();
                // a measurement that was too high would never be followed by another
                self.lookup_cost = (15 * self.lookup_cost + LOOKUP_COST) / 16;
                let before = std::mem::take(&mut self.sweep);
                // until it is read again, what the last sweep knew of a namespace holds
                self.sweep = Sweep {
                    is_under_way: true,
                    started_at: *started_at,
                    clock,
                    now: clock,
                    namespaces: before.namespaces,
                    counters: before.counters,
                    ..Sweep::default()
                };
                self.tracker.begin_sweep();
                if self.names_programs {
                    self.begin_search();
                } else {
                    self.tracker.holders_mut().clear();
                }
            }
            Record::Namespace(namespace) => self.namespace(namespace),
            Record::Datagram { clock, bytes } => self.datagram(Moment::from_millis(*clock), bytes),
            Record::ReadEnd { interrupted, cost } => {
                self.totals.dumps_interrupted += u64::from(*interrupted);
                self.sweep.incomplete |= *interrupted;
                let whole = !*interrupted && !std::mem::take(&mut self.sweep.damaged);
                if let Some(id) = self.sweep.current.take().filter(|_| whole) {
                    self.collect_ends(id, false);
                }
                self.end_read(whole, self.sweep.now);
                if let Some(ReadInProgress { id, activity, at, looked_up }) =
                    self.sweep.reading.take().filter(|_| whole)
                {
                    let cost = Duration::from_micros(*cost);
                    self.tracker.store_baseline(id, activity, at, looked_up.is_none().then_some(cost));
                    if let Some(count) = looked_up.filter(|&count| count >= ENOUGH_LOOKUPS) {
                        // one measurement may have met a cold cache
                        self.lookup_cost = (3 * self.lookup_cost + cost / u32::try_from(count).unwrap_or(u32::MAX)) / 4;
                    }
                }
            }
            Record::Node(facts) => self.node = facts.clone(),
            Record::Ends { namespace, counters, watched, bytes } => {
                self.ends.explain(*namespace, counters, *watched, bytes);
            }
            Record::Destroyed { namespace, clock, bytes } => {
                self.ends.add_event(*namespace, Moment::from_millis(*clock), bytes);
            }
            Record::Loss(loss) => self.sweep.lose(loss, &mut self.totals),
            Record::Owners { cgroups, inodes, issues } => {
                for (id, owner) in cgroups {
                    self.owners.cgroups.insert(*id, Arc::new(owner.clone()));
                }
                self.owners.add_holders(inodes);
                for (kind, count) in issues {
                    let total = self.totals.owner_issues.entry(kind.clone()).or_default();
                    *total = total.saturating_add(*count);
                }
            }
            Record::Holders(processes) => {
                for HeldSockets { holder, inodes } in processes {
                    self.tracker.holders_mut().add(&Arc::new(holder.clone()), inodes);
                }
            }
            Record::Unheld(inodes) => self.tracker.holders_mut().add_unheld(inodes),
            Record::Options { options, missing } => {
                self.tracker.add_options(options.iter().map(|(inode, options)| (*inode, *options)));
                self.sweep.losses.extend(missing.clone());
            }
            Record::SweepEnd { clock } => self.sweep_end(Moment::from_millis(*clock)),
        }
    }

    fn namespace(&mut self, namespace: &Namespace) {
        let clock = Moment::from_millis(namespace.clock);
        let sweep = &mut self.sweep;
        sweep.now = sweep.now.max(clock);
        sweep.read.insert(namespace.id);
        let counters = namespace.counters.unwrap_or_default();
        if namespace.counters.is_some() {
            sweep.counters.insert(
                namespace.id,
                PodCounters {
                    tcp_keepalive_time: counters.tcp_keepalive_time,
                    estab_resets: counters.estab_resets,
                    abort_on_timeout: counters.abort_on_timeout,
                    keepalive_probes: counters.keepalive_probes,
                },
            );
        }
        self.owners.namespaces.insert(namespace.id, Arc::new(namespace.owner.clone()));
        sweep.namespaces.insert(
            namespace.id,
            NamespaceFacts {
                name: namespace.name.as_deref().map(Arc::from),
                tcp_keepalive_time: counters.tcp_keepalive_time,
                conntrack: counters.conntrack_established.map(|seconds| Duration::from_secs(seconds.into())),
                is_conntrack_strict: counters.conntrack_loose == Some(false),
                is_host: None,
            },
        );
        if namespace.read == ReadMode::Skip {
            sweep.counts.skipped += 1;
            self.tracker.skip(namespace.id, clock);
            return;
        }
        sweep.damaged = false;
        sweep.current = Some(namespace.id);
        self.ends.begin_read(namespace.id, &counters);
        let stored = self.tracker.namespace(namespace.id).map_or(0, |memory| memory.entries().len() as u64);
        let looked_up = (namespace.read == ReadMode::LookUp).then_some(stored);
        sweep.reading =
            activity(&counters).map(|activity| ReadInProgress { id: namespace.id, activity, at: clock, looked_up });
        let default_keepidle = counters.tcp_keepalive_time.map(|seconds| seconds.saturating_mul(1000));
        if namespace.read == ReadMode::LookUp {
            sweep.counts.looked_up += 1;
            self.tracker.begin_lookup(namespace.id, default_keepidle);
            return;
        }
        self.tracker.begin_dump(namespace.id, default_keepidle);
        if namespace.read == ReadMode::Empty {
            sweep.counts.empty += 1;
            sweep.current = None;
            self.collect_ends(namespace.id, false);
            self.end_read(true, clock);
        } else {
            self.tracker.expect_connections(counters.curr_estab.unwrap_or(0));
            self.sweep.counts.dumped += 1;
        }
    }

    fn datagram(&mut self, clock: Moment, bytes: &[u8]) {
        self.sweep.now = self.sweep.now.max(clock);
        for message in Messages::new(bytes) {
            match message {
                Ok(Message::Socket(reply)) => match reply.socket() {
                    Ok(Some(socket)) => {
                        self.tracker.sample(&socket, clock);
                    }
                    Ok(None) => {}
                    Err(_) => self.sweep.damaged = true,
                },
                Ok(_) => {}
                Err(_) => self.sweep.damaged = true,
            }
        }
    }

    /// The read under way is over; see [`Tracker::end_read`].
    fn end_read(&mut self, whole: bool, now: Moment) {
        let Self { policy, totals, limits, tracker, .. } = self;
        if let Some(id) = tracker.current() {
            tracker.end_read(whole, now, IdleEnds { policy, totals, limits, now }.of(id));
        }
    }

    fn sweep_end(&mut self, clock: Moment) {
        let Self { sweep, .. } = self;
        sweep.is_under_way = false;
        let now = sweep.now.max(clock);
        sweep.now = now;
        self.read_at.extend(sweep.read.iter().map(|&id| (id, now)));
        for &id in sweep.unread.keys() {
            let Some(memory) = self.tracker.namespace(id) else { continue };
            // a namespace that was never read completely has only the connections of this attempt
            let since = now.since(*self.read_at.entry(id).or_insert(now));
            if since > KEEP_UNREAD {
                self.tracker.drop_unread(id);
                continue;
            }
            sweep.stale.namespaces += 1;
            sweep.stale.connections += memory.entries().len() as u64;
            sweep.stale.age = sweep.stale.age.max(since);
            self.tracker.keep_unread(id);
        }
        let gone = |id: &NsId| !sweep.read.contains(id) && !sweep.unread.contains_key(id);
        let gone: Vec<_> = self.tracker.namespaces().map(|(id, _)| id).filter(gone).collect();
        for id in gone {
            self.collect_ends(id, true);
        }
        let sweep = &mut self.sweep;
        let is_there = |id: NsId| sweep.read.contains(&id) || sweep.unread.contains_key(&id);
        self.ends.finish(&self.tracker, now, is_there, &mut self.totals.ended);
        let Self { policy, totals, limits, sweep, .. } = self;
        let of_lost = IdleEnds { policy, totals, limits, now }.of_lost();
        self.tracker.retain(|id| sweep.read.contains(&id) || sweep.unread.contains_key(&id), now, of_lost);
        self.limits.add_resets(self.ends.resets(), sweep.clock);
        self.limits.finish(&self.policy, &self.tracker, now);
        self.read_at.retain(|id, _| self.tracker.namespace(*id).is_some());
        let known = |id: &NsId| sweep.read.contains(id) || self.read_at.contains_key(id);
        sweep.namespaces.retain(|id, _| known(id));
        sweep.counters.retain(|id, _| known(id));
        self.owners.namespaces.retain(|id, _| known(id));
        self.totals.sweeps += 1;
        self.owners.resolve(&self.tracker);
        self.adopt_node_limits();
        for (id, facts) in &mut self.sweep.namespaces {
            facts.is_host = match (self.node.host, self.owners.namespaces.get(id).map(|owner| owner.kind)) {
                (Some(host), _) => Some(host == *id),
                (None, Some(OwnerKind::Host)) => Some(true),
                (None, Some(OwnerKind::Pod)) => Some(false),
                (None, _) => None,
            };
        }
        self.assessment = assess(&self.tracker, &self.policy, &self.owners, self.sweep.now);
        let with_connections = self.assessment.counts().tallies.keys();
        ends::expire(&mut self.totals.ended, &self.tracker, now, with_connections);
    }

    /// Stores which flagged connections of a namespace the read that is about to end did not show, or that it is gone.
    fn collect_ends(&mut self, id: NsId, is_gone: bool) {
        let Self { ends, tracker, policy, owners, sweep, .. } = self;
        if let Some(memory) = tracker.namespace(id) {
            ends.collect((id, memory), is_gone, policy, owners, sweep.now);
        }
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
