//! Compares the agent's verdicts with the events on the connections: a verdict that comes too early is wrong, and one
//! that comes too late was missed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::fleet::{Fleet, Kind, PROBE, Slot};
use crate::support::binary::{Report, Row};
use crate::support::socket::Id;
use crate::{INTERVAL, LIMIT};

/// The accepted error: acknowledgements may be delayed by 40 ms, and a busy machine delays sweeps.
const SLACK: Duration = Duration::from_millis(500);
/// `long_lived` in the rules of the soak test.
const YOUNG: Duration = Duration::from_secs(5);
/// The number of failures that are shown in detail.
const SHOWN: usize = 20;

/// Every judgement so far.
pub struct Oracle {
    last_sweep: String,
    began: Option<SystemTime>,
    sweeps: u64,
    judgements: u64,
    overdue: u64,
    failures: BTreeMap<&'static str, Vec<String>>,
    /// The overdue sockets and the start of their idle time, so that each counts once.
    flagged: HashSet<(Id, SystemTime)>,
    /// The times from the idle timeout to the first `overdue`.
    delays: Vec<Duration>,
}

impl Oracle {
    /// An oracle without judgements.
    pub fn new() -> Self {
        Self {
            last_sweep: String::new(),
            began: None,
            sweeps: 0,
            judgements: 0,
            overdue: 0,
            failures: BTreeMap::new(),
            flagged: HashSet::new(),
            delays: Vec::new(),
        }
    }

    /// Compares a report with the fleet, once for each sweep.
    pub fn check(&mut self, report: &Report, fleet: &Fleet) {
        if report.sweep.started_at == self.last_sweep {
            return;
        }
        self.last_sweep.clone_from(&report.sweep.started_at);
        self.sweeps += 1;
        let from: SystemTime = humantime(&report.sweep.started_at);
        let until = from + Duration::from_secs_f64(report.sweep.duration_seconds);
        let began = *self.began.get_or_insert(from);
        let rows: HashMap<Id, &Row> = report.connections.iter().map(|row| (row.id(), row)).collect();
        if report.truncated != 0 || report.sweep.incomplete {
            self.fail("incomplete", format!("{:?}, {} left out", report.sweep, report.truncated));
        }
        for slot in &fleet.slots {
            // The sweep may or may not have seen an event that happened during it or later.
            if slot.touched.1 + SLACK > from {
                continue;
            }
            let Some(row) = rows.get(&slot.near().id) else {
                self.fail("missing", format!("{:?} {}", slot.kind, slot.near().local()));
                continue;
            };
            self.judge(slot, row, (from, until), began);
        }
    }

