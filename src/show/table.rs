//! A report as a table for people.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::units::{Human, SsTimer};
use super::why::Why;
use crate::judge::report::{Direction, Finding, Report};
use crate::judge::verdict::Verdict;

/// What the table shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Every column, and why.
    pub wide: bool,
}

struct Column {
    title: &'static str,
    wide: bool,
    cell: fn(&Finding) -> String,
}

const COLUMNS: [Column; 17] = [
    Column { title: "VERDICT", wide: false, cell: |finding| finding.verdict.name().to_owned() },
    Column { title: "OWNER", wide: false, cell: |finding| finding.owner.to_string() },
    Column { title: "DIR", wide: false, cell: |finding| short(finding.direction).to_owned() },
    Column { title: "LOCAL", wide: false, cell: |finding| finding.local.to_string() },
    Column { title: "REMOTE", wide: false, cell: |finding| finding.remote.to_string() },
    Column { title: "KEEPALIVE", wide: false, cell: |finding| finding.keepalive.name().to_owned() },
    Column { title: "TIMER", wide: false, cell: |finding| SsTimer(finding).to_string() },
    Column { title: "KEEPIDLE", wide: true, cell: keepidle },
    Column { title: "DATA IDLE", wide: false, cell: |finding| idle(finding.data_idle) },
    Column { title: "WIRE IDLE", wide: false, cell: |finding| idle(finding.wire_idle) },
    Column { title: "LIMIT", wide: false, cell: |finding| Human::from(finding.path.idle_timeout).to_string() },
    Column { title: "PATH", wide: true, cell: |finding| finding.path.name.clone() },
    Column { title: "AGE", wide: true, cell: |finding| Human(finding.age).to_string() },
    Column { title: "NETNS", wide: true, cell: netns },
    Column { title: "UID", wide: true, cell: |finding| finding.uid.to_string() },
    Column { title: "INODE", wide: true, cell: |finding| finding.inode.to_string() },
    Column { title: "WHY", wide: true, cell: |finding| Why(finding).to_string() },
];

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

fn idle(ms: Option<u64>) -> String {
    ms.map_or_else(|| "?".to_owned(), |ms| Human(ms).to_string())
}

fn keepidle(finding: &Finding) -> String {
    let exact = finding.exact.unwrap_or_default();
    match (exact.so_keepalive, exact.tcp_keepidle, finding.keepidle) {
        (Some(true), Some(idle), _) => {
            let or_unknown =
                |value: Option<u32>, unit: &str| value.map_or_else(|| "?".to_owned(), |it| format!("{it}{unit}"));
            format!("{idle}s,{},{}", or_unknown(exact.tcp_keepintvl, "s"), or_unknown(exact.tcp_keepcnt, ""))
        }
        (Some(false), ..) => "off".to_owned(),
        (_, _, Some(idle)) => format!(">={}", Human(idle)),
        (_, _, None) => "-".to_owned(),
    }
}

fn netns(finding: &Finding) -> String {
    finding.netns_name.as_deref().map_or_else(|| finding.netns.to_string(), str::to_owned)
}

/// Writes a table of the findings, which are asked for twice, and one line that counts the rest.
pub fn write<I: Iterator<Item: Borrow<Finding>>>(
    out: &mut impl Write,
    report: &Report,
    findings: impl Fn() -> I,
    options: Options,
) -> io::Result<()> {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| options.wide || !column.wide).collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    let mut any = false;
    for finding in findings() {
        any = true;
        // the last column has nothing to its right
        for (width, column) in widths.iter_mut().zip(&columns).take(columns.len() - 1) {
            *width = (*width).max((column.cell)(finding.borrow()).chars().count());
        }
    }
    if any {
        line(out, &widths, columns.iter().map(|column| column.title.to_owned()))?;
        for finding in findings() {
            line(out, &widths, columns.iter().map(|column| (column.cell)(finding.borrow())))?;
        }
    }
    writeln!(out, "{}", summary(report))
}

/// Columns are aligned to the left, two blanks apart; the last one ends its line.
fn line(out: &mut impl Write, widths: &[usize], cells: impl Iterator<Item = String>) -> io::Result<()> {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        text.push_str(&cell);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
    }
    writeln!(out, "{}", text.trim_end())
}

/// `2 of 31 connections flagged (1 overdue, 1 exposed); not flagged: 20 protected, 9 local. 5 network namespaces, 2 of them without connections.`
#[must_use]
pub fn summary(report: &Report) -> String {
    let list = |flagged: bool| {
        Verdict::ALL
            .into_iter()
            .filter(|verdict| verdict.flagged() == flagged && report.count(*verdict) > 0)
            .map(|verdict| format!("{} {}", report.count(verdict), verdict.name()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (flagged, rest) = (list(true), list(false));
    let mut text = match report.connections {
        0 => "no established connections".to_owned(),
        1 => format!("{} of 1 connection flagged", report.flagged()),
        connections => format!("{} of {connections} connections flagged", report.flagged()),
    };
    if !flagged.is_empty() {
        let _ = write!(text, " ({flagged})");
    }
    if !rest.is_empty() {
        let _ = write!(text, "; not flagged: {rest}");
    }
    if report.ignored > 0 {
        let _ = write!(text, "; {} ignored", report.ignored);
    }
    let counts = report.namespaces;
    let entered = counts.dumped + counts.looked_up + counts.skipped + counts.empty;
    let _ = write!(text, ". {entered} network namespace{}", if entered == 1 { "" } else { "s" });
    if counts.empty > 0 {
        let _ = write!(text, ", {} without connections", counts.empty);
    }
    if counts.failed > 0 {
        let _ = write!(text, ", {} more could not be read", counts.failed);
    }
    text + if report.incomplete { "; incomplete, see the warnings." } else { "." }
}
