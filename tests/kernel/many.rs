//! A node with many connections: the agent reads those of namespaces with traffic rarely, and all when somebody asks.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::hosts::Hosts;
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::metrics::Page;
use crate::support::socket::Keepalive;

/// More than 5000 sockets: from there on the agent reads connections only when they are due.
const PAIRS: usize = 2600;

/// Connections of the thread's namespace with itself.
fn pairs() -> Vec<[TcpStream; 2]> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let to = listener.local_addr().expect("it is bound");
    let pair = |_| [TcpStream::connect(to).expect("it accepts"), listener.accept().expect("somebody connects").0];
    (0..PAIRS).map(pair).collect()
}

kernel_test!(whoever_asks_for_the_report_gets_every_idle_time_as_it_is_now, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
    let held = hosts.near.enter(pairs);
    let agent = Agent::start(&["--long-lived", "1ms", "--interval", "500ms"]);
    let page = || Page::read(&agent.page("/metrics"));
    let sweeps = || -> f64 { page().of("keepalive_auditor_sweeps_total").map(|one| one.value).sum() };
    let wait_for_sweeps = |count: f64, each: &mut dyn FnMut()| {
        let (until, end) = (sweeps() + count, Instant::now() + Duration::from_mins(1));
        while sweeps() < until {
            each();
            assert!(Instant::now() < end, "no sweeps");
            sleep(Duration::from_millis(50));
        }
    };
    // a sweep that meets traffic, and then one that finds nothing due
    wait_for_sweeps(4.0, &mut || cases[0].send());
    let last = Instant::now();
    cases[0].send();
    wait_for_sweeps(4.0, &mut || ());
    let asked = last.elapsed();
    let mut checks = Checks::default();
    let report = agent.report();
    let row = report.row(cases[0].near.id).expect("the connection is reported");
    let idle = row.data_idle_seconds.unwrap_or_default();
    checks.that(idle >= asked.as_secs_f64() - 0.05, || format!("idle for {idle} s, and asked after {asked:?}"));
    // and the agent's own
    let count = usize::try_from(report.sweep.connections).expect("a count");
    checks.that(count >= 2 * PAIRS + cases.len(), || format!("{count} connections"));
    drop(held);
    checks.finish();
});
