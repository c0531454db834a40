//! A stream of records in, one report out. Pure: a replay gives what the sweep gave.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::judge::assess::{Assessment, NamespaceFacts, assess, silence_keepalive};
use crate::judge::groups::OwnerOf as _;
use crate::judge::memory::baseline::Activity;
use crate::judge::memory::{Millis, Moment, NamespaceMemory, SHORTEST_SILENCE, TrackedConnection, Tracker};
use crate::judge::pair::Pairs;
use crate::judge::policy::Policy;
use crate::judge::report::{Counts, Finding, MAX_LOSSES, NamespaceCounts, PodCounters, Report, Stale, Totals};
use crate::owner::{NsId, Owner, OwnerKind};
use crate::record::{
    Consumer, Counters, HeldSockets, Loss, LossReason, Namespace, ReadMode, Record, SocketsToRead, WhatToRead,
};
use crate::wire::inet_diag::{Message, Messages};

mod owners;

use owners::KnownOwners;

/// The cost of one lookup until this node has measured it (measured elsewhere: 2.3 µs).
const LOOKUP_COST: Duration = Duration::from_nanos(2500);
/// How long a namespace that cannot be read is reported as it was last seen.
const KEEP_UNREAD: Millis = Millis::from_secs(10 * 60);
/// A read of this many lookups measures the cost of one.
const ENOUGH_LOOKUPS: u64 = 16;

/// The most sockets without any other owner whose programs one sweep asks for: those that were idle the longest.
const MAX_NAMELESS: usize = 2048;

/// What the next sweep reads through the processes that hold sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The socket options themselves.
    pub options: bool,
    /// The processes.
    pub holders: bool,
}

/// Turns sweeps into reports, and stores from one to the next what the judgement needs.
pub struct Digest {
    policy: Arc<Policy>,
    /// How long a namespace goes unread whose counters say that nothing changed; zero: each sweep dumps every one.
    skips_for: Duration,
    /// What it costs to look up one connection.
    lookup_cost: Duration,
    /// What to read through the processes that hold sockets.
    reads: Reads,
    tracker: Tracker,
    owners: KnownOwners,
    totals: Totals,
    sweep: Sweep,
    /// When each namespace was last read, or found unchanged.
    read_at: BTreeMap<NsId, Moment>,
    /// Monotonic clock at the start of the first sweep.
    first_clock: Option<Moment>,
    /// The last sweep's judgement. Every sweep is judged once, because a judgement marks what the next one must know.
    assessment: Assessment,
    /// The policy from the next sweep on.
    next_policy: Option<Arc<Policy>>,
}

/// The sweep under way, or the last one.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not on its own")]
struct Sweep {
    is_under_way: bool,
    started_at: u64,
    clock: Moment,
    /// The latest moment in a record.
    now: Moment,
    /// The namespaces that were read so far.
    read: BTreeSet<NsId>,
    /// The read that is under way.
    reading: Option<ReadInProgress>,
    /// That read met an error, or something that cannot be decoded.
    damaged: bool,
    counts: NamespaceCounts,
    namespaces: BTreeMap<NsId, NamespaceFacts>,
    counters: BTreeMap<NsId, PodCounters>,
    losses: Vec<String>,
    incomplete: bool,
    /// There may be namespaces that it did not find.
    unlisted: bool,
    failures: BTreeMap<&'static str, String>,
    /// Not read this time, or not to the end, but not known to be gone either.
    unread: BTreeMap<NsId, Loss>,
    stale: Stale,
}

/// A read of a namespace that has begun.
struct ReadInProgress {
    id: NsId,
    /// Its counters before.
    activity: Activity,
    /// When it began.
    at: Moment,
    /// The number of connections to look up; absent for a dump.
    looked_up: Option<u64>,
}

