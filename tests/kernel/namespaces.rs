//! An audit finds and enters every namespace, misses no connection there, and names each namespace it cannot enter.

use std::collections::BTreeSet;

use crate::support::binary::{Agent, audit, command, finish, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Id, Keepalive, Server};

kernel_test!(named_and_anonymous_namespaces_are_found_and_narrowed_to, || {
    let (named, process) = (Netns::named("named"), Netns::with_process());
    join("veth0", (&named, &addresses(1, 1)), (&process, &addresses(1, 2)));
    let listener = Server::dual(&process, 8080);
    let connection = listener.connect(&named, v4(1, 2), [Keepalive::Off; 2]);
    let own = Netns::current();
    let at_home = Server::dual(&own, 7070).connect(&own, "127.0.0.1".parse().expect("an address"), [Keepalive::Off; 2]);

    let mut checks = Checks::default();
    let whole = audit(&[]);
    for (case, end, name) in [
        ("named", &connection.client, Some("named")),
        ("of a process", &connection.server, None),
        ("own", &at_home.client, None),
    ] {
        if let Some(row) = checks.end(case, &whole, end, "off", "local") {
            checks.equal(case, row.netns_name.as_deref(), name);
        }
    }
    checks.equal("dumped", whole.sweep.namespaces.get("dumped").copied(), Some(3));
    checks.equal("failed", whole.sweep.namespaces.get("failed").copied(), Some(0));

    let path = process.path.to_str().expect("a path in UTF-8");
    let pid = process.pid().to_string();
    for (narrowed, netns) in [
        (["--netns", "named"], &named),
        (["--netns", "/run/netns/named"], &named),
        (["--netns", path], &process),
        (["--pid", &*pid], &process),
    ] {
        let report = audit(&narrowed);
        let found: BTreeSet<u64> = report.connections.iter().map(|row| row.netns).collect();
        checks.equal(&format!("{narrowed:?}"), found, BTreeSet::from([netns.inode]));
        checks.equal(&format!("{narrowed:?}"), report.sweep.connections, 1);
    }
    let nowhere = run(&["audit", "--netns", "nowhere"]);
    checks.equal("--netns nowhere", nowhere.code(), 1);
    checks.that(nowhere.stderr.contains("nowhere"), || format!("{nowhere:?}"));
    let nobody = run(&["audit", "--pid", "999999999"]);
    checks.that([1, 2].contains(&nobody.code()) && nobody.stderr.contains("999999999"), || format!("{nobody:?}"));
    checks.finish();
});

kernel_test!(a_namespace_without_connections_is_empty_and_not_dumped, || {
    let idle = Netns::named("idle");
    // A listener is not a connection.
    let _listener = Server::dual(&idle, 8080);
    let report = audit(&[]);
    assert_eq!(report.sweep.namespaces["empty"], 2, "{:?}", report.sweep);
    assert_eq!(report.sweep.namespaces["dumped"], 0, "{:?}", report.sweep);
    assert_eq!(report.sweep.connections, 0);
    let table = run(&["audit"]);
    assert_eq!(table.code(), 0, "{table:?}");
});

kernel_test!(every_connection_that_ss_shows_is_reported, || {
    let hosts = [Netns::named("one"), Netns::named("two"), Netns::with_process()];
    join("veth0", (&hosts[0], &addresses(1, 1)), (&hosts[1], &addresses(1, 2)));
    join("veth1", (&hosts[1], &addresses(2, 1)), (&hosts[2], &addresses(2, 2)));
    let (near, far) = (Server::dual(&hosts[1], 8080), Server::dual(&hosts[2], 8080));
    let mut held = Vec::new();
    for keep in [Keepalive::Off, Keepalive::Default, Keepalive::Idle(60)].repeat(20) {
        held.push(near.connect(&hosts[0], v4(1, 2), [keep, Keepalive::Off]));
        held.push(near.connect(&hosts[0], v6(1, 2), [keep, Keepalive::Off]));
        held.push(far.connect(&hosts[1], v4(2, 2), [keep, Keepalive::Off]));
        held.push(near.connect(&hosts[1], "127.0.0.1".parse().expect("an address"), [keep; 2]));
    }
    let report = audit(&["--local-scope", "namespace"]);
    let mut checks = Checks::default();
    for netns in &hosts {
        let text = netns.run("ss", &["-Htn", "state", "established"]);
        let shown: BTreeSet<(String, String)> = text
            .lines()
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let plain = |end: &str| end.replace("[::ffff:", "").replace(if end.contains("[::ffff:")
                    { "]" } else { "\0" }, "");
                (plain(words[2]), plain(words[3]))
            })
            .collect();
        let reported: BTreeSet<_> = report.rows_of(netns.inode)
            .map(|row| (row.local.clone(), row.remote.clone())).collect();
        checks.equal("count", report.rows_of(netns.inode).count(), text.lines().count());
        checks.equal("tuples", reported, shown);
    }
    checks.equal("whole", report.sweep.connections, 2 * held.len() as u64);
    checks.finish();
}, needs "ss");

