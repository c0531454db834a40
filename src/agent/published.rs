//! The published results of the agent, and the HTTP paths that serve them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::answers::Answers;
use super::sweeps::Order;
use crate::config::AgentConfig;
use crate::digest::Digest;
use crate::host::own_process;
use crate::host::privileges::Held;
use crate::judge::report::Report;
use crate::logging;
use crate::show::metrics::agent::{AgentState, ProcessState, agent_text};
use crate::show::metrics::{Limits, SweepDurations, View, text};
use crate::web::{self, Cost, Packed, Page, Site};

/// The agent is healthy if the last good sweep is at most this many intervals plus [`SLOWEST`] old.
const HEALTHY_INTERVALS: u32 = 3;
/// A sweep that takes longer is reported.
const SLOWEST: Duration = Duration::from_secs(30);

mod findings;
mod pages;

/// The last report, and the other data for the pages.
pub(super) struct Published {
    state: Mutex<State>,
    /// Lists the connections of the last report one by one; absent while a sweep is under way.
    digest: Mutex<Option<Digest>>,
    digest_is_back: Condvar,
    /// A sweep waits for the digest: pages give it priority.
    sweep_waits: AtomicBool,
    answers: Answers,
    /// The number of the last sweep that was published, and its metrics.
    metrics: Mutex<Option<(u64, Packed)>>,
    node: String,
    web: web::Limits,
    config_is_current: AtomicBool,
    web_config_is_current: Option<web::Currency>,
    /// Sweeps that failed.
    failures: AtomicU64,
    /// The capabilities of the sweeps.
    capabilities: Held,
    /// To whoever sweeps. The thread that reads the configuration owns it.
    orders: OnceLock<Weak<Sender<Order>>>,
}

struct State {
    report: Option<Arc<Report>>,
    durations: SweepDurations,
    /// The number of published results.
    number: u64,
    /// When the last good sweep ended. Before the first one: the start of the agent.
    last: Instant,
    /// Failed sweeps since then.
    failed_since: u64,
    /// When the current sweep began.
    running: Option<Instant>,
    /// Whether the last sweep read every connection that may have moved.
    has_read_all: bool,
    /// When a request last asked for a sweep.
    asked: Option<Instant>,
    /// A long sweep is reported once.
    warned: bool,
    limits: Limits,
    interval: Duration,
}

impl State {
    /// After this long without a good sweep the agent is not healthy.
    fn unhealthy_after(&self) -> Duration {
        self.interval * HEALTHY_INTERVALS + SLOWEST
    }
}

impl Published {
    pub fn new(
        config: &AgentConfig,
        web: web::Limits,
        web_config_is_current: Option<web::Currency>,
        capabilities: Held,
    ) -> Self {
        let state = State {
            report: None,
            durations: SweepDurations::default(),
            number: 0,
            last: Instant::now(),
            failed_since: 0,
            running: None,
            has_read_all: true,
            asked: None,
            warned: false,
            limits: config.limits,
            interval: config.interval,
        };
        Self {
            state: Mutex::new(state),
            digest: Mutex::default(),
            digest_is_back: Condvar::new(),
            sweep_waits: AtomicBool::new(false),
            answers: Answers::default(),
            metrics: Mutex::default(),
            node: config.config.node.clone(),
            web,
            config_is_current: AtomicBool::new(true),
            web_config_is_current,
            failures: AtomicU64::new(0),
            capabilities,
            orders: OnceLock::new(),
        }
    }

    /// Sends its orders to this channel.
    pub fn order_by(&self, orders: &Arc<Sender<Order>>) {
        // set once, before the threads start
        let _ = self.orders.set(Arc::downgrade(orders));
    }

    /// The digest, for a sweep that begins; `None` at first.
    pub fn begin_sweep(&self) -> Option<Digest> {
        let mut state = self.state();
        state.running = Some(Instant::now());
        state.warned = false;
        drop(state);
        self.sweep_waits.store(true, Ordering::Relaxed);
        self.digest().take()
    }

    /// After a sweep: its report without the findings, the digest that lists them, and how long it took.
    pub fn publish(&self, report: Report, digest: Digest, took: Duration) {
        let slot = self.digest();
        let mut state = self.state();
        state.durations.count(took.as_secs_f64());
        state.last = Instant::now();
        state.failed_since = 0;
        self.end_sweep(slot, state, Some(report), digest);
    }

