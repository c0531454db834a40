//! The command line as people and scripts use it: help, exit statuses, and errors. These tests need no privileges.

#[path = "../support/mod.rs"]
mod support;

mod faces;
mod help;
mod overview;
mod small_commands;
mod streams;
mod usage;
mod watch;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::binary::{Outcome, command, finish, run};
use support::checks::Checks;

/// Wrong usage or configuration.
const USAGE: i32 = 2;
/// Something failed.
const FAILED: i32 = 1;

/// Checks a refusal: its status, that stderr names every one of `names`, that stdout is empty, that nothing panicked.
fn refused(checks: &mut Checks, case: &str, outcome: &Outcome, code: i32, names: &[&str]) {
    checks.equal(&format!("{case}: exit status"), outcome.status.code(), Some(code));
    for name in names {
        checks.that(outcome.stderr.contains(name), || {
            format!("{case}: stderr does not name {name:?}: {}", outcome.stderr)
        });
    }
    checks.equal(&format!("{case}: stdout"), &*outcome.stdout, "");
    checks.that(!outcome.stderr.contains("panicked"), || format!("{case}: {}", outcome.stderr));
}

/// A recording of this machine, made without asking for privileges; it may hold no connection but the test's own.
fn recording(folder: &Path) -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let _client = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let _server = listener.accept().expect("the accepted end");
    let file = folder.join("whole.jsonl");
    let outcome = run(&["audit", "--record", file.to_str().expect("a path in UTF-8")]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    fs::read(file).expect("the recording")
}

#[test]
fn help_and_version_name_all_commands_and_flags() {
    let mut checks = Checks::default();
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let outcome = run(arguments);
        checks.equal(&format!("{arguments:?}"), outcome.code(), 0);
        for word in ["audit", "agent", "remedy", "profiles"] {
            checks.that(outcome.stdout.contains(word), || format!("{arguments:?} does not name {word}"));
        }
    }
    for (subcommand, flags) in [
        (
            "audit",
            &[
                "--all",
                "--format",
                "--netns",
                "--pid",
                "--namespace",
                "--pod",
                "--for",
                "--watch",
                "--record",
                "--replay",
                "--exact",
                "--explain",
                "--fail-on",
            ][..],
        ),
        (
            "agent",
            &[
                "--web.listen-address",
                "--web.config.file",
                "--interval",
                "--top-endpoints",
                "--max-findings",
                "--netns-dir",
                "--cgroup-root",
                "--pod-logs",
                "--cri-endpoint",
            ],
        ),
    ] {
        let outcome = run(&[subcommand, "--help"]);
        checks.equal(subcommand, outcome.code(), 0);
        let common = ["--config", "--idle-timeout", "--profile", "--long-lived", "--local-scope", "--path.procfs"];
        for flag in flags.iter().chain(&common).chain(&["--log.level", "--log.format"]) {
            checks.that(outcome.stdout.contains(flag), || format!("{subcommand} --help does not name {flag}"));
        }
    }
    let version = run(&["--version"]);
    checks.equal("--version", version.code(), 0);
    let expected = format!("keepalive-auditor {}", env!("CARGO_PKG_VERSION"));
    checks.that(version.stdout.starts_with(&expected), || format!("--version: {version:?}"));
    checks.finish();
}

