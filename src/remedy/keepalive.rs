//! Which keepalive protects a path: derived from the idle timeout, and refused where it cannot.

use std::time::Duration;

use super::RemedyError;
use crate::judge::verdict::in_time;

/// The longest derived idle time, however long the path keeps a connection: so a dead peer is found within minutes.
const LONGEST_IDLE: u64 = 300;
/// Probes are not spread wider than this.
const LONGEST_INTERVAL: u64 = 30;
/// Probes of a derived keepalive: two may be lost on a bad link without closing a live connection.
const PROBES: u64 = 5;
/// Greatest `TCP_KEEPIDLE` and `TCP_KEEPINTVL` that Linux takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL` in net/tcp.h).
const MAX_SECONDS: u64 = 32_767;
/// Greatest `TCP_KEEPCNT` (`MAX_TCP_KEEPCNT`).
const MAX_PROBES: u64 = 127;

/// The three socket options, in seconds and probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveSettings {
    /// `TCP_KEEPIDLE`, seconds.
    pub idle: u64,
    /// `TCP_KEEPINTVL`, seconds.
    pub interval: u64,
    /// `TCP_KEEPCNT`.
    pub probes: u64,
}

impl KeepaliveSettings {
    /// Fills in what is not given. The first probe comes at half the budget at the latest. A dead peer is found within
    /// the budget where that is possible. What cannot protect is refused.
    pub fn derive(
        idle: Option<Duration>,
        interval: Option<Duration>,
        probes: Option<u32>,
        budget: Duration,
    ) -> Result<Self, RemedyError> {
        let idle = idle.map(|given| seconds("idle", given)).transpose()?;
        let interval = interval.map(|given| seconds("interval", given)).transpose()?;
        let probes = probes.map(|given| count(given.into())).transpose()?;
        let most = greatest_idle(budget).ok_or(RemedyError::NoRoom(budget))?;
        // The last whole second before the path drops the connection.
        let last = u64::try_from(budget.as_nanos().saturating_sub(1) / 1_000_000_000).unwrap_or(u64::MAX);

        let idle = idle.unwrap_or_else(|| {
            let at_most = (budget.as_secs() / 2).min(LONGEST_IDLE).clamp(1, most);
            let detection = interval.unwrap_or(1) * probes.unwrap_or(1);
            last.checked_sub(detection).filter(|room| *room > 0).map_or(at_most, |room| room.min(at_most))
        });
        if !in_time(Duration::from_secs(idle), budget) {
            return Err(RemedyError::TooLate {
                idle,
                latest: decimal(Duration::from_secs(idle) * 9 / 8),
                budget: decimal(budget),
                most,
            });
        }
        let room = last.saturating_sub(idle);
        let interval = interval.unwrap_or_else(|| (room / probes.unwrap_or(PROBES)).clamp(1, LONGEST_INTERVAL));
        let probes = probes.unwrap_or_else(|| (room / interval).clamp(1, PROBES));
        Ok(Self { idle, interval, probes })
    }

    /// Seconds from the last segment until the kernel closes a connection to a dead peer.
    #[must_use]
    pub fn detection(self) -> u64 {
        self.idle + self.interval * self.probes
    }

    /// One line for a comment.
    #[must_use]
    pub fn summary(self, budget: Duration) -> String {
        let Self { interval, probes, .. } = self;
        format!("{}, then every {interval} s; closed after {probes} without an answer.", self.first_probe(budget))
    }

    /// The same where only the idle time can be set.
    #[must_use]
    pub fn first_probe(self, budget: Duration) -> String {
        format!(
            "Keepalive for a path that drops idle connections after {} s: a probe after {} s of idle time",
            decimal(budget),
            self.idle
        )
    }

    /// What still deserves saying about values that do protect.
    #[must_use]
    pub fn warning(self, budget: Duration) -> Option<String> {
        let (detection, limit) = (self.detection(), decimal(budget));
        (Duration::from_secs(detection) >= budget).then(|| {
            format!(
                "A live connection is protected, but a dead peer is noticed only after {detection} s, later than the \
                 path's {limit} s."
            )
        })
    }
}

/// The greatest whole KEEPIDLE with KEEPIDLE × 9/8 < budget: the kernel's timer wheel fires up to an eighth late.
fn greatest_idle(budget: Duration) -> Option<u64> {
    let exclusive = budget.as_nanos() * 8;
    let most = exclusive.saturating_sub(1) / (9 * 1_000_000_000);
    u64::try_from(most).ok().map(|most| most.min(MAX_SECONDS)).filter(|most| *most > 0)
}

