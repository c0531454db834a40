//! Paths that only payload refreshes. Probes of either end do not count there.

use std::fs;
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, KEPT, LIMIT, exchange_all};
use crate::support::binary::{Agent, audit};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::recording::Recording;
use crate::support::socket::Keepalive;
use crate::support::timeline::{SocketTimeline, check_all, record_for, record_until_expected};

const NEVER: &[&str] = &["protected", "peer_protected", "undetermined", "blackholed", "unanswered"];

kernel_test!(keepalive_does_not_refresh_a_path_that_counts_payload, || {
    let hosts = Hosts::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let path =
        "paths:\n  - {name: proxy, idle_timeout: 4s, refreshed_by: payload}\nlocal_scope: namespace\nlong_lived: 1s\n";
    fs::write(&file, path).expect("a file");
    let rules = ["--config", file.to_str().expect("a path in UTF-8")];
    let kinds = [(KEPT, Keepalive::Off, "on"), (Keepalive::Off, KEPT, "off"), (KEPT, KEPT, "on")];
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let (mut of_idle, mut of_busy) = (Vec::new(), Vec::new());
    for (near, far, keepalive) in kinds {
        for case in hosts.four(near, far) {
            of_idle.push(SocketTimeline::new(&case.name, &case.near, keepalive, "overdue").never(NEVER));
            idle.push(case);
        }
        for case in hosts.four(near, far) {
            let never: &[&str] =
                &["overdue", "protected", "peer_protected", "undetermined", "blackholed", "unanswered"];
            of_busy.push(SocketTimeline::new(&case.name, &case.near, keepalive, "exposed").never(never));
            busy.push(case);
        }
    }
    exchange_all(&mut idle);
    exchange_all(&mut busy);
    let start = Instant::now();
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let mut checks = Checks::default();
    // A connection is long-lived after a second.
    std::thread::sleep(Duration::from_millis(1200));
    let early = audit(&rules);
    for case in idle.iter().chain(&busy) {
        let Some(row) = early.row(case.near.id) else { continue };
        checks.equal(&case.name, &*row.verdict, "exposed");
        checks.equal(&case.name, &*row.refreshed_by, "payload");
        checks.that(row.why.contains("counts only payload"), || row.why.clone());
    }
    // The audit may have taken longer than a second.
    let mut talked = start;
    let mut talk = || {
        if talked.elapsed() > Duration::from_secs(1) {
            exchange_all(&mut busy);
            talked = Instant::now();
        }
    };
    record_for(&agent, &mut of_busy, LIMIT * 2, &mut talk);
    check_all(&of_busy, &mut checks, start);
    record_until_expected(&agent, &mut of_idle, &mut talk);
    check_all(&of_idle, &mut checks, start);
    let report = Recording::of_one_sweep("payload", &rules);
    for (case, (.., keepalive)) in idle.iter().zip(kinds.iter().flat_map(|kind| [kind; 4])) {
        if let Some(row) = checks.end(&case.name, &report, &case.near, keepalive, "overdue") {
            checks.that(row.why.contains("counts only payload"), || row.why.clone());
            checks.that(row.data_idle_seconds >= Some(4.0), || format!("{row:?}"));
        }
    }
    checks.finish();
});