#[test]
fn wrong_usage_is_refused_and_named() {
    let mut checks = Checks::default();
    for (arguments, names) in [
        (&["audit", "--nonsense"][..], &["--nonsense"][..]),
        (&["nonsense"], &["nonsense"]),
        (&["audit", "--format", "xml"], &["--format", "xml"]),
        (&["audit", "--fail-on", "sometimes"], &["--fail-on", "sometimes"]),
        (&["audit", "--idle-timeout", "350"], &["--idle-timeout", "350"]),
        (&["audit", "--idle-timeout", "soon"], &["--idle-timeout", "soon"]),
        (&["audit", "--idle-timeout=-5s"], &["--idle-timeout"]),
        (&["audit", "--long-lived", "5"], &["--long-lived", "5"]),
        (&["audit", "--for", "60"], &["--for", "60"]),
        (&["audit", "--local-scope", "galaxy"], &["--local-scope", "galaxy"]),
        (&["audit", "--profile", "nonsense"], &["nonsense"]),
        (&["audit", "--pid", "one"], &["--pid", "one"]),
        (&["audit", "--log.level", "loud"], &["--log.level", "loud"]),
        (&["audit", "--log.format", "xml"], &["--log.format", "xml"]),
        (&["audit", "sport", "==="], &["filter"]),
        (&["audit", "dst 10.0.0.0/99"], &["10.0.0.0/99"]),
        (&["audit", "sport = :99999"], &["99999"]),
        (&["agent", "--interval", "15"], &["--interval", "15"]),
        (&["agent", "--interval", "0s"], &["--interval"]),
        (&["agent", "--web.listen-address", "everywhere"], &["--web.listen-address", "everywhere"]),
        (&["agent", "--top-endpoints", "many"], &["--top-endpoints", "many"]),
        (&["remedy", "nonsense"], &["nonsense"]),
    ] {
        refused(&mut checks, &arguments.join(" "), &run(arguments), USAGE, names);
    }
    // Without arguments it prints its usage.
    let alone = run::<&str>(&[]);
    checks.equal("no arguments", alone.code(), USAGE);
    checks.that(alone.stderr.contains("audit"), || format!("{alone:?}"));
    checks.finish();
}

#[test]
fn wrong_configuration_is_refused_by_file_line_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut checks = Checks::default();
    // The file, the wrong line, and the names that the error must contain.
    for (case, text, line, names) in [
        ("an unknown key", "idle_timeout: 350s\nidle_timeuot: 350s\n", 2, &["idle_timeuot"][..]),
        ("an unknown key of a path", "paths:\n  - name: nlb\n    cidr: [10.0.0.0/8]\n", 3, &["cidr"]),
        ("an unknown key of web", "web:\n  listen_adress: 0.0.0.0:1\n", 2, &["listen_adress"]),
        ("a bad CIDR", "paths:\n  - name: nlb\n    cidrs: [10.0.0.0/8, 10.0.0.0/33]\n", 3, &["10.0.0.0/33"]),
        ("a duration without unit", "long_lived: 5m\nidle_timeout: 350\n", 2, &["idle_timeout", "350"]),
        ("a path's duration without unit", "paths:\n  - name: nlb\n    idle_timeout: 350\n", 3, &["350"]),
        ("a port that is none", "paths:\n  - name: nlb\n    ports: [443, 70000]\n", 3, &["70000"]),
        ("a port range upside down", "paths:\n  - name: nlb\n    ports: [\"9000-8000\"]\n", 3, &["9000-8000"]),
        ("an unknown profile", "paths:\n  - name: nlb\n    profile: aws-nbl\n", 3, &["aws-nbl"]),
        ("an unknown scope", "local_scope: galaxy\n", 1, &["galaxy"]),
        ("a key twice", "idle_timeout: 350s\nlong_lived: 1m\nidle_timeout: 4s\n", 3, &["idle_timeout"]),
        ("no YAML", "idle_timeout: 350s\npaths: [\n", 2, &[]),
        ("a list", "- idle_timeout\n", 1, &[]),
        ("a bad glob", "ignore:\n  - namespace: \"kube-[\"\n", 2, &["kube-["]),
    ] {
        let file = folder.path().join("config.yaml");
        fs::write(&file, text).expect("the file is written");
        let path = file.to_str().expect("a path in UTF-8");
        let line = line.to_string();
        for subcommand in ["audit", "agent"] {
            let mut child = command(&[subcommand, "--config", path]);
            // An agent that accepts the file must not keep running.
            if subcommand == "agent" {
                child.args(["--web.listen-address", "256.0.0.1:1"]);
            }
            let outcome = finish(&mut child);
            let case = format!("{case} ({subcommand})");
            if subcommand == "audit" {
                refused(&mut checks, &case, &outcome, USAGE, &[&["config.yaml", &*line], names].concat());
            } else {
                checks.equal(&case, outcome.code(), USAGE);
            }
        }
    }
    let missing = folder.path().join("missing.yaml");
    let outcome = run(&["audit", "--config", missing.to_str().expect("a path in UTF-8")]);
    refused(&mut checks, "no such file", &outcome, USAGE, &["missing.yaml"]);

    let mut child = command(&["audit"]);
    child.env("KEEPALIVE_AUDITOR_IDLE_TIMEOUT", "350");
    refused(&mut checks, "a duration without unit in the environment", &finish(&mut child), USAGE, &["350"]);

    for (case, text) in [("empty", ""), ("only comments", "# nothing\n"), ("whole", WHOLE)] {
        let file = folder.path().join("config.yaml");
        fs::write(&file, text).expect("the file is written");
        let outcome = run(&["audit", "--config", file.to_str().expect("a path in UTF-8")]);
        checks.that(outcome.code() == 0, || format!("{case}: {outcome:?}"));
    }
    checks.finish();
}

