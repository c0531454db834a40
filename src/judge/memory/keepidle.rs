//! Infers KEEPIDLE from the keepalive timer, because the kernel does not report it.
//!
//! Traffic does not re-arm the kernel's `tcp_keepalive_timer`. When the timer fires, the kernel checks the time since
//! the last data or acknowledgement was received. If that is less than KEEPIDLE, it arms the timer for the rest.
//! Otherwise it sends a probe and arms the timer for KEEPINTVL. So `expires + min(last_data_recv, last_ack_recv)` is
//! - at most KEEPIDLE if **no probe** set the timer, and exactly KEEPIDLE until the next segment is received;
//! - about KEEPINTVL, which may be longer than KEEPIDLE, if a probe set it, until it fires again.
//!
//! One sample cannot separate the two, because data that follows a probe hides it. We report a KEEPIDLE only if no
//! probe can have set the timer:
//! - nothing was acknowledged since the sample before, so no probe was answered, and the timer was set since;
//! - the local side sent no segment without data since then, because a probe is one. Or its only such segments ever
//!   were those of the handshake and of the first data;
//! - there was no traffic at all since the handshake.
//!
//! If we cannot exclude that a probe set the timer, its value is still the time until the next probe. It bounds the
//! longer one of KEEPIDLE and KEEPINTVL. The keepalive state depends on both bounds. Samples cannot distinguish a
//! socket with KEEPIDLE 60 s and a very short KEEPINTVL from one with KEEPINTVL 60 s and a shorter KEEPIDLE: both probe
//! every 60 s. For these, only the second bound is known.
//!
//! The bound is too high in one case. If a program turns on `SO_KEEPALIVE` while the connection is idle, the kernel
//! arms a full KEEPIDLE from that moment. We notice it only if an earlier sample found no timer. The error ends when
//! the timer fires. A sum that exceeds the namespace's default by no more than the idle time is taken as that default,
//! because most sockets have it. After a program changes an option, the bounds are those of the old options until the
//! kernel arms the timer with the new ones.

/// Two deadlines closer than this are the same one: the moments of samples have an error of some milliseconds, and the
/// kernel counts jiffies of up to 10 ms. If the kernel cannot lock the socket or cannot send, it tries again within
/// this time, so a timer this close proves nothing.
pub const SAME_MS: u32 = 500;
/// An acknowledgement this much later than all data answers a probe: KEEPIDLE is at least 1 s, a delayed
/// acknowledgement takes 0.2 s at most.
pub(super) const PROBE_ANSWER_MS: u32 = 900;
/// The error of clocks in jiffies in a sum.
const GRAIN_MS: u32 = 50;

/// The keepalive timer in one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    /// No timer.
    Off,
    /// Another timer masks it.
    Hidden,
    /// Milliseconds until it fires. A probe set it and has no answer yet.
    Probing(u32),
    /// Milliseconds until it fires.
    Armed(u32),
}

/// The stored part of one sample of the keepalive timer, in milliseconds. `at` is a monotonic clock that may wrap
/// around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the socket was read.
    pub at: u32,
    /// The timer.
    pub timer: TimerState,
    /// The time since the last received data or acknowledgement, which the keepalive timer counts from.
    pub heard: u32,
    /// Segments sent; wraps.
    pub segs_out: u32,
    /// The lowest bits of the number of segments without data, if the kernel counts them.
    pub bare_out: Option<u8>,
}

/// Facts of the newest sample only, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clues {
    /// The time since the last received acknowledgement.
    pub acknowledged: u32,
    /// The time since the last data in either direction.
    pub data_idle: u32,
    /// The counters exclude a probe: see [`never_probed`](super::fresh::never_probed).
    pub never_probed: bool,
    /// The namespace's `tcp_keepalive_time`.
    pub default_keepidle: Option<u32>,
}

/// The known bounds of the timer's options after a sample, in milliseconds. 0 if nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Lower bound of KEEPIDLE.
    pub keepidle: u32,
    /// Lower bound of the longer one of KEEPIDLE and KEEPINTVL, from timers that a probe may have set.
    pub unproven: u32,
    /// No probe set the timer that is pending.
    pub unprobed: bool,
    /// KEEPIDLE comes from a timer that was sampled before and after it fired: more samples cannot improve it.
    pub is_final: bool,
    /// `SO_KEEPALIVE` was turned on between two samples, and the timer has not fired since.
    pub turned_on: bool,
}

impl Sample {
    /// When the last segment was received that the keepalive timer counts.
    fn heard_at(self) -> u32 {
        self.at.wrapping_sub(self.heard)
    }

    /// When the timer fires, if the sample shows it.
    fn deadline(self) -> Option<u32> {
        match self.timer {
            TimerState::Armed(expires) | TimerState::Probing(expires) => Some(self.at.wrapping_add(expires)),
            TimerState::Off | TimerState::Hidden => None,
        }
    }

    /// Whether the local side sent no segment without data since `before`.
    fn nothing_bare_since(self, before: Self) -> bool {
        let few = u8::try_from(self.segs_out.wrapping_sub(before.segs_out)).is_ok();
        few && self.bare_out.is_some() && self.bare_out == before.bare_out
    }

    /// Whether nothing was acknowledged since `before`. A probe follows an idle time of a second or more, and only an
    /// acknowledgement ends the wait for its answer.
    fn nothing_acknowledged_since(self, before: Self, clues: Clues) -> bool {
        after(self.at.wrapping_sub(clues.acknowledged), before.heard_at()) <= SAME_MS.cast_signed()
    }
}

