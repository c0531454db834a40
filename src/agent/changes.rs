//! What changed from one sweep to the next, for the log: groups of connections that became flagged, worse or well, and
//! whether sweeps are complete. The number of lines is bounded, however much changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::judge::report::{Direction, Report, ServiceEndpoint};
use crate::judge::verdict::Verdict;
use crate::show::workload;

/// The most lines at once, and in [`REFILL`] for each of them.
const MAX_LINES: u32 = 20;
/// The time after which one more line may be written.
const REFILL: Duration = Duration::from_secs(30);
/// The most groups that are followed.
const MAX_GROUPS: usize = 4096;

/// The connections of one workload with one endpoint. `None`: the endpoints that metrics do not name.
type Key = (String, Direction, Option<ServiceEndpoint>);

/// The flagged connections of a group: the worst verdict, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flagged {
    worst: Verdict,
    connections: u64,
}

/// What the log already says.
#[derive(Debug)]
pub(super) struct Changes {
    groups: BTreeMap<Key, Flagged>,
    incomplete: bool,
    failed: u64,
    is_first: bool,
    /// Lines that may still be written.
    lines: u32,
    refilled: Instant,
    /// Changes without a line.
    left_out: u64,
}

impl Changes {
    pub fn new(now: Instant) -> Self {
        Self {
            groups: BTreeMap::new(),
            incomplete: false,
            failed: 0,
            is_first: true,
            lines: MAX_LINES,
            refilled: now,
            left_out: 0,
        }
    }

    /// What this sweep changed, one sentence for each change; true: it is a warning.
    pub fn of(&mut self, report: &Report, now: Instant) -> Vec<(bool, String)> {
        self.refill(now);
        let mut lines = Vec::new();
        let groups = groups(report);
        if std::mem::take(&mut self.is_first) {
            lines.push((
                false,
                format!(
                    "the first sweep found {} connections, {} of them flagged (groups: {})",
                    report.connections,
                    report.flagged(),
                    groups.len()
                ),
            ));
        }
        self.health(report, &mut lines);
        let mut changes = Vec::new();
        for (key, flagged) in &groups {
            match self.groups.get(key) {
                Some(before) if (before.worst as usize) <= flagged.worst as usize => {}
                before => changes.push((flagged.worst, sentence(key, *flagged, before.is_some()))),
            }
        }
        for key in self.groups.keys().filter(|key| !groups.contains_key(*key)) {
            changes.push((Verdict::Protected, format!("{}: no connection is flagged any more", name(key))));
        }
        // the worst ones get the lines
        changes.sort_by_key(|(verdict, _)| *verdict as usize);
        for (verdict, sentence) in changes {
            let is_warning = verdict.flagged() && verdict != Verdict::Exposed;
            self.add(&mut lines, is_warning, sentence);
        }
        self.groups = groups;
        if self.left_out > 0 && self.lines > 0 {
            self.lines -= 1;
            let left_out = std::mem::take(&mut self.left_out);
            let groups = if left_out == 1 { "group" } else { "groups" };
            lines.push((false, format!("{left_out} more {groups} of connections became flagged, worse or well")));
        }
        lines
    }

    /// Whether something cannot be read.
    fn health(&mut self, report: &Report, lines: &mut Vec<(bool, String)>) {
        let failed = report.namespaces.failed;
        if report.incomplete != self.incomplete {
            let sentence = if report.incomplete { "sweeps are incomplete" } else { "sweeps are complete again" };
            self.add(lines, report.incomplete, sentence.to_owned());
        }
        if failed != self.failed {
            let sentence = format!("network namespaces that cannot be read: {failed}; before: {}", self.failed);
            self.add(lines, failed > self.failed, sentence);
        }
        (self.incomplete, self.failed) = (report.incomplete, failed);
    }

    fn add(&mut self, lines: &mut Vec<(bool, String)>, is_warning: bool, sentence: String) {
        // the last line is for the number of those left out
        if self.lines > 1 {
            self.lines -= 1;
            lines.push((is_warning, sentence));
        } else {
            self.left_out += 1;
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let more = u32::try_from(passed.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            self.lines = self.lines.saturating_add(more).min(MAX_LINES);
            self.refilled = now;
        }
    }
}

/// The flagged groups of a sweep.
fn groups(report: &Report) -> BTreeMap<Key, Flagged> {
    let mut groups: BTreeMap<Key, Flagged> = BTreeMap::new();
    for ((owner, direction), tally) in report.tallies.iter().filter(|(_, tally)| !tally.endpoints.is_empty()) {
        let workload = workload::of(owner);
        for ((endpoint, _, verdict), connections) in &tally.endpoints {
            let key = (workload.clone(), *direction, *endpoint);
            if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
                return groups;
            }
            let group = groups.entry(key).or_insert(Flagged { worst: *verdict, connections: 0 });
            group.connections += connections;
            if (*verdict as usize) < group.worst as usize {
                group.worst = *verdict;
            }
        }
    }
    groups
}