impl Digest {
    /// A digest without any memory.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            skips_for: Duration::ZERO,
            lookup_cost: LOOKUP_COST,
            reads: Reads::default(),
            tracker: Tracker::default(),
            owners: KnownOwners::default(),
            totals: Totals::default(),
            sweep: Sweep::default(),
            read_at: BTreeMap::new(),
            first_clock: None,
            assessment: Assessment::default(),
            next_policy: None,
        }
    }

    /// One that reads a namespace only where something may have changed since the last read; see
    /// [`crate::judge::memory::baseline`].
    #[must_use]
    pub fn skipping(self) -> Self {
        Self { skips_for: self.policy.longest_between_reads(), ..self }
    }

    /// Sets what the next sweep reads through the processes that hold sockets.
    pub fn set_reads(&mut self, reads: Reads) {
        self.reads = reads;
    }

    /// Judges by another policy from the next sweep on, which reads every namespace. The memory stays: no connection is
    /// new because a limit changed.
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

    /// Ends a sweep that failed on the way. Namespaces that it has not read keep their memory, and the report is
    /// incomplete.
    ///
    /// False if no sweep was under way: then the last report stays as it is.
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
            }
            Record::Namespace(namespace) => self.namespace(namespace),
            Record::Datagram { clock, bytes } => self.datagram(Moment::from_millis(*clock), bytes),
            Record::ReadEnd { interrupted, cost } => {
                self.totals.dumps_interrupted += u64::from(*interrupted);
                self.sweep.incomplete |= *interrupted;
                let whole = !*interrupted && !std::mem::take(&mut self.sweep.damaged);
                let mut count = count_silence(&self.policy, &mut self.totals, self.sweep.now);
                self.tracker.end_read(whole, self.sweep.now, &mut count);
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
            Record::Loss(loss) => self.loss(loss),
            Record::Owners { cgroups, inodes, issues } => {
                for (id, owner) in cgroups {
                    self.owners.cgroups.insert(*id, Arc::new(owner.clone()));
                }
                for (inode, owner) in inodes {
                    self.owners.inodes.insert(*inode, Arc::new(owner.clone()));
                }
                for (kind, count) in issues {
                    let total = self.totals.owner_issues.entry(kind.clone()).or_default();
                    *total = total.saturating_add(*count);
                }
            }
            Record::Holders(processes) => {
                for HeldSockets { holder, inodes } in processes {
                    self.tracker.add_holder(&Arc::new(holder.clone()), inodes);
                }
            }
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
            },
        );
        if namespace.read == ReadMode::Skip {
            sweep.counts.skipped += 1;
            self.tracker.skip(namespace.id, clock);
            return;
        }
        sweep.damaged = false;
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
            let mut count = count_silence(&self.policy, &mut self.totals, clock);
            self.tracker.end_read(true, clock, &mut count);
        } else {
            sweep.counts.dumped += 1;
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

    fn loss(&mut self, loss: &Loss) {
        let sweep = &mut self.sweep;
        if loss.reason == LossReason::Vanished {
            sweep.counts.vanished += 1;
            return;
        }
        let reason = loss.reason.name();
        sweep.incomplete = true;
        sweep.unlisted |= loss.unlisted;
        sweep.counts.failed += u64::from(loss.namespace.is_some());
        *self.totals.failures.entry(reason).or_default() += 1;
        if !loss.detail.is_empty() {
            sweep.failures.entry(reason).or_insert_with(|| loss.detail.clone());
            if sweep.losses.len() < MAX_LOSSES {
                sweep.losses.push(loss.detail.clone());
            }
        }
        if let Some(id) = loss.namespace {
            // a namespace that was entered before it failed was counted as dumped
            if sweep.read.remove(&id) {
                sweep.counts.dumped = sweep.counts.dumped.saturating_sub(1);
            }
            sweep.unread.insert(id, loss.clone());
        }
    }

    fn sweep_end(&mut self, clock: Moment) {
        let sweep = &mut self.sweep;
        sweep.is_under_way = false;
        let now = sweep.now.max(clock);
        sweep.now = now;
        self.read_at.extend(sweep.read.iter().map(|&id| (id, now)));
        for &id in sweep.unread.keys() {
            let Some(memory) = self.tracker.namespace(id) else { continue };
            // of one that was never read to its end, this is what a first attempt found
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
        let mut count = count_silence(&self.policy, &mut self.totals, now);
        self.tracker.retain(|id| sweep.read.contains(&id) || sweep.unread.contains_key(&id), now, &mut count);
        drop(count);
        self.read_at.retain(|id, _| self.tracker.namespace(*id).is_some());
        let known = |id: &NsId| sweep.read.contains(id) || self.read_at.contains_key(id);
        sweep.namespaces.retain(|id, _| known(id));
        sweep.counters.retain(|id, _| known(id));
        self.owners.namespaces.retain(|id, _| known(id));
        self.totals.sweeps += 1;
        self.owners.resolve(&self.tracker);
        self.assessment = assess(&self.tracker, &self.policy, &self.owners, self.sweep.now);
    }

    /// Why the last sweep did not read this namespace, in a sentence; `None` where it did.
    #[must_use]
    pub fn why_unread(&self, id: NsId) -> Option<String> {
        match self.sweep.unread.get(&id) {
            Some(loss) if loss.reason == LossReason::Permission => {
                Some("permission denied. CAP_SYS_ADMIN is missing: run as root".to_owned())
            }
            Some(loss) => self.sweep.failures.get(loss.reason.name()).cloned(),
            None => (!self.sweep.read.contains(&id)).then(|| "this network namespace is gone".to_owned()),
        }
    }

    /// The owners of the last sweep.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.all()
    }

    /// The connections of the last sweep.
    pub fn findings(&mut self) -> Findings<'_> {
        self.assessment.sort();
        Findings(self)
    }

    /// The last sweep's report with all its findings.
    #[must_use]
    pub fn report(&mut self, node: &str) -> Report {
        Report { findings: self.findings().iter().collect(), ..self.summary(node) }
    }

    /// The last sweep's report without its findings, for which [`Digest::findings`] is there.
    #[must_use]
    pub fn summary(&self, node: &str) -> Report {
        let Self { sweep, policy, totals, tracker, .. } = self;
        let Counts { ignored, not_shown, verdicts, truncated, tallies, half_closed } = self.assessment.counts().clone();
        let mut pods = BTreeMap::new();
        let mut node_tcp_keepalive_time = None;
        for (id, counters) in &sweep.counters {
            match self.owners.namespaces.get(id) {
                Some(owner) if owner.kind == OwnerKind::Pod => {
                    pods.insert(owner.clone(), *counters);
                }
                Some(owner) if owner.kind == OwnerKind::Host => node_tcp_keepalive_time = counters.tcp_keepalive_time,
                _ => {}
            }
        }
        Report {
            node: node.to_owned(),
            started_at: sweep.started_at,
            duration: sweep.now.since(sweep.clock),
            watched_for: sweep.clock.since(self.first_clock.unwrap_or(sweep.clock)),
            namespaces: sweep.counts,
            connections: verdicts.iter().sum(),
            ignored,
            not_shown,
            incomplete: sweep.incomplete,
            verdicts,
            truncated,
            findings: Vec::new(),
            tallies,
            half_closed,
            pods,
            node_tcp_keepalive_time,
            paths: policy.paths().cloned().collect(),
            losses: sweep.losses.clone(),
            is_blind: sweep.incomplete && (sweep.unlisted || sweep.read.is_empty()),
            stale: sweep.stale,
            failures: sweep.failures.clone(),
            tracked: tracker.len() as u64,
            totals: totals.clone(),
        }
    }
}

