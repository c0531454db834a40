//! Names from the node in every output format: none can add a line, control a terminal, or become markup.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keepalive_auditor::digest::Digest;
use keepalive_auditor::judge::policy::Policy;
use keepalive_auditor::record::{Record, RecordError, replay};
use keepalive_auditor::show::metrics::{Detail, Limits, SweepDurations, View, text};
use keepalive_auditor::show::page::{self, Health, html};

use crate::support::binary::run;
use crate::support::checks::Checks;

/// The forged name in JSON, as the recording contains it.
const FORGED: &str = r#"web\nexposed    forged\u001b[2J\u009b2J\"},<script>alert('1')</script>\\"#;

/// A recording whose pods, namespaces and network namespaces have forged names.
fn forged() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/pods/sweep.jsonl");
    let recording = fs::read_to_string(path).expect("the recording");
    let forged = recording.replace("cart-7d9c5b8f4-x2x7q", FORGED).replace("\"cni-a\"", &format!("\"{FORGED}\""));
    assert_ne!(recording, forged);
    forged
}

fn is_steering(c: char) -> bool {
    c.is_control() && c != '\n'
}

#[test]
fn no_name_forges_a_line_of_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("forged.jsonl");
    fs::write(&file, forged()).expect("the recording is written");
    let file = file.to_str().expect("a path in UTF-8");
    let mut checks = Checks::default();
    for arguments in [&["-o", "table"][..], &["-o", "wide"], &["--explain"], &["--compare", file]] {
        let outcome = run(&[&["audit", "--long-lived", "1s", "--replay", file], arguments].concat());
        checks.equal(&arguments.join(" "), outcome.code(), 0);
        for (stream, text) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
            let line = text.lines().find(|line| line.starts_with("exposed    forged"));
            checks.that(line.is_none(), || format!("{arguments:?}, {stream}: a forged line: {text}"));
            checks.that(!text.contains(is_steering), || format!("{arguments:?}, {stream}: {text:?}"));
        }
        checks.that(outcome.stdout.contains("forged\\u{1b}"), || format!("{arguments:?}: {}", outcome.stdout));
    }
    for format in ["json", "jsonl"] {
        let outcome = run(&["audit", "--all", "--replay", file, "-o", format]);
        let documents = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<serde_json::Value>();
        let documents: Result<Vec<_>, _> = documents.collect();
        checks.that(documents.is_ok_and(|documents| !documents.is_empty()), || format!("{format}: {outcome:?}"));
        checks.that(!outcome.stdout.contains('\u{1b}'), || format!("{format}: {outcome:?}"));
    }
    checks.finish();
}

#[test]
fn no_name_forges_an_error() {
    let outcome = run(&["audit", "--replay", "/nope\nerror: forged\u{1b}[2J"]);
    assert_eq!(outcome.stderr, "error: cannot replay /nope\\nerror: forged\\u{1b}[2J: no such file or directory\n");
}

#[test]
fn an_open_group_of_the_page_has_the_lines_from_recording_to_proof() {
    let mut digest = Digest::new(Arc::new(Policy { long_lived: Duration::from_secs(1), ..Policy::default() }));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/pods/sweep.jsonl");
    replay(fs::read(path).expect("the recording").as_slice(), |record: Record<'static>| {
        digest.feed(&record);
        Ok::<(), RecordError>(())
    })
    .expect("a recording");
    let report = digest.report("node-7");
    let mut findings = report.findings.iter().cloned();
    let health = Health { is_healthy: true, detail: String::new() };
    let page = html("node-7", &page::View::default(), &health, Some((&report, &mut findings)));
    let audit = "kubectl keepalive-auditor audit --node node-7 --owner &#39;shop/cart";
    let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("the page lacks {part}: {page}"));
    let first = at(audit);
    assert!(page[first..].contains(" --record before.jsonl") && page[first..].contains(" --compare before.jsonl"));
    assert!(at("Record it first") < at("What to configure") && at("What to configure") < at("Prove it"), "{page}");
    assert!(page.contains(" UTC</time>") && page.contains("<time datetime="), "{page}");
}

#[test]
fn no_name_is_markup_or_ends_a_label() {
    let mut digest = Digest::new(Arc::new(Policy { long_lived: Duration::from_secs(1), ..Policy::default() }));
    let recording = forged();
    replay(recording.as_bytes(), |record: Record<'static>| {
        digest.feed(&record);
        Ok::<(), RecordError>(())
    })
    .expect("a recording");
    let report = digest.report("node<script>");
    let mut findings = report.findings.iter().cloned();
    let health = Health { is_healthy: true, detail: String::new() };
    let view = page::View { filter: "\"><script>".into(), verdict: "'><script>".into(), ..page::View::default() };
    let page = html("node<script>", &view, &health, Some((&report, &mut findings)));
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)") && page.contains("forged\\u{1b}"), "{page}");
    assert!(!page.contains("<script") && !page.contains(is_steering), "{page}");

    let limits = Limits { detail: Detail::Container, top_endpoints: 10, max_series: 1000 };
    let metrics = text(View::new(Some(&report), &SweepDurations::default(), limits)).expect("metrics");
    assert!(metrics.contains("pod=\"web\\nexposed"), "{metrics}");
    let broken = metrics.lines().find(|line| !line.starts_with('#') && !line.starts_with("keepalive_auditor_"));
    assert_eq!(broken, None);
}
