//! `--exact` reads the actual socket options. The inferred values must not exceed them.

use std::thread::sleep;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with, sockopt,
};

use crate::support::binary::{audit, command, finish, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::recording::Recording;
use crate::support::socket::{Connection, End, Keepalive, Server};

kernel_test!(the_options_are_read_and_the_inferred_keepidle_does_not_exceed_them, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let mut held = Vec::new();
    for idle in [32_767, 7200, 312, 311, 300, 60, 15, 2, 1] {
        if idle == 2 {
            // Ages are in tenths of a second. The last ones need none: a socket that is first seen between its
            // probes, a second later, shows no bound.
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        for to in [v4(1, 2), v6(1, 2)] {
            let mut connection = listener.connect(&client, to, [Keepalive::Idle(idle), Keepalive::Off]);
            connection.exchange();
            held.push((idle, connection));
        }
    }
    let rules = ["--local-scope", "namespace", "--netns", "client", "--long-lived", "1ms"];
    let (inferred, exact) = (audit(&rules), audit(&[&rules[..], &["--exact"]].concat()));
    let mut checks = Checks::default();
    for (idle, connection) in &held {
        // 311 s × 9/8 = 349.9 s
        let (keepalive, verdict) = if *idle <= 311 { ("on", "protected") } else { ("late", "exposed") };
        let set = f64::from(*idle);
        if let Some(row) = checks.end(&format!("{idle} s read"), &exact, &connection.client, keepalive, verdict) {
            checks.equal("kind", row.keepalive_idle_is.as_deref(), Some("exact"));
            checks.equal("KEEPIDLE", row.keepalive_idle_seconds, Some(set));
        }
        if let Some(row) = checks.end(&format!("{idle} s inferred"), &inferred, &connection.client, keepalive, verdict)
        {
            checks.equal("kind", row.keepalive_idle_is.as_deref(), Some("at_least"));
            let guess = row.keepalive_idle_seconds.unwrap_or(-1.0);
            // A timer's granule, 4 ms at 250 Hz, either way.
            checks.that(guess <= set + 0.01 && guess > set - 1.0, || format!("{idle} s was set, {guess} s inferred"));
        }
    }
    checks.finish();
});

kernel_test!(without_the_capability_exact_says_so_and_the_verdict_stands, || {
    let own = Netns::current();
    let connection =
        Server::dual(&own, 7070).connect(&own, "127.0.0.1".parse().expect("an address"), [Keepalive::Idle(60); 2]);
    let binary = command(&["audit", "--all", "--exact", "--format", "json"]);
    let mut dropped = std::process::Command::new("setpriv");
    dropped.args(["--bounding-set", "-all", "--"]).arg(binary.get_program()).args(binary.get_args());
    let outcome = finish(&mut dropped);
    assert!(outcome.stderr.contains("CAP_SYS_PTRACE"), "{outcome:?}");
    let mut checks = Checks::default();
    checks.end("client", &outcome.report(), &connection.client, "on", "local");
    checks.finish();
});

/// Judges connections between two namespaces as if the namespaces were two machines.
const APART: [&str; 4] = ["--local-scope", "namespace", "--long-lived", "1ms"];

/// The `exact` object of one end of a connection.
fn options_of(report: &serde_json::Value, end: &End) -> serde_json::Value {
    let rows = report["connections"].as_array().expect("a list").iter();
    let mut rows = rows.filter(|row| row["inode"] == end.inode);
    rows.next().expect("the connection is in the report")["exact"].clone()
}

kernel_test!(options_that_were_read_win_over_a_timer_that_traffic_shortened, || {
    let (client, server) = (Netns::named("client"), Netns::with_process());
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    // 4 s × 9/8 is past the limit of 3 s
    let rules = [&APART[..], &["--idle-timeout", "3s"]].concat();
    let mut held: Vec<_> =
        [v4(1, 2), v6(1, 2)].map(|to| listener.connect(&client, to, [Keepalive::Idle(4), Keepalive::Off])).into();
    // The timer was armed when the connection was opened, and traffic does not arm it again.
    for _ in 0..25 {
        held.iter_mut().for_each(Connection::exchange);
        sleep(Duration::from_millis(100));
    }
    let inferred = audit(&rules);
    let exact = Recording::of_one_sweep("exact", &[&rules[..], &["--exact"]].concat());
    let mut checks = Checks::default();
    for connection in &held {
        checks.end("inferred", &inferred, &connection.client, "on", "protected");
        if let Some(row) = checks.end("read", &exact, &connection.client, "late", "exposed") {
            checks.that(row.why.contains("4s"), || format!("why: {}", row.why));
        }
        // the peer's keepalive does not come in time either
        checks.end("peer", &exact, &connection.server, "off", "exposed");
    }
    checks.finish();
    let found = run(&[&["audit", "--exact", "--fail-on", "exposed", "--netns", "client"], &rules[..]].concat());
    assert_eq!(found.code(), 3, "{found:?}");
});

kernel_test!(a_long_interval_between_probes_is_late_however_short_keepidle_is, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let connection = listener.connect(&client, v4(1, 2), [Keepalive::Idle(60), Keepalive::Off]);
    sockopt::set_tcp_keepintvl(&connection.client.stream, Duration::from_secs(400)).expect("TCP_KEEPINTVL is set");
    sleep(Duration::from_millis(250));
    let mut checks = Checks::default();
    checks.end("inferred", &audit(&APART), &connection.client, "on", "protected");
    checks.end("read", &audit(&[&APART[..], &["--exact"]].concat()), &connection.client, "late", "exposed");
    checks.finish();
});

