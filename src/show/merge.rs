//! The reports of several nodes as one table: connections that differ only in node, pod and port are one row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;

use serde::Deserialize;

use super::units::Human;
use super::workload;
use crate::judge::report::Millis;
use crate::judge::verdict::Verdict;

/// The rows that are shown; the rest is counted.
const MAX_ROWS: usize = 1000;

/// What a merge reads of a report in JSON, schema 1. Everything that a report may lack is optional.
#[derive(Debug, Deserialize)]
struct Document {
    schema: u32,
    node: String,
    sweep: Sweep,
    verdicts: BTreeMap<String, u64>,
    #[serde(default)]
    truncated: u64,
    connections: Vec<Connection>,
}

#[derive(Debug, Deserialize)]
struct Sweep {
    connections: u64,
    #[serde(default)]
    incomplete: bool,
}

#[derive(Debug, Deserialize)]
struct Connection {
    verdict: String,
    owner: Owner,
    direction: String,
    endpoint: String,
    keepalive: String,
    path: String,
    idle_timeout_seconds: f64,
    wire_idle_seconds: Option<f64>,
    process: Option<Process>,
    cause: Option<String>,
    #[serde(default)]
    remedies: Option<Vec<String>>,
    #[serde(default)]
    why: String,
}

#[derive(Debug, Deserialize)]
struct Owner {
    namespace: Option<String>,
    pod: Option<String>,
    container: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Process {
    comm: Option<String>,
}

/// What the connections of one row have in common.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The position in [`Verdict::ALL`], worst first.
    rank: usize,
    verdict: String,
    who: String,
    direction: String,
    endpoint: String,
    keepalive: String,
    path: String,
    limit: String,
    cause: Option<String>,
}

#[derive(Debug, Default)]
struct Row {
    connections: u64,
    nodes: BTreeSet<String>,
    /// Seconds.
    idle: Option<f64>,
    remedies: Vec<String>,
    /// The sentence about the connection that was idle the longest.
    why: String,
}

/// Why reports cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// What was read is not JSON, or not a report.
    #[error("not a report in JSON; `audit --format json` writes them")]
    NotAReport,
    /// The file cannot be read.
    #[error(transparent)]
    Io(std::io::Error),
    /// A report of another program version.
    #[error("the report of {node} has schema {schema}, and this version reads schema 1")]
    Schema {
        /// The node of the report.
        node: String,
        /// Its schema.
        schema: u32,
    },
}

/// Reports that were read, as one.
#[derive(Debug, Default)]
pub struct Merged {
    rows: BTreeMap<Key, Row>,
    nodes: BTreeSet<String>,
    incomplete: BTreeSet<String>,
    verdicts: BTreeMap<String, u64>,
    connections: u64,
    truncated: u64,
}

impl Merged {
    /// Adds every report of a file: one JSON document, or several after each other. Returns how many there were.
    pub fn read(&mut self, from: impl Read) -> Result<usize, MergeError> {
        let mut reports = 0;
        for document in serde_json::Deserializer::from_reader(from).into_iter::<Document>() {
            let document = document.map_err(|error| match error.io_error_kind() {
                Some(_) => MergeError::Io(error.into()),
                None => MergeError::NotAReport,
            })?;
            if document.schema != super::json::SCHEMA {
                return Err(MergeError::Schema { node: document.node, schema: document.schema });
            }
            self.add(document);
            reports += 1;
        }
        Ok(reports)
    }

    fn add(&mut self, document: Document) {
        let Document { node, sweep, verdicts, truncated, connections, .. } = document;
        self.connections += sweep.connections;
        self.truncated += truncated;
        for (verdict, count) in verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
        for connection in connections {
            let key = key(&connection, &node);
            let row = self.rows.entry(key).or_default();
            row.connections += 1;
            row.nodes.insert(node.clone());
            if row.connections == 1 || connection.wire_idle_seconds > row.idle {
                row.idle = connection.wire_idle_seconds;
                row.why = connection.why;
                row.remedies = connection.remedies.unwrap_or_default();
            }
        }
        if sweep.incomplete {
            self.incomplete.insert(node.clone());
        }
        self.nodes.insert(node);
    }

    /// The table, worst rows first, after one line of counts. With `explain` each row is followed by the reason and the
    /// remedies.
    #[must_use]
    pub fn table(&self, explain: bool) -> String {
        let mut text = self.summary();
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(key, row)| (key.rank, std::cmp::Reverse(row.connections)));
        let lines: Vec<_> = rows.iter().take(MAX_ROWS).map(|(key, row)| cells(key, row)).collect();
        if lines.is_empty() {
            return text;
        }
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|column| {
                lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0).max(HEAD[column].len())
            })
            .collect();
        text.push('\n');
        line(&mut text, &HEAD.map(str::to_owned), &widths);
        for ((_, row), cells) in rows.iter().zip(&lines) {
            line(&mut text, cells, &widths);
            if explain {
                let _ = writeln!(text, "    {}", row.why);
                if !row.remedies.is_empty() {
                    let _ = writeln!(text, "    remedies: {}", row.remedies.join(", "));
                }
            }
        }
        if rows.len() > lines.len() {
            let _ = writeln!(text, "… {} more rows", rows.len() - lines.len());
        }
        text
    }

    /// `4 of 6 connections on 3 nodes are flagged: 1 overdue, 3 exposed; not flagged: 2 protected`
    fn summary(&self) -> String {
        let list = |flagged: bool| {
            let counted = Verdict::ALL.into_iter().filter(|verdict| verdict.flagged() == flagged);
            let counts = counted.filter_map(|verdict| self.verdicts.get(verdict.name()).map(|count| (verdict, *count)));
            counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
        };
        let join = |counts: &[(Verdict, u64)]| {
            counts.iter().map(|(verdict, count)| format!("{count} {}", verdict.name())).collect::<Vec<_>>().join(", ")
        };
        let (flagged, rest) = (list(true), list(false));
        let count: u64 = flagged.iter().map(|(_, count)| count).sum();
        let plural = if self.nodes.len() == 1 { "" } else { "s" };
        let mut text =
            format!("{count} of {} connections on {} node{plural} are flagged", self.connections, self.nodes.len());
        if !flagged.is_empty() {
            let _ = write!(text, ": {}", join(&flagged));
        }
        if !rest.is_empty() {
            let _ = write!(text, "; not flagged: {}", join(&rest));
        }
        text.push('\n');
        if self.truncated > 0 {
            let _ = writeln!(
                text,
                "{} connections are counted, but not in the table: their agents left them out",
                self.truncated
            );
        }
        if !self.incomplete.is_empty() {
            let nodes: Vec<_> = self.incomplete.iter().map(String::as_str).collect();
            let _ = writeln!(text, "incomplete, because something could not be read there: {}", nodes.join(", "));
        }
        text
    }
}

