//! A report as a table for people.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::units::{Human, Limit, PlainTimer, SsTimer};
use super::why::Why;
use super::{escape, limits, node_limits};
use crate::judge::report::{Direction, Finding, Millis, Outcome, Report};
use crate::judge::verdict::Verdict;

/// What the table shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Every column, and why.
    pub wide: bool,
    /// Verdicts in colour.
    pub color: bool,
    /// For a person at a terminal: a pipe gets the timer as `ss -o` writes it.
    pub terminal: bool,
}

/// The most owners whose half-closed sockets the summary names.
const MAX_HALF_CLOSED: usize = 5;

/// A column of the table, and its text for `explain`.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub title: &'static str,
    pub help: &'static str,
    wide: bool,
    /// Numbers end at the same place.
    number: bool,
    cell: fn(&Finding) -> String,
    /// The cell for a person at a terminal, where it differs.
    plain: Option<fn(&Finding) -> String>,
}

const fn narrow(title: &'static str, help: &'static str, cell: fn(&Finding) -> String) -> Column {
    Column { title, help, wide: false, number: false, cell, plain: None }
}

const fn wide(title: &'static str, help: &'static str, cell: fn(&Finding) -> String) -> Column {
    Column { title, help, wide: true, number: false, cell, plain: None }
}

/// With another cell for a person at a terminal.
const fn plain(column: Column, plain: fn(&Finding) -> String) -> Column {
    Column { plain: Some(plain), ..column }
}

const fn number(column: Column) -> Column {
    Column { number: true, ..column }
}

pub(super) const COLUMNS: [Column; 18] = [
    narrow("VERDICT", "The judgement: see `keepalive-auditor explain` for each verdict.", |finding| {
        finding.verdict.name().to_owned()
    }),
    narrow(
        "OWNER",
        "Who holds the connection: namespace/pod (container), a systemd unit, a container, a network namespace or \
         host.",
        |finding| finding.owner.to_string(),
    ),
    narrow("DIR", "in: the connection was accepted here. out: it was opened here.", |finding| {
        short(finding.direction).to_owned()
    }),
    narrow("LOCAL", "The address and port of the local side.", |finding| finding.local.to_string()),
    narrow("REMOTE", "The address and port of the peer.", |finding| finding.remote.to_string()),
    narrow("KEEPALIVE", "What the local side does: on, late, off or unknown.", |finding| {
        finding.keepalive.name().to_owned()
    }),
    plain(
        narrow(
            "TIMER",
            "The timer that the kernel reports. Pipes and the wide table get it as `ss -o` writes it: name, time until \
             it fires,\n\
             and retransmissions or unanswered probes.",
            |finding| SsTimer(finding).to_string(),
        ),
        |finding| PlainTimer(finding).to_string(),
    ),
    wide(
        "KEEPIDLE",
        "The idle time before the first probe. `>=` marks a lower bound that was inferred from the timer. With \
         --exact:\n\
         KEEPIDLE, KEEPINTVL and KEEPCNT of the socket.",
        keepidle,
    ),
    number(narrow("DATA IDLE", "The time since the last payload byte in either direction.", |finding| {
        idle(finding.data_idle)
    })),
    number(narrow(
        "WIRE IDLE",
        "The time since the last segment of any kind, probes and their answers included. `?`: the kernel does not \
         report it.",
        |finding| idle(finding.wire_idle),
    )),
    number(narrow("LIMIT", "The idle timeout of the path.", |finding| Limit(finding.path.idle_timeout).to_string())),
    wide("PATH", "The path that the configuration gives this connection: its name.", |finding| {
        finding.path.name.clone()
    }),
    number(wide("AGE", "A lower bound of the connection's age.", |finding| Human(finding.age).to_string())),
    wide("PROCESS", "The process that holds the socket: program[pid].", |finding| {
        finding.holder.as_ref().map_or_else(|| "?".to_owned(), |holder| format!("{}[{}]", holder.program(), holder.pid))
    }),
    wide("NETNS", "The network namespace: its name, or its inode number.", netns),
    number(wide("UID", "The user id of the socket.", |finding| finding.uid.to_string())),
    number(wide("INODE", "The inode number of the socket, as in /proc/PID/fd.", |finding| finding.inode.to_string())),
    wide("WHY", "Why the connection has its verdict.", |finding| Why(finding).to_string()),
];

/// The colour repeats what the word says.
pub(super) fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Overdue => AnsiColor::Red.on_default().bold(),
        Verdict::Exposed => AnsiColor::Yellow.on_default(),
        Verdict::AppProtected | Verdict::PeerProtected | Verdict::Protected => AnsiColor::Green.on_default(),
        Verdict::Undetermined | Verdict::Young | Verdict::Local => Style::new().dimmed(),
    }
}

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

