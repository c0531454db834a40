//! Computes the keepalive state and the verdict of one connection from its facts.

pub use super::facts::Facts;
use super::memory::heartbeat::kinds::Protocol;
use super::memory::keepidle::SAME_MS;
use super::memory::{KeepaliveTimer, Millis, PeerProbes, Unanswered};
use super::policy::{OverdueBy, Path, Policy, RefreshedBy};

/// What the local side does to keep the path alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keepalive {
    /// Armed, and so far it probes before the path's idle timeout, the timer's slack included.
    On,
    /// Armed, but it may probe only after the idle timeout.
    Late,
    /// No keepalive timer.
    Off,
    /// Another timer masks it, and no earlier sweep saw it.
    Unknown,
}

impl Keepalive {
    /// The number of values.
    pub const COUNT: usize = Self::Unknown as usize + 1;
    /// Every value, in the order of the metrics.
    pub const ALL: [Self; Self::COUNT] = [Self::On, Self::Late, Self::Off, Self::Unknown];

    /// The label and JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Late => "late",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// The judgement of one established connection. Ordered worst first; `Local` stays the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It was overdue, then the local side sent, and the peer does not answer.
    Blackholed,
    /// The peer does not answer: the path or the peer is gone.
    Unanswered,
    /// Unprotected, and idle for the path's idle timeout: the path has probably dropped it.
    Overdue,
    /// Unprotected, and not idle for that long yet.
    Exposed,
    /// The kernel hides the keepalive timer behind another one.
    Undetermined,
    /// Unprotected, but not long-lived yet.
    Young,
    /// The application's own heartbeats keep the path fresh.
    AppProtected,
    /// The peer's probes keep the path fresh.
    PeerProtected,
    /// The local side's keepalive comes in time.
    Protected,
    /// No middlebox between the two ends.
    Local,
}

impl Verdict {
    /// The number of values.
    pub const COUNT: usize = Self::Local as usize + 1;
    /// Every value, worst first.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Blackholed,
        Self::Unanswered,
        Self::Overdue,
        Self::Exposed,
        Self::Undetermined,
        Self::Young,
        Self::AppProtected,
        Self::PeerProtected,
        Self::Protected,
        Self::Local,
    ];

    /// The label and JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Blackholed => "blackholed",
            Self::Unanswered => "unanswered",
            Self::Undetermined => "undetermined",
            Self::Protected => "protected",
            Self::PeerProtected => "peer_protected",
            Self::AppProtected => "app_protected",
            Self::Young => "young",
            Self::Overdue => "overdue",
            Self::Exposed => "exposed",
        }
    }

    /// Whether it needs a remedy.
    #[must_use]
    pub fn flagged(self) -> bool {
        matches!(self, Self::Blackholed | Self::Unanswered | Self::Overdue | Self::Exposed)
    }
}

/// The rules for one connection: its path's, and those of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// The shortest time after which a middlebox on the path drops an idle connection.
    pub idle_timeout: Millis,
    /// What restarts that time.
    pub refreshed_by: RefreshedBy,
    /// A middlebox reads HTTP/2 itself: PING frames do not restart that time.
    pub reads_http2: bool,
    /// From this age on a connection is long-lived.
    pub long_lived: Millis,
    /// What makes a connection overdue.
    pub overdue_by: OverdueBy,
}

/// This many unanswered segments are not ordinary loss, if the peer has sent nothing for the path's idle timeout
/// either.
const UNANSWERED: u32 = 2;
/// This many unanswered probes are not ordinary loss.
const UNANSWERED_PROBES: u8 = 3;
/// Three probes take longer than this. If the peer has sent a segment more recently, the count of three is outdated.
const PROBES_TAKE: Millis = Millis::from_secs(2);
/// An answer takes less than this. A segment that is unanswered for longer is lost.
const ANSWER: Millis = Millis::from_secs(1);
/// This many consecutive retransmissions are not ordinary loss.
const UNANSWERED_RETRANSMITS: u8 = 6;

impl Criteria {
    /// The rules for a connection that takes this path.
    #[must_use]
    pub fn new(path: &Path, policy: &Policy) -> Self {
        Self {
            idle_timeout: path.idle_timeout.into(),
            refreshed_by: path.refreshed_by,
            reads_http2: path.reads_http2,
            long_lived: policy.long_lived.into(),
            overdue_by: policy.overdue_by,
        }
    }

    /// Whether an idle time has reached the idle timeout.
    #[must_use]
    pub fn reached(&self, idle: Millis) -> bool {
        idle >= self.idle_timeout
    }

    /// Whether HTTP/2 PING frames end at a middlebox that does not count them.
    fn ignores_pings(&self) -> bool {
        self.reads_http2 && self.refreshed_by == RefreshedBy::Payload
    }

    /// The time since something last refreshed the path.
    #[must_use]
    pub fn idle(&self, facts: &Facts) -> Option<Millis> {
        match self.refreshed_by {
            RefreshedBy::Segment => facts.wire_idle,
            RefreshedBy::Payload if self.ignores_pings() => facts.request_idle,
            RefreshedBy::Payload => facts.data_idle,
        }
    }

    /// Whether the path has probably dropped its state.
    ///
    /// No clock shows the peer's probes, so the agent waits until it has watched the whole idle timeout. The clocks do
    /// show all payload.
    #[must_use]
    pub fn has_expired(&self, facts: &Facts) -> bool {
        let watched = self.refreshed_by == RefreshedBy::Payload
            || self.overdue_by == OverdueBy::Clocks
            || self.reached(facts.watched);
        facts.expired || watched && self.idle(facts).is_some_and(|idle| self.reached(idle))
    }

