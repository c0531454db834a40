//! Groups, explanations and comparisons as JSON.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{SCHEMA, seconds};
use crate::judge::cause::{Cause, SystemDefault};
use crate::judge::report::{Direction, Finding, Report, ServiceEndpoint};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, Owner};
use crate::remedy::target::Target;
use crate::remedy::{self, RemedyError};
use crate::show::advice::{help, why};
use crate::show::compare::{changes, took_effect};
use crate::show::explain::fitting_group;
use crate::show::fit::Subject;
use crate::show::groups::{Group, Split, groups};

/// The most process ids of a group that are listed.
const MAX_PIDS: usize = 20;

/// What decides which remedies fit.
type Kind = (Arc<Owner>, Option<Arc<Holder>>, [bool; 3], Option<bool>, Direction, u16, Keepalive);

/// The names of the remedies that fit, looked up once for each kind of connection.
#[derive(Default)]
pub struct Remedies {
    targets: Vec<Target>,
    known: RefCell<HashMap<Kind, Vec<String>>>,
}

impl Remedies {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        // a broken data file of ours is found by tests
        Self { targets: remedy::list().unwrap_or_default(), known: RefCell::default() }
    }

    /// Those that fit a connection, best first; none where it is not flagged, or where keepalive does not help.
    #[must_use]
    pub fn of(&self, finding: &Finding) -> Vec<String> {
        let is_for_keepalive = matches!(finding.keepalive, Keepalive::Off | Keepalive::Late);
        if !is_for_keepalive || Cause::of(finding).is_none_or(Cause::is_payload) {
            return Vec::new();
        }
        let port = match finding.endpoint() {
            ServiceEndpoint::Remote(endpoint) => endpoint.port,
            ServiceEndpoint::Local(port) => port,
        };
        let is_default = SystemDefault::of(finding).is_some();
        let is_sought = finding.is_holder_sought || finding.inode == 0;
        let Finding { owner, holder, host_network, direction, keepalive, .. } = finding;
        let flags = [is_default, is_sought, finding.path.reads_http2];
        let kind = (owner.clone(), holder.clone(), flags, *host_network, *direction, port, *keepalive);
        let mut known = self.known.borrow_mut();
        let names = known.entry(kind).or_insert_with(|| {
            let fitting = Subject { finding, keepalive: finding.keepalive }.fitting(&self.targets);
            fitting.targets.into_iter().map(|target| target.name.clone()).collect()
        });
        names.clone()
    }
}

/// The groups of these findings, as the table on a terminal shows them, with every endpoint by itself.
pub(super) fn list<F: std::borrow::Borrow<Finding>>(
    findings: impl Iterator<Item = F>,
    remedies: &Remedies,
    node: Option<u32>,
) -> Vec<Value> {
    let split = Split { verdicts: true, endpoints: true };
    let list = |group: &Group| {
        let mut value = facts(group, node);
        value["remedies"] = group.worst.first().map(|finding| remedies.of(finding)).into();
        value
    };
    groups(findings, split).iter().map(list).collect()
}

fn facts(group: &Group, node: Option<u32>) -> Value {
    let owner = group.worst.first().map(|finding| &finding.owner);
    let verdicts: BTreeMap<_, _> = Verdict::ALL
        .into_iter()
        .filter(|verdict| group.count(*verdict) > 0)
        .map(|verdict| (verdict.name(), group.count(verdict)))
        .collect();
    json!({
        "workload": group.workload,
        "kind": owner.map(|owner| owner.kind),
        "namespace": owner.and_then(|owner| owner.namespace.as_deref()),
        "pods": group.pods,
        "container": owner.and_then(|owner| owner.container.as_deref()),
        "program": group.program,
        "processes": group.processes.len(),
        "pids": group.processes.iter().map(|holder| holder.pid).take(MAX_PIDS).collect::<Vec<_>>(),
        "direction": group.direction.name(),
        "endpoint": group.endpoint(),
        "path": group.path.name,
        "idle_timeout_seconds": group.path.idle_timeout.as_secs_f64(),
        "refreshed_by": group.path.refreshed_by.name(),
        "reads_http2": group.path.reads_http2,
        "keepalive": group.keepalive.name(),
        "cause": group.cause.map(Cause::name),
        "probes_after_seconds": group.seconds.map(|(shortest, longest)| [shortest, longest]),
        "verdict": group.verdict().name(),
        "verdicts": verdicts,
        "connections": group.connections(),
        "idle_seconds": group.idle.map(seconds),
        "waiting_for_reply": group.waiting,
        "why": group.cause.map(|cause| why(cause, group, node)),
    })
}

/// `--explain` as one document: the groups of the text, each with what helps.
pub fn explanation(report: &Report) -> Result<Value, RemedyError> {
    let targets = remedy::list()?;
    let flagged = report.findings.iter().filter(|finding| finding.verdict.flagged());
    let groups = groups(flagged, Split { verdicts: false, endpoints: true });
    let explained = groups.iter().map(|group| {
        let mut value = facts(group, report.node_tcp_keepalive_time);
        value["help"] = group.cause.map_or_else(Vec::new, |cause| help(cause, group)).into();
        let (details, in_code): (Vec<_>, Vec<_>) =
            fitting_group(&targets, group).map_or_else(Default::default, |(subject, fitting)| {
                let details = fitting.targets.iter().map(|target| details(&subject, target)).collect();
                (details, fitting.in_code.iter().map(|target| target.name.as_str()).collect())
            });
        value["remedies"] = details.into();
        value["remedies_in_code"] = in_code.into();
        value
    });
    Ok(json!({
        "schema": SCHEMA,
        "node": report.node,
        "version": env!("CARGO_PKG_VERSION"),
        "connections": report.connections,
        "flagged": report.flagged(),
        "incomplete": report.incomplete,
        "groups": explained.collect::<Vec<_>>(),
    }))
}

fn details(subject: &Subject<'_>, target: &Target) -> Value {
    json!({
        "target": target.name,
        "description": target.description,
        "command": subject.command(target),
        "takes_effect": target.takes_effect,
        "caveat": target.caveat,
    })
}

/// `--compare` as one document.
#[must_use]
pub fn comparison(before: &Report, after: &Report) -> Value {
    let changes = changes(before, after);
    let changes = changes.iter().map(|((workload, direction, endpoint), change)| {
        json!({
            "workload": workload,
            "direction": direction.name(),
            "endpoint": endpoint.to_string(),
            "effect": change.effect().name(),
            "newly_protected": change.new_protected,
            "new_but_unprotected": change.new_unprotected,
            "fixed_while_open": change.fixed_in_place,
            "old_and_unprotected": change.old_unprotected,
            "old_and_protected": change.old_protected,
            "unprotected_and_closed_since": change.gone_unprotected,
        })
    });
    json!({
        "schema": SCHEMA,
        "node": after.node,
        "version": env!("CARGO_PKG_VERSION"),
        "took_effect": took_effect(before, after),
        "changes": changes.collect::<Vec<_>>(),
    })
}
