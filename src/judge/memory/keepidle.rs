//! KEEPIDLE, which the kernel does not tell, inferred from the keepalive timer.
//!
//! The kernel's `tcp_keepalive_timer` is not re-armed by traffic. When it fires it looks at the time since anything was heard: less than
//! KEEPIDLE, and it is armed for what is left of it; otherwise a probe goes out and it is armed for KEEPINTVL. So
//! `expires + min(last_data_recv, last_ack_recv)` is
//! - at most KEEPIDLE of a timer that **no probe** has set, and KEEPIDLE itself while nothing was heard since it was set;
//! - about KEEPINTVL, which may be longer than KEEPIDLE, of one that a probe has set, until it fires again.
//!
//! One look cannot tell the two apart: data that follows a probe hides it. A KEEPIDLE is told only of a timer that no probe can have set:
//! - nothing acknowledged since the look before, so that no probe was answered, and the timer set since;
//! - no segment without data sent since then, or never, but those of the handshake and of the first data: a probe is one;
//! - no traffic at all since the handshake.
//!
//! What a timer shows of which that is not known still is a silence that may pass before the next probe: a bound of the longer one of KEEPIDLE
//! and KEEPINTVL. The keepalive state rests on both bounds. Two sockets that probe every 60 s, one with KEEPIDLE 60 s and a KEEPINTVL too short to be met by
//! any look, the other with KEEPINTVL 60 s and a shorter KEEPIDLE, look the same for ever: there this second bound is all that can be known.
//!
//! One overshoot is left: `SO_KEEPALIVE` turned on while idle arms a full KEEPIDLE from then, until the timer fires, which shows only where a look
//! before found no timer. Options that change show when the
//! timer is seen that the change has set; until then the bounds tell the options before.

/// Two deadlines closer than this are one: clocks are read some milliseconds apart, and in jiffies of up to 10 ms. The kernel tries again after
/// this long or less where it could not look at the socket or could not send, so that a timer so close says nothing.
pub const SAME_MS: u32 = 500;
/// An acknowledgement this much later than all data answers a probe: KEEPIDLE is at least 1 s, a delayed acknowledgement takes 0.2 s at most.
pub(super) const PROBE_ANSWER_MS: u32 = 900;

/// The keepalive timer, as one look shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// There is none.
    Off,
    /// Another timer hides it.
    Hidden,
    /// Milliseconds until it fires; the probe that set it has no answer yet.
    Probing(u32),
    /// Milliseconds until it fires.
    Armed(u32),
}

/// What one look at a socket says about its keepalive timer. Milliseconds; `at` is a monotonic clock that may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the socket was read.
    pub at: u32,
    /// The timer.
    pub timer: Pending,
    /// Since the last data was sent.
    pub data_sent: u32,
    /// Since the last data was received.
    pub data_recv: u32,
    /// Since the last acknowledgement was received.
    pub ack_recv: u32,
    /// Segments sent; wraps.
    pub segs_out: u32,
    /// The lowest bits of how many of them carried no data, where the kernel counts them.
    pub bare_out: Option<u8>,
    /// The counters of the whole life leave no room for a probe: see [`never_probed`](super::fresh::never_probed).
    pub never_probed: bool,
}

/// What is known after a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Lower bound of KEEPIDLE, milliseconds; 0 where nothing is known.
    pub keepidle: u32,
    /// Lower bound of the longer one of KEEPIDLE and KEEPINTVL, as far as timers told it that a probe may have set; 0 where none did.
    pub either: u32,
    /// No probe has set the timer that is pending.
    pub unprobed: bool,
    /// KEEPIDLE was read off a timer that was seen before and after it fired: more looks tell nothing more of it.
    pub settled: bool,
    /// `SO_KEEPALIVE` was turned on between two looks, and the timer that this armed has not fired yet.
    pub turned_on: bool,
}

impl Sample {
    /// Since anything was heard that the keepalive timer counts.
    fn silence(self) -> u32 {
        self.data_recv.min(self.ack_recv)
    }

    /// When anything was last heard.
    fn heard_at(self) -> u32 {
        self.at.wrapping_sub(self.silence())
    }

    /// When the timer fires, where that shows.
    fn deadline(self) -> Option<u32> {
        match self.timer {
            Pending::Armed(expires) | Pending::Probing(expires) => Some(self.at.wrapping_add(expires)),
            Pending::Off | Pending::Hidden => None,
        }
    }

    /// The last thing heard came alone: the answer to our own probe, if it is not a change of the window.
    fn bare_answer(self) -> bool {
        self.ack_recv.saturating_add(PROBE_ANSWER_MS) < self.data_sent.min(self.data_recv)
    }

