//! The overview at a terminal: its golden files at several widths, and what must never happen at any size.
//!
//! `UPDATE_GOLDENS=1 cargo test --test cli overview` writes the files again; read every line of the difference.

use std::borrow::Cow;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use keepalive_auditor::judge::policy::{LimitSource, Path as NetworkPath};
use keepalive_auditor::judge::report::{Finding, Millis, NamespaceCounts, Report};
use keepalive_auditor::judge::verdict::{Keepalive, Verdict};
use keepalive_auditor::owner::{Holder, NsId, Owner, OwnerKind};
use keepalive_auditor::show::overview::{Overview, Screen};
use keepalive_auditor::show::table;
use keepalive_auditor::socket::Endpoint;

use crate::support::binary::run;
use crate::support::checks::Checks;
use crate::support::findings::{finding, inbound, late, on, pod};

/// Texts compared with their golden files.
#[derive(Default)]
pub struct Goldens(Vec<String>);

impl Goldens {
    pub fn compare(&mut self, name: &str, text: &str) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/golden/{name}.txt"));
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&golden, text).expect("the golden file is written");
        }
        if fs::read_to_string(&golden).unwrap_or_default() != text {
            self.0.push(format!("{}:\n{text}", golden.display()));
        }
    }

    pub fn finish(self) {
        assert!(self.0.is_empty(), "{}\n(UPDATE_GOLDENS=1 writes them again)", self.0.join("\n"));
    }
}

/// A name as long as chart and release make it: 49 characters.
pub const LONG: &str = "checkout-recommendation-service-production-eu-7f8";

pub fn held(finding: Finding, exe: &str, pid: u32) -> Finding {
    let holder = Holder { pid, exe: exe.to_owned(), ..Holder::default() };
    Finding { holder: Some(Arc::new(holder)), ..finding }
}

pub fn idle(finding: Finding, verdict: Verdict, seconds: u64) -> Finding {
    let idle = Some(Millis::from_secs(seconds));
    Finding { verdict, wire_idle: idle, data_idle: idle, ..finding }
}

fn unit(name: &str) -> Owner {
    Owner { kind: OwnerKind::Unit, container: Some(name.to_owned()), ..Owner::default() }
}

/// A report of these findings, worst first as a sweep has them.
pub fn report(mut findings: Vec<Finding>) -> Report {
    findings.sort_by_key(|finding| (finding.verdict, std::cmp::Reverse(finding.wire_idle)));
    let mut verdicts = [0; Verdict::COUNT];
    for finding in &findings {
        verdicts[finding.verdict as usize] += 1;
    }
    let path = NetworkPath { source: LimitSource::Configured, ..NetworkPath::default() };
    Report {
        connections: findings.len() as u64,
        verdicts,
        namespaces: NamespaceCounts { dumped: 3, ..NamespaceCounts::default() },
        paths: vec![Arc::new(path)],
        findings,
        ..Report::default()
    }
}

/// A node with several owners, programs, directions and causes.
pub fn node(cart: &str) -> Report {
    let mut findings = Vec::new();
    for number in 0..14 {
        let cart = held(finding(pod(cart, "app"), number, 9000), "java", 27161);
        findings.push(idle(cart, Verdict::Overdue, 1600 - u64::from(number)));
    }
    for number in 20..25 {
        // more processes than are shown one by one
        let database =
            Finding { expires: Some(Millis::new(3500)), ..late(inbound(pod("db-0", "postgres"), number, 5432)) };
        findings.push(idle(held(database, "postgres", 27000 + u32::from(number)), Verdict::Overdue, 1500));
    }
    for (number, replica) in (30..).zip(["gw-7d4b9c6f5-x2k8p", "gw-7d4b9c6f5-zz5wq", "gw-7d4b9c6f5-bbbbb"]) {
        let gateway = inbound(pod(replica, "istio-proxy"), number, 8443);
        findings.push(idle(held(gateway, "envoy", 300 + u32::from(number)), Verdict::Exposed, 180));
    }
    for number in 40..46 {
        // one port of many addresses
        let mut agent = held(finding(unit("collector.service"), number, 443), "vector", 812);
        agent.remote = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 30, 0, number.to_le_bytes()[0])), 443);
        findings.push(idle(agent, Verdict::Exposed, 90));
    }
    let lost = held(late(finding(pod("web-0", "app"), 50, 6379)), "python3.11", 4711);
    findings.push(Finding { keepalive: Keepalive::On, ..idle(lost, Verdict::Unanswered, 700) });
    findings.push(idle(on(finding(pod("web-0", "app"), 51, 443)), Verdict::Protected, 20));
    findings.push(idle(finding(pod("web-0", "app"), 52, 443), Verdict::Young, 20));
    findings.push(idle(finding(pod("web-0", "app"), 53, 443), Verdict::Local, 20));
    report(findings)
}

fn shown(report: &Report, width: usize, height: Option<usize>, all: bool, color: bool) -> String {
    written(&Overview::new(Cow::Borrowed(report), report.findings.iter(), all), width, height, color)
}