fn name((workload, direction, endpoint): &Key) -> String {
    let to = if *direction == Direction::Outbound { "to" } else { "on" };
    let endpoint = endpoint.map_or_else(|| "other endpoints".to_owned(), |endpoint| endpoint.to_string());
    format!("{workload}, {} {to} {endpoint}", direction.name())
}

fn sentence(key: &Key, flagged: Flagged, was_flagged: bool) -> String {
    let Flagged { worst, connections } = flagged;
    let number = if connections == 1 { "1 connection is".to_owned() } else { format!("{connections} connections are") };
    let verdict = worst.name();
    let now = if was_flagged { "now " } else { "" };
    format!("{}: {number} flagged, the worst is {now}{verdict}", name(key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::judge::report::Tally;
    use crate::owner::{Owner, OwnerKind};

    /// A report with one connection of each unit, on port 80.
    fn report(units: &[(&str, Verdict)]) -> Report {
        let mut tallies = BTreeMap::new();
        for (unit, verdict) in units {
            let container = Some((*unit).to_owned());
            let owner = Arc::new(Owner { kind: OwnerKind::Unit, container, ..Owner::default() });
            let key = (Some(ServiceEndpoint::Local(80)), Arc::default(), *verdict);
            let tally = Tally { endpoints: [(key, 1)].into(), ..Tally::default() };
            tallies.insert((owner, Direction::Inbound), tally);
        }
        Report { tallies: Arc::new(tallies), ..Report::default() }
    }

    fn said(changes: &mut Changes, report: &Report, now: Instant) -> Vec<String> {
        changes.of(report, now).into_iter().map(|(_, sentence)| sentence).collect()
    }

    #[test]
    fn only_changes_are_reported() {
        let now = Instant::now();
        let mut changes = Changes::new(now);
        let exposed = report(&[("a.service", Verdict::Exposed)]);
        assert_eq!(
            said(&mut changes, &exposed, now),
            [
                "the first sweep found 0 connections, 0 of them flagged (groups: 1)",
                "a.service, inbound on :80: 1 connection is flagged, the worst is exposed"
            ]
        );
        assert_eq!(said(&mut changes, &exposed, now), [""; 0], "nothing changed");
        let worse = report(&[("a.service", Verdict::Overdue)]);
        assert_eq!(
            changes.of(&worse, now),
            [(true, "a.service, inbound on :80: 1 connection is flagged, the worst is now overdue".to_owned())]
        );
        assert_eq!(said(&mut changes, &exposed, now), [""; 0], "it is better, and still flagged");
        assert_eq!(
            said(&mut changes, &report(&[]), now),
            ["a.service, inbound on :80: no connection is flagged any more"]
        );
    }

    #[test]
    fn incomplete_sweeps_are_reported_when_they_begin_and_when_they_end() {
        let now = Instant::now();
        let mut changes = Changes::new(now);
        said(&mut changes, &report(&[]), now);
        let mut incomplete = Report { incomplete: true, ..Report::default() };
        incomplete.namespaces.failed = 2;
        let sentences = ["sweeps are incomplete", "network namespaces that cannot be read: 2; before: 0"];
        assert_eq!(said(&mut changes, &incomplete, now), sentences);
        assert_eq!(said(&mut changes, &incomplete, now), [""; 0]);
        let sentences = ["sweeps are complete again", "network namespaces that cannot be read: 0; before: 2"];
        assert_eq!(said(&mut changes, &report(&[]), now), sentences);
    }

    #[test]
    fn however_much_changes_the_number_of_lines_is_bounded() {
        let mut now = Instant::now();
        let mut changes = Changes::new(now);
        let names: Vec<_> = (0..100).map(|number| format!("unit-{number}.service")).collect();
        let flagged: Vec<_> = names.iter().map(|name| (name.as_str(), Verdict::Exposed)).collect();
        let (all, none) = (report(&flagged), report(&[]));
        let mut lines = 0;
        let (hour, interval) = (Duration::from_hours(1), Duration::from_secs(15));
        let end = now + hour;
        while now < end {
            for report in [&all, &none] {
                lines += changes.of(report, now).len();
                now += interval;
            }
        }
        let most = 1 + MAX_LINES as usize + usize::try_from(hour.as_secs() / REFILL.as_secs()).expect("small");
        assert!(lines <= most, "{lines} lines, at most {most}");
        assert!(lines > 100, "{lines}: the log goes on");
    }

    #[test]
    fn the_worst_changes_get_the_lines() {
        let now = Instant::now();
        let mut changes = Changes::new(now);
        let names: Vec<_> = (0..100).map(|number| format!("unit-{number}.service")).collect();
        let verdict = |number: usize| if number == 77 { Verdict::Blackholed } else { Verdict::Exposed };
        let flagged: Vec<_> = names.iter().enumerate().map(|(number, name)| (name.as_str(), verdict(number))).collect();
        let said = said(&mut changes, &report(&flagged), now);
        assert!(said[1].starts_with("unit-77.service"), "{said:?}");
        assert!(said.last().is_some_and(|last| last.contains("more groups")), "{said:?}");
    }
}