    /// Whether this end sent no segment without data since `before`.
    fn nothing_bare_since(self, before: Self) -> bool {
        let few = u8::try_from(self.segs_out.wrapping_sub(before.segs_out)).is_ok();
        few && self.bare_out.is_some() && self.bare_out == before.bare_out
    }

    /// Whether nothing was acknowledged since `before`. A probe ends a silence of a second at least, and only an acknowledgement ends its wait.
    fn nothing_acknowledged_since(self, before: Self) -> bool {
        after(self.at.wrapping_sub(self.ack_recv), before.heard_at()) <= SAME_MS.cast_signed()
    }
}

/// What is known after `now`; `before` is the look before and what was known then.
#[must_use]
pub fn infer(before: Option<(Sample, Known)>, now: Sample) -> Known {
    let (before, known) = before.unzip();
    let mut known: Known = known.unwrap_or_default();
    let nothing_bare = before.is_some_and(|before| now.nothing_bare_since(before));
    match now.timer {
        Pending::Off => return Known::default(),
        // whether a probe waits for its answer is hidden, too
        Pending::Hidden => return Known { unprobed: nothing_bare && known.unprobed, ..known },
        Pending::Probing(_) | Pending::Armed(_) => {}
    }
    let moved = before.and_then(|before| Moved::between(before, now));
    if moved.as_ref().is_some_and(|moved| moved.early) {
        // an option was set
        (known.keepidle, known.either, known.settled) = (0, 0, false);
    }
    let Pending::Armed(expires) = now.timer else { return Known { unprobed: false, ..known } };
    let no_probe = nothing_bare || before.is_some_and(|before| now.nothing_acknowledged_since(before));
    let set_since = moved.is_some() || before.is_some_and(|before| before.timer == Pending::Off);
    // the same timer as before, which cannot have fired since; one that is due may be another
    let same = expires > 0 && moved.is_none() && before.is_some_and(|before| before.deadline().is_some());
    known.unprobed = now.never_probed || same && known.unprobed || no_probe && (known.unprobed || set_since);
    let sum = expires.saturating_add(now.silence());
    if let Some(moved) = &moved
        && !known.unprobed
        && now.bare_answer()
    {
        // No probe comes before KEEPIDLE, or before the timer fires, and no answer unless one was awaited: a bound above this silence, or any
        // where the answer came sooner, is one of other options, or the overshoot.
        let silence = moved.heard_again.saturating_add(SAME_MS);
        let awaited = before.is_some_and(|before| matches!(before.timer, Pending::Probing(_)));
        let sooner = !awaited && after(moved.was, now.heard_at()) > SAME_MS.cast_signed();
        if sooner || known.keepidle > silence {
            (known.keepidle, known.settled) = (0, false);
        }
        known.either = if known.either > silence.max(sum.saturating_add(SAME_MS)) { 0 } else { known.either };
    }
    if expires <= SAME_MS {
        return known;
    }
    if before.is_some_and(|before| before.timer == Pending::Off) {
        known.turned_on = true;
        // armed for a full KEEPIDLE, and not before the look that found no timer
        known.keepidle = if known.unprobed { expires } else { 0 };
    } else if moved.is_some() {
        known.turned_on = false;
    }
    if known.turned_on {
        return known;
    }
    if let Some(moved) = moved
        && known.unprobed
    {
        // it was set for what was left since the last thing heard, then or later
        known.keepidle = known.keepidle.min(sum.saturating_add(moved.heard_again));
        // nothing was heard since it fired
        known.settled |= !moved.early && i64::from(now.silence()) >= i64::from(after(now.at, moved.was));
    }
    let bound = if known.unprobed { &mut known.keepidle } else { &mut known.either };
    *bound = sum.max(*bound);
    known
}

/// A deadline that is not the one of the look before.
struct Moved {
    /// The deadline that was.
    was: u32,
    /// It moved before it was reached.
    early: bool,
    /// From what was last heard at the look before to what was last heard now.
    heard_again: u32,
}

