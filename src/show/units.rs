//! Times and timers as people read them.

use std::fmt;
use std::time::Duration;

use crate::judge::report::{Finding, Millis};
use crate::socket::Timer;

/// A span of time as a person says it: `0s`, `4.2s`, `59s`, `5m50s`, `2h`, `3d4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub Millis);

impl From<Duration> for Human {
    fn from(duration: Duration) -> Self {
        Self(duration.into())
    }
}

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.get();
        let seconds = ms / 1000;
        let pair = |f: &mut fmt::Formatter<'_>, large: u64, unit: char, small: u64, small_unit: char| {
            if small == 0 { write!(f, "{large}{unit}") } else { write!(f, "{large}{unit}{small}{small_unit}") }
        };
        match seconds {
            0..10 if !ms.is_multiple_of(1000) => write!(f, "{}.{}s", seconds, ms % 1000 / 100),
            0..60 => write!(f, "{seconds}s"),
            60..3600 => pair(f, seconds / 60, 'm', seconds % 60, 's'),
            3600..86_400 => pair(f, seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
            _ => pair(f, seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
        }
    }
}

/// An idle timeout in the unit in which the field names it, seconds: `350s`, `432000s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

/// A timer as `ss -o` writes it: `keepalive,4min48sec,0`; `-` for none.
pub struct SsTimer<'a>(pub &'a Finding);

impl fmt::Display for SsTimer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { timer, expires, .. } = self.0;
        if *timer == Timer::None {
            return f.write_str("-");
        }
        write!(f, "{},{},{}", timer.name(), SsTime(expires.unwrap_or_default()), self.0.timer_retransmits())
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

impl fmt::Display for SsTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut minutes, mut seconds, mut ms) = (0, self.0.get() / 1000, self.0.get() % 1000);
        if seconds >= 60 {
            (minutes, seconds, ms) = (seconds / 60, seconds % 60, 0);
        }
        if minutes > 0 {
            write!(f, "{minutes}min")?;
            if minutes > 9 {
                seconds = 0;
            }
        }
        if seconds > 0 {
            if seconds > 9 {
                ms = 0;
            }
            write!(f, "{seconds}{}", if ms > 0 { "." } else { "sec" })?;
        }
        if ms > 0 { write!(f, "{ms:03}ms") } else { Ok(()) }
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
            assert_eq!(SsTime(Millis::new(ms)).to_string(), expected, "{ms}");
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
}
