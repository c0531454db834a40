//! Which verdict a connection has where two seem to be true.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, KEPT, exchange_all};
use crate::support::binary::{Agent, audit, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4};
use crate::support::rtnetlink;
use crate::support::socket::{Connection, Keepalive, Server, fill_windows};

kernel_test!(a_connection_that_the_path_has_dropped_is_overdue_however_young_it_is, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
    exchange_all(&mut cases);
    // Both are younger than the five minutes of `long_lived`.
    std::thread::sleep(Duration::from_millis(1_250));
    let rules = ["--local-scope", "namespace", "--idle-timeout", "1s"];
    let report = audit(&rules);
    let mut checks = Checks::default();
    for case in &cases {
        checks.end(&case.name, &report, &case.near, "off", "overdue");
    }
    checks.equal("--fail-on", run(&[&["audit", "--fail-on", "overdue"], &rules[..]].concat()).code(), 3);
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let watched = agent.wait(Duration::from_secs(20), |report| report.verdicts["overdue"] == cases.len() as u64);
    checks.that(watched.is_ok(), || format!("{watched:?}"));
    checks.finish();
});

kernel_test!(data_that_waits_for_a_closed_window_holds_keepalive_back_beyond_the_limit, || {
    let hosts = Hosts::new();
    let rules = ["--local-scope", "namespace", "--idle-timeout", "4s", "--long-lived", "1s"];
    let mut cases = hosts.four(KEPT, Keepalive::Off);
    exchange_all(&mut cases);
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let known = agent.wait(Duration::from_secs(20), |report| report.verdicts["protected"] == cases.len() as u64);
    assert!(known.is_ok(), "{known:?}");
    fill_windows(&mut cases.iter_mut().map(|case| &mut case.near.stream).collect::<Vec<_>>());
    // The kernel asks for the window after 0.2 s, 0.4 s, 0.8 s, … and sends no keepalive probe meanwhile.
    let mut checks = Checks::default();
    let end = Instant::now() + Duration::from_secs(30);
    let (mut held_back, mut overdue) = (false, false);
    while Instant::now() < end && !(held_back && overdue) {
        let report = agent.report();
        for row in cases.iter().filter_map(|case| report.row(case.near.id)) {
            let next = row.timer.expires_seconds.unwrap_or(0.0) + row.wire_idle_seconds.unwrap_or(0.0);
            let is_held_back = row.timer.kind == "persist" && next >= 4.0;
            checks.that(!(is_held_back && row.verdict == "protected"), || format!("false comfort: {row:?}"));
            held_back |= is_held_back && row.verdict == "exposed";
        }
        // One audit has seen no keepalive timer, and need not: no probe comes while the other timer runs.
        let report = audit(&rules);
        for row in cases.iter().filter_map(|case| report.row(case.near.id)) {
            let is_idle = row.timer.kind == "persist" && row.wire_idle_seconds >= Some(4.0);
            checks.that(!is_idle || row.verdict == "overdue", || format!("one audit: {row:?}"));
            overdue |= is_idle;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    checks.that(held_back && overdue, || format!("held back: {held_back}, overdue: {overdue}"));
    checks.finish();
});

/// A client and a server on this node, and a firewall between them that does not translate.
struct Firewalled {
    client: Netns,
    server: Netns,
    firewall: Netns,
}

impl Firewalled {
    fn new() -> Self {
        let (client, server, firewall) = (Netns::named("client"), Netns::named("server"), Netns::named("firewall"));
        join("veth0", (&client, &addresses(1, 2)), (&firewall, &addresses(1, 1)));
        join("veth1", (&firewall, &addresses(2, 1)), (&server, &addresses(2, 2)));
        firewall.sysctl("net.ipv4.ip_forward", "1");
        let any = (IpAddr::from([0_u8; 4]), 0);
        client.enter(|| rtnetlink::add_route(any, v4(1, 1))).expect("a route");
        server.enter(|| rtnetlink::add_route(any, v4(2, 1))).expect("a route");
        Self { client, server, firewall }
    }

    fn connect(&self, listener: &Server, keep: [Keepalive; 2]) -> Connection {
        let mut connection = listener.connect(&self.client, v4(2, 2), keep);
        connection.exchange();
        connection
    }
}

kernel_test!(two_ends_on_this_node_that_a_firewall_separates_are_unanswered_and_not_local, || {
    let scene = Firewalled::new();
    let listener = Server::ipv4(&scene.server, 8080);
    let mut written = scene.connect(&listener, [Keepalive::Off; 2]);
    let probed = scene.connect(&listener, [Keepalive::Idle(3), Keepalive::Off]);
    let mut checks = Checks::default();
    let report = audit(&[]);
    for (case, connection, keepalive) in [("written", &written, "off"), ("probed", &probed, "on")] {
        checks.end(&format!("{case}, before"), &report, &connection.client, keepalive, "local");
        checks.end(&format!("{case}, before"), &report, &connection.server, "off", "local");
    }
    scene.firewall.run("nft", &["table ip f { chain c { type filter hook forward priority 0; drop; }; }"]);
    written.client.stream.write_all(b"lost").expect("the kernel takes it");
    let end = Instant::now() + Duration::from_mins(1);
    let report = loop {
        // Six retransmissions take 13 s.
        let report = audit(&[]);
        let row = report.row(written.client.id);
        if row.is_none_or(|row| row.unanswered.retransmits >= 6) || Instant::now() > end {
            break report;
        }
        std::thread::sleep(Duration::from_millis(250));
    };
    for (case, connection) in [("written", &written), ("probed", &probed)] {
        for end in [&connection.client, &connection.server] {
            let row = report.row(end.id);
            checks.that(row.is_some_and(|row| row.verdict == "unanswered"), || format!("{case}: {row:?}"));
        }
    }
    let row = report.row(probed.server.id);
    let why = "the peer is on this node, and what it sends finds no answer";
    checks.that(row.is_some_and(|row| row.why.starts_with(why)), || format!("{row:?}"));
    checks.finish();
}, needs "nft");

kernel_test!(a_peer_behind_nat_whose_probes_find_no_answer_protects_nothing, || {
    let scene = Firewalled::new();
    scene.firewall.run("nft", &["table ip n { chain p { type nat hook prerouting priority dstnat; \
                                 ip daddr 10.96.0.1 dnat to 10.99.2.2; }; }"]);
    let listener = Server::ipv4(&scene.server, 8080);
    let to: SocketAddr = "10.96.0.1:8080".parse().expect("an address");
    let mut connection = listener.connect_from(&scene.client, None, to, [Keepalive::Off, KEPT]);
    connection.exchange();
    let rules = ["--idle-timeout", "100s", "--long-lived", "1ms"];
    let mut checks = Checks::default();
    checks.end("before", &audit(&rules), &connection.client, "off", "peer_protected");
    scene.firewall.run("nft", &["table ip f { chain c { type filter hook forward priority 0; drop; }; }"]);
    let end = Instant::now() + Duration::from_mins(1);
    let report = loop {
        let report = audit(&rules);
        let row = report.row(connection.server.id);
        if row.is_none_or(|row| row.unanswered.probes >= 4) || Instant::now() > end {
            break report;
        }
        std::thread::sleep(Duration::from_millis(250));
    };
    checks.end("its probes are lost", &report, &connection.server, "on", "unanswered");
    checks.end("their peer", &report, &connection.client, "off", "unanswered");
    checks.finish();
    // It is still open.
    connection.client.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    assert!(connection.client.stream.read(&mut [0]).is_err());
}, needs "nft");

kernel_test!(a_strict_conntrack_between_two_namespaces_is_a_path_and_a_loose_one_is_not, || {
    let scene = Firewalled::new();
    let rules = "table ip f { chain c { type filter hook forward priority 0; ct state invalid drop; }; }";
    scene.firewall.run("nft", &[rules]);
    scene.firewall.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "3");
    let listener = Server::ipv4(&scene.server, 8080);
    let mut silent = scene.connect(&listener, [Keepalive::Off; 2]);
    let kept = scene.connect(&listener, [KEPT, Keepalive::Off]);
    let rules = ["--long-lived", "1ms"];
    let mut checks = Checks::default();
    // It follows a flow from any segment on.
    scene.firewall.sysctl("net.netfilter.nf_conntrack_tcp_loose", "1");
    checks.end("loose", &audit(&rules), &silent.client, "off", "local");
    scene.firewall.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0");
    silent.exchange();
    for (idle, verdict) in [(Duration::from_millis(300), "exposed"), (Duration::from_secs(4), "overdue")] {
        std::thread::sleep(idle);
        let report = audit(&rules);
        for end in [&silent.client, &silent.server] {
            if let Some(row) = checks.end(&format!("idle for {idle:?}"), &report, end, "off", verdict) {
                checks.equal("its path", (&*row.path, row.idle_timeout_seconds), ("conntrack", 3.0));
            }
        }
        checks.end("kept", &report, &kept.client, "on", "protected");
        checks.end("kept", &report, &kept.server, "off", "peer_protected");
        let ignored = audit(&[&rules[..], &["--limits.from-node", "false"]].concat());
        checks.end("not read", &ignored, &silent.client, "off", "local");
    }
    // The prediction is true: what is written now is lost.
    silent.client.stream.write_all(b"lost").expect("the kernel takes it");
    silent.server.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    checks.that(silent.server.stream.read(&mut [0]).is_err(), || "it arrived".to_owned());
    checks.finish();
}, needs "nft");
