//! The agent's page: what is at risk on this node, and what to do. It needs no script: filter and order are in the
//! address, and groups open by themselves.

use std::fmt::Write as _;

mod group;
mod view;

use super::escape::html as text;
use super::groups::{Group, Split, groups};
use super::json::time;
pub use super::sort::Sort;
use super::units::{Human, Limit};
use super::{limits, node_limits};
use crate::judge::report::{Finding, LimitSource, Millis, RefreshedBy, Report};
use crate::judge::verdict::Verdict;
use crate::remedy;
pub use view::{Health, View};

/// A longer page is not written: what is left out is counted, and the report has it.
const MAX_BYTES: usize = 56 * 1024;
const STYLE: &str = include_str!("style.css");

/// The page of a report and its findings, worst first. Before the first sweep there are none.
#[must_use]
pub fn html(
    node: &str,
    view: &View,
    health: &Health,
    report: Option<(&Report, &mut dyn Iterator<Item = Finding>)>,
) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let node = text(node);
    let refresh = match view.refresh {
        0 => String::new(),
        seconds => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
    };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">{refresh}<title>keepalive-auditor · {node}</title><style>{STYLE}</style></head>\
         <body><header><h1>Keepalive on {node}</h1>"
    );
    match report {
        None => out.push_str("<p>The first sweep has not finished yet.</p></header><main>"),
        Some((report, findings)) => body(&mut out, view, health, report, findings),
    }
    let _ = writeln!(
        out,
        "</main><footer class=\"muted\"><p>keepalive-auditor {} · <a href=\"/metrics\">metrics</a> · <a \
         href=\"/api/v1/report{}\">report (JSON)</a> · <a href=\"/healthz\">health</a></p></footer></body></html>",
        env!("CARGO_PKG_VERSION"),
        text(&view.report_query()),
    );
    out
}

fn body(out: &mut String, view: &View, health: &Health, report: &Report, findings: &mut dyn Iterator<Item = Finding>) {
    head(out, health, report);
    out.push_str("</header><main>");
    chips(out, view, report);
    view.form(out);
    if let Some(error) = &view.error {
        let _ = write!(out, "<p class=\"note bad\" role=\"alert\">{}</p>", text(error));
        return;
    }
    let split = Split { verdicts: true, endpoints: false };
    let mut groups = groups(findings, split);
    view.sort.sort(&mut groups);
    list(out, report, &groups);
    paths(out, report);
}

/// When the last sweep was, whether it is healthy, and what limits its numbers.
fn head(out: &mut String, health: &Health, report: &Report) {
    let (class, word) = if health.is_healthy { ("ok", "Sweeps are healthy") } else { ("bad", "Sweeps have stopped") };
    let _ = write!(
        out,
        "<p><strong class=\"{class}\">{word}</strong>: the last one started at <time datetime=\"{}\">{}</time>, \
         took {} ms, and read {} network namespaces.{}</p>",
        time(report.started_at),
        plain_time(report.started_at),
        report.duration.get(),
        report.namespaces.dumped + report.namespaces.looked_up + report.namespaces.skipped + report.namespaces.empty,
        text(&health.detail),
    );
    if report.is_blind {
        out.push_str("<p class=\"note bad\">Nothing could be read, so the numbers say nothing about this node.</p>");
    } else if report.incomplete {
        let unread = match report.namespaces.failed {
            0 => "The last sweep is incomplete.".to_owned(),
            1 => "The last sweep is incomplete: one network namespace could not be read.".to_owned(),
            many => format!("The last sweep is incomplete: {many} network namespaces could not be read."),
        };
        let _ = write!(out, "<p class=\"note\">{unread}</p>");
    }
    for sentence in limits::contradictions(report) {
        let _ = write!(out, "<p class=\"note\">{}</p>", text(&sentence));
    }
    let notes = node_limits::notes(report);
    for loss in report.losses.iter().chain(&notes) {
        let _ = write!(out, "<p class=\"note\">{}</p>", text(loss));
    }
    if report.stale.connections > 0 {
        let _ = write!(
            out,
            "<p class=\"note\">{} connections are shown as they were up to {} ago.</p>",
            report.stale.connections,
            Human(report.stale.age)
        );
    }
}

/// A time for people: to the second, with its zone.
fn plain_time(ms: u64) -> String {
    let time = time(ms).replacen('T', " ", 1);
    format!("{} UTC", time.split('.').next().unwrap_or_default())
}

