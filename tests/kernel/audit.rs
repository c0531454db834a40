//! One run of `audit`: the keepalive, direction, endpoint, clocks and verdict of each socket.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::binary::{Report, audit, command, finish, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::recording::Recording;
use crate::support::socket::{Connection, Keepalive, Server};

/// Judges connections between two namespaces as if the namespaces were two machines.
const APART: [&str; 2] = ["--local-scope", "namespace"];

/// Two namespaces on one link, one for a client and one for a server.
fn two_hosts() -> (Netns, Netns) {
    let (client, server) = (Netns::named("client"), Netns::with_process());
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    (client, server)
}

/// The server's addresses: IPv4, IPv6, and IPv4-mapped IPv6.
fn families() -> [(&'static str, std::net::IpAddr); 3] {
    let mapped = "::ffff:10.99.1.2".parse().expect("an address");
    [("ipv4", v4(1, 2)), ("ipv6", v6(1, 2)), ("v4-mapped", mapped)]
}

/// Repeats the audit until `done` returns true. Gives up after a time that is long enough for a loaded machine.
fn audit_until(arguments: &[&str], mut done: impl FnMut(&Report) -> bool) -> Report {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let report = audit(arguments);
        if done(&report) || Instant::now() > end {
            return report;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether every connection of the report is at least this old, in seconds.
fn aged(seconds: f64) -> impl Fn(&Report) -> bool {
    move |report| report.connections.iter().all(|row| row.age_seconds >= seconds)
}

kernel_test!(each_family_and_role_with_each_keepalive, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&server, 8080);
    let cases = [
        (Keepalive::Off, "off", "exposed"),
        (Keepalive::Default, "late", "exposed"),
        (Keepalive::Idle(60), "on", "protected"),
        // 320 s × 9/8 is past 350 s, 310 s × 9/8 is not.
        (Keepalive::Idle(320), "late", "exposed"),
        (Keepalive::Idle(310), "on", "protected"),
    ];
    let mut held: Vec<(String, Connection, Keepalive, &str, &str)> = Vec::new();
    for (family, to) in families() {
        for (keep, keepalive, verdict) in cases {
            let mut connection = listener.connect(&client, to, [keep; 2]);
            connection.exchange();
            held.push((format!("{family} {keep:?}"), connection, keep, keepalive, verdict));
        }
    }
    let report = audit_until(&[&APART[..], &["--long-lived", "1s"]].concat(), aged(1.0));
    Recording::of_one_sweep("each-keepalive", &[&APART[..], &["--long-lived", "1s"]].concat());
    let mut checks = Checks::default();
    for (case, connection, keep, keepalive, verdict) in &held {
        let family = if case.starts_with("ipv6") { "ipv6" } else { "ipv4" };
        let endpoint = connection.client.remote().to_string();
        for (role, end, direction, endpoint) in
            [("client", &connection.client, "outbound", &*endpoint), ("server", &connection.server, "inbound", ":8080")]
        {
            let case = format!("{case} {role}");
            let Some(row) = checks.end(&case, &report, end, keepalive, verdict) else { continue };
            checks.equal(&format!("{case}: direction"), &*row.direction, direction);
            checks.equal(&format!("{case}: endpoint"), &*row.endpoint, endpoint);
            checks.equal(&format!("{case}: family"), &*row.family, family);
            checks.equal(&format!("{case}: uid"), row.uid, 0);
            checks.equal(&format!("{case}: limit"), row.idle_timeout_seconds, 350.0);
            let timer = if *keep == Keepalive::Off { "none" } else { "keepalive" };
            checks.equal(&format!("{case}: timer"), &*row.timer.kind, timer);
            let idle = match keep {
                Keepalive::Off => None,
                Keepalive::Default => Some(7200.0),
                Keepalive::Idle(seconds) | Keepalive::IdleThenEvery(seconds, _) => Some(f64::from(*seconds)),
            };
            checks.equal(&format!("{case}: kind of idle"), row.keepalive_idle_is.as_deref(), idle.map(|_| "at_least"));
            let inferred = row.keepalive_idle_seconds;
            let near = idle.zip(inferred).map_or(idle == inferred, |(set, got)| got <= set + 0.1 && got > set - 1.0);
            checks.that(near, || format!("{case}: KEEPIDLE {idle:?} s was set, {inferred:?} inferred"));
        }
    }
    checks.equal("connections", report.sweep.connections, 2 * held.len() as u64);
    checks.equal("rows", report.connections.len(), 2 * held.len());
    checks.equal("all verdicts", report.verdicts.values().sum::<u64>(), 2 * held.len() as u64);
    checks.equal("exposed", report.verdicts.get("exposed").copied(), Some(18));
    checks.equal("protected", report.verdicts.get("protected").copied(), Some(12));
    checks.finish();
});

kernel_test!(the_timer_slack_of_an_eighth_decides_between_on_and_late, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&server, 8080);
    let mut connection = listener.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2]);
    connection.exchange();
    let mut checks = Checks::default();
    // 60 s × 9/8 = 67.5 s
    for (limit, keepalive, verdict) in [("66s", "late", "young"), ("68s", "on", "protected")] {
        let report = audit(&[&APART[..], &["--idle-timeout", limit]].concat());
        checks.end(limit, &report, &connection.client, keepalive, verdict);
        checks.end(limit, &report, &connection.server, keepalive, verdict);
    }
    checks.finish();
});

