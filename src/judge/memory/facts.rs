//! What a stored connection shows at a moment after its last sample.

use super::clock::{Millis, Moment, Tick, wrap};
use super::connection::{
    CLOCKS, EXPIRED, FINAL, HEARD_UNEXPLAINED, KeepaliveTimer, LATE_PEER, OPENED_HERE, TIMER_ARMED, TIMER_OFF,
    TrackedConnection, UNEXPLAINED, UNPROBED, WAITING,
};
use super::heartbeat::Heartbeats;
use crate::socket::Timer;

impl TrackedConnection {
    /// The time from the last sample to `now`.
    fn since_sample(&self, now: Moment) -> Millis {
        wrap(now).wrapping_sub(self.sampled_at).into()
    }

    /// The value at `now` of a clock that had this value at the last sample.
    fn run_on(&self, clock: u32, now: Moment) -> Millis {
        self.since_sample(now).saturating_add(clock.into())
    }

    /// When it was last sampled, given any `now` after it.
    #[must_use]
    pub fn sampled_at(&self, now: Moment) -> Moment {
        now.minus(self.since_sample(now))
    }

    /// The timer at the last sample.
    #[must_use]
    pub fn timer(&self) -> Timer {
        self.timer.timer()
    }

    /// From `now` until the timer fires.
    #[must_use]
    pub fn expires(&self, now: Moment) -> Millis {
        Millis::from(self.expires).saturating_sub(self.since_sample(now))
    }

    /// Whether a keepalive timer is armed, so far.
    #[must_use]
    pub fn keepalive_timer(&self) -> KeepaliveTimer {
        if self.is(TIMER_ARMED) {
            KeepaliveTimer::Armed
        } else if self.is(TIMER_OFF) {
            KeepaliveTimer::Off
        } else {
            KeepaliveTimer::Unknown
        }
    }

    /// Lower bound of KEEPIDLE, where one is known.
    #[must_use]
    pub fn keepidle(&self) -> Option<Millis> {
        (self.keepidle > 0).then_some(self.keepidle.into())
    }

    /// Lower bound of the longest idle time before a probe of the local side, where one is known. It is a bound of the
    /// longer one of KEEPIDLE and KEEPINTVL.
    #[must_use]
    pub fn probes_after(&self) -> Option<Millis> {
        let longest = self.keepidle.max(self.unproven);
        (longest > 0).then_some(longest.into())
    }

    /// Whether more samples of the keepalive timer can neither improve the inferred KEEPIDLE nor show a KEEPINTVL that
    /// is longer than the bound: a sample has shown a timer that a probe had set.
    #[must_use]
    pub fn timer_is_final(&self) -> bool {
        self.is(FINAL) && !self.is(UNPROBED) && self.unproven > 0
    }

    /// A lower bound of the connection's age at `now`.
    #[must_use]
    pub fn age(&self, now: Moment) -> Millis {
        self.born.until(now)
    }

    /// A lower bound of the time for which we have watched the connection without traffic.
    #[must_use]
    pub fn watched(&self, now: Moment) -> Millis {
        self.moved.until(now)
    }

    /// The time since the last payload byte in either direction. `None` if the kernel does not report it.
    #[must_use]
    pub fn data_idle(&self, now: Moment) -> Option<Millis> {
        self.is(CLOCKS).then(|| self.run_on(self.data_idle, now))
    }

    /// The application's heartbeats, if samples showed some.
    #[must_use]
    pub fn heartbeats(&self, now: Moment) -> Option<Heartbeats> {
        self.heartbeats.heartbeats(self.data_idle(now)?, now)
    }

    /// Whether samples showed what may be heartbeats.
    #[must_use]
    pub fn may_have_heartbeats(&self) -> bool {
        self.heartbeats.is_begun()
    }

