//! A report as JSON, schema 1: for scripts and for `/api/v1/report`.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

mod groups;

use super::why::Why;
use super::{limits, node_limits};
use crate::judge::cause::Cause;
use crate::judge::report::{
    Contradiction, Finding, LearnedLimit, Millis, NodeLimitFacts, Outcome, Path, Report, Waits,
};
use crate::judge::verdict::Verdict;

pub use groups::{Remedies, comparison, explanation};

/// 9999-12-31T23:59:59Z, milliseconds since the Unix epoch.
const END_OF_9999: u64 = 253_402_300_799_000;

/// The version of the form.
pub const SCHEMA: u32 = 1;

/// The whole report as one document.
pub struct Document<'a, F> {
    /// The report, but for its findings.
    pub report: &'a Report,
    /// The findings to write, one by one, so that two hundred thousand are written without being held.
    pub findings: F,
}

impl<F: Fn() -> I, I: Iterator<Item: Borrow<Finding>>> Serialize for Document<'_, F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let report = self.report;
        let verdicts: serde_json::Map<String, Value> =
            Verdict::ALL.into_iter().map(|verdict| (verdict.name().to_owned(), report.count(verdict).into())).collect();
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA)?;
        map.serialize_entry("node", &report.node)?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("sweep", &sweep(report))?;
        map.serialize_entry("verdicts", &verdicts)?;
        let paths: Vec<_> =
            report.paths.iter().zip(&report.learned).map(|(path, learned)| self::path(path, learned)).collect();
        map.serialize_entry("paths", &paths)?;
        map.serialize_entry("node_limits", &read_from_node(&report.node_limits))?;
        map.serialize_entry("notes", &node_limits::notes(report))?;
        let ended = Outcome::ALL.into_iter().zip(report.totals.ended.node);
        let ended: BTreeMap<_, _> = ended.map(|(outcome, count)| (outcome.name(), count)).collect();
        map.serialize_entry("flagged_ended", &ended)?;
        map.serialize_entry("truncated", &report.truncated)?;
        let remedies = Remedies::all();
        map.serialize_entry("groups", &groups::list((self.findings)(), &remedies, report.node_tcp_keepalive_time))?;
        map.serialize_entry("connections", &Connections(&self.findings, &remedies))?;
        map.end()
    }
}

/// Milliseconds since the Unix epoch as RFC 3339, which ends with the year 9999: a recording may hold any number.
#[must_use]
pub fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(END_OF_9999))).to_string()
}

fn sweep(report: &Report) -> Value {
    json!({
        "started_at": time(report.started_at),
        "duration_seconds": seconds(report.duration),
        "watched_seconds": seconds(report.watched_for),
        "namespaces": {
            "dumped": report.namespaces.dumped,
            "empty": report.namespaces.empty,
            "looked_up": report.namespaces.looked_up,
            "skipped": report.namespaces.skipped,
            "vanished": report.namespaces.vanished,
            "failed": report.namespaces.failed,
        },
        "connections": report.connections,
        "ignored": report.ignored,
        "half_closed": Waits::ALL
            .map(|waits| (waits.name(), report.half_closed(waits)))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        "half_closed_by_owner": report.half_closed.iter().map(|((owner, waits), count)| json!({
            "owner": **owner,
            "state": waits.name(),
            "connections": count,
        })).collect::<Vec<_>>(),
        "incomplete": report.incomplete,
        "blind": report.is_blind,
        "stale": {
            "namespaces": report.stale.namespaces,
            "connections": report.stale.connections,
            "age_seconds": seconds(report.stale.age),
        },
        "losses": report.losses,
    })
}

/// A path, its limit, and what was measured of it.
fn path(path: &Path, learned: &LearnedLimit) -> Value {
    let contradiction = learned.contradiction(path);
    json!({
        "name": path.name,
        "idle_timeout_seconds": path.idle_timeout.as_secs_f64(),
        "refreshed_by": path.refreshed_by.name(),
        "reads_http2": path.reads_http2,
        "source": path.source.name(),
        "idle_survived_seconds": learned.survived.map(Millis::as_secs_f64),
        "idle_broken_seconds": learned.broken.map(|(shortest, _)| shortest.as_secs_f64()),
        "idle_broken_longest_seconds": learned.broken.map(|(_, longest)| longest.as_secs_f64()),
        "survivals": learned.survivals,
        "breaks": learned.breaks,
        "contradiction": contradiction.map(Contradiction::name),
        "fitting_idle_timeout_seconds": contradiction.and_then(|_| learned.fitting()),
        "advice": limits::contradiction(path, learned),
    })
}

