//! What sequences of samples say of KEEPIDLE.

use super::*;

type Reading = (Sample, Clues);

/// A socket whose last data (both ways) and last acknowledgement were at these times, and which sent this number of
/// segments without data.
fn read(at: u32, deadline: u32, data: u32, ack: u32, bare: u8) -> Reading {
    let clues = Clues { acknowledged: at - ack, data_idle: at - data, never_probed: false, default_keepidle: None };
    let sample = Sample {
        at,
        timer: TimerState::Armed(deadline.saturating_sub(at)),
        heard: clues.acknowledged.min(clues.data_idle),
        segs_out: bare.into(),
        bare_out: Some(bare),
    };
    (sample, clues)
}

fn with(timer: TimerState, (sample, clues): Reading) -> Reading {
    (Sample { timer, ..sample }, clues)
}

fn fresh((sample, clues): Reading) -> Reading {
    (sample, Clues { never_probed: true, ..clues })
}

/// Infers from one sample after the other; returns both bounds after each.
fn follow(readings: &[Reading]) -> Vec<(u32, u32)> {
    let mut before = None;
    readings
        .iter()
        .map(|&(sample, clues)| {
            let bounds = infer(before, sample, clues);
            before = Some((sample, bounds));
            (bounds.keepidle, bounds.unproven)
        })
        .collect()
}

#[test]
fn a_fresh_idle_socket_shows_keepidle_at_once() {
    // KEEPIDLE 300 s, data at 0, seen at 3.2 s: expires 296.8 s
    assert_eq!(follow(&[fresh(read(3_200, 300_000, 0, 0, 2))]), [(300_000, 0)]);
}

#[test]
fn one_sample_of_a_socket_that_may_have_probed_shows_the_idle_time_and_not_keepidle() {
    // KEEPIDLE 60, KEEPINTVL 75: probe at 60, data at 61, first seen at 65
    assert_eq!(follow(&[read(65_000, 135_000, 61_000, 61_000, 9)]), [(0, 74_000)]);
}

#[test]
fn traffic_lowers_the_sum_but_never_the_bound() {
    let readings = [fresh(read(1_000, 60_000, 0, 0, 2)), read(30_000, 60_000, 29_000, 29_000, 3)];
    assert_eq!(follow(&readings), [(60_000, 0), (60_000, 0)]);
}

#[test]
fn a_timer_that_fires_in_silence_and_sends_nothing_shows_keepidle() {
    // first seen in traffic: armed at 0 for 60 s, last data at 30 s
    let readings = [read(31_000, 60_000, 30_000, 30_000, 9), read(61_000, 90_000, 30_000, 30_000, 9)];
    assert_eq!(follow(&readings), [(0, 30_000), (60_000, 30_000)]);
}

#[test]
fn a_timer_that_fires_in_traffic_shows_keepidle_if_nothing_was_sent_without_data() {
    // armed at 0 for 60 s, requests at 30 s and 70 s answered with data
    let quiet = [read(31_000, 60_000, 30_000, 30_000, 9), read(71_000, 90_000, 70_000, 70_000, 9)];
    assert_eq!(follow(&quiet), [(0, 30_000), (20_000, 30_000)]);
    let chatty = [read(31_000, 60_000, 30_000, 30_000, 9), read(71_000, 90_000, 70_000, 70_000, 10)];
    assert_eq!(follow(&chatty), [(0, 30_000), (0, 30_000)]);
}

#[test]
fn many_segments_may_hide_one_behind_the_few_bits_that_are_kept() {
    let mut later = read(71_000, 90_000, 70_000, 70_000, 9);
    later.0.segs_out += 256;
    assert_eq!(follow(&[read(31_000, 60_000, 30_000, 30_000, 9), later]), [(0, 30_000), (0, 30_000)]);
}

#[test]
fn keepintvl_after_a_probe_is_not_mistaken_for_keepidle() {
    // KEEPIDLE 60, KEEPINTVL 75: probes at 60, 135, 210, all answered at once
    let readings = [
        fresh(read(10_000, 60_000, 0, 0, 2)),
        read(61_000, 135_000, 0, 60_000, 3),
        read(134_000, 135_000, 0, 60_000, 3),
        read(140_000, 210_000, 0, 135_000, 4),
    ];
    assert_eq!(follow(&readings), [(60_000, 0), (60_000, 75_000), (60_000, 75_000), (60_000, 75_000)]);
}

#[test]
fn a_socket_first_seen_between_its_probes_shows_keepidle_when_keepintvl_is_over() {
    // KEEPIDLE 60, KEEPINTVL 10: probe at 120, timer to 130, then to 180
    let readings = [read(125_000, 130_000, 0, 120_000, 9), read(140_000, 180_000, 0, 120_000, 9)];
    assert_eq!(follow(&readings), [(0, 10_000), (60_000, 10_000)]);
}

#[test]
fn between_two_probes_that_no_sample_separates_from_keepintvl_only_the_idle_time_is_known() {
    // KEEPIDLE 60, KEEPINTVL 1, or KEEPINTVL 60 and any KEEPIDLE that is shorter
    let readings = [read(125_000, 180_000, 0, 120_000, 9), read(185_000, 240_000, 0, 180_000, 10)];
    assert_eq!(follow(&readings), [(0, 60_000), (0, 60_000)]);
}

#[test]
fn a_timer_that_is_due_but_late_adds_nothing() {
    // KEEPIDLE 140 s, still not fired at 150 s
    let readings = [fresh(read(130_000, 140_000, 0, 0, 2)), fresh(read(150_000, 140_000, 0, 0, 2))];
    assert_eq!(follow(&readings), [(140_000, 0), (140_000, 0)]);
    assert_eq!(follow(&readings[1..]), [(0, 0)]);
}