/// Every key of the contract, as its own page writes them.
const WHOLE: &str = r#"
idle_timeout: 350s
long_lived: 5m
local_scope: node
path: { procfs: /proc }
log: { level: info, format: text }
interval: 15s
top_endpoints: 10
max_findings: 10000
netns_dir: [/run/netns]
web: { listen_address: "0.0.0.0:9986" }
paths:
  - name: nlb
    cidrs: [10.20.0.0/16, "2001:db8::/32"]
    ports: [443, "8000-8999"]
    profile: aws-nlb
  - { name: slow, cidrs: [10.30.0.0/16], profile: azure-lb, idle_timeout: 500s }
ignore:
  - { namespace: kube-system, pod: "node-local-dns-*", container: "*" }
"#;

#[test]
fn a_recording_that_is_cut_or_foreign_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = recording(folder.path());
    let mut checks = Checks::default();
    let mut replay = |case: &str, bytes: &[u8], fails: bool| {
        let file = folder.path().join("recording.jsonl");
        fs::write(&file, bytes).expect("the file is written");
        let outcome = run(&["audit", "--all", "--format", "json", "--replay", file.to_str().expect("a path in UTF-8")]);
        if fails {
            refused(&mut checks, case, &outcome, FAILED, &["recording.jsonl"]);
        } else {
            checks.that(outcome.code() == 0, || format!("{case}: {outcome:?}"));
        }
    };
    replay("whole", &whole, false);
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    assert!(ends.len() >= 4, "a recording of {} lines", ends.len());
    // Cut between two lines, and in the middle of one.
    for (at, end) in ends.iter().enumerate().take(ends.len() - 1).step_by(ends.len() / 16 + 1) {
        replay(&format!("cut after line {}", at + 1), &whole[..*end], true);
        replay(&format!("cut in line {}", at + 2), &whole[..usize::midpoint(*end, ends[at + 1])], true);
    }
    replay("empty", b"", true);
    replay("a text", b"This is not a recording.\n", true);
    replay("other JSON", b"{\"hello\": \"world\"}\n", true);
    replay("a report", b"{\"schema\": 1, \"connections\": []}\n", true);
    replay("binary", &(0..=255).cycle().take(70_000).collect::<Vec<u8>>(), true);
    let header = &whole[..ends[0]];
    replay("two recordings", &[&whole[..], &whole[..]].concat(), true);
    replay("headless", &whole[ends[0]..], true);
    let newer = String::from_utf8_lossy(header).replace("\"version\":1", "\"version\":99");
    assert_ne!(newer.as_bytes(), header, "the header holds its version");
    replay("of a later version", &[newer.as_bytes(), &whole[ends[0]..]].concat(), true);
    let big = String::from_utf8_lossy(header).replace("\"little\"", "\"big\"");
    if big.as_bytes() != header {
        replay("of the other byte order", &[big.as_bytes(), &whole[ends[0]..]].concat(), true);
    }
    let missing = run(&["audit", "--replay", "missing/sweep.jsonl"]);
    refused(&mut checks, "no such file", &missing, FAILED, &["missing/sweep.jsonl"]);
    let nowhere = folder.path().join("missing/sweep.jsonl");
    let nowhere = nowhere.to_str().expect("a path in UTF-8");
    refused(&mut checks, "nowhere to record", &run(&["audit", "--record", nowhere]), FAILED, &[nowhere]);
    checks.finish();
}

