//! Unanswered data and keepalive probes: the path or the peer is gone. Other cases that look similar are not flagged.

use std::io::Write as _;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::hosts::{Case, Hosts, KEPT, LIMIT, RULES, agent, exchange_all};
use crate::support::binary::{Agent, Report, Row, audit, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::recording::Recording;
use crate::support::socket::{Keepalive, fill_windows};
use crate::support::timeline::{SocketTimeline, check_all, expect_all, record_for, record_until_expected};

/// How long to wait on a loaded machine until the kernel has retransmitted or probed often enough.
const TIMEOUT: Duration = Duration::from_secs(30);
const UNANSWERED: &[&str] = &["unanswered", "blackholed"];

fn both(mut one: Vec<Case>, other: Vec<Case>) -> Vec<Case> {
    one.extend(other);
    one
}

fn write_all(cases: &mut [Case]) {
    for case in cases {
        case.near.stream.write_all(b"lost?").expect("the kernel takes it");
    }
}

/// Repeats the audit until the kernel has retransmitted everything twice.
fn audit_until_retransmitted(cases: &[Case]) {
    let end = Instant::now() + TIMEOUT;
    loop {
        let report = audit(&RULES);
        let lost = |case: &Case| report.row(case.near.id).is_some_and(|row| row.unanswered.retransmits >= 2);
        if cases.iter().all(lost) || Instant::now() > end {
            return;
        }
        sleep(Duration::from_millis(200));
    }
}

/// Whether the row's own values satisfy the documented rule of `unanswered`.
fn is_unanswered(row: &Row) -> bool {
    let (probes, retransmits) = (row.unanswered.probes, row.unanswered.retransmits);
    let heard_nothing = row.last_heard_seconds >= Some(row.idle_timeout_seconds);
    probes + retransmits >= 2 && heard_nothing || retransmits >= 6 || probes >= 3
}

fn check_unanswered(checks: &mut Checks, case: &Case, report: &Report, keepalive: &str, segments: &str) {
    let Some(row) = checks.end(&case.name, report, &case.near, keepalive, "unanswered") else { return };
    checks.that(is_unanswered(row), || format!("{}: unanswered without its reason: {row:?}", case.name));
    let why = row.why.contains("nothing was heard from the peer for") && row.why.contains(segments);
    checks.that(why, || format!("{}: {}", case.name, row.why));
}

kernel_test!(one_audit_finds_a_write_into_a_path_that_drops_it, || {
    let hosts = Hosts::new();
    let mut cases = both(hosts.four(Keepalive::Off, Keepalive::Off), hosts.four(Keepalive::Default, Keepalive::Off));
    exchange_all(&mut cases);
    sleep(LIMIT);
    hosts.cut();
    write_all(&mut cases);
    audit_until_retransmitted(&cases);
    let report = Recording::of_one_sweep("unanswered-write", &RULES);
    let mut checks = Checks::default();
    for case in &cases {
        // The retransmission timer masks the keepalive timer. The verdict does not depend on it.
        check_unanswered(&mut checks, case, &report, "unknown", "retransmissions found no answer");
    }
    let failing = run(&[&["audit", "--fail-on", "overdue"], &RULES[..]].concat());
    checks.equal("--fail-on overdue", failing.code(), 3);
    // An agent that starts now gives the same verdict at once.
    let report = agent().report();
    for case in &cases {
        check_unanswered(&mut checks, case, &report, "unknown", "retransmissions found no answer");
    }
    checks.finish();
});

kernel_test!(probes_without_an_answer_are_found_from_one_audit_and_by_the_agent, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(KEPT, Keepalive::Off);
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let never = |case: &Case| {
        SocketTimeline::new(&case.name, &case.near, "on", "protected").never(&[
            "overdue",
            "blackholed",
            "undetermined",
            "exposed",
        ])
    };
    let mut seen: Vec<_> = cases.iter().map(never).collect();
    record_until_expected(&agent, &mut seen, || ());
    let mut checks = Checks::default();
    check_all(&seen, &mut checks, start);
    hosts.cut();
    expect_all(&mut seen, "on", "unanswered");
    record_until_expected(&agent, &mut seen, || ());
    let report = audit(&RULES);
    check_all(&seen, &mut checks, start);
    for case in &cases {
        check_unanswered(&mut checks, case, &report, "on", "keepalive probes found no answer");
    }
    hosts.restore();
    expect_all(&mut seen, "on", "protected");
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, start);
    checks.finish();
});

