//! The judgement of one connection: facts in, keepalive state and verdict out.

use std::time::Duration;

use super::memory::keepidle::SAME_MS;
use super::memory::{KeepaliveTimer, PeerProbes};
use super::policy::OverdueBy;
use crate::socket::KeepaliveOptions;

/// What this end does to keep the path alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keepalive {
    /// Armed, and as far as is known it probes before the path's idle timeout, the timer's slack included.
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

/// What is said of one established connection. Ordered worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Was overdue, then sent, and what it sent stays unanswered.
    Blackholed,
    /// What the local side sent finds no answer: the path or the peer is gone.
    Unanswered,
    /// Unprotected, and silent for the path's idle timeout: the path has probably forgotten it.
    Overdue,
    /// Unprotected, and not yet silent for that long.
    Exposed,
    /// The kernel hides the keepalive timer behind another one.
    Undetermined,
    /// Unprotected, but not long-lived yet.
    Young,
    /// The application's own heartbeats keep the path fresh.
    AppProtected,
    /// The other end's probes keep the path fresh.
    PeerProtected,
    /// This end's keepalive comes in time.
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

    /// Whether somebody should do something about it.
    #[must_use]
    pub fn flagged(self) -> bool {
        matches!(self, Self::Blackholed | Self::Unanswered | Self::Overdue | Self::Exposed)
    }
}

/// What is known of one connection. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub struct Facts {
    /// Whether a keepalive timer is armed.
    pub armed: KeepaliveTimer,
    /// Lower bound of KEEPIDLE.
    pub keepidle: Option<u64>,
    /// Lower bound of the longest silence that this end's probes leave: of the longer one of KEEPIDLE and KEEPINTVL.
    pub probes_after: Option<u64>,
    /// Until the keepalive timer fires, where it is the one that the kernel reports.
    pub next_probe: Option<u64>,
    /// Our own probes are going out, unanswered: silence by the clocks is not silence on the wire.
    pub probing: bool,
    /// Since the last segment that we know of; `None` on kernels that do not tell.
    pub wire_idle: Option<u64>,
    /// For how long we have watched nothing move.
    pub watched: u64,
    /// Lower bound of the connection's age.
    pub age: u64,
    /// Retransmitting without an answer.
    pub unanswered: bool,
    /// The last verdict was `overdue`, and nothing was heard since.
    pub was_overdue: bool,
    /// Both ends are where nothing between them forgets.
    pub local: bool,
    /// The other end's probes, as seen on this socket.
    pub peer_probes: Option<PeerProbes>,
    /// The other end's keepalive against this path's idle timeout, where it is on this node.
    pub peer_keepalive: Option<Keepalive>,
}

impl Facts {
    /// These facts with options that were read from the socket itself: they replace what was inferred.
    #[must_use]
    pub fn with_options(mut self, options: Option<&KeepaliveOptions>) -> Self {
        let Some(options) = options else { return self };
        match options.so_keepalive {
            Some(true) => self.armed = KeepaliveTimer::Armed,
            Some(false) => (self.armed, self.keepidle, self.probes_after) = (KeepaliveTimer::Off, None, None),
            None => {}
        }
        if self.armed == KeepaliveTimer::Armed
            && let Some(idle) = options.tcp_keepidle
        {
            let longest = options.tcp_keepintvl.map_or(idle, |interval| interval.max(idle));
            (self.keepidle, self.probes_after) = (Some(u64::from(idle) * 1000), Some(u64::from(longest) * 1000));
        }
        self
    }
}

/// The timer wheel fires late by up to an eighth of the timeout (measured: KEEPIDLE 140 s probes after 155 s), so that only
/// KEEPIDLE × 9/8 below the idle timeout is in time.
#[must_use]
pub fn in_time(keepidle: u64, idle_timeout: Duration) -> bool {
    u128::from(keepidle) * 9 < idle_timeout.as_millis() * 8
}

/// This end's keepalive against the path's idle timeout.
#[must_use]
pub fn keepalive(idle_timeout: Duration, facts: &Facts) -> Keepalive {
    match facts.armed {
        KeepaliveTimer::Unknown => Keepalive::Unknown,
        KeepaliveTimer::Off => Keepalive::Off,
        KeepaliveTimer::Armed => {
            let late = |ms: u64| !in_time(ms, idle_timeout);
            let silent = facts.wire_idle.filter(|_| !facts.probing).unwrap_or(0);
            let reached = u128::from(silent) >= idle_timeout.as_millis();
            // the silence at a timer that is due is no bound: it may be late, or try again
            let next = facts.next_probe.filter(|&next| next > SAME_MS.into()).map(|next| next.saturating_add(silent));
            let known = [facts.keepidle, facts.probes_after, next];
            if reached || known.into_iter().flatten().any(late) { Keepalive::Late } else { Keepalive::On }
        }
    }
}

/// The verdict; first match wins, in the order of the contract.
#[must_use]
pub fn judge(
    keepalive: Keepalive,
    idle_timeout: Duration,
    long_lived: Duration,
    by: OverdueBy,
    facts: &Facts,
) -> Verdict {
    let reached = |ms: u64| u128::from(ms) >= idle_timeout.as_millis();
    let peer_probes = facts
        .peer_probes
        .is_some_and(|probes| !probes.late && !reached(probes.ago) && !probes.period.is_some_and(reached));
    let watched = by == OverdueBy::Clocks || reached(facts.watched);
    if facts.local {
        Verdict::Local
    } else if facts.was_overdue && facts.unanswered {
        Verdict::Blackholed
    } else if keepalive == Keepalive::Unknown {
        Verdict::Undetermined
    } else if keepalive == Keepalive::On {
        Verdict::Protected
    } else if peer_probes || facts.peer_keepalive == Some(Keepalive::On) {
        Verdict::PeerProtected
    } else if u128::from(facts.age) < long_lived.as_millis() {
        Verdict::Young
    } else if watched && facts.wire_idle.is_some_and(reached) {
        Verdict::Overdue
    } else {
        Verdict::Exposed
    }
}