kernel_test!(a_zero_window_masks_the_keepalive_timer, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&server, 8080);
    let mut held = Vec::new();
    for (family, to) in families() {
        for keep in [Keepalive::Off, Keepalive::Idle(60)] {
            let mut connection = listener.connect(&client, to, [keep, Keepalive::Off]);
            connection.fill_window();
            held.push((format!("{family} {keep:?}"), connection));
        }
    }
    let report = audit_until(&[&APART[..], &["--long-lived", "1s"]].concat(), aged(1.0));
    Recording::of_one_sweep("masked", &[&APART[..], &["--long-lived", "1s"]].concat());
    let mut checks = Checks::default();
    for (case, connection) in &held {
        if let Some(row) = checks.end(case, &report, &connection.client, "unknown", "undetermined") {
            checks.equal(&format!("{case}: timer"), &*row.timer.kind, "persist");
            checks.equal(&format!("{case}: KEEPIDLE"), row.keepalive_idle_seconds, None::<f64>);
        }
    }
    checks.equal("undetermined", report.verdicts.get("undetermined").copied(), Some(held.len() as u64));
    checks.finish();
});

kernel_test!(both_ends_in_one_namespace_are_local, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&client, 8080);
    // Another connection, from the same address to the same port of another machine, must not pair with these.
    let elsewhere = Server::dual(&server, 8080);
    let mut held = Vec::new();
    for to in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.99.1.1", "fd99:1::1"] {
        let mut connection = listener.connect(&client, to.parse().expect("an address"), [Keepalive::Off; 2]);
        connection.exchange();
        held.push((to, connection));
    }
    let away = elsewhere.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    let mut checks = Checks::default();
    for scope in ["namespace", "node"] {
        let report = audit_until(&["--long-lived", "1s", "--local-scope", scope], aged(1.0));
        for (to, connection) in &held {
            checks.end(&format!("{to} client, scope {scope}"), &report, &connection.client, "off", "local");
            checks.end(&format!("{to} server, scope {scope}"), &report, &connection.server, "off", "local");
        }
        let verdict = if scope == "node" { "local" } else { "exposed" };
        checks.end(&format!("another machine, scope {scope}"), &report, &away.client, "off", verdict);
        checks.end(&format!("another machine's end, scope {scope}"), &report, &away.server, "off", verdict);
    }
    checks.finish();
});

kernel_test!(listening_ports_give_the_direction_whatever_their_number, || {
    let (client, server) = two_hosts();
    // A port in the ephemeral range that listens, and a well-known port that connects.
    let high = Server::at(&server, "10.99.1.2:45000".parse().expect("an address"));
    let connections = [
        high.connect_from(&client, Some(443), "10.99.1.2:45000".parse().expect("an address"), [Keepalive::Off; 2]),
        high.connect(&client, v4(1, 2), [Keepalive::Off; 2]),
    ];
    let report = audit(&APART);
    let mut checks = Checks::default();
    for connection in &connections {
        if let Some(row) = checks.end("client", &report, &connection.client, "off", "young") {
            checks.equal("client", (&*row.direction, &*row.endpoint), ("outbound", "10.99.1.2:45000"));
        }
        if let Some(row) = checks.end("server", &report, &connection.server, "off", "young") {
            checks.equal("server", (&*row.direction, &*row.endpoint), ("inbound", ":45000"));
        }
    }
    checks.finish();
});