fn written(overview: &Overview<'_>, width: usize, height: Option<usize>, color: bool) -> String {
    let mut out = Vec::new();
    overview.write(&mut out, Screen { width, height, color }).expect("a String takes everything");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn each_overview_is_its_golden_file() {
    let mut goldens = Goldens::default();
    let mut compare = |name: String, text: String| goldens.compare(&name, &text);
    for (name, cart) in [("short", "cart-7d4b9c6f5-x2k8p"), ("long", LONG)] {
        let report = node(cart);
        for width in [60, 80, 100, 160, 200] {
            compare(format!("overview-{name}-{width}"), shown(&report, width, None, false, false));
        }
        // a list is not fitted: a pipe has no width
        for (form, wide) in [("table", false), ("wide", true)] {
            for (reader, terminal) in [("terminal", true), ("pipe", false)] {
                let mut out = Vec::new();
                let flagged = || report.findings.iter().filter(|finding| finding.verdict.flagged());
                table::write(&mut out, &report, flagged, table::Options { wide, color: false, terminal })
                    .expect("a String takes everything");
                compare(format!("list-{form}-{name}-{reader}"), String::from_utf8(out).expect("UTF-8"));
            }
        }
    }
    compare("overview-all-100".to_owned(), shown(&node("cart-0"), 100, None, true, false));
    let well = report((0..8).map(|number| on(finding(pod("web-0", "app"), number, 443))).collect());
    compare("overview-well-100".to_owned(), shown(&well, 100, None, false, false));
    goldens.finish();
}

#[test]
fn no_line_is_wider_than_the_screen_and_every_group_can_be_told_from_the_others() {
    let mut checks = Checks::default();
    for width in (60..=200).step_by(7) {
        for cart in ["cart-7d4b9c6f5-x2k8p", LONG] {
            let text = shown(&node(cart), width, None, false, false);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            checks.that(widest <= width, || format!("{widest} columns at a width of {width}:\n{text}"));
            for word in ["java", "postgres", "envoy", "python", "9000", "5432", "8443", "443", "6379", "7200s", "off"] {
                checks.that(text.contains(word), || format!("{word} is missing at a width of {width}:\n{text}"));
            }
        }
    }
    checks.finish();
}

#[test]
fn twenty_thousand_connections_in_three_hundred_namespaces_fit_on_one_screen() {
    let findings = (0..20_000_u32).map(|number| {
        let namespace = number % 300;
        let owner = pod(&format!("worker{namespace}-7d4b9c6f5-x2k8p"), "app");
        let port = u16::try_from(number / 300).expect("few");
        let made = held(finding(owner, port, 9000), "java", 1000 + namespace);
        Finding { netns: NsId(namespace.into()), ..idle(made, Verdict::Overdue, u64::from(number)) }
    });
    let report = report(findings.collect());
    let overview = Overview::new(Cow::Borrowed(&report), report.findings.iter(), false);
    let mut checks = Checks::default();
    for (width, height) in [(60, 24), (80, 24), (100, 40), (160, 50), (80, 10), (40, 5)] {
        let text = written(&overview, width, Some(height), false);
        let lines = text.lines().count();
        checks.that(lines < height.max(12), || format!("{lines} lines on a screen of {height}:\n{text}"));
        checks.that(text.contains("more groups, ") && text.contains("--all-groups"), || text.clone());
        checks.that(text.contains("overdue  "), || text.clone());
    }
    let all = written(&overview, 100, None, false);
    checks.equal("every group", all.lines().filter(|line| line.starts_with("overdue")).count(), 300);
    checks.finish();
}

#[test]
fn all_is_well_only_where_everything_was_read() {
    let well = report((0..8).map(|number| on(finding(pod("web-0", "app"), number, 443))).collect());
    let text = shown(&well, 100, None, false, false);
    assert!(text.starts_with("8 of 8 long-lived connections are protected"), "{text}");
    let text = shown(&Report { incomplete: true, ..well.clone() }, 100, None, false, false);
    assert!(text.starts_with("No connection is at risk, of the 8 connections that could be read"), "{text}");
    assert!(text.contains("incomplete") && !text.contains("are protected"), "{text}");
    let text = shown(&Report { is_blind: true, incomplete: true, ..report(Vec::new()) }, 100, None, false, false);
    assert!(text.starts_with("No connections could be read."), "{text}");
}

#[test]
fn colour_adds_nothing_but_colour() {
    let (plain, coloured) =
        (shown(&node("cart-0"), 100, None, true, false), shown(&node("cart-0"), 100, None, true, true));
    assert!(coloured.contains('\u{1b}') && !plain.contains('\u{1b}'));
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, escape)) = rest.split_once('\u{1b}') {
        stripped += before;
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    assert_eq!(stripped + rest, plain);
}

#[test]
fn a_pipe_gets_rows_and_groups_where_it_asks_for_them() {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/pods/sweep.jsonl");
    let recording = recording.to_str().expect("a path in UTF-8");
    let output = |arguments: &[&str]| {
        let outcome = run(&[&["audit", "--long-lived", "1s", "--replay", recording], arguments].concat());
        assert_eq!(outcome.code(), 0, "{arguments:?}: {outcome:?}");
        outcome.stdout
    };
    let rows = output(&[]);
    assert_eq!(rows, output(&["--list"]));
    assert_eq!(rows, output(&["--format", "table"]));
    assert!(rows.starts_with("VERDICT  OWNER"), "{rows}");
    let groups = output(&["--format", "groups"]);
    assert!(groups.contains("at risk") && groups.contains("VERDICT  CONNS  WHO"), "{groups}");
    assert!(!groups.contains('\u{1b}'), "{groups}");
    assert!(output(&["--format", "groups", "--color", "always"]).contains('\u{1b}'));
}
