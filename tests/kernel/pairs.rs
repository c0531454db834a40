//! Finds which two sockets are the ends of one connection: in one namespace, across namespaces, or through NAT.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::binary::{Agent, audit};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::recording::Recording;
use crate::support::rtnetlink;
use crate::support::socket::{Connection, Keepalive, Server};

/// In time for the path of [`RULES`].
const ON: Keepalive = Keepalive::Idle(60);
const RULES: [&str; 4] = ["--idle-timeout", "100s", "--long-lived", "1ms"];
const APART: [&str; 6] = ["--idle-timeout", "100s", "--long-lived", "1ms", "--local-scope", "namespace"];

/// Waits until new connections are long-lived: ages are in tenths of a second.
fn wait_until_long_lived() {
    std::thread::sleep(Duration::from_millis(250));
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The namespaces of a client and a server, and a router between them that translates with nft `rules`.
struct Routed {
    client: Netns,
    server: Netns,
    _router: Netns,
}

impl Routed {
    fn new(rules: &[&str]) -> Self {
        let scene =
            Self { client: Netns::named("client"), server: Netns::named("server"), _router: Netns::named("router") };
        let Self { client, server, _router: router } = &scene;
        join("veth0", (client, &addresses(1, 1)), (router, &addresses(1, 2)));
        join("veth1", (router, &addresses(2, 1)), (server, &addresses(2, 2)));
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        for (netns, net, gateway) in [(client, 1, 2), (server, 2, 1)] {
            netns.enter(|| {
                rtnetlink::add_route(([0_u8; 4].into(), 0), v4(net, gateway)).expect("a default route");
                rtnetlink::add_route(([0_u16; 8].into(), 0), v6(net, gateway)).expect("a default route");
            });
        }
        for rule in rules {
            router.run("nft", &[rule]);
        }
        scene
    }

    /// The rules of a cluster service: destinations are translated, sources are not.
    fn cluster() -> Self {
        Self::new(&[
            "add table ip nat",
            "add chain ip nat pre { type nat hook prerouting priority dstnat; }",
            "add rule ip nat pre ip daddr 10.96.0.1 tcp dport 80 dnat to 10.99.2.2:8080",
            "add rule ip nat pre ip daddr 10.96.0.2 tcp dport 80 dnat to 10.99.2.2:8081",
            "add table ip6 nat",
            "add chain ip6 nat pre { type nat hook prerouting priority dstnat; }",
            "add rule ip6 nat pre ip6 daddr fd96::1 tcp dport 80 dnat to [fd99:2::2]:8080",
            "add rule ip6 nat pre ip6 daddr fd96::2 tcp dport 80 dnat to [fd99:2::2]:8081",
        ])
    }
}

kernel_test!(exact_pairs_across_namespaces_are_local_or_share_their_keepalive, || {
    let (client, server) = (Netns::named("client"), Netns::with_process());
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    // Keepalive of client and server, and the verdict of each if the namespaces count as two machines.
    let combinations = [
        ([ON, Keepalive::Off], ("on", "protected"), ("off", "peer_protected")),
        ([Keepalive::Off, ON], ("off", "peer_protected"), ("on", "protected")),
        ([Keepalive::Default, ON], ("late", "peer_protected"), ("on", "protected")),
        ([ON, ON], ("on", "protected"), ("on", "protected")),
        ([Keepalive::Off, Keepalive::Off], ("off", "exposed"), ("off", "exposed")),
        ([Keepalive::Off, Keepalive::Default], ("off", "exposed"), ("late", "exposed")),
    ];
    let mut held = Vec::new();
    for to in [v4(1, 2), v6(1, 2), "::ffff:10.99.1.2".parse().expect("an address")] {
        for (keep, near, far) in combinations {
            let mut connection = listener.connect(&client, to, keep);
            connection.exchange();
            held.push((format!("{to} {keep:?}"), connection, near, far));
        }
    }
    wait_until_long_lived();
    let (together, apart) =
        (Recording::of_one_sweep("exact-pairs", &RULES), Recording::of_one_sweep("exact-pairs-apart", &APART));
    let mut checks = Checks::default();
    for (case, connection, near, far) in &held {
        for (role, end, (keepalive, verdict), other) in
            [("client", &connection.client, near, far), ("server", &connection.server, far, near)]
        {
            let case = format!("{case} {role}");
            checks.end(&format!("{case}, one node"), &together, end, keepalive, "local");
            if let Some(row) = checks.end(&case, &apart, end, keepalive, verdict) {
                checks.that(row.peer.on_node, || format!("{case}: the peer is on this node: {row:?}"));
                checks.equal(&format!("{case}: the peer's keepalive"), row.peer.keepalive.as_deref(), Some(other.0));
            }
        }
    }
    checks.finish();
});

kernel_test!(a_client_of_a_cluster_address_is_paired_with_its_server, || {
    let routed = Routed::cluster();
    let listener = Server::dual(&routed.server, 8080);
    let combinations = [
        ([ON, Keepalive::Off], ("on", "protected"), ("off", "peer_protected")),
        ([Keepalive::Off, ON], ("off", "peer_protected"), ("on", "protected")),
        ([Keepalive::Off, Keepalive::Off], ("off", "exposed"), ("off", "exposed")),
    ];
    let mut held = Vec::new();
    for to in [address("10.96.0.1:80"), address("[fd96::1]:80")] {
        for (keep, near, far) in combinations {
            let mut connection = listener.connect_from(&routed.client, None, to, keep);
            connection.exchange();
            assert_ne!(connection.client.remote(), connection.server.local(), "nothing translates");
            held.push((format!("{to} {keep:?}"), connection, near, far));
        }
    }
    wait_until_long_lived();
    let mut checks = Checks::default();
    // NAT on the path can drop the connection, even on one node.
    for (name, rules) in [("cluster-address", &RULES[..]), ("cluster-address-apart", &APART[..])] {
        let report = Recording::of_one_sweep(name, rules);
        for (case, connection, near, far) in &held {
            for (role, end, (keepalive, verdict), other) in
                [("client", &connection.client, near, far), ("server", &connection.server, far, near)]
            {
                let case = format!("{case} {role} {name}");
                if let Some(row) = checks.end(&case, &report, end, keepalive, verdict) {
                    checks.that(row.peer.on_node, || format!("{case}: the peer is on this node: {row:?}"));
                    checks.equal(&format!("{case}: the peer's keepalive"), row.peer.keepalive.as_deref(),
                        Some(other.0));
                }
            }
        }
    }
    checks.finish();
}, needs "nft");

kernel_test!(a_port_used_towards_several_destinations_never_pairs_wrongly, || {
    let routed = Routed::cluster();
    let (one, two) = (Server::dual(&routed.server, 8080), Server::dual(&routed.server, 8081));
    let connect = |server: &Server, to: &str, port, keep| -> Connection {
        let mut connection = server.connect_from(&routed.client, Some(port), address(to), keep);
        connection.exchange();
        connection
    };
    let mut checks = Checks::default();
    let mut held = Vec::new();
    for (first, second) in [("10.96.0.1:80", "10.96.0.2:80"), ("[fd96::1]:80", "[fd96::2]:80")] {
        // From one port to two cluster addresses: the server of each is ambiguous, so no end is
        // protected by a guess.
        held.push((first, connect(&one, first, 5000, [Keepalive::Off, Keepalive::Off])));
        held.push((second, connect(&two, second, 5000, [Keepalive::Off, ON])));
    }
    // From one port to a server itself and to a cluster address: the reversed tuple is the pair.
    for (direct, cluster) in [("10.99.2.2:8080", "10.96.0.2:80"), ("[fd99:2::2]:8080", "[fd96::2]:80")] {
        held.push((direct, connect(&one, direct, 5001, [Keepalive::Off, Keepalive::Off])));
        held.push(("beside it", connect(&two, cluster, 5001, [ON, ON])));
    }
    wait_until_long_lived();
    let report = audit(&APART);
    for (case, connection) in held.iter().filter(|(case, _)| *case != "beside it") {
        checks.end(&format!("{case} client"), &report, &connection.client, "off", "exposed");
        let is_on = case.contains("96::2") || case.contains("96.0.2");
        let server = if is_on { ("on", "protected") } else { ("off", "exposed") };
        checks.end(&format!("{case} server"), &report, &connection.server, server.0, server.1);
    }
    checks.finish();
}, needs "nft");

kernel_test!(behind_source_translation_there_is_no_pair, || {
    let routed = Routed::new(&[
        "add table inet nat",
        "add chain inet nat post { type nat hook postrouting priority srcnat; }",
        "add rule inet nat post masquerade",
    ]);
    let listener = Server::dual(&routed.server, 8080);
    let mut checks = Checks::default();
    let mut held = Vec::new();
    for to in [v4(2, 2), v6(2, 2)] {
        let mut connection = listener.connect(&routed.client, to, [Keepalive::Off, ON]);
        connection.exchange();
        assert_ne!(connection.client.local(), connection.server.remote(), "nothing translates");
        held.push(connection);
    }
    wait_until_long_lived();
    let report = audit(&RULES);
    for connection in &held {
        if let Some(row) = checks.end("client", &report, &connection.client, "off", "exposed") {
            checks.that(!row.peer.on_node, || format!("paired by mistake: {row:?}"));
        }
        checks.end("server", &report, &connection.server, "on", "protected");
    }
    checks.finish();
}, needs "nft");

kernel_test!(a_sidecar_redirect_ends_in_the_same_namespace, || {
    let (pod, server) = (Netns::named("pod"), Netns::named("server"));
    join("veth0", (&pod, &addresses(1, 1)), (&server, &addresses(1, 2)));
    for (family, to) in [("ip", "10.99.1.50"), ("ip6", "fd99:1::50")] {
        pod.run("nft", &[&format!("add table {family} nat")]);
        pod.run("nft", &[&format!("add chain {family} nat out {{ type nat hook output priority -100; }}")]);
        pod.run("nft", &[&format!("add rule {family} nat out {family} daddr {to} tcp dport 8443 redirect to :15001")]);
    }
    let (sidecar, upstream) = (Server::dual(&pod, 15_001), Server::dual(&server, 8443));
    let mut held = Vec::new();
    for (service, real) in [("10.99.1.50:8443", v4(1, 2)), ("[fd99:1::50]:8443", v6(1, 2))] {
        let mut inside = sidecar.connect_from(&pod, None, address(service), [Keepalive::Off; 2]);
        inside.exchange();
        assert_eq!(inside.client.remote(), address(service));
        let mut outside = upstream.connect(&pod, real, [Keepalive::Off; 2]);
        outside.exchange();
        held.push((service, inside, outside));
    }
    wait_until_long_lived();
    let mut checks = Checks::default();
    for (name, rules, beyond) in [("sidecar", &RULES[..], "local"), ("sidecar-apart", &APART[..], "exposed")] {
        let report = Recording::of_one_sweep(name, rules);
        for (service, inside, outside) in &held {
            checks.end(&format!("{service}: the application"), &report, &inside.client, "off", "local");
            checks.end(&format!("{service}: its sidecar"), &report, &inside.server, "off", "local");
            checks.end(&format!("{service}: the sidecar's own"), &report, &outside.client, "off", beyond);
        }
    }
    checks.finish();
}, needs "nft");

kernel_test!(a_server_that_is_gone_is_not_paired, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    // Another client, on another machine, is connected to the same server with keepalive.
    let elsewhere = Netns::unlisted("elsewhere");
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    join("veth1", (&elsewhere, &addresses(2, 1)), (&server, &addresses(2, 2)));
    elsewhere.enter(|| rtnetlink::add_route((v4(1, 0), 24), v4(2, 2))).expect("a route");
    server.sysctl("net.ipv4.conf.all.rp_filter", "0");
    let listener = Server::dual(&server, 8080);
    let mut ours = listener.connect(&client, v4(1, 2), [Keepalive::Off, Keepalive::Off]);
    let mut theirs = listener.connect(&elsewhere, v4(1, 2), [ON, ON]);
    ours.exchange();
    theirs.exchange();
    assert_eq!(ours.client.remote(), theirs.client.remote());
    // The last acknowledgement is delayed: after the cut it would meet a reset.
    wait_until_long_lived();
    // The server ends its side while the link is cut: its reset is lost, and our client does not notice.
    server.enter(|| rtnetlink::set_link_down("veth0")).expect("the link goes down");
    let Connection { client: orphan, server: ended } = ours;
    rustix::net::sockopt::set_socket_linger(&ended.stream, Some(Duration::ZERO)).expect("SO_LINGER is set");
    drop(ended);
    server.enter(|| rtnetlink::set_link_up("veth0")).expect("the link comes up");
    let mut checks = Checks::default();
    for rules in [&RULES[..], &APART[..]] {
        let report = audit(rules);
        if let Some(row) = checks.end("whose server is gone", &report, &orphan, "off", "exposed") {
            checks.that(!row.peer.on_node, || format!("paired by mistake: {row:?}"));
        }
        if let Some(row) = checks.end("the other's server", &report, &theirs.server, "on", "protected") {
            checks.that(!row.peer.on_node, || format!("paired by mistake: {row:?}"));
        }
    }
    checks.finish();
});

