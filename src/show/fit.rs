//! The remedies for a flagged connection, and the commands that print them.

use super::units::Limit;
use crate::judge::cause::SystemDefault;
use crate::judge::report::{Finding, ServiceEndpoint};
use crate::judge::verdict::Keepalive;
use crate::remedy::fits::{Fitting, HeldBy, Situation, fitting};
use crate::remedy::target::Target;

/// What a remedy is to fix: one connection that stands for its group.
pub struct Subject<'a> {
    /// The connection.
    pub finding: &'a Finding,
    /// `off` or `late`.
    pub keepalive: Keepalive,
}

impl Subject<'_> {
    /// The targets that fit, best first.
    #[must_use]
    pub fn fitting<'t>(&self, targets: &'t [Target]) -> Fitting<'t> {
        let Self { finding, keepalive } = *self;
        let port = match finding.endpoint() {
            ServiceEndpoint::Remote(endpoint) => endpoint.port,
            ServiceEndpoint::Local(port) => port,
        };
        let situation = Situation {
            held_by: held_by(finding),
            owner: &finding.owner,
            host_network: finding.host_network,
            direction: finding.direction,
            port,
            keepalive,
            is_default: SystemDefault::of(finding).is_some(),
            reads_http2: finding.path.reads_http2,
        };
        fitting(targets, &situation)
    }

    /// The command line that prints a target for this connection: only flags that the target has a use for.
    #[must_use]
    pub fn command(&self, target: &Target) -> String {
        let limit = self.finding.path.idle_timeout;
        let budget = match limit.subsec_nanos() {
            0 => Limit(limit).to_string(),
            _ => humantime::format_duration(limit).to_string().replace(' ', ""),
        };
        let mut words = vec![format!("keepalive-auditor remedy {} --idle-timeout {budget}", target.name)];
        let defaults = &target.defaults;
        let names_object = defaults.host.as_ref().is_some_and(|host| !host.contains('.'));
        match self.finding.endpoint() {
            ServiceEndpoint::Remote(endpoint) if defaults.host.is_some() => {
                words.extend((!names_object).then(|| format!("--host {}", endpoint.addr)));
                words.extend(defaults.port.map(|_| format!("--port {}", endpoint.port)));
            }
            ServiceEndpoint::Local(port) if defaults.host.is_none() && defaults.port.is_some() => {
                words.push(format!("--port {port}"));
            }
            _ => {}
        }
        // the line is made to be pasted into a shell, and a recording may name anything
        let is_plain = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let namespace = self.finding.owner.namespace.as_ref().filter(|_| defaults.namespace.is_some()).filter(is_plain);
        words.extend(namespace.map(|namespace| format!("--namespace {namespace}")));
        words.join(" ")
    }
}

/// Who holds the socket of a connection.
#[must_use]
pub fn held_by(finding: &Finding) -> HeldBy<'_> {
    match finding.holder.as_deref() {
        Some(holder) => HeldBy::Process(holder),
        // nobody has accepted a connection without an inode
        None if finding.is_holder_sought || finding.inode == 0 => HeldBy::Nobody,
        None => HeldBy::Unknown,
    }
}
