//! Tables of several reports.

use super::*;
use serde_json::{Value, json};

fn report(node: &str, connections: &[Value]) -> Value {
    let count = |verdict: &str| connections.iter().filter(|connection| connection["verdict"] == verdict).count();
    json!({
        "schema": 1, "node": node, "version": "0.1.0",
        "sweep": { "connections": connections.len() + 2, "incomplete": node == "n3" },
        "verdicts": { "overdue": count("overdue"), "exposed": count("exposed"), "protected": 2 },
        "truncated": 0,
        "connections": connections,
    })
}

fn connection(pod: &str, verdict: &str, idle: f64) -> Value {
    json!({
        "owner": { "kind": "pod", "namespace": "shop", "pod": pod, "container": "app" },
        "direction": "outbound", "endpoint": "10.20.0.7:443", "keepalive": "off",
        "path": "nlb", "idle_timeout_seconds": 350.0, "wire_idle_seconds": idle,
        "verdict": verdict, "why": format!("idle for {idle} s"),
        "process": { "pid": 1, "comm": "java", "program": "cart.jar" },
    })
}

fn merged(reports: &[Value]) -> Merged {
    let mut merged = Merged::default();
    let text: String = reports.iter().map(ToString::to_string).collect();
    assert_eq!(merged.read(text.as_bytes()).expect("reports"), reports.len());
    merged
}

#[test]
fn pods_of_one_workload_on_several_nodes_are_one_row() {
    let merged = merged(&[
        report("n1", &[connection("cart-7d4b9c6f5-x2k8p", "exposed", 12.0), connection("web-n1", "overdue", 400.0)]),
        report("n2", &[connection("cart-7d4b9c6f5-zz5wq", "exposed", 200.0)]),
        report("n3", &[connection("cart-7d4b9c6f5-bbbbb", "exposed", 7.0)]),
    ]);
    let table = merged.table(true);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "4 of 10 connections on 3 nodes are flagged: 1 overdue, 3 exposed; not flagged: 6 protected",
            "incomplete, because something could not be read there: n3",
            "",
            "VERDICT  CONNS  NODES  WHO                       ENDPOINT         KEEPALIVE  IDLE   LIMIT  PATH",
            "overdue  1      n1     shop/web (app) cart.jar   → 10.20.0.7:443  off        6m40s  350s   nlb",
            "    idle for 400 s",
            "exposed  3      3      shop/cart (app) cart.jar  → 10.20.0.7:443  off        3m20s  350s   nlb",
            "    idle for 200 s",
        ]
    );
    assert_eq!(merged.table(false).lines().count(), lines.len() - 2);
}

#[test]
fn what_a_node_says_cannot_forge_a_line() {
    let bad = "a\u{1b}[2J\noverdue  9\u{202e}";
    let mut forged = connection("cart-0", "exposed", 1.0);
    for field in ["verdict", "direction", "endpoint", "keepalive", "path", "why", "cause"] {
        forged[field] = json!(bad);
    }
    forged["remedies"] = json!([bad]);
    forged["owner"] = json!({ "namespace": bad, "pod": bad, "container": bad });
    forged["process"] = json!({ "comm": bad, "program": bad });
    let mut forged = report(bad, &[forged]);
    forged["sweep"]["incomplete"] = json!(true);
    let table = merged(&[forged]).table(true);
    assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table}");
    assert_eq!(table.lines().count(), 7, "{table}");
}

#[test]
fn what_is_no_report_is_refused() {
    let refused = |text: &str| Merged::default().read(text.as_bytes()).expect_err("it is no report").to_string();
    assert!(refused("{}").contains("not a report in JSON"));
    assert!(refused("VERDICT").contains("not a report in JSON"));
    let mut other = report("n9", &[]);
    other["schema"] = json!(2);
    assert!(refused(&other.to_string()).contains("the report of n9 has schema 2"));
    assert_eq!(Merged::default().read(&b""[..]).expect("nothing"), 0);
}
