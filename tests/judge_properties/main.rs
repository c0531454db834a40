//! Properties of the judgement that hold for any facts and any history of a connection.
//!
//! This file generates facts. `sequences` generates histories: a simulated kernel keeps the clocks and the keepalive
//! timer of a connection as `tcp_keepalive_timer` does, and the tracker samples it from time to time, as sweeps do.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/simulated_kernel.rs"]
mod simulated_kernel;

mod sequences;

use std::time::Duration;

use keepalive_auditor::judge::memory::heartbeat::Heartbeats;
use keepalive_auditor::judge::memory::heartbeat::kinds::Protocol;
use keepalive_auditor::judge::memory::{KeepaliveTimer, Millis, PeerProbes, Unanswered};
use keepalive_auditor::judge::policy::{OverdueBy, RefreshedBy};
use keepalive_auditor::judge::verdict::{Criteria, Facts, Keepalive, Verdict, in_time, judge, keepalive};
use proptest::prelude::*;

const LIMIT: Duration = Duration::from_secs(350);
const LIMIT_MS: Millis = Millis::from_secs(350);
const LONG_LIVED: Duration = Duration::from_mins(5);

/// Milliseconds on both sides of the thresholds that matter.
fn ms() -> impl Strategy<Value = Millis> {
    let ms = prop_oneof![
        0..900_000_u64,
        Just(0),
        Just(999),
        Just(1_000),
        Just(1_999),
        Just(2_000),
        Just(299_999),
        Just(300_000),
        Just(311_111),
        Just(311_112),
        Just(349_999),
        Just(350_000),
        7_200_000..8_000_000_u64
    ];
    ms.prop_map(Millis::new)
}

fn peer_probes() -> impl Strategy<Value = PeerProbes> {
    (ms(), prop::option::of(ms()), prop::option::of(ms()), any::<bool>())
        .prop_map(|(ago, period, waited, late)| PeerProbes { ago, period, waited, late })
}

fn heartbeats() -> impl Strategy<Value = Heartbeats> {
    let protocol = prop::sample::select(vec![Protocol::Http2, Protocol::WebSocket]);
    (protocol, ms(), ms(), ms(), ms()).prop_map(|(protocol, longest_gap, watched, ago, other_ago)| {
        let longest_gap = Millis::new(longest_gap.get() / 7);
        Heartbeats { protocol, longest_gap, watched, ago, other_ago: other_ago.max(ago) }
    })
}

fn unanswered() -> impl Strategy<Value = Unanswered> {
    let counts = prop_oneof![2 => Just((0, 0)), 1 => (0..5_u8, 0..8_u8)];
    counts.prop_map(|(probes, retransmits)| Unanswered { probes, retransmits })
}

prop_compose! {
    fn facts()(
        timer in prop::sample::select(vec![KeepaliveTimer::Unknown, KeepaliveTimer::Off, KeepaliveTimer::Armed]),
        (keepidle, probes_after) in (prop::option::of(ms()), prop::option::of(ms())),
        next_probe in prop::option::of(ms()),
        (wire_idle, data_idle) in (prop::option::of(ms()), prop::option::of(ms())),
        (request_idle, last_heard) in (prop::option::of(ms()), prop::option::of(ms())),
        (watched, age) in (ms(), ms()),
        (probing, expired, local, lost_at_peer) in any::<(bool, bool, bool, bool)>(),
        unanswered in unanswered(),
        (peer_probes, heartbeats) in (prop::option::of(peer_probes()), prop::option::of(heartbeats())),
        peer_keepalive in prop::option::of(prop::sample::select(Keepalive::ALL.to_vec())),
    ) -> Facts {
        Facts {
            timer, keepidle, probes_after, next_probe, probing, wire_idle, data_idle, request_idle,
                last_heard, watched, age, unanswered, expired, local,
            peer_probes, heartbeats, peer_keepalive,
            peer_unanswered: lost_at_peer && peer_keepalive.is_some(),
        }
    }
}

