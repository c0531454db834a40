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

#[test]
fn prose_does_not_go_with_json() {
    for flags in [&["--explain"][..], &["--compare", "before.jsonl"][..]] {
        let output = run(&[&["audit", "--format", "json"], flags].concat());
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains(flags[0]), "{}", stderr(&output));
    }
}