impl Clues {
    /// Whether the last acknowledgement came without data: it answers our probe, or updates the window.
    fn bare_answer(self) -> bool {
        self.acknowledged.saturating_add(PROBE_ANSWER_MS) < self.data_idle
    }

    /// The bound from a timer that fires in `expires`, on a connection that has received nothing for `heard`.
    ///
    /// `SO_KEEPALIVE` may have armed the timer at any moment of that idle time. A sum that exceeds the namespace's
    /// default by less than the idle time is taken as the default.
    fn bound(self, expires: u32, heard: u32) -> u32 {
        let sum = expires.saturating_add(heard);
        match self.default_keepidle {
            Some(default) if sum > default && sum - default <= heard.saturating_add(GRAIN_MS) => default,
            _ => sum,
        }
    }
}

/// The bounds after the sample `now`. `before` is the previous sample with its bounds.
#[must_use]
pub fn infer(before: Option<(Sample, Bounds)>, now: Sample, clues: Clues) -> Bounds {
    let (before, bounds) = before.unzip();
    let mut bounds: Bounds = bounds.unwrap_or_default();
    let nothing_bare = before.is_some_and(|before| now.nothing_bare_since(before));
    match now.timer {
        TimerState::Off => return Bounds::default(),
        // the other timer also hides whether a probe waits for its answer
        TimerState::Hidden => return Bounds { unprobed: nothing_bare && bounds.unprobed, ..bounds },
        TimerState::Probing(_) | TimerState::Armed(_) => {}
    }
    let rearmed = before.and_then(|before| Rearmed::between(before, now));
    if rearmed.as_ref().is_some_and(|rearmed| rearmed.early) {
        // a program has set an option
        (bounds.keepidle, bounds.unproven, bounds.is_final) = (0, 0, false);
    }
    let TimerState::Armed(expires) = now.timer else { return Bounds { unprobed: false, ..bounds } };
    let no_probe = nothing_bare || before.is_some_and(|before| now.nothing_acknowledged_since(before, clues));
    let set_since = rearmed.is_some() || before.is_some_and(|before| before.timer == TimerState::Off);
    // the same timer as before, which cannot have fired since; one that is due may be another
    let same = expires > 0 && rearmed.is_none() && before.is_some_and(|before| before.deadline().is_some());
    bounds.unprobed = clues.never_probed || same && bounds.unprobed || no_probe && (bounds.unprobed || set_since);
    let sum = clues.bound(expires, now.heard);
    if let Some(rearmed) = &rearmed
        && !bounds.unprobed
        && clues.bare_answer()
    {
        // The kernel sends no probe before KEEPIDLE, nor before the timer fires, and without a probe there is no
        // answer. So a bound above this idle time belongs to other options, or is too high because keepalive was turned
        // on while idle. The same is true of every bound if the answer came before the timer fired.
        let idle = rearmed.heard_again.saturating_add(SAME_MS);
        let awaited = before.is_some_and(|before| matches!(before.timer, TimerState::Probing(_)));
        let sooner = !awaited && after(rearmed.was, now.heard_at()) > SAME_MS.cast_signed();
        if sooner || bounds.keepidle > idle {
            (bounds.keepidle, bounds.is_final) = (0, false);
        }
        bounds.unproven = if bounds.unproven > idle.max(sum.saturating_add(SAME_MS)) { 0 } else { bounds.unproven };
    }
    if expires <= SAME_MS {
        return bounds;
    }
    if before.is_some_and(|before| before.timer == TimerState::Off) {
        bounds.turned_on = true;
        // the kernel armed it for a full KEEPIDLE, after the sample that found no timer
        bounds.keepidle = if bounds.unprobed { expires } else { 0 };
    } else if rearmed.is_some() {
        bounds.turned_on = false;
    }
    if bounds.turned_on {
        return bounds;
    }
    if let Some(rearmed) = rearmed
        && bounds.unprobed
    {
        // the kernel armed it for the rest of KEEPIDLE, counted from the last received segment at that moment or later
        bounds.keepidle = bounds.keepidle.min(sum.saturating_add(rearmed.heard_again));
        // nothing was received since it fired
        bounds.is_final |= !rearmed.early && i64::from(now.heard) >= i64::from(after(now.at, rearmed.was));
    }
    let bound = if bounds.unprobed { &mut bounds.keepidle } else { &mut bounds.unproven };
    *bound = sum.max(*bound);
    bounds
}

/// A deadline that differs from the one in the previous sample.
struct Rearmed {
    /// The previous deadline.
    was: u32,
    /// The kernel changed it before it was reached.
    early: bool,
    /// The time between the last received segments of the two samples.
    heard_again: u32,
}

impl Rearmed {
    fn between(before: Sample, now: Sample) -> Option<Self> {
        let (was, is) = (before.deadline()?, now.deadline()?);
        let early = after(was, now.at) > SAME_MS.cast_signed();
        // a timer that is due shows 0 until it fires
        let same = after(is, was).unsigned_abs() <= SAME_MS || is == now.at && !early;
        let heard_again = after(now.heard_at(), before.heard_at());
        // a difference within the clocks' error: nothing was received
        let heard_again = if heard_again > SAME_MS.cast_signed() { heard_again.cast_unsigned() } else { 0 };
        (!same).then_some(Self { was, early, heard_again })
    }
}

/// Milliseconds from `other` to `one` on a wrapping clock.
fn after(one: u32, other: u32) -> i32 {
    one.wrapping_sub(other).cast_signed()
}

#[cfg(test)]
mod tests;
