//! The agent's page: what is at risk on this node, for a person with a browser. Plain HTML, no script.

use std::fmt::Write as _;

use super::table::summary;
use super::units::{Human, SsTimer};
use super::why::Why;
use crate::judge::report::{Finding, Report};
use crate::judge::verdict::Verdict;

/// More rows than a person reads; the report has them all.
const MAX_ROWS: usize = 500;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--muted:#888;--bad:#c62828;--warn:#b26a00;--ok:#2e7d32}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem;max-width:88rem}
h1{font-size:1.35rem;margin:0}header p{margin:.2rem 0 1rem;color:var(--muted)}
nav{display:flex;gap:1rem;margin:.75rem 0 1.25rem}ul.verdicts{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;margin:0 0 1rem;list-style:none}
ul.verdicts li{border:1px solid var(--line);border-radius:.5rem;padding:.35rem .8rem;min-width:6.5rem}
ul.verdicts b{display:block;font-size:1.35rem;line-height:1.2;font-variant-numeric:tabular-nums}
.zero{opacity:.5}.overdue b,.unanswered b,.blackholed b,td.overdue,td.unanswered,td.blackholed{color:var(--bad)}.exposed b,td.exposed{color:var(--warn)}
.protected b,.peer_protected b,.app_protected b{color:var(--ok)}
div.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
th{font-size:.8rem;color:var(--muted);font-weight:600}td.why{white-space:normal;min-width:24rem;color:var(--muted)}td:first-child{font-weight:600}
code{font:13px ui-monospace,monospace}.warning{border-left:3px solid var(--warn);padding:.3rem .8rem;margin:.5rem 0}
";

/// The page, of a report and its findings, worst first; they are absent before the first sweep.
#[must_use]
pub fn html(node: &str, report: Option<(&Report, &mut dyn Iterator<Item = Finding>)>) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let node = escape(node);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"15\"><title>keepalive-auditor · {node}</title><style>{STYLE}</style></head><body><header>\
         <h1>keepalive-auditor on {node}</h1><p>Established TCP connections that no keepalive protects · version {}</p></header>\
         <nav><a href=\"/metrics\">Metrics</a><a href=\"/api/v1/report\">Report (JSON)</a><a href=\"/api/v1/report?verdict=overdue,unanswered,blackholed\">\
         Overdue only</a><a href=\"/healthz\">Health</a></nav><main>",
        env!("CARGO_PKG_VERSION")
    );
    match report {
        None => out.push_str("<p>The first sweep is under way.</p>"),
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
        let _ = write!(out, "<li class=\"{name}{zero}\"><b>{count}</b>{}</li>", name.replace('_', " "));
    }
    let _ = write!(out, "</ul><p>{} The last sweep took {} ms.</p>", escape(&summary(report)), report.duration);
    for loss in &report.losses {
        let _ = write!(out, "<p class=\"warning\">{}</p>", escape(loss));
    }
    let mut flagged = findings.filter(|finding| finding.verdict.flagged()).take(MAX_ROWS).peekable();
    if flagged.peek().is_none() {
        return;
    }
    out.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>Verdict</th><th>Owner</th><th>Direction</th><th>Endpoint</th><th>Keepalive</th>\
         <th>Timer</th><th>Wire idle</th><th>Limit</th><th>Why</th></tr></thead><tbody>",
    );
    flagged.for_each(|finding| row(out, &finding));
    out.push_str("</tbody></table></div>");
    let left = report.flagged().saturating_sub(MAX_ROWS as u64);
    if left > 0 {
        let _ = write!(out, "<p>… and {left} more, in the report.</p>");
    }
}

fn row(out: &mut String, finding: &Finding) {
    let verdict = finding.verdict.name();
    let idle = finding.wire_idle.map_or_else(|| "?".to_owned(), |ms| Human(ms).to_string());
    let _ = write!(
        out,
        "<tr><td class=\"{verdict}\">{verdict}</td><td>{}</td><td>{}</td><td><code>{}</code></td><td>{}</td><td><code>{}</code></td>\
         <td>{idle}</td><td>{}</td><td class=\"why\">{}</td></tr>",
        escape(&finding.owner.to_string()),
        finding.direction.name(),
        finding.endpoint(),
        finding.keepalive.name(),
        SsTimer(finding),
        Human::from(finding.path.idle_timeout),
        escape(&Why(finding).to_string()),
    );
}

/// Names come from the outside.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