/// Each verdict with its count, as a link that selects it.
fn chips(out: &mut String, view: &View, report: &Report) {
    out.push_str("<nav aria-label=\"Verdicts\"><ul class=\"chips\">");
    let mut chip = |verdict: &str, label: &str, count: u64, class: &str| {
        let current = if view.verdict == verdict { " aria-current=\"true\"" } else { "" };
        let href = text(&view.with_verdict(verdict));
        let _ = write!(out, "<li><a href=\"{href}\"{current}><b class=\"{class}\">{count}</b>{label}</a></li>");
    };
    let class = if report.flagged() > 0 { "bad" } else { "ok" };
    chip("", &format!("at risk of {}", report.connections), report.flagged(), class);
    for verdict in Verdict::ALL.into_iter().filter(|verdict| report.count(*verdict) > 0) {
        chip(verdict.name(), verdict.name(), report.count(verdict), class_of(verdict));
    }
    out.push_str("</ul></nav>");
}

fn list(out: &mut String, report: &Report, groups: &[Group]) {
    let connections: usize = groups.iter().map(Group::connections).sum();
    let _ = write!(out, "<h2>{connections} connections in {} groups</h2>", groups.len());
    if groups.is_empty() {
        let protected = report.count(Verdict::Protected)
            + report.count(Verdict::PeerProtected)
            + report.count(Verdict::AppProtected);
        let _ = match report.flagged() {
            0 if protected > 0 => write!(out, "<p>No connection is at risk; {protected} are protected.</p>"),
            0 => write!(out, "<p>No connection is at risk.</p>"),
            _ => write!(out, "<p>No connection matches. <a href=\"/\">Show all that are at risk</a></p>"),
        };
    }
    // a broken data file of ours is found by tests
    let targets = remedy::list().unwrap_or_default();
    for (number, group) in groups.iter().enumerate() {
        if out.len() > MAX_BYTES {
            let left: usize = groups[number..].iter().map(Group::connections).sum();
            let _ = write!(
                out,
                "<p class=\"note\">… and {} more groups with {left} connections: narrow the filter, or read the report \
                 (JSON).</p>",
                groups.len() - number
            );
            break;
        }
        group::write(out, group, &targets, report);
    }
    if report.truncated > 0 {
        let _ = write!(
            out,
            "<p class=\"note\">{} more connections are counted, but not listed (--max-findings).</p>",
            report.truncated
        );
    }
}

/// The paths, their limits, where these come from, and what was measured of them.
fn paths(out: &mut String, report: &Report) {
    out.push_str(
        "<h2 id=\"paths\">Paths and their limits</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-labelledby=\"paths\"><table><thead><tr><th>Path</th><th class=\"n\">Idle \
         timeout</th><th>Counts</th><th>Source</th><th class=\"n\">Longest idle time survived</th><th \
         class=\"n\">Shortest that broke</th></tr></thead><tbody>",
    );
    let measured = |span: Option<Millis>| span.map_or_else(|| "not seen".to_owned(), |span| Human(span).to_string());
    for (at, path) in report.paths.iter().enumerate() {
        let learned = report.learned.get(at);
        let survived = measured(learned.and_then(|learned| learned.survived));
        let broken = measured(learned.and_then(|learned| learned.broken).map(|(shortest, _)| shortest));
        let counts = match path.refreshed_by {
            RefreshedBy::Segment => "any segment",
            RefreshedBy::Payload if path.reads_http2 => "only payload without HTTP/2 PING",
            RefreshedBy::Payload => "only payload",
        };
        let source = match path.source {
            LimitSource::Configured => "configured",
            LimitSource::Profile => "a profile",
            LimitSource::ReadFromNode => "read from the node",
            LimitSource::Default => "assumed: nothing is configured",
        };
        let (name, limit) = (text(&path.name), Limit(path.idle_timeout));
        let _ = write!(
            out,
            "<tr><td>{name}</td><td class=\"n\">{limit}</td><td>{counts}</td><td>{source}</td>\
             <td class=\"n\">{survived}</td><td class=\"n\">{broken}</td></tr>"
        );
    }
    out.push_str("</tbody></table></div>");
}

/// The colour repeats what the word says.
fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Overdue => "bad",
        Verdict::Exposed => "warn",
        Verdict::AppProtected | Verdict::PeerProtected | Verdict::Protected => "ok",
        Verdict::Undetermined | Verdict::Young | Verdict::Local => "muted",
    }
}
