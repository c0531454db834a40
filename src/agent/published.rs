//! What the agent has published, and the HTTP paths that are answered with it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::AgentConfig;
use crate::digest::Digest;
use crate::host;
use crate::judge::report::{Finding, Report};
use crate::show::json::Document;
use crate::show::metrics::{Limits, SweepDurations, View, text};
use crate::show::page::html;
use crate::web::{Page, Site};

/// Sweeps keep coming while the last one is not older than this many intervals, and [`SLOWEST`] more.
const HEALTHY_INTERVALS: u32 = 3;
/// What a sweep may take before the agent counts as stuck.
const SLOWEST: Duration = Duration::from_secs(30);
/// How long a page that tells connections waits for the end of a sweep.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last report, and what the pages need beside it.
pub(super) struct Published {
    state: Mutex<State>,
    /// Tells the connections of the last report one by one; absent while a sweep is under way.
    digest: Mutex<Option<Digest>>,
    digest_is_back: Condvar,
    node: String,
    limits: Limits,
    /// After this long without a sweep the agent is not healthy.
    stuck_after: Duration,
}

struct State {
    report: Option<Arc<Report>>,
    durations: SweepDurations,
    last: Instant,
}

impl Published {
    pub fn new(config: &AgentConfig) -> Self {
        Self {
            state: Mutex::new(State { report: None, durations: SweepDurations::default(), last: Instant::now() }),
            digest: Mutex::default(),
            digest_is_back: Condvar::new(),
            node: host::node_name(),
            limits: config.limits,
            stuck_after: config.interval * HEALTHY_INTERVALS + SLOWEST,
        }
    }

    /// The digest, for a sweep; `None` at first, and after a sweep that failed.
    pub fn take_digest(&self) -> Option<Digest> {
        self.digest().take()
    }

    fn digest(&self) -> MutexGuard<'_, Option<Digest>> {
        self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a sweep: its report without the findings, the digest that tells them, and how long it took.
    pub fn publish(&self, report: Report, digest: Digest, took: Duration) {
        let mut place = self.digest();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.report = Some(Arc::new(report));
        state.durations.count(took.as_secs_f64());
        state.last = Instant::now();
        *place = Some(digest);
        self.digest_is_back.notify_all();
    }

    /// Makes a page of the last report and its findings. Waits for a sweep that is under way; one that takes long is the answer.
    fn with_findings(&self, page: impl FnOnce(&Report, &mut Digest) -> Page) -> Page {
        let waited = self.digest_is_back.wait_timeout_while(self.digest(), PATIENCE, |digest| digest.is_none());
        let (mut digest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (self.read().0, digest.as_mut()) {
            (Some(report), Some(digest)) => page(&report, digest),
            (Some(_), None) => {
                Page::text(503, "a sweep is under way and takes long; /metrics tells of the one before\n")
            }
            (None, _) => Page::text(503, "the first sweep is under way\n"),
        }
    }

    fn read(&self) -> (Option<Arc<Report>>, SweepDurations, Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.report.clone(), state.durations.clone(), state.last.elapsed())
    }

    fn metrics(&self) -> Page {
        let (report, durations, _) = self.read();
        match text(View::new(report.as_deref(), &durations, self.limits), true) {
            Ok(body) => Page { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body },
            Err(error) => Page::text(500, format!("cannot gather metrics: {error}\n")),
        }
    }

    fn report(&self, query: &[(String, String)]) -> Page {
        let wanted = match Wanted::parse(query) {
            Ok(wanted) => wanted,
            Err(error) => return Page::text(400, format!("{error}\n")),
        };
        self.with_findings(|report, digest| {
            let all = digest.findings();
            let findings = || all.iter().filter(|finding| wanted.takes(finding)).take(wanted.limit);
            match serde_json::to_string(&Document { report, findings }) {
                Ok(body) => Page { status: 200, content_type: "application/json", body },
                Err(error) => Page::text(500, format!("cannot write the report: {error}\n")),
            }
        })
    }

    fn overview(&self) -> Page {
        let page = |body| Page { status: 200, content_type: "text/html; charset=utf-8", body };
        if self.read().0.is_none() {
            return page(html(&self.node, None));
        }
        self.with_findings(|report, digest| page(html(&self.node, Some((report, &mut digest.findings().iter())))))
    }

    fn health(&self) -> Page {
        let (.., age) = self.read();
        if age <= self.stuck_after {
            Page::text(200, "ok\n")
        } else {
            Page::text(503, format!("the last sweep ended {} s ago\n", age.as_secs()))
        }
    }
}

impl Site for Published {
    /// The kubelet's probes have neither password nor certificate, and what they learn is one bit.
    fn is_open(&self, path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz")
    }

    fn page(&self, path: &str, query: &[(String, String)]) -> Option<Page> {
        Some(match path {
            "/" => self.overview(),
            "/metrics" => self.metrics(),
            "/api/v1/report" => self.report(query),
            "/healthz" => self.health(),
            "/readyz" if self.read().0.is_some() => Page::text(200, "ok\n"),
            "/readyz" => Page::text(503, "the first sweep is under way\n"),
            _ => return None,
        })
    }
}

/// What `/api/v1/report` was asked for.
struct Wanted {
    verdicts: Vec<String>,
    namespace: Option<String>,
    pod: Option<String>,
    limit: usize,
}

impl Wanted {
    fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self { verdicts: Vec::new(), namespace: None, pod: None, limit: usize::MAX };
        for (name, value) in query {
            match name.as_str() {
                "verdict" => {
                    for verdict in value.split(',') {
                        if !crate::judge::verdict::Verdict::ALL.iter().any(|known| known.name() == verdict) {
                            return Err(format!("verdict: `{verdict}` is no verdict"));
                        }
                        wanted.verdicts.push(verdict.to_owned());
                    }
                }
                "namespace" => wanted.namespace = Some(value.clone()),
                "pod" => wanted.pod = Some(value.clone()),
                "limit" => wanted.limit = value.parse().map_err(|_| format!("limit: `{value}` is no number"))?,
                other => return Err(format!("`{other}` is none of verdict, namespace, pod, limit")),
            }
        }
        Ok(wanted)
    }

    fn takes(&self, finding: &Finding) -> bool {
        let fits = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        (self.verdicts.is_empty() || self.verdicts.iter().any(|verdict| verdict == finding.verdict.name()))
            && fits(&self.namespace, &finding.owner.namespace)
            && fits(&self.pod, &finding.owner.pod)
    }
}
