//! A skipped dump loses nothing: a tracker that reads a namespace only when its counters or the time require it gives
//! the same verdicts as one that reads it in every sweep.

#[path = "../support/simulated_kernel.rs"]
mod simulated_kernel;

mod agent;
mod busy;
mod namespace;
mod scenes;

use std::time::Duration;

use agent::Agent;
use keepalive_auditor::judge::policy::{OverdueBy, Policy};
use keepalive_auditor::judge::verdict::Verdict;
use namespace::{Event, Namespace};
use proptest::collection::vec;
use proptest::prelude::*;
use simulated_kernel::{Action, Connection, Options};

/// Milliseconds between two sweeps.
const INTERVAL: u64 = 15_000;

/// The agent's policy with its defaults.
fn policy() -> Policy {
    Policy { overdue_by: OverdueBy::Watch, ..Policy::default() }
}

/// The longest time between two reads, milliseconds.
fn longest_between_reads() -> u64 {
    u64::try_from(policy().longest_between_reads().as_millis()).expect("minutes")
}

/// Keepalive that probes in time and is answered, so that the tracker soon knows its KEEPIDLE.
fn in_time() -> impl Strategy<Value = Options> {
    options().prop_map(|options| {
        let keepidle = options.keepidle % 280_000 + 20_000;
        Options { keepidle, keepintvl: options.keepintvl.min(keepidle / 2), lost: 0, ..options }
    })
}

fn options() -> impl Strategy<Value = Options> {
    // in time for 350 s, too late for it, and the default
    let idle = prop_oneof![4 => 20..320_u64, 1 => 320..500_u64, 1 => Just(7200)];
    (idle, 5..100_u64, 0..=1000_u64, any::<bool>()).prop_map(|(idle, interval, slack, answered)| Options {
        keepidle: idle * 1000,
        keepintvl: interval * 1000,
        slack,
        lost: if answered { 0 } else { 2 },
        ..Options::PLAIN
    })
}

fn action() -> impl Strategy<Value = Action> {
    (0..INTERVAL).prop_flat_map(|at| {
        prop_oneof![
            3 => Just(Action::Sends(at)),
            3 => Just(Action::Receives(at)),
            3 => Just(Action::Probed(at)),
            1 => Just(Action::Vanishes(at)),
        ]
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<usize>(), action()).prop_map(|(at, action)| Event::To(at, action)),
        1 => prop::option::of(options()).prop_map(Event::Opens),
        1 => any::<usize>().prop_map(Event::Closes),
    ]
}

/// Zero, so that a lookup is always cheaper than a dump; cheaper than a dump for up to two connections; always dearer.
fn lookup_cost() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::from_micros(400)), Just(Duration::MAX)]
}

