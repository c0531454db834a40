//! The agent's page: the connections at risk on this node. Plain HTML without scripts.

use std::fmt::Write as _;

use super::escape::html as html_text;
use super::json::time;
use super::table::summary;
use super::units::{Human, Limit};
use super::why::Why;
use super::{limits, node_limits};
use crate::judge::report::{Direction, Finding, Report};
use crate::judge::verdict::Verdict;

/// More rows than a person reads. The report has all of them.
const MAX_ROWS: usize = 500;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--muted:#5f6368;--bad:#b3261e;--warn:#8a5000;--ok:#1e6b2e}
@media(prefers-color-scheme:dark){:root{--muted:#a8adb3;--bad:#ff8a80;--warn:#ffb74d;--ok:#81c784}}
*{box-sizing:border-box}body{font:15px/1.45 system-ui,sans-serif;margin:0;padding:1.25rem 1.5rem}
h1{font-size:1.3rem;margin:0}header p{margin:.15rem 0 .6rem;color:var(--muted)}
nav{display:flex;flex-wrap:wrap;gap:1rem;margin:.5rem 0 1rem}
ul.verdicts{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;margin:0 0 .8rem;list-style:none}
ul.verdicts li{border:1px solid var(--line);border-radius:.4rem;padding:.2rem .7rem}
ul.verdicts b{font-size:1.15rem;margin-right:.4rem;font-variant-numeric:tabular-nums}
.zero{color:var(--muted)}.bad b,td.bad{color:var(--bad)}.warn b,td.warn{color:var(--warn)}.ok b{color:var(--ok)}.zero \
b{color:inherit}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid \
var(--line);vertical-align:top;white-space:nowrap}
th{font-size:.8rem;color:var(--muted);font-weight:600}\
td.why{white-space:normal;min-width:22rem;width:60%;color:var(--muted)}
td:first-child{font-weight:600}.number{text-align:right;font-variant-numeric:tabular-nums}
code{font:13px ui-monospace,monospace}.warning{border-left:3px solid var(--warn);padding:.3rem .8rem;margin:.5rem 0}
";

/// The page of a report and its findings, worst first. Before the first sweep there are none.
#[must_use]
pub fn html(node: &str, report: Option<(&Report, &mut dyn Iterator<Item = Finding>)>) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let node = html_text(node);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"15\"><title>keepalive-auditor · \
         {node}</title><style>{STYLE}</style></head><body><header>\
         <h1>keepalive-auditor on {node}</h1><p>TCP connections that no keepalive protects · version {} · this page \
         reloads every 15 s</p></header>\
         <nav><a href=\"/metrics\">Metrics</a><a href=\"/api/v1/report\">Report (JSON)</a>\
         <a href=\"/api/v1/report?verdict=overdue,unanswered,blackholed\">Overdue and worse (JSON)</a><a \
         href=\"/healthz\">Health</a></nav><main>",
        env!("CARGO_PKG_VERSION")
    );
    match report {
        None => out.push_str("<p>The first sweep has not finished yet.</p>"),
        Some((report, findings)) => body(&mut out, report, findings),
    }
    out.push_str("</main></body></html>\n");
    out
}

fn body(out: &mut String, report: &Report, findings: &mut dyn Iterator<Item = Finding>) {
    out.push_str("<ul class=\"verdicts\">");
    for verdict in Verdict::ALL {
        let count = report.count(verdict);
        let name = verdict.name();
        let zero = if count == 0 { " zero" } else { "" };
        let _ = write!(out, "<li class=\"{}{zero}\"><b>{count}</b>{name}</li>", class(verdict));
    }
    let started = time(report.started_at);
    let summary = html_text(&summary(report));
    let _ =
        write!(out, "</ul><p>{summary} The last sweep started at {started} and took {} ms.</p>", report.duration.get());
    let _ = write!(out, "<p>{}</p>", html_text(&node_limits::paths(report)));
    for sentence in limits::contradictions(report) {
        let _ = write!(out, "<p class=\"warning\">{}</p>", html_text(&sentence));
    }
    let notes = node_limits::notes(report);
    for loss in report.losses.iter().chain(&notes) {
        let _ = write!(out, "<p class=\"warning\">{}</p>", html_text(loss));
    }
    let mut flagged = findings.filter(|finding| finding.verdict.flagged()).take(MAX_ROWS).peekable();
    if flagged.peek().is_none() {
        return;
    }
    out.push_str(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>Verdict</th><th>Owner</th><th>Endpoint</th>\
         <th>Keepalive</th><th class=\"number\">Idle</th><th \
         class=\"number\">Limit</th><th>Why</th></tr></thead><tbody>",
    );
    flagged.for_each(|finding| row(out, &finding));
    out.push_str("</tbody></table></div>");
    let left = report.flagged().saturating_sub(MAX_ROWS as u64);
    if left > 0 {
        let _ = write!(out, "<p>… and {left} more: see the report.</p>");
    }
}

fn row(out: &mut String, finding: &Finding) {
    let idle = finding.wire_idle.map_or_else(|| "?".to_owned(), |idle| Human(idle).to_string());
    let (arrow, word) = match finding.direction {
        Direction::Inbound => ("←", "from clients of"),
        Direction::Outbound => ("→", "to"),
    };
    let _ = write!(
        out,
        "<tr><td class=\"{}\">{}</td><td>{}</td><td><span title=\"{word}\">{arrow}</span> \
         <code>{}</code></td><td>{}</td>\
         <td class=\"number\">{idle}</td><td class=\"number\">{}</td><td class=\"why\">{}</td></tr>",
        class(finding.verdict),
        finding.verdict.name(),
        html_text(&finding.owner.to_string()),
        finding.endpoint(),
        finding.keepalive.name(),
        Limit(finding.path.idle_timeout),
        html_text(&Why(finding).to_string()),
    );
}

/// The colour repeats what the word says.
fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Blackholed | Verdict::Unanswered | Verdict::Overdue => "bad",
        Verdict::Exposed => "warn",
        Verdict::AppProtected | Verdict::PeerProtected | Verdict::Protected => "ok",
        Verdict::Undetermined | Verdict::Young | Verdict::Local => "plain",
    }
}
