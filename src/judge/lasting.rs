//! For how long a verdict holds while nothing moves but the local side's keepalive probes.

use std::time::Duration;

use super::policy::OverdueBy;
use super::verdict::{Facts, Keepalive, Verdict};

/// For how long a verdict stays what it is while nothing moves but this end's probes, milliseconds; `None`: for ever.
///
/// `settled`: what is known of KEEPIDLE is all that can be known.
#[must_use]
pub fn lasts(
    keepalive: Keepalive,
    verdict: Verdict,
    idle_timeout: Duration,
    long_lived: Duration,
    by: OverdueBy,
    facts: &Facts,
    settled: bool,
) -> Option<u64> {
    let until = |limit: Duration, ms: u64| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).saturating_sub(ms);
    let timer = match keepalive {
        Keepalive::On if settled => None,
        // the next firing may show that KEEPIDLE is longer, or is the probe that ends a silence
        Keepalive::On | Keepalive::Late => Some(facts.next_probe.unwrap_or(0)),
        Keepalive::Off => None,
        Keepalive::Unknown => Some(0),
    };
    let verdict = match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Undetermined | Verdict::AppProtected => Some(0),
        Verdict::Young => Some(until(long_lived, facts.age)),
        Verdict::Exposed => facts.wire_idle.map(|idle| {
            let watched = if by == OverdueBy::Watch { until(idle_timeout, facts.watched) } else { 0 };
            until(idle_timeout, idle).max(watched)
        }),
        Verdict::PeerProtected => facts.peer_probes.map(|probes| until(idle_timeout, probes.ago)),
        Verdict::Overdue | Verdict::Protected | Verdict::Local => None,
    };
    timer.into_iter().chain(verdict).min()
}
