//! The overview for a person at a terminal: groups of connections, worst first, fitted to the screen.

mod notes;

use std::borrow::{Borrow, Cow};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::OnceLock;

use anstyle::Style;

use super::advice::{help, why};
use super::escape;
use super::explain::{fitting_group, in_code};
use super::groups::{self, Change, Group, Split};
use super::layout::{self, Row};
use super::sort::Sort;
use super::table::style;
use super::units::{Human, Limit};
use super::why::Why;
use crate::judge::cause::Cause;
use crate::judge::report::{Direction, Finding, LimitSource, Report};
use crate::judge::verdict::Verdict;
use crate::remedy::target::Target;
pub(super) use notes::owner_glob;

/// What the overview is fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns.
    pub width: usize,
    /// Rows; `None`: every group is shown.
    pub height: Option<usize>,
    /// Verdicts in colour.
    pub color: bool,
}

/// The lines of a screen that hints leave for groups.
const LEAST_GROUPS: usize = 12;

/// A report as groups.
pub struct Overview<'a> {
    report: Cow<'a, Report>,
    /// Worst first.
    pub groups: Vec<Group>,
    /// Local connections whose ends are in two network namespaces.
    local_between_namespaces: u64,
    targets: &'static [Target],
}

impl<'a> Overview<'a> {
    /// Of these findings, worst first; with `all` also those that are not flagged.
    pub fn new<F: Borrow<Finding>>(report: Cow<'a, Report>, findings: impl Iterator<Item = F>, all: bool) -> Self {
        Self::compared(report, findings, all, |_| None)
    }

    /// The same, with each finding compared with an earlier sweep.
    pub fn compared<F: Borrow<Finding>>(
        report: Cow<'a, Report>,
        findings: impl Iterator<Item = F>,
        all: bool,
        change: impl Fn(&Finding) -> Option<Change>,
    ) -> Self {
        let mut local_between_namespaces = 0;
        let shown = findings.filter(|finding| {
            let finding = finding.borrow();
            let is_local = finding.verdict == Verdict::Local;
            local_between_namespaces += u64::from(is_local && !finding.peer.same_namespace);
            all || finding.verdict.flagged()
        });
        let groups = groups::compared(shown, Split { verdicts: true, endpoints: false }, change);
        // reading them takes longer than a sweep of some thousand connections
        let targets = if groups.is_empty() { &[] } else { targets() };
        Self { report, groups, local_between_namespaces, targets }
    }

