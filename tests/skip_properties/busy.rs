//! A node with many connections reads only those that are due where there is traffic. So a verdict may be as old as the
//! last whole read, but no older, and nothing that time alone changes comes late. An alarm may be a sweep older: that
//! sweep finds that the counters cannot be explained by what was read.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use keepalive_auditor::judge::verdict::Verdict;
use keepalive_auditor::socket::Cookie;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::agent::Agent;
use crate::namespace::{Event, Namespace};
use crate::scenes::{Happens, Node, hang, kind, three_paths};
use crate::simulated_kernel::{Action, Options};
use crate::{INTERVAL, action};

/// Sweeps with what happens before each. The first connection has traffic before every one of them.
fn busy_time(most: usize) -> impl Strategy<Value = Vec<(u64, Vec<Happens>)>> {
    let happens = (any::<usize>(), action()).prop_map(|(number, action)| Happens(number, action));
    let happens = prop_oneof![3 => Just(Vec::new()), 1 => vec(happens, 1..3)];
    let talks = |(pause, mut happens): (u64, Vec<Happens>)| {
        happens.push(Happens(0, Action::Sends(pause / 2)));
        (pause, happens)
    };
    vec((INTERVAL - 2_000..INTERVAL + 2_000, happens).prop_map(talks), 1..most)
}

/// Sweeps in a quarter of the default limit of 350 s.
const QUARTER: u64 = 6;

/// The verdicts of one connection in the last sweeps, the newest last.
type History = BTreeMap<Cookie, VecDeque<Verdict>>;

fn is_comfort(verdict: Verdict) -> bool {
    !verdict.flagged() && verdict != Verdict::Undetermined
}

#[test]
fn no_verdict_is_older_than_the_last_whole_read() {
    let scene = (vec(kind(), 2..8), busy_time(60), prop::option::of(hang()), busy_time(40));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let (left_out, confirmed) = (Cell::new(0), Cell::new(0));
    let ran = TestRunner::new(config).run(&scene, |(kinds, before, hang, after)| {
        let policy = three_paths(Duration::from_mins(5));
        // a sweep is up to 17 s after the moment at which a read is due
        let oldest = usize::try_from(policy.longest_between_reads().as_millis().div_ceil(13_000)).expect("few") + 2;
        let limit = policy.default_path.idle_timeout;
        let mut node = Node::new(&kinds);
        let mut thorough = Agent::thorough().with(policy.clone());
        let mut following = Agent::following(Duration::ZERO).with(policy);
        let mut history = History::new();
        for (at, (pause, happens)) in before.iter().chain(hang.iter().flatten()).chain(&after).enumerate() {
            node.pass(*pause, happens);
            let (truth, seen) = (thorough.verdicts(&node.namespaces), following.verdicts(&node.namespaces));
            prop_assert_eq!(truth.len(), seen.len());
            for (cookie, verdict) in truth {
                let last = history.entry(cookie).or_default();
                last.push_back(verdict);
                if last.len() > oldest + 1 {
                    last.pop_front();
                }
                let seen = seen[&cookie];
                let context = format!("sweep {at}, {cookie:?}: {seen:?} after {last:?}");
                let was_comfort = last.iter().rev().take(oldest).any(|&verdict| is_comfort(verdict));
                // the two agents may miss different beats, and different probes of the peer
                let is_true = match seen {
                    Verdict::AppProtected => node.beats(cookie),
                    Verdict::PeerProtected => u128::from(node.idle(cookie)) < limit.as_millis(),
                    _ => false,
                };
                prop_assert!(!is_comfort(seen) || is_true || was_comfort, "{}", context);
                // the last request is known better where its PING was in another sample
                let may_differ = seen != Verdict::Overdue || node.beats(cookie);
                prop_assert!(may_differ || last.contains(&seen), "{}", context);
                // to see heartbeats and probes of the peer takes several samples
                let alarm =
                    |verdict: &Verdict| !matches!(verdict, Verdict::Protected | Verdict::Young | Verdict::Local);
                // when the peer was last heard is known less precisely
                let is_lost = seen == Verdict::Unanswered && node.unanswered(cookie) > 1;
                prop_assert!(is_comfort(seen) || is_lost || last.iter().any(alarm), "{}", context);
            }
        }
        left_out.set(left_out.get() + following.left_out);
        confirmed.set(confirmed.get() + following.confirmed);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    assert!(left_out.get() > 0, "every connection was read in every sweep");
    assert!(confirmed.get() > 0, "the counters never proved that a connection had not moved");
}

/// The counters prove that an idle connection has not moved, but not that its options are the same.
#[test]
fn keepalive_turned_on_for_an_idle_connection_is_seen_at_its_first_probe() {
    const TURNED_ON: u64 = 60;
    let options = Options { keepidle: 60_000, keepintvl: 60_000, ..Options::PLAIN };
    let mut namespace = Namespace::new(&[None; 6]);
    let mut agent = Agent::following(Duration::ZERO);
    let (mut confirmed, mut seen) = (0, None);
    for sweep in 0..TURNED_ON + 20 {
        let mut events = vec![Event::To(0, Action::Sends(INTERVAL / 2))];
        if sweep == TURNED_ON {
            confirmed = agent.confirmed;
            events.push(Event::TurnsOn(3, options));
        }
        namespace.pass(INTERVAL, &events);
        if agent.sweep(&namespace).verdicts[Verdict::Protected as usize] > 0 {
            seen.get_or_insert(sweep);
        }
    }
    // three of four reads in the time of a limit
    assert!(confirmed >= 6, "{confirmed} proofs");
    // the sweep after the probe counts a segment that nobody else has sent, and the next one reads all
    let latest = TURNED_ON + options.keepidle.div_ceil(INTERVAL) + QUARTER + 2;
    assert!(seen.is_some_and(|sweep| sweep <= latest), "{seen:?}, expected until sweep {latest}");
}