kernel_test!(options_are_read_even_if_another_timer_masks_keepalive, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let cases = [
        (Keepalive::Off, "off", "exposed"),
        (Keepalive::Default, "late", "exposed"),
        (Keepalive::Idle(60), "on", "protected"),
    ];
    let held: Vec<_> = [v4(1, 2), v6(1, 2)]
        .into_iter()
        .flat_map(|to| cases.map(|case| (to, case)))
        .map(|(to, (keep, keepalive, verdict))| {
            let mut connection = listener.connect(&client, to, [keep, Keepalive::Off]);
            connection.fill_window();
            (connection, keepalive, verdict)
        })
        .collect();
    sleep(Duration::from_millis(250));
    let (inferred, exact) = (audit(&APART), audit(&[&APART[..], &["--exact"]].concat()));
    let mut checks = Checks::default();
    for (connection, keepalive, verdict) in &held {
        checks.end("inferred", &inferred, &connection.client, "unknown", "undetermined");
        checks.end("read", &exact, &connection.client, keepalive, verdict);
    }
    checks.that(exact.connections.iter().all(|row| row.keepalive != "unknown"), || format!("{exact:?}"));
    checks.finish();
});

/// `IPPROTO_MPTCP`
const MPTCP: Protocol = Protocol::from_raw(std::num::NonZeroU32::new(262).expect("not zero"));

kernel_test!(an_option_that_a_socket_lacks_leaves_the_others_readable, || {
    let current = Netns::current();
    let made = || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(MPTCP));
    let (Ok(listener), Ok(socket)) = (current.enter(made), current.enter(made)) else {
        eprintln!("this kernel has no MPTCP: nothing to check");
        return;
    };
    let at: std::net::SocketAddr = "127.0.0.1:7070".parse().expect("an address");
    bind(&listener, &at).expect("it binds");
    listen(&listener, 1).expect("it listens");
    sockopt::set_socket_keepalive(&socket, true).expect("SO_KEEPALIVE is set");
    sockopt::set_tcp_keepidle(&socket, Duration::from_secs(61)).expect("TCP_KEEPIDLE is set");
    sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(7)).expect("TCP_KEEPINTVL is set");
    sockopt::set_tcp_keepcnt(&socket, 4).expect("TCP_KEEPCNT is set");
    connect(&socket, &at).expect("it connects");
    let _accepted = accept_with(&listener, SocketFlags::CLOEXEC).expect("the server accepts");
    let text = run(&["audit", "--all", "--exact", "--format", "json", "dport = :7070"]);
    let report: serde_json::Value = serde_json::from_str(&text.stdout).expect("a report");
    let inode = rustix::fs::fstat(&socket).expect("a socket has an inode").st_ino;
    let mut rows = report["connections"].as_array().expect("a list").iter().filter(|row| row["inode"] == inode);
    let row = rows.next().unwrap_or_else(|| panic!("{text:?}"));
    let exact = serde_json::json!({
        "so_keepalive": true,
        "tcp_keepidle_seconds": 61,
        "tcp_keepintvl_seconds": 7,
        "tcp_keepcnt": 4,
        "tcp_user_timeout_seconds": null,
    });
    assert_eq!(row["exact"], exact, "{}", text.stderr);
    assert_eq!(row["keepalive_idle_is"], "exact");
});

kernel_test!(fail_on_does_not_accept_options_that_could_not_be_read, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let connection = listener.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2]);
    let rules = [&["audit", "--all", "--format", "json", "--exact", "--fail-on", "exposed"], &APART[..]].concat();
    let judged = run(&rules);
    assert_eq!(judged.code(), 0, "{judged:?}");
    let report: serde_json::Value = serde_json::from_str(&judged.stdout).expect("a report");
    assert_eq!(options_of(&report, &connection.client)["tcp_keepidle_seconds"], 60);
    let without = |more: &[&str]| {
        let binary = command(&[&rules[..], more].concat());
        let mut dropped = std::process::Command::new("setpriv");
        dropped.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--"]);
        finish(dropped.arg(binary.get_program()).args(binary.get_args()))
    };
    let refused = without(&[]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("CAP_SYS_PTRACE"), "{refused:?}");
    assert!(refused.stderr.contains("--allow-incomplete"), "{refused:?}");
    assert_eq!(without(&["--allow-incomplete"]).code(), 0);
});
