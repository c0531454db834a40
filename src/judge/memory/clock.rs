//! Times as the memory stores them: few bits, and never longer than they were.

/// A moment of the monotonic clock, in tenths of a second: 32 bits last 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u32);

impl Tick {
    /// The first tick that is not before `ms`: a time counted from it is never too long.
    pub fn after(ms: u64) -> Self {
        Self(u32::try_from(ms.div_ceil(100)).unwrap_or(u32::MAX))
    }

    /// Milliseconds from this tick to `now` (milliseconds), 0 if it has not passed.
    #[must_use]
    pub fn until(self, now: u64) -> u64 {
        now.saturating_sub(u64::from(self.0) * 100)
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

/// The low 32 bits of a millisecond clock: enough for two moments within 24 days of each other.
#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
pub fn wrap(ms: u64) -> u32 {
    ms as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_exact_up_to_an_hour_and_never_too_long() {
        for (ms, stored) in [(0, None), (100, Some(100)), (3_276_700, Some(3_276_700)), (7_209_900, Some(7_200_000))] {
            assert_eq!(Tick::after(5_000 + ms).since(Tick::after(5_000)).ms(), stored, "{ms} ms");
        }
        assert_eq!(Tick::after(u64::MAX).since(Tick::default()).ms(), Some(327_670_000));
    }
}
