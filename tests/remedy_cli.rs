//! `keepalive-auditor remedy` and `profiles` in a shell: stdout, stderr and the exit status.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keepalive-auditor")).args(arguments).env_clear().output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("is text")
}

#[test]
fn stdout_is_the_configuration_alone_and_hints_are_on_stderr() {
    let output = run(&["remedy", "envoy-cluster", "--idle", "300s", "--interval", "20", "--probes", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: serde_json::Value = serde_saphyr::from_str(&stdout(&output)).expect("is YAML");
    assert_eq!(found["upstream_connection_options"]["tcp_keepalive"]["keepalive_interval"], 20);
    assert!(stderr(&output).contains("Merge into the Cluster."), "{}", stderr(&output));
}

#[test]
fn values_that_cannot_protect_end_with_2_and_print_nothing() {
    for (target, idle) in [("gloo-mesh", "700s"), ("pod-sysctl", "7200s"), ("go", "2h"), ("python", "340s")] {
        let output = run(&["remedy", target, "--idle", idle]);
        assert_eq!(output.status.code(), Some(2), "{target}");
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains("cannot protect"), "{}", stderr(&output));
    }
    assert_eq!(run(&["remedy", "gloo-mesh", "--idle", "700s", "--idle-timeout", "15m"]).status.code(), Some(0));
}

#[test]
fn the_path_decides_the_derived_times() {
    let idle = |flags: &[&str]| {
        let output = run(&[&["remedy", "redis"], flags].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).lines().last().expect("has lines").to_owned()
    };
    assert_eq!(idle(&[]), "tcp-keepalive 175");
    assert_eq!(idle(&["--profile", "azure-lb"]), "tcp-keepalive 120");
    assert_eq!(idle(&["--idle-timeout", "50s"]), "tcp-keepalive 25");
}

#[test]
fn a_layer_7_timeout_is_refused_because_no_keepalive_helps() {
    let output = run(&["remedy", "go", "--profile", "aws-alb"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    assert!(stderr(&output).contains("aws-alb"), "{}", stderr(&output));
    assert!(stderr(&output).contains("payload"), "{}", stderr(&output));
}

#[test]
fn an_unknown_target_or_none_ends_with_2() {
    let unknown = run(&["remedy", "apache"]);
    assert_eq!((unknown.status.code(), stdout(&unknown).as_str()), (Some(2), ""));
    assert!(stderr(&unknown).contains("keepalive-auditor remedy --list"), "{}", stderr(&unknown));
    assert_eq!(run(&["remedy"]).status.code(), Some(2));
}

#[test]
fn the_lists_go_to_stdout() {
    let list = run(&["remedy", "--list"]);
    assert_eq!(list.status.code(), Some(0));
    assert!(stdout(&list).contains("\nistio-destination-rule\n"), "{}", stdout(&list));
    let profiles = run(&["profiles"]);
    assert!(stdout(&profiles).contains("\naws-nlb "), "{}", stdout(&profiles));
}

fn recording(case: &str) -> String {
    format!("{}/tests/sweeps/{case}/sweep.jsonl", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn an_explanation_has_a_json_form() {
    let output = run(&[
        "audit",
        "--replay",
        &recording("keepalive-off"),
        "--long-lived",
        "1ms",
        "--explain",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one document");
    let group = &document["groups"][0];
    assert_eq!((&document["flagged"], &group["cause"]), (&1.into(), &"keepalive_off".into()), "{document}");
    assert!(group["remedies_in_code"].as_array().is_some_and(|remedies| !remedies.is_empty()), "{document}");
}

#[test]
fn a_comparison_ends_with_3_where_a_change_did_not_take_effect_in_either_form() {
    for (before, after, status, took_effect) in [
        ("keepalive-off", "keepidle-60s", 0, Some(true)),
        ("keepalive-off", "keepalive-default", 3, Some(false)),
        // no connection is new: nothing shows whether the change works
        ("keepalive-off", "keepalive-off", 0, None),
        ("keepidle-60s", "keepidle-60s", 0, None),
    ] {
        let (before, after) = (recording(before), recording(after));
        let compare = ["audit", "--replay", &after, "--compare", &before];
        let output = run(&[&compare[..], &["--format", "json"]].concat());
        assert_eq!(output.status.code(), Some(status), "{before} {after}: {}", stderr(&output));
        let document: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one document");
        assert_eq!(document["took_effect"], serde_json::json!(took_effect), "{before} {after}: {document}");
        let output = run(&compare);
        assert_eq!(output.status.code(), Some(status), "{before} {after}: {}", stderr(&output));
    }
}