    /// Publishes the remaining result of a failed sweep, if there is one. The age of the last good one stays.
    pub fn fail(&self, report: Option<Report>, digest: Digest) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let slot = self.digest();
        let mut state = self.state();
        state.failed_since += 1;
        // the start of the last good sweep is what `last_sweep_timestamp_seconds` shows
        let last = state.report.as_ref().map(|report| report.started_at);
        let report = report.map(|report| Report { started_at: last.unwrap_or(report.started_at), ..report });
        self.end_sweep(slot, state, report, digest);
    }

    fn end_sweep(
        &self,
        mut slot: MutexGuard<'_, Option<Digest>>,
        mut state: MutexGuard<'_, State>,
        report: Option<Report>,
        digest: Digest,
    ) {
        state.running = None;
        state.has_read_all = digest.has_read_all();
        if let Some(report) = report {
            state.report = Some(Arc::new(report));
        }
        state.number += 1;
        self.answers.expire(state.number);
        *slot = Some(digest);
        drop((slot, state));
        self.sweep_waits.store(false, Ordering::Relaxed);
        self.digest_is_back.notify_all();
    }

    /// A configuration that was read again.
    pub fn apply(&self, config: &AgentConfig) {
        let mut state = self.state();
        state.limits = config.limits;
        state.interval = config.interval;
    }

    /// Whether the configuration in force is that of the file.
    pub fn set_config_is_current(&self, is_current: bool) {
        self.config_is_current.store(is_current, Ordering::Relaxed);
    }

    /// Whether sweeps still succeed.
    pub fn is_healthy(&self) -> bool {
        let state = self.state();
        state.last.elapsed() <= state.unhealthy_after()
    }

    /// Reports a sweep that takes too long, once.
    pub fn warn_of_long_sweep(&self) {
        let mut state = self.state();
        let Some(running) = state.running.map(|since| since.elapsed()) else { return };
        if running > SLOWEST && !state.warned {
            state.warned = true;
            tracing::warn!("the sweep under way has taken {} s; the numbers of the last one stay", running.as_secs());
        }
    }

    fn metrics(&self) -> Page {
        let own = match agent_text(&self.agent_state()) {
            Ok(own) => own,
            Err(error) => return Page::text(500, format!("cannot gather metrics: {error}\n")),
        };
        match self.report_metrics().and_then(|metrics| Ok(metrics.followed_by(Packed::new(&own)?))) {
            Ok(text) => Page::packed("text/plain; version=0.0.4; charset=utf-8", text),
            Err(error) => Page::text(500, format!("cannot gather metrics: {error}\n")),
        }
    }

    /// The metrics of the last report, which are rendered once.
    fn report_metrics(&self) -> io::Result<Packed> {
        let mut made = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let (report, durations, limits, number) = {
            let state = self.state();
            (state.report.clone(), state.durations.clone(), state.limits, state.number)
        };
        if let Some((of, packed)) = &*made
            && *of == number
        {
            return Ok(packed.clone());
        }
        let text = text(View::new(report.as_deref(), &durations, limits)).map_err(io::Error::other)?;
        let packed = Packed::new(&text)?;
        *made = Some((number, packed.clone()));
        Ok(packed)
    }

    fn agent_state(&self) -> AgentState {
        let counts = self.web.counts();
        let usage = own_process::usage();
        AgentState {
            capabilities: self.capabilities,
            sweep_failures: self.failures.load(Ordering::Relaxed),
            sweep_running: self.state().running.map(|since| since.elapsed()).unwrap_or_default(),
            config_is_current: self.config_is_current.load(Ordering::Relaxed),
            web_config_is_current: self.web_config_is_current.as_ref().map(web::Currency::is_current),
            web_connections: counts.connections as u64,
            web_connections_evicted: counts.evicted,
            log_lines_dropped: logging::dropped_lines(),
            process: ProcessState {
                cpu: usage.cpu,
                open_fds: usage.open_fds,
                max_fds: usage.max_fds,
                virtual_memory: usage.virtual_memory,
                resident_memory: usage.resident_memory,
                started: usage.started,
                threads: usage.threads,
            },
        }
    }

    fn health(&self) -> Page {
        let state = self.state();
        let age = state.last.elapsed();
        let failed = match state.failed_since {
            0 => String::new(),
            1 => ", and one sweep has failed since".to_owned(),
            many => format!(", and {many} sweeps have failed since"),
        };
        let age_line = format!("the last good sweep ended {} s ago{failed}\n", age.as_secs());
        if age > state.unhealthy_after() {
            Page::text(503, age_line)
        } else if state.failed_since > 0 {
            Page::text(200, format!("ok, but {age_line}"))
        } else {
            Page::text(200, "ok\n")
        }
    }

    fn ready(&self) -> Page {
        if self.state().report.is_some() {
            Page::text(200, "ok\n")
        } else {
            Page::unavailable("the first sweep is under way\n", 1)
        }
    }

    fn digest(&self) -> MutexGuard<'_, Option<Digest>> {
        self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site for Published {
    /// The kubelet's probes have neither password nor certificate, and see only whether sweeps succeed.
    fn is_open(&self, path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz")
    }

    fn cost(&self, path: &str) -> Cost {
        if matches!(path, "/" | "/api/v1/report") { Cost::Costly } else { Cost::Cheap }
    }

    fn page(&self, path: &str, query: &[(String, String)]) -> Option<Page> {
        Some(match path {
            "/" => self.overview(path, query),
            "/metrics" => self.metrics(),
            "/api/v1/report" => self.report(path, query),
            "/healthz" => self.health(),
            "/readyz" => self.ready(),
            _ => return None,
        })
    }
}
