//! Times and timers as people read them.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::judge::report::{Finding, Millis};
use crate::socket::{Endpoint, Timer};

/// A span of time as a person says it: `0s`, `4.2s`, `59s`, `5m50s`, `2h`, `3d4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub Millis);

impl From<Duration> for Human {
    fn from(duration: Duration) -> Self {
        Self(duration.into())
    }
}

impl Human {
    /// Writes it without the formatting machinery, which costs more than the digits.
    pub(super) fn write(self, out: &mut impl fmt::Write) -> fmt::Result {
        let ms = self.0.get();
        let seconds = ms / 1000;
        let (large, unit, small, small_unit) = match seconds {
            0..10 if !ms.is_multiple_of(1000) => {
                number(out, seconds)?;
                out.write_str(".")?;
                number(out, ms % 1000 / 100)?;
                return out.write_str("s");
            }
            0..60 => (seconds, "s", 0, ""),
            60..3600 => (seconds / 60, "m", seconds % 60, "s"),
            3600..86_400 => (seconds / 3600, "h", seconds % 3600 / 60, "m"),
            _ => (seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        };
        number(out, large)?;
        out.write_str(unit)?;
        if small > 0 {
            number(out, small)?;
            out.write_str(small_unit)?;
        }
        Ok(())
    }
}

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// Writes a number in decimal digits.
pub(super) fn number(out: &mut impl fmt::Write, mut value: u64) -> fmt::Result {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] += u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            return out.write_str(str::from_utf8(&digits[first..]).unwrap_or_default());
        }
    }
}

/// Writes an endpoint as `Display` does.
pub(super) fn endpoint(out: &mut impl fmt::Write, endpoint: Endpoint) -> fmt::Result {
    let IpAddr::V4(addr) = endpoint.addr else { return write!(out, "{endpoint}") };
    for (part, end) in addr.octets().into_iter().zip([".", ".", ".", ":"]) {
        number(out, part.into())?;
        out.write_str(end)?;
    }
    number(out, endpoint.port.into())
}

/// An idle timeout in the unit in which the field names it, seconds: `350s`, `432000s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl Limit {
    /// Writes it.
    pub(super) fn write(self, out: &mut impl fmt::Write) -> fmt::Result {
        if self.0.subsec_nanos() > 0 {
            return write!(out, "{}s", self.0.as_secs_f64());
        }
        number(out, self.0.as_secs())?;
        out.write_str("s")
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// A timer as `ss -o` writes it: `keepalive,4min48sec,0`; `-` for none.
pub struct SsTimer<'a>(pub &'a Finding);

impl SsTimer<'_> {
    /// Writes it.
    pub(super) fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let Finding { timer, expires, .. } = self.0;
        if *timer == Timer::None {
            return out.write_str("-");
        }
        out.write_str(timer.name())?;
        out.write_str(",")?;
        SsTime(expires.unwrap_or_default()).write(out)?;
        out.write_str(",")?;
        number(out, self.0.timer_retransmits().into())
    }
}

impl fmt::Display for SsTimer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// A timer in plain words: `next probe in 3.5s`; `-` for none.
pub struct PlainTimer<'a>(pub &'a Finding);

impl fmt::Display for PlainTimer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { timer, expires, .. } = self.0;
        let what = match timer {
            Timer::None => return f.write_str("-"),
            Timer::KeepAlive => "next probe",
            Timer::Retransmit => "retransmission",
            Timer::Persist => "window probe",
            other => other.name(),
        };
        f.write_str(what)?;
        if let Some(expires) = expires {
            write!(f, " in {}", Human(*expires))?;
        }
        match self.0.timer_retransmits() {
            0 => Ok(()),
            count => write!(f, ", {count} unanswered"),
        }
    }
}

/// A span of time as `ss` writes it: from a minute on without milliseconds, from ten minutes on without seconds.
struct SsTime(Millis);

impl SsTime {
    fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (mut minutes, mut seconds, mut ms) = (0, self.0.get() / 1000, self.0.get() % 1000);
        if seconds >= 60 {
            (minutes, seconds, ms) = (seconds / 60, seconds % 60, 0);
        }
        if minutes > 0 {
            number(out, minutes)?;
            out.write_str("min")?;
            if minutes > 9 {
                seconds = 0;
            }
        }
        if seconds > 0 {
            if seconds > 9 {
                ms = 0;
            }
            number(out, seconds)?;
            out.write_str(if ms > 0 { "." } else { "sec" })?;
        }
        if ms > 0 { write!(out, "{ms:03}ms") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_ss_writes_them() {
        let cases = [
            (0, ""),
            (5, "005ms"),
            (999, "999ms"),
            (1_000, "1sec"),
            (1_200, "1.200ms"),
            (9_040, "9.040ms"),
            (10_040, "10sec"),
            (60_000, "1min"),
            (288_400, "4min48sec"),
            (599_000, "9min59sec"),
            (7_199_000, "119min"),
        ];
        for (ms, expected) in cases {
            let mut text = String::new();
            SsTime(Millis::new(ms)).write(&mut text).unwrap();
            assert_eq!(text, expected, "{ms}");
        }
    }

    #[test]
    fn times_read_as_people_say_them() {
        let cases =
            [(0, "0s"), (4_250, "4.2s"), (59_999, "59s"), (350_000, "5m50s"), (7_200_000, "2h"), (273_600_000, "3d4h")];
        for (ms, expected) in cases {
            assert_eq!(Human(Millis::new(ms)).to_string(), expected, "{ms}");
        }
    }

    #[test]
    fn numbers_and_endpoints_are_written_as_by_display() {
        let written = |write: &dyn Fn(&mut String) -> fmt::Result| {
            let mut text = String::new();
            write(&mut text).unwrap();
            text
        };
        for value in [0, 1, 9, 10, 99, 100, 65_535, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            assert_eq!(written(&|out| number(out, value)), value.to_string());
        }
        for (addr, port) in [("0.0.0.0", 0), ("10.99.0.1", 8000), ("255.255.255.255", 65_535), ("::1", 22)] {
            let one = Endpoint::new(addr.parse().unwrap(), port);
            assert_eq!(written(&|out| endpoint(out, one)), one.to_string());
        }
        for (limit, expected) in [(350_000, "350s"), (1, "0.001s"), (1_500, "1.5s"), (432_000_000, "432000s")] {
            assert_eq!(Limit(Duration::from_millis(limit)).to_string(), expected);
        }
    }
}
