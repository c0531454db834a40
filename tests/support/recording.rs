//! Records the scenes of the tests, for `tests/sweeps/`.
//!
//! With `KERNEL_RECORDINGS=DIR` a run writes its recordings to `DIR/<case>/sweep.jsonl`; otherwise to a temporary
//! folder. In both cases a replay must give the same report as the audit that made the recording.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::binary::{Outcome, Report, command, run};

/// Names the folder that recordings are left in.
const KEEP: &str = "KERNEL_RECORDINGS";

/// An audit that watches and records while the test goes on.
pub struct Recording {
    child: std::process::Child,
    arguments: Vec<String>,
    file: PathBuf,
    /// Goes with this value, and the recording with it unless it is to be kept.
    _temporary: tempfile::TempDir,
}

impl Recording {
    /// One look, recorded.
    pub fn of_one_sweep(case: &str, rules: &[&str]) -> Report {
        Self::start(case, None, rules).finish()
    }

    /// Starts `audit --all --record` with the rules given, and `--for` a span if there is one.
    pub fn start(case: &str, span: Option<&str>, rules: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let path = env::var_os(KEEP).map_or_else(|| temporary.path().to_owned(), PathBuf::from).join(case);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.join("sweep.jsonl");
        let arguments: Vec<String> =
            ["audit", "--all", "--format", "json"].iter().chain(rules).map(|word| (*word).to_owned()).collect();
        let mut live = command(&arguments);
        live.args(span.iter().flat_map(|span| ["--for", span])).args(["--force", "--record"]).arg(&file);
        let child = live.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        Self { child, arguments, file, _temporary: temporary }
    }

    /// Waits until it has made so many sweeps more, the one under way not counted.
    pub fn wait_for_sweeps(&self, count: usize) {
        let made = || fs::read_to_string(&self.file).map_or(0, |text| text.matches("{\"sweep_end\":").count());
        let (begun, end) = (made(), Instant::now() + Duration::from_secs(30));
        // The first is under way, or there is none yet.
        let wanted = begun + count + usize::from(begun > 0);
        while made() < wanted {
            assert!(Instant::now() < end, "{} has no {wanted} sweeps", self.file.display());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, and gives the report, which replay must give too.
    pub fn finish(self) -> Report {
        let output = self.child.wait_with_output().expect("our child ends");
        let text = |bytes| String::from_utf8(bytes).expect("the binary writes UTF-8");
        let live = Outcome { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) };
        let report = live.report();
        let replay = ["--replay".to_owned(), self.file.to_str().expect("a path in UTF-8").to_owned()];
        let again = run(&[self.arguments, replay.to_vec()].concat());
        assert_eq!(again.code(), 0, "{again:?}");
        assert_eq!(live.stdout, again.stdout, "the recording tells something else");
        report
    }
}
