//! `audit --explain`: per workload, direction, endpoint, process and cause, why connections are flagged and which
//! remedies fit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::advice::{help, put, why};
use super::escape;
use super::fit::{Subject, fitting};
use super::workload;
use crate::judge::cause::{Cause, SystemDefault, probes_after_seconds};
use crate::judge::report::{Direction, Finding, Report, ServiceEndpoint};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, Owner};
use crate::remedy::{self, RemedyError, target::Side};

/// As many different times of one cause are groups of their own; more are one group, which names the shortest and the
/// longest.
const MAX_TIMES: usize = 4;

/// What the connections of a group share. Everything that is said of a group is true of all its members.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    workload: String,
    direction: Direction,
    endpoint: ServiceEndpoint,
    program: Option<&'a str>,
    /// Position among the processes of one owner that run this program: those of other pods of the workload are the
    /// same group.
    process: usize,
    path: &'a str,
    keepalive: Keepalive,
    cause: Cause,
    /// After how many seconds a probe may come, where that is the cause.
    seconds: Option<u64>,
}

/// The explanation, for stdout.
pub fn explain(report: &Report) -> Result<String, RemedyError> {
    let groups = groups(&report.findings);
    if groups.is_empty() {
        return Ok("Nothing to explain: no connection is flagged.\n".into());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, findings)| (findings.iter().map(|f| f.verdict).min(), Reverse(findings.len())));

    let targets = remedy::list()?;
    let mut out = String::new();
    for (key, findings) in &groups {
        let preposition = if key.direction == Direction::Outbound { "to" } else { "on" };
        let pods: BTreeSet<_> = findings.iter().filter_map(|f| f.owner.pod.as_deref()).collect();
        let pods = if pods.len() > 1 { format!(" in {} pods", pods.len()) } else { String::new() };
        let Key { workload, direction, endpoint, .. } = key;
        let (direction, counts) = (direction.name(), counts(findings));
        let held = held_by(findings);
        let title = format!("{workload}, {direction} {preposition} {endpoint}: {counts}{pods}{held}");
        put(&mut out, &format!("{}\n", escape::line(&title)));
        put(&mut out, &format!("  {}\n", why(key.cause, findings, report.node_tcp_keepalive_time)));
        for line in help(key.cause, findings) {
            put(&mut out, &format!("  {line}\n"));
        }
        if key.cause != Cause::PayloadOnly && matches!(key.keepalive, Keepalive::Off | Keepalive::Late) {
            remedies(&mut out, &targets, key.program, key.keepalive, findings);
        }
        out.push('\n');
    }
    put(&mut out, "Each remedy has its caveat: keepalive-auditor remedy --list\n");
    Ok(out)
}

/// The flagged connections by what they share.
fn groups(findings: &[Finding]) -> BTreeMap<Key<'_>, Vec<&Finding>> {
    let processes = processes(findings);
    let mut groups: BTreeMap<Key<'_>, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        let Some(cause) = Cause::of(finding) else { continue };
        let timed = matches!(cause, Cause::SystemDefault | Cause::KeepidleTooLong | Cause::KeepintvlTooLong);
        let holder = finding.holder.as_deref();
        let process = holder.and_then(|holder| processes.get(&(&*finding.owner, holder.program()))?.get(&holder.pid));
        let key = Key {
            workload: workload::of(&finding.owner),
            direction: finding.direction,
            endpoint: finding.endpoint(),
            program: holder.map(Holder::program),
            process: process.copied().unwrap_or_default(),
            path: &finding.path.name,
            keepalive: finding.keepalive,
            cause,
            seconds: SystemDefault::of(finding)
                .map(SystemDefault::seconds)
                .or(probes_after_seconds(finding))
                .filter(|_| timed),
        };
        groups.entry(key).or_default().push(finding);
    }
    join_times(groups)
}

/// The processes of each owner that run the same program, each with its position among them.
fn processes(findings: &[Finding]) -> BTreeMap<(&Owner, &str), BTreeMap<u32, usize>> {
    let mut processes: BTreeMap<(&Owner, &str), BTreeMap<u32, usize>> = BTreeMap::new();
    for (owner, holder) in findings.iter().filter_map(|finding| Some((&*finding.owner, finding.holder.as_deref()?))) {
        processes.entry((owner, holder.program())).or_default().insert(holder.pid, 0);
    }
    for pids in processes.values_mut() {
        pids.values_mut().enumerate().for_each(|(position, it)| *it = position);
    }
    processes
}

/// Joins groups that differ only in the time after which a probe comes, where these are many.
fn join_times<'a>(groups: BTreeMap<Key<'a>, Vec<&'a Finding>>) -> BTreeMap<Key<'a>, Vec<&'a Finding>> {
    let untimed = |key: &Key<'a>| Key { seconds: None, ..key.clone() };
    let mut times: BTreeMap<Key<'a>, usize> = BTreeMap::new();
    for key in groups.keys() {
        *times.entry(untimed(key)).or_default() += 1;
    }
    let mut joined: BTreeMap<Key<'a>, Vec<&'a Finding>> = BTreeMap::new();
    for (key, findings) in groups {
        let short = untimed(&key);
        let many = times.get(&short).is_some_and(|times| *times > MAX_TIMES);
        joined.entry(if many { short } else { key }).or_default().extend(findings);
    }
    joined
}

/// ` held by java[27161]`, without the number where it is not one process.
fn held_by(findings: &[&Finding]) -> String {
    let holders: BTreeSet<_> = findings.iter().filter_map(|finding| finding.holder.as_deref()).collect();
    match (holders.first(), holders.len()) {
        (None, _) => String::new(),
        (Some(holder), 1) => format!(" held by {}[{}]", escape::line(holder.program()), holder.pid),
        (Some(holder), _) => format!(" held by {}", escape::line(holder.program())),
    }
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
