//! Connections that change while an agent watches them: keepalive turned on or off, other times, probes that stop,
//! masked timers, cut links, and reused tuples.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::hosts::{Case, Hosts, INTERVAL, KEPT, LATE, LIMIT, RULES, agent, exchange_all};
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join};
use crate::support::recording::Recording;
use crate::support::socket::{Keepalive, Server, fill_windows};
use crate::support::timeline::{SLACK, SocketTimeline, check_all, expect_all, record_for, record_until_expected};

/// The least time from the end of [`KEPT`] to [`LIMIT`]: its last probe was up to 1 s before, or 9/8 s with the timer's
/// slack.
const LAST_PROBE: Duration = Duration::from_millis(4000 - 1125);

/// Changes the options of the near ends while the connections are open.
fn set_near(cases: &[Case], keep: Keepalive) {
    for case in cases {
        keep.apply(&case.near.stream);
    }
}

/// Changes the options of the far ends.
fn set_far(cases: &[Case], keep: Keepalive) {
    for case in cases {
        keep.apply(&case.far.stream);
    }
}

fn subjects(cases: &[Case], keepalive: &'static str, verdict: &'static str) -> Vec<SocketTimeline> {
    cases.iter().map(|case| SocketTimeline::new(&case.name, &case.near, keepalive, verdict)).collect()
}

kernel_test!(keepalive_turned_off_and_on_again_at_run_time, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(KEPT, Keepalive::Off);
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let mut checks = Checks::default();
    let mut seen = subjects(&cases, "on", "protected");
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, start);

    let ending = Instant::now();
    set_near(&cases, Keepalive::Off);
    let ended = Instant::now();
    expect_all(&mut seen, "off", "overdue");
    record_until_expected(&agent, &mut seen, || ());
    for subject in &seen {
        subject.check(&mut checks, start);
        subject.check_between(&mut checks, "overdue", ending + LAST_PROBE, ended + LIMIT + INTERVAL + SLACK);
    }

    // Keepalive is turned on while the connection is idle: the kernel arms a full KEEPIDLE from now.
    set_near(&cases, Keepalive::Idle(2));
    expect_all(&mut seen, "on", "protected");
    record_until_expected(&agent, &mut seen, || ());
    // It stays so.
    record_for(&agent, &mut seen, LIMIT, || ());
    check_all(&seen, &mut checks, start);
    checks.finish();
});

kernel_test!(keepidle_changed_at_run_time, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(LATE, Keepalive::Off);
    cases.append(&mut hosts.four(KEPT, Keepalive::Off));
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let mut checks = Checks::default();
    let (mut shortened, mut lengthened) =
        (subjects(&cases[..4], "late", "exposed"), subjects(&cases[4..], "on", "protected"));
    record_until_expected(&agent, &mut shortened, || ());
    record_until_expected(&agent, &mut lengthened, || ());
    check_all(shortened.iter().chain(&lengthened), &mut checks, start);

    set_near(&cases[..4], KEPT);
    set_near(&cases[4..], LATE);
    let mut all: Vec<_> = shortened.into_iter().chain(lengthened).collect();
    expect_all(&mut all[..4], "on", "protected");
    expect_all(&mut all[4..], "late", "overdue");
    record_until_expected(&agent, &mut all, || ());
    check_all(&all, &mut checks, start);
    checks.finish();
});

kernel_test!(a_path_expires_when_the_probes_stop, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, KEPT);
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let mut checks = Checks::default();
    let mut seen = subjects(&cases, "off", "peer_protected");
    record_until_expected(&agent, &mut seen, || ());
    record_for(&agent, &mut seen, LIMIT, || ());
    check_all(&seen, &mut checks, start);

    let ending = Instant::now();
    set_far(&cases, Keepalive::Off);
    let ended = Instant::now();
    expect_all(&mut seen, "off", "overdue");
    record_until_expected(&agent, &mut seen, || ());
    for subject in &seen {
        subject.check(&mut checks, start);
        // The agent sees the last probe up to one interval after it arrived.
        subject.check_between(&mut checks, "overdue", ending + LAST_PROBE, ended + LIMIT + INTERVAL + SLACK);
    }

    // They begin again.
    set_far(&cases, KEPT);
    expect_all(&mut seen, "off", "peer_protected");
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, start);
    checks.finish();
});

kernel_test!(a_masked_timer_keeps_the_state_seen_before, || {
    let hosts = Hosts::new();
    let known = [(KEPT, "on", "protected"), (Keepalive::Off, "off", "exposed"), (LATE, "late", "exposed")];
    let mut cases = Vec::new();
    let mut seen = Vec::new();
    for (near, keepalive, verdict) in known {
        for mut case in hosts.four(near, Keepalive::Off) {
            case.exchange();
            seen.push(
                SocketTimeline::new(&case.name, &case.near, keepalive, verdict).never(&["overdue", "undetermined"]),
            );
            cases.push(case);
        }
    }
    let start = Instant::now();
    // Far above the pause between two window probes: a longer one holds keepalive back.
    let rules = ["--local-scope", "namespace", "--idle-timeout", "20s", "--long-lived", "1s"];
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let recording = Recording::start("masked-with-history", Some("5s"), &rules);
    recording.wait_for_sweeps(1);
    record_until_expected(&agent, &mut seen, || ());
    let mut checks = Checks::default();
    check_all(&seen, &mut checks, start);
    // All windows at the same time: one after the other, the last connection would have been idle for too long.
    fill_windows(&mut cases.iter_mut().map(|case| &mut case.near.stream).collect::<Vec<_>>());
    // Window probes keep the path fresh, but the pauses between them grow. So the test ends before a pause reaches the
    // path's timeout.
    record_for(&agent, &mut seen, Duration::from_secs(3), || ());
    for (subject, case) in seen.iter().zip(&cases) {
        subject.check(&mut checks, start);
        let timer = subject.last().map(|row| row.timer.kind.clone());
        checks.equal(&case.name, timer.as_deref(), Some("persist"));
    }
    // An audit that watched them before gives the same verdicts.
    let watched = recording.finish();
    for (case, (_, keepalive, verdict)) in cases.iter().zip(known.iter().flat_map(|known| [known; 4])) {
        checks.end(&format!("--for: {}", case.name), &watched, &case.near, keepalive, verdict);
    }
    // A new agent has no history of these connections.
    drop(agent);
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let report = agent.report();
    for case in &cases {
        checks.end(&format!("no history: {}", case.name), &report, &case.near, "unknown", "undetermined");
    }
    checks.finish();
});

