//! KEEPIDLE, which the kernel does not tell, inferred from the keepalive timer.
//!
//! `expires + min(last_data_recv, last_ack_recv)` is a lower bound of KEEPIDLE: traffic does not re-arm the timer, it is armed anew only when it
//! fires, and then for what is left of KEEPIDLE since the last thing heard. Three moments need care:
//! - **after an answered probe** the timer first runs for KEEPINTVL, which may be longer than KEEPIDLE. Only when it fires again after the
//!   same answer does the sum tell KEEPIDLE, so that a socket first seen between its probes has no bound yet;
//! - **while it is due but late** (the timer wheel's slack) the timer reads 0 and the sum goes on growing;
//! - **after a setsockopt** the old bound says nothing any more. It shows as a deadline that moves before it was reached.
//!
//! Two overshoots are left. `SO_KEEPALIVE` turned on while idle arms a full KEEPIDLE from then, until the timer fires. And a *first* look at a
//! socket that got data just after a probe finds KEEPINTVL running, which nothing gives away; where that is longer than KEEPIDLE the next probe
//! really is that far away.

/// Two deadlines closer than this are one: clocks are read some milliseconds apart, and in jiffies of up to 10 ms.
const SAME_MS: u32 = 500;
/// An acknowledgement this much later than all data answers a probe: KEEPIDLE is at least 1 s, a delayed acknowledgement takes 0.2 s at most.
const PROBE_ANSWER_MS: u32 = 900;

/// What one look at a socket says about its keepalive timer. Milliseconds; `at` is a monotonic clock that may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the socket was read.
    pub at: u32,
    /// Until the timer fires.
    pub expires: u32,
    /// Since the last data was sent.
    pub data_sent: u32,
    /// Since the last data was received.
    pub data_recv: u32,
    /// Since the last acknowledgement was received.
    pub ack_recv: u32,
}

impl Sample {
    /// When the timer fires, by the clock of `at`.
    #[must_use]
    pub fn deadline(self) -> u32 {
        self.at.wrapping_add(self.expires)
    }

    /// What the timer was armed for, had it been armed when something was last heard.
    #[must_use]
    pub fn sum(self) -> u32 {
        self.expires.saturating_add(self.data_recv.min(self.ack_recv))
    }

    /// The last thing heard is the answer to our own probe, so that the timer may be running for KEEPINTVL.
    fn probed(self) -> bool {
        self.ack_recv.saturating_add(PROBE_ANSWER_MS) < self.data_sent.min(self.data_recv)
    }
}

/// The best lower bound of KEEPIDLE after `now`, in milliseconds; 0 where nothing is known.
///
/// `before` is the previous look at the same armed timer and the bound that held then; `None` where it was not seen armed.
#[must_use]
pub fn infer(before: Option<(Sample, u32)>, now: Sample) -> u32 {
    let Some((previous, bound)) = before else {
        return if now.expires == 0 || now.probed() { 0 } else { now.sum() };
    };
    if now.expires == 0 || same(now.deadline(), previous.deadline()) {
        return bound;
    }
    let until_due = previous.deadline().wrapping_sub(now.at).cast_signed();
    let set_anew = until_due > SAME_MS.cast_signed();
    let same_answer = same(now.at.wrapping_sub(now.ack_recv), previous.at.wrapping_sub(previous.ack_recv));
    if set_anew || same_answer {
        return now.sum();
    }
    if !now.probed() {
        let heard_since = i64::from(now.data_recv.min(now.ack_recv)) < -i64::from(until_due);
        if !heard_since {
            // fired and found traffic: armed for what was left of KEEPIDLE
            return now.sum();
        }
        // Heard again since it fired, so that the sum is too small by the silence before. And where that silence may have been KEEPIDLE, a
        // probe may have gone out unnoticed, and the timer may run for KEEPINTVL.
        let may_have_probed = bound > 0 && previous.sum().saturating_add(SAME_MS) >= bound;
        return if may_have_probed { bound } else { now.sum().max(bound) };
    }
    // a new answer: the silence before its probe was KEEPIDLE at least, so that no more than it can be true
    let silence = previous.data_recv.min(previous.ack_recv).saturating_add(now.at.wrapping_sub(previous.at));
    bound.min(silence.saturating_sub(now.ack_recv))
}

