//! `audit --explain`: per workload, direction and endpoint, why connections are flagged and which remedies fit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::fit::{Subject, fitting};
use super::workload;
use crate::judge::report::{Direction, Finding, Report, ServiceEndpoint};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::OwnerKind;
use crate::remedy::{self, RemedyError, target::Side};

/// Connections that share a workload, a direction, an endpoint, a program and a keepalive state, and so a cause.
type Key<'a> = (String, Direction, ServiceEndpoint, Option<&'a str>, Keepalive);

/// The explanation, for stdout.
pub fn explain(report: &Report) -> Result<String, RemedyError> {
    let mut groups: BTreeMap<Key<'_>, Vec<&Finding>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.verdict.flagged()) {
        let program = finding.holder.as_ref().map(|holder| holder.program());
        let key = (workload::of(&finding.owner), finding.direction, finding.endpoint(), program, finding.keepalive);
        groups.entry(key).or_default().push(finding);
    }
    if groups.is_empty() {
        return Ok("Nothing to explain: no connection is flagged.\n".into());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, findings)| (findings.iter().map(|f| f.verdict).min(), Reverse(findings.len())));

    let targets = remedy::list()?;
    let mut out = String::new();
    for ((workload, direction, endpoint, program, keepalive), findings) in &groups {
        let preposition = if *direction == Direction::Outbound { "to" } else { "on" };
        let held = program.map(|program| format!(" held by {program}")).unwrap_or_default();
        let pods: BTreeSet<_> = findings.iter().filter_map(|f| f.owner.pod.as_deref()).collect();
        let pods = if pods.len() > 1 { format!(" in {} pods", pods.len()) } else { String::new() };
        let (direction, counts) = (direction.name(), counts(findings));
        put(&mut out, &format!("{workload}, {direction} {preposition} {endpoint}: {counts}{pods}{held}\n"));
        put(&mut out, &format!("  {}\n", why(*keepalive, findings, report.node_tcp_keepalive_time)));
        remedies(&mut out, &targets, *program, *keepalive, findings);
        out.push('\n');
    }
    put(&mut out, "Each remedy has its catch: keepalive-auditor remedy --list\n");
    Ok(out)
}

/// `3 connections (1 overdue, 2 exposed)`
fn counts(findings: &[&Finding]) -> String {
    let by_verdict = Verdict::ALL.into_iter().filter_map(|verdict| {
        let count = findings.iter().filter(|f| f.verdict == verdict).count();
        (count > 0).then(|| format!("{count} {}", verdict.name()))
    });
    let plural = if findings.len() == 1 { "" } else { "s" };
    format!("{} connection{plural} ({})", findings.len(), by_verdict.collect::<Vec<_>>().join(", "))
}

/// The paragraph.
fn why(keepalive: Keepalive, findings: &[&Finding], node: Option<u32>) -> String {
    let Some(first) = findings.first() else { return String::new() };
    let limit = first.path.idle_timeout.as_secs();
    let path = &first.path.name;
    let mut text = match keepalive {
        Keepalive::Off => format!(
            "Keepalive is off: this end never probes, and the path ({path}) forgets a connection after {limit} s of silence."
        ),
        _ => late(findings, limit, path),
    };
    if let Some(silence) = findings.iter().filter_map(|f| f.wire_idle).max() {
        put(&mut text, &format!(" The longest silence so far is {} s.", silence / 1000));
    }
    let blackholed = findings.iter().filter(|f| f.verdict == Verdict::Blackholed).count();
    if blackholed > 0 {
        put(&mut text, &format!(" {blackholed} sent into it since, and nothing is acknowledged."));
    }
    let waiting = findings.iter().filter(|f| f.waiting_for_reply).count();
    if waiting > 0 {
        put(&mut text, &format!(" {waiting} sent last and still wait for a reply."));
    }
    if first.owner.kind == OwnerKind::Pod
        && let Some(own) = first.tcp_keepalive_time
    {
        match (keepalive, node.filter(|node| *node != own)) {
            (Keepalive::Off, _) => put(&mut text, " No sysctl helps a socket on which keepalive is off."),
            (_, Some(node)) => {
                put(
                    &mut text,
                    &format!(" This pod's tcp_keepalive_time is {own} s; the node's {node} s does not reach it."),
                );
            }
            (_, None) => put(&mut text, &format!(" This pod's tcp_keepalive_time is {own} s.")),
        }
    }
    text
}

fn late(findings: &[&Finding], limit: u64, path: &str) -> String {
    let Some(idle) = findings.iter().filter_map(|f| f.probes_after).max() else {
        return format!(
            "Keepalive is on, but no probe came before the path ({path}) forgets a connection ({limit} s)."
        );
    };
    let seconds = idle.div_ceil(1000);
    let system = findings.iter().any(|f| f.tcp_keepalive_time.is_some_and(|time| u64::from(time) == seconds));
    let whose = if system { ", the system's default" } else { "" };
    // without that, it may be KEEPINTVL that is so long
    let first = findings.iter().any(|f| f.keepidle == Some(idle));
    let probe = if first { "its first probe comes" } else { "a probe may come only" };
    format!(
        "Keepalive is on, but {probe} after {seconds} s of silence{whose}: too late for the path ({path}), which forgets \
         a connection after {limit} s (the kernel's timer may take an eighth more)."
    )
}

/// The remedies that fit, each with the command that prints it.
fn remedies(
    out: &mut String,
    targets: &[remedy::target::Target],
    program: Option<&str>,
    keepalive: Keepalive,
    findings: &[&Finding],
) {
    let Some(first) = findings.first() else { return };
    let subject = Subject { finding: first, program, keepalive };
    let (fitting, known) = fitting(targets, &subject);
    for target in fitting {
        put(out, &format!("  - {}: {}\n", target.name, target.description));
        put(out, &format!("    {}\n", subject.command(target)));
        put(out, &format!("    takes effect {}\n", target.takes_effect));
    }
    if !known && keepalive == Keepalive::Off {
        let languages: Vec<_> = targets
            .iter()
            .filter(|t| {
                t.side == Side::Application && t.direction == remedy::target::Reach::Both && t.name != "preload"
            })
            .map(|t| t.name.as_str())
            .collect();
        put(out, &format!("  - in the program's own code: keepalive-auditor remedy {}\n", languages.join(" | ")));
    }
}

/// Writing to a String cannot fail.
fn put(out: &mut String, text: &str) {
    let _ = out.write_str(text);
}
