//! A node with three network namespaces: `audit` and `agent` report the same, also when one namespace is removed.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::binary::{Agent, Report, Row, audit, run};
use support::checks::Checks;
use support::kernel_test;
use support::metrics::Page;
use support::netns::{Netns, addresses, join, v4, v6};
use support::socket::{Connection, Keepalive, Server};

const RULES: [&str; 4] = ["--local-scope", "namespace", "--long-lived", "1s"];
const FLAGGED: [&str; 3] = ["blackholed", "overdue", "exposed"];

/// The node's own namespace, and three on links to it.
struct Node {
    own: Netns,
    hosts: Vec<Netns>,
    servers: Vec<Server>,
}

impl Node {
    fn new() -> Self {
        let own = Netns::current();
        let hosts: Vec<_> = ["one", "two", "three"].map(Netns::named).into();
        for (host, net) in hosts.iter().zip(1..) {
            join(&format!("veth{net}"), (&own, &addresses(net, 1)), (host, &addresses(net, 2)));
        }
        let servers = hosts.iter().map(|host| Server::dual(host, 8080)).collect();
        Self { own, hosts, servers }
    }

    /// In each namespace one connection from the node of each keepalive and family, and a loopback pair.
    fn connections(&self) -> Vec<Vec<(Keepalive, Connection)>> {
        let of = |((host, listener), net): ((&Netns, &Server), u8)| {
            let mut held: Vec<_> = [Keepalive::Off, Keepalive::Idle(60), Keepalive::Default]
                .into_iter()
                .flat_map(|keep| [v4(net, 2), v6(net, 2)].map(|to| (keep, listener.connect(&self.own, to, [keep; 2]))))
                .collect();
            let loopback = listener.connect(host, "127.0.0.1".parse().expect("an address"), [Keepalive::Off; 2]);
            held.push((Keepalive::Off, loopback));
            for (_, connection) in &mut held {
                connection.exchange();
            }
            held
        };
        self.hosts.iter().zip(&self.servers).zip(1..).map(of).collect()
    }
}

/// A report and a page of the same sweep.
fn same_sweep(agent: &Agent) -> (Report, Page) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (before, page, after) = (agent.report(), agent.page("/metrics"), agent.report());
        if before.sweep.started_at == after.sweep.started_at {
            return (before, Page::read(&page));
        }
        assert!(Instant::now() < end, "never do three requests fall between two sweeps");
    }
}

/// The number of rows by some of their fields.
fn count<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> BTreeMap<Vec<String>, f64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.to_vec()).or_insert(0.0) += 1.0;
    }
    counts
}

kernel_test!(the_audit_reports_every_connection_as_it_is, || {
    let node = Node::new();
    let held = node.connections();
    let end = Instant::now() + Duration::from_secs(30);
    let mut report = audit(&RULES);
    while report.connections.iter().any(|row| row.age_seconds < 1.0) && Instant::now() < end {
        report = audit(&RULES);
    }
    let mut checks = Checks::default();
    for (host, connections) in node.hosts.iter().zip(&held) {
        for (keep, connection) in connections {
            let local = connection.client.id.netns == connection.server.id.netns;
            let (keepalive, verdict, timer) = match keep {
                Keepalive::Off => ("off", "exposed", "none"),
                Keepalive::Default => ("late", "exposed", "keepalive"),
                Keepalive::Idle(_) | Keepalive::IdleThenEvery(..) => ("on", "protected", "keepalive"),
            };
            let verdict = if local { "local" } else { verdict };
            let endpoint = connection.client.remote().to_string();
            for (end, direction, endpoint, name) in [
                (&connection.client, "outbound", &*endpoint, local.then(|| host.name())),
                (&connection.server, "inbound", ":8080", Some(host.name())),
            ] {
                let case = format!("{} {keep:?} {direction}", host.name());
                let Some(row) = checks.end(&case, &report, end, keepalive, verdict) else { continue };
                checks.equal(&case, (&*row.direction, &*row.endpoint, &*row.timer.kind), (direction, endpoint, timer));
                checks.equal(&case, row.netns_name.as_deref(), name);
            }
        }
    }
    checks.equal("connections", report.sweep.connections, 2 * 3 * 7);
    checks.equal("rows", report.connections.len(), 2 * 3 * 7);
    checks.equal("a second audit's verdicts", audit(&RULES).verdicts, report.verdicts);
    checks.finish();
});