fn idle(time: Option<Millis>) -> String {
    time.map_or_else(|| "?".to_owned(), |time| Human(time).to_string())
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

/// Writes a table of the findings, which are made twice, and one line that counts the rest.
pub fn write<I: Iterator<Item: Borrow<Finding>>>(
    out: &mut impl Write,
    report: &Report,
    findings: impl Fn() -> I,
    options: Options,
) -> io::Result<()> {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| options.wide || !column.wide).collect();
    let cells = |finding: &Finding| -> Vec<String> {
        let cell = |column: &&Column| {
            column.plain.filter(|_| options.terminal && !options.wide).unwrap_or(column.cell)(finding)
        };
        columns.iter().map(|column| escape::line(&cell(column)).into_owned()).collect()
    };
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    let mut any = false;
    for finding in findings() {
        any = true;
        for (width, cell) in widths.iter_mut().zip(cells(finding.borrow())) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if any {
        let titles: Vec<_> = columns.iter().map(|column| column.title.to_owned()).collect();
        line(out, &columns, &widths, &titles, Style::new())?;
        for finding in findings() {
            let style = if options.color { style(finding.borrow().verdict) } else { Style::new() };
            line(out, &columns, &widths, &cells(finding.borrow()), style)?;
        }
    }
    writeln!(out, "{}", summary(report))?;
    writeln!(out, "{}", node_limits::paths(report))?;
    limits::contradictions(report).try_for_each(|sentence| writeln!(out, "{}", escape::line(&sentence)))?;
    node_limits::notes(report).iter().try_for_each(|note| writeln!(out, "{note}"))
}

/// Columns are two blanks apart. The style is that of the first cell.
fn line(out: &mut impl Write, columns: &[&Column], widths: &[usize], cells: &[String], style: Style) -> io::Result<()> {
    let mut text = String::new();
    for (at, ((cell, width), column)) in cells.iter().zip(widths).zip(columns).enumerate() {
        let blanks = width.saturating_sub(cell.chars().count());
        let (before, after) = if column.number { (blanks, 0) } else { (0, blanks) };
        let style = if at == 0 { style } else { Style::new() };
        let _ = write!(text, "{:before$}{style}{cell}{style:#}{:after$}  ", "", "");
    }
    writeln!(out, "{}", text.trim_end())
}

/// `2 of 31 connections flagged (1 overdue, 1 exposed); not flagged: 20 protected, 9 local. 5 network namespaces, 2 of
/// them without connections.`
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
        0 if report.is_blind => "no connections could be read".to_owned(),
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
    text += &ended(report);
    text += &half_closed(report);
    let counts = report.namespaces;
    let entered = counts.dumped + counts.looked_up + counts.skipped + counts.empty;
    let _ = write!(text, ". {entered} network namespace{}", if entered == 1 { "" } else { "s" });
    if counts.empty > 0 {
        let _ = write!(text, ", {} without connections", counts.empty);
    }
    if report.stale.namespaces > 0 {
        let age = Human(report.stale.age);
        let _ = write!(text, "; {} connections are shown as they were {age} ago", report.stale.connections);
    }
    if counts.failed > 0 {
        let _ = write!(text, ", {} more could not be read", counts.failed);
    }
    text + if report.incomplete { "; incomplete, see the warnings." } else { "." }
}

/// `; 3 flagged connections have ended: 2 reset, 1 closed`, or nothing.
fn ended(report: &Report) -> String {
    let counts: Vec<_> =
        Outcome::ALL.into_iter().zip(report.totals.ended.node).filter(|(_, count)| *count > 0).collect();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let list: Vec<_> = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
    match all {
        0 => String::new(),
        1 => format!("; 1 flagged connection has ended: {}", list.join(", ")),
        _ => format!("; {all} flagged connections have ended: {}", list.join(", ")),
    }
}

/// `; half-closed: 2 close_wait of nginx.service, 1 fin_wait2 of shop/web-0 (app)`, or nothing.
fn half_closed(report: &Report) -> String {
    let counts: Vec<_> = report
        .half_closed
        .iter()
        .take(MAX_HALF_CLOSED)
        .map(|((owner, waits), count)| format!("{count} {} of {}", waits.name(), escape::line(&owner.to_string())))
        .collect();
    let more = match report.half_closed.len().saturating_sub(counts.len()) {
        0 => String::new(),
        more => format!(", and of {more} more"),
    };
    if counts.is_empty() { String::new() } else { format!("; half-closed, not judged: {}{more}", counts.join(", ")) }
}
