//! Which remedies fit a flagged connection, by what their data files say of themselves.

use super::units::Limit;
use crate::judge::report::{Direction, Finding, ServiceEndpoint};
use crate::judge::verdict::Keepalive;
use crate::remedy::target::{Helps, NameGlob, Reach, Target};

/// What a remedy is to fix: one connection that stands for its group.
pub struct Subject<'a> {
    /// The connection.
    pub finding: &'a Finding,
    /// The executable that holds it, where known.
    pub program: Option<&'a str>,
    /// `off` or `late`.
    pub keepalive: Keepalive,
}

/// How a target's names match: ordered by how much that says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    Container,
    Program,
    Anything,
}

/// The targets that fit, best first, and whether one of them is particular to this program.
///
/// A container that is known by name decides alone: `istio-proxy` runs `envoy`, but is configured by Istio.
#[must_use]
pub fn fitting<'t>(targets: &'t [Target], subject: &Subject<'_>) -> (Vec<&'t Target>, bool) {
    let mut matches: Vec<(Match, &Target)> = targets.iter().filter_map(|t| Some((subject.matches(t)?, t))).collect();
    matches.sort_by_key(|(how, target)| (*how, target.name.as_str()));
    let by_container = matches.iter().any(|(how, _)| *how == Match::Container);
    matches.retain(|(how, _)| !(by_container && *how == Match::Program));
    let known = matches.iter().any(|(how, _)| *how != Match::Anything);
    (matches.into_iter().map(|(_, target)| target).collect(), known)
}

impl Subject<'_> {
    fn matches(&self, target: &Target) -> Option<Match> {
        let helps = match self.keepalive {
            Keepalive::Off => target.helps.contains(&Helps::Off),
            _ => target.helps.contains(&Helps::Late),
        };
        let reaches = match target.direction {
            Reach::Both => true,
            Reach::Inbound => self.finding.direction == Direction::Inbound,
            Reach::Outbound => self.finding.direction == Direction::Outbound,
        };
        let fits = &target.fits;
        let port = match self.finding.endpoint() {
            ServiceEndpoint::Remote(endpoint) => endpoint.port,
            ServiceEndpoint::Local(port) => port,
        };
        let at_port = (fits.ports.is_empty() || fits.ports.contains(&port)) && !fits.not_ports.contains(&port);
        let kind = self.finding.owner.kind;
        let owned = fits.kinds.is_empty() || fits.kinds.contains(&kind);
        let container = self.finding.owner.container.as_deref();
        let excluded = matches_any(&fits.not_names, container) || matches_any(&fits.not_names, self.program);
        if !(helps && reaches && at_port && owned) || excluded {
            return None;
        }
        if fits.names.iter().any(NameGlob::is_any) {
            // A port of its own says as much as a name.
            Some(if fits.ports.is_empty() { Match::Anything } else { Match::Program })
        } else if matches_any(&fits.names, container) {
            Some(Match::Container)
        } else {
            matches_any(&fits.names, self.program).then_some(Match::Program)
        }
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

fn matches_any(globs: &[NameGlob], name: Option<&str>) -> bool {
    name.is_some_and(|name| globs.iter().any(|glob| glob.is_match(name)))
}