kernel_test!(the_metrics_agree_with_the_report, || {
    let node = Node::new();
    let held = node.connections();
    let agent = Agent::start(&[&RULES[..], &["--interval", "500ms"]].concat());
    let exposed = |report: &Report| report.verdicts["exposed"] == 2 * 3 * 4;
    agent.wait(Duration::from_secs(30), exposed).unwrap_or_else(|report| panic!("{:?}", report.verdicts));
    let (report, page) = same_sweep(&agent);
    let mut checks = Checks::default();
    // Only the rows of the test's connections: the requests to the agent come and go.
    checks.that(report.sweep.connections >= 2 * 7 * held.len() as u64, || format!("{:?}", report.sweep));
    checks.equal("rows", report.connections.len() as u64, report.sweep.connections);

    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    let owner = |row: &Row| [word(&row.owner.namespace), word(&row.owner.pod)];
    let by = ["namespace", "pod", "direction", "keepalive", "verdict"];
    let rows = count(report.connections.iter().map(|row| {
        let [namespace, pod] = owner(row);
        [namespace, pod, row.direction.clone(), row.keepalive.clone(), row.verdict.clone()]
    }));
    checks.equal("connections", page.sum("keepalive_auditor_connections", &by), rows);

    let by = ["namespace", "pod", "direction", "endpoint", "path", "verdict"];
    let rows = count(report.connections.iter().filter(|row| FLAGGED.contains(&&*row.verdict)).map(|row| {
        let [namespace, pod] = owner(row);
        [namespace, pod, row.direction.clone(), row.endpoint.clone(), row.path.clone(), row.verdict.clone()]
    }));
    checks.equal("flagged", page.sum("keepalive_auditor_flagged_connections", &by), rows);

    let oldest = |direction: &str| {
        let flagged =
            report.connections.iter().filter(|row| FLAGGED.contains(&&*row.verdict) && row.direction == direction);
        flagged.filter_map(|row| row.wire_idle_seconds).fold(0.0, f64::max)
    };
    for direction in ["inbound", "outbound"] {
        let shown =
            page.of("keepalive_auditor_flagged_wire_idle_seconds_max").filter(|s| s.labels["direction"] == direction);
        let shown = shown.map(|sample| sample.value).fold(0.0, f64::max);
        let same = (shown - oldest(direction)).abs() < 0.01;
        checks.that(same, || format!("{direction}: {shown} s on the page, {} s in the report", oldest(direction)));
    }

    let namespaces = page.sum("keepalive_auditor_namespaces", &["result"]);
    let shown: BTreeMap<_, _> = report.sweep.namespaces.iter().filter(|(_, n)| **n != 0).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let shown: BTreeMap<_, _> = shown.into_iter().map(|(result, n)| (vec![result.clone()], *n as f64)).collect();
    checks.equal("namespaces", namespaces, shown);

    for (family, kind) in [
        ("connections", "gauge"),
        ("flagged_connections", "gauge"),
        ("flagged_wire_idle_seconds_max", "gauge"),
        ("idle_timeout_seconds", "gauge"),
        ("namespaces", "gauge"),
        ("sweep_duration_seconds", "histogram"),
        ("sweeps_total", "counter"),
        ("dumps_interrupted_total", "counter"),
        ("last_sweep_timestamp_seconds", "gauge"),
        ("tracked_connections", "gauge"),
        ("build_info", "gauge"),
    ] {
        let name = format!("keepalive_auditor_{family}");
        checks.equal(&name, page.types.get(&name).map(String::as_str), Some(kind));
    }
    let limits = page.sum("keepalive_auditor_idle_timeout_seconds", &["path"]);
    checks.equal("idle timeouts", limits, BTreeMap::from([(vec!["default".to_owned()], 350.0)]));
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        checks.that(page.of(name).count() == 1, || format!("{name} is not on the page"));
    }
    // No label has an unbounded number of values.
    let port = held[0][0].1.client.local().port().to_string();
    let grows =
        page.samples.iter().find(|sample| sample.labels.values().any(|value| value.ends_with(&format!(":{port}"))));
    checks.that(grows.is_none(), || format!("an ephemeral port is a label: {grows:?}"));
    checks.finish();
});

