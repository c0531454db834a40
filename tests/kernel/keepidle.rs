//! Compares the inferred KEEPIDLE with the options that were set: it is never larger, whatever KEEPINTVL is and
//! whenever the first sample is taken.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::hosts::{Case, Hosts, RULES, agent, exchange_all};
use crate::support::binary::{Report, Row, audit, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::socket::Keepalive;

/// The error of a sum of kernel clocks, which count in steps of some milliseconds.
const CLOCK_ERROR: f64 = 0.05;

/// Connections of both families in both roles whose near end has these `TCP_KEEPIDLE` and `TCP_KEEPINTVL`, in seconds.
fn probing(hosts: &Hosts, idle: u32, interval: u32) -> Vec<Case> {
    let mut cases = hosts.four(Keepalive::Idle(idle), Keepalive::Off);
    for case in &mut cases {
        // the kernel arms no timer for KEEPINTVL before the first probe
        sockopt::set_tcp_keepintvl(&case.near.stream, Duration::from_secs(interval.into()))
            .expect("TCP_KEEPINTVL is set");
        case.name = format!("{idle} s, {interval} s {}", case.name);
    }
    cases
}

/// Checks the inferred KEEPIDLE against the options. `read` comes from `--exact`.
fn check_inferred(checks: &mut Checks, case: &Case, inferred: &Row, read: &Row) {
    let truth = read.keepalive_idle_seconds.unwrap_or(-1.0);
    checks.equal(&format!("{}: kind", case.name), read.keepalive_idle_is.as_deref(), Some("exact"));
    let idle = inferred.keepalive_idle_seconds;
    checks.that(idle.is_none_or(|idle| idle <= truth + CLOCK_ERROR), || {
        format!("{}: {idle:?} s was inferred, {truth} s is set\n    {inferred:?}", case.name)
    });
}

kernel_test!(one_sample_after_a_probe_and_data_does_not_confuse_keepintvl_with_keepidle, || {
    let hosts = Hosts::new();
    // The first probes every 6 s while idle, whatever KEEPIDLE is. The second probes every 2 s. The third has not
    // probed yet.
    let settings = [(2, 6, "late"), (2, 1, "on"), (60, 6, "late")];
    let mut groups: Vec<_> = settings.iter().map(|&(idle, interval, _)| probing(&hosts, idle, interval)).collect();
    for cases in &mut groups {
        exchange_all(cases);
    }
    sleep(Duration::from_millis(2600));
    for cases in &mut groups {
        exchange_all(cases);
    }
    let (inferred, read) = (audit(&RULES), audit(&[&RULES[..], &["--exact"]].concat()));
    let mut checks = Checks::default();
    for (cases, (idle, interval, keepalive)) in groups.iter().zip(settings) {
        for case in cases {
            let (Some(inferred), Some(read)) = (inferred.row(case.near.id), read.row(case.near.id)) else {
                checks.that(false, || format!("{}: not in the report", case.name));
                continue;
            };
            check_inferred(&mut checks, case, inferred, read);
            checks.equal(&format!("{}: KEEPIDLE", case.name), read.keepalive_idle_seconds, Some(f64::from(idle)));
            // One sample may miss a probe between two exchanges, but it shows the time until the next probe.
            checks.equal(&format!("{}: inferred", case.name), inferred.keepalive_idle_seconds, None::<f64>);
            checks.equal(&format!("{}: keepalive at 4 s", case.name), &*inferred.keepalive, keepalive);
            let expires = inferred.timer.expires_seconds.unwrap_or(-1.0);
            let next = if idle == 60 { 60 } else { interval };
            checks.that(expires <= f64::from(next), || format!("{}: the next probe in {expires} s", case.name));
        }
    }
    checks.finish();
});

kernel_test!(keepidle_is_inferred_between_the_probes_and_not_confused_with_keepintvl, || {
    let hosts = Hosts::new();
    // KEEPIDLE is inferred if one sweep falls into KEEPINTVL and one into the rest of KEEPIDLE. Otherwise it stays
    // unknown. The sweeps are 250 ms apart.
    let settings = [(3, 1, true, "on"), (2, 6, false, "late"), (2, 2, false, "on"), (5, 1, true, "late")];
    let mut groups: Vec<_> = settings.iter().map(|&(idle, interval, ..)| probing(&hosts, idle, interval)).collect();
    for cases in &mut groups {
        exchange_all(cases);
    }
    // All have probed, and none has sent data since.
    sleep(Duration::from_millis(5800));
    let agent = agent();
    let start = Instant::now();
    let mut checks = Checks::default();
    let exact = audit(&[&RULES[..], &["--exact"]].concat());
    let mut last = agent.report();
    while start.elapsed() < Duration::from_secs(13) {
        for case in groups.iter().flatten() {
            if let (Some(inferred), Some(read)) = (last.row(case.near.id), exact.row(case.near.id)) {
                check_inferred(&mut checks, case, inferred, read);
            }
        }
        sleep(Duration::from_millis(100));
        last = agent.report();
    }
    for (cases, (idle, _, found, keepalive)) in groups.iter().zip(settings) {
        for case in cases {
            let Some(row) = last.row(case.near.id) else {
                checks.that(false, || format!("{}: not in the report", case.name));
                continue;
            };
            let idle = f64::from(idle);
            let right = row.keepalive_idle_seconds.map_or(!found, |value| found && (value - idle).abs() <= CLOCK_ERROR);
            checks.that(right, || format!("{}: {:?} s inferred", case.name, row.keepalive_idle_seconds));
            checks.equal(&format!("{}: keepalive", case.name), &*row.keepalive, keepalive);
        }
    }
    checks.finish();
});

kernel_test!(
    keepalive_turned_on_while_idle_is_overestimated_only_if_it_was_not_seen_off_and_until_the_timer_fires,
    || {
        let hosts = Hosts::new();
        let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
        exchange_all(&mut cases);
        let idle_since = Instant::now();
        let watching = agent();
        sleep(Duration::from_secs(3));
        for case in &cases {
            Keepalive::Idle(8).apply(&case.near.stream);
            sockopt::set_tcp_keepintvl(&case.near.stream, Duration::from_secs(1)).expect("TCP_KEEPINTVL is set");
        }
        let (armed, turned_on) = (Instant::now(), idle_since.elapsed().as_secs_f64());
        let mut checks = Checks::default();
        sleep(Duration::from_secs(1));
        let (watched, came_late) = (watching.report(), audit(&RULES));
        for case in &cases {
            let inferred =
                |report: &Report| report.row(case.near.id).and_then(|row| row.keepalive_idle_seconds).unwrap_or(-1.0);
            let (idle, over) = (inferred(&watched), inferred(&came_late));
            checks
                .that(idle > 1.5 && idle <= 8.0 + CLOCK_ERROR, || format!("{}: {idle} s, seen off before", case.name));
            // The one documented case: the kernel armed a full KEEPIDLE at that moment, after some idle time.
            let next = turned_on + 8.0;
            checks
                .that((over - next).abs() < 0.5, || format!("{}: {over} s, its first probe after {next} s", case.name));
        }
        // The first probe comes after 8 s, an eighth late at most. A second later, a sample shows the rest of KEEPIDLE.
        sleep(Duration::from_secs(11).saturating_sub(armed.elapsed()));
        let report = watching.report();
        for case in &cases {
            let idle = report.row(case.near.id).and_then(|row| row.keepalive_idle_seconds).unwrap_or(-1.0);
            checks.that((idle - 8.0).abs() <= CLOCK_ERROR, || format!("{}: {idle} s inferred in the end", case.name));
        }
        checks.finish();
    }
);

kernel_test!(keepalive_turned_on_a_moment_after_connect_has_the_systems_default, || {
    let hosts = Hosts::new();
    let mut checks = Checks::default();
    for pause in [Duration::from_millis(600), Duration::from_millis(2_500)] {
        let cases = hosts.four(Keepalive::Off, Keepalive::Off);
        sleep(pause);
        for case in &cases {
            Keepalive::Default.apply(&case.near.stream);
        }
        sleep(Duration::from_millis(300));
        let rules = ["--local-scope", "namespace", "--long-lived", "100ms"];
        let (report, explained) = (audit(&rules), run(&[&["audit", "--explain"], &rules[..]].concat()).stdout);
        for case in &cases {
            let name = format!("{pause:?} {}", case.name);
            let Some(row) = checks.end(&name, &report, &case.near, "late", "exposed") else { continue };
            checks.equal(&name, row.keepalive_idle_seconds, Some(7200.0));
            checks.that(row.why.contains("7200s, the system's default"), || format!("{name}: {}", row.why));
        }
        checks.that(explained.contains("7200") && explained.contains("system's default"), || explained.clone());
        for wrong in ["7201", "7202", "7203", "7210"] {
            checks.that(!explained.contains(wrong), || explained.clone());
        }
        // Traffic does not arm the timer again: the sum that it shows falls below the default.
        let mut used = cases;
        sleep(Duration::from_millis(1_500));
        exchange_all(&mut used);
        sleep(Duration::from_millis(300));
        let (report, explained) = (audit(&rules), run(&[&["audit", "--explain"], &rules[..]].concat()).stdout);
        for case in &used {
            let Some(row) = checks.end(&case.name, &report, &case.near, "late", "exposed") else { continue };
            checks.that(row.why.contains("probably 7200s, the system's default"), || row.why.clone());
        }
        checks.that(explained.contains("comes after 7200s, probably the system's default"), || explained.clone());
        drop(used);
    }
    checks.finish();
});