kernel_test!(young_then_exposed_then_overdue_as_the_clocks_pass, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&server, 8080);
    let mut held = Vec::new();
    for (family, to) in families() {
        for (keep, keepalive) in [(Keepalive::Off, "off"), (Keepalive::Idle(60), "late")] {
            let mut connection = listener.connect(&client, to, [keep; 2]);
            connection.exchange();
            held.push((format!("{family} {keep:?}"), connection, keepalive));
        }
    }
    let mut kept = listener.connect(&client, v4(1, 2), [Keepalive::Idle(1); 2]);
    kept.exchange();
    let limits = [&APART[..], &["--long-lived", "2s", "--idle-timeout", "4s"]].concat();
    let mut checks = Checks::default();
    let mut seen = std::collections::BTreeSet::new();
    let last = audit_until(&limits, |report| {
        for (case, connection, keepalive) in &held {
            for end in [&connection.client, &connection.server] {
                let Some(row) = report.row(end.id) else {
                    checks.that(false, || format!("{case}: not in the report"));
                    continue;
                };
                let idle = row.wire_idle_seconds.unwrap_or(-1.0);
                // Ages and idle times are fractions of a second, and the verdict belongs to the same moment.
                let expected = match () {
                    () if row.age_seconds < 2.0 => "young",
                    () if idle < 4.0 => "exposed",
                    () => "overdue",
                };
                checks.equal(&format!("{case} at {idle} s idle"), &*row.verdict, expected);
                checks.equal(&format!("{case} at {idle} s idle"), &*row.keepalive, *keepalive);
                checks.that(row.data_idle_seconds >= row.wire_idle_seconds, || format!("{case}: {row:?}"));
                seen.insert(row.verdict.clone());
            }
        }
        checks.end("kept alive", report, &kept.client, "on", "protected");
        report.connections.iter().filter(|row| row.verdict == "overdue").count() == 2 * held.len()
    });
    checks.equal("verdicts seen", seen.iter().map(String::as_str).collect::<Vec<_>>(), ["exposed", "overdue", "young"]);
    checks.equal("overdue at the end", last.verdicts.get("overdue").copied(), Some(2 * held.len() as u64));
    // Flagged rows come first, the worst before the others. A row judged by the clocks alone says so.
    let flagged = last.connections.iter().position(|row| row.verdict != "overdue");
    checks.equal("the first that is not flagged", flagged, Some(2 * held.len()));
    let idle_times: Vec<_> = last.connections.iter().take(2 * held.len()).map(|row| row.wire_idle_seconds).collect();
    checks.that(idle_times.is_sorted_by(|one, next| one >= next), || format!("not worst first: {idle_times:?}"));

    for (fail_on, limit, code) in
        [("overdue", "4s", 3), ("exposed", "4s", 3), ("overdue", "5m", 0), ("exposed", "5m", 3), ("overdue", "1s", 3)]
    {
        let arguments = ["audit", "--fail-on", fail_on, "--idle-timeout", limit, "--long-lived", "1s"];
        let outcome = run(&[&arguments[..], &APART].concat());
        checks.equal(&format!("--fail-on {fail_on} --idle-timeout {limit}"), outcome.code(), code);
    }
    // Nothing on one node drops a connection between these two.
    checks.equal("--fail-on, all local", run(&["audit", "--fail-on", "exposed", "--long-lived", "1s"]).code(), 0);
    checks.finish();
});

kernel_test!(paths_are_matched_by_remote_address_and_service_port, || {
    let (client, server) = two_hosts();
    let (web, other) = (Server::dual(&server, 8080), Server::dual(&server, 9090));
    let held = [
        ("balancer", 4.0, web.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2])),
        ("six", 240.0, web.connect(&client, v6(1, 2), [Keepalive::Idle(60); 2])),
        ("default", 350.0, other.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2])),
    ];
    let config = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    let rules = "long_lived: 1s\nlocal_scope: namespace\npaths:\n\
        \x20 - { name: balancer, cidrs: [10.99.1.2/32, 10.99.1.1/32], ports: [443, \"8000-8999\"], idle_timeout: 4s }\n\
        \x20 - { name: six, cidrs: [\"fd99:1::/64\"], profile: azure-lb }\n\
        \x20 - { name: never, cidrs: [10.99.1.0/24], ports: [8080], idle_timeout: 1s }\n";
    std::fs::write(config.path(), rules).expect("the configuration is written");
    let file = config.path().to_str().expect("a path in UTF-8");
    let report = audit_until(&["--config", file], aged(1.0));
    let mut checks = Checks::default();
    for (path, limit, connection) in &held {
        let (keepalive, verdict) = if *path == "balancer" { ("late", "exposed") } else { ("on", "protected") };
        for end in [&connection.client, &connection.server] {
            if let Some(row) = checks.end(path, &report, end, keepalive, verdict) {
                checks.equal(path, (&*row.path, row.idle_timeout_seconds), (*path, *limit));
            }
        }
    }
    checks.finish();
});

