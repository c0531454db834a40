//! Sweeps at the interval, one sweep after the other, and publishes each result. A failed sweep drops no results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::published::Published;
use crate::config::{AgentConfig, Config};
use crate::digest::Digest;
use crate::host::{self, Host, HostPaths};
use crate::judge::policy::Policy;
use crate::judge::report::{Millis, Report};
use crate::show::escape;

/// The number of slow dumps in one sweep from which on a hint is logged.
const MANY_DUMPS: u64 = 20;
/// A shorter sweep is not slow.
const LONG_SWEEP: Millis = Millis::new(100);
/// After this many consecutive failures the memory is dropped, because it may itself be the cause.
const MAX_FAILURES: u32 = 5;

/// An order for the sweeps, which takes effect at once.
pub(super) enum Order {
    /// Use another configuration, and sweep.
    Configure(Box<AgentConfig>),
    /// Sweep, and read every connection.
    SweepAll,
}

/// The state that sweeps keep from one to the next.
pub(super) struct Sweeps {
    paths: HostPaths,
    policy: Arc<Policy>,
    interval: Duration,
    node: String,
    published: Arc<Published>,
    host: Host,
    /// Failures since the last good sweep.
    failures: u32,
    hinted: bool,
    /// Reasons for losses that the log already has.
    reported: BTreeSet<&'static str>,
    changes: Changes,
    /// The digest does not have it yet.
    is_new_policy: bool,
    /// The next sweep reads every connection.
    reads_all: bool,
}

impl Sweeps {
    pub fn new(config: AgentConfig, published: Arc<Published>) -> Self {
        let Config { paths, policy, node, .. } = config.config;
        Self {
            host: Host::new(paths.clone()),
            paths,
            policy: Arc::new(policy),
            interval: config.interval,
            node,
            published,
            failures: 0,
            hinted: false,
            reported: BTreeSet::new(),
            changes: Changes::new(Instant::now()),
            is_new_policy: false,
            reads_all: false,
        }
    }

    /// Sweeps until the sender of orders is gone. After an order, the next sweep begins at once.
    pub fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            let start = Instant::now();
            self.sweep();
            match orders.recv_timeout(self.interval.saturating_sub(start.elapsed())) {
                Ok(Order::Configure(config)) => self.apply(*config),
                Ok(Order::SweepAll) => self.reads_all = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, config: AgentConfig) {
        self.published.apply(&config);
        let Config { paths, policy, .. } = config.config;
        self.interval = config.interval;
        self.policy = Arc::new(policy);
        self.is_new_policy = true;
        if paths != self.paths {
            self.host = Host::new(paths.clone());
            self.paths = paths;
        }
    }

    /// Runs one sweep on a new thread.
    fn sweep(&mut self) {
        let start = Instant::now();
        let digest = self.published.begin_sweep();
        let mut digest = digest.unwrap_or_else(|| Digest::new(self.policy.clone()).skipping().naming_programs());
        if std::mem::take(&mut self.is_new_policy) {
            digest.set_policy(self.policy.clone());
        }
        if std::mem::take(&mut self.reads_all) {
            digest.read_all();
        }
        match self.host.sweep(&mut digest) {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("sweeps succeed again");
                }
                let report = digest.summary(&self.node);
                self.log(&report);
                self.hint(&report);
                if report.is_blind {
                    self.published.fail(Some(report), digest);
                } else {
                    self.published.publish(report, digest, start.elapsed());
                }
            }
            Err(error) => self.fail(digest, &error),
        }
    }

    /// Handles a failed sweep: judges the namespaces that it read, and keeps the memory of the others.
    fn fail(&mut self, mut digest: Digest, error: &std::io::Error) {
        self.failures += 1;
        tracing::error!(%error, "a sweep failed; connections are shown as they were last seen");
        // a panic may have left any of the host's own state half-made
        self.host = Host::new(self.paths.clone());
        if self.failures.is_multiple_of(MAX_FAILURES) {
            tracing::error!("{} sweeps failed in a row; connections are watched again from the start", self.failures);
            digest = Digest::new(self.policy.clone()).skipping().naming_programs();
            self.published.fail(None, digest);
            return;
        }
        let report = digest.abandon_sweep(&format!("the sweep failed: {error}"), host::clock());
        let report = report.then(|| digest.summary(&self.node));
        self.published.fail(report, digest);
    }

    /// Logs what changed, and each reason for a loss when it first occurs and when it ends. A sweep that is like the
    /// one before has a line only at the level debug.
    fn log(&mut self, report: &Report) {
        log(report);
        for (is_warning, sentence) in self.changes.of(report, Instant::now()) {
            if is_warning {
                tracing::warn!("{sentence}");
            } else {
                tracing::info!("{sentence}");
            }
        }
        for (reason, detail) in &report.failures {
            if self.reported.insert(reason) {
                tracing::warn!(reason, "{}", escape::line(detail));
            }
        }
        self.reported.retain(|reason| {
            let is_over = !report.failures.contains_key(reason);
            if is_over {
                tracing::info!(reason, "nothing is lost for this reason any more");
            }
            !is_over
        });
    }

    fn hint(&mut self, report: &Report) {
        if !self.hinted && walks_dominate(report) {
            self.hinted = true;
            tracing::info!(
                "most of a sweep goes into walking the node's table of connections, once for each network namespace \
                 that is dumped. `sysctl -w net.ipv4.tcp_child_ehash_entries=4096` on the node (Linux 6.1 or later) \
                 gives each new namespace a table of its own"
            );
        }
    }
}

/// Whether a sweep spends most time on walks of the table: one connection costs about a microsecond
/// (benches/README.md).
fn walks_dominate(report: &Report) -> bool {
    let connections_take = Millis::new(report.connections / 1000);
    report.namespaces.dumped >= MANY_DUMPS && report.duration >= LONG_SWEEP.max(connections_take.saturating_mul(4))
}

fn log(report: &Report) {
    tracing::debug!(
        connections = report.connections,
        flagged = report.flagged(),
        dumped = report.namespaces.dumped,
        looked_up = report.namespaces.looked_up,
        skipped = report.namespaces.skipped,
        empty = report.namespaces.empty,
        failed = report.namespaces.failed,
        milliseconds = report.duration.get(),
        "swept"
    );
    for loss in &report.losses {
        tracing::debug!("{}", escape::line(loss));
    }
}
