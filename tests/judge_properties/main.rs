//! Properties of the judgement: what holds for any facts and any history of a connection.
//!
//! Here: any facts. In `sequences`: any history, where a simulated kernel keeps the clocks and the keepalive timer of a connection as
//! `tcp_keepalive_timer` does, and the tracker looks at it now and then, as sweeps do.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/simulated_kernel.rs"]
mod simulated_kernel;

mod sequences;

use std::time::Duration;

use keepalive_auditor::judge::memory::{KeepaliveTimer, PeerProbes};
use keepalive_auditor::judge::policy::OverdueBy;
use keepalive_auditor::judge::verdict::{Facts, Keepalive, Verdict, in_time, judge, keepalive};
use proptest::prelude::*;

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
        armed in prop::sample::select(vec![KeepaliveTimer::Unknown, KeepaliveTimer::Off, KeepaliveTimer::Armed]),
        (keepidle, probes_after) in (prop::option::of(ms()), prop::option::of(ms())),
        next_probe in prop::option::of(ms()),
        wire_idle in prop::option::of(ms()),
        (watched, age) in (ms(), ms()),
        (probing, unanswered, was_overdue, local) in any::<(bool, bool, bool, bool)>(),
        peer_probes in prop::option::of(peer_probes()),
        peer_keepalive in prop::option::of(prop::sample::select(Keepalive::ALL.to_vec())),
    ) -> Facts {
        Facts {
            armed, keepidle, probes_after, next_probe, probing, wire_idle, watched, age, unanswered, was_overdue, local, peer_probes, peer_keepalive,
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
            Facts { armed: KeepaliveTimer::Armed, keepidle: Some(15_000), probes_after: None, next_probe: Some(0), wire_idle: Some(0), ..facts },
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
        let facts = Facts { armed: KeepaliveTimer::Unknown, ..facts };
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
            prop_assert_eq!(facts.armed, KeepaliveTimer::Armed);
            prop_assert!(facts.keepidle.is_none_or(|idle| in_time(idle, LIMIT)));
            prop_assert!(facts.probes_after.is_none_or(|silence| in_time(silence, LIMIT)));
            prop_assert!(facts.probing || facts.wire_idle.is_none_or(|idle| idle < 350_000));
        }
    }

    #[test]
    fn a_silence_that_has_reached_the_limit_without_a_probe_is_late(facts in facts(), by in by()) {
        let silent = facts.wire_idle.is_some_and(|idle| idle >= 350_000) && !facts.probing;
        if facts.armed == KeepaliveTimer::Armed && silent {
            prop_assert_eq!(keepalive(LIMIT, &facts), Keepalive::Late);
            prop_assert_ne!(verdict(by, &facts), Verdict::Protected);
        }
    }
}