kernel_test!(a_write_into_an_expired_path_is_blackholed_until_it_is_answered, || {
    let hosts = Hosts::new();
    let mut idle = hosts.four(Keepalive::Off, Keepalive::Off);
    let mut busy = hosts.four(Keepalive::Off, Keepalive::Off);
    let start = Instant::now();
    exchange_all(&mut idle);
    exchange_all(&mut busy);
    let agent = agent();
    // Long enough for the idle timeout and the first retransmissions after it.
    let recording = Recording::start("blackholed", Some("9s"), &RULES);
    let mut seen = subjects(&idle, "off", "overdue");
    let mut fresh: Vec<_> = subjects(&busy, "off", "exposed")
        .into_iter()
        .map(|s| s.never(&["overdue", "blackholed", "undetermined"]))
        .collect();
    let mut talked = Instant::now();
    let mut chatter = || {
        if talked.elapsed() > Duration::from_secs(1) {
            exchange_all(&mut busy);
            talked = Instant::now();
        }
    };
    record_until_expected(&agent, &mut seen, &mut chatter);
    record_until_expected(&agent, &mut fresh, &mut chatter);
    // The recording audit needs the same history: a sweep of its own that began after the idle timeout had passed.
    recording.wait_for_sweeps(1);
    chatter();
    let mut checks = Checks::default();
    check_all(seen.iter().chain(&fresh), &mut checks, start);

    hosts.cut();
    // Both groups send while the link is cut: one was overdue, the other was not.
    for case in idle.iter_mut().chain(&mut busy) {
        case.near.stream.write_all(b"lost?").expect("the kernel takes it");
    }
    expect_all(&mut seen, "off", "blackholed");
    record_until_expected(&agent, &mut seen, || ());
    record_for(&agent, &mut fresh, Duration::from_secs(1), || ());
    check_all(seen.iter().chain(&fresh), &mut checks, start);
    for subject in &seen {
        // `persist`, where the near device had noticed the cut before the write: it refuses even the first segment.
        let repeats = subject
            .last()
            .is_some_and(|row| ["on", "persist"].contains(&&*row.timer.kind) && row.timer.retransmits > 0);
        checks.that(repeats, || format!("no timer of a retransmission: {:?}", subject.last()));
    }

    // An audit that watched from before the idle time until now gives the same verdicts.
    let watched = recording.finish();
    for case in &idle {
        checks.end(&format!("--for: {}", case.name), &watched, &case.near, "off", "blackholed");
    }

    hosts.restore();
    expect_all(&mut seen, "off", "exposed");
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, start);
    checks.finish();
});

kernel_test!(a_tuple_used_again_is_a_new_connection, || {
    let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    let server = Server::dual(&far, 8080);
    let mut checks = Checks::default();
    // Young for longer than a loaded machine may pause between two sweeps.
    let agent = Agent::start(&[&RULES[..4], &["--long-lived", "3s", "--interval", "250ms"]].concat());
    let tuples = [("ipv4", "10.99.1.2:8080"), ("ipv6", "[fd99:1::2]:8080")]
        .map(|(name, to)| (name, to.parse().expect("an address")));
    let open = || tuples.map(|(name, to)| (name, server.connect_from(&near, Some(45_678), to, [Keepalive::Off; 2])));
    let first = open();
    let mut seen: Vec<_> =
        first.iter().map(|(name, c)| SocketTimeline::new(*name, &c.client, "off", "overdue")).collect();
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, Instant::now());
    let tuple = first[0].1.client.local();
    for (_, connection) in first {
        // After a reset there is no TIME-WAIT: the port is free at once.
        rustix::net::sockopt::set_socket_linger(&connection.client.stream, Some(Duration::ZERO))
            .expect("SO_LINGER is set");
        drop(connection);
    }
    let start = Instant::now();
    let again = open();
    let opened = Instant::now();
    assert_eq!(again[0].1.client.local(), tuple);
    let mut seen: Vec<_> =
        again.iter().map(|(name, c)| SocketTimeline::new(*name, &c.client, "off", "overdue")).collect();
    record_until_expected(&agent, &mut seen, || ());
    for subject in &seen {
        subject.check(&mut checks, start);
        checks.that(subject.had("young"), || "a new connection is not young".to_owned());
        subject.check_between(&mut checks, "overdue", start + LIMIT, opened + LIMIT + INTERVAL + SLACK);
    }
    checks.finish();
});