/// The binary as a user without privileges, whoever runs the test.
fn as_nobody(arguments: &[&str]) -> Outcome {
    let binary = command(arguments);
    if !rustix::process::geteuid().is_root() {
        return finish(&mut command(arguments));
    }
    let mut nobody = std::process::Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all", "--"]);
    finish(nobody.arg(binary.get_program()).args(binary.get_args()))
}

#[test]
fn fail_on_never_succeeds_if_something_was_not_read() {
    let mut checks = Checks::default();
    // no connection has this port, so that nothing is found
    let strict = ["audit", "--fail-on", "exposed", "sport = :1"];
    // an ordinary user cannot read the namespaces of other users' processes, process 1 among them
    let nobody = as_nobody(&strict);
    checks.equal("nobody", nobody.code(), FAILED);
    for name in ["--fail-on exposed", "--allow-incomplete", "CAP_SYS_ADMIN"] {
        checks.that(nobody.stderr.contains(name), || format!("stderr does not name {name}: {}", nobody.stderr));
    }
    let accepted = as_nobody(&["audit", "--fail-on", "exposed", "--allow-incomplete", "sport = :1"]);
    checks.equal("nobody, accepted", accepted.code(), 0);
    let without = as_nobody(&["audit", "sport = :1"]);
    checks.equal("nobody, without --fail-on", without.code(), 0);
    for fail_on in ["exposed", "overdue"] {
        let nowhere = run(&["audit", "--fail-on", fail_on, "--path.procfs", "/nope", "sport = :1"]);
        checks.equal("no procfs", nowhere.code(), FAILED);
        checks.that(nowhere.stderr.contains("/nope"), || format!("no procfs: {}", nowhere.stderr));
    }
    checks.finish();
}

