//! `agent`: sweeps, digests and publishes a report, waits for the next tick, and serves what was published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{AgentConfig, Config};
use crate::digest::Digest;
use crate::host::{self, Host, HostPaths};
use crate::judge::policy::Policy;
use crate::judge::report::Report;
use crate::web;

mod published;

use published::Published;

/// How long requests and a sweep under way may still take once a signal has come; the whole stop takes 2 s at most.
const GRACE: Duration = Duration::from_secs(1);
/// Pages that are made at the same time; the others wait.
const MAX_PAGES_AT_ONCE: usize = 6;

/// So many dumps of one sweep are worth a word if they are slow.
const MANY_DUMPS: u64 = 20;
/// A sweep below this is not slow, milliseconds.
const LONG_SWEEP_MS: u64 = 100;

/// Runs until SIGTERM or SIGINT.
pub fn run(config: AgentConfig) -> Result<()> {
    // one thread waits for everything, one more for the sweep; a page is made on another, and so many at once at most
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1 + MAX_PAGES_AT_ONCE)
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

/// Sweeps for ever, one after the other.
async fn sweep_on(config: AgentConfig, published: Arc<Published>) -> Result<()> {
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeps = Sweeps::new(config, published);
    loop {
        ticks.tick().await;
        let next = tokio::task::spawn_blocking(move || {
            sweeps.sweep();
            sweeps
        });
        sweeps = next.await.context("the sweep's task ended")?;
    }
}

/// What sweeps need, and keep from one to the next.
struct Sweeps {
    places: HostPaths,
    policy: Arc<Policy>,
    node: String,
    published: Arc<Published>,
    /// Absent after a sweep that failed.
    host: Option<Host>,
    hinted: bool,
}

impl Sweeps {
    fn new(config: AgentConfig, published: Arc<Published>) -> Self {
        let Config { places, policy, .. } = config.config;
        Self { places, policy: Arc::new(policy), node: host::node_name(), published, host: None, hinted: false }
    }

    /// One sweep, on a thread of its own; its report is published.
    fn sweep(&mut self) {
        let begun = Instant::now();
        let mut host = self.host.take().unwrap_or_else(|| Host::new(self.places.clone()));
        let digest = self.published.take_digest();
        let mut digest = digest.unwrap_or_else(|| Digest::new(self.policy.clone()).skipping());
        match host::on_own_thread(|| host.sweep_into(&mut digest)) {
            Ok(()) => {
                let report = digest.summary(&self.node);
                log(&report);
                if !self.hinted && walks_dominate(&report) {
                    self.hinted = true;
                    tracing::info!(
                        "most of a sweep goes into walking the node's table of connections, once for each network namespace that is dumped. \
                         `sysctl -w net.ipv4.tcp_child_ehash_entries=4096` on the node (Linux 6.1 or later) gives each namespace that is \
                         made from then on a table of its own"
                    );
                }
                self.published.publish(report, digest, begun.elapsed());
                self.host = Some(host);
            }
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
        looked_up = report.namespaces.looked_up,
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