    fn judge(&mut self, slot: &Slot, row: &Row, (from, until): (SystemTime, SystemTime), began: SystemTime) {
        self.judgements += 1;
        let about =
            || format!("{:?}, touched {:.1} s before: {row:?}", slot.kind, since(from, slot.touched.1).as_secs_f64());
        // The idle time began between these two moments. None: the connection is never idle for that long.
        let idle_since = match slot.kind {
            Kind::Idle | Kind::Late => Some(slot.touched),
            // The last probe came up to one period before keepalive was turned off.
            Kind::Switched | Kind::PeerSwitched if !slot.kept => {
                let earliest = slot.touched.0.checked_sub(PROBE).unwrap_or(slot.touched.0);
                Some((earliest, slot.touched.1))
            }
            _ => None,
        };
        match (idle_since, &*row.verdict) {
            // No segment is lost here, and the peer answers window probes.
            (_, "blackholed") => self.fail("wrong blackholed", about()),
            (_, "unanswered") => self.fail("wrong unanswered", about()),
            (None, "overdue") if slot.kind == Kind::Switched || slot.kind == Kind::PeerSwitched => {
                // After keepalive was turned on again, it stays overdue until the first probe.
                if since(from, slot.touched.1) > PROBE + INTERVAL + SLACK {
                    self.fail("wrong overdue", about());
                }
            }
            // While data waits for the window, the kernel sends no keepalive probes, and its window probes become rare.
            // Such an idle time is real, and the row must show it.
            (None, "exposed" | "overdue") if slot.kind == Kind::MaskedKept && row.keepalive == "late" => {
                let until_probe = row.timer.expires_seconds.filter(|_| row.verdict == "exposed").unwrap_or(0.0);
                let idle = row.wire_idle_seconds.map(|idle| (idle + until_probe) * 9.0 / 8.0);
                if row.timer.kind != "persist" || idle < Some(LIMIT.as_secs_f64()) {
                    self.fail("wrong overdue", about());
                }
            }
            (None, "overdue") if slot.kind == Kind::Masked => {
                if row.timer.kind != "persist" || row.wire_idle_seconds < Some(LIMIT.as_secs_f64()) {
                    self.fail("wrong overdue", about());
                }
            }
            (None, "overdue") => self.fail("wrong overdue", about()),
            (Some((earliest, _)), "overdue") => {
                self.overdue += 1;
                // The sweep ended after the limit, and the agent has watched the whole idle time.
                if until < earliest + LIMIT || until < began + LIMIT {
                    self.fail("wrong overdue", about());
                }
                if self.flagged.insert((slot.near().id, slot.touched.1)) {
                    self.delays.push(since(from, slot.touched.1.max(began) + LIMIT));
                }
            }
            (Some((_, latest)), verdict) => {
                // The idle time is watched from the sweep after its beginning on: the rule allows it one idle timeout
                // later.
                if from > latest.max(began) + INTERVAL + LIMIT + INTERVAL + SLACK {
                    self.fail("missed overdue", about());
                }
                let fits = match verdict {
                    "exposed" => true,
                    "young" => since(from, slot.opened) < YOUNG + SLACK,
                    "peer_protected" => slot.kind == Kind::PeerSwitched,
                    _ => false,
                };
                if !fits {
                    self.fail("misjudged", about());
                }
            }
            (None, verdict) => {
                let old = since(from, slot.opened.max(began)) > PROBE + INTERVAL + SLACK;
                let settled = since(from, slot.touched.1.max(began)) > PROBE + INTERVAL + SLACK;
                let trusted = since(from, slot.touched.1.max(began)) > 2 * PROBE + INTERVAL + SLACK;
                let fits = match slot.kind {
                    Kind::Active => verdict == "exposed" || !old,
                    Kind::Churn => ["young", "exposed"].contains(&verdict),
                    Kind::Kept | Kind::MaskedKept => verdict == "protected",
                    Kind::PeerKept => verdict == "peer_protected" || !old,
                    Kind::Masked => verdict == "undetermined",
                    Kind::Switched => verdict == "protected" || !settled,
                    // After an idle time it takes two probes to know that they come in time.
                    Kind::PeerSwitched => verdict == "peer_protected" || !trusted,
                    Kind::Idle | Kind::Late => false,
                };
                if !fits {
                    self.fail("misjudged", about());
                }
            }
        }
    }

    fn fail(&mut self, what: &'static str, about: String) {
        let told = self.failures.entry(what).or_default();
        if told.len() < SHOWN {
            println!("{what}: {about}");
        }
        told.push(about);
    }

    /// Fails the soak if anything was wrong, or if it showed nothing.
    pub fn finish(self) {
        let counts: BTreeMap<_, _> = self.failures.iter().map(|(what, told)| (what, told.len())).collect();
        assert!(counts.is_empty(), "the soak found {counts:?}");
        assert!(self.overdue > 0 && self.judgements > 0, "the soak showed nothing");
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |what| self.failures.get(what).map_or(0, Vec::len);
        write!(
            f,
            "{} sweeps, {} judgements, {} of them overdue in {} idle times; wrong overdue {}, missed {}, wrong \
             blackholed {}, wrong unanswered {}, \
             otherwise misjudged {}, missing {}, incomplete {}",
            self.sweeps,
            self.judgements,
            self.overdue,
            self.delays.len(),
            count("wrong overdue"),
            count("missed overdue"),
            count("wrong blackholed"),
            count("wrong unanswered"),
            count("misjudged"),
            count("missing"),
            count("incomplete")
        )?;
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        let (Some(middle), Some(longest)) = (delays.get(delays.len() / 2), delays.last()) else { return Ok(()) };
        write!(
            f,
            "; overdue reported {:.1} s after the timeout, at most {:.1} s",
            middle.as_secs_f64(),
            longest.as_secs_f64()
        )
    }
}

fn since(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn humantime(text: &str) -> SystemTime {
    humantime::parse_rfc3339_weak(text).expect("RFC 3339")
}