kernel_test!(a_recording_gives_the_same_report_again, || {
    let (client, server) = two_hosts();
    let listener = Server::dual(&server, 8080);
    let mut held: Vec<_> = families()
        .iter()
        .flat_map(|(_, to)| [Keepalive::Off, Keepalive::Default, Keepalive::Idle(60)].map(|keep| (*to, keep)))
        .map(|(to, keep)| listener.connect(&client, to, [keep, Keepalive::Off]))
        .collect();
    held[0].fill_window();
    let recording = tempfile::NamedTempFile::new().expect("a file");
    let file = recording.path().to_str().expect("a path in UTF-8");
    for format in ["json", "jsonl", "table", "wide"] {
        let judged = ["audit", "--all", "--format", format, "--long-lived", "1ms", "--local-scope", "namespace"];
        let live = run(&[&judged[..], &["--force", "--record", file]].concat());
        assert_eq!(live.code(), 0, "{live:?}");
        let again = run(&[&judged[..], &["--replay", file]].concat());
        assert_eq!(again.code(), 0, "{again:?}");
        assert_eq!(live.stdout, again.stdout, "{format}: the recording gives another report");
        assert!(live.stdout.contains("10.99.1.2:8080"), "{live:?}");
    }
    // With other rules, the same recording gives other verdicts.
    let report = run(&["audit", "--all", "--format", "json", "--replay", file]).report();
    assert_eq!(report.verdicts["local"], report.sweep.connections, "{:?}", report.verdicts);
});

kernel_test!(flags_win_over_the_environment_and_the_environment_over_the_file, || {
    let (client, server) = two_hosts();
    let connection = Server::dual(&server, 8080).connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    let config = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    std::fs::write(config.path(), "idle_timeout: 100s\n").expect("the configuration is written");
    let file = config.path().to_str().expect("a path in UTF-8");
    let limit = |flags: &[&str], environment: Option<&str>| {
        let mut audit = command(&[&["audit", "--all", "--format", "json"], flags].concat());
        audit.envs(environment.map(|value| ("KEEPALIVE_AUDITOR_IDLE_TIMEOUT", value)));
        finish(&mut audit).report().row(connection.client.id).expect("the connection").idle_timeout_seconds
    };
    let mut checks = Checks::default();
    checks.equal("nothing", limit(&[], None), 350.0);
    checks.equal("the file", limit(&["--config", file], None), 100.0);
    checks.equal("the environment", limit(&["--config", file], Some("200s")), 200.0);
    checks.equal("the flag", limit(&["--config", file, "--idle-timeout", "300s"], Some("200s")), 300.0);
    checks.equal("a profile", limit(&["--profile", "azure-lb"], None), 240.0);
    checks.finish();
});

kernel_test!(a_filter_narrows_as_it_does_for_ss, || {
    let (client, server) = two_hosts();
    let (web, other) = (Server::dual(&server, 8080), Server::dual(&server, 9090));
    let _held = [
        web.connect(&client, v4(1, 2), [Keepalive::Off; 2]),
        web.connect(&client, v6(1, 2), [Keepalive::Off; 2]),
        other.connect(&client, v4(1, 2), [Keepalive::Off; 2]),
    ];
    let mut checks = Checks::default();
    for filter in [
        "sport = :8080",
        "dport = :8080",
        "sport = :8080 or dport = :8080",
        "dst 10.99.1.0/24 and not dport = :9090",
        "dst 10.99.1.2",
        "src 10.99.1.2 and sport = :9090",
        "dst fd99:1::/64",
        "( sport = :9090 or dport = :9090 ) and dst 10.99.1.1",
        "dport != :8080",
        "dport gt :9000",
    ] {
        let words: Vec<&str> = filter.split(' ').collect();
        let shown: usize = [&client, &server]
            .iter()
            .map(|netns| netns.run("ss", &[&["-Htn", "state", "established"], &words[..]].concat()).lines().count())
            .sum();
        checks.that(shown < 6, || format!("{filter}: ss shows everything, so the filter is not tested"));
        checks.equal(&format!("{filter}, as words"), audit(&words).connections.len(), shown);
        checks.equal(&format!("{filter}, as one word"), audit(&[filter]).connections.len(), shown);
    }
    checks.finish();
}, needs "ss");

kernel_test!(watch_redraws_the_table, || {
    let (client, server) = two_hosts();
    let _held = Server::dual(&server, 8080).connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    let mut child =
        command(&["audit", "--all", "--watch", "200ms"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let draws = (0..3).filter(|_| lines.any(|line| line.contains("10.99.1.2:8080"))).count();
    child.kill().expect("our child");
    child.wait().expect("our child ends");
    assert_eq!(draws, 3);
});
