//! `explain`, `completions`, `man` and `--version`.

use crate::support::binary::run;
use crate::support::checks::Checks;

#[test]
fn explain_knows_the_words_of_the_output_and_suggests_the_nearest() {
    let mut checks = Checks::default();
    for (words, expected) in [
        (&["overdue"][..], "verdict, flagged"),
        (&["late"], "keepalive state"),
        (&["WIRE", "IDLE"], "column"),
        (&["aws-nlb"], "--profile aws-nlb"),
        (&["keepalive_auditor_flagged_connections"], "topk(10"),
    ] {
        let outcome = run(&[&["explain"], words].concat());
        checks.equal(&words.join(" "), outcome.code(), 0);
        checks.that(outcome.stdout.contains(expected), || format!("{words:?}: {outcome:?}"));
    }
    let list = run(&["explain"]);
    checks.that(list.code() == 0 && list.stdout.lines().count() > 60, || format!("{list:?}"));
    let wrong = run(&["explain", "exposd"]);
    checks.equal("exposd", wrong.code(), 2);
    checks.that(wrong.stderr.starts_with("error: no word `exposd`"), || wrong.stderr.clone());
    checks.that(wrong.stderr.contains("did you mean `exposed`?"), || wrong.stderr.clone());
    checks.finish();
}

#[test]
fn completions_and_the_manual_page_name_every_command() {
    let mut checks = Checks::default();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run(&["completions", shell]);
        checks.equal(shell, outcome.code(), 0);
        for word in ["audit", "idle-timeout", "fail-on"] {
            checks.that(outcome.stdout.contains(word), || format!("{shell} lacks {word}"));
        }
    }
    let page = run(&["man"]);
    checks.equal("man", page.code(), 0);
    checks.that(page.stdout.contains(".TH keepalive-auditor 1"), || page.stdout.clone());
    for word in ["fail\\-on", "web.listen\\-address", "envoy\\-version", "procfs"] {
        checks.that(page.stdout.contains(word), || format!("man lacks {word}"));
    }
    checks.finish();
}

#[test]
fn the_version_names_the_revision() {
    let outcome = run(&["--version"]);
    let expected = format!("keepalive-auditor {} (revision ", env!("CARGO_PKG_VERSION"));
    assert!(outcome.stdout.starts_with(&expected), "{outcome:?}");
}
