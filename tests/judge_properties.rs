//! Properties of the judgement: what holds for any facts and any history of a connection.
//!
//! A simulated kernel keeps the clocks and the keepalive timer of a connection as `tcp_keepalive_timer` does, and the tracker
//! looks at it now and then, as sweeps do.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "judge_properties/kernel.rs"]
mod kernel;

use std::time::Duration;

use keepalive_auditor::judge::policy::OverdueBy;
use keepalive_auditor::judge::track::{Armed, PeerProbes, Tracked, Tracker};
use keepalive_auditor::judge::verdict::{Facts, Keepalive, Verdict, in_time, judge, keepalive};
use keepalive_auditor::owner::NsId;
use kernel::{Action, Connection, Options};
use proptest::collection::vec;
use proptest::prelude::*;

const NS: NsId = NsId(4_026_531_840);
const LIMIT: Duration = Duration::from_secs(350);
const LONG_LIVED: Duration = Duration::from_secs(300);

/// Milliseconds on both sides of the thresholds that matter.
fn ms() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..900_000_u64,
        Just(0),
        Just(299_999),
        Just(300_000),
        Just(311_111),
        Just(311_112),
        Just(349_999),
        Just(350_000),
        7_200_000..8_000_000_u64
    ]
}

fn peer_probes() -> impl Strategy<Value = PeerProbes> {
    (ms(), prop::option::of(ms()), any::<bool>()).prop_map(|(ago, period, late)| PeerProbes { ago, period, late })
}

prop_compose! {
    fn facts()(
        armed in prop::sample::select(vec![Armed::Unknown, Armed::No, Armed::Yes]),
        keepidle in prop::option::of(ms()),
        next_probe in prop::option::of(ms()),
        wire_idle in prop::option::of(ms()),
        (watched, age) in (ms(), ms()),
        (probing, unanswered, was_overdue, local) in any::<(bool, bool, bool, bool)>(),
        peer_probes in prop::option::of(peer_probes()),
        peer_keepalive in prop::option::of(prop::sample::select(Keepalive::ALL.to_vec())),
    ) -> Facts {
        Facts {
            armed, keepidle, next_probe, probing, wire_idle, watched, age, unanswered, was_overdue, local, peer_probes, peer_keepalive,
        }
    }
}

fn by() -> impl Strategy<Value = OverdueBy> {
    prop::sample::select(vec![OverdueBy::Clocks, OverdueBy::Watch])
}

