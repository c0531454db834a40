//! `-` instead of a file: a recording goes to stdout and comes from stdin, as where a container's files are read-only.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::binary::{Outcome, command, run};
use crate::support::checks::Checks;

/// Runs the program with this text on stdin.
fn fed(arguments: &[&str], text: &str) -> Outcome {
    let mut command = command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the binary reads");
    let output = child.wait_with_output().expect("our child");
    let text = |bytes| String::from_utf8(bytes).expect("the binary writes UTF-8");
    Outcome { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn rows_and_groups_come_in_the_order_that_was_asked_for() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sweeps/pods/sweep.jsonl");
    let mut checks = Checks::default();
    let shown = |sort: &str, format: &str| {
        run(&["audit", "--all", "--long-lived", "1s", "--replay", recording, "--sort", sort, "-o", format]).stdout
    };
    let owners = |text: &str, column: usize| -> Vec<String> {
        let rows = text.lines().skip_while(|line| !line.starts_with("VERDICT")).skip(1);
        let rows = rows.take_while(|line| !line.is_empty() && !line.starts_with(|c: char| c.is_ascii_digit()));
        rows.filter_map(|line| line.split_whitespace().nth(column).map(str::to_owned)).collect()
    };
    for (format, column) in [("table", 1), ("groups", 2)] {
        let found = owners(&shown("owner", format), column);
        let mut ordered = found.clone();
        ordered.sort();
        checks.equal(format, found, ordered.clone());
        let mut worst = owners(&shown("worst", format), column);
        checks.that(worst != ordered, || format!("{format}: the worst are in the order of names: {worst:?}"));
        worst.sort();
        checks.equal("the same rows", worst, ordered);
    }
    checks.finish();
}

#[test]
fn a_recording_goes_to_stdout_and_comes_from_stdin() {
    let mut checks = Checks::default();
    for more in [&["--for", "300ms"][..], &[]] {
        let recorded = run(&[&["audit", "--record", "-"], more].concat());
        checks.equal("--record -", recorded.code(), 0);
        let lines: Vec<_> = recorded.stdout.lines().collect();
        checks.that(lines[0].contains("header"), || format!("nothing but the recording: {}", lines[0]));
        checks.that(lines.last().is_some_and(|line| line.contains("end")), || format!("{lines:?}"));
        checks.that(lines.iter().filter(|line| **line == lines[lines.len() - 1]).count() == 1, || "one end".to_owned());

        let replayed = fed(&["audit", "--replay", "-", "--format", "json"], &recorded.stdout);
        checks.equal("--replay -", replayed.code(), 0);
        checks.that(replayed.stdout.contains("\"schema\": 1"), || replayed.stdout.clone());
        let compared = fed(&["audit", "--compare", "-"], &recorded.stdout);
        checks.equal("--compare -", compared.code(), 0);
    }
    let cut = fed(&["audit", "--compare", "-"], "not a recording\n");
    checks.equal("no recording", cut.code(), 1);
    checks.that(cut.stderr.starts_with("error: cannot compare with the recording on stdin: line 1"), || cut.stderr);
    checks.finish();
}
