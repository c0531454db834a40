//! The keepalive states and verdicts that an agent gives to one socket over time, not only at the end.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::binary::{Agent, Report, Row};
use super::checks::Checks;
use super::socket::{End, Id};

/// The pause between two requests to the agent.
const STEP: Duration = Duration::from_millis(100);
/// How long to wait for an expected judgement. A busy machine is slow.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The delay that a busy machine may add to the pause between two sweeps, and so to noticing a movement.
pub const SLACK: Duration = Duration::from_millis(1500);

/// The judgements of one socket in the order in which the agent gave them.
pub struct SocketTimeline {
    case: String,
    id: Id,
    /// Keepalive and verdict that must hold at the end.
    expected: (&'static str, &'static str),
    never: &'static [&'static str],
    /// One entry for each change.
    judgements: Vec<Judgement>,
    /// When the last recorded sweep began.
    last_sweep: Option<Instant>,
    last_row: Option<Row>,
}

/// A keepalive state and a verdict that the agent gave for a while.
#[derive(Debug)]
struct Judgement {
    /// When the test first read it.
    first_read: Instant,
    /// When the last sweep with another judgement began.
    last_other_sweep: Option<Instant>,
    keepalive: String,
    verdict: String,
}

impl SocketTimeline {
    /// An empty timeline of a socket that must have this keepalive and verdict at the end.
    pub fn new(case: impl Into<String>, end: &End, keepalive: &'static str, verdict: &'static str) -> Self {
        let (case, expected) = (case.into(), (keepalive, verdict));
        Self { case, id: end.id, expected, never: &[], judgements: Vec::new(), last_sweep: None, last_row: None }
    }

    /// Verdicts that the agent must not give at any moment.
    pub fn never(mut self, verdicts: &'static [&'static str]) -> Self {
        self.never = verdicts;
        self
    }

    /// Whether the agent gave this verdict at any moment.
    pub fn had(&self, verdict: &str) -> bool {
        self.first(verdict).is_some()
    }

    fn first(&self, verdict: &str) -> Option<&Judgement> {
        self.judgements.iter().find(|judgement| judgement.verdict == verdict)
    }

    /// The last row that was read.
    pub fn last(&self) -> Option<&Row> {
        self.last_row.as_ref()
    }

    /// Starts the next part of the scene: clears the timeline and sets what must hold at its end.
    pub fn expect(&mut self, keepalive: &'static str, verdict: &'static str) {
        self.expected = (keepalive, verdict);
        self.judgements.clear();
    }

    fn add(&mut self, report: &Report, read: Instant, sweep: Instant) {
        let Some(row) = report.row(self.id) else { return };
        let differs = |last: &Judgement| (&last.keepalive, &last.verdict) != (&row.keepalive, &row.verdict);
        if self.judgements.last().is_none_or(differs) {
            let (keepalive, verdict) = (row.keepalive.clone(), row.verdict.clone());
            let last_other_sweep = self.last_sweep;
            self.judgements.push(Judgement { first_read: read, last_other_sweep, keepalive, verdict });
        }
        self.last_sweep = Some(sweep);
        self.last_row = Some(row.clone());
    }

    fn is_as_expected(&self) -> bool {
        self.judgements.last().is_some_and(|last| (&*last.keepalive, &*last.verdict) == self.expected)
    }

    /// Checks that the last judgement is the expected one, and that no forbidden verdict came before it.
    pub fn check(&self, checks: &mut Checks, start: Instant) {
        let history = || {
            let entry = |Judgement { first_read, keepalive, verdict, .. }: &Judgement| {
                format!("{:.1} s {keepalive}/{verdict}", first_read.saturating_duration_since(start).as_secs_f64())
            };
            let entries: Vec<_> = self.judgements.iter().map(entry).collect();
            format!("judged: {}\n    {:?}", entries.join(", "), self.last_row)
        };
        let Self { case, expected, never, .. } = self;
        checks.that(self.is_as_expected(), || format!("{case}: expected {expected:?} at the end; {}", history()));
        let forbidden = self.judgements.iter().find(|judgement| never.contains(&&*judgement.verdict));
        checks.that(forbidden.is_none(), || format!("{case}: never {never:?}; {}", history()));
    }

    /// Checks that the agent did not give a verdict before `earliest`, and that each sweep begun after `latest` gave
    /// it.
    pub fn check_between(&self, checks: &mut Checks, verdict: &str, earliest: Instant, latest: Instant) {
        let Some(judgement) = self.first(verdict) else {
            checks.that(false, || format!("{}: never {verdict}; judged {:?}", self.case, self.judgements));
            return;
        };
        // A report is read some time after its sweep. So an early verdict is known by when it was read, and a late one
        // by when the last sweep without it began.
        let early = earliest.saturating_duration_since(judgement.first_read);
        checks.that(early.is_zero(), || format!("{}: {verdict} {early:?} too early; {:?}", self.case, self.last_row));
        let late = judgement.last_other_sweep.map_or(Duration::ZERO, |sweep| sweep.saturating_duration_since(latest));
        checks.that(late.is_zero(), || format!("{}: {verdict} {late:?} too late; {:?}", self.case, self.last_row));
    }
}

/// [`SocketTimeline::check`] for each.
pub fn check_all<'s>(timelines: impl IntoIterator<Item = &'s SocketTimeline>, checks: &mut Checks, start: Instant) {
    for timeline in timelines {
        timeline.check(checks, start);
    }
}

/// [`SocketTimeline::expect`] for each.
pub fn expect_all(timelines: &mut [SocketTimeline], keepalive: &'static str, verdict: &'static str) {
    for timeline in timelines {
        timeline.expect(keepalive, verdict);
    }
}

/// Records for exactly `span`, and calls `meanwhile` between two requests.
pub fn record_for(agent: &Agent, timelines: &mut [SocketTimeline], span: Duration, mut meanwhile: impl FnMut()) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        meanwhile();
        record(agent, timelines);
        thread::sleep(STEP);
    }
}

/// Records until every socket is judged as expected, and calls `meanwhile` between two requests. Gives up after
/// [`TIMEOUT`].
pub fn record_until_expected(agent: &Agent, timelines: &mut [SocketTimeline], mut meanwhile: impl FnMut()) {
    let end = Instant::now() + TIMEOUT;
    loop {
        meanwhile();
        record(agent, timelines);
        if timelines.iter().all(SocketTimeline::is_as_expected) || Instant::now() > end {
            return;
        }
        thread::sleep(STEP);
    }
}

fn record(agent: &Agent, timelines: &mut [SocketTimeline]) {
    let report = agent.report();
    let read = Instant::now();
    let started = humantime::parse_rfc3339(&report.sweep.started_at).expect("a sweep starts at a time");
    let sweep = read.checked_sub(SystemTime::now().duration_since(started).unwrap_or_default()).unwrap_or(read);
    for timeline in timelines {
        timeline.add(&report, read, sweep);
    }
}