kernel_test!(both_rows_of_a_connection_show_one_idle_time_and_do_not_contradict_each_other, || {
    const LIMIT: Duration = Duration::from_millis(4_400);
    let (client, server) = (Netns::named("client"), Netns::with_process());
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let rules = ["--local-scope", "namespace", "--idle-timeout", "4400ms", "--long-lived", "1s"];
    // Probes every 4 s are too late for 4.4 s because of the timer's slack, and the server sends no probes.
    let mut held: Vec<_> = [v4(1, 2), v6(1, 2)]
        .into_iter()
        .flat_map(|to| [Keepalive::Idle(4), Keepalive::Off].map(|client_side| (to, client_side)))
        .map(|(to, client_side)| listener.connect(&client, to, [client_side, Keepalive::Off]))
        .collect();
    held.iter_mut().for_each(crate::support::socket::Connection::exchange);
    let agent = Agent::start(&[&rules[..], &["--interval", "250ms"]].concat());
    let end = Instant::now() + LIMIT * 5 / 2;
    let mut checks = Checks::default();
    let mut overdue = 0;
    while Instant::now() < end {
        for (by, report) in [("agent", agent.report()), ("audit", audit(&rules))] {
            for connection in &held {
                let rows = [&connection.client, &connection.server].map(|end| report.row(end.id));
                let [Some(client), Some(server)] = rows else { continue };
                let idle = [client, server].map(|row| row.wire_idle_seconds.unwrap_or(-1.0));
                // Both rows belong to one sweep.
                checks.that((idle[0] - idle[1]).abs() < 0.001, || format!("{by}: {idle:?}: {client:?} {server:?}"));
                checks.equal(by, client.verdict == "overdue", server.verdict == "overdue");
                overdue += u32::from(client.verdict == "overdue");
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    checks.that(overdue > 0, || "nothing was overdue".to_owned());
    checks.finish();
});