kernel_test!(the_timer_column_is_written_as_ss_writes_it, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let held = [Keepalive::Default, Keepalive::Idle(59), Keepalive::Idle(289), Keepalive::Idle(601), Keepalive::Off]
        .map(|keep| listener.connect(&client, v4(1, 2), [keep, Keepalive::Off]));
    let mut checks = Checks::default();
    for connection in &held {
        let port = connection.client.local().port().to_string();
        // A second may pass between the two commands, but not every time.
        let agree = (0..20).any(|_| {
            let shown = client.run("ss", &["-Htno", "sport", "=", &port]);
            let timer = shown.split_once("timer:(")
                .map(|(_, rest)| rest.split(')').next().unwrap_or_default().to_owned());
            let table = run(&["audit", "--all", "--netns", "client"]).stdout;
            let line = table.lines().find(|line| line.contains(&format!("10.99.1.1:{port}"))).map(str::to_owned);
            match (&timer, &line) {
                (Some(timer), Some(line)) => line.split_whitespace().any(|word| word == timer.trim()),
                (None, Some(line)) => !line.contains("keepalive,"),
                _ => false,
            }
        });
        checks.that(agree, || {
            let shown = client.run("ss", &["-Htno", "sport", "=", &port]);
            format!("{shown}{}", run(&["audit", "--all", "--netns", "client"]).stdout)
        });
    }
    // Below ten seconds `ss` writes milliseconds, which differ in each run, and none for a whole second.
    let quick = listener.connect(&client, v4(1, 2), [Keepalive::Idle(9), Keepalive::Off]);
    let port = quick.client.local().port().to_string();
    let mut table = String::new();
    let milliseconds = (0..20).any(|_| {
        table = run(&["audit", "--all", "--netns", "client"]).stdout;
        let line = table.lines().find(|line| line.contains(&format!("10.99.1.1:{port}"))).unwrap_or_default();
        let timer = line.split_whitespace().find_map(|word| word.strip_prefix("keepalive,")?.strip_suffix("ms,0"));
        let (seconds, rest) = timer.and_then(|timer| timer.split_once('.')).unwrap_or_default();
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(seconds, 1) && seconds < "9" && digits(rest, 3)
    });
    checks.that(milliseconds, || format!("not keepalive,N.NNNms,0: {table}"));
    checks.finish();
}, needs "ss");

kernel_test!(without_privileges_it_audits_its_own_namespace_and_names_what_it_lacks, || {
    let own = Netns::current();
    let at_home = Server::dual(&own, 7070).connect(&own, "127.0.0.1".parse().expect("an address"), [Keepalive::Off; 2]);
    let audit_without = |dropped: &str| {
        let binary = command(&["audit", "--all", "--format", "json"]);
        finish(
            std::process::Command::new("setpriv")
                .args(["--bounding-set", dropped, "--"])
                .arg(binary.get_program())
                .args(binary.get_args()),
        )
    };
    let mut checks = Checks::default();

    // A bind mount needs only CAP_SYS_ADMIN. The namespace of another process needs CAP_SYS_PTRACE first.
    let named = Netns::named("named");
    let outcome = audit_without("-all");
    checks.that(outcome.stderr.contains("CAP_SYS_ADMIN"), || format!("a bind mount: {outcome:?}"));
    let report = outcome.report();
    checks.end("own namespace", &report, &at_home.client, "off", "local");
    checks.end("own namespace", &report, &at_home.server, "off", "local");
    checks.equal("rows of others", report.connections.iter().filter(|row| row.netns != own.inode).count(), 0);
    checks.that(report.sweep.namespaces["failed"] >= 1, || format!("{:?}", report.sweep));
    checks.that(report.sweep.incomplete, || format!("incomplete is not reported: {:?}", report.sweep));
    named.delete();

    let _process = Netns::with_process();
    let outcome = audit_without("-all");
    checks.that(outcome.stderr.contains("CAP_SYS_PTRACE"), || format!("a process, no capability: {outcome:?}"));
    checks.equal("a process, no capability", outcome.code(), 0);
    let outcome = audit_without("-sys_ptrace");
    checks.that(outcome.stderr.contains("CAP_SYS_PTRACE"), || format!("a process, no CAP_SYS_PTRACE: {outcome:?}"));
    checks.equal("a process, no CAP_SYS_PTRACE", outcome.code(), 0);
    checks.finish();
});

kernel_test!(ignored_connections_are_counted_and_not_judged, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let _held = [v4(1, 2), v6(1, 2)].map(|to| listener.connect(&client, to, [Keepalive::Off; 2]));
    let config = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    // Outside pods the container's name is the namespace's name.
    std::fs::write(config.path(), "ignore:\n  - { container: \"cli*\" }\n").expect("the configuration is written");
    let report = audit(&["--config", config.path().to_str().expect("a path in UTF-8")]);
    let mut checks = Checks::default();
    checks.equal("ignored", report.sweep.ignored, 2);
    checks.equal("connections", report.sweep.connections, 2);
    checks.equal("verdicts", report.verdicts.values().sum::<u64>(), 2);
    checks.equal("rows of the ignored", report.rows_of(client.inode).count(), 0);
    checks.equal("rows of the others", report.rows_of(server.inode).count(), 2);
    checks.finish();
});

kernel_test!(a_namespace_that_only_a_thread_has_entered_is_found, || {
    // Nothing lists it: a thread of this process leads there, and its main thread does not.
    let hidden = Netns::unlisted("hidden");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let is_done = std::sync::Mutex::new(is_done);
    std::thread::scope(|scope| {
        let hidden = &hidden;
        scope.spawn(move || {
            hidden.enter(|| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it listens");
                let stream =
                    std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
                ready.send(rustix::net::sockopt::socket_cookie(&stream).expect("a cookie")).expect("the test waits");
                let _ = is_done.lock().map(|is_done| is_done.recv());
            });
        });
        let id = Id { netns: hidden.inode, cookie: is_ready.recv().expect("the thread has entered") };
        let mut checks = Checks::default();
        checks.that(audit(&[]).row(id).is_some(), || "one audit does not show it".to_owned());
        let agent = Agent::start(&["--interval", "250ms"]);
        let mut sweeps = BTreeSet::new();
        while sweeps.len() < 10 {
            let report = agent.report();
            checks.that(report.row(id).is_some(), || format!("{:?} does not show it", report.sweep));
            sweeps.insert(report.sweep.started_at);
        }
        drop(done);
        checks.finish();
    });
});