fn verdict(by: OverdueBy, facts: &Facts) -> Verdict {
    judge(keepalive(LIMIT, facts), LIMIT, LONG_LIVED, by, facts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn more_evidence_of_protection_never_makes_a_verdict_worse(facts in facts(), by in by(), better in ms()) {
        let before = verdict(by, &facts);
        let fresh = PeerProbes { ago: 0, period: None, late: false };
        let known = [
            // this end probes in time
            Facts { armed: Armed::Yes, keepidle: Some(15_000), next_probe: Some(0), wire_idle: Some(0), ..facts },
            // the other end's probes were just seen
            Facts { peer_probes: Some(fresh), ..facts },
            // the other end is on this node and probes in time
            Facts { peer_keepalive: Some(Keepalive::On), ..facts },
            // both ends are where nothing forgets
            Facts { local: true, ..facts },
            // something was heard more recently, or watched for less long
            Facts { wire_idle: facts.wire_idle.map(|idle| idle.min(better)), ..facts },
            Facts { watched: facts.watched.min(better), ..facts },
            // it is younger than was thought, or its last verdict was not overdue
            Facts { age: facts.age.min(better), ..facts },
            Facts { was_overdue: false, ..facts },
            Facts { unanswered: false, ..facts },
        ];
        for facts in known {
            let after = verdict(by, &facts);
            // verdicts are ordered worst first
            prop_assert!(after >= before, "{before:?} became {after:?} with {facts:?}");
        }
    }

    #[test]
    fn a_masked_timer_without_history_is_undetermined_and_nothing_else(facts in facts(), by in by()) {
        let facts = Facts { armed: Armed::Unknown, ..facts };
        prop_assert_eq!(keepalive(LIMIT, &facts), Keepalive::Unknown);
        let expected = match () {
            () if facts.local => Verdict::Local,
            () if facts.was_overdue && facts.unanswered => Verdict::Blackholed,
            () => Verdict::Undetermined,
        };
        prop_assert_eq!(verdict(by, &facts), expected);
    }

    #[test]
    fn overdue_is_never_without_its_silence(facts in facts(), by in by()) {
        if verdict(by, &facts) == Verdict::Overdue {
            prop_assert!(facts.wire_idle.unwrap() >= 350_000);
            prop_assert!(by == OverdueBy::Clocks || facts.watched >= 350_000);
            prop_assert!(facts.age >= 300_000);
        }
    }

    #[test]
    fn protected_is_never_said_of_a_timer_that_is_off_or_known_to_be_late(facts in facts(), by in by()) {
        if verdict(by, &facts) == Verdict::Protected {
            prop_assert_eq!(facts.armed, Armed::Yes);
            prop_assert!(facts.keepidle.is_none_or(|idle| in_time(idle, LIMIT)));
            prop_assert!(facts.probing || facts.wire_idle.is_none_or(|idle| idle < 350_000));
        }
    }
}

/// Looks at a connection with each pause, after its actions, and tells what is remembered after each look.
fn follow(connection: &mut Connection, looks: &[(u64, Vec<Action>)], mut each: impl FnMut(&Connection, &Tracked, u64)) {
    let mut memory = Tracker::default();
    for (pause, actions) in looks {
        connection.run(*pause, actions);
        let now = connection.now;
        memory.begin(NS);
        memory.see(&connection.socket(), now);
        memory.end(true, now, |_, _, _| ());
        let tracked = memory.namespace(NS).unwrap().connections().next().unwrap();
        each(connection, tracked, now);
    }
}

/// Sweeps some seconds apart, with traffic between some of them.
fn looks(
    actions: impl Strategy<Value = Action> + Clone,
    count: usize,
) -> impl Strategy<Value = Vec<(u64, Vec<Action>)>> {
    vec((200..40_000_u64, vec(actions, 0..3)), 1..count)
}

fn action() -> impl Strategy<Value = Action> + Clone {
    prop_oneof![(0..40_000_u64).prop_map(Action::Sends), (0..40_000_u64).prop_map(Action::Hears)]
}

/// KEEPIDLE and KEEPINTVL in seconds, with the timer's slack in thousandths of the eighth that it may be.
fn options() -> impl Strategy<Value = Options> {
    (1..400_u64, 1..100_u64, 0..=1000_u64, any::<bool>()).prop_map(|(idle, interval, slack, answered)| Options {
        keepidle: idle * 1000,
        keepintvl: interval * 1000,
        slack,
        answered,
    })
}

/// Deadlines closer than this are taken for one.
const SAME: u64 = 500;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_inferred_keepidle_is_never_above_the_truth(options in options(), looks in looks(action(), 60)) {
        let mut connection = Connection::open(options);
        let mut wrong = None;
        // data right after a probe finds the timer running for KEEPINTVL: where that is longer, the next probe is that far away
        let truth = options.keepidle.max(options.keepintvl);
        follow(&mut connection, &looks, |connection, tracked, now| {
            let bound = u64::from(tracked.keepidle().unwrap_or(0));
            if bound > truth {
                wrong.get_or_insert(format!("{bound} at {now} ms: {:?}", connection.socket()));
            }
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn what_was_once_inferred_is_not_forgotten(options in options(), looks in looks(action(), 60)) {
        let options = Options { keepintvl: options.keepintvl.min(options.keepidle), ..options };
        let mut connection = Connection::open(options);
        let mut best = 0;
        let mut wrong = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let bound = u64::from(tracked.keepidle().unwrap_or(0));
            if bound + SAME < best {
                wrong.get_or_insert(format!("{best} became {bound} at {now} ms: {:?}", connection.socket()));
            }
            best = best.max(bound);
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn the_inferred_keepidle_converges_within_one_period(
        options in options(), before in looks(action(), 10), pause in 500..15_000_u64,
    ) {
        // sweeps that see the timer run for KEEPINTVL and then for the rest of KEEPIDLE
        let keepidle = options.keepidle.max(3_000);
        let keepintvl = options.keepintvl.min(keepidle / 2);
        let pause = pause.min(keepintvl / 2);
        let options = Options { keepidle, keepintvl, answered: true, ..options };
        let mut connection = Connection::open(options);
        // traffic, then silence until the timer has fired, and, where its slack made that a probe, until KEEPINTVL is over
        let silence = keepidle * 9 / 8 * 2 + keepintvl * 9 / 8 + 2 * pause;
        let looks: Vec<_> = before.into_iter().chain((0..=silence / pause).map(|_| (pause, Vec::new()))).collect();
        let mut last = 0;
        follow(&mut connection, &looks, |_, tracked, _| last = u64::from(tracked.keepidle().unwrap_or(0)));
        prop_assert!(last + SAME >= keepidle, "{last} of {options:?}, sweeps each {pause} ms");
    }

    #[test]
    fn the_agent_says_overdue_only_after_the_silence_that_it_watched(
        options in prop::option::of(options()), looks in looks(action(), 60), limit in 5..60_u64,
    ) {
        let limit = Duration::from_secs(limit);
        let mut connection = options.map_or_else(Connection::without_keepalive, Connection::open);
        let mut wrong = None;
        let mut watching_since = None;
        follow(&mut connection, &looks, |connection, tracked, now| {
            let since = *watching_since.get_or_insert(now);
            let facts = Facts {
                armed: tracked.armed,
                keepidle: tracked.keepidle().map(u64::from),
                next_probe: tracked.keepidle().map(|_| tracked.expires(now)),
                probing: connection.socket().retransmits > 0,
                wire_idle: tracked.wire_idle(now),
                watched: tracked.watched(now),
                age: tracked.age(now),
                unanswered: tracked.unanswered(),
                was_overdue: tracked.was_overdue(),
                local: false,
                peer_probes: tracked.peer_probes(now),
                peer_keepalive: None,
            };
            let state = keepalive(limit, &facts);
            let verdict = judge(state, limit, Duration::from_secs(1), OverdueBy::Watch, &facts);
            let silence = now - connection.last_segment.max(since);
            if verdict == Verdict::Overdue && u128::from(silence) < limit.as_millis() {
                wrong.get_or_insert(format!("overdue at {now} ms after {silence} ms of silence, limit {limit:?}"));
            }
            if facts.age > now {
                wrong.get_or_insert(format!("{} ms old at {now} ms", facts.age));
            }
        });
        prop_assert_eq!(wrong, None);
    }
}

/// The one named case in which the bound is above the truth, and its end.
#[test]
fn the_overshoot_of_a_keepalive_turned_on_while_idle_ends_after_two_probes() {
    for keepintvl in [5_000, 60_000, 75_000] {
        let options = Options { keepidle: 60_000, keepintvl, slack: 500, answered: true };
        let mut connection = Connection::without_keepalive();
        let mut bounds = Vec::new();
        connection.run(20_000, &[]);
        connection.turn_on(options);
        let looks: Vec<_> = (0..30).map(|_| (10_000, Vec::new())).collect();
        follow(&mut connection, &looks, |_, tracked, _| bounds.push(tracked.keepidle().unwrap_or(0)));
        assert_eq!(bounds[0], 80_000, "KEEPINTVL {keepintvl}");
        // a KEEPINTVL that is longer than KEEPIDLE is the time between probes, and the timer wheel adds its slack
        let longest = 60_000.max(keepintvl) * 9 / 8;
        let last = u64::from(*bounds.last().unwrap());
        assert!((50_000..=longest).contains(&last), "KEEPINTVL {keepintvl}: {bounds:?}");
    }
}