impl Moved {
    fn between(before: Sample, now: Sample) -> Option<Self> {
        let (was, is) = (before.deadline()?, now.deadline()?);
        let early = after(was, now.at) > SAME_MS.cast_signed();
        // a timer that is due reads 0 for as long as it is late
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
mod tests {
    use super::*;

    /// A socket whose last data (both ways) and last acknowledgement were at these times, and which sent so many segments without data.
    fn look(at: u32, deadline: u32, data: u32, ack: u32, bare: u8) -> Sample {
        Sample {
            at,
            timer: Pending::Armed(deadline.saturating_sub(at)),
            data_sent: at - data,
            data_recv: at - data,
            ack_recv: at - ack,
            segs_out: bare.into(),
            bare_out: Some(bare),
            never_probed: false,
        }
    }

    fn fresh(sample: Sample) -> Sample {
        Sample { never_probed: true, ..sample }
    }

    /// Feeds looks one after the other; tells both bounds after each.
    fn follow(looks: &[Sample]) -> Vec<(u32, u32)> {
        let mut before = None;
        looks
            .iter()
            .map(|&now| {
                let known = infer(before, now);
                before = Some((now, known));
                (known.keepidle, known.either)
            })
            .collect()
    }

    #[test]
    fn a_fresh_idle_socket_tells_keepidle_at_once() {
        // KEEPIDLE 300 s, data at 0, seen at 3.2 s: expires 296.8 s
        assert_eq!(follow(&[fresh(look(3_200, 300_000, 0, 0, 2))]), [(300_000, 0)]);
    }

    #[test]
    fn one_look_at_a_socket_that_may_have_probed_tells_the_silence_and_not_keepidle() {
        // KEEPIDLE 60, KEEPINTVL 75: probe at 60, data at 61, first seen at 65
        assert_eq!(follow(&[look(65_000, 135_000, 61_000, 61_000, 9)]), [(0, 74_000)]);
    }

    #[test]
    fn traffic_lowers_the_sum_but_never_the_bound() {
        let looks = [fresh(look(1_000, 60_000, 0, 0, 2)), look(30_000, 60_000, 29_000, 29_000, 3)];
        assert_eq!(follow(&looks), [(60_000, 0), (60_000, 0)]);
    }

    #[test]
    fn a_timer_that_fires_in_silence_and_sends_nothing_tells_keepidle() {
        // first seen in traffic: armed at 0 for 60 s, last data at 30 s
        let looks = [look(31_000, 60_000, 30_000, 30_000, 9), look(61_000, 90_000, 30_000, 30_000, 9)];
        assert_eq!(follow(&looks), [(0, 30_000), (60_000, 30_000)]);
    }

    #[test]
    fn a_timer_that_fires_in_traffic_tells_keepidle_if_nothing_was_sent_without_data() {
        // armed at 0 for 60 s, requests at 30 s and 70 s answered with data
        let quiet = [look(31_000, 60_000, 30_000, 30_000, 9), look(71_000, 90_000, 70_000, 70_000, 9)];
        assert_eq!(follow(&quiet), [(0, 30_000), (20_000, 30_000)]);
        let chatty = [look(31_000, 60_000, 30_000, 30_000, 9), look(71_000, 90_000, 70_000, 70_000, 10)];
        assert_eq!(follow(&chatty), [(0, 30_000), (0, 30_000)]);
    }

    #[test]
    fn many_segments_may_hide_one_behind_the_few_bits_that_are_kept() {
        let mut later = look(71_000, 90_000, 70_000, 70_000, 9);
        later.segs_out += 256;
        assert_eq!(follow(&[look(31_000, 60_000, 30_000, 30_000, 9), later]), [(0, 30_000), (0, 30_000)]);
    }

    #[test]
    fn keepintvl_after_a_probe_is_not_mistaken_for_keepidle() {
        // KEEPIDLE 60, KEEPINTVL 75: probes at 60, 135, 210, all answered at once
        let looks = [
            fresh(look(10_000, 60_000, 0, 0, 2)),
            look(61_000, 135_000, 0, 60_000, 3),
            look(134_000, 135_000, 0, 60_000, 3),
            look(140_000, 210_000, 0, 135_000, 4),
        ];
        assert_eq!(follow(&looks), [(60_000, 0), (60_000, 75_000), (60_000, 75_000), (60_000, 75_000)]);
    }

    #[test]
    fn a_socket_first_seen_between_its_probes_tells_keepidle_when_keepintvl_is_over() {
        // KEEPIDLE 60, KEEPINTVL 10: probe at 120, timer to 130, then to 180
        let looks = [look(125_000, 130_000, 0, 120_000, 9), look(140_000, 180_000, 0, 120_000, 9)];
        assert_eq!(follow(&looks), [(0, 10_000), (60_000, 10_000)]);
    }

    #[test]
    fn between_two_probes_that_no_look_tells_from_keepintvl_only_the_silence_is_known() {
        // KEEPIDLE 60, KEEPINTVL 1, or KEEPINTVL 60 and any KEEPIDLE that is shorter
        let looks = [look(125_000, 180_000, 0, 120_000, 9), look(185_000, 240_000, 0, 180_000, 10)];
        assert_eq!(follow(&looks), [(0, 60_000), (0, 60_000)]);
    }

    #[test]
    fn a_timer_that_is_due_but_late_adds_nothing() {
        // KEEPIDLE 140 s, still not fired at 150 s
        let looks = [fresh(look(130_000, 140_000, 0, 0, 2)), fresh(look(150_000, 140_000, 0, 0, 2))];
        assert_eq!(follow(&looks), [(140_000, 0), (140_000, 0)]);
        assert_eq!(follow(&looks[1..]), [(0, 0)]);
    }

    #[test]
    fn a_changed_keepidle_replaces_the_bounds_in_both_directions() {
        let shorter = [look(10_000, 7_200_000, 0, 0, 9), look(20_000, 60_000, 0, 0, 9)];
        assert_eq!(follow(&shorter), [(0, 7_200_000), (60_000, 0)]);
        let longer = [look(10_000, 60_000, 0, 0, 9), look(20_000, 7_200_000, 0, 0, 9)];
        assert_eq!(follow(&longer), [(0, 60_000), (7_200_000, 0)]);
    }

    #[test]
    fn a_keepidle_shortened_below_the_silence_probes_at_once_and_tells_nothing() {
        // KEEPIDLE 60 to 10 at 20 s, KEEPINTVL 75
        let looks = [fresh(look(15_000, 60_000, 0, 0, 2)), look(25_000, 95_000, 0, 20_000, 3)];
        assert_eq!(follow(&looks), [(60_000, 0), (0, 75_000)]);
    }

    #[test]
    fn keepalive_turned_on_between_two_looks_tells_keepidle() {
        let off = Sample { timer: Pending::Off, ..look(10_000, 0, 9_900, 9_900, 9) };
        assert_eq!(follow(&[off, look(20_000, 71_000, 9_900, 9_900, 9)]), [(0, 0), (51_000, 0)]);
        // unless a probe may have gone out meanwhile
        assert_eq!(follow(&[off, look(20_000, 71_000, 19_000, 19_000, 11)]), [(0, 0), (0, 0)]);
    }

    #[test]
    fn a_mask_keeps_what_is_known_of_the_timer_until_something_is_acknowledged() {
        let first = fresh(look(1_000, 60_000, 0, 0, 2));
        let hidden = |ack, bare| Sample { timer: Pending::Hidden, ..look(30_000, 0, 29_000, ack, bare) };
        let after = |bare| look(45_000, 90_000, 44_000, 44_000, bare);
        assert_eq!(follow(&[first, hidden(0, 2), after(2)]), [(60_000, 0), (60_000, 0), (60_000, 0)]);
        assert_eq!(follow(&[first, hidden(29_000, 3), after(3)]), [(60_000, 0), (60_000, 0), (60_000, 46_000)]);
    }

    #[test]
    fn the_overshoot_of_a_late_so_keepalive_ends_when_the_timer_fires() {
        // SO_KEEPALIVE with KEEPIDLE 60 turned on 4 s after the last data, probe answered at 64, KEEPINTVL 5
        let looks = [
            fresh(look(5_000, 64_000, 0, 0, 2)),
            look(66_000, 69_000, 0, 64_000, 3),
            look(70_000, 124_000, 0, 64_000, 3),
        ];
        assert_eq!(follow(&looks), [(64_000, 0), (64_000, 5_000), (60_000, 5_000)]);
    }

    #[test]
    fn the_overshoot_ends_at_the_second_probe_where_keepintvl_is_not_shorter() {
        // SO_KEEPALIVE with KEEPIDLE 2 and KEEPINTVL 2 turned on 6 s after the last data: probes at 8, 10, 12
        let looks =
            [fresh(look(7_000, 8_000, 0, 0, 2)), look(8_500, 10_000, 0, 8_000, 3), look(10_400, 12_000, 0, 10_000, 4)];
        assert_eq!(follow(&looks), [(8_000, 0), (8_000, 2_000), (0, 2_000)]);
    }

    #[test]
    fn a_timer_about_to_fire_says_nothing() {
        // tried again after 50 ms, because a process held the socket: 60 s and 7 s of slack have passed
        let looks = [fresh(look(50_000, 60_000, 0, 0, 2)), fresh(look(67_010, 67_050, 0, 0, 2))];
        assert_eq!(follow(&looks), [(60_000, 0), (60_000, 0)]);
    }

    #[test]
    fn the_clock_may_wrap() {
        let at = u32::MAX - 1_000;
        let since = |ms| Sample { data_sent: ms, data_recv: ms, ack_recv: ms, ..look(at, at, at, at, 9) };
        let first = Sample { timer: Pending::Armed(50_000), never_probed: true, ..since(10_000) };
        let later = Sample { at: at.wrapping_add(20_000), timer: Pending::Armed(30_000), ..since(30_000) };
        assert_eq!(follow(&[first, later]), [(60_000, 0), (60_000, 0)]);
    }
}
