//! One group on the page: a line that opens to the cause, what to configure, how to prove it, and some connections.

use std::fmt::Write as _;

use super::class_of;
use crate::judge::report::{Direction, Report};
use crate::owner::OwnerKind;
use crate::remedy::target::Target;
use crate::show::advice::{help, why};
use crate::show::escape::html as text;
use crate::show::explain::{fitting_group, in_code};
use crate::show::groups::{Group, idle};
use crate::show::overview::{owner_glob, remedies};
use crate::show::units::{Human, Limit, PlainTimer};
use crate::show::why::Why;

/// The most remedies that are described; the others are named.
const MAX_REMEDIES: usize = 3;

pub(super) fn write(out: &mut String, group: &Group, targets: &[Target], report: &Report) {
    let verdict = group.verdict();
    let (arrow, word) = match group.direction {
        Direction::Outbound => ('→', "to"),
        Direction::Inbound => ('←', "from clients, on"),
    };
    let idle = group.idle.map_or_else(|| "?".to_owned(), |idle| Human(idle).to_string());
    let names = remedies(targets, group);
    let remedy = match &names[..] {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    };
    let _ = write!(
        out,
        "<details class=\"group\"><summary><span class=\"{}\">{}</span><span class=\"n\">{}×</span><span>{}</span>\
         <span><span title=\"{word}\">{arrow}</span> {}</span><span>{}</span><span>idle {idle} of {}</span>\
         <span>{}</span></summary><div class=\"body\">",
        class_of(verdict),
        verdict.name(),
        group.connections(),
        text(&group.who()),
        text(&group.endpoint()),
        text(&keepalive(group)),
        Limit(group.path.idle_timeout),
        text(&remedy),
    );
    match group.cause {
        Some(cause) => {
            let _ = write!(out, "<p>{}</p>", text(&why(cause, group, report.node_tcp_keepalive_time)));
            let lines = help(cause, group);
            if !lines.is_empty() {
                let _ = write!(out, "<pre tabindex=\"0\">{}</pre>", text_lines(&lines));
            }
        }
        None => {
            if let Some(worst) = group.worst.first() {
                let _ = write!(out, "<p>{}.</p>", text(&Why(worst).to_string()));
            }
        }
    }
    let audit = audit(group, &report.node);
    if let Some(audit) = &audit {
        let _ = write!(out, "<h3>Record it first</h3><pre tabindex=\"0\">{} --record before.jsonl</pre>", text(audit));
    }
    configure(out, group, targets);
    if let Some(audit) = &audit {
        let _ = write!(
            out,
            "<h3>Prove it</h3><p>After the change, when new connections are open:</p><pre tabindex=\"0\">{} --compare \
             before.jsonl</pre>",
            text(audit)
        );
    }
    connections(out, group);
    out.push_str("</div></details>");
}

fn keepalive(group: &Group) -> String {
    let state = group.keepalive();
    let is_state = state == group.keepalive.name() || group.seconds.is_some();
    if is_state { format!("keepalive {state}") } else { state }
}

/// Lines of a preformatted text.
fn text_lines(lines: &[String]) -> String {
    lines.iter().map(|line| text(line)).collect::<Vec<_>>().join("\n")
}

/// What to configure, by the remedies that fit.
fn configure(out: &mut String, group: &Group, targets: &[Target]) {
    let Some((subject, fitting)) = fitting_group(targets, group) else { return };
    let code = in_code(&fitting);
    if code.is_none() && fitting.targets.is_empty() {
        return;
    }
    out.push_str("<h3>What to configure</h3>");
    if let Some(command) = code {
        let _ = write!(out, "<p>In the program's own code:</p><pre tabindex=\"0\">{}</pre>", text(&command));
    }
    let fitting = &fitting.targets;
    for target in fitting.iter().take(MAX_REMEDIES) {
        let _ = write!(
            out,
            "<p><strong>{}</strong>: {}. Takes effect {}.</p><pre tabindex=\"0\">{}</pre>",
            text(&target.name),
            text(&target.description),
            text(&target.takes_effect),
            text(&subject.command(target)),
        );
    }
    if fitting.len() > MAX_REMEDIES {
        let names: Vec<_> = fitting.iter().skip(MAX_REMEDIES).map(|target| text(&target.name)).collect();
        let _ = write!(out, "<p class=\"muted\">Also: {}</p>", names.join(", "));
    }
}

/// The audit of the group's owner: through the agent for a pod, on the machine for others.
fn audit(group: &Group, node: &str) -> Option<String> {
    let owner = group.cause.and_then(|_| owner_glob(group))?;
    let is_pod = group.worst.first().is_some_and(|finding| finding.owner.kind == OwnerKind::Pod);
    Some(if is_pod {
        format!("kubectl keepalive-auditor audit --node {node} --owner '{owner}'")
    } else {
        format!("keepalive-auditor audit --owner '{owner}'")
    })
}

fn connections(out: &mut String, group: &Group) {
    out.push_str(
        "<h3>Connections</h3><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Connections\">\
         <table><thead><tr><th>Local</th><th>Remote</th><th>Timer</th><th class=\"n\">Idle</th></tr></thead><tbody>",
    );
    for finding in &group.worst {
        let idle = idle(finding).map_or_else(|| "?".to_owned(), |idle| Human(idle).to_string());
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td class=\"n\">{idle}</td></tr>",
            finding.local,
            finding.remote,
            PlainTimer(finding),
        );
    }
    out.push_str("</tbody></table></div>");
    let left = group.connections() - group.worst.len();
    if left > 0 {
        let _ = write!(out, "<p class=\"muted\">… and {left} more</p>");
    }
}
