//! An agent watched for a while: what it says of each socket at every moment, not only at the end.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::binary::{Agent, Report, Row};
use super::check::Checks;
use super::socket::{End, Id};

/// How often the agent is asked.
const STEP: Duration = Duration::from_millis(100);
/// How long we wait for what must come: a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a loaded machine may add to the pause between two sweeps, and so to the moment at which a movement is noticed.
pub const SLACK: Duration = Duration::from_millis(1500);

/// One socket under watch.
pub struct Subject {
    case: String,
    id: Id,
    /// Keepalive and verdict that must hold at the end.
    expected: (&'static str, &'static str),
    never: &'static [&'static str],
    /// What was said: an entry for each change.
    said: Vec<Word>,
    /// When the last sweep that was noted began.
    swept: Option<Instant>,
    last: Option<Row>,
}

/// Keepalive and verdict as an agent gave them for a while.
#[derive(Debug)]
struct Word {
    /// When we first read it.
    read: Instant,
    /// When the last sweep began that said something else.
    otherwise: Option<Instant>,
    keepalive: String,
    verdict: String,
}

impl Subject {
    /// A socket that must be judged so in the end.
    pub fn new(case: impl Into<String>, end: &End, keepalive: &'static str, verdict: &'static str) -> Self {
        let (case, expected) = (case.into(), (keepalive, verdict));
        Self { case, id: end.id, expected, never: &[], said: Vec::new(), swept: None, last: None }
    }

    /// Verdicts that must not be given at any moment.
    pub fn never(mut self, verdicts: &'static [&'static str]) -> Self {
        self.never = verdicts;
        self
    }

    /// Whether a verdict was given at any moment.
    pub fn was(&self, verdict: &str) -> bool {
        self.first(verdict).is_some()
    }

    fn first(&self, verdict: &str) -> Option<&Word> {
        self.said.iter().find(|word| word.verdict == verdict)
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

    fn note(&mut self, report: &Report, read: Instant, swept: Instant) {
        let Some(row) = report.row(self.id) else { return };
        if self.said.last().is_none_or(|word| (&word.keepalive, &word.verdict) != (&row.keepalive, &row.verdict)) {
            let (keepalive, verdict) = (row.keepalive.clone(), row.verdict.clone());
            self.said.push(Word { read, otherwise: self.swept, keepalive, verdict });
        }
        self.swept = Some(swept);
        self.last = Some(row.clone());
    }

    fn arrived(&self) -> bool {
        self.said.last().is_some_and(|word| (&*word.keepalive, &*word.verdict) == self.expected)
    }

    /// Checks that the end is as expected, and that nothing forbidden was said on the way.
    pub fn check(&self, checks: &mut Checks, start: Instant) {
        let story = || {
            let told = |Word { read, keepalive, verdict, .. }: &Word| {
                format!("{:.1} s {keepalive}/{verdict}", read.saturating_duration_since(start).as_secs_f64())
            };
            format!("said: {}\n    {:?}", self.said.iter().map(told).collect::<Vec<_>>().join(", "), self.last)
        };
        checks.that(self.arrived(), || format!("{}: expected {:?} at the end; {}", self.case, self.expected, story()));
        let forbidden = self.said.iter().find(|word| self.never.contains(&&*word.verdict));
        checks.that(forbidden.is_none(), || format!("{}: never {:?}; {}", self.case, self.never, story()));
    }

    /// Checks that a verdict was not given before `earliest`, and not withheld by a sweep that began after `latest`.
    pub fn check_between(&self, checks: &mut Checks, verdict: &str, earliest: Instant, latest: Instant) {
        let Some(word) = self.first(verdict) else {
            checks.that(false, || format!("{}: never {verdict}; said {:?}", self.case, self.said));
            return;
        };
        // Both are told: a verdict that comes early is wrong, one that comes late was missed. When we read a report says only that
        // its sweep was before; so the late ones are told by when the sweeps began.
        let early = earliest.saturating_duration_since(word.read);
        checks.that(early.is_zero(), || format!("{}: {verdict} {early:?} too early; {:?}", self.case, self.last));
        let late = word.otherwise.map_or(Duration::ZERO, |swept| swept.saturating_duration_since(latest));
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

/// Watches until every subject is as expected; gives up when a loaded machine would have had time enough.
pub fn watch_until(agent: &Agent, subjects: &mut [Subject], mut meanwhile: impl FnMut()) {
    let end = Instant::now() + PATIENCE;
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
    let read = Instant::now();
    let started = humantime::parse_rfc3339(&report.sweep.started_at).expect("a sweep starts at a time");
    let swept = read.checked_sub(SystemTime::now().duration_since(started).unwrap_or_default()).unwrap_or(read);
    for subject in subjects {
        subject.note(&report, read, swept);
    }
}