/// Twenty minutes, mostly quiet, with sweeps that come a little early or late.
fn sweeps() -> impl Strategy<Value = Vec<(u64, Vec<Event>)>> {
    let events = prop_oneof![6 => Just(Vec::new()), 1 => vec(event(), 1..3)];
    vec((INTERVAL - 2_000..INTERVAL + 2_000, events), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_sweep_is_judged_as_if_everything_had_been_dumped(
        kinds in vec(prop::option::of(options()), 1..6), sweeps in sweeps(), lookup_cost in lookup_cost(),
    ) {
        let mut namespace = Namespace::new(&kinds);
        let (mut thorough, mut skipping) = (Agent::thorough(), Agent::skipping(lookup_cost));
        for (at, (pause, events)) in sweeps.iter().enumerate() {
            namespace.pass(*pause, events);
            let (truth, report) = (thorough.sweep(&namespace), skipping.sweep(&namespace));
            prop_assert_eq!(&truth.tallies, &report.tallies, "sweep {}", at);
            prop_assert_eq!(truth.verdicts, report.verdicts);
        }
        prop_assert_eq!(thorough.idle_times, skipping.idle_times);
    }

    #[test]
    fn an_option_set_on_an_idle_connection_is_seen_in_time(
        kinds in vec(prop::option::of(options()), 1..6), sweeps in sweeps(), number in any::<usize>(),
            options in in_time(),
        lookup_cost in lookup_cost(),
    ) {
        let mut namespace = Namespace::new(&kinds);
        let (mut thorough, mut skipping) = (Agent::thorough(), Agent::skipping(lookup_cost));
        // if the option is seen at once, KEEPIDLE seems longer than it is until the timer has fired twice
        let until = longest_between_reads() + 2 * (options.keepidle + options.keepintvl) * 9 / 8;
        let quiet = (0..=until / INTERVAL + 1).map(|_| (INTERVAL, Vec::new()));
        let set = (INTERVAL, vec![Event::TurnsOn(number, options)]);
        let mut last = None;
        for (pause, events) in sweeps.into_iter().chain([set]).chain(quiet) {
            namespace.pass(pause, &events);
            last = Some((thorough.sweep(&namespace).verdicts, skipping.sweep(&namespace).verdicts));
        }
        let (truth, report) = last.unwrap();
        prop_assert_eq!(truth, report);
    }
}

#[test]
fn an_idle_namespace_is_dumped_when_a_verdict_is_due_and_from_time_to_time() {
    let kept = Options { keepidle: 60_000, keepintvl: 15_000, slack: 500, ..Options::PLAIN };
    let mut namespace = Namespace::new(&[None, Some(kept), None, Some(kept)]);
    let mut agent = Agent::skipping(Duration::ZERO);
    let mut overdue_at = None;
    let sweeps = 80;
    for _ in 0..sweeps {
        namespace.pass(INTERVAL, &[]);
        let report = agent.sweep(&namespace);
        if report.verdicts[Verdict::Overdue as usize] == 2 {
            overdue_at.get_or_insert(namespace.now);
        }
    }
    let idle_since = Connection::without_keepalive().now + INTERVAL;
    let due = idle_since + 350_000;
    assert!(overdue_at.is_some_and(|at| (due..due + INTERVAL).contains(&at)), "{overdue_at:?}, due at {due}");
    // Every eighth sweep dumps it anyway. Five more do because connections become long-lived or overdue, or because the
    // tracker needs another sample of their timers.
    assert!(agent.skipped >= sweeps * 3 / 4, "{} of {sweeps} skipped", agent.skipped);
}

/// The property above found this case: every second probe is lost, and a connection sends in the moment of a read.
#[test]
fn an_unanswered_probe_does_not_hide_an_acknowledgement() {
    let kept = Options { keepidle: 37_000, keepintvl: 7_000, slack: 65, lost: 2, ..Options::PLAIN };
    let mut namespace = Namespace::new(&[None, Some(kept)]);
    let (mut thorough, mut skipping) = (Agent::thorough(), Agent::skipping(Duration::MAX));
    let pauses = [13_000; 8].into_iter().chain([16_232, 16_125, 15_502]);
    for (sweep, pause) in pauses.enumerate() {
        let sends = [Event::To(0, Action::Sends(pause))];
        namespace.pass(pause, if sweep == 7 { &sends } else { &[] });
        let (truth, report) = (thorough.sweep(&namespace), skipping.sweep(&namespace));
        assert_eq!(truth.tallies, report.tallies, "sweep {sweep}");
    }
    namespace.pass(INTERVAL, &[Event::Closes(0)]);
    thorough.sweep(&namespace);
    skipping.sweep(&namespace);
    assert_eq!(thorough.idle_times, skipping.idle_times);
}

/// The peer of one of several probing connections vanishes. Only the counter of received segments shows it.
#[test]
fn unanswered_probes_are_read_in_the_sweep_that_counts_them() {
    let kept = Options { keepidle: 60_000, keepintvl: 15_000, ..Options::PLAIN };
    let mut namespace = Namespace::new(&[Some(kept), Some(kept), Some(kept)]);
    let (mut thorough, mut skipping) = (Agent::thorough(), Agent::skipping(Duration::MAX));
    let mut found = None;
    for sweep in 0..60 {
        let vanishes = [Event::To(1, Action::Vanishes(0))];
        namespace.pass(INTERVAL, if sweep == 40 { &vanishes } else { &[] });
        let (truth, counts) = (thorough.sweep(&namespace), skipping.sweep(&namespace));
        assert_eq!(truth.tallies, counts.tallies, "sweep {sweep}");
        if counts.verdicts[Verdict::Unanswered as usize] == 1 {
            found.get_or_insert(sweep);
        }
    }
    assert!(skipping.skipped > 10, "{} skipped", skipping.skipped);
    // the first probe within a minute, the third half a minute later
    assert!(found.is_some_and(|sweep| (41..50).contains(&sweep)), "{found:?}");
}
