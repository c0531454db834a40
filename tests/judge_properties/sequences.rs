//! What the tracker says of a connection over any sequence of looks, against the simulated kernel's truth.
//!
//! `PROPTEST_CASES=20000` runs more cases than the tree's default.

use std::time::Duration;

use keepalive_auditor::judge::assess::facts;
use keepalive_auditor::judge::memory::{Millis, Moment, TrackedConnection, Tracker};
use keepalive_auditor::judge::policy::{OverdueBy, RefreshedBy};
use keepalive_auditor::judge::verdict::{Criteria, Keepalive, Verdict, in_time, judge, keepalive};
use keepalive_auditor::owner::NsId;
use keepalive_auditor::socket::Timer;
use proptest::collection::vec;
use proptest::prelude::*;

use super::simulated_kernel::{Action, Connection, Options};

const NS: NsId = NsId(4_026_531_840);
/// Deadlines closer than this are taken for one.
const SAME: u64 = 500;
/// The longest time between a sample and the clock that dates it.
const APART: u64 = 40;
/// A sample within this time before the timer fires, or before a probe is answered, proves nothing.
const BLIND: u64 = 700;

/// Pauses between samples, and what happens in each.
type Looks = Vec<(u64, Vec<Action>)>;

/// Takes a sample after each pause and its actions, and passes on what the memory holds then.
fn follow(
    connection: &mut Connection,
    looks: &[(u64, Vec<Action>)],
    mut each: impl FnMut(&Connection, &TrackedConnection, u64),
) {
    let mut memory = Tracker::default();
    for (count, (pause, actions)) in (0_u64..).zip(looks) {
        connection.run(*pause, actions);
        let now = connection.now + count * 13 % APART;
        let moment = Moment::from_millis(now);
        memory.begin_dump(NS, None);
        memory.sample(&connection.socket(), moment);
        memory.end_read(true, moment, |_, _, _| ());
        let tracked = memory.namespace(NS).unwrap().connections().next().unwrap();
        each(connection, tracked, now);
    }
}

fn bounds(tracked: &TrackedConnection) -> (u64, u64) {
    (tracked.keepidle().unwrap_or_default().get(), tracked.probes_after().unwrap_or_default().get())
}

/// Sweeps of any distance, with traffic between some of them.
fn looks(actions: impl Strategy<Value = Action>, count: usize) -> impl Strategy<Value = Looks> {
    let pause = prop_oneof![200..3_000_u64, 200..40_000_u64];
    vec((pause, vec(actions, 0..3)), 1..count)
}

/// All that is no change of options, a change of the window aside.
fn traffic() -> impl Strategy<Value = Action> + Clone {
    let at = 0..40_000_u64;
    prop_oneof![
        4 => at.clone().prop_map(Action::Replies),
        2 => at.clone().prop_map(Action::Sends),
        2 => at.clone().prop_map(Action::Hears),
        1 => at.clone().prop_map(Action::Streams),
        1 => at.clone().prop_map(Action::Probed),
        1 => (at, 0..30_000_u64).prop_map(|(at, span)| Action::Stalls(at, span)),
    ]
}

fn any_action() -> impl Strategy<Value = Action> + Clone {
    prop_oneof![8 => traffic(), 1 => (0..40_000_u64).prop_map(Action::Window)]
}

/// What leaves nothing of ours unacknowledged, which would mask the timer.
fn open_window() -> impl Strategy<Value = Action> + Clone {
    let at = 0..40_000_u64;
    prop_oneof![at.clone().prop_map(Action::Hears), at.clone().prop_map(Action::Streams), at.prop_map(Action::Probed)]
}

/// KEEPIDLE from a second, KEEPINTVL from a second to four times that; a kernel that is late, a network that loses.
fn options() -> impl Strategy<Value = Options> {
    let keepidle = prop_oneof![1..10_u64, 1..60_u64, 1..400_u64];
    let times = (keepidle, 0..4000_u64, 0..=1000_u64, 0..150_u64);
    let odds = || prop_oneof![Just(0), 1..6_u32];
    (times, any::<bool>(), odds(), odds(), odds()).prop_map(
        |((idle, times, slack, round_trip), connected, lost, in_use, full)| {
            let interval = (idle * times / 1000).max(1);
            // each second time at most, or the timer would not fire for good
            let (in_use, full) = (if in_use == 1 { 2 } else { in_use }, if full == 1 { 2 } else { full });
            Options {
                keepidle: idle * 1000,
                keepintvl: interval * 1000,
                slack,
                round_trip,
                connected,
                lost,
                in_use,
                full,
            }
        },
    )
}