#[test]
fn a_changed_keepidle_replaces_the_bounds_in_both_directions() {
    let shorter = [read(10_000, 7_200_000, 0, 0, 9), read(20_000, 60_000, 0, 0, 9)];
    assert_eq!(follow(&shorter), [(0, 7_200_000), (60_000, 0)]);
    let longer = [read(10_000, 60_000, 0, 0, 9), read(20_000, 7_200_000, 0, 0, 9)];
    assert_eq!(follow(&longer), [(0, 60_000), (7_200_000, 0)]);
}

#[test]
fn a_keepidle_shortened_below_the_silence_probes_at_once_and_shows_nothing() {
    // KEEPIDLE 60 to 10 at 20 s, KEEPINTVL 75
    let readings = [fresh(read(15_000, 60_000, 0, 0, 2)), read(25_000, 95_000, 0, 20_000, 3)];
    assert_eq!(follow(&readings), [(60_000, 0), (0, 75_000)]);
}

#[test]
fn keepalive_turned_on_between_two_samples_shows_keepidle() {
    let off = with(TimerState::Off, read(10_000, 0, 9_900, 9_900, 9));
    assert_eq!(follow(&[off, read(20_000, 71_000, 9_900, 9_900, 9)]), [(0, 0), (51_000, 0)]);
    // unless a probe may have gone out meanwhile
    assert_eq!(follow(&[off, read(20_000, 71_000, 19_000, 19_000, 11)]), [(0, 0), (0, 0)]);
}

#[test]
fn a_mask_keeps_what_is_known_of_the_timer_until_something_is_acknowledged() {
    let first = fresh(read(1_000, 60_000, 0, 0, 2));
    let hidden = |ack, bare| with(TimerState::Hidden, read(30_000, 0, 29_000, ack, bare));
    let after = |bare| read(45_000, 90_000, 44_000, 44_000, bare);
    assert_eq!(follow(&[first, hidden(0, 2), after(2)]), [(60_000, 0), (60_000, 0), (60_000, 0)]);
    assert_eq!(follow(&[first, hidden(29_000, 3), after(3)]), [(60_000, 0), (60_000, 0), (60_000, 46_000)]);
}

#[test]
fn the_overshoot_of_a_late_so_keepalive_ends_when_the_timer_fires() {
    // SO_KEEPALIVE with KEEPIDLE 60 turned on 4 s after the last data, probe answered at 64, KEEPINTVL 5
    let readings =
        [fresh(read(5_000, 64_000, 0, 0, 2)), read(66_000, 69_000, 0, 64_000, 3), read(70_000, 124_000, 0, 64_000, 3)];
    assert_eq!(follow(&readings), [(64_000, 0), (64_000, 5_000), (60_000, 5_000)]);
}

#[test]
fn the_overshoot_ends_at_the_second_probe_where_keepintvl_is_not_shorter() {
    // SO_KEEPALIVE with KEEPIDLE 2 and KEEPINTVL 2 turned on 6 s after the last data: probes at 8, 10, 12
    let readings =
        [fresh(read(7_000, 8_000, 0, 0, 2)), read(8_500, 10_000, 0, 8_000, 3), read(10_400, 12_000, 0, 10_000, 4)];
    assert_eq!(follow(&readings), [(8_000, 0), (8_000, 2_000), (0, 2_000)]);
}

#[test]
fn a_timer_about_to_fire_says_nothing() {
    // tried again after 50 ms, because a process held the socket: 60 s and 7 s of slack have passed
    let readings = [fresh(read(50_000, 60_000, 0, 0, 2)), fresh(read(67_010, 67_050, 0, 0, 2))];
    assert_eq!(follow(&readings), [(60_000, 0), (60_000, 0)]);
}

#[test]
fn the_clock_may_wrap() {
    let at = u32::MAX - 1_000;
    let idle = |at, ms, timer| {
        let (sample, clues) = fresh(with(timer, read(at, 0, at, at, 9)));
        (Sample { heard: ms, ..sample }, Clues { acknowledged: ms, data_idle: ms, ..clues })
    };
    let first = idle(at, 10_000, TimerState::Armed(50_000));
    let later = idle(at.wrapping_add(20_000), 30_000, TimerState::Armed(30_000));
    assert_eq!(follow(&[first, later]), [(60_000, 0), (60_000, 0)]);
}

#[test]
fn a_sum_above_the_default_by_less_than_the_idle_time_is_the_default() {
    let default = |(sample, clues): Reading| (sample, Clues { default_keepidle: Some(7_200_000), ..clues });
    // SO_KEEPALIVE 600 ms after the handshake, read 2 s and 7 s later
    let readings = [2_600, 7_600].map(|at| default(fresh(read(at, 7_200_600, 0, 0, 2))));
    assert_eq!(follow(&readings), [(7_200_000, 0), (7_200_000, 0)]);
    // 11 s after it, with an answer that may be one to a probe
    assert_eq!(follow(&[default(read(12_000, 7_211_000, 0, 0, 9))]), [(0, 7_200_000)]);
    // it cannot be the default: the idle time is shorter than what the sum exceeds it by
    assert_eq!(follow(&[default(fresh(read(2_000, 7_210_000, 0, 0, 2)))]), [(7_210_000, 0)]);
    // nor below it
    assert_eq!(follow(&[default(fresh(read(2_000, 60_000, 0, 0, 2)))]), [(60_000, 0)]);
}
