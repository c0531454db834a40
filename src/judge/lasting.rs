//! Computes how long a verdict holds if the only traffic is the local side's keepalive probes.

use super::memory::Millis;
use super::policy::{OverdueBy, RefreshedBy};
use super::verdict::{Criteria, Facts, Keepalive, Verdict};

/// The time for which a verdict holds if the only traffic is the local side's probes. `None`: without end.
///
/// `timer_is_final`: more samples cannot improve the inferred KEEPIDLE, nor show a longer KEEPINTVL.
#[must_use]
pub fn lasts(
    criteria: &Criteria,
    keepalive: Keepalive,
    verdict: Verdict,
    facts: &Facts,
    timer_is_final: bool,
) -> Option<Millis> {
    if facts.unanswered.count() > 0 {
        // retransmissions and probes without a route change no counter, and become unanswered by time alone
        return Some(Millis::ZERO);
    }
    let until = |limit: Millis, passed| limit.saturating_sub(passed);
    let timer = match keepalive {
        Keepalive::On if timer_is_final => None,
        // the next time the timer fires, KEEPIDLE may turn out longer, or a probe ends the idle time
        Keepalive::On | Keepalive::Late => Some(facts.next_probe.unwrap_or_default()),
        Keepalive::Off => None,
        Keepalive::Unknown => Some(Millis::ZERO),
    };
    let expiry = criteria.idle(facts).map(|idle| {
        let by_watching = criteria.refreshed_by == RefreshedBy::Segment && criteria.overdue_by == OverdueBy::Watch;
        let watched = if by_watching { until(criteria.idle_timeout, facts.watched) } else { Millis::ZERO };
        until(criteria.idle_timeout, idle).max(watched)
    });
    let verdict = match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Undetermined => Some(Millis::ZERO),
        Verdict::AppProtected => facts.heartbeats.map(|heartbeats| until(criteria.idle_timeout.half(), heartbeats.ago)),
        // the path may drop a connection that is not long-lived yet
        Verdict::Young => expiry.into_iter().chain([until(criteria.long_lived, facts.age)]).min(),
        Verdict::Exposed => expiry,
        Verdict::PeerProtected => facts.peer_probes.map(|probes| {
            let missing = until(criteria.probes_miss_after(&probes), facts.wire_idle.unwrap_or_default());
            until(criteria.idle_timeout, probes.ago).min(missing)
        }),
        Verdict::Overdue | Verdict::Protected | Verdict::Local => None,
    };
    timer.into_iter().chain(verdict).min()
}
