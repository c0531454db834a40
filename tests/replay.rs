//! Recordings of what kernels said, and what we make of them: each folder `tests/sweeps/<case>/` is a test.
//!
//! A case is a recording, `sweep.jsonl`, with the configuration file of the command that judges it: `agent.yaml`, which judges after each
//! sweep and calls nothing overdue that it has not watched, or else `audit.yaml` (which may be missing), which judges once by the clocks.
//! What must come out lies beside it: `table.txt`, `report.json`, the whole `metrics.txt` (without `process_*`), and for an agent
//! `verdicts.txt`, a line a sweep. To add a case drop in a folder; `UPDATE_GOLDENS=1 cargo test --test replay` writes what comes out, and
//! every line of it is then checked by hand: from then on it is the specification.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
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

/// Set to anything: goldens are written instead of compared.
const UPDATE: &str = "UPDATE_GOLDENS";

/// By what a case is judged.
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

/// What comes out of a case, by file name.
fn replayed(case: &Path) -> Vec<(&'static str, String)> {
    let Judge { policy, limits, agent } = Judge::of(case);
    let mut digest = Digest::new(Arc::new(policy));
    let mut durations = SweepDurations::default();
    let mut verdicts = String::new();
    let mut last = None;
    let file = File::open(case.join("sweep.jsonl")).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let header = replay(BufReader::new(file), |record: Record<'static>| {
        digest.feed(&record);
        // an audit judges once, at the end
        if agent && matches!(record, Record::SweepEnd { .. }) {
            let report = digest.report("node-1");
            writeln!(verdicts, "{:6.1} s: {}", seconds(report.watched_for), table::summary(&report))
                .expect("a string takes it");
            durations.count(seconds(report.duration));
            last = Some(report);
        }
        Ok::<(), RecordError>(())
    })
    .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    assert_eq!(header.node, "node-1", "a recording in the repository names no real machine");
    let report = last.unwrap_or_else(|| {
        let report = digest.report(&header.node);
        durations.count(seconds(report.duration));
        report
    });
    let mut outputs = vec![
        ("table.txt", shown(&report)),
        ("report.json", json(&report)),
        ("metrics.txt", text(View::new(Some(&report), &durations, limits), false).unwrap()),
    ];
    if agent {
        outputs.push(("verdicts.txt", verdicts));
    }
    // a new version of the program changes no judgement
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    for (_, output) in &mut outputs {
        *output = without_revision(&output.replace(&version, "\"VERSION\""));
    }
    outputs
}

fn shown(report: &Report) -> String {
    let mut out = Vec::new();
    table::write(&mut out, report, table::Options { all: true, wide: false }).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(&Document { report, keep: |_: &_| true, limit: usize::MAX }).unwrap() + "\n"
}

/// The label that differs from build to build.
fn without_revision(page: &str) -> String {
    let Some((before, rest)) = page.split_once("revision=\"") else { return page.to_owned() };
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}revision=\"REVISION\"{after}")
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds in milliseconds")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
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
    assert!(wrong.is_empty(), "{}\n({UPDATE}=1 writes the goldens anew)", wrong.join("\n"));
}

#[test]
fn a_recording_is_small_and_the_cases_cover_every_verdict() {
    let mut missing =
        vec!["local", "blackholed", "undetermined", "protected", "peer_protected", "overdue", "exposed", "young"];
    for case in cases() {
        let size = fs::metadata(case.join("sweep.jsonl")).unwrap().len();
        assert!(size < 60_000, "{}: {size} bytes", case.display());
        let (_, report) = replayed(&case).swap_remove(1);
        missing.retain(|verdict| !report.contains(&format!("\"verdict\": \"{verdict}\"")));
    }
    assert!(missing.is_empty(), "no case ends in {missing:?}");
}

/// A recording of one sweep, as text.
fn recording() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/keepalive-off/sweep.jsonl")).unwrap()
}

/// How many records are read, or why none are.
fn read(bytes: &[u8]) -> Result<usize, RecordError> {
    let mut digest = Digest::new(Arc::default());
    let mut records = 0;
    replay(bytes, |record: Record<'static>| {
        digest.feed(&record);
        records += 1;
        Ok::<(), RecordError>(())
    })?;
    let _ = digest.report("node-1");
    Ok(records)
}

#[test]
fn a_recording_cut_off_anywhere_is_refused() {
    let whole = recording();
    assert!(read(whole.as_bytes()).is_ok());
    // without its last newline the last record is still whole
    for length in 0..whole.len() - 1 {
        let error = read(&whole.as_bytes()[..length]).expect_err(&format!("cut to {length} bytes"));
        assert!(matches!(error, RecordError::Foreign | RecordError::Truncated(_)), "cut to {length} bytes: {error}");
    }
}

#[test]
fn a_cut_between_two_sweeps_leaves_the_sweeps_before_it() {
    let whole =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/probes-that-stop/sweep.jsonl"))
            .unwrap();
    let second = whole.match_indices("{\"sweep\":").nth(1).unwrap().0;
    assert!(read(&whole.as_bytes()[..second]).unwrap() > 2);
}

#[test]
fn what_is_no_recording_of_ours_is_refused_with_the_reason() {
    let whole = recording();
    let (header, rest) = whole.split_once('\n').unwrap();
    let cases = [
        ("nothing", String::new(), "not a keepalive-auditor recording"),
        ("text", "hello\n".to_owned(), "not a keepalive-auditor recording"),
        ("bytes", "\u{7f}ELF\u{2}\u{1}\n\0\0".to_owned(), "not a keepalive-auditor recording"),
        ("other JSON", "{\"log\":{\"version\":\"1.2\"}}\n".to_owned(), "not a keepalive-auditor recording"),
        ("no header", rest.to_owned(), "not a keepalive-auditor recording"),
        (
            "another program's header",
            whole.replace("keepalive-auditor recording", "another recording"),
            "not a keepalive-auditor recording",
        ),
        ("a newer version", whole.replace("\"version\":1", "\"version\":2"), "has version 2"),
        ("another byte order", whole.replace("little", "big"), "made on a big-endian machine"),
        ("two headers", format!("{header}\n{whole}"), "header"),
        ("two recordings", format!("{whole}{whole}"), "header"),
        ("an unknown record", whole.replace("{\"dump_end\"", "{\"dump_start\""), "line 6: not a record"),
        ("no base64", whole.replace("\"bytes\":\"", "\"bytes\":\"*"), "line 4: not a record"),
    ];
    for (name, text, reason) in cases {
        match read(text.as_bytes()) {
            Ok(records) => panic!("{name}: {records} records are taken"),
            Err(error) => assert!(error.to_string().contains(reason), "{name}: {error}"),
        }
    }
    let endless = [header.as_bytes(), b"\n", &b" ".repeat(17 << 20)].concat();
    assert!(matches!(read(&endless), Err(RecordError::LineTooLong(2))));
}