prop_compose! {
    fn criteria()(
        overdue_by in prop::sample::select(vec![OverdueBy::Clocks, OverdueBy::Watch]),
        refreshed_by in prop::sample::select(vec![RefreshedBy::Segment, RefreshedBy::Payload]),
        reads_http2 in any::<bool>(),
    ) -> Criteria {
        Criteria {
            idle_timeout: LIMIT.into(),
            refreshed_by,
            reads_http2,
            long_lived: LONG_LIVED.into(),
            overdue_by,
        }
    }
}

/// These facts without heartbeats of other protocols, for which HTTP/2 PING would be no gain.
fn without_others(facts: Facts) -> Facts {
    let heartbeats = facts.heartbeats.filter(|seen| seen.protocol == Protocol::Http2);
    Facts { heartbeats, ..facts }
}

fn verdict(criteria: &Criteria, facts: &Facts) -> Verdict {
    judge(criteria, keepalive(LIMIT, facts), facts)
}

/// The documented rule, for either end on this node. One of three must hold: at least two segments are unanswered and
/// the peer sent nothing for the idle timeout; or six consecutive retransmissions; or three unanswered probes, which
/// take more than two seconds.
fn is_unanswered(facts: &Facts) -> bool {
    let Unanswered { probes, retransmits } = facts.unanswered;
    let heard_nothing = facts.last_heard.is_some_and(|last| last >= LIMIT_MS);
    // a retransmission without an answer for a second is two segments: it repeats one
    let repeated = u8::from(retransmits > 0 && facts.data_idle.is_some_and(|sent| sent >= Millis::from_secs(1)));
    let overdue_answer = u8::from(probes > 0 && facts.watched >= Millis::from_secs(1));
    facts.peer_unanswered
        || probes + retransmits + repeated.max(overdue_answer) >= 2 && heard_nothing
        || retransmits >= 6
        || probes >= 3 && facts.last_heard.is_none_or(|last| last >= Millis::from_secs(2))
}

/// The verdict that has priority over every other one, if there is one.
fn first(facts: &Facts) -> Option<Verdict> {
    let Unanswered { probes, retransmits } = facts.unanswered;
    let lost = probes + retransmits >= 2 || probes + retransmits == 1 && facts.watched >= Millis::from_secs(1);
    match () {
        () if facts.expired && lost => Some(Verdict::Blackholed),
        () if is_unanswered(facts) => Some(Verdict::Unanswered),
        () if facts.local => Some(Verdict::Local),
        () => None,
    }
}

const HALF: Millis = Millis::from_secs(175);
const MORE_THAN_HALF: Millis = Millis::new(175_001);

