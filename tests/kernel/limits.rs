//! Limits that are read from the node: those of conntrack, in the namespace of a connection.

use serde_json::{Value, json};

use crate::hosts::{Case, Hosts, exchange_all};
use crate::support::binary::run;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::socket::Keepalive;

const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// The JSON of one audit.
fn audit(more: &[&str]) -> Value {
    let audit = run(&[&["audit", "--all", "--format", "json", "--local-scope", "namespace"], more].concat());
    serde_json::from_str(&audit.stdout).expect("it is JSON")
}

/// Path, limit and verdict of each connection of this machine.
fn rows(report: &Value, cases: &[Case]) -> Vec<Value> {
    let rows = report["connections"].as_array().expect("a list");
    let is_ours = |row: &&Value| {
        let cookie = row["cookie"].as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
        cases.iter().any(|case| Some(case.near.id.cookie) == cookie)
    };
    let of = |row: &Value| json!([row["path"], row["idle_timeout_seconds"]]);
    rows.iter().filter(is_ours).map(of).collect()
}

kernel_test!(
    the_conntrack_of_a_namespace_shortens_the_default_and_never_what_is_configured,
    || {
        let hosts = Hosts::new();
        let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
        let mut checks = Checks::default();
        hosts.near.sysctl(ESTABLISHED, "60");
        exchange_all(&mut cases);
        // the module is loaded, but nothing makes it follow connections
        checks.equal("unused", rows(&audit(&[]), &cases), vec![json!(["default", 350.0]); 4]);

        hosts.near.run("nft", &["add table inet nat"]);
        hosts.near.run("nft", &["add chain inet nat out { type filter hook output priority 0; }"]);
        hosts.near.run("nft", &["add rule inet nat out ct state established accept"]);
        exchange_all(&mut cases);
        let report = audit(&[]);
        checks.equal("read", rows(&report, &cases), vec![json!(["conntrack", 60.0]); 4]);
        let paths: Vec<_> = report["paths"].as_array().expect("a list").iter().map(|path| &path["source"]).collect();
        checks.equal("sources", paths, vec![&json!("default"), &json!("read_from_node")]);
        let table = run(&["audit"]).stdout;
        let limits = "limits: default 350s (a guess: nothing is configured), conntrack 60s (read from the node)";
        checks.that(table.contains(limits), || table.clone());

        let report = audit(&["--idle-timeout", "240s"]);
        checks.equal("configured", rows(&report, &cases), vec![json!(["default", 240.0]); 4]);
        let note = report["notes"][0].as_str().unwrap_or_default();
        checks.that(note.contains("drops idle connections after 60s") && note.contains("240s"), || note.to_owned());
        let report = audit(&["--profile", "azure-lb"]);
        checks.equal("profile", rows(&report, &cases), vec![json!(["default", 240.0]); 4]);
        let report = audit(&["--limits.from-node", "false"]);
        checks.equal("not used", rows(&report, &cases), vec![json!(["default", 350.0]); 4]);

        // the kernel's default must not loosen the guess
        hosts.near.sysctl(ESTABLISHED, "432000");
        let report = audit(&[]);
        checks.equal("longer", rows(&report, &cases), vec![json!(["default", 350.0]); 4]);
        let read = &report["node_limits"]["shortest_conntrack_elsewhere_seconds"];
        checks.equal("it is shown", read, &json!(432_000.0));
        checks.finish();
    },
    needs "nft"
);