/// Where KEEPINTVL is shorter, there is time for a sample between its end, slack included, and the next probe.
fn apart(options: Options) -> Options {
    let keepidle = options.keepidle.max(4_000);
    let most = (keepidle - BLIND - 200) * 8 / 9;
    let keepintvl = if options.keepintvl < options.keepidle {
        options.keepintvl.min(most)
    } else {
        options.keepintvl.max(keepidle)
    };
    Options { keepidle, keepintvl, ..options }
}

/// Nothing is lost or in the way.
fn sound(options: Options) -> Options {
    Options { lost: 0, in_use: 0, full: 0, ..options }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_inferred_keepidle_is_never_above_the_truth(
        options in options(), unseen in looks(any_action(), 20), looks in looks(any_action(), 60), limit in 1..400_u64,
    ) {
        let mut connection = Connection::open(options);
        for (pause, actions) in &unseen {
            connection.run(*pause, actions);
        }
        let longest = options.keepidle.max(options.keepintvl);
        let limit = Duration::from_secs(limit);
        let mut wrong = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let (keepidle, probes_after) = bounds(tracked);
            if keepidle > options.keepidle {
                wrong.get_or_insert(format!("KEEPIDLE {keepidle} at {now} ms: {:?}", connection.socket()));
            }
            if probes_after > longest {
                wrong.get_or_insert(format!("a probe after {probes_after} at {now} ms: {:?}", connection.socket()));
            }
            // no false alarm either
            let facts = facts(tracked, Moment::from_millis(now));
            let silent = facts.wire_idle.is_some_and(|idle| idle >= limit.into());
            if keepalive(limit, &facts) == Keepalive::Late && in_time(Millis::new(longest), limit) && !silent {
                wrong.get_or_insert(format!("late for {limit:?} at {now} ms: {facts:?}"));
            }
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn keepalive_that_is_seen_off_and_then_on_is_never_above_the_truth(
        options in options(), looks in looks(open_window(), 40), switches in vec(any::<bool>(), 40),
    ) {
        let mut connection = Connection::open(options);
        let mut looks = looks;
        for ((pause, actions), _) in looks.iter_mut().zip(switches).filter(|(_, switch)| *switch) {
            actions.push(Action::Switches(*pause / 2));
        }
        let mut wrong = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let (keepidle, probes_after) = bounds(tracked);
            if keepidle > options.keepidle || probes_after > options.keepidle.max(options.keepintvl) {
                wrong.get_or_insert(format!("{keepidle}, {probes_after} at {now} ms: {:?}", connection.socket()));
            }
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn what_was_once_inferred_is_kept(options in options(), looks in looks(traffic(), 60)) {
        let mut connection = Connection::open(options);
        let mut best = (0, 0);
        let mut wrong = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let (keepidle, probes_after) = bounds(tracked);
            if keepidle + SAME + APART < best.0 || probes_after + SAME + APART < best.1 {
                wrong.get_or_insert(format!(
                    "{best:?} became {:?} at {now} ms: {:?}",
                    bounds(tracked),
                    connection.socket()
                ));
            }
            best = (best.0.max(keepidle), best.1.max(probes_after));
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn the_silence_that_probes_leave_is_known_within_one_period(
        options in options(), before in looks(any_action(), 10), pause in 200..15_000_u64, limit in 1..400_u64,
    ) {
        let options = sound(apart(options));
        let Options { keepidle, keepintvl, .. } = options;
        // any look before the probe that ends the longer silence
        let longest = keepidle.max(keepintvl);
        let window = if keepintvl < keepidle { keepidle - keepintvl * 9 / 8 } else { keepintvl };
        let pause = pause.min(window - BLIND);
        let mut connection = Connection::open(options);
        let silence = (2 * keepidle + keepintvl) * 9 / 8 + 2 * pause;
        let quiet = (0..=silence / pause).map(|_| (pause, Vec::new()));
        let looks: Vec<_> = before.into_iter().chain(calm(&options)).chain(quiet).collect();
        let limit = Duration::from_secs(limit);
        let mut last = (0, None);
        follow(&mut connection, &looks, |_, tracked, now| {
            last = (bounds(tracked).1, Some(facts(tracked, Moment::from_millis(now))));
        });
        prop_assert!(last.0 + SAME >= longest && last.0 <= longest,
            "{} of {options:?}, sweeps each {pause} ms", last.0);
        // No false comfort either: half a second is the error of the clocks.
        if !in_time(Millis::new(longest - SAME.min(longest)), limit) {
            prop_assert_eq!(keepalive(limit, &last.1.unwrap()), Keepalive::Late, "{:?} for {:?}", last.1, limit);
        }
    }

    #[test]
    fn keepidle_is_known_within_one_period_where_samples_meet_keepintvl(
        options in options(), before in looks(any_action(), 10), pause in 200..15_000_u64,
    ) {
        let options = sound(apart(Options { keepintvl: options.keepintvl.min(options.keepidle - 1), ..options }));
        let Options { keepidle, keepintvl, .. } = options;
        // one look while the timer runs for KEEPINTVL, one while it runs for the rest of KEEPIDLE
        let window = keepintvl.min(keepidle - keepintvl * 9 / 8);
        let pause = pause.min(window - BLIND);
        let mut connection = Connection::open(options);
        let silence = (2 * keepidle + keepintvl) * 9 / 8 + 2 * pause;
        let quiet = (0..=silence / pause).map(|_| (pause, Vec::new()));
        let looks: Vec<_> = before.into_iter().chain(calm(&options)).chain(quiet).collect();
        let mut last = 0;
        follow(&mut connection, &looks, |_, tracked, _| last = bounds(tracked).0);
        prop_assert!(last + SAME >= keepidle && last <= keepidle, "{last} of {options:?}, sweeps each {pause} ms");
    }

    #[test]
    fn keepidle_is_known_from_the_first_sample_of_a_fresh_connection(
        options in options(), first in prop::sample::select(vec![None, Some(0), Some(1), Some(2)]),
            pause in 200..15_000_u64,
    ) {
        let options = sound(Options { keepidle: options.keepidle.max(4_000), ..options });
        // at once or later: the first data, and the first look before half of the first period is over
        let at = options.keepidle / 8;
        let action = first.map(|kind| [Action::Sends(at), Action::Hears(at), Action::Replies(at)][kind]);
        let pause = at + BLIND + pause.min(options.keepidle / 4);
        // any pace afterwards, in silence: KEEPIDLE is known before the first probe
        let mut connection = Connection::open(options);
        let looks = [(pause, action.into_iter().collect()), (options.keepidle * 3 / 4, vec![]),
            (options.keepidle, vec![])];
        let mut all = Vec::new();
        follow(&mut connection, &looks, |_, tracked, _| all.push(bounds(tracked).0));
        prop_assert!(all[0] + at + SAME >= options.keepidle && all[0] <= options.keepidle, "{all:?} of {options:?}");
        prop_assert!(all.iter().all(|&bound| bound + SAME >= all[0] && bound <= options.keepidle), "{all:?}");
    }

    #[test]
    fn a_keepidle_changed_in_silence_shows_in_the_next_sample_before_the_old_deadline(
        options in options(), before in looks(any_action(), 20), keepidle in 1..400_u64, wait in 0..1000_u64,
        after in vec(200..40_000_u64, 1..20),
    ) {
        let keepidle = keepidle * 1000;
        let mut connection = Connection::open(sound(options));
        let mut looks = [before, calm(&options), vec![(1_000, Vec::new())]].concat();
        let change = looks.len();
        looks.extend(after.into_iter().map(|pause| (pause, Vec::new())));
        let at = looks[change].0 * wait / 1000;
        looks[change].1.push(Action::Keepidle(at, keepidle));
        let (mut count, mut old, mut shown) = (0, 0, false);
        let mut wrong = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            if count + 1 == change {
                old = connection.deadline();
            }
            if count == change {
                // not by chance the same deadline, and not past it, where the old timer may as well have fired
                shown = connection.now + SAME + 100 < old && connection.deadline().abs_diff(old) > SAME + 100;
            }
            let (bound, _) = bounds(tracked);
            if shown && bound > keepidle {
                wrong.get_or_insert(format!("{bound} at {now} ms after {keepidle} was set: {:?}", connection.socket()));
            }
            count += 1;
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn what_finds_no_answer_is_a_peer_that_is_gone_and_nothing_else(
        options in prop::option::of(options()), looks in looks(any_action(), 40), limit in 5..60_u64,
        gone in prop::option::of((0..40_usize, 0..40_000_u64)), quiet in vec(5_000..30_000_u64, 12),
    ) {
        let limit = Duration::from_secs(limit);
        let mut connection = options.map_or_else(Connection::without_keepalive, |options|
            Connection::open(sound(options)));
        // the last of them speaks into the void
        let mut looks: Looks = looks.into_iter().chain(quiet.into_iter().map(|pause| (pause, Vec::new()))).collect();
        let last = looks.len() - 12;
        looks[last].1.push(Action::Sends(0));
        if let Some((at, after)) = gone {
            let at = at % last.max(1);
            looks[at].1.push(Action::Vanishes(after));
        }
        let criteria = Criteria {
            idle_timeout: limit,
            refreshed_by: RefreshedBy::Segment,
            long_lived: Duration::from_secs(1),
            overdue_by: OverdueBy::Watch,
        };
        let mut wrong = None;
        let mut final_verdict = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let facts = facts(tracked, Moment::from_millis(now));
            let verdict = judge(&criteria, keepalive(limit, &facts), &facts);
            if matches!(verdict, Verdict::Unanswered | Verdict::Blackholed) && !connection.gone {
                wrong.get_or_insert(format!("{verdict:?} at {now} ms: {:?}", connection.socket()));
            }
            final_verdict = Some(verdict);
        });
        prop_assert_eq!(wrong, None);
        // a minute after it spoke, it has been silent for any limit and has retransmitted eight times
        if connection.gone && connection.socket().timer == Timer::Retransmit {
            let found = matches!(final_verdict, Some(Verdict::Unanswered | Verdict::Blackholed));
            prop_assert!(found, "{final_verdict:?}");
        }
    }

    #[test]
    fn the_agent_says_overdue_only_after_the_silence_that_it_watched(
        options in prop::option::of(options()), looks in looks(any_action(), 60), limit in 5..60_u64,
    ) {
        let limit = Duration::from_secs(limit);
        let mut connection = options.map_or_else(Connection::without_keepalive, Connection::open);
        let mut wrong = None;
        let mut watching_since = None;
        let criteria = Criteria {
            idle_timeout: limit,
            refreshed_by: RefreshedBy::Segment,
            long_lived: Duration::from_secs(1),
            overdue_by: OverdueBy::Watch,
        };
        follow(&mut connection, &looks, |connection, tracked, now| {
            let since = *watching_since.get_or_insert(now);
            let facts = facts(tracked, Moment::from_millis(now));
            let state = keepalive(limit, &facts);
            let verdict = judge(&criteria, state, &facts);
            let silence = now - connection.last_segment.max(since);
            if verdict == Verdict::Overdue && u128::from(silence) < limit.as_millis() {
                wrong.get_or_insert(format!("overdue at {now} ms after {silence} ms of silence, limit {limit:?}"));
            }
            if facts.age > Millis::new(now) {
                wrong.get_or_insert(format!("{:?} old at {now} ms", facts.age));
            }
        });
        prop_assert_eq!(wrong, None);
    }
}

/// Until what was under way has been acknowledged: a stalled window, a round trip.
fn calm(_: &Options) -> Looks {
    vec![(30_000, Vec::new()), (500, Vec::new())]
}

/// The one named case in which the bound is above the truth, and its end.
#[test]
fn the_overshoot_of_a_keepalive_turned_on_while_idle_ends_after_two_probes() {
    for keepintvl in [5_000, 60_000, 75_000] {
        let options = Options { keepidle: 60_000, keepintvl, slack: 500, round_trip: 20, ..Options::PLAIN };
        let mut connection = Connection::without_keepalive();
        connection.run(60_000, &[]);
        connection.turn_on(options);
        let mut all = Vec::new();
        let looks: Vec<_> = (0..30).map(|_| (10_000, Vec::new())).collect();
        follow(&mut connection, &looks, |_, tracked, _| all.push(bounds(tracked)));
        assert_eq!(all[0], (120_000, 120_000), "KEEPINTVL {keepintvl}");
        let last = all[29];
        if keepintvl < 60_000 {
            assert_eq!(last, (60_000, 60_000), "{all:?}");
        } else {
            // every look finds the timer set by a probe
            assert!(last.0 <= 60_000 && last.1 == keepintvl - 20, "KEEPINTVL {keepintvl}: {all:?}");
        }
    }
}

/// Why one of the two bounds may stay unknown: these two kernels always look the same.
#[test]
fn where_no_sample_meets_keepintvl_keepidle_cannot_be_known() {
    let options = |keepidle, keepintvl| Options { keepidle, keepintvl, connected: true, ..Options::PLAIN };
    // the first probes a minute after data; the second did so before, and got this data just after its probe at 80 s
    let (mut one, mut other) = (Connection::open(options(60_000, 1_000)), Connection::open(options(20_000, 60_000)));
    one.run(65_005, &[Action::Replies(0)]);
    other.run(145_005, &[Action::Replies(80_001)]);
    let mut seen = [Vec::new(), Vec::new()];
    let looks: Vec<_> = (0..40).map(|_| (15_000, Vec::new())).collect();
    for (connection, seen) in [&mut one, &mut other].into_iter().zip(&mut seen) {
        follow(connection, &looks, |connection, tracked, _| {
            let (socket, jiffies) = (connection.socket(), |clock: Option<u32>| clock.unwrap() / 10);
            let clocks = [socket.tcp.last_data_sent, socket.tcp.last_data_recv, socket.tcp.last_ack_recv].map(jiffies);
            seen.push((socket.timer, jiffies(Some(socket.expires)), clocks, bounds(tracked)));
        });
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0][39].3, (0, 60_000));
}
