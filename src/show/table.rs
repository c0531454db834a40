//! A report as a table for people.

mod columns;

use std::borrow::{Borrow, Cow};
use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::units::Human;
use super::{escape, limits, node_limits};
use crate::judge::report::{Finding, Outcome, Report};
use crate::judge::verdict::Verdict;
pub(super) use columns::COLUMNS;
use columns::Column;

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

/// The colour repeats what the word says.
pub(super) fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Overdue => AnsiColor::Red.on_default().bold(),
        Verdict::Exposed => AnsiColor::Yellow.on_default(),
        Verdict::AppProtected | Verdict::PeerProtected | Verdict::Protected => AnsiColor::Green.on_default(),
        Verdict::Undetermined | Verdict::Young | Verdict::Local => Style::new().dimmed(),
    }
}

/// Writes a table of the findings, which are made twice, and one line that counts the rest.
pub fn write<I: Iterator<Item: Borrow<Finding>>>(
    out: &mut impl Write,
    report: &Report,
    findings: impl Fn() -> I,
    options: Options,
) -> io::Result<()> {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| options.wide || !column.wide).collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    let mut row = Row::default();
    let mut any = false;
    for finding in findings() {
        any = true;
        row.fill(&columns, finding.borrow(), options);
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.width);
        }
    }
    if any {
        row.clear();
        for column in &columns {
            row.add(column.title);
        }
        row.write(out, &columns, &widths, Style::new())?;
        for finding in findings() {
            let finding = finding.borrow();
            row.fill(&columns, finding, options);
            row.write(out, &columns, &widths, if options.color { style(finding.verdict) } else { Style::new() })?;
        }
    }
    writeln!(out, "{}", summary(report))?;
    writeln!(out, "{}", node_limits::paths(report))?;
    limits::contradictions(report).try_for_each(|sentence| writeln!(out, "{}", escape::line(&sentence)))?;
    node_limits::notes(report).iter().try_for_each(|note| writeln!(out, "{note}"))
}

/// The cells of a row. The next row uses the same memory.
#[derive(Default)]
struct Row {
    /// All cells, one after the other.
    text: String,
    cells: Vec<CellEnd>,
    /// The line as it is written.
    line: String,
}

/// Where a cell ends in the text of its row, and the number of its characters.
struct CellEnd {
    end: usize,
    width: usize,
}

impl Row {
    fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
    }

    fn fill(&mut self, columns: &[&Column], finding: &Finding, options: Options) {
        self.clear();
        for column in columns {
            let start = self.text.len();
            let cell = column.plain.filter(|_| options.terminal && !options.wide).unwrap_or(column.cell);
            // a string takes everything
            let _ = cell(finding, &mut self.text);
            if escape::is_plain(&self.text[start..]) {
                let end = self.text.len();
                self.cells.push(CellEnd { end, width: end - start });
                continue;
            }
            if let Cow::Owned(escaped) = escape::line(&self.text[start..]) {
                self.text.replace_range(start.., &escaped);
            }
            self.end_cell(start);
        }
    }

    fn add(&mut self, cell: &str) {
        let start = self.text.len();
        self.text.push_str(cell);
        self.end_cell(start);
    }

    fn end_cell(&mut self, start: usize) {
        let width = self.text[start..].chars().count();
        self.cells.push(CellEnd { end: self.text.len(), width });
    }

    /// Columns are two blanks apart. The style is that of the first cell.
    fn write(&mut self, out: &mut impl Write, columns: &[&Column], widths: &[usize], style: Style) -> io::Result<()> {
        self.line.clear();
        let mut start = 0;
        for (at, ((cell, width), column)) in self.cells.iter().zip(widths).zip(columns).enumerate() {
            let blanks = width.saturating_sub(cell.width);
            let (before, after) = if column.number { (blanks, 0) } else { (0, blanks) };
            let text = &self.text[start..cell.end];
            start = cell.end;
            push_blanks(&mut self.line, before);
            if at == 0 && !style.is_plain() {
                let _ = write!(self.line, "{style}{text}{style:#}");
            } else {
                self.line.push_str(text);
            }
            push_blanks(&mut self.line, after + 2);
        }
        self.line.truncate(self.line.trim_end().len());
        self.line.push('\n');
        out.write_all(self.line.as_bytes())
    }
}

fn push_blanks(line: &mut String, mut count: usize) {
    const BLANKS: &str = "                                ";
    while count > 0 {
        let now = count.min(BLANKS.len());
        line.push_str(&BLANKS[..now]);
        count -= now;
    }
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
