//! Moments and spans of time, and the compact forms that the memory stores. Rounding never makes a span longer.

use std::time::Duration;

/// A span of time in whole milliseconds, the unit of the kernel's own clocks. It has half the size of a `Duration` and
/// is faster to compare: the memory computes several of them for each connection of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// Longer than every other span.
    pub const MAX: Self = Self(u64::MAX);

    /// This many milliseconds.
    #[must_use]
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }

    /// This many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The number of milliseconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ms")]
    pub const fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Both together, or the longest span.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This span less `other`, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Half of this span.
    #[must_use]
    pub const fn half(self) -> Self {
        Self(self.0 / 2)
    }

    /// This span times `times`, or the longest span.
    #[must_use]
    pub const fn saturating_mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl From<u32> for Millis {
    fn from(ms: u32) -> Self {
        Self(ms.into())
    }
}

/// Rounds down to whole milliseconds. A duration that does not fit becomes the longest span.
impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

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

    /// The value of the clock, in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from an earlier moment to this one. Zero if that moment is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment that is later by this span.
    #[must_use]
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The moment that is earlier by this span.
    #[must_use]
    pub const fn minus(self, span: Millis) -> Self {
        Self(self.0.saturating_sub(span.0))
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

    /// The time from this tick to `now`. Zero if the tick is later.
    #[must_use]
    pub fn until(self, now: Moment) -> Millis {
        Millis(now.0.saturating_sub(u64::from(self.0) * 100))
    }

    /// The time from an earlier tick to this one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Period {
        Period::from_ticks(self.0.saturating_sub(earlier.0))
    }
}

/// The time between two events in 16 bits: tenths of a second up to 27 minutes, then tens of seconds up to 1.9 days.
/// The default is no time. It may be a bound instead: the event before was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period(u16);

/// If this bit is set, the lower bits count tens of seconds.
const COARSE: u16 = 0x8000;
/// If this bit is set, the event before was not seen.
const BOUND: u16 = 0x4000;

impl Period {
    fn from_ticks(ticks: u32) -> Self {
        match u16::try_from(ticks) {
            Ok(fine) if fine < BOUND => Self(fine),
            _ => Self(u16::try_from(ticks / 100).unwrap_or(BOUND).min(BOUND - 1) | COARSE),
        }
    }

    /// At most this long: the event before was not seen.
    #[must_use]
    pub fn at_most(span: Millis) -> Self {
        Self(Self::from_ticks(u32::try_from(span.0.div_ceil(100)).unwrap_or(u32::MAX)).0 | BOUND)
    }

    fn length(self) -> Option<Millis> {
        let unit = if self.0 & COARSE == 0 { 100 } else { 10_000 };
        let count = self.0 & !COARSE & !BOUND;
        (count != 0).then(|| Millis(u64::from(count) * unit))
    }

    /// Its length. `None` for the default and for a bound.
    #[must_use]
    pub fn get(self) -> Option<Millis> {
        self.length().filter(|_| self.0 & BOUND == 0)
    }

    /// The bound, if it is one.
    #[must_use]
    pub fn bound(self) -> Option<Millis> {
        self.length().filter(|_| self.0 & BOUND != 0)
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
    fn a_period_is_exact_up_to_27_minutes_and_never_too_long() {
        for (ms, stored) in [(0, None), (100, Some(100)), (1_638_300, Some(1_638_300)), (7_209_900, Some(7_200_000))] {
            let start = Moment::from_millis(5_000);
            let period = Tick::after(start.plus(Millis::new(ms))).since(Tick::after(start));
            assert_eq!(period.get(), stored.map(Millis::new), "{ms} ms");
        }
        assert_eq!(Tick::after(Moment::NEVER).since(Tick::default()).get(), Some(Millis::new(163_830_000)));
    }

    #[test]
    fn a_bound_is_no_period() {
        let bound = Period::at_most(Millis::from_secs(350));
        assert_eq!((bound.get(), bound.bound()), (None, Some(Millis::from_secs(350))));
        let period = Tick::after(Moment::from_millis(900)).since(Tick::default());
        assert_eq!((period.get(), period.bound()), (Some(Millis::new(900)), None));
        assert_eq!((Period::default().get(), Period::default().bound()), (None, None));
    }
}
