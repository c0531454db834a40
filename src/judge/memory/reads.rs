//! What the next sweep reads of a namespace, by its last reads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::baseline::{Activity, Baseline, DumpCost, NextChange};
use super::clock::Tick;
use super::due::{DueReads, HORIZON};
use super::{Millis, Moment, NamespaceMemory, TrackedConnection};
use crate::record::WhatToRead;
use crate::socket::SocketName;

/// All connections are read after this number of longest times between reads, whatever the counters prove. A program
/// may have turned keepalive on for an idle connection: no segment shows that before the first probe.
const WHOLE_AFTER: u64 = 4;
/// A read leaves connections out only if fewer than one of this number of such reads will probably prove nothing,
/// because a segment is sent while it is under way.
const RARE: u64 = 8;

impl NamespaceMemory {
    /// The last read, if it was complete and the next sweep may skip the namespace.
    #[must_use]
    pub fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// Stores a complete read; see [`Tracker::store_baseline`](super::Tracker::store_baseline).
    pub(super) fn store_baseline(&mut self, activity: Activity, at: Moment, dump_cost: Option<Duration>) {
        // what has had traffic until now probably goes on
        let talks = |before: Baseline| before.is_followed && !activity.only_probes_since(&before.activity);
        let before = self.before.take();
        let (is_first, is_followed) = (before.is_none(), before.is_some_and(talks));
        let next_change = NextChange::default();
        self.baseline = Some(Baseline { activity, at, whole_at: at, next_change, is_followed, is_first });
        self.sent = 0;
        self.due = DueReads::new(at);
        self.dump = dump_cost.map_or(self.dump, |cost| DumpCost { at, cost });
    }

    /// Applies a changed policy: drops the state about idle timeouts, and makes the next sweep read the namespace.
    pub(super) fn drop_judgements(&mut self) {
        self.baseline = None;
        self.entries.iter_mut().for_each(TrackedConnection::clear_marks);
    }

    /// What a sweep must read of the namespace. `activity` are its counters at `now`, `longest` is the highest age of
    /// the last read, and `each` is the cost of one lookup. `follows`: traffic alone does not ask for a whole read.
    #[must_use]
    pub fn what_to_read(
        &self,
        activity: &Activity,
        now: Moment,
        longest: Millis,
        each: Duration,
        follows: bool,
    ) -> WhatToRead {
        let stored = self.entries.len();
        match &self.baseline {
            Some(baseline) if baseline.holds(activity, now, longest) => WhatToRead::Nothing,
            Some(baseline) if follows && baseline.can_be_followed(activity, now, longest) => {
                let due = self.due.at(now).filter_map(|at| self.entries.get(at));
                WhatToRead::Due(due.map(|entry| self.name(entry)).collect())
            }
            Some(baseline) => {
                if follows && let Some(names) = self.to_confirm(baseline, activity, now, longest, each) {
                    return WhatToRead::Due(names);
                }
                if baseline.can_be_renewed(activity, now, self.dump, stored, each, follows) {
                    return WhatToRead::Sockets(self.entries.iter().map(|entry| self.name(entry)).collect());
                }
                WhatToRead::Everything
            }
            None => WhatToRead::Everything,
        }
    }

    /// The connections that must be read although the others [may wait](may_wait), if it may be enough to read these:
    /// see [`Self::confirm`].
    fn to_confirm(
        &self,
        baseline: &Baseline,
        activity: &Activity,
        now: Moment,
        longest: Millis,
        each: Duration,
    ) -> Option<Vec<SocketName>> {
        let is_possible = baseline.is_followed
            && self.unaccounted_at.is_none_or(|at| now.since(at) >= longest.saturating_mul(WHOLE_AFTER))
            && baseline.can_be_followed(activity, now, longest.saturating_mul(HORIZON))
            && now.since(baseline.whole_at) < longest.saturating_mul(WHOLE_AFTER);
        if !is_possible {
            return None;
        }
        let open = (0_usize..).zip(&self.entries).filter(|(_, entry)| !may_wait(entry, baseline)).map(|(at, _)| at);
        let open: BTreeSet<usize> = open.chain(self.due.at(now)).collect();
        let cost = each.saturating_mul(u32::try_from(open.len()).unwrap_or(u32::MAX));
        // segments that are sent while the connections are read are not in the counters yet
        let segments = activity.segs_out.wrapping_sub(baseline.activity.segs_out);
        let is_calm = u128::from(segments) * u128::from(RARE) * cost.as_micros() < 1000 * u128::from(longest.get());
        let names = open.into_iter().filter_map(|at| self.entries.get(at)).map(|entry| self.name(entry));
        (is_calm && cost < self.dump.cost).then(|| names.collect())
    }

    /// A read of some connections has ended at `now`. `activity` are the counters at `at`, before it began.
    ///
    /// The namespace counts each segment that is sent, and so does each connection. If the connections that were read
    /// have sent all that were counted since the last whole read, the others have sent none. They have received none
    /// that needs an answer either. So they are as they were then, and only older.
    ///
    /// If not, the next sweep reads all, and so do the next reads: where others send, as those who refuse connections
    /// do, the sums will differ again.
    pub(super) fn confirm(&mut self, activity: Activity, at: Moment, now: Moment) {
        let Some(baseline) = &mut self.baseline else { return };
        let is_read = |entry: &TrackedConnection| entry.sampled_at(now) >= at;
        if !self.entries.iter().all(|entry| is_read(entry) || may_wait(entry, baseline)) {
            return;
        }
        if activity.segs_out.wrapping_sub(baseline.activity.segs_out) != self.sent {
            self.unaccounted_at = Some(at);
            return;
        }
        for entry in self.entries.iter_mut().filter(|entry| !is_read(entry)) {
            entry.advance_unchanged(at);
        }
        baseline.activity = Activity { probes: baseline.activity.probes, ..activity };
        baseline.at = at;
        self.due = DueReads::new(at);
        self.sent = 0;
    }

    /// The name by which a connection can be looked up.
    fn name(&self, entry: &TrackedConnection) -> SocketName {
        SocketName { local: self.local(entry), remote: entry.remote(), cookie: entry.cookie() }
    }

    /// Whether the last sweep found it unchanged and read nothing. Then the connections are as the last read found
    /// them, and only older.
    #[must_use]
    pub fn skipped(&self) -> bool {
        self.unchanged_at.is_some()
    }

    /// When a sweep last found it unchanged and read nothing, since the last read.
    #[must_use]
    pub fn unchanged_at(&self) -> Option<Moment> {
        self.unchanged_at
    }

    /// Stores that a sweep found it unchanged at `now`.
    pub(super) fn skip(&mut self, now: Moment) {
        self.unread = false;
        self.unchanged_at = Some(now);
    }

    /// Stores the events that the judgement of the last read expects, and which connections are due.
    pub fn expect(&mut self, next_change: NextChange, due: Option<DueReads>) {
        if let Some(baseline) = &mut self.baseline {
            baseline.next_change = next_change;
        }
        self.due = due.unwrap_or_else(|| std::mem::take(&mut self.due));
    }

    /// Whether only connections that are due are read until the next whole read.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.baseline.as_ref().is_some_and(|baseline| baseline.is_followed)
    }
}

/// Whether a proof that nothing has moved is as good as a read. It was flagged, and was idle already at the last whole
/// read. Nothing but a segment or time can make that worse, and time has its own reads.
fn may_wait(entry: &TrackedConnection, baseline: &Baseline) -> bool {
    entry.is_flagged() && entry.moved < Tick::after(baseline.at)
}
