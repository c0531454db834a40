//! `audit`: one sweep (or a recording), digested and printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cli::{AuditArgs, Format};
use crate::config::AuditConfig;
use crate::digest::{Digest, Findings};
use crate::host::exact::{self, Exact};
use crate::host::netns::{self, Found};
use crate::host::{self, Host};
use crate::judge::policy::Policy;
use crate::judge::report::{Finding, Report};
use crate::judge::verdict::Verdict;
use crate::owner::NsId;
use crate::record::{Header, Record, RecordError, Recorder, Recording, replay};
use crate::show::compare::compare;
use crate::show::explain::{Programs, explain};
use crate::show::json::{Document, connection};
use crate::show::table;

/// While `--for` watches, a sweep this often at least: a probe and its answer are noticed, not timed.
const WATCH_STEP: Duration = Duration::from_secs(1);

/// Runs the command; `Ok(true)` where `--fail-on` found something.
pub fn run(config: AuditConfig) -> Result<bool> {
    let AuditConfig { config, args } = config;
    let policy = Arc::new(config.policy);
    let mut places = config.places;
    let mut before =
        args.compare.as_deref().map(|path| replayed(&policy, path)).transpose()?.map(AuditResult::into_report);
    if let Some(path) = &args.replay {
        return finish(&args, replayed(&policy, path)?, before.as_ref(), None);
    }
    places.only = chosen(args.netns.as_deref(), args.pid, &places)?;
    if let (Some(before), Some(only)) = (&mut before, &places.only) {
        before.findings.retain(|finding| only.contains_key(&finding.netns));
    }
    let mut recorder = args.record.as_deref().map(create_recorder).transpose()?;
    let procfs = places.roots.procfs.clone();
    let mut host = Host::new(places);
    let mut digest = Digest::new(policy);
    loop {
        watch(&mut host, &mut digest, &mut recorder, args.watch_for)?;
        let mut look = AuditResult::new(digest, &host::node_name());
        if args.exact {
            look.read_exact(&procfs, args.all);
        }
        for loss in &look.report.losses {
            tracing::warn!("{loss}");
        }
        let Some(pause) = args.watch else { return finish(&args, look, before.as_ref(), Some(&procfs)) };
        let mut out = BufWriter::new(io::stdout().lock());
        if io::stdout().is_terminal() {
            // clear the screen, cursor home
            write!(out, "\x1b[2J\x1b[H")?;
        }
        if !is_read(print(&mut out, &args, &mut look).and_then(|()| out.flush()))? {
            return Ok(false);
        }
        drop(out);
        digest = look.digest;
        sleep(pause);
    }
}

/// What one look found: the counts, and the connections one by one.
struct AuditResult {
    digest: Digest,
    report: Report,
    exact: Exact,
}

impl AuditResult {
    fn new(mut digest: Digest, node: &str) -> Self {
        Self { report: digest.summary(node), digest, exact: Exact::default() }
    }

    /// The counts, and the connections.
    fn found(&mut self) -> (&Report, Connections<'_>) {
        (&self.report, Connections { findings: self.digest.findings(), exact: &self.exact })
    }

    /// The report with all its findings, which are held from then on.
    fn into_report(mut self) -> Report {
        let findings = self.found().1.iter().collect();
        Report { findings, ..self.report }
    }

    /// Adds the true socket options to flagged connections, or to all.
    fn read_exact(&mut self, procfs: &Path, all: bool) {
        let asked = |finding: &Finding| (all || finding.verdict.flagged()) && finding.inode != 0;
        let wanted = self.found().1.iter().filter(asked).map(|finding| finding.inode).collect();
        self.exact = exact::read(procfs, &wanted);
        if let Some(missing) = &self.exact.missing {
            tracing::warn!("{missing}");
        }
    }
}

/// The connections of a look, which can be gone through again and again.
#[derive(Clone, Copy)]
struct Connections<'a> {
    findings: Findings<'a>,
    exact: &'a Exact,
}

impl<'a> Connections<'a> {
    /// Worst first, each made when it is asked for.
    fn iter(self) -> impl Iterator<Item = Finding> + use<'a> {
        let Self { findings, exact } = self;
        findings.iter().map(|finding| Finding { exact: exact.options.get(&finding.inode).copied(), ..finding })
    }
}

/// One sweep, or sweeps for as long as `--for` says.
fn watch(
    host: &mut Host,
    digest: &mut Digest,
    recorder: &mut Option<FileRecorder>,
    span: Option<Duration>,
) -> Result<()> {
    let begun = Instant::now();
    let span = span.unwrap_or_default();
    let step = (span / 40).min(WATCH_STEP);
    loop {
        sweep(host, digest, recorder)?;
        let left = span.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        sleep(step.min(left));
    }
}

type FileRecorder = Recorder<BufWriter<File>>;

