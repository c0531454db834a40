//! Moments, and times as the memory stores them: few bits, and never longer than they were.

use std::time::Duration;

/// A moment of the monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Later than every other moment.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment at which the clock shows this many milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// What the clock shows, in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from an earlier moment to this one; none if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment this many milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment this many milliseconds earlier.
    #[must_use]
    pub const fn minus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// A moment of the monotonic clock, in tenths of a second: 32 bits last 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u32);

impl Tick {
    /// The first tick that is not before `moment`: a time counted from it is never too long.
    pub fn after(moment: Moment) -> Self {
        Self(u32::try_from(moment.0.div_ceil(100)).unwrap_or(u32::MAX))
    }

    /// Milliseconds from this tick to `now`, 0 if it has not passed.
    #[must_use]
    pub fn until(self, now: Moment) -> u64 {
        now.0.saturating_sub(u64::from(self.0) * 100)
    }

    /// From an earlier tick to this one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Period {
        Period::from_ticks(self.0.saturating_sub(earlier.0))
    }
}

/// The time between two events in 16 bits: tenths of a second up to an hour, then tens of seconds up to 3.8 days. The
/// default is no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period(u16);

/// Set: the other bits count tens of seconds.
const COARSE: u16 = 0x8000;

impl Period {
    fn from_ticks(ticks: u32) -> Self {
        match u16::try_from(ticks) {
            Ok(fine) if fine < COARSE => Self(fine),
            _ => Self(u16::try_from(ticks / 100).unwrap_or(COARSE).min(COARSE - 1) | COARSE),
        }
    }

    /// In milliseconds, where it is any.
    #[must_use]
    pub fn ms(self) -> Option<u64> {
        let unit = if self.0 & COARSE == 0 { 100 } else { 10_000 };
        (self.0 != 0).then(|| u64::from(self.0 & !COARSE) * unit)
    }
}

/// The low 32 bits of the millisecond clock: enough for two moments within 24 days of each other.
#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
pub fn wrap(moment: Moment) -> u32 {
    moment.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_exact_up_to_an_hour_and_never_too_long() {
        for (ms, stored) in [(0, None), (100, Some(100)), (3_276_700, Some(3_276_700)), (7_209_900, Some(7_200_000))] {
            let start = Moment::from_millis(5_000);
            assert_eq!(Tick::after(start.plus_millis(ms)).since(Tick::after(start)).ms(), stored, "{ms} ms");
        }
        assert_eq!(Tick::after(Moment::NEVER).since(Tick::default()).ms(), Some(327_670_000));
    }
}
