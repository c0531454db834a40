//! Takes the records of a sweep, one after the other.

use std::sync::Arc;
use std::time::Duration;

use super::idle_ends::IdleEnds;
use super::sweep::{ReadInProgress, ReadKind, Sweep};
use super::{Digest, ENOUGH_LOOKUPS, LOOKUP_COST, ReadAll, activity};
use crate::judge::assess::NamespaceFacts;
use crate::judge::memory::Moment;
use crate::judge::report::PodCounters;
use crate::record::{HeldSockets, Namespace, ReadMode, Record};
use crate::wire::inet_diag::{Message, Messages};

impl Digest {
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
                self.tracker.begin_sweep(clock);
                self.reads_all = ReadAll { now: self.reads_all.next, next: false };
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
                if let Some(read) = self.sweep.reading.take().filter(|_| whole) {
                    self.store_read(read, Duration::from_micros(*cost));
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
            let before = sweep.counters.entry(namespace.id).or_default();
            // a read of what is due leaves out the counters that are dear
            let is_partial = namespace.read == ReadMode::Due;
            let or_before = |now: Option<u64>, before: Option<u64>| now.or(before.filter(|_| is_partial));
            *before = PodCounters {
                tcp_keepalive_time: counters.tcp_keepalive_time,
                estab_resets: counters.estab_resets,
                abort_on_timeout: or_before(counters.abort_on_timeout, before.abort_on_timeout),
                keepalive_probes: or_before(counters.keepalive_probes, before.keepalive_probes),
            };
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
        let default_keepidle = counters.tcp_keepalive_time.map(|seconds| seconds.saturating_mul(1000));
        if namespace.read == ReadMode::Due {
            sweep.counts.looked_up += 1;
            sweep.followed += 1;
            self.tracker.begin_due(namespace.id, default_keepidle);
            let activity = self.activity_of(namespace.id, &counters);
            let kind = ReadKind::Due;
            self.sweep.reading =
                activity.map(|activity| ReadInProgress { id: namespace.id, activity, at: clock, kind });
            return;
        }
        sweep.current = Some(namespace.id);
        self.ends.begin_read(namespace.id, &counters);
        let stored = self.tracker.namespace(namespace.id).map_or(0, |memory| memory.entries().len() as u64);
        let kind = if namespace.read == ReadMode::LookUp { ReadKind::LookUp(stored) } else { ReadKind::Dump };
        sweep.reading =
            activity(&counters).map(|activity| ReadInProgress { id: namespace.id, activity, at: clock, kind });
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

    /// Stores a complete read, which took this much CPU time.
    fn store_read(&mut self, read: ReadInProgress, cost: Duration) {
        let ReadInProgress { id, activity, at, kind } = read;
        match kind {
            ReadKind::Dump => self.tracker.store_baseline(id, activity, at, Some(cost)),
            ReadKind::LookUp(count) => {
                self.tracker.store_baseline(id, activity, at, None);
                if count >= ENOUGH_LOOKUPS {
                    // one measurement may have met a cold cache
                    self.lookup_cost = (3 * self.lookup_cost + cost / u32::try_from(count).unwrap_or(u32::MAX)) / 4;
                }
            }
            ReadKind::Due => self.tracker.confirm(id, activity, at, self.sweep.now),
        }
    }

    /// The read under way is over; see [`Tracker::end_read`].
    fn end_read(&mut self, whole: bool, now: Moment) {
        let Self { policy, totals, limits, tracker, .. } = self;
        if let Some(id) = tracker.current() {
            tracker.end_read(whole, now, IdleEnds { policy, totals, limits, now }.of(id));
        }
    }
}
