//! Options that choose what is shown: they change no verdict, and a name that does not exist is an error.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::binary::{Outcome, Report, audit, command, finish, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Keepalive, Server};

/// Judges connections between two namespaces as if the namespaces were two machines.
const APART: [&str; 4] = ["--local-scope", "namespace", "--long-lived", "1ms"];

/// The judgement of each connection in a report, in the order of their cookies.
fn judged(report: &Report) -> Vec<(String, String, String, Option<String>)> {
    let row = |row: &crate::support::binary::Row| {
        (row.cookie.clone(), row.verdict.clone(), row.keepalive.clone(), row.peer.keepalive.clone())
    };
    let mut rows: Vec<_> = report.connections.iter().map(row).collect();
    rows.sort();
    rows
}

kernel_test!(a_filter_does_not_change_the_verdicts_of_the_shown_connections, || {
    let (client, server) = (Netns::named("client"), Netns::with_process());
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let keeps = [Keepalive::Off, Keepalive::Idle(60), Keepalive::Default];
    let pairs = keeps.iter().flat_map(|near| keeps.iter().map(|far| [*near, *far]));
    let _held: Vec<_> = pairs
        .flat_map(|keep| [v4(1, 2), v6(1, 2)].map(|to| (to, keep)))
        .map(|(to, keep)| listener.connect(&client, to, keep))
        .collect();
    sleep(Duration::from_millis(250));
    let pid = server.pid().to_string();
    for scope in ["namespace", "node"] {
        let rules = ["--local-scope", scope, "--long-lived", "1ms"];
        let whole = judged(&audit(&rules));
        let of = |netns: &Netns| {
            let report = audit(&rules);
            report.rows_of(netns.inode).map(|row| row.cookie.clone()).collect::<Vec<_>>()
        };
        let mut checks = Checks::default();
        for (shown, cookies) in [
            (&["--netns", "client"][..], of(&client)),
            (&["--netns", "/run/netns/client"], of(&client)),
            (&["--owner", "clien*"], of(&client)),
            (&["--pid", &pid], of(&server)),
            (&["dport = :8080"], of(&client)),
            (&["--netns", "client", "sport = :8080"], Vec::new()),
        ] {
            let report = audit(&[&rules[..], shown].concat());
            let wanted: Vec<_> = whole.iter().filter(|row| cookies.contains(&row.0)).cloned().collect();
            checks.equal(&format!("{scope} {shown:?}"), judged(&report), wanted);
            checks.equal(&format!("{scope} {shown:?}: counted"), report.sweep.connections, cookies.len() as u64);
        }
        checks.finish();
    }
});