    /// The same in another order.
    #[must_use]
    pub fn sorted(mut self, sort: Sort) -> Self {
        sort.sort(&mut self.groups);
        self
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl Write, screen: Screen) -> io::Result<()> {
        let mut head = layout::wrap(&self.headline(), screen.width, 0);
        head.extend(layout::wrap(&self.counts(), screen.width, 2));
        let wrapped = |notes: Vec<String>| -> Vec<String> {
            notes.iter().flat_map(|line| layout::wrap(line, screen.width, 0)).collect()
        };
        let mut tail = wrapped(self.warnings());
        for more in [wrapped(self.remarks()), layout::side_by_side(&self.hints(), screen.width)] {
            // a small screen keeps its lines for groups
            if screen.height.is_none_or(|height| height >= head.len() + tail.len() + more.len() + LEAST_GROUPS) {
                tail.extend(more);
            }
        }
        // empty lines around the table, its titles, and the line in which the shell asks again
        let used = head.len() + tail.len() + 4;
        let height = screen.height.map(|height| height.saturating_sub(used));
        for line in &head {
            writeln!(out, "{line}")?;
        }
        if !self.groups.is_empty() {
            writeln!(out)?;
            let all = self.groups.len();
            let visible = self.groups.iter().take(height.map_or(all, |height| height.max(1)));
            let rows: Vec<Row> = visible.map(|group| self.row(group, screen.color)).collect();
            let shown = layout::write(out, &rows, all, screen.width, height)?;
            if shown < all {
                let hidden: usize = self.groups[shown..].iter().map(Group::connections).sum();
                let (groups, connections) = (count(all - shown, "more group"), count(hidden, "connection"));
                writeln!(out, "… {groups}, {connections}: --all-groups")?;
            }
        }
        if !tail.is_empty() {
            writeln!(out)?;
        }
        for line in &tail {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// `50 of 88 connections are at risk · path default drops idle connections after 350s`
    #[must_use]
    pub fn headline(&self) -> String {
        let report = &*self.report;
        let mut text = match (report.connections, report.flagged()) {
            (0, _) if report.is_blind => return "No connections could be read.".to_owned(),
            (0, _) => return "No established connections.".to_owned(),
            (connections, 0) if report.incomplete => {
                format!("No connection is at risk, of the {} that could be read", count(connections, "connection"))
            }
            (connections, 0) => match all_well(report) {
                Some(text) => text,
                None => format!("No connection is at risk, of {}", count(connections, "connection")),
            },
            (1, 1) => "1 of 1 connection is at risk".to_owned(),
            (all, 1) => format!("1 of {all} connections is at risk"),
            (all, flagged) => format!("{flagged} of {all} connections are at risk"),
        };
        let mut paths: Vec<_> = report
            .paths
            .iter()
            .map(|path| {
                let assumed = if path.source == LimitSource::Default { " (assumed)" } else { "" };
                format!("{} {}{assumed}", escape::line(&path.name), Limit(path.idle_timeout))
            })
            .collect();
        paths.dedup();
        match &paths[..] {
            [] => {}
            [_] => {
                if let Some(path) = report.paths.first() {
                    let is = if path.source == LimitSource::Default { "is assumed to drop" } else { "drops" };
                    let (name, limit) = (escape::line(&path.name), Limit(path.idle_timeout));
                    let _ = write!(text, " · path {name} {is} idle connections after {limit}");
                }
            }
            several => {
                let _ = write!(text, " · paths and their idle timeouts: {}", several.join(", "));
            }
        }
        text
    }

    /// `47 overdue · 3 exposed · 2 local`
    #[must_use]
    pub fn counts(&self) -> String {
        let report = &self.report;
        let shown = Verdict::ALL.into_iter().filter(|verdict| report.count(*verdict) > 0);
        shown.map(|verdict| format!("{} {}", report.count(verdict), verdict.name())).collect::<Vec<_>>().join(" · ")
    }

    /// The report.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Why a group is flagged, what helps, and the commands that print the remedies, line by line.
    #[must_use]
    pub fn details(&self, group: &Group) -> Vec<String> {
        let mut lines = Vec::new();
        match (group.cause, group.worst.first()) {
            (Some(cause), _) => {
                lines.push(why(cause, group, self.report.node_tcp_keepalive_time));
                lines.extend(help(cause, group));
            }
            (None, Some(worst)) => lines.push(Why(worst).to_string()),
            (None, None) => {}
        }
        if let Some((subject, fitting)) = fitting_group(self.targets, group) {
            lines.extend(in_code(&fitting).map(|command| format!("in its code: {command}")));
            lines.extend(fitting.targets.iter().map(|target| format!("{}: {}", target.name, subject.command(target))));
        }
        lines.iter().map(|line| escape::line(line).into_owned()).collect()
    }

    /// A group as text.
    #[must_use]
    pub fn row(&self, group: &Group, color: bool) -> Row {
        let arrow = if group.direction == Direction::Outbound { '→' } else { '←' };
        Row {
            verdict: group.verdict().name(),
            style: if color { style(group.verdict()) } else { Style::new() },
            connections: group.connections().to_string(),
            owner: if group.is_program() { String::new() } else { escape::line(&group.workload).into_owned() },
            program: escape::line(&group.held_by()).into_owned(),
            endpoint: format!("{arrow} {}", group.endpoint()),
            keepalive: group.keepalive(),
            idle: group.idle.map_or_else(|| "?".to_owned(), |idle| Human(idle).to_string()),
            limit: Limit(group.path.idle_timeout).to_string(),
            remedies: remedies(self.targets, group),
            change: changes(group),
        }
    }
}

/// `+3 ↓1`, or nothing: how many members are new, worse and better than in an earlier sweep.
fn changes(group: &Group) -> String {
    let marks = [(Change::New, '+'), (Change::Worse, '↓'), (Change::Better, '↑')];
    let counts = marks.map(|(change, mark)| (mark, group.changed(change))).into_iter().filter(|(_, count)| *count > 0);
    counts.map(|(mark, count)| format!("{mark}{count}")).collect::<Vec<_>>().join(" ")
}

/// What can be configured. A broken data file of ours is found by tests.
fn targets() -> &'static [Target] {
    static TARGETS: OnceLock<Vec<Target>> = OnceLock::new();
    TARGETS.get_or_init(|| crate::remedy::list().unwrap_or_default())
}

/// The names of what fits, best first.
pub(super) fn remedies(targets: &[Target], group: &Group) -> Vec<String> {
    match (group.cause, fitting_group(targets, group)) {
        (Some(Cause::PayloadOnly), _) => vec!["heartbeat".to_owned()],
        (Some(Cause::PingsNotCounted), _) => vec!["higher limit".to_owned()],
        (Some(_), Some((_, fitting))) => {
            let in_code = in_code(&fitting).map(|_| "its code".to_owned());
            let names = fitting.targets.into_iter().map(|target| target.name.clone());
            in_code.into_iter().chain(names).collect()
        }
        (Some(Cause::Unanswered), None) => vec!["TCP_USER_TIMEOUT".to_owned()],
        _ => Vec::new(),
    }
}

/// `8 of 8 long-lived connections are protected`, where it is so.
fn all_well(report: &Report) -> Option<String> {
    let of = |verdict| report.count(verdict);
    let well = of(Verdict::Protected) + of(Verdict::PeerProtected) + of(Verdict::AppProtected);
    let all = well + of(Verdict::Undetermined);
    let is = if all == 1 { "is" } else { "are" };
    (well > 0).then(|| format!("{well} of {} {is} protected", count(all, "long-lived connection")))
}

/// `1 connection`, `2 connections`
fn count(number: impl Into<Number>, what: &str) -> String {
    let Number(number) = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A count of any width.
struct Number(u64);

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}
