//! Wrong usages: each error says what failed, on what, why, and what to do, in one voice.
//!
//! `UPDATE_GOLDENS=1 cargo test --test cli usage` writes `golden/usage.txt` again; read every line of the difference as
//! a person who does not know the code.

mod cases;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::binary::{Outcome, command, finish, run};
use crate::support::checks::Checks;

/// Texts from inside libraries and the system, which help nobody.
const FROM_INSIDE: [&str; 20] = [
    "os error",
    "invalid digit",
    "u64",
    "u16",
    "usize",
    "sequence start",
    "mapping start",
    "scalar",
    "variant",
    "missing field",
    "expected value at",
    "stream did not",
    "Error {",
    "Kind(",
    "panicked",
    "Option<",
    "Some(",
    "serde",
    "For more information",
    "possible values",
];

/// The outcome of a wrong usage in this folder, for this user. `nobody`: without root's privileges.
fn outcome(case: &[&str], folder: &Path, nobody: bool) -> Outcome {
    let of_environment = case.iter().take_while(|word| word.starts_with("KEEPALIVE_AUDITOR_")).count();
    let (variables, arguments) = case.split_at(of_environment);
    let binary = command(arguments);
    let mut run = if nobody {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all", "--"]);
        setpriv.arg(binary.get_program()).args(arguments).stdin(std::process::Stdio::null());
        setpriv
    } else {
        binary
    };
    for variable in variables {
        let (name, value) = variable.split_once('=').expect("NAME=VALUE");
        run.env(name, value);
    }
    finish(run.current_dir(folder))
}

/// Checks the voice: `error:`, then what points at the word at fault, then tips.
fn check_voice(checks: &mut Checks, case: &str, outcome: &Outcome) {
    checks.that(matches!(outcome.code(), 1 | 2), || format!("{case}: ends with {}", outcome.code()));
    checks.that(outcome.stdout.is_empty(), || format!("{case}: {}", outcome.stdout));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
    checks.equal(&format!("{case}: lines that begin with `error: `"), errors, 1);
    let is_known = |line: &&str| line.starts_with("error: ") || line.starts_with("  ") || line.starts_with(" WARN ");
    checks.that(lines.iter().all(is_known), || format!("{case}: another voice: {}", outcome.stderr));
    if outcome.code() == 2 {
        let has_tip = lines.iter().any(|line| line.starts_with("  tip: "));
        let has_line = outcome.stderr.contains("line ") || outcome.stderr.contains("cannot read");
        let points = lines.iter().any(|line| line.trim_start().starts_with('^'));
        checks.that(has_tip || has_line || points, || format!("{case}: nothing says what to do: {}", outcome.stderr));
    }
    for inside in FROM_INSIDE {
        checks.that(!outcome.stderr.contains(inside), || format!("{case}: `{inside}`: {}", outcome.stderr));
    }
}

#[test]
fn an_error_says_what_where_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), mode).expect("nobody may read it");
    for (name, text) in cases::FILES {
        fs::write(folder.path().join(name), text).expect("the file is written");
    }
    assert!(cases::CASES.len() >= 42 + 28, "{}", cases::CASES.len());
    let mut checks = Checks::default();
    let mut golden = String::new();
    for case in cases::CASES {
        let outcome_here = outcome(case, folder.path(), false);
        let shown = case.iter().map(|word| if word.is_empty() { "''" } else { word }).collect::<Vec<_>>().join(" ");
        check_voice(&mut checks, &shown, &outcome_here);
        let _ = writeln!(golden, "$ {shown}\n{}[{}]\n", outcome_here.stderr, outcome_here.code());
        if rustix::process::geteuid().is_root() {
            let nobody = outcome(case, folder.path(), true);
            checks.equal(&format!("nobody: {shown}"), nobody.stderr.as_str(), outcome_here.stderr.as_str());
            checks.equal(&format!("nobody: {shown}"), nobody.code(), outcome_here.code());
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden/usage.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, &golden).expect("the golden file is written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (now, before) in golden.split("\n\n").zip(expected.split("\n\n")) {
        checks.equal("golden/usage.txt", now, before);
    }
    checks.equal("golden/usage.txt", golden.len(), expected.len());
    checks.finish();
}

#[test]
fn an_error_in_a_filter_points_at_the_word() {
    let outcome = run(&["audit", "src", "10/8", "and", "dprot", "=", ":443"]);
    assert_eq!(outcome.status.code(), Some(2));
    assert_eq!(
        outcome.stderr,
        "error: filter: `dprot` is not a term\n  src 10/8 and dprot = :443\n               ^^^^^\n  \
         tip: did you mean `dport`?\n"
    );
}

#[test]
fn a_variable_with_a_wrong_name_is_reported() {
    let outcome = finish(
        command(&["audit", "sport = :1"])
            .env("KEEPALIVE_AUDITOR_IDLE_TIMOUT", "5s")
            // what Kubernetes sets for a service of this name
            .env("KEEPALIVE_AUDITOR_SERVICE_HOST", "10.0.0.1"),
    );
    let named: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("KEEPALIVE_AUDITOR_")).collect();
    let expected = " WARN the environment variable KEEPALIVE_AUDITOR_IDLE_TIMOUT has no meaning; did you mean \
                    KEEPALIVE_AUDITOR_IDLE_TIMEOUT?";
    assert_eq!(named, [expected]);
    assert_eq!(outcome.code(), 0);
}

#[test]
fn the_short_flags_exist() {
    let mut checks = Checks::default();
    for arguments in [
        &["audit", "-o", "json"][..],
        &["audit", "-a"],
        &["audit", "-w"],
        &["audit", "--color", "always"],
        &["profiles", "-o", "json"],
    ] {
        checks.equal(&arguments.join(" "), run(arguments).code(), 0);
    }
    checks.finish();
}