kernel_test!(a_namespace_has_one_name_however_it_is_chosen, || {
    let (client, server) = (Netns::named("client"), Netns::unlisted("far"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let connection = Server::dual(&server, 8080).connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    let mut nsenter = Command::new("nsenter");
    nsenter.arg("--net=/run/netns/client").args(["sleep", "3600"]).stdin(Stdio::null());
    let mut process = nsenter.spawn().expect("nsenter starts");
    let path = format!("/proc/{}/ns/net", process.id());
    let inside = || std::fs::metadata(&path).is_ok_and(|it| std::os::unix::fs::MetadataExt::ino(&it) == client.inode);
    while !inside() {
        sleep(Duration::from_millis(2));
    }
    let pid = process.id().to_string();
    // ages are counted in tenths of a second
    sleep(Duration::from_millis(250));
    let mut checks = Checks::default();
    for chosen in
        [&[][..], &["--netns", "client"], &["--netns", "/run/netns/client"], &["--netns", &path], &["--pid", &pid]]
    {
        let report = audit(&[&APART[..], chosen].concat());
        if let Some(row) = checks.end(&format!("{chosen:?}"), &report, &connection.client, "off", "exposed") {
            checks.equal(&format!("{chosen:?}: name"), row.netns_name.as_deref(), Some("client"));
        }
    }
    // a namespace that no directory lists is found only by its path
    let elsewhere = audit(&[&APART[..], &["--netns", "/run/elsewhere/far"]].concat());
    checks.end("far", &elsewhere, &connection.server, "off", "exposed");
    checks.equal("far", elsewhere.connections.len(), 1);
    checks.finish();
    process.kill().expect("our child");
    process.wait().expect("our child");
});

/// Runs the binary without any capability, although the user id is 0.
fn without_capabilities(arguments: &[&str]) -> Outcome {
    let binary = command(arguments);
    let mut dropped = Command::new("setpriv");
    dropped.args(["--bounding-set", "-all", "--"]).arg(binary.get_program()).args(binary.get_args());
    finish(&mut dropped)
}

kernel_test!(a_name_that_does_not_exist_or_cannot_be_read_is_an_error, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let _held = listener.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2]);
    let mut checks = Checks::default();
    let mut refused = |case: &str, outcome: &Outcome, names: &[&str]| {
        checks.equal(case, outcome.code(), 1);
        checks.equal(case, &*outcome.stdout, "");
        for name in names {
            checks.that(outcome.stderr.contains(name), || format!("{case} does not say {name:?}: {}", outcome.stderr));
        }
    };
    for (arguments, names) in [
        (&["--pod", "no-such"][..], &["no connection matches --pod no-such (2 seen)"][..]),
        (&["--namespace", "shop"], &["no connection matches --namespace shop (2 seen)"]),
        (&["--owner", "clinet"], &["--owner clinet", "did you mean `client`?"]),
        (&["--netns", "sever"], &["--netns sever", "did you mean `server`?"]),
        (&["--netns", "/run/netns/nowhere"], &["/run/netns/nowhere"]),
        (&["--pid", "999999"], &["no process 999999"]),
    ] {
        for fail_on in [&[][..], &["--fail-on", "exposed"]] {
            let all = [&["audit", "--all"], arguments, fail_on].concat();
            refused(&format!("{arguments:?} {fail_on:?}"), &run(&all), names);
        }
    }
    let denied = without_capabilities(&["audit", "--netns", "client"]);
    refused("without capabilities", &denied, &["--netns client", "CAP_SYS_ADMIN"]);
    checks.finish();
    // a namespace that exists is not an error, with or without connections
    let _idle = Netns::named("idle");
    for arguments in [&["--netns", "idle"][..], &["--owner", "idle"], &["--owner", "*"], &["sport = :1"]] {
        let outcome = run(&[&["audit", "--fail-on", "exposed"], arguments].concat());
        assert_eq!(outcome.code(), 0, "{arguments:?}: {outcome:?}");
    }
});

kernel_test!(fail_on_accepts_an_incomplete_sweep_only_with_allow_incomplete, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let _kept = listener.connect(&client, v4(1, 2), [Keepalive::Idle(60); 2]);
    let strict = [&["audit", "--fail-on", "exposed"], &APART[..]].concat();
    assert_eq!(run(&strict).code(), 0, "everything was read");
    let incomplete = without_capabilities(&strict);
    assert_eq!(incomplete.code(), 1, "{incomplete:?}");
    assert!(incomplete.stderr.contains("--allow-incomplete"), "{incomplete:?}");
    assert_eq!(without_capabilities(&[&strict[..], &["--allow-incomplete"]].concat()).code(), 0);
    // a watch goes on until a sweep finds something, and does not go on where none can
    let watch = [&strict[..], &["--watch", "100ms"]].concat();
    assert_eq!(without_capabilities(&watch).code(), 1);
    let binary = command(&watch);
    let mut watching = Command::new(binary.get_program());
    watching.args(binary.get_args()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut watching = watching.spawn().expect("the binary starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok()), "the first sweep is printed");
    assert!(watching.try_wait().expect("our child").is_none(), "nothing is found yet");
    let _exposed = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("exposed"))));
    lines.for_each(drop);
    assert_eq!(watching.wait().expect("our child").code(), Some(3));
    assert_eq!(run(&strict).code(), 3);
});
