//! Wrong usages: each error says what failed, on what, why, and what to do.

use std::fs;

use crate::support::binary::{command, finish, run};
use crate::support::checks::Checks;

/// Arguments, and the error's first line.
const WRONG: &[(&[&str], &str)] = &[
    (
        &["audit", "--long-lived", "-5s"],
        "error: invalid value '-5s' for '--long-lived <DURATION>': durations are not negative; write 5s",
    ),
    (
        &["audit", "--idle-timeout", "350"],
        "error: invalid value '350' for '--idle-timeout <DURATION>': a duration needs a unit; write 350s, 350m or 350h",
    ),
    (
        &["audit", "--profile", "aws-nbl"],
        "error: invalid value 'aws-nbl' for '--profile <NAME>': no such profile; did you mean `aws-nlb`? \
         (`keepalive-auditor profiles` lists all)",
    ),
    (
        &["remedy", "haprox"],
        "error: no remedy is named `haprox`; did you mean `haproxy`? (`keepalive-auditor remedy --list` describes all)",
    ),
    (&["audit", "--compare", "/nope"], "error: cannot compare with /nope: no such file or directory"),
    (&["audit", "--replay", "/nope"], "error: cannot replay /nope: no such file or directory"),
    (&["audit", "--config", "/nope"], "error: cannot read the configuration file /nope: no such file or directory"),
    (
        &["audit", "--log.level", "wran"],
        "error: --log.level: `wran` is neither a level nor a tracing filter; did you mean `warn`?",
    ),
    (
        &["agent", "--web.listen-address", "9986"],
        "error: invalid value '9986' for '--web.listen-address <ADDRESS>': not an address with a port; write one like \
         0.0.0.0:9986, [::]:9986 or :9986",
    ),
];

#[test]
fn an_error_says_what_where_why_and_what_to_do() {
    let mut checks = Checks::default();
    for (arguments, expected) in WRONG {
        let outcome = run(arguments);
        checks.equal(&arguments.join(" "), outcome.stderr.lines().next().unwrap_or_default(), *expected);
    }
    checks.finish();
}

#[test]
fn an_error_in_a_filter_points_at_the_word() {
    let outcome = run(&["audit", "src", "10/8", "and", "dprot", "=", ":443"]);
    assert_eq!(outcome.status.code(), Some(2));
    assert_eq!(
        outcome.stderr,
        "error: filter: `dprot` is not a term; did you mean `dport`?\n  src 10/8 and dprot = :443\n  \
         \u{20}            ^^^^^\n"
    );
}

#[test]
fn remedy_without_a_target_lists_them() {
    let stderr = run(&["remedy"]).stderr;
    assert!(stderr.starts_with("error: remedy needs a TARGET: one of ") && stderr.contains("haproxy, "), "{stderr}");
}

#[test]
fn a_wrong_environment_variable_is_named() {
    let mut checks = Checks::default();
    for (variable, value) in [("IDLE_TIMEOUT", "5"), ("FORMAT", "xml"), ("PROFILE", "aws-nbl"), ("ALL", "perhaps")] {
        let variable = format!("KEEPALIVE_AUDITOR_{variable}");
        let outcome = finish(command(&["audit"]).env(&variable, value));
        checks.equal(&variable, outcome.code(), 2);
        checks.that(outcome.stderr.contains(&variable), || format!("{variable} is not named: {}", outcome.stderr));
    }
    // the command line wins over the environment, so the variable is not at fault
    let outcome = finish(command(&["audit", "-o", "xml"]).env("KEEPALIVE_AUDITOR_FORMAT", "json"));
    checks.that(!outcome.stderr.contains("KEEPALIVE_AUDITOR_FORMAT"), || outcome.stderr.clone());
    checks.finish();
}

#[test]
fn a_wrong_key_is_named_with_its_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("audit.yaml");
    let mut checks = Checks::default();
    for (text, expected) in [
        ("idle_timeout: 3s\nidle_timeout: 4s\n", "line 2, key idle_timeout: given twice"),
        ("idle_timout: 3s\n", "line 1, key idle_timout: unknown key; did you mean `idle_timeout`?"),
        ("ignore:\n- {pdo: x}\n", "line 2, key ignore[0].pdo: unknown key; did you mean `pod`?"),
        ("local_scope: nodes\n", "line 1, key local_scope: unknown value `nodes`; did you mean `node`?"),
        ("interval: 3\n", "line 1, key interval: invalid value `3`: a duration needs a unit; write 3s, 3m or 3h"),
        (
            "profile: aws-nbl\n",
            "line 1, key profile: invalid value `aws-nbl`: no such profile; did you mean `aws-nlb`? \
             (`keepalive-auditor profiles` lists all)",
        ),
    ] {
        fs::write(&file, text).expect("the file is written");
        let outcome = run(&["audit", "--config", file.to_str().expect("a path in UTF-8")]);
        checks.equal(text, outcome.stderr.trim_end(), format!("error: {}: {expected}", file.display()).as_str());
        checks.equal(text, outcome.code(), 2);
    }
    checks.finish();
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