/// Heartbeats that protect: one every 30 s, the last one as long ago as the limit allows.
const HEARTBEATS: Heartbeats = Heartbeats {
    protocol: Protocol::Http2,
    longest_gap: Millis::from_secs(30),
    watched: LIMIT_MS,
    ago: HALF,
    other_ago: LIMIT_MS,
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn more_evidence_of_protection_never_makes_a_verdict_worse(facts in facts(), criteria in criteria(), better in
        ms()) {
        let facts = without_others(facts);
        let before = verdict(&criteria, &facts);
        let fresh = PeerProbes { ago: Millis::ZERO, period: None, waited: None, late: false };
        let known = [
            // the local side probes in time
            Facts {
                timer: KeepaliveTimer::Armed, keepidle: Some(Millis::from_secs(15)), probes_after: None,
                    next_probe: Some(Millis::ZERO), wire_idle: Some(Millis::ZERO), ..facts
            },
            // the peer's probes were just seen
            Facts { peer_probes: Some(fresh), ..facts },
            // heartbeats were just seen, or payload that is none
            Facts { heartbeats: Some(Heartbeats { ago: Millis::ZERO, ..HEARTBEATS }), ..facts },
            Facts { request_idle: facts.request_idle.map(|idle| idle.min(better)), ..facts },
            // the peer is on this node and probes in time
            Facts { peer_keepalive: Some(Keepalive::On), ..facts },
            // no middlebox lies between the two ends
            Facts { local: true, ..facts },
            // a segment arrived or left more recently, or the connection was watched for less time
            Facts { wire_idle: facts.wire_idle.map(|idle| idle.min(better)), ..facts },
            Facts { data_idle: facts.data_idle.map(|idle| idle.min(better)), ..facts },
            Facts { last_heard: facts.last_heard.map(|idle| idle.min(better)), ..facts },
            Facts { watched: facts.watched.min(better), ..facts },
            // it is younger than we thought, or it was not idle up to the limit
            Facts { age: facts.age.min(better), ..facts },
            Facts { expired: false, ..facts },
            // every segment sent is answered
            Facts { unanswered: Unanswered::default(), peer_unanswered: false, ..facts },
        ];
        for facts in known {
            let after = verdict(&criteria, &facts);
            // verdicts are ordered worst first
            prop_assert!(after >= before, "{before:?} became {after:?} with {facts:?}");
        }
    }

    #[test]
    fn heartbeats_protect_only_while_they_come_twice_in_each_idle_timeout(facts in facts(), criteria in criteria()) {
        if verdict(&criteria, &facts) == Verdict::AppProtected {
            let seen = facts.heartbeats.unwrap();
            prop_assert!(!facts.expired && seen.longest_gap > Millis::ZERO, "{facts:?}");
            prop_assert!(seen.longest_gap <= HALF && seen.ago <= HALF, "{seen:?}");
            prop_assert!(seen.watched >= LIMIT_MS && seen.watched >= seen.longest_gap.saturating_mul(10), "{seen:?}");
        }
        // heartbeats also count where only payload refreshes the path
        let good = Facts { heartbeats: Some(HEARTBEATS), expired: false, unanswered: Unanswered::default(),
            peer_unanswered: false, local: false, ..facts };
        let payload = Criteria { refreshed_by: RefreshedBy::Payload, reads_http2: false, ..criteria };
        prop_assert_eq!(verdict(&payload, &good), Verdict::AppProtected);
        for bad in [
            Heartbeats { ago: MORE_THAN_HALF, ..HEARTBEATS },
            Heartbeats { longest_gap: MORE_THAN_HALF, watched: Millis::MAX, ..HEARTBEATS },
            Heartbeats { watched: Millis::new(349_999), ..HEARTBEATS },
            Heartbeats { longest_gap: Millis::from_secs(36), ..HEARTBEATS },
        ] {
            let bad = Facts { heartbeats: Some(bad), ..good };
            prop_assert_ne!(verdict(&payload, &bad), Verdict::AppProtected);
        }
    }

    #[test]
    fn an_unanswered_segment_decides_before_every_timer_and_every_probe(facts in facts(), criteria in criteria()) {
        let verdict = verdict(&criteria, &facts);
        let decided = [Verdict::Local, Verdict::Blackholed, Verdict::Unanswered];
        match first(&facts) {
            Some(expected) => prop_assert_eq!(verdict, expected),
            None => prop_assert!(!decided.contains(&verdict), "{verdict:?}"),
        }
    }

    #[test]
    fn a_masked_timer_without_history_is_undetermined_where_segments_refresh_the_path(facts in facts(), criteria in
        criteria()) {
        let facts = Facts { timer: KeepaliveTimer::Unknown, ..facts };
        prop_assert_eq!(keepalive(LIMIT, &facts), Keepalive::Unknown);
        let criteria = Criteria { refreshed_by: RefreshedBy::Segment, ..criteria };
        let idle = facts.wire_idle.is_some_and(|idle| idle >= LIMIT_MS)
            && (criteria.overdue_by == OverdueBy::Clocks || facts.watched >= LIMIT_MS);
        let verdict = verdict(&criteria, &facts);
        if first(&facts).is_none() && (facts.expired || idle) {
            // whether keepalive is on or not, no probe came
            prop_assert_eq!(verdict, Verdict::Overdue);
        } else {
            prop_assert_eq!(verdict, first(&facts).unwrap_or(Verdict::Undetermined));
        }
    }

    #[test]
    fn where_only_payload_refreshes_the_path_no_probe_counts(facts in facts(), criteria in criteria()) {
        let criteria = Criteria { refreshed_by: RefreshedBy::Payload, ..criteria };
        let facts = Facts { heartbeats: None, ..facts };
        let idle = if criteria.reads_http2 { facts.request_idle } else { facts.data_idle };
        let idle = idle.is_some_and(|idle| idle >= LIMIT_MS);
        let expected = match first(&facts) {
            Some(first) => first,
            None if facts.expired || idle => Verdict::Overdue,
            None if facts.age < LONG_LIVED.into() => Verdict::Young,
            None => Verdict::Exposed,
        };
        prop_assert_eq!(verdict(&criteria, &facts), expected);
    }

    #[test]
    fn where_a_middlebox_reads_http2_its_pings_count_for_nothing(facts in facts(), criteria in criteria()) {
        let criteria = Criteria { refreshed_by: RefreshedBy::Payload, reads_http2: true, ..criteria };
        // perfect PINGs, however recent the last one is
        let pings = Heartbeats { ago: Millis::ZERO, ..HEARTBEATS };
        let pinged = Facts { heartbeats: Some(pings), data_idle: Some(Millis::ZERO), ..facts };
        let silent = Facts { heartbeats: None, ..pinged };
        prop_assert_eq!(verdict(&criteria, &pinged), verdict(&criteria, &silent));
        prop_assert_ne!(verdict(&criteria, &pinged), Verdict::AppProtected);
        // what is not HTTP/2 goes through such a middlebox as bytes
        let websocket = Heartbeats { protocol: Protocol::WebSocket, ..pings };
        let good = Facts { expired: false, unanswered: Unanswered::default(), peer_unanswered: false, ..pinged };
        let good = Facts { local: false, ..good };
        let good = Facts { heartbeats: Some(websocket), ..good };
        prop_assert_eq!(verdict(&criteria, &good), Verdict::AppProtected);
        // where segments or all payload refresh the path, the same PINGs protect
        let good = Facts { heartbeats: Some(pings), timer: KeepaliveTimer::Off, peer_probes: None, ..good };
        let good = Facts { peer_keepalive: None, ..good };
        for forwards in [
            Criteria { reads_http2: false, ..criteria },
            Criteria { refreshed_by: RefreshedBy::Segment, ..criteria },
        ] {
            prop_assert_eq!(verdict(&forwards, &good), Verdict::AppProtected);
        }
    }

    #[test]
    fn overdue_needs_an_idle_time_at_the_limit(facts in facts(), criteria in criteria()) {
        let criteria = Criteria { refreshed_by: RefreshedBy::Segment, ..criteria };
        if verdict(&criteria, &facts) == Verdict::Overdue {
            prop_assert!(facts.expired || facts.wire_idle.unwrap() >= LIMIT_MS);
            prop_assert!(facts.expired || criteria.overdue_by == OverdueBy::Clocks || facts.watched >= LIMIT_MS);
        }
        // a connection that the path has dropped is not too young to be reported
        prop_assert!(verdict(&criteria, &facts) != Verdict::Young || !criteria.has_expired(&facts));
    }

    #[test]
    fn a_timer_that_is_off_or_known_to_be_late_never_protects(facts in facts(), criteria in criteria()) {
        if verdict(&criteria, &facts) == Verdict::Protected {
            prop_assert_eq!(facts.timer, KeepaliveTimer::Armed);
            prop_assert!(facts.keepidle.is_none_or(|idle| in_time(idle, LIMIT)));
            prop_assert!(facts.probes_after.is_none_or(|idle| in_time(idle, LIMIT)));
            let is_probing = facts.probing && !facts.expired;
            prop_assert!(is_probing || facts.wire_idle.is_none_or(|idle| idle < LIMIT_MS));
        }
    }

    #[test]
    fn an_idle_time_that_has_reached_the_limit_without_a_probe_is_late(facts in facts(), criteria in criteria()) {
        let is_idle = facts.wire_idle.is_some_and(|idle| idle >= LIMIT_MS) && !facts.probing;
        if facts.timer == KeepaliveTimer::Armed && is_idle {
            prop_assert_eq!(keepalive(LIMIT, &facts), Keepalive::Late);
            prop_assert_ne!(verdict(&criteria, &facts), Verdict::Protected);
        }
    }

    #[test]
    fn the_peers_own_timer_decides_whether_its_probes_come_in_time(facts in facts(), criteria in criteria()) {
        let known = matches!(facts.peer_keepalive, Some(Keepalive::Late | Keepalive::Off));
        if verdict(&criteria, &facts) == Verdict::PeerProtected {
            prop_assert!(!known);
        }
    }
}
