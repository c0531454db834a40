//! What the next sweep reads of a namespace, by its last reads.

use std::time::Duration;

use super::baseline::{Activity, Baseline, DumpCost, NextChange};
use super::due::DueReads;
use super::{Millis, Moment, NamespaceMemory, TrackedConnection};
use crate::record::WhatToRead;
use crate::socket::SocketName;

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
        let is_followed = self.before.take().is_some_and(talks);
        self.baseline = Some(Baseline { activity, at, next_change: NextChange::default(), is_followed });
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
            Some(baseline) if baseline.can_be_renewed(activity, now, self.dump, stored, each, follows) => {
                WhatToRead::Sockets(self.entries.iter().map(|entry| self.name(entry)).collect())
            }
            _ => WhatToRead::Everything,
        }
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
