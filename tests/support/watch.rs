//! An agent watched for a while: what it says of each socket at every moment, not only at the end.

use std::thread;
use std::time::{Duration, Instant};

use super::binary::{Agent, Report, Row};
use super::check::Checks;
use super::socket::{End, Id};

/// How often the agent is asked.
const STEP: Duration = Duration::from_millis(100);
/// What a loaded machine may add to a sweep, its publication and our question.
pub const SLACK: Duration = Duration::from_millis(1500);

/// One socket under watch.
pub struct Subject {
    case: String,
    id: Id,
    /// Keepalive and verdict that must hold at the end.
    expected: (&'static str, &'static str),
    never: &'static [&'static str],
    /// What was said: since when, keepalive and verdict; an entry for each change.
    said: Vec<(Instant, String, String)>,
    last: Option<Row>,
}

impl Subject {
    /// A socket that must be judged so in the end.
    pub fn new(case: impl Into<String>, end: &End, keepalive: &'static str, verdict: &'static str) -> Self {
        Self { case: case.into(), id: end.id, expected: (keepalive, verdict), never: &[], said: Vec::new(), last: None }
    }

    /// Verdicts that must not be given at any moment.
    pub fn never(mut self, verdicts: &'static [&'static str]) -> Self {
        self.never = verdicts;
        self
    }

    /// When a verdict was first seen.
    pub fn first(&self, verdict: &str) -> Option<Instant> {
        self.said.iter().find(|(_, _, said)| said == verdict).map(|(at, ..)| *at)
    }

    /// The last row seen.
    pub fn last(&self) -> Option<&Row> {
        self.last.as_ref()
    }

    /// Changes what must hold at the end, and forgets what was said: a new part of the scene begins.
    pub fn expect(&mut self, keepalive: &'static str, verdict: &'static str) {
        self.expected = (keepalive, verdict);
        self.said.clear();
    }

    fn note(&mut self, report: &Report, at: Instant) {
        let Some(row) = report.row(self.id) else { return };
        let news = self
            .said
            .last()
            .is_none_or(|(_, keepalive, verdict)| (keepalive, verdict) != (&row.keepalive, &row.verdict));
        if news {
            self.said.push((at, row.keepalive.clone(), row.verdict.clone()));
        }
        self.last = Some(row.clone());
    }

    fn arrived(&self) -> bool {
        self.said.last().is_some_and(|(_, keepalive, verdict)| (&**keepalive, &**verdict) == self.expected)
    }

    /// Checks that the end is as expected, and that nothing forbidden was said on the way.
    pub fn check(&self, checks: &mut Checks, start: Instant) {
        let story = || {
            let told = |(at, keepalive, verdict): &(Instant, String, String)| {
                format!("{:.1} s {keepalive}/{verdict}", at.saturating_duration_since(start).as_secs_f64())
            };
            format!("said: {}\n    {:?}", self.said.iter().map(told).collect::<Vec<_>>().join(", "), self.last)
        };
        checks.that(self.arrived(), || format!("{}: expected {:?} at the end; {}", self.case, self.expected, story()));
        let forbidden = self.said.iter().find(|(_, _, verdict)| self.never.contains(&&**verdict));
        checks.that(forbidden.is_none(), || format!("{}: never {:?}; {}", self.case, self.never, story()));
    }

    /// Checks that a verdict was first seen in a span of time.
    pub fn check_between(&self, checks: &mut Checks, verdict: &str, earliest: Instant, latest: Instant) {
        let Some(at) = self.first(verdict) else {
            checks.that(false, || format!("{}: never {verdict}; said {:?}", self.case, self.said));
            return;
        };
        // Both are told: a verdict that comes early is wrong, one that comes late was missed.
        let early = earliest.saturating_duration_since(at);
        checks.that(early.is_zero(), || format!("{}: {verdict} {early:?} too early; {:?}", self.case, self.last));
        let late = at.saturating_duration_since(latest);
        checks.that(late.is_zero(), || format!("{}: {verdict} {late:?} too late; {:?}", self.case, self.last));
    }
}

/// [`Subject::check`] for each.
pub fn check_all<'s>(subjects: impl IntoIterator<Item = &'s Subject>, checks: &mut Checks, start: Instant) {
    for subject in subjects {
        subject.check(checks, start);
    }
}

/// [`Subject::expect`] for each.
pub fn expect_all(subjects: &mut [Subject], keepalive: &'static str, verdict: &'static str) {
    for subject in subjects {
        subject.expect(keepalive, verdict);
    }
}

/// Watches for exactly `span`, and calls `meanwhile` between two questions.
pub fn watch(agent: &Agent, subjects: &mut [Subject], span: Duration, mut meanwhile: impl FnMut()) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        meanwhile();
        look(agent, subjects);
        thread::sleep(STEP);
    }
}

/// Watches until every subject is as expected, at most for `patience`.
pub fn watch_until(agent: &Agent, subjects: &mut [Subject], patience: Duration, mut meanwhile: impl FnMut()) {
    let end = Instant::now() + patience;
    loop {
        meanwhile();
        look(agent, subjects);
        if subjects.iter().all(Subject::arrived) || Instant::now() > end {
            return;
        }
        thread::sleep(STEP);
    }
}

fn look(agent: &Agent, subjects: &mut [Subject]) {
    let report = agent.report();
    let now = Instant::now();
    for subject in subjects {
        subject.note(&report, now);
    }
}
