//! Sockets that wait for one side to close: counted by owner, in tables, JSON and metrics, and never judged.

use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::binary::{Agent, command, finish, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::metrics::Page;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Connection, Keepalive, Server};

const JSON: [&str; 4] = ["audit", "--all", "--format", "json"];

/// The `half_closed` counts of an audit with these arguments, `close_wait` first.
fn counted(arguments: &[&str]) -> (u64, u64) {
    let outcome = run(&[&JSON[..], arguments].concat());
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("a report");
    let counts = &report["sweep"]["half_closed"];
    (counts["close_wait"].as_u64().expect("a count"), counts["fin_wait2"].as_u64().expect("a count"))
}

/// Waits until an audit counts these numbers: a FIN takes a moment.
fn wait_for(arguments: &[&str], wanted: (u64, u64)) {
    let end = Instant::now() + Duration::from_secs(30);
    while counted(arguments) != wanted {
        assert!(Instant::now() < end, "{:?} instead of {wanted:?}", counted(arguments));
        sleep(Duration::from_millis(20));
    }
}

kernel_test!(half_closed_sockets_are_counted_by_owner_and_not_judged, || {
    let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    let listener = Server::dual(&far, 8080);
    let open = |to| listener.connect(&near, to, [Keepalive::Off; 2]);
    let held: Vec<Connection> = vec![open(v4(1, 2)), open(v6(1, 2)), open(v4(1, 2)), open(v4(1, 2))];
    let orphan = open(v4(1, 2));
    for connection in &held[..2] {
        connection.server.stream.shutdown(Shutdown::Write).expect("the peer closes its side");
    }
    held[2].client.stream.shutdown(Shutdown::Write).expect("the local side is closed");
    // no process holds this one: the kernel ends it after tcp_fin_timeout
    drop(orphan.client);
    wait_for(&[], (2, 1));
    let agent = Agent::start(&["--interval", "100ms"]);
    let mut checks = Checks::default();
    let series = |page: &Page, state: &str| {
        let sums = page.sum("keepalive_auditor_half_closed_connections", &["container", "state"]);
        sums.get(&vec!["near".to_owned(), state.to_owned()]).copied()
    };
    let page = Page::read(&agent.page("/metrics"));
    checks.equal("close_wait", series(&page, "close_wait"), Some(2.0));
    checks.equal("fin_wait2", series(&page, "fin_wait2"), Some(1.0));
    // the requests to the agent's port are connections of another namespace
    let report = agent.report();
    let judged = report.connections.iter().filter(|row| row.netns_name.as_deref() == Some("near"));
    checks.equal("judged", judged.count(), 1);
    let table = finish(&mut command(&["audit"]));
    let summary = "half-closed, not judged: 2 close_wait of near, 1 fin_wait2 of near";
    checks.that(table.stdout.contains(summary), || format!("{summary}: {table:?}"));
    checks.equal("another owner", counted(&["--owner", "host*", "--local-scope", "node"]), (0, 0));
    checks.equal("a filter", counted(&["dst 10.99.1.2"]), (1, 1));
    checks.finish();
    // sweeps that skip the namespace or look up single connections keep the counts, and notice when a socket closes
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(series(&Page::read(&agent.page("/metrics")), "close_wait"), Some(2.0));
        sleep(Duration::from_millis(50));
    }
    drop(held);
    let end = Instant::now() + Duration::from_secs(30);
    while series(&Page::read(&agent.page("/metrics")), "close_wait").is_some() {
        assert!(Instant::now() < end, "closed sockets are still counted");
        sleep(Duration::from_millis(50));
    }
});
