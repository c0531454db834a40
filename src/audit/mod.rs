//! `audit`: one sweep, several (`--for`, `--watch`) or a recording, judged and printed.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub mod merge;
mod print;
mod progress;
mod recording;
mod selection;
mod streamed;
pub mod watch;

use crate::cli::{AuditArgs, FailOn};
use crate::config::AuditConfig;
use crate::digest::{Digest, Findings, Reads};
use crate::host::{self, Host};
use crate::judge::policy::Listed;
use crate::judge::report::Report;
use crate::judge::verdict::Verdict;
use crate::record::Recording;
use crate::show::escape;
use progress::Progress;
use recording::FileRecorder;

/// The longest interval between sweeps while `--for` watches. It is enough to notice a probe and its answer.
const WATCH_STEP: Duration = Duration::from_secs(1);

/// A table of a whole node has megabytes.
const OUTPUT_BUFFER: usize = 64 << 10;

/// Runs the command; `Ok(true)` where `--fail-on` found something, or `--compare` a change that did not take effect.
pub fn run(config: AuditConfig) -> Result<bool> {
    let AuditConfig { mut config, args } = config;
    let (named, found) = selection::namespaces(&args, &config.paths)?;
    if !named.is_empty() {
        config.policy.select.netns = Some(named.iter().map(|named| named.id).collect());
        config.paths.named = found;
    }
    // these show connections that are not flagged
    let lists_all = args.all || args.compare.is_some() || args.watch.is_some();
    config.policy.lists = if lists_all { Listed::All } else { Listed::Flagged };
    let policy = Arc::new(config.policy);
    let before = args.compare.as_deref().map(|path| recording::read(&policy, path, "compare with")).transpose()?;
    let before = before.map(|(digest, node)| AuditResult::new(digest, &node).into_report());
    if let Some(path) = &args.replay {
        let (digest, node) = recording::read(&policy, path, "replay")?;
        let result = AuditResult::new(digest, &node);
        selection::check(&args, &named, &result.digest, &result.report)?;
        return finish(&args, result, before.as_ref());
    }
    selection::procfs(&config.paths.roots.procfs)?;
    // a recording holds all counters: what is made of it may compare them
    let is_single = args.watch.is_none() && args.watch_for.is_none() && args.record.is_none();
    let sweeps = Sweeps {
        host: if is_single { Host::new(config.paths).for_single_sweep() } else { Host::new(config.paths) },
        recorder: args.record.as_deref().map(|path| recording::create(path, args.force, &config.node)).transpose()?,
        span: args.watch_for.unwrap_or_default(),
        reads: Reads {
            options: args.exact,
            holders: print::names_programs(&args) || policy.select.by_program(),
            all: args.all || args.record.is_some() || args.compare.is_some(),
        },
    };
    let digest = Digest::new(policy);
    let digest = if is_single { digest.for_single_sweep() } else { digest };
    let mut sweeper = Sweeper { sweeps, args, named, node: config.node, is_first: true };
    if let Some(pause) = sweeper.args.watch {
        return watch::run(sweeper, digest, pause);
    }
    let result = sweeper.sweep(digest)?;
    warn(&result.report);
    if let Some(recorder) = sweeper.sweeps.recorder.take() {
        is_read(recorder.into_inner().end())?;
    }
    finish(&sweeper.args, result, before.as_ref())
}

/// Logs what could not be read.
fn warn(report: &Report) {
    for loss in &report.losses {
        tracing::warn!("{}", escape::line(loss));
    }
}

/// Makes what was asked for of the sweeps of this machine.
struct Sweeper {
    sweeps: Sweeps,
    args: AuditArgs,
    /// What the first sweep has to find.
    named: Vec<selection::Named>,
    node: String,
    is_first: bool,
}

impl Sweeper {
    /// One sweep, or sweeps for as long as `--for` says.
    fn sweep(&mut self, mut digest: Digest) -> Result<AuditResult> {
        self.sweeps.watch(&mut digest)?;
        let result = AuditResult::new(digest, &self.node);
        if std::mem::take(&mut self.is_first)
            && let Err(error) = selection::check(&self.args, &self.named, &result.digest, &result.report)
        {
            // what could not be read may be why nothing was found
            warn(&result.report);
            return Err(error);
        }
        Ok(result)
    }
}

/// What an audit found: the counts, and the connections one by one.
struct AuditResult {
    digest: Digest,
    report: Report,
}

impl AuditResult {
    fn new(digest: Digest, node: &str) -> Self {
        Self { report: digest.summary(node), digest }
    }

    /// The counts, and the connections, worst first.
    fn found(&mut self) -> (&Report, Findings<'_>) {
        (&self.report, self.digest.findings())
    }

    /// The report with all its findings in memory.
    fn into_report(mut self) -> Report {
        let findings = self.found().1.iter().collect();
        Report { findings, ..self.report }
    }
}

/// The sweeps of this machine.
struct Sweeps {
    host: Host,
    recorder: Option<FileRecorder>,
    /// The time to watch before the final judgement.
    span: Duration,
    /// The facts that the last sweep reads through the processes that hold sockets.
    reads: Reads,
}

impl Sweeps {
    /// One sweep, or sweeps for as long as `--for` says.
    fn watch(&mut self, digest: &mut Digest) -> Result<()> {
        let start = Instant::now();
        let mut progress = Progress::new(self.span);
        let step = (self.span / 40).min(WATCH_STEP);
        loop {
            let left = self.span.saturating_sub(start.elapsed());
            digest.set_reads(if left.is_zero() { self.reads } else { Reads::default() });
            let mut to = Recording::new(digest, self.recorder.as_mut());
            host::on_own_thread(|| self.host.sweep_into(&mut to)).map_err(recording::plain).context("cannot sweep")?;
            if left.is_zero() {
                progress.finish();
                return Ok(());
            }
            progress.show(start.elapsed());
            sleep(step.min(left));
        }
    }
}

/// Prints what was found; whether `--fail-on` found something, or `--compare` a change that did not take effect.
fn finish(args: &AuditArgs, result: AuditResult, before: Option<&Report>) -> Result<bool> {
    let failed = args.fail_on.is_some_and(|limit| is_at_least(limit, &result.report));
    let missed = args.fail_on.filter(|_| missed(args, &result.report));
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER, io::stdout().lock());
    let took_effect = print::all(&mut out, args, result, before)?;
    is_read(out.flush())?;
    match missed {
        Some(limit) if !failed => bail!(
            "--fail-on {limit} found nothing, but the sweep is incomplete; see the warnings, or accept what was read \
             with --allow-incomplete"
        ),
        _ => Ok(failed || !took_effect),
    }
}

/// Whether a sweep ends the watch.
fn ends(args: &AuditArgs, report: &Report) -> bool {
    args.fail_on.is_some_and(|limit| is_at_least(limit, report)) || missed(args, report)
}

/// Whether `--fail-on` may have missed something that could not be read.
fn missed(args: &AuditArgs, report: &Report) -> bool {
    args.fail_on.is_some() && report.incomplete && !args.allow_incomplete
}

/// Whether a connection is at least as bad as the level of `--fail-on`.
fn is_at_least(limit: FailOn, report: &Report) -> bool {
    Verdict::ALL.into_iter().any(|verdict| limit.includes(verdict) && report.count(verdict) > 0)
}

/// Whether there is still a reader: `| head`, for example, stops reading early.
fn is_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write to stdout"),
    }
}