kernel_test!(a_skipped_namespace_does_not_hide_probes_without_an_answer, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(KEPT, Keepalive::Off);
    exchange_all(&mut cases);
    // With this limit the agent may skip a namespace for 25 s, and the kernel closes these sockets after ten.
    let rules = ["--local-scope", "namespace", "--idle-timeout", "100s", "--long-lived", "1s", "--interval", "250ms"];
    let agent = Agent::start(&rules);
    let skipped = |report: &Report| report.sweep.namespaces["skipped"] > 0;
    let mut times = 0;
    let enough = agent.wait(TIMEOUT, |report| {
        times += u32::from(skipped(report));
        times >= 10
    });
    assert!(enough.is_ok(), "no sweep skips: {enough:?}");
    hosts.cut();
    let found = agent.wait(TIMEOUT, |report| {
        cases.iter().all(|case| report.row(case.near.id).is_some_and(|row| row.verdict == "unanswered"))
    });
    assert!(found.is_ok(), "{found:?}");
});

kernel_test!(data_in_flight_to_a_peer_that_vanishes_is_unanswered_whatever_the_timer, || {
    let hosts = Hosts::new();
    let mut cases = both(hosts.four(KEPT, KEPT), hosts.four(Keepalive::Off, Keepalive::Off));
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let of = |case: &Case| {
        let keepalive = if case.name.starts_with("Off") { "off" } else { "on" };
        SocketTimeline::new(&case.name, &case.near, keepalive, "unanswered").never(&[
            "overdue",
            "blackholed",
            "undetermined",
        ])
    };
    let mut seen: Vec<_> = cases.iter().map(of).collect();
    // The agent has seen each timer unmasked.
    let known = agent.wait(TIMEOUT, |report| cases.iter().all(|case| report.row(case.near.id).is_some()));
    assert!(known.is_ok(), "{known:?}");
    hosts.cut();
    write_all(&mut cases);
    record_until_expected(&agent, &mut seen, || ());
    let mut checks = Checks::default();
    check_all(&seen, &mut checks, start);
    for timeline in &seen {
        checks.that(timeline.last().is_some_and(is_unanswered), || format!("{:?}", timeline.last()));
    }
    checks.finish();
});

kernel_test!(a_connection_whose_late_probe_is_lost_is_overdue_and_then_blackholed, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Idle(6), Keepalive::Off);
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let recording = Recording::start("late-probe-lost", Some("9s"), &RULES);
    let late = |case: &Case| SocketTimeline::new(&case.name, &case.near, "late", "overdue");
    let mut seen: Vec<_> = cases.iter().map(late).collect();
    record_until_expected(&agent, &mut seen, || ());
    let mut checks = Checks::default();
    check_all(&seen, &mut checks, start);
    // The path has dropped them; the first probes come after 6 s.
    hosts.cut();
    let mut seen: Vec<_> = cases
        .iter()
        .map(|case| {
            let never: &[&str] = &["exposed", "young", "protected", "peer_protected", "undetermined", "unanswered"];
            SocketTimeline::new(&case.name, &case.near, "late", "blackholed").never(never)
        })
        .collect();
    record_until_expected(&agent, &mut seen, || ());
    check_all(&seen, &mut checks, start);
    for timeline in &seen {
        let Some(row) = timeline.last() else { continue };
        let probed = row.unanswered.probes > 0 && row.why.contains("keepalive probe");
        checks.that(probed, || format!("{row:?}"));
        // A probe of the local side does not refresh the path.
        checks.that(row.wire_idle_seconds >= Some(6.0), || format!("{row:?}"));
    }
    let watched = recording.finish();
    for case in &cases {
        checks.end(&format!("--for: {}", case.name), &watched, &case.near, "late", "blackholed");
    }
    // Only an answer of the peer ends the verdict.
    hosts.restore();
    let mut answered: Vec<_> =
        cases.iter().map(|case| SocketTimeline::new(&case.name, &case.near, "late", "exposed")).collect();
    record_until_expected(&agent, &mut answered, || ());
    check_all(&answered, &mut checks, start);
    checks.finish();
});

