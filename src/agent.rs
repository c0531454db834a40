//! `agent`: sweeps, digests and publishes a report, waits for the next tick, and serves what was published.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::AgentConfig;
use crate::digest::Digest;
use crate::host::{self, Host};
use crate::judge::report::{Finding, Report};
use crate::show::json::Document;
use crate::show::metrics::{Limits, SweepDurations, View, text};
use crate::show::page::html;
use crate::web::{self, Page, Site};

/// How long requests and a sweep under way may still take once a signal has come; the whole stop takes 2 s at most.
const GRACE: Duration = Duration::from_secs(1);
/// Sweeps keep coming while the last one is not older than this many intervals, and [`SLOWEST`] more.
const HEALTHY_INTERVALS: u32 = 3;
/// What a sweep may take before the agent counts as stuck.
const SLOWEST: Duration = Duration::from_secs(30);

/// So many dumps of one sweep are worth a word if they are slow.
const MANY_DUMPS: u64 = 20;
/// A sweep below this is not slow, milliseconds.
const LONG_SWEEP_MS: u64 = 100;

/// Runs until SIGTERM or SIGINT.
pub fn run(config: AgentConfig) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the agent's runtime")?;
    let result = runtime.block_on(serve(config));
    // a sweep under way holds no lock and writes nothing: it may be left behind
    runtime.shutdown_timeout(GRACE / 2);
    result
}

async fn serve(mut config: AgentConfig) -> Result<()> {
    let listener = TcpListener::bind(config.listen_address)
        .await
        .with_context(|| format!("cannot listen on {} (--web.listen-address)", config.listen_address))?;
    tracing::info!(address = %listener.local_addr()?, interval = ?config.interval, "serving");
    let published = Arc::new(Published::new(&config));
    let (stop, stopped) = watch::channel(false);
    let access = config.access.take();
    let sweeps = tokio::spawn(sweep_on(config, published.clone()));
    let mut asked = stopped.clone();
    let web = tokio::spawn(web::serve(listener, published, access, async move {
        let _ = asked.wait_for(|stop| *stop).await;
    }));
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        ended = sweeps => return ended.context("the sweeps ended")?,
    }
    stop.send_replace(true);
    // a scrape that does not end is not waited for
    if let Ok(ended) = tokio::time::timeout(GRACE, web).await {
        ended.context("the web server ended")?.context("the web server failed")?;
    }
    Ok(())
}

/// Sweeps for ever, one after the other, each on a thread of its own.
async fn sweep_on(config: AgentConfig, published: Arc<Published>) -> Result<()> {
    let policy = Arc::new(config.config.policy);
    let node = host::node_name();
    let new = || (Host::new(config.config.places.clone()), Digest::new(policy.clone()).skipping());
    let mut state = Some(new());
    let mut hinted = false;
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let (mut host, mut digest) = state.take().unwrap_or_else(new);
        let node = node.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let swept = host::on_own_thread(|| host.sweep_into(&mut digest, &mut |_| Ok(())));
            let report = swept.map(|swept| swept.map(|()| digest.report(&node)));
            (report, host, digest)
        })
        .await
        .context("the sweep's task ended")?;
        let (report, host, digest) = swept;
        match report {
            Ok(Ok(report)) => {
                log(&report);
                if !hinted && walks_dominate(&report) {
                    hinted = true;
                    tracing::info!(
                        "most of a sweep goes into walking the node's table of connections, once for each network namespace that is dumped.                          `sysctl -w net.ipv4.tcp_child_ehash_entries=4096` on the node (Linux 6.1 or later) gives each namespace                          that is made from then on a table of its own"
                    );
                }
                published.publish(report, begun.elapsed());
                state = Some((host, digest));
            }
            Ok(Err(error)) => tracing::error!(%error, "a sweep failed"),
            // what a panic left behind is not trusted: the memory starts anew
            Err(error) => tracing::error!(%error, "a sweep failed; connections are watched anew"),
        }
    }
}

/// Whether a sweep spends its time on walks and not on connections, of which one costs about a microsecond (benches/README.md).
fn walks_dominate(report: &Report) -> bool {
    let connections_take = report.connections / 1000;
    report.namespaces.dumped >= MANY_DUMPS && report.duration >= LONG_SWEEP_MS.max(4 * connections_take)
}

fn log(report: &Report) {
    tracing::info!(
        connections = report.connections,
        flagged = report.flagged(),
        dumped = report.namespaces.dumped,
        skipped = report.namespaces.skipped,
        empty = report.namespaces.empty,
        failed = report.namespaces.failed,
        milliseconds = report.duration,
        "swept"
    );
    for loss in &report.losses {
        tracing::debug!("{loss}");
    }
    if report.totals.sweeps == 1 {
        for loss in &report.losses {
            tracing::warn!("{loss}");
        }
    }
}

/// The last report, and what the pages need beside it.
struct Published {
    state: Mutex<State>,
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
    fn new(config: &AgentConfig) -> Self {
        Self {
            state: Mutex::new(State { report: None, durations: SweepDurations::default(), last: Instant::now() }),
            node: host::node_name(),
            limits: config.limits,
            stuck_after: config.interval * HEALTHY_INTERVALS + SLOWEST,
        }
    }

    fn publish(&self, report: Report, took: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.report = Some(Arc::new(report));
        state.durations.count(took.as_secs_f64());
        state.last = Instant::now();
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
        let (Some(report), ..) = self.read() else { return Page::text(503, "the first sweep is under way\n") };
        let wanted = match Wanted::parse(query) {
            Ok(wanted) => wanted,
            Err(error) => return Page::text(400, format!("{error}\n")),
        };
        let takes = |finding: &&Finding| wanted.takes(finding);
        let findings = || report.findings.iter().filter(takes).take(wanted.limit);
        match serde_json::to_string(&Document { report: &report, findings }) {
            Ok(body) => Page { status: 200, content_type: "application/json", body },
            Err(error) => Page::text(500, format!("cannot write the report: {error}\n")),
        }
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
            "/" => {
                let (report, ..) = self.read();
                Page {
                    status: 200,
                    content_type: "text/html; charset=utf-8",
                    body: html(&self.node, report.as_deref()),
                }
            }
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