    /// Whether segments of the local side are unanswered, and ordinary loss does not explain it.
    pub(super) fn is_unanswered(&self, facts: &Facts) -> bool {
        let Unanswered { probes, retransmits, .. } = facts.unanswered;
        let not_heard = |span| facts.last_heard.is_none_or(|last| last >= span);
        let silent = facts.last_heard.is_some_and(|last| self.reached(last));
        // a retransmission repeats a segment: once its answer is due, both segments are unanswered
        let repeated = retransmits > 0 && facts.data_idle.is_some_and(|sent| sent >= ANSWER);
        // a probe that we saw sent is lost once its answer is due; the next one may come only after KEEPINTVL
        let repeated = repeated || probes > 0 && facts.watched >= ANSWER;
        facts.unanswered.count() + u32::from(repeated) >= UNANSWERED && silent
            || retransmits >= UNANSWERED_RETRANSMITS
            || probes >= UNANSWERED_PROBES && not_heard(PROBES_TAKE)
    }

    /// Whether the application's heartbeats keep the path fresh.
    fn app_protects(&self, facts: &Facts) -> bool {
        let heartbeats = facts.heartbeats.filter(|seen| seen.protocol != Protocol::Http2 || !self.ignores_pings());
        !facts.expired && heartbeats.is_some_and(|heartbeats| heartbeats.refresh(self.idle_timeout))
    }

    /// Whether the peer's probes keep the path fresh.
    fn peer_protects(&self, facts: &Facts) -> bool {
        match facts.peer_keepalive {
            Some(Keepalive::On) => true,
            // the peer's own timer shows that its probes may come too late
            Some(Keepalive::Late | Keepalive::Off) => false,
            Some(Keepalive::Unknown) | None => facts.peer_probes.is_some_and(|probes| {
                let waits = probes.period.or(probes.waited);
                !probes.late
                    && !self.reached(probes.ago)
                    && !waits.is_some_and(|waits| self.reached(waits))
                    && !facts.wire_idle.is_some_and(|idle| self.have_stopped(&probes, idle))
            }),
        }
    }

    /// For how long nothing may move until the peer's probes are missing: two of them, but half the limit at least,
    /// because probes that were lost are repeated sooner.
    pub(super) fn probes_miss_after(&self, probes: &PeerProbes) -> Millis {
        let twice = probes.period.or(probes.waited).map_or(self.idle_timeout, |period| period.saturating_mul(2));
        twice.max(self.idle_timeout.half()).min(self.idle_timeout)
    }

    /// Whether the peer's probes have stopped.
    fn have_stopped(&self, probes: &PeerProbes, idle: Millis) -> bool {
        idle > self.probes_miss_after(probes)
    }
}

/// Whether segments that were sent after the path dropped its state are lost: an answer does not take that long.
fn is_lost(facts: &Facts) -> bool {
    match facts.unanswered.count() {
        0 => false,
        1 => facts.watched >= ANSWER,
        _ => true,
    }
}

/// The timer wheel fires late by up to an eighth of the timeout (measured: KEEPIDLE 140 s probes after 155 s). Only
/// KEEPIDLE × 9/8 below the idle timeout is in time.
#[must_use]
pub fn in_time(keepidle: impl Into<Millis>, idle_timeout: impl Into<Millis>) -> bool {
    u128::from(keepidle.into().get()) * 9 < u128::from(idle_timeout.into().get()) * 8
}

/// The local side's keepalive by the path's idle timeout.
#[must_use]
pub fn keepalive(idle_timeout: impl Into<Millis>, facts: &Facts) -> Keepalive {
    let idle_timeout = idle_timeout.into();
    match facts.timer {
        KeepaliveTimer::Unknown => Keepalive::Unknown,
        KeepaliveTimer::Off => Keepalive::Off,
        KeepaliveTimer::Armed => {
            let late = |span: Millis| !in_time(span, idle_timeout);
            let idle = facts.wire_idle.filter(|_| !facts.probing || facts.expired).unwrap_or_default();
            let reached = idle >= idle_timeout;
            // the idle time at a timer that is due is not a bound: the timer may fire late, or try again
            let next = facts.next_probe.filter(|&next| next > SAME_MS.into()).map(|next| next.saturating_add(idle));
            let bounds = [facts.keepidle, facts.probes_after, next];
            if reached || bounds.into_iter().flatten().any(late) { Keepalive::Late } else { Keepalive::On }
        }
    }
}

/// The verdict; first match wins, in the order of the contract.
#[must_use]
pub fn judge(criteria: &Criteria, keepalive: Keepalive, facts: &Facts) -> Verdict {
    let by_segments = criteria.refreshed_by == RefreshedBy::Segment;
    let has_expired = criteria.has_expired(facts);
    if facts.expired && is_lost(facts) {
        Verdict::Blackholed
    } else if criteria.is_unanswered(facts) || facts.peer_unanswered {
        // also between two ends on this node: a firewall, or a peer that is gone
        Verdict::Unanswered
    } else if facts.local {
        Verdict::Local
    } else if by_segments && keepalive == Keepalive::Unknown {
        // while another timer hides the keepalive timer, no probe comes
        if has_expired { Verdict::Overdue } else { Verdict::Undetermined }
    } else if by_segments && keepalive == Keepalive::On {
        Verdict::Protected
    } else if by_segments && criteria.peer_protects(facts) {
        Verdict::PeerProtected
    } else if criteria.app_protects(facts) {
        Verdict::AppProtected
    } else if has_expired {
        // however young: it is at least as old as it was idle
        Verdict::Overdue
    } else if facts.age < criteria.long_lived {
        Verdict::Young
    } else {
        Verdict::Exposed
    }
}
