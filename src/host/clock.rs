//! The clocks: monotonic time of records, CPU time of reads, wall time of sweeps.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The monotonic clock, milliseconds.
#[must_use]
pub fn clock() -> u64 {
    micros(clock_gettime(ClockId::Monotonic)) / 1000
}

/// The CPU time of this thread, microseconds.
pub(super) fn cpu_time() -> u64 {
    micros(clock_gettime(ClockId::ThreadCPUTime))
}

/// The wall clock, milliseconds since the Unix epoch.
#[must_use]
pub fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn micros(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}