fn seconds(flag: &'static str, given: Duration) -> Result<u64, RemedyError> {
    let whole = given.as_secs();
    if given.subsec_nanos() == 0 && (1..=MAX_SECONDS).contains(&whole) {
        Ok(whole)
    } else {
        let value = humantime::format_duration(given).to_string();
        Err(RemedyError::OutOfRange { flag, value, range: "whole seconds from 1s to 32767s" })
    }
}

fn count(given: u64) -> Result<u64, RemedyError> {
    if (1..=MAX_PROBES).contains(&given) {
        Ok(given)
    } else {
        Err(RemedyError::OutOfRange { flag: "probes", value: given.to_string(), range: "1 to 127 probes" })
    }
}

/// Seconds with as many decimals as they need: `350`, `787.5`.
fn decimal(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn derive(
        idle: Option<u64>,
        interval: Option<u64>,
        probes: Option<u32>,
        budget: u64,
    ) -> Result<KeepaliveSettings, RemedyError> {
        KeepaliveSettings::derive(idle.map(s), interval.map(s), probes, s(budget))
    }

    #[test]
    fn the_default_budget() {
        let keepalive = derive(None, None, None, 350).expect("fits");
        assert_eq!(keepalive, KeepaliveSettings { idle: 175, interval: 30, probes: 5 });
        assert_eq!(keepalive.warning(s(350)), None);
    }

    #[test]
    fn every_budget_of_two_seconds_or_more_has_a_keepalive_that_protects() {
        for budget in (2..2000).chain([3600, 8000, 86_400, 432_000]) {
            let keepalive = derive(None, None, None, budget).expect("fits");
            assert!(in_time(s(keepalive.idle), s(budget)), "{budget}: {keepalive:?}");
            assert!(keepalive.idle <= (budget / 2).max(1), "{budget}: {keepalive:?}");
            assert!(budget < 3 || keepalive.detection() < budget, "{budget}: {keepalive:?}");
        }
    }

    #[test]
    fn one_second_leaves_no_room() {
        assert!(matches!(derive(None, None, None, 1), Err(RemedyError::NoRoom(_))));
    }

    #[test]
    fn an_eighth_of_slack_decides_what_protects() {
        // 311 × 9/8 = 349.875, 312 × 9/8 = 351.
        assert!(derive(Some(311), None, None, 350).is_ok());
        for idle in [312, 340, 350, 700, 7200] {
            let error = derive(Some(idle), None, None, 350).expect_err("is too late");
            assert!(matches!(error, RemedyError::TooLate { most: 311, .. }), "{error}");
        }
        let error = derive(Some(700), None, None, 350).expect_err("is too late");
        assert_eq!(
            error.to_string(),
            "--idle 700s cannot protect a path that drops idle connections after 350s: the kernel's timer fires up to \
             an \
             eighth late, so the first probe may come only after 787.5s; use at most 311s"
        );
    }

    #[test]
    fn equality_does_not_protect() {
        // 80 × 9/8 = 90 exactly.
        assert!(matches!(derive(Some(80), None, None, 90), Err(RemedyError::TooLate { most: 79, .. })));
        assert!(derive(Some(80), None, None, 91).is_ok());
    }

    #[test]
    fn given_values_stay_and_the_rest_fits_around_them() {
        assert_eq!(
            derive(Some(300), Some(20), Some(4), 350).expect("fits"),
            KeepaliveSettings { idle: 300, interval: 20, probes: 4 }
        );
        assert_eq!(
            derive(Some(600), Some(75), Some(9), 1200).expect("fits"),
            KeepaliveSettings { idle: 600, interval: 75, probes: 9 }
        );
        assert_eq!(
            derive(None, Some(60), Some(5), 600).expect("fits"),
            KeepaliveSettings { idle: 299, interval: 60, probes: 5 }
        );
        assert_eq!(
            derive(Some(300), None, None, 350).expect("fits"),
            KeepaliveSettings { idle: 300, interval: 9, probes: 5 }
        );
    }

    #[test]
    fn late_detection_is_said() {
        let keepalive = derive(Some(300), Some(20), Some(4), 350).expect("fits");
        assert!(keepalive.warning(s(350)).is_some_and(|text| text.contains("after 380 s")), "300 + 4 × 20 = 380");
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        assert!(matches!(derive(Some(40_000), None, None, 90_000), Err(RemedyError::OutOfRange { flag: "idle", .. })));
        assert!(matches!(derive(None, Some(0), None, 350), Err(RemedyError::OutOfRange { flag: "interval", .. })));
        assert!(matches!(derive(None, None, Some(128), 350), Err(RemedyError::OutOfRange { flag: "probes", .. })));
        let fraction = KeepaliveSettings::derive(Some(Duration::from_millis(1500)), None, None, s(350));
        assert!(matches!(fraction, Err(RemedyError::OutOfRange { flag: "idle", .. })));
    }
}