const HEAD: [&str; 9] = ["VERDICT", "CONNS", "NODES", "WHO", "ENDPOINT", "KEEPALIVE", "IDLE", "LIMIT", "PATH"];

fn cells(key: &Key, row: &Row) -> [String; HEAD.len()] {
    let nodes = match row.nodes.first() {
        Some(node) if row.nodes.len() == 1 => node.clone(),
        _ => row.nodes.len().to_string(),
    };
    let arrow = if key.direction == "inbound" { '←' } else { '→' };
    [
        key.verdict.clone(),
        row.connections.to_string(),
        nodes,
        key.who.clone(),
        format!("{arrow} {}", key.endpoint),
        key.keepalive.clone(),
        row.idle.map_or_else(|| "?".to_owned(), |seconds| Human(milliseconds(seconds)).to_string()),
        key.limit.clone(),
        key.path.clone(),
    ]
}

/// Columns are aligned to the left, two blanks apart; the last one ends its line.
fn line(text: &mut String, cells: &[String; HEAD.len()], widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn key(connection: &Connection, node: &str) -> Key {
    let Connection { verdict, direction, endpoint, keepalive, path, cause, .. } = connection;
    let rank = Verdict::ALL.iter().position(|known| known.name() == verdict).unwrap_or(Verdict::COUNT);
    Key {
        rank,
        verdict: printable(verdict),
        who: printable(&who(connection, node)),
        direction: direction.clone(),
        endpoint: printable(endpoint),
        keepalive: printable(keepalive),
        path: printable(path),
        limit: format!("{}s", connection.idle_timeout_seconds),
        cause: cause.clone(),
    }
}

/// `shop/cart (app) java`: the workload for the pod, the container, and the program.
fn who(connection: &Connection, node: &str) -> String {
    let Owner { namespace, pod, container } = &connection.owner;
    let program = connection.process.as_ref().and_then(|process| process.comm.clone());
    let mut who = match (pod, namespace) {
        (Some(pod), Some(namespace)) => format!("{namespace}/{}", workload::name(pod, node)),
        (Some(pod), None) => pod.clone(),
        (None, _) => container.clone().unwrap_or_else(|| "host".to_owned()),
    };
    if let (Some(_), Some(container)) = (pod, container) {
        let _ = write!(who, " ({container})");
    }
    if let Some(program) = program.filter(|program| *program != who) {
        let _ = write!(who, " {program}");
    }
    who
}

/// Control characters, which a report may hold, do not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative or huge times become the nearest value"
)]
fn milliseconds(seconds: f64) -> Millis {
    Millis::new((seconds * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
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
            "owner": {
                "kind": "pod", "namespace": "shop", "pod": pod, "pod_uid": null,
                "container": "app", "container_id": null,
            },
            "direction": "outbound", "endpoint": "10.20.0.7:443", "keepalive": "off",
            "path": "nlb", "idle_timeout_seconds": 350.0, "wire_idle_seconds": idle,
            "verdict": verdict, "why": format!("idle for {idle} s"), "process": { "pid": 1, "comm": "java" },
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
            report(
                "n1",
                &[connection("cart-7d4b9c6f5-x2k8p", "exposed", 12.0), connection("web-n1", "overdue", 400.0)],
            ),
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
                "VERDICT  CONNS  NODES  WHO                   ENDPOINT         KEEPALIVE  IDLE   LIMIT  PATH",
                "overdue  1      n1     shop/web (app) java   → 10.20.0.7:443  off        6m40s  350s   nlb",
                "    idle for 400 s",
                "exposed  3      3      shop/cart (app) java  → 10.20.0.7:443  off        3m20s  350s   nlb",
                "    idle for 200 s",
            ]
        );
        assert_eq!(merged.table(false).lines().count(), lines.len() - 2);
    }

    #[test]
    fn what_a_node_says_cannot_forge_a_line() {
        let mut forged = connection("cart-0", "exposed", 1.0);
        forged["process"]["comm"] = json!("a\u{1b}[2J\noverdue  9");
        let table = merged(&[report("n1", &[forged])]).table(false);
        assert!(!table.contains('\u{1b}'), "{table}");
        assert_eq!(table.lines().count(), 4, "{table}");
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
}