/// The connections of the last sweep in detail, each made when it is asked for: two hundred thousand need not be held
/// at once.
#[derive(Clone, Copy)]
pub struct Findings<'a>(&'a Digest);

impl<'a> Findings<'a> {
    /// Worst first.
    pub fn iter(self) -> impl Iterator<Item = Finding> + use<'a> {
        let Self(Digest { assessment, tracker, policy, sweep, owners, .. }) = self;
        assessment.findings(tracker, policy, &sweep.namespaces, owners)
    }
}

impl Consumer for Digest {
    type Error = std::io::Error;

    fn consume(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        self.feed(record);
        Ok(())
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        let activity = namespace.counters.as_ref().and_then(activity);
        let (Some(activity), Some(memory)) = (activity, self.tracker.namespace(namespace.id)) else {
            return WhatToRead::Everything;
        };
        if self.skips_for.is_zero() {
            return WhatToRead::Everything;
        }
        // not all in one sweep, although all were seen first in one: up to a quarter sooner
        let sooner = self.skips_for / 64 * u32::from(namespace.id.0.to_le_bytes()[0] % 16);
        let longest = self.skips_for.saturating_sub(sooner);
        memory.what_to_read(&activity, Moment::from_millis(namespace.clock), longest.into(), self.lookup_cost)
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        // kubelet names a container a moment after it has started: ask again for what has no name yet
        let known = |id: &u64| self.owners.cgroups.get(id).is_some_and(|owner| owner.is_named());
        let cgroups = self.tracker.namespaces().flat_map(|(_, memory)| memory.cgroups());
        cgroups.filter(|id| !known(id)).collect()
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        let mut nameless = Vec::new();
        for (id, memory) in self.tracker.namespaces() {
            // before Linux 5.8 the kernel sends no cgroup id
            let wanted: Vec<bool> = memory
                .origins()
                .iter()
                .map(|origin| all || origin.cgroup.is_none() || self.owners.is_nameless(id, origin.cgroup))
                .collect();
            if wanted.contains(&true) {
                let of = memory.connections().filter(|tracked| wanted.get(tracked.origin()) == Some(&true));
                nameless.extend(of.map(|tracked| (Reverse(tracked.wire_idle(self.sweep.now)), tracked.inode)));
            }
        }
        if !all && nameless.len() > MAX_NAMELESS {
            nameless.select_nth_unstable(MAX_NAMELESS);
            nameless.truncate(MAX_NAMELESS);
        }
        nameless.into_iter().map(|(_, inode)| inode).filter(|inode| *inode != 0).collect()
    }