kernel_test!(a_deleted_namespace_disappears_at_once_with_its_series, || {
    let mut node = Node::new();
    let mut held = node.connections();
    // The agent sweeps as often as it can: a handle that outlived its sweep would keep the namespace alive.
    let agent = Agent::start(&[&RULES[..], &["--interval", "200ms"]].concat());
    let three = node.hosts.pop().expect("three namespaces");
    let inode = three.inode;
    assert!(agent.report().rows_of(inode).count() == 8, "the third namespace is reported before it goes");
    drop((held.pop(), node.servers.pop()));
    three.delete();
    let start = Instant::now();
    let link = || {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
        rustix::net::netdevice::name_to_index(&socket, "veth3").is_ok()
    };
    while link() {
        // Who holds the namespace holds it for as long as it runs; the kernel takes the dead ones of all tests down one
        // after the other.
        assert!(start.elapsed() < Duration::from_secs(30), "the veth of a deleted namespace stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("the veth was gone after {:?}", start.elapsed());
    let gone = agent.report().sweep.started_at;
    let next =
        agent.wait(Duration::from_secs(30), |report| report.sweep.started_at != gone).expect("the agent sweeps on");
    assert_eq!(next.rows_of(inode).count(), 0);
    let (report, page) = same_sweep(&agent);
    assert_eq!(report.sweep.namespaces["failed"], 0, "{:?}", report.sweep);
    let named = page.samples.iter().find(|sample| sample.labels.values().any(|value| value == "three"));
    assert!(named.is_none(), "a series of a namespace that is gone: {named:?}");
    let connections: f64 = page.of("keepalive_auditor_connections").map(|sample| sample.value).sum();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let shown = report.sweep.connections as f64;
    assert!((connections - shown).abs() < 0.5, "{connections} on the page, {shown} in the report");
});

kernel_test!(the_agent_stops_within_two_seconds_of_either_signal, || {
    for signal in [Signal::TERM, Signal::INT] {
        let agent = Agent::start(&["--interval", "1h"]);
        // A caller that never asks does not hold it up.
        let _caller = TcpStream::connect(agent.at).expect("the agent answers");
        let (status, took) = agent.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(took < Duration::from_secs(2), "{signal:?}: {took:?}");
    }
});

kernel_test!(the_pages_are_those_of_the_contract, || {
    let node = Node::new();
    let held = node.connections();
    let agent = Agent::start(&[&RULES[..], &["--interval", "300ms"]].concat());
    agent.wait(Duration::from_secs(30), |report| report.verdicts["exposed"] == 24).expect("24 exposed connections");
    let mut checks = Checks::default();
    checks.equal("/healthz", agent.get("/healthz").map(|(status, _)| status), Some(200));
    checks.equal("/readyz", agent.get("/readyz").map(|(status, _)| status), Some(200));
    checks.equal("/nothing", agent.get("/nothing").map(|(status, _)| status), Some(404));
    checks
        .that(agent.page("/").to_lowercase().contains("/metrics"), || "the page does not lead to /metrics".to_owned());

    let filtered = |query: &str| Report::read(&agent.page(&format!("/api/v1/report?{query}")));
    let exposed = filtered("verdict=exposed");
    checks.equal("verdict=exposed", exposed.connections.len(), 24);
    checks.that(exposed.connections.iter().all(|row| row.verdict == "exposed"), || "others too".to_owned());
    let both = filtered("verdict=exposed,protected");
    checks.equal("verdict=exposed,protected", both.connections.len(), 36);
    checks.equal("limit=5", filtered("limit=5").connections.len(), 5);
    checks.equal("namespace=nowhere", filtered("namespace=nowhere").connections.len(), 0);
    // Counts are whole whatever is asked for.
    checks.equal("verdicts", filtered("limit=1").verdicts["exposed"], 24);
    let wrong = agent.get("/api/v1/report?verdict=fine");
    checks.equal("verdict=fine", wrong.map(|(status, _)| status), Some(400));
    drop(held);
    checks.finish();
});

kernel_test!(an_address_in_use_is_reported, || {
    let agent = Agent::start(&["--interval", "1s"]);
    let second = run(&["agent", "--web.listen-address", &agent.at.to_string()]);
    assert_eq!(second.code(), 1, "{second:?}");
    assert!(second.stderr.contains(&agent.at.to_string()), "{second:?}");
});
