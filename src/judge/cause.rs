//! Why a connection is flagged: a closed set, decided from what a finding says.

use super::memory::Millis;
use super::policy::RefreshedBy;
use super::report::Finding;
use super::verdict::{Keepalive, Verdict, in_time};

/// The cause of a flag. Connections with one cause need one remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// What the local side sent is not answered.
    Unanswered,
    /// Only data refreshes the path, and none comes in time.
    PayloadOnly,
    /// Keepalive is off.
    KeepaliveOff,
    /// Keepalive is on, with the system's default times.
    SystemDefault,
    /// `TCP_KEEPIDLE` is too long.
    KeepidleTooLong,
    /// `TCP_KEEPIDLE` is short enough and `TCP_KEEPINTVL` too long; or one of the two is, and the timer does not show
    /// which.
    KeepintvlTooLong,
    /// The options are in time, and yet the next probe comes too late: an option was set late, or unsent data holds the
    /// probe back.
    ProbeTooLate,
}

impl Cause {
    /// The JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::PayloadOnly => "payload_only",
            Self::KeepaliveOff => "keepalive_off",
            Self::SystemDefault => "keepalive_default",
            Self::KeepidleTooLong => "keepidle_too_long",
            Self::KeepintvlTooLong => "keepintvl_too_long",
            Self::ProbeTooLate => "probe_too_late",
        }
    }

    /// Of a flagged connection; `None` where nothing is flagged.
    #[must_use]
    pub fn of(finding: &Finding) -> Option<Self> {
        let late = |span: Option<Millis>| span.is_some_and(|span| !in_time(span, finding.path.idle_timeout));
        Some(match finding.verdict {
            verdict if !verdict.flagged() => return None,
            Verdict::Blackholed | Verdict::Unanswered => Self::Unanswered,
            _ if finding.path.refreshed_by == RefreshedBy::Payload => Self::PayloadOnly,
            _ if finding.keepalive == Keepalive::Off => Self::KeepaliveOff,
            _ if !late(finding.probes_after) => Self::ProbeTooLate,
            _ if has_system_default(finding) => Self::SystemDefault,
            _ if late(finding.keepidle) => Self::KeepidleTooLong,
            _ => Self::KeepintvlTooLong,
        })
    }
}

/// The idle time after which a probe may come, in seconds: options are whole seconds, and the kernel's clocks are off
/// by some milliseconds.
#[must_use]
pub fn probes_after_seconds(finding: &Finding) -> Option<u64> {
    const CLOCKS: Millis = Millis::new(20);
    finding.probes_after.map(|after| after.saturating_sub(CLOCKS).get().div_ceil(1000))
}

/// Whether the first probe comes after the namespace's `tcp_keepalive_time`.
fn has_system_default(finding: &Finding) -> bool {
    let time = finding.tcp_keepalive_time.map(u64::from);
    time.is_some() && probes_after_seconds(finding) == time
}
