//! KEEPIDLE, which the kernel does not report, inferred from the keepalive timer.
//!
//! Traffic does not re-arm the kernel's `tcp_keepalive_timer`. When the timer fires, the kernel checks the time since
//! anything was heard. If that is less than KEEPIDLE, the kernel arms the timer for the rest. Otherwise it sends a
//! probe and arms the timer for KEEPINTVL. So `expires + min(last_data_recv, last_ack_recv)` is
//! - at most KEEPIDLE if **no probe** set the timer, and KEEPIDLE itself while nothing was heard since;
//! - about KEEPINTVL, which may be longer than KEEPIDLE, if a probe set it, until it fires again.
//!
//! One sample cannot separate the two, because data that follows a probe hides it. We report a KEEPIDLE only if no
//! probe can have set the timer:
//! - nothing was acknowledged since the sample before, so no probe was answered, and the timer was set since;
//! - the local side sent no segment without data since then, because a probe is one. Or it never sent one but those of
//!   the handshake and of the
//!   first data;
//! - there was no traffic at all since the handshake.
//!
//! If we cannot exclude that a probe set the timer, its value is still the time until the next probe. It bounds the
//! longer one of KEEPIDLE and KEEPINTVL. The keepalive state rests on both bounds. Some sockets look the same to every
//! sample: one that probes every 60 s with KEEPIDLE 60 s and a KEEPINTVL too short for any sample, and one with
//! KEEPINTVL 60 s and a shorter KEEPIDLE. Only the second bound is known there.
//!
//! One overshoot is left. `SO_KEEPALIVE` that is turned on while idle arms a full KEEPIDLE from then, until the timer
//! fires. It shows only if an earlier sample found no timer. A sum that exceeds the namespace's default by no more than
//! the idle time is that default, because most sockets have it. Options that change show in the first timer that the
//! change has set. Until then the bounds are those of the options before.

/// Two deadlines closer than this are one: samples are dated to some milliseconds, and the kernel counts jiffies of up
/// to 10 ms. If it cannot look at the socket or cannot send, it tries again after this long or less, so a timer this
/// close says nothing.
pub const SAME_MS: u32 = 500;
/// An acknowledgement this much later than all data answers a probe: KEEPIDLE is at least 1 s, a delayed
/// acknowledgement takes 0.2 s at most.
pub(super) const PROBE_ANSWER_MS: u32 = 900;
/// What clocks in jiffies add to a sum.
const GRAIN_MS: u32 = 50;

/// The keepalive timer in one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    /// There is none.
    Off,
    /// Another timer hides it.
    Hidden,
    /// Milliseconds until it fires. A probe set it and has no answer yet.
    Probing(u32),
    /// Milliseconds until it fires.
    Armed(u32),
}

/// What the memory keeps of one sample of the keepalive timer. Milliseconds; `at` is a monotonic clock that may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the socket was read.
    pub at: u32,
    /// The timer.
    pub timer: TimerState,
    /// Since anything was heard that the keepalive timer counts: data or an acknowledgement.
    pub heard: u32,
    /// Segments sent; wraps.
    pub segs_out: u32,
    /// The lowest bits of the number of them that carried no data, where the kernel counts them.
    pub bare_out: Option<u8>,
}

/// What only the newest sample says. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clues {
    /// Since the last acknowledgement was received.
    pub acknowledged: u32,
    /// Since the last data in either direction.
    pub data_idle: u32,
    /// The counters leave no room for a probe: see [`never_probed`](super::fresh::never_probed).
    pub never_probed: bool,
    /// The namespace's `tcp_keepalive_time`.
    pub default_keepidle: Option<u32>,
}

/// What is known of the timer's options after a sample. Milliseconds; 0 where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Lower bound of KEEPIDLE.
    pub keepidle: u32,
    /// Lower bound of the longer one of KEEPIDLE and KEEPINTVL, from timers that a probe may have set.
    pub unproven: u32,
    /// No probe set the timer that is pending.
    pub unprobed: bool,
    /// KEEPIDLE comes from a timer that was sampled before and after it fired: more samples show nothing more of it.
    pub is_final: bool,
    /// `SO_KEEPALIVE` was turned on between two samples, and the timer that this armed has not fired yet.
    pub turned_on: bool,
}

impl Sample {
    /// When anything was last heard.
    fn heard_at(self) -> u32 {
        self.at.wrapping_sub(self.heard)
    }

    /// When the timer fires, where that shows.
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
    /// The last thing heard came alone: the answer to our own probe, if it is not a change of the window.
    fn bare_answer(self) -> bool {
        self.acknowledged.saturating_add(PROBE_ANSWER_MS) < self.data_idle
    }

    /// The bound that a timer gives which fires in `expires` after `heard` without a word.
    ///
    /// `SO_KEEPALIVE` may have armed the timer anywhere in that idle time. A sum above the namespace's default by less
    /// than that is the default.
    fn bound(self, expires: u32, heard: u32) -> u32 {
        let sum = expires.saturating_add(heard);
        match self.default_keepidle {
            Some(default) if sum > default && sum - default <= heard.saturating_add(GRAIN_MS) => default,
            _ => sum,
        }
    }
}

/// What is known after `now`; `before` is the sample before and what was known then.
#[must_use]
pub fn infer(before: Option<(Sample, Bounds)>, now: Sample, clues: Clues) -> Bounds {
    let (before, bounds) = before.unzip();
    let mut bounds: Bounds = bounds.unwrap_or_default();
    let nothing_bare = before.is_some_and(|before| now.nothing_bare_since(before));
    match now.timer {
        TimerState::Off => return Bounds::default(),
        // whether a probe waits for its answer is hidden, too
        TimerState::Hidden => return Bounds { unprobed: nothing_bare && bounds.unprobed, ..bounds },
        TimerState::Probing(_) | TimerState::Armed(_) => {}
    }
    let rearmed = before.and_then(|before| Rearmed::between(before, now));
    if rearmed.as_ref().is_some_and(|rearmed| rearmed.early) {
        // an option was set
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
        // No probe comes before KEEPIDLE, or before the timer fires, and no answer unless one was awaited. A bound
        // above this idle time is one of other options, or the overshoot; so is any bound if the answer came sooner.
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
        // armed for a full KEEPIDLE, and not before the sample that found no timer
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
        // it was set for what was left since the last thing heard, then or later
        bounds.keepidle = bounds.keepidle.min(sum.saturating_add(rearmed.heard_again));
        // nothing was heard since it fired
        bounds.is_final |= !rearmed.early && i64::from(now.heard) >= i64::from(after(now.at, rearmed.was));
    }
    let bound = if bounds.unprobed { &mut bounds.keepidle } else { &mut bounds.unproven };
    *bound = sum.max(*bound);
    bounds
}

/// A deadline that is not the one of the sample before.
struct Rearmed {
    /// The deadline that was.
    was: u32,
    /// It changed before it was reached.
    early: bool,
    /// From what was last heard in the sample before to what was last heard now.
    heard_again: u32,
}

impl Rearmed {
    fn between(before: Sample, now: Sample) -> Option<Self> {
        let (was, is) = (before.deadline()?, now.deadline()?);
        let early = after(was, now.at) > SAME_MS.cast_signed();
        // a timer that is due reads 0 as long as it is late
        let same = after(is, was).unsigned_abs() <= SAME_MS || is == now.at && !early;
        let heard_again = after(now.heard_at(), before.heard_at());
        // no more than the clocks' jitter: nothing was heard
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
