//! Stores numbers in few bytes: an entry of the memory has 96 in all.

use crate::socket::{Cookie, Timer};

/// The low 24 bits of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U24([u8; 3]);

impl U24 {
    /// Drops the bits that do not fit.
    pub fn wrapping(value: u32) -> Self {
        let [a, b, c, _] = value.to_le_bytes();
        Self([a, b, c])
    }

    /// The number.
    pub fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }

    /// The difference from an earlier value of a counter to this one.
    pub fn since(self, earlier: Self) -> u32 {
        Self::wrapping(self.get().wrapping_sub(earlier.get())).get()
    }
}

/// A socket cookie in 48 bits. The kernel counts cookies up from 0 and down from -1, so no more bits are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedCookie([u8; 6]);

impl PackedCookie {
    /// Drops the bits that do not fit.
    pub fn new(cookie: Cookie) -> Self {
        let [low @ .., _, _] = cookie.0.to_le_bytes();
        Self(low)
    }

    /// The cookie: the highest bit is the sign.
    pub fn get(self) -> Cookie {
        let mut bytes = [if self.0[5] & 0x80 == 0 { 0 } else { u8::MAX }; 8];
        bytes[..6].copy_from_slice(&self.0);
        Cookie(u64::from_le_bytes(bytes))
    }
}

/// A timer, and up to 31 consecutive retransmissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerAndRetransmits(u8);

impl TimerAndRetransmits {
    /// The timer has three bits and the number five.
    pub fn new(timer: Timer, retransmits: u8) -> Self {
        Self(timer.idiag().min(7) << 5 | retransmits.min(31))
    }

    /// The timer.
    pub fn timer(self) -> Timer {
        Timer::from_idiag(self.0 >> 5)
    }

    /// The number of retransmissions.
    pub fn retransmits(self) -> u8 {
        self.0 & 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_low_24_bits() {
        for (number, kept) in [(0, 0), (0x00ff_ffff, 0x00ff_ffff), (0x0100_0001, 1), (u32::MAX, 0x00ff_ffff)] {
            assert_eq!(U24::wrapping(number).get(), kept);
        }
        assert_eq!(U24::wrapping(0x0100_0002).since(U24::wrapping(0x00ff_fffe)), 4);
    }

    #[test]
    fn a_cookie_counted_up_or_down_comes_back() {
        for cookie in [0, 1, 0x2_e4f2, (1 << 47) - 1, u64::MAX, u64::MAX - 4096, u64::MAX << 47].map(Cookie) {
            assert_eq!(PackedCookie::new(cookie).get(), cookie);
        }
        // no kernel comes so far; such a cookie is still equal to itself
        let beyond = PackedCookie::new(Cookie(1 << 60 | 7));
        assert_eq!(PackedCookie::new(beyond.get()), beyond);
    }

    #[test]
    fn a_timer_and_its_count_come_back() {
        for timer in (0..7).map(Timer::from_idiag) {
            for (count, kept) in [(0, 0), (6, 6), (31, 31), (255, 31)] {
                let packed = TimerAndRetransmits::new(timer, count);
                assert_eq!((packed.timer(), packed.retransmits()), (timer, kept));
            }
        }
        assert!(matches!(TimerAndRetransmits::new(Timer::Unknown(200), 0).timer(), Timer::Unknown(_)));
    }
}
