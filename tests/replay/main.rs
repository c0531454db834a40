//! Judges recordings of real kernels and compares the results with golden files. Each folder `tests/sweeps/<case>/` is
//! a test.
//!
//! A case is a recording, `sweep.jsonl`, with one configuration file. With `agent.yaml` it is judged as the agent does:
//! after each sweep, and `overdue` only after the idle time was watched. With `audit.yaml`, or without a file, it is
//! judged once by the clocks. The golden files are `table.txt`, `report.json`, `metrics.txt` (without `process_*`), and
//! for an agent `verdicts.txt` with one line for each sweep.
//!
//! To add a case, add a folder and run `UPDATE_GOLDENS=1 cargo test --test replay`. Check every line of the golden
//! files: from then on they are the specification.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod damaged;
mod searched;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use keepalive_auditor::cli::{AgentArgs, AuditArgs, Common};
use keepalive_auditor::config::{AgentConfig, AuditConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::judge::policy::Policy;
use keepalive_auditor::judge::report::Report;
use keepalive_auditor::record::{Record, RecordError, replay};
use keepalive_auditor::show::json::Document;
use keepalive_auditor::show::metrics::{Limits, SweepDurations, View, text};
use keepalive_auditor::show::table;

/// If this variable is set, the test writes the golden files instead of comparing them.
const UPDATE: &str = "UPDATE_GOLDENS";

/// The rules that judge a case.
struct Judge {
    policy: Policy,
    limits: Limits,
    agent: bool,
}

impl Judge {
    fn of(case: &Path) -> Self {
        let (audit, agent) = (case.join("audit.yaml"), case.join("agent.yaml"));
        let load = |file: &Path| {
            ConfigFile::load(file.exists().then_some(file))
                .unwrap_or_else(|error| panic!("{}: {error}", case.display()))
        };
        let common = Common::default();
        let watching = AgentConfig::new(&common, &AgentArgs::default(), &load(&agent)).unwrap();
        let policy = if agent.exists() {
            assert!(!audit.exists(), "{}: judged as an agent or as an audit, not both", case.display());
            watching.config.policy
        } else {
            AuditConfig::new(&common, AuditArgs::default(), &load(&audit)).unwrap().config.policy
        };
        Self { policy, limits: watching.limits, agent: agent.exists() }
    }
}

/// The results of a case, by file name.
fn replayed(case: &Path) -> Vec<(&'static str, String)> {
    let Judge { policy, limits, agent } = Judge::of(case);
    let mut digest = Digest::new(Arc::new(policy));
    let mut durations = SweepDurations::default();
    let mut verdicts = Vec::new();
    let mut last = None;
    let file = File::open(case.join("sweep.jsonl")).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let header = replay(BufReader::new(file), |record: Record<'static>| {
        digest.feed(&record);
        // an audit judges once, at the end
        if agent && matches!(record, Record::SweepEnd { .. }) {
            let report = digest.report("node-1");
            verdicts.push(format!("{:6.1} s: {}\n", report.watched_for.as_secs_f64(), table::summary(&report)));
            durations.count(report.duration.as_secs_f64());
            last = Some(report);
        }
        Ok::<(), RecordError>(())
    })
    .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    assert_eq!(header.node, "node-1", "a recording in the repository names no real machine");
    let report = last.unwrap_or_else(|| {
        let report = digest.report(&header.node);
        durations.count(report.duration.as_secs_f64());
        report
    });
    let mut outputs = vec![
        ("table.txt", shown(&report)),
        ("report.json", json(&report)),
        ("metrics.txt", page(&report, &durations, limits)),
    ];
    if agent {
        outputs.push(("verdicts.txt", verdicts.concat()));
    }
    for (_, output) in &mut outputs {
        *output = without_version(output);
    }
    outputs
}

fn shown(report: &Report) -> String {
    let mut out = Vec::new();
    table::write(&mut out, report, || report.findings.iter(), table::Options::default()).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(&Document { report, findings: || report.findings.iter() }).unwrap() + "\n"
}

fn page(report: &Report, durations: &SweepDurations, limits: Limits) -> String {
    text(View::new(Some(report), durations, limits)).unwrap()
}

/// Removes the version and the revision, which change without a change of judgement.
fn without_version(output: &str) -> String {
    let output = output.replace(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), "\"VERSION\"");
    let Some((before, rest)) = output.split_once("revision=\"") else { return output };
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}revision=\"REVISION\"{after}")
}

fn sweeps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> = fs::read_dir(sweeps()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    cases
}

/// The first line in which two texts differ.
fn difference(expected: &str, got: &str) -> String {
    let (mut expected, mut got) = (expected.lines(), got.lines());
    for number in 1.. {
        let (want, have) = (expected.next(), got.next());
        if want != have {
            return format!(
                "line {number}\n  expected: {}\n       got: {}",
                want.unwrap_or("(the end)"),
                have.unwrap_or("(the end)")
            );
        }
        if want.is_none() {
            break;
        }
    }
    "line ends".to_owned()
}

#[test]
fn each_recording_gives_its_goldens() {
    let update = std::env::var_os(UPDATE).is_some();
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    for case in &cases {
        for (name, output) in replayed(case) {
            let golden = case.join(name);
            if update {
                fs::write(&golden, &output).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap_or_default();
            if expected != output {
                wrong.push(format!("{}: {}", golden.display(), difference(&expected, &output)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n({UPDATE}=1 writes the goldens again)", wrong.join("\n"));
}

#[test]
fn a_recording_is_small_and_the_cases_cover_every_verdict() {
    let mut missing = vec![
        "local",
        "blackholed",
        "unanswered",
        "undetermined",
        "protected",
        "peer_protected",
        "overdue",
        "exposed",
        "young",
    ];
    for case in cases() {
        let size = fs::metadata(case.join("sweep.jsonl")).unwrap().len();
        assert!(size < 60_000, "{}: {size} bytes", case.display());
        let (_, report) = replayed(&case).swap_remove(1);
        missing.retain(|verdict| !report.contains(&format!("\"verdict\": \"{verdict}\"")));
    }
    assert!(missing.is_empty(), "no case ends in {missing:?}");
}

/// The program gives the same result as the library.
#[test]
fn audit_replays_what_the_golden_says() {
    for case in cases().into_iter().filter(|case| !case.join("agent.yaml").exists()) {
        let mut audit = Command::new(env!("CARGO_BIN_EXE_keepalive-auditor"));
        audit.env_clear().args(["audit", "--all", "--format", "json", "--replay"]).arg(case.join("sweep.jsonl"));
        let configuration = case.join("audit.yaml");
        audit.args(
            configuration.exists().then(|| ["--config".into(), configuration.into_os_string()]).into_iter().flatten(),
        );
        let output = audit.output().unwrap();
        assert!(output.status.success(), "{}: {}", case.display(), String::from_utf8_lossy(&output.stderr));
        let (_, expected) = replayed(&case).swap_remove(1);
        let got = without_version(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(got, expected, "{}", case.display());
    }
}
