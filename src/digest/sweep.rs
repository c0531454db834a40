//! The state of the current sweep, or of the last one.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::assess::NamespaceFacts;
use crate::judge::memory::Moment;
use crate::judge::memory::baseline::Activity;
use crate::judge::report::{MAX_LOSSES, NamespaceCounts, PodCounters, Stale, Totals};
use crate::owner::NsId;
use crate::record::{Loss, LossReason};

/// The current sweep, or the last one.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not on its own")]
pub(super) struct Sweep {
    pub is_under_way: bool,
    pub started_at: u64,
    pub clock: Moment,
    /// The latest moment in a record.
    pub now: Moment,
    /// The namespaces that were read so far.
    pub read: BTreeSet<NsId>,
    /// The read that is under way.
    pub reading: Option<ReadInProgress>,
    /// The namespace that is read.
    pub current: Option<NsId>,
    /// That read met an error, or something that cannot be decoded.
    pub damaged: bool,
    pub counts: NamespaceCounts,
    /// The number of namespaces in which it read only the connections that were due.
    pub followed: u64,
    pub namespaces: BTreeMap<NsId, NamespaceFacts>,
    pub counters: BTreeMap<NsId, PodCounters>,
    pub losses: Vec<String>,
    pub incomplete: bool,
    /// Whether there may be namespaces that it did not find.
    pub unlisted: bool,
    pub failures: BTreeMap<&'static str, String>,
    /// The namespaces that were not read completely and may still exist.
    pub unread: BTreeMap<NsId, Loss>,
    pub stale: Stale,
}

/// A read of a namespace that has begun.
#[derive(Clone, Copy)]
pub(super) struct ReadInProgress {
    pub id: NsId,
    /// Its counters before.
    pub activity: Activity,
    /// When it began.
    pub at: Moment,
    pub kind: ReadKind,
}

/// Which connections a read shows.
#[derive(Clone, Copy)]
pub(super) enum ReadKind {
    /// All, as a dump.
    Dump,
    /// All that are known, this many.
    LookUp(u64),
    /// Some.
    Due,
}

impl Sweep {
    /// Counts the losses.
    pub fn lose(&mut self, loss: &Loss, totals: &mut Totals) {
        if loss.reason == LossReason::Vanished {
            self.counts.vanished += 1;
            return;
        }
        let reason = loss.reason.name();
        self.incomplete = true;
        self.unlisted |= loss.unlisted;
        self.counts.failed += u64::from(loss.namespace.is_some());
        *totals.failures.entry(reason).or_default() += 1;
        if !loss.detail.is_empty() {
            self.failures.entry(reason).or_insert_with(|| loss.detail.clone());
            if self.losses.len() < MAX_LOSSES {
                self.losses.push(loss.detail.clone());
            }
        }
        if let Some(id) = loss.namespace {
            // a namespace that was entered before it failed was counted as dumped
            if self.read.remove(&id) {
                self.counts.dumped = self.counts.dumped.saturating_sub(1);
            }
            self.unread.insert(id, loss.clone());
        }
    }
}