#[test]
fn a_named_object_must_exist() {
    let mut checks = Checks::default();
    for (arguments, names) in [
        (&["--pod", "no-such"][..], &["no connection matches --pod no-such (", " seen)"][..]),
        (&["--pod", "no-such", "--fail-on", "exposed"], &["no connection matches --pod no-such (", " seen)"]),
        (&["--namespace", "no-such"], &["no connection matches --namespace no-such ("]),
        (&["--owner", "no-such"], &["no connection matches --owner no-such ("]),
        (&["--pid", "4194999"], &["--pid 4194999", "no process 4194999"]),
        (&["--netns", "no-such"], &["--netns no-such", "/run/netns/no-such"]),
        (&["--netns", "/dev/null"], &["--netns /dev/null", "not a network namespace"]),
        (&["--compare", "/nope"], &["/nope", "no such file"]),
    ] {
        for outcome in [run(&[&["audit"], arguments].concat()), as_nobody(&[&["audit"], arguments].concat())] {
            refused(&mut checks, &format!("{arguments:?}"), &outcome, FAILED, names);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    recording(folder.path());
    let file = folder.path().join("whole.jsonl");
    let replayed = run(&["audit", "--pod", "no-such", "--replay", file.to_str().expect("a path in UTF-8")]);
    refused(&mut checks, "a replay", &replayed, FAILED, &["no connection matches --pod no-such ("]);
    checks.finish();
}

#[test]
fn a_recording_is_private_and_replaces_a_file_only_when_forced() {
    let folder = tempfile::tempdir().expect("a folder");
    recording(folder.path());
    let path = folder.path().join("whole.jsonl");
    let file = path.to_str().expect("a path in UTF-8");
    let mode =
        |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("a file").permissions());
    assert_eq!(mode(&path) & 0o777, 0o600);
    let before = fs::read(&path).expect("a recording");
    let mut checks = Checks::default();
    refused(&mut checks, "again", &run(&["audit", "--record", file]), FAILED, &[file, "--force"]);
    assert_eq!(fs::read(&path).expect("a recording"), before);
    assert_eq!(run(&["audit", "--record", file, "--force"]).code(), 0);
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let linked = link.to_str().expect("a path in UTF-8");
    refused(&mut checks, "a link", &run(&["audit", "--record", linked, "--force"]), FAILED, &["not a regular file"]);
    refused(&mut checks, "alone", &run(&["audit", "--force"]), USAGE, &["--record"]);
    checks.finish();
}

#[test]
fn profiles_list_the_middleboxes_and_their_timeouts() {
    let outcome = run(&["profiles"]);
    let mut checks = Checks::default();
    checks.equal("profiles", outcome.code(), 0);
    for (name, timeout) in [
        ("aws-nlb", "350"),
        ("aws-nat-gateway", "350"),
        ("azure-lb", "240"),
        ("gcp-vpc", "600"),
        ("kube-proxy-ipvs", "900"),
        ("octavia", "50"),
        ("cisco-asa", "3600"),
    ] {
        let line = outcome.stdout.lines().find(|line| line.split_whitespace().next() == Some(name));
        checks.that(line.is_some(), || format!("{name} ({timeout} s) is not listed"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("whole.jsonl");
    recording(folder.path());
    for name in
        outcome.stdout.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.contains('-'))
    {
        if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            let path = file.to_str().expect("a path in UTF-8");
            let taken = run(&["audit", "--profile", name, "--replay", path]);
            checks.that(taken.code() == 0, || format!("--profile {name}, which is listed: {taken:?}"));
        }
    }
    checks.finish();
}

#[test]
fn remedies_are_printed_for_every_target() {
    let mut checks = Checks::default();
    for target in [
        "istio-destination-rule",
        "istio-mesh",
        "istio-gateway",
        "istio-sidecar-inbound",
        "envoy-listener",
        "envoy-cluster",
        "gloo-gateway",
        "gloo-upstream",
        "kgateway",
        "envoy-gateway",
        "nginx",
        "haproxy",
        "pod-sysctl",
        "go",
        "java",
        "python",
        "node",
        "rust",
        "libpq",
    ] {
        let outcome = run(&["remedy", target]);
        checks
            .that(outcome.code() == 0 && !outcome.stdout.trim().is_empty(), || format!("remedy {target}: {outcome:?}"));
    }
    let unknown = run(&["remedy", "nonsense"]);
    let helps = unknown.stderr.contains("--list");
    checks.that(helps, || format!("the error does not name --list: {}", unknown.stderr));
    let list = run(&["remedy", "--list"]);
    checks.that(list.code() == 0 && list.stdout.contains("nginx"), || format!("remedy --list: {list:?}"));
    checks.finish();
}

#[test]
fn data_goes_to_stdout_and_logs_to_stderr() {
    let mut checks = Checks::default();
    let outcome = run(&["audit", "--all", "--format", "json", "--log.level", "debug", "--log.format", "json"]);
    checks.equal("exit status", outcome.code(), 0);
    let report: Result<serde_json::Value, _> = serde_json::from_str(&outcome.stdout);
    checks.that(report.is_ok(), || format!("stdout is no report: {}", outcome.stdout));
    checks.that(!outcome.stderr.is_empty(), || "the debug level logs nothing".to_owned());
    for line in outcome.stderr.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        checks.that(parsed.is_ok(), || format!("a log line that is not JSON: {line}"));
    }
    let lines = run(&["audit", "--all", "--format", "jsonl"]);
    for line in lines.stdout.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        checks.that(parsed.is_ok(), || format!("a line that is not JSON: {line}"));
    }
    checks.finish();
}

#[test]
fn a_closed_pipe_is_not_a_panic() {
    for arguments in
        [&["audit", "--all", "--format", "json"][..], &["audit", "--all"], &["profiles"], &["remedy", "nginx"]]
    {
        let mut child =
            command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("our child ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn watching_ends_when_nobody_reads_any_more() {
    let mut child = command(&["audit", "--watch", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    out.read_line(&mut String::new()).expect("a line");
    drop(out);
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break Some(status);
        }
        if Instant::now() > end {
            break None;
        }
        sleep(Duration::from_millis(20));
    };
    if status.is_none() {
        child.kill().expect("our child");
        child.wait().expect("our child");
    }
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
