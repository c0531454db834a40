//! Probes of the peer that come too late, or stop.

use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::hosts::{Hosts, exchange_all};
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::socket::Keepalive;

const RULES: [&str; 6] = ["--local-scope", "namespace", "--long-lived", "1s", "--interval", "250ms"];

kernel_test!(one_probe_after_a_long_idle_time_does_not_show_that_probes_come_in_time, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, Keepalive::Idle(6));
    exchange_all(&mut cases);
    // The agent starts when the path has dropped them already, and sees the probe after 6 s as its first one.
    std::thread::sleep(Duration::from_millis(4_500));
    let agent = Agent::start(&[&RULES[..], &["--idle-timeout", "4s"]].concat());
    let end = Instant::now() + Duration::from_secs(11);
    let mut checks = Checks::default();
    let mut explained = false;
    while Instant::now() < end {
        let report = agent.report();
        for row in cases.iter().filter_map(|case| report.row(case.near.id)) {
            checks.that(row.verdict != "peer_protected", || format!("{row:?}"));
            explained |= row.peer.probes_seen && row.why.contains("one probe of the peer was seen");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    checks.that(explained, || "no probe was seen".to_owned());
    checks.finish();
});

kernel_test!(probes_of_the_peer_that_stop_protect_no_longer_than_half_the_limit, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, Keepalive::Idle(1));
    exchange_all(&mut cases);
    let agent = Agent::start(&[&RULES[..], &["--idle-timeout", "12s"]].concat());
    let all = |verdict: &'static str| {
        let cases = &cases;
        agent.wait(Duration::from_secs(30), move |report| {
            cases.iter().all(|case| report.row(case.near.id).is_some_and(|row| row.verdict == verdict))
        })
    };
    let seen = all("peer_protected");
    assert!(seen.is_ok(), "{seen:?}");
    for case in &cases {
        sockopt::set_socket_keepalive(&case.far.stream, false).expect("SO_KEEPALIVE is set");
    }
    let stopped = all("exposed");
    assert!(stopped.is_ok(), "{stopped:?}");
    let report = agent.report();
    let mut checks = Checks::default();
    for row in cases.iter().filter_map(|case| report.row(case.near.id)) {
        checks.that(row.wire_idle_seconds < Some(11.0) && row.why.contains("has stopped"), || format!("{row:?}"));
    }
    checks.finish();
});
