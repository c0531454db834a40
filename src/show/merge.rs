//! The reports of several nodes as one table: connections that differ only in node, pod and port are one row.

mod document;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;

use self::document::{Connection, Document, Owner, Text};
use super::units::Human;
use super::workload;
use crate::judge::report::Millis;
use crate::judge::verdict::Verdict;

/// The rows that are shown; the rest is counted.
const MAX_ROWS: usize = 1000;

/// What the connections of one row have in common.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The position in [`Verdict::ALL`], worst first.
    rank: usize,
    verdict: Text,
    who: String,
    direction: Text,
    endpoint: Text,
    keepalive: Text,
    path: Text,
    limit: String,
    cause: Option<Text>,
}

#[derive(Debug, Default)]
struct Row {
    connections: u64,
    nodes: BTreeSet<Text>,
    /// Seconds.
    idle: Option<f64>,
    remedies: Vec<Text>,
    /// The sentence about the connection that was idle the longest.
    why: Text,
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
    nodes: BTreeSet<Text>,
    incomplete: BTreeSet<Text>,
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
                return Err(MergeError::Schema { node: document.node.into(), schema: document.schema });
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
                    let _ = writeln!(text, "    remedies: {}", join(&row.remedies));
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
        let counts = |counts: &[(Verdict, u64)]| {
            counts.iter().map(|(verdict, count)| format!("{count} {}", verdict.name())).collect::<Vec<_>>().join(", ")
        };
        let (flagged, rest) = (list(true), list(false));
        let count: u64 = flagged.iter().map(|(_, count)| count).sum();
        let plural = if self.nodes.len() == 1 { "" } else { "s" };
        let mut text =
            format!("{count} of {} connections on {} node{plural} are flagged", self.connections, self.nodes.len());
        if !flagged.is_empty() {
            let _ = write!(text, ": {}", counts(&flagged));
        }
        if !rest.is_empty() {
            let _ = write!(text, "; not flagged: {}", counts(&rest));
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
            let _ = writeln!(text, "incomplete, because something could not be read there: {}", join(&self.incomplete));
        }
        text
    }
}

const HEAD: [&str; 9] = ["VERDICT", "CONNS", "NODES", "WHO", "ENDPOINT", "KEEPALIVE", "IDLE", "LIMIT", "PATH"];

fn join<'a>(words: impl IntoIterator<Item = &'a Text>) -> String {
    words.into_iter().map(Text::as_str).collect::<Vec<_>>().join(", ")
}

fn cells(key: &Key, row: &Row) -> [String; HEAD.len()] {
    let nodes = match row.nodes.first() {
        Some(node) if row.nodes.len() == 1 => node.to_string(),
        _ => row.nodes.len().to_string(),
    };
    let arrow = if key.direction.as_str() == "inbound" { '←' } else { '→' };
    [
        key.verdict.to_string(),
        row.connections.to_string(),
        nodes,
        key.who.clone(),
        format!("{arrow} {}", key.endpoint),
        key.keepalive.to_string(),
        row.idle.map_or_else(|| "?".to_owned(), |seconds| Human(milliseconds(seconds)).to_string()),
        key.limit.clone(),
        key.path.to_string(),
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

fn key(connection: &Connection, node: &Text) -> Key {
    let Connection { verdict, direction, endpoint, keepalive, path, cause, .. } = connection;
    let rank = Verdict::ALL.iter().position(|known| known.name() == verdict.as_str()).unwrap_or(Verdict::COUNT);
    Key {
        rank,
        verdict: verdict.clone(),
        who: who(connection, node),
        direction: direction.clone(),
        endpoint: endpoint.clone(),
        keepalive: keepalive.clone(),
        path: path.clone(),
        limit: format!("{}s", connection.idle_timeout_seconds),
        cause: cause.clone(),
    }
}

/// `shop/cart (app) cart.jar`: the workload for the pod, the container, and the program.
fn who(connection: &Connection, node: &Text) -> String {
    let Owner { namespace, pod, container } = &connection.owner;
    let mut who = match (pod, namespace) {
        (Some(pod), Some(namespace)) => format!("{namespace}/{}", workload::name(pod.as_str(), node.as_str())),
        (Some(pod), None) => pod.to_string(),
        (None, _) => container.as_ref().map_or_else(|| "host".to_owned(), Text::to_string),
    };
    if let (Some(_), Some(container)) = (pod, container) {
        let _ = write!(who, " ({container})");
    }
    let program = connection.process.as_ref().and_then(|process| process.program.as_ref().or(process.comm.as_ref()));
    if let Some(program) = program.filter(|program| program.as_str() != who) {
        let _ = write!(who, " {program}");
    }
    who
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative or huge times become the nearest value"
)]
fn milliseconds(seconds: f64) -> Millis {
    Millis::new((seconds * 1000.0) as u64)
}
