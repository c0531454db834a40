//! `audit --explain`: per workload, direction, endpoint, process and cause, why connections are flagged and which
//! remedies fit.

use super::advice::{help, put, why};
use super::escape;
use super::fit::Subject;
use super::groups::{Group, Split, groups};
use crate::judge::report::{Direction, Report};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::remedy::fits::Fitting;
use crate::remedy::target::Target;
use crate::remedy::{self, RemedyError};

/// The most process ids of a group that are written.
const MAX_PIDS: usize = 4;

/// The explanation, for stdout.
pub fn explain(report: &Report) -> Result<String, RemedyError> {
    let flagged = report.findings.iter().filter(|finding| finding.verdict.flagged());
    let groups = groups(flagged, Split { verdicts: false, endpoints: true });
    if groups.is_empty() {
        return Ok("Nothing to explain: no connection is flagged.\n".into());
    }
    let targets = remedy::list()?;
    let mut out = String::new();
    for group in &groups {
        let Some(cause) = group.cause else { continue };
        put(&mut out, &format!("{}\n", escape::line(&title(group))));
        put(&mut out, &format!("  {}\n", why(cause, group, report.node_tcp_keepalive_time)));
        for line in help(cause, group) {
            put(&mut out, &format!("  {line}\n"));
        }
        remedies(&mut out, &targets, group);
        out.push('\n');
    }
    put(&mut out, "Each remedy has its caveat: keepalive-auditor remedy --list\n");
    Ok(out)
}

/// `shop/web (app), outbound to 10.20.0.5:443: 2 connections (2 exposed) in 2 pods held by java`
fn title(group: &Group) -> String {
    let preposition = if group.direction == Direction::Outbound { "to" } else { "on" };
    let pods = if group.pods.len() > 1 { format!(" in {} pods", group.pods.len()) } else { String::new() };
    let held = group.program.as_deref().map_or_else(String::new, |program| {
        let numbers: Vec<_> = group.processes.iter().take(MAX_PIDS).map(|holder| holder.pid.to_string()).collect();
        let more = match group.processes.len().saturating_sub(MAX_PIDS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(" held by {program}[{}{more}]", numbers.join(", "))
    });
    let Group { workload, direction, .. } = group;
    let (direction, endpoint, counts) = (direction.name(), group.endpoint(), counts(group));
    format!("{workload}, {direction} {preposition} {endpoint}: {counts}{pods}{held}")
}

/// `3 connections (1 overdue, 2 exposed)`
pub(super) fn counts(group: &Group) -> String {
    let by_verdict = Verdict::ALL.into_iter().filter(|verdict| group.count(*verdict) > 0);
    let by_verdict = by_verdict.map(|verdict| format!("{} {}", group.count(verdict), verdict.name()));
    let plural = if group.connections() == 1 { "" } else { "s" };
    format!("{} connection{plural} ({})", group.connections(), by_verdict.collect::<Vec<_>>().join(", "))
}

/// Whether keepalive is what the connections of a group need.
fn needs_keepalive(group: &Group) -> bool {
    group.cause.is_some_and(|cause| !cause.is_payload()) && matches!(group.keepalive, Keepalive::Off | Keepalive::Late)
}

/// The remedies that fit a group, with the connection that they are asked for.
pub(super) fn fitting_group<'t, 'g>(targets: &'t [Target], group: &'g Group) -> Option<(Subject<'g>, Fitting<'t>)> {
    let finding = group.worst.first().filter(|_| needs_keepalive(group))?;
    let subject = Subject { finding, keepalive: group.keepalive };
    let fitting = subject.fitting(targets);
    Some((subject, fitting))
}

/// The command for the remedies in a program's own code, by language. `None` if there is none.
pub(super) fn in_code(fitting: &Fitting<'_>) -> Option<String> {
    let languages: Vec<_> = fitting.in_code.iter().map(|target| target.name.as_str()).collect();
    (!languages.is_empty()).then(|| format!("keepalive-auditor remedy {}", languages.join(" | ")))
}

/// The remedies that fit, each with the command that prints it.
fn remedies(out: &mut String, targets: &[Target], group: &Group) {
    let Some((subject, fitting)) = fitting_group(targets, group) else { return };
    for target in &fitting.targets {
        put(out, &format!("  - {}: {}\n", target.name, target.description));
        put(out, &format!("    {}\n", subject.command(target)));
        put(out, &format!("    takes effect {}\n", target.takes_effect));
    }
    if let Some(command) = in_code(&fitting) {
        put(out, &format!("  - in the program's own code: {command}\n"));
    }
}