/// What the node says about idle timeouts.
fn read_from_node(facts: &NodeLimitFacts) -> Value {
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    json!({
        "used": facts.is_used,
        "conntrack_seconds": seconds(facts.conntrack),
        "shortest_conntrack_elsewhere_seconds": seconds(facts.shortest_conntrack_elsewhere),
        "ipvs_seconds": seconds(facts.ipvs),
        "cloud": facts.cloud.map(|cloud| json!({ "name": cloud.name, "profiles": cloud.profiles })),
        "unread": facts.unread,
    })
}

struct Connections<'a, F>(&'a F, &'a Remedies);

impl<F: Fn() -> I, I: Iterator<Item: Borrow<Finding>>> Serialize for Connections<'_, F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0().map(|finding| connection(finding.borrow(), self.1)))
    }
}

/// One connection.
#[must_use]
pub fn connection(finding: &Finding, remedies: &Remedies) -> Value {
    let owner = &finding.owner;
    let exact = finding.exact.filter(|exact| exact.so_keepalive == Some(true)).and_then(|exact| exact.tcp_keepidle);
    let exact = exact.map(|idle| (f64::from(idle), "exact"));
    let idle = exact.or(finding.keepidle.map(|idle| (seconds(idle), "at_least")));
    let mut value = json!({
        "netns": finding.netns.0,
        "netns_name": finding.netns_name.as_deref(),
        "owner": {
            "kind": owner.kind,
            "namespace": owner.namespace,
            "pod": owner.pod,
            "pod_uid": owner.pod_uid,
            "container": owner.container,
            "container_id": owner.container_id,
        },
        "family": if finding.local.addr.is_ipv4() { "ipv4" } else { "ipv6" },
        "local": finding.local.to_string(),
        "remote": finding.remote.to_string(),
        "direction": finding.direction.name(),
        "endpoint": finding.endpoint().to_string(),
        "timer": {
            "kind": finding.timer.name(),
            "expires_seconds": finding.expires.map(seconds),
            "retransmits": finding.timer_retransmits(),
        },
        "keepalive": finding.keepalive.name(),
        "keepalive_idle_seconds": idle.map(|(seconds, _)| seconds),
        "keepalive_idle_is": idle.map(|(_, is)| is),
        "data_idle_seconds": finding.data_idle.map(seconds),
        "request_idle_seconds": finding.request_idle.map(seconds),
        "wire_idle_seconds": finding.wire_idle.map(seconds),
        "last_heard_seconds": finding.last_heard.map(seconds),
        "unanswered": { "probes": finding.unanswered.probes, "retransmits": finding.unanswered.retransmits },
        "watched_seconds": seconds(finding.watched),
        "age_seconds": seconds(finding.age),
        "waiting_for_reply": finding.waiting_for_reply,
        "path": finding.path.name,
        "idle_timeout_seconds": finding.path.idle_timeout.as_secs_f64(),
        "refreshed_by": finding.path.refreshed_by.name(),
        "reads_http2": finding.path.reads_http2,
        "peer": {
            "probes_seen": finding.peer.probes.is_some(),
            "probe_period_seconds": finding.peer.probes.and_then(|probes| probes.period).map(seconds),
            "on_node": finding.peer.on_node,
            "keepalive": finding.peer.keepalive.map(super::super::judge::verdict::Keepalive::name),
        },
        "tcp_keepalive_time_seconds": finding.tcp_keepalive_time,
        "verdict": finding.verdict.name(),
        "cause": Cause::of(finding).map(Cause::name),
        "why": Why(finding).to_string(),
        "remedies": remedies.of(finding),
        "process": finding.holder.as_ref().map(|holder| json!({
            "pid": holder.pid,
            "program": holder.program(),
            "comm": holder.comm,
            "argv0": holder.argv0,
            "exe": holder.exe,
            "script": Some(&holder.script).filter(|script| !script.is_empty()),
            "binary": holder.binary,
        })),
        "uid": finding.uid,
        "inode": finding.inode,
        "cookie": finding.cookie.to_string(),
    });
    if let (Some(age), Some(map)) = (finding.stale, value.as_object_mut()) {
        map.insert("stale_seconds".to_owned(), seconds(age).into());
    }
    if let (Some(exact), Some(map)) = (finding.exact, value.as_object_mut()) {
        map.insert(
            "exact".to_owned(),
            json!({
                "so_keepalive": exact.so_keepalive,
                "tcp_keepidle_seconds": exact.tcp_keepidle,
                "tcp_keepintvl_seconds": exact.tcp_keepintvl,
                "tcp_keepcnt": exact.tcp_keepcnt,
                "tcp_user_timeout_seconds": exact.tcp_user_timeout.map(|ms| seconds(ms.into())),
            }),
        );
    }
    value
}

fn seconds(span: Millis) -> f64 {
    span.as_secs_f64()
}
