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