    fn sockets_to_read(&self) -> SocketsToRead {
        let Reads { options, holders } = self.reads;
        let mut wanted = SocketsToRead::default();
        if !options && !holders {
            return wanted;
        }
        let pairs = if options { Pairs::find(&self.tracker) } else { Pairs::default() };
        for (id, at, tracked) in self.shown() {
            if holders {
                wanted.holders.insert(tracked.inode);
            }
            if options {
                // the peer's keepalive is part of the verdict, whether the peer is shown or not
                wanted.options.insert(tracked.inode);
                let peer =
                    pairs.peer(id, at).and_then(|peer| self.tracker.namespace(peer.namespace)?.entries().get(peer.at));
                wanted.options.extend(peer.map(|peer| peer.inode));
            }
        }
        // a socket that nobody has accepted yet
        wanted.options.remove(&0);
        wanted.holders.remove(&0);
        wanted
    }
}

impl Digest {
    /// The connections of the sweep that are to be shown.
    fn shown(&self) -> impl Iterator<Item = (NsId, u32, &TrackedConnection)> {
        let select = &self.policy.select;
        let memories = self.tracker.namespaces().filter(|(id, _)| select.takes_namespace(*id));
        memories.flat_map(move |(id, memory)| {
            let entries = (0_u32..).zip(memory.entries()).filter(|(_, tracked)| tracked.seen());
            let shown = entries.filter(move |(_, tracked)| {
                let owner = || self.owners.owner(id, memory.origin(tracked).cgroup, tracked.inode);
                select.takes(|| memory.local(tracked), tracked.remote())
                    && (!select.by_owner() || select.takes_owner(&owner()))
            });
            shown.map(move |(at, tracked)| (id, at, tracked))
        })
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

fn count_silence<'a>(
    policy: &'a Policy,
    totals: &'a mut Totals,
    now: Moment,
) -> impl FnMut(&NamespaceMemory, &TrackedConnection, Millis) + use<'a> {
    move |memory, tracked, silence| {
        if silence >= SHORTEST_SILENCE
            && let Some(keepalive) = silence_keepalive(policy, memory, tracked, now)
        {
            totals.silences.count(keepalive, silence);
        }
    }
}