/// Whether two moments of a wrapping clock are the same one.
/// Whether two deadlines are one.
#[must_use]
pub fn same(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed().unsigned_abs() <= SAME_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket whose last data (both ways) and last acknowledgement were at these times.
    fn look(at: u32, deadline: u32, data: u32, ack: u32) -> Sample {
        Sample {
            at,
            expires: deadline.saturating_sub(at),
            data_sent: at - data,
            data_recv: at - data,
            ack_recv: at - ack,
        }
    }

    /// Feeds looks one after the other.
    fn follow(looks: &[Sample]) -> Vec<u32> {
        let mut before = None;
        looks
            .iter()
            .map(|&now| {
                let bound = infer(before, now);
                before = Some((now, bound));
                bound
            })
            .collect()
    }

    #[test]
    fn an_idle_socket_tells_keepidle_at_once() {
        // KEEPIDLE 300 s, data at 0, seen at 3.2 s: expires 296.8 s
        assert_eq!(infer(None, look(3_200, 300_000, 0, 0)), 300_000);
    }

    #[test]
    fn traffic_lowers_the_sum_but_never_the_bound() {
        let bounds = follow(&[look(1_000, 60_000, 0, 0), look(30_000, 60_000, 29_000, 29_000)]);
        assert_eq!(bounds, [60_000, 60_000]);
    }

    #[test]
    fn a_bound_found_in_traffic_converges_when_the_timer_fires() {
        // first seen in traffic: armed at 0 for 60 s, last data at 30 s
        let bounds = follow(&[look(31_000, 60_000, 30_000, 30_000), look(61_000, 90_000, 30_000, 30_000)]);
        assert_eq!(bounds, [30_000, 60_000]);
    }

    #[test]
    fn keepintvl_after_a_probe_is_not_mistaken_for_keepidle() {
        // KEEPIDLE 60, KEEPINTVL 75: probes at 60, 135, 210, all answered at once
        let bounds = follow(&[
            look(10_000, 60_000, 0, 0),
            look(61_000, 135_000, 0, 60_000),
            look(134_000, 135_000, 0, 60_000),
            look(140_000, 210_000, 0, 135_000),
        ]);
        assert_eq!(bounds, [60_000; 4]);
    }

    #[test]
    fn keepintvl_is_not_mistaken_for_keepidle_either_when_data_follows_the_probe_at_once() {
        // KEEPIDLE 60, KEEPINTVL 75: probe at 60, data at 61
        let bounds = follow(&[look(50_000, 60_000, 0, 0), look(65_000, 135_000, 61_000, 61_000)]);
        assert_eq!(bounds, [60_000, 60_000]);
    }

    #[test]
    fn a_socket_first_seen_between_its_probes_is_unknown_until_keepintvl_is_over() {
        // KEEPIDLE 60, KEEPINTVL 10: probe at 120, timer to 130, then to 180
        let bounds = follow(&[look(125_000, 130_000, 0, 120_000), look(140_000, 180_000, 0, 120_000)]);
        assert_eq!(bounds, [0, 60_000]);
    }

    #[test]
    fn a_timer_that_is_due_but_late_adds_nothing() {
        // KEEPIDLE 140 s, still not fired at 150 s
        let bounds = follow(&[look(130_000, 140_000, 0, 0), look(150_000, 140_000, 0, 0)]);
        assert_eq!(bounds, [140_000, 140_000]);
    }

    #[test]
    fn a_changed_keepidle_replaces_the_bound_in_both_directions() {
        let shorter = follow(&[look(10_000, 7_200_000, 0, 0), look(20_000, 60_000, 0, 0)]);
        assert_eq!(shorter, [7_200_000, 60_000]);
        let longer = follow(&[look(10_000, 60_000, 0, 0), look(20_000, 7_200_000, 0, 0)]);
        assert_eq!(longer, [60_000, 7_200_000]);
    }

    #[test]
    fn the_overshoot_of_a_late_so_keepalive_ends_when_the_timer_fires() {
        // SO_KEEPALIVE with KEEPIDLE 60 turned on 4 s after the last data, probe answered at 64, KEEPINTVL 5
        let bounds =
            follow(&[look(5_000, 64_000, 0, 0), look(66_000, 69_000, 0, 64_000), look(70_000, 124_000, 0, 64_000)]);
        assert_eq!(bounds, [64_000, 64_000, 60_000]);
    }

    #[test]
    fn the_overshoot_ends_at_the_second_probe_where_keepintvl_is_not_shorter() {
        // SO_KEEPALIVE with KEEPIDLE 2 and KEEPINTVL 2 turned on 6 s after the last data: probes at 8, 10, 12
        let bounds =
            follow(&[look(7_000, 8_000, 0, 0), look(8_500, 10_000, 0, 8_000), look(10_500, 12_000, 0, 10_000)]);
        assert_eq!(bounds, [8_000, 8_000, 2_000]);
    }

    #[test]
    fn the_clock_may_wrap() {
        let at = u32::MAX - 1_000;
        let first = Sample { at, expires: 50_000, data_sent: 10_000, data_recv: 10_000, ack_recv: 10_000 };
        let later = Sample {
            at: at.wrapping_add(20_000),
            expires: 30_000,
            data_sent: 30_000,
            data_recv: 30_000,
            ack_recv: 30_000,
        };
        assert_eq!(infer(Some((first, 60_000)), later), 60_000);
    }
}
