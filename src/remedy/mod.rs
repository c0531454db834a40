//! Configuration that turns keepalive on, for every program in which it can be turned on.

pub mod fits;
pub mod keepalive;
pub mod location;
pub mod target;

use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior, Value};
use thiserror::Error;

use crate::judge::policy::RefreshedBy;
use crate::judge::policy::profiles::{self, Profile};
use keepalive::KeepaliveSettings;
use location::Location;
use target::Target;

/// What the user asked for. What is absent is derived from the budget, or takes the target's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The remedy's name: `istio-destination-rule`.
    pub target: String,
    /// Idle time before the first probe (KEEPIDLE); whole seconds.
    pub idle: Option<Duration>,
    /// Time between unanswered probes (KEEPINTVL); whole seconds.
    pub interval: Option<Duration>,
    /// Unanswered probes until the kernel closes the connection (KEEPCNT).
    pub probes: Option<u32>,
    /// The peer of the connections: a DNS name, a Service or an IP address.
    pub host: Option<String>,
    /// The port of the listening end.
    pub port: Option<u16>,
    /// The name of the object; what it names is the target's to say.
    pub name: Option<String>,
    /// The Kubernetes namespace of the object.
    pub namespace: Option<String>,
    /// Envoy's version, for targets that depend on it: `1.37`, `v1.36.2`.
    pub envoy_version: Option<String>,
    /// The shortest idle timeout on the path.
    pub budget: Duration,
}

/// A remedy, ready to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The configuration alone, ready to be piped.
    pub stdout: String,
    /// Sentences for the reader; for stderr.
    pub hints: Vec<String>,
}

/// Why there is no remedy for a request.
#[derive(Debug, Error)]
pub enum RemedyError {
    /// No data file of that name.
    #[error("no remedy is named `{name}`{suggestion} (`keepalive-auditor remedy --list` describes all)")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// The nearest name, or all names.
        suggestion: String,
    },
    /// Probes that come after the path has dropped the connection.
    #[error(
        "--idle {idle}s cannot protect a path that drops idle connections after {budget}s: the kernel's timer fires \
         up to an \
         eighth late, so the first probe may come only after {latest}s; use at most {most}s"
    )]
    TooLate {
        /// KEEPIDLE asked for, in seconds.
        idle: u64,
        /// KEEPIDLE × 9/8, as the reader sees it.
        latest: String,
        /// The idle timeout, as the reader sees it.
        budget: String,
        /// The greatest KEEPIDLE that protects, in seconds.
        most: u64,
    },
    /// A layer 7 timeout: probes carry no payload.
    #[error(
        "no keepalive helps with --profile {profile}: its idle timeout counts payload bytes only; let the application \
         send \
         something{pings} more often than every {seconds}s, or raise the timeout"
    )]
    Helpless {
        /// The profile's name.
        profile: &'static str,
        /// Its idle timeout, in seconds.
        seconds: u64,
        /// That HTTP/2 PING does not count either, where that is so.
        pings: &'static str,
    },
    /// An idle timeout that no whole second fits below.
    #[error(
        "no keepalive protects a path that drops idle connections after {0:?}: the kernel counts whole seconds and \
         its timer fires up to an eighth late; raise the path's idle timeout"
    )]
    NoRoom(Duration),
    /// A number that the kernel would refuse.
    #[error("invalid value {value} for --{flag}; use what the kernel accepts, {range}")]
    OutOfRange {
        /// The flag without its dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A name that no API would accept.
    #[error("invalid value `{value}` for --{flag}; write {expected}")]
    Malformed {
        /// The flag without its dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What it ought to be.
        expected: &'static str,
    },
    /// A data file of ours that cannot be used.
    #[error("cannot render the remedy {target}: {reason}; this is a bug, please report it")]
    Broken {
        /// Whose data file.
        target: String,
        /// What the parser said.
        reason: String,
    },
}

/// Every remedy, in alphabetical order.
pub fn list() -> Result<Vec<Target>, RemedyError> {
    target::all()
}

/// Whether keepalive helps against every middlebox of these profiles.
pub fn helps_against(names: &[String]) -> Result<(), RemedyError> {
    let helpless = names
        .iter()
        .filter_map(|name| profiles::find(name))
        .find(|profile| profile.refreshed_by == RefreshedBy::Payload);
    helpless.map_or(Ok(()), |Profile { name, idle_timeout, reads_http2, .. }| {
        let pings = if *reads_http2 { " other than HTTP/2 or gRPC PING" } else { "" };
        Err(RemedyError::Helpless { profile: name, seconds: idle_timeout.as_secs(), pings })
    })
}

/// Renders one remedy.
pub fn render(request: &Request) -> Result<Rendered, RemedyError> {
    let target = target::find(&request.target)?;
    let keepalive = KeepaliveSettings::derive(request.idle, request.interval, request.probes, request.budget)?;
    let place = Location::new(request, &target.defaults)?;
    let values = Value::from_pairs(place.values().into_iter().chain([
        ("idle", keepalive.idle.into()),
        ("interval", keepalive.interval.into()),
        ("probes", keepalive.probes.into()),
        ("first_probe", keepalive.first_probe(request.budget).into()),
        ("summary", keepalive.summary(request.budget).into()),
    ]));

    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    let fill = |text: &str| {
        engine
            .render_str(text, &values)
            .map_err(|error| RemedyError::Broken { target: target.name.clone(), reason: format!("{error:#}") })
    };
    let stdout = fill(&target.body)?.trim_end().to_owned() + "\n";
    let mut hints = target.hints.iter().map(|hint| fill(hint)).collect::<Result<Vec<_>, _>>()?;
    hints.extend(location::assumptions(request, &target));
    hints.extend(keepalive.warning(request.budget));
    Ok(Rendered { stdout, hints })
}
