//! The kubectl plugin chooses the right agents, queries them all, and merges their answers. In these tests kubectl is a
//! script: it answers as the API server of three nodes, and runs the program on recordings instead of the agents.

use super::path;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use tempfile::TempDir;

const KUBECTL: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"$CALLS"
case "$*" in
    *"get pod cart-0"*) printf node-b ;;
    *"get pods"*"spec.nodeName=node-none"*) ;;
    *"get pods"*"spec.nodeName=node-b"*) echo node-b agent-b ;;
    *"get pods"*) printf '%s\n' "node-a agent-a" "node-b agent-b" "node-c agent-c" ;;
    *" exec "*" merge "*)
        while [[ $1 != /keepalive-auditor ]]; do shift; done
        exec "$AUDITOR" "${@:2}" ;;
    *" exec "*"agent-${BROKEN:-none}"*) echo "the container is gone" >&2; exit 137 ;;
    *" exec "*)
        case "$*" in *agent-a*) of=a ;; *agent-b*) of=b ;; *) of=c ;; esac
        recording=$(mktemp "$CALLS.XXXXXX")
        sed "1s/\"node-1\"/\"node-$of\"/" "$SWEEPS/pods/sweep.jsonl" >"$recording"
        case "$*" in *" --record -"*) exec cat "$recording" ;; esac
        while [[ $1 != /keepalive-auditor ]]; do shift; done
        exec "$AUDITOR" "${@:2}" --replay "$recording" ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"#;

struct Cluster(TempDir);

impl Cluster {
    fn new() -> Self {
        let cluster = Self(tempfile::tempdir().unwrap());
        let kubectl = cluster.0.path().join("kubectl");
        std::fs::write(&kubectl, KUBECTL).unwrap();
        std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
        cluster
    }

    fn run(&self, broken: &str, arguments: &[&str]) -> Output {
        let system = std::env::var("PATH").unwrap();
        Command::new(path("deploy/kubectl-keepalive_auditor"))
            .args(arguments)
            .env("PATH", format!("{}:{system}", self.0.path().display()))
            .env("CALLS", self.0.path().join("calls"))
            .env("AUDITOR", env!("CARGO_BIN_EXE_keepalive-auditor"))
            .env("SWEEPS", path("tests/sweeps"))
            .env("BROKEN", broken)
            .env("KEEPALIVE_AUDITOR_LONG_LIVED", "1s")
            .output()
            .unwrap()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.0.path().join("calls")).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_agent_is_asked_and_the_answers_are_one_table() {
    let cluster = Cluster::new();
    let output = cluster.run("", &["audit", "--all-nodes", "--parallel", "2"]);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(table.lines().next().unwrap().contains("on 3 nodes"), "{table}");
    let row = table.lines().find(|line| line.contains("shop/cart")).unwrap();
    assert_eq!(row.split_whitespace().nth(2), Some("3"), "three nodes hold the workload: {row}");
    for agent in ["agent-a", "agent-b", "agent-c"] {
        assert!(cluster.calls().contains(agent), "{agent} was not asked");
    }
}

#[test]
fn a_node_and_a_pod_lead_to_the_agent_of_that_node() {
    let cluster = Cluster::new();
    let output = cluster.run("", &["audit", "--node", "node-b", "--all"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = cluster.run("", &["audit", "--pod=shop/cart-0"]);
    let calls = cluster.calls();
    assert!(!calls.contains("agent-a") && !calls.contains("agent-c"), "{calls}");
    assert!(calls.contains("audit --namespace shop --pod cart-0"), "{calls}");
    // the recording has no such pod, and the program says so
    assert!(output.status.code().is_some_and(|code| code <= 1), "{}", text(&output.stderr));
}

#[test]
fn a_failed_agent_is_named_and_the_others_are_shown() {
    let output = Cluster::new().run("b", &["audit", "--all-nodes", "--explain"]);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("node-b: the container is gone") && errors.contains("node-b ended with 137"), "{errors}");
    assert!(table.contains("on 2 nodes"), "{table}");
}

#[test]
fn fail_on_passes_through() {
    let output = Cluster::new().run("", &["audit", "--all-nodes", "--fail-on", "exposed"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn a_change_is_recorded_and_compared_through_the_agents() {
    let cluster = Cluster::new();
    let before = cluster.0.path().join("before");
    let before = before.to_str().unwrap();
    for (scope, file) in [(&["--node", "node-b"][..], "before"), (&["--all-nodes"], "before/node-c.jsonl")] {
        let output = cluster.run("", &[&["audit", "--record", before], scope].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let recording = cluster.0.path().join(file);
        assert!(std::fs::read_to_string(&recording).unwrap().starts_with("{\"header\""), "{file}");
        assert_eq!(std::fs::metadata(&recording).unwrap().permissions().mode() & 0o77, 0, "others cannot read it");
        let again = cluster.run("", &[&["audit", "--record", before], scope].concat());
        assert_eq!(again.status.code(), Some(1), "a recording is never overwritten");

        let output = cluster.run("", &[&["audit", "--compare", before], scope].concat());
        // the fake agents replay the same recording, so nothing was opened since
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("no connection was opened since"), "{}", text(&output.stdout));
        if file == "before" {
            std::fs::remove_file(&recording).unwrap();
        }
    }
    assert!(text(&cluster.run("", &["audit", "--all-nodes", "--compare", before]).stdout).contains("== node-a"));
    let never = cluster.0.path().join("never");
    let broken = cluster.run("b", &["audit", "--node", "node-b", "--record", never.to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(137));
    assert!(!never.exists() && !never.with_extension("part").exists());
}

#[test]
fn wrong_usage_is_an_error() {
    for (arguments, said) in [
        (&["audit"][..], "one of --node, --pod and --all-nodes"),
        (&["audit", "--node", "a", "--all-nodes"], "one of --node, --pod and --all-nodes"),
        (&["audit", "--pod", "cart-0"], "is not NAMESPACE/NAME"),
        (&["audit", "--all-nodes", "--parallel", "0"], "is not a number"),
        (&["audit", "--all-nodes", "--format=wide"], "does not go with --all-nodes"),
        (&["audit", "--node", "a", "--record", "x", "--compare", "/dev/null"], "do not go together"),
        (&["inspect"], "no command `inspect`"),
    ] {
        let output = Cluster::new().run("", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
    let output = Cluster::new().run("", &["audit", "--node", "node-none"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no agent runs on the node node-none"), "{}", text(&output.stderr));
}
