//! The cause of a flag: a closed set, derived from a finding.

use super::memory::Millis;
use super::policy::RefreshedBy;
use super::report::Finding;
use super::verdict::{Keepalive, Verdict, in_time};

/// The cause of a flag. Connections with one cause need one remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The peer does not answer.
    Unanswered,
    /// Only data refreshes the path, and none comes in time.
    PayloadOnly,
    /// HTTP/2 PING frames come, and a middlebox that reads HTTP/2 does not count them.
    PingsNotCounted,
    /// Keepalive is off.
    KeepaliveOff,
    /// Keepalive is on, with the system's default times.
    SystemDefault,
    /// `TCP_KEEPIDLE` is too long.
    KeepidleTooLong,
    /// `TCP_KEEPIDLE` is short enough and `TCP_KEEPINTVL` is too long. Or one of them is too long, and the timer does
    /// not show which.
    KeepintvlTooLong,
    /// The options are short enough, but the next probe comes too late: an option was set late, or unsent data delays
    /// the probe.
    ProbeTooLate,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Unanswered,
        Self::PayloadOnly,
        Self::PingsNotCounted,
        Self::KeepaliveOff,
        Self::SystemDefault,
        Self::KeepidleTooLong,
        Self::KeepintvlTooLong,
        Self::ProbeTooLate,
    ];

    /// The JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::PayloadOnly => "payload_only",
            Self::PingsNotCounted => "pings_not_counted",
            Self::KeepaliveOff => "keepalive_off",
            Self::SystemDefault => "keepalive_default",
            Self::KeepidleTooLong => "keepidle_too_long",
            Self::KeepintvlTooLong => "keepintvl_too_long",
            Self::ProbeTooLate => "probe_too_late",
        }
    }

    /// Whether keepalive options of the local side are no remedy, because the path does not count probes.
    #[must_use]
    pub fn is_payload(self) -> bool {
        matches!(self, Self::PayloadOnly | Self::PingsNotCounted)
    }

    /// The cause for a flagged connection. `None` if it is not flagged.
    #[must_use]
    pub fn of(finding: &Finding) -> Option<Self> {
        let late = |span: Option<Millis>| span.is_some_and(|span| !in_time(span, finding.path.idle_timeout));
        Some(match finding.verdict {
            verdict if !verdict.flagged() => return None,
            Verdict::Blackholed | Verdict::Unanswered => Self::Unanswered,
            _ if finding.has_uncounted_pings() => Self::PingsNotCounted,
            _ if finding.path.refreshed_by == RefreshedBy::Payload => Self::PayloadOnly,
            _ if finding.keepalive == Keepalive::Off => Self::KeepaliveOff,
            _ if !late(finding.probes_after) => Self::ProbeTooLate,
            _ if SystemDefault::of(finding).is_some() => Self::SystemDefault,
            _ if late(finding.keepidle) => Self::KeepidleTooLong,
            _ => Self::KeepintvlTooLong,
        })
    }
}

/// The idle time after which a probe may come, rounded to whole seconds like the options: the kernel's clocks have an
/// error of some milliseconds.
#[must_use]
pub fn probes_after_seconds(finding: &Finding) -> Option<u64> {
    const CLOCKS: Millis = Millis::new(20);
    finding.probes_after.map(|after| after.saturating_sub(CLOCKS).get().div_ceil(1000))
}

/// The idle time until the first probe, in seconds, if it is the namespace's `tcp_keepalive_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemDefault {
    /// The timer shows exactly that time.
    Shown(u64),
    /// The timer shows a little less. Traffic does not re-arm it, so it shows less for a connection with traffic. Few
    /// programs set a time just below the default.
    Probable(u64),
}

impl SystemDefault {
    /// The default time of a connection whose keepalive timer is armed.
    #[must_use]
    pub fn of(finding: &Finding) -> Option<Self> {
        let (default, after) = (u64::from(finding.tcp_keepalive_time?), probes_after_seconds(finding)?);
        if after == default {
            Some(Self::Shown(default))
        } else {
            let is_read = finding.exact.is_some_and(|exact| exact.tcp_keepidle.is_some());
            let least = Millis::from_secs(default / 8 * 7);
            let near = after < default && finding.keepidle.or(finding.probes_after) >= Some(least);
            (near && !is_read).then_some(Self::Probable(default))
        }
    }

    /// The number of seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Shown(seconds) | Self::Probable(seconds) => seconds,
        }
    }
}