fn sweep(host: &mut Host, digest: &mut Digest, recorder: &mut Option<FileRecorder>) -> Result<()> {
    let mut to = Recording::new(digest, recorder.as_mut());
    host::on_own_thread(|| host.sweep_into(&mut to)).context("cannot sweep")
}

fn create_recorder(path: &Path) -> Result<FileRecorder> {
    let file = File::create(path).with_context(|| format!("cannot create the recording {}", path.display()))?;
    tracing::warn!("the recording {} will hold addresses and names of this machine", path.display());
    let header = Header::new(host::kernel_release(), host::node_name(), host::wall_clock());
    Ok(Recorder::new(BufWriter::new(file), &header)?)
}

/// Feeds a recording to the digest; returns the name of the node it was made on.
fn replay_into(digest: &mut Digest, path: &Path) -> Result<String> {
    let failed = || format!("cannot replay {}", path.display());
    let file = File::open(path).with_context(failed)?;
    let header = replay(BufReader::new(file), |record: Record<'static>| {
        digest.feed(&record);
        Ok::<(), RecordError>(())
    })
    .with_context(failed)?;
    Ok(header.node)
}

/// What a recording shows.
fn replayed(policy: &Arc<Policy>, path: &Path) -> Result<AuditResult> {
    let mut digest = Digest::new(Arc::clone(policy));
    let node = replay_into(&mut digest, path)?;
    Ok(AuditResult::new(digest, &node))
}

/// The executables that hold the sockets of a report.
fn programs(report: &Report, procfs: &Path) -> Programs {
    let inodes = report.findings.iter().map(|finding| finding.inode).collect();
    host::programs::of_inodes(procfs, &inodes)
}

/// The namespace that `--netns` or `--pid` names.
fn chosen(netns: Option<&str>, pid: Option<u32>, places: &host::HostPaths) -> Result<Option<BTreeMap<NsId, Found>>> {
    let mut only = BTreeMap::new();
    if let Some(pid) = pid {
        let path = places.roots.procfs.join(pid.to_string()).join("ns/net");
        let id = netns::id_of(&path)
            .with_context(|| format!("--pid {pid}: cannot read its network namespace {}", path.display()))?;
        only.insert(id, Found { pids: vec![pid], ..Found::default() });
    }
    if let Some(name) = netns {
        let candidates: Vec<_> = if name.contains('/') {
            vec![name.into()]
        } else {
            places.netns_dirs.iter().map(|directory| directory.join(name)).collect()
        };
        let path = candidates.iter().find(|path| path.exists()).with_context(|| {
            let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            format!("--netns {name}: there is no such network namespace (looked at {})", looked.join(", "))
        })?;
        let id = netns::id_of(path).with_context(|| format!("--netns {name}: cannot open {}", path.display()))?;
        let shown = path.file_name().map(|name| name.to_string_lossy().into_owned());
        only.insert(id, Found { name: shown, mount: Some(path.clone()), pids: Vec::new() });
    }
    Ok((!only.is_empty()).then_some(only))
}

/// Prints what was found; `procfs` tells which programs hold the sockets, where the look was at this machine.
fn finish(args: &AuditArgs, mut look: AuditResult, before: Option<&Report>, procfs: Option<&Path>) -> Result<bool> {
    let failed = args.fail_on.is_some_and(|limit| {
        Verdict::ALL.into_iter().any(|verdict| limit.includes(verdict) && look.report.count(verdict) > 0)
    });
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = if before.is_some() { Ok(()) } else { print(&mut out, args, &mut look) };
    if args.explain || before.is_some() {
        let report = look.into_report();
        let programs = procfs.map(|procfs| programs(&report, procfs)).unwrap_or_default();
        let advice = match before {
            Some(before) => compare(before, &report, &programs),
            None => format!("\n{}", explain(&report, &programs)?),
        };
        written = written.and_then(|()| out.write_all(advice.as_bytes()));
    }
    is_read(written.and_then(|()| out.flush()))?;
    Ok(failed)
}

/// Whether there still is a reader: one may have seen enough, as in `| head`.
fn is_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write to stdout"),
    }
}

fn print(out: &mut impl Write, args: &AuditArgs, look: &mut AuditResult) -> io::Result<()> {
    let (report, found) = look.found();
    let findings = || found.iter().filter(|finding| args.all || finding.verdict.flagged());
    match args.format.unwrap_or_default() {
        format @ (Format::Table | Format::Wide) => {
            table::write(out, report, findings, table::Options { wide: format == Format::Wide })
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &Document { report, findings })?;
            writeln!(out)
        }
        Format::Jsonl => {
            for finding in findings() {
                serde_json::to_writer(&mut *out, &connection(&finding))?;
                writeln!(out)?;
            }
            Ok(())
        }
    }
}
