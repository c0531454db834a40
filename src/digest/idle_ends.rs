//! Counts idle times that ended: in the histogram, and in the limits that are measured.

use crate::judge::assess::idle_time_keepalive;
use crate::judge::limits::LearnedLimits;
use crate::judge::memory::idle::IdleEnd;
use crate::judge::memory::{Moment, NamespaceMemory, SHORTEST_IDLE_TIME, TrackedConnection};
use crate::judge::policy::Policy;
use crate::judge::report::Totals;
use crate::owner::NsId;

/// What takes the idle times of one namespace that ended by `now`.
pub(super) struct IdleEnds<'a> {
    pub policy: &'a Policy,
    pub totals: &'a mut Totals,
    pub limits: &'a mut LearnedLimits,
    pub now: Moment,
}

impl<'a> IdleEnds<'a> {
    /// Of a namespace that was read.
    pub fn of(self, id: NsId) -> impl FnMut(&NamespaceMemory, &TrackedConnection, &IdleEnd) + use<'a> {
        let Self { policy, totals, limits, now } = self;
        move |memory, tracked, end| {
            count_idle_time(policy, totals, now, memory, tracked, end);
            limits.add(policy, (id, memory), tracked, end, now);
        }
    }

    /// Of namespaces that are gone: they say nothing of a path.
    pub fn of_lost(self) -> impl FnMut(&NamespaceMemory, &TrackedConnection, &IdleEnd) + use<'a> {
        let Self { policy, totals, now, .. } = self;
        move |memory, tracked, end| count_idle_time(policy, totals, now, memory, tracked, end)
    }
}

fn count_idle_time(
    policy: &Policy,
    totals: &mut Totals,
    now: Moment,
    memory: &NamespaceMemory,
    tracked: &TrackedConnection,
    end: &IdleEnd,
) {
    if end.idle_time >= SHORTEST_IDLE_TIME
        && let Some(keepalive) = idle_time_keepalive(policy, memory, tracked, now)
    {
        totals.idle_times.count(keepalive, end.idle_time);
    }
}