    /// The time since the last known segment from the peer, by the kernel's clocks and the segment counters.
    #[must_use]
    pub fn last_heard(&self, now: Moment) -> Option<Millis> {
        let clock = self.is(CLOCKS).then(|| self.run_on(self.heard_idle, now))?;
        Some(if self.is(HEARD_UNEXPLAINED) { clock.min(self.heard.until(now)) } else { clock })
    }

    /// The time since the last known segment of any kind, by the kernel's clocks and the segment counters.
    ///
    /// Once the path has dropped its state, only a segment from the peer counts.
    #[must_use]
    pub fn wire_idle(&self, now: Moment) -> Option<Millis> {
        let last_heard = self.last_heard(now)?;
        if self.is(EXPIRED) {
            return Some(last_heard);
        }
        let clocks = self.run_on(self.data_idle.min(self.heard_idle), now);
        Some(if self.is(UNEXPLAINED) { clocks.min(self.watched(now)) } else { clocks })
    }

    /// The wire idle time at the last sample. `now` may be any later moment.
    pub(super) fn last_idle_time(&self, now: Moment) -> Millis {
        self.wire_idle(self.sampled_at(now)).unwrap_or_default()
    }

    /// The connection at `held`, if the only traffic since the last sample was probes of the local side: as a sample
    /// would show it then, or at the moment at which the keepalive timer fired before.
    pub(super) fn advance_unchanged(&mut self, held: Moment) {
        let mut passed = wrap(held).wrapping_sub(self.sampled_at);
        if self.keepalive_timer() == KeepaliveTimer::Armed {
            passed = passed.min(self.expires);
        }
        self.sampled_at = self.sampled_at.wrapping_add(passed);
        self.expires = self.expires.saturating_sub(passed);
        for clock in [&mut self.data_idle, &mut self.heard_idle] {
            *clock = clock.saturating_add(passed);
        }
    }

    /// The local side sent last, and the peer has sent nothing since.
    #[must_use]
    pub fn waiting_for_reply(&self) -> bool {
        self.is(WAITING)
    }

    /// Segments of the local side that the peer has not answered.
    #[must_use]
    pub fn unanswered(&self) -> Unanswered {
        Unanswered { probes: self.probes, retransmits: self.timer.retransmits() }
    }

    /// What the last sample says that matters once the connection has ended; `now` is any later moment.
    #[must_use]
    pub fn last_sample(&self, now: Moment) -> LastSample {
        LastSample {
            at: self.sampled_at(now),
            segs_in: self.segs_in.get(),
            opened_here: self.is(OPENED_HERE),
            has_unanswered: self.unanswered().count() > 0,
        }
    }

    /// The peer's probes that samples showed.
    #[must_use]
    pub fn peer_probes(&self, now: Moment) -> Option<PeerProbes> {
        (self.peer_probe != Tick::default()).then(|| PeerProbes {
            ago: self.peer_probe.until(now),
            period: self.peer_period.get(),
            waited: self.peer_period.bound(),
            late: self.is(LATE_PEER),
        })
    }
}

/// The last sample of a connection that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSample {
    /// When it was taken.
    pub at: Moment,
    /// Segments received, modulo 2^24.
    pub segs_in: u32,
    /// The local side connected.
    pub opened_here: bool,
    /// Something that the local side had sent had no answer.
    pub has_unanswered: bool,
}

/// The peer's keepalive probes, as samples showed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProbes {
    /// The time since the last one.
    pub ago: Millis,
    /// The time between the last two, if there were two.
    pub period: Option<Millis>,
    /// If there was only one: the peer was silent for at most this long before it.
    pub waited: Option<Millis>,
    /// The last one came after we had watched the path's whole idle timeout without traffic.
    pub late: bool,
}

/// The unanswered segments of the local side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Probes, for keepalive or a closed window.
    pub probes: u8,
    /// Consecutive retransmissions.
    pub retransmits: u8,
}

impl Unanswered {
    /// The number of segments.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.probes) + u32::from(self.retransmits)
    }
}
