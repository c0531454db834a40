//! What the next heartbeat is compared with, in few bits.

use super::kinds::Kind;

/// A duration in 8 bits, rounded up by a sixteenth at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap(u8);

impl Gap {
    const UNIT_MS: u32 = 64;

    /// The shortest that is not below `ms`, or the longest.
    pub fn at_least(ms: u32) -> Self {
        let (mut low, mut high) = (0, u8::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if Self(middle).ms() >= ms { high = middle } else { low = middle + 1 }
        }
        Self(low)
    }

    /// Milliseconds; the longest is without end.
    pub fn ms(self) -> u32 {
        match (self.0 >> 4, u32::from(self.0 & 15)) {
            (15, 15) => u32::MAX,
            (0, mantissa) => mantissa * Self::UNIT_MS,
            (exponent, mantissa) => ((16 + mantissa) << (exponent - 1)) * Self::UNIT_MS,
        }
    }
}

/// What the next beat is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Whose frames they are, and their sizes.
    pub kind: Kind,
    /// Beats sent less beats received: -1, 0 or 1.
    pub balance: i8,
    /// The last gap was short, as where the pings of both ends come in turn. Two such gaps in a row have no rhythm.
    pub short: bool,
}

/// A [`Rhythm`], or none, in 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedRhythm(u8);

impl PackedRhythm {
    /// Packs it.
    pub fn new(Rhythm { kind, balance, short }: Rhythm) -> Self {
        const { assert!(Kind::COUNT <= 43, "every kind has six values, and the last one three") };
        let long = 1 + u16::from(kind.index()) * 6 + u16::from((balance + 1).clamp(0, 2).cast_unsigned());
        // of the last kind 8 bits cannot hold that a gap was short
        let packed = u8::try_from(long + if short { 3 } else { 0 }).or(u8::try_from(long));
        Self(packed.unwrap_or_default())
    }

    /// The rhythm.
    pub fn get(self) -> Option<Rhythm> {
        let packed = self.0.checked_sub(1)?;
        let rest = packed % 6;
        let balance = (rest % 3).cast_signed() - 1;
        Some(Rhythm { kind: Kind::from_index(packed / 6), balance, short: rest >= 3 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rhythm_comes_back_from_its_8_bits() {
        assert_eq!(PackedRhythm::default().get(), None);
        for kind in Kind::all() {
            for balance in -1..=1 {
                for short in [false, true] {
                    let rhythm = Rhythm { kind, balance, short };
                    let is_last = kind.index() + 1 == Kind::COUNT;
                    let kept = Rhythm { short: short && !is_last, ..rhythm };
                    assert_eq!(PackedRhythm::new(rhythm).get(), Some(kept), "{rhythm:?}");
                }
            }
        }
    }
}