kernel_test!(a_peer_that_stopped_reading_is_not_unanswered, || {
    let hosts = Hosts::new();
    let mut cases = both(hosts.four(KEPT, Keepalive::Off), hosts.four(Keepalive::Off, Keepalive::Off));
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let of = |case: &Case| SocketTimeline::new(&case.name, &case.near, "any", "any").never(UNANSWERED);
    let mut seen: Vec<_> = cases.iter().map(of).collect();
    fill_windows(&mut cases.iter_mut().map(|case| &mut case.near.stream).collect::<Vec<_>>());
    let mut checks = Checks::default();
    let mut probed = false;
    record_for(&agent, &mut seen, LIMIT * 4, || {
        let report = audit(&RULES);
        for case in &cases {
            let Some(row) = report.row(case.near.id) else { continue };
            probed |= row.timer.kind == "persist";
            checks.that(!UNANSWERED.contains(&&*row.verdict), || format!("one audit: {row:?}"));
        }
    });
    checks.that(probed, || "no window was closed".to_owned());
    for timeline in &seen {
        for verdict in UNANSWERED {
            checks
                .that(!timeline.had(verdict), || format!("{verdict} at {:?}: {:?}", start.elapsed(), timeline.last()));
        }
    }
    checks.finish();
});

kernel_test!(
    random_loss_is_not_unanswered,
    || {
        // Longer than any connection here can be unanswered: six consecutive retransmissions take 12 s.
        let rules = ["--local-scope", "namespace", "--idle-timeout", "20s", "--long-lived", "1s"];
        let mut checks = Checks::default();
        let mut retransmitted = 0;
        for loss in [5, 30] {
            let hosts = Hosts::new();
            let mut cases = both(hosts.four(KEPT, Keepalive::Off), hosts.four(Keepalive::Off, Keepalive::Off));
            exchange_all(&mut cases);
            let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
            for (netns, percent) in [(&hosts.far, loss), (&hosts.near, 5)] {
                netns.run("nft", &["add table inet loss"]);
                netns.run("nft", &["add chain inet loss in { type filter hook input priority 0; }"]);
                netns.run("nft", &[&format!("add rule inet loss in iifname veth0 numgen random mod 100 < {percent} \
                 drop")]);
            }
            let ids: Vec<_> = cases.iter().map(|case| case.near.id).collect();
            let end = Instant::now() + Duration::from_secs(9);
            let busy = thread::spawn(move || {
                thread::scope(|scope| {
                    for case in &mut cases {
                        scope.spawn(move || {
                            while Instant::now() < end {
                                case.exchange();
                                sleep(Duration::from_millis(100));
                            }
                        });
                    }
                });
                cases
            });
            while Instant::now() < end {
                for report in [agent.report(), audit(&rules)] {
                    for row in ids.iter().filter_map(|id| report.row(*id)) {
                        retransmitted = retransmitted.max(row.unanswered.retransmits);
                        checks.that(!UNANSWERED.contains(&&*row.verdict), || format!("{loss} %: {row:?}"));
                    }
                }
                    // Lets the connections use the processor.
                sleep(Duration::from_millis(100));
            }
            for netns in [&hosts.far, &hosts.near] {
                netns.run("nft", &["delete table inet loss"]);
            }
            drop(busy.join());
            drop(agent);
            hosts.near.delete();
            hosts.far.delete();
        }
        checks.that(retransmitted >= 1, || "nothing was lost".to_owned());
        checks.finish();
    },
    needs "nft"
);
