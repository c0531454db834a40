//! The flags of `remedy`.

use std::time::Duration;

use clap::Args;

use super::duration::duration_or_seconds;
use crate::remedy::Request;

pub(super) const EXAMPLES: &str = "\
Examples:
  List the targets, with what each one fixes and its caveat:
    keepalive-auditor remedy --list
  Print nginx directives for a path that drops idle connections after 350 s:
    keepalive-auditor remedy nginx --profile aws-nlb
  Turn keepalive on between the mesh and a database:
    keepalive-auditor remedy istio-destination-rule --host db.example.com --port 5432 | kubectl apply -f -
  Choose the times by hand (bare numbers are seconds):
    keepalive-auditor remedy haproxy --idle 60 --interval 10 --probes 5

The configuration goes to stdout, hints go to stderr.";

/// Flags of `remedy`. The times are derived from the idle timeout of the path.
#[derive(Args, Debug, Clone)]
pub struct RemedyArgs {
    /// Print the configuration of this target; --list shows all targets
    pub target: Option<String>,
    /// Describe every target: what it fixes, when it takes effect, its caveat
    #[arg(long)]
    pub list: bool,
    /// Send the first probe after this idle time [default: derived]
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_or_seconds,
        allow_hyphen_values = true,
        help_heading = "Keepalive"
    )]
    pub idle: Option<Duration>,
    /// Repeat unanswered probes at this interval [default: derived]
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_or_seconds,
        allow_hyphen_values = true,
        help_heading = "Keepalive"
    )]
    pub interval: Option<Duration>,
    /// Close the connection after N unanswered probes [default: derived]
    #[arg(long, value_name = "N", help_heading = "Keepalive")]
    pub probes: Option<u32>,
    /// Name the peer: a DNS name, a Service or an IP address
    #[arg(long, help_heading = "Object")]
    pub host: Option<String>,
    /// Name the port of the listening side
    #[arg(long, help_heading = "Object")]
    pub port: Option<u16>,
    /// Name the object; --list shows what the name means for each target
    #[arg(long, help_heading = "Object")]
    pub name: Option<String>,
    /// Name the Kubernetes namespace of the object
    #[arg(long, help_heading = "Object")]
    pub namespace: Option<String>,
    /// Give Envoy's version, for targets that depend on it
    #[arg(long, value_name = "VERSION", help_heading = "Object")]
    pub envoy_version: Option<String>,
}

impl RemedyArgs {
    /// The request, for a path with that idle timeout.
    #[must_use]
    pub fn request(self, budget: Duration) -> Request {
        let Self { target, list: _, idle, interval, probes, host, port, name, namespace, envoy_version } = self;
        let target = target.unwrap_or_default();
        Request { target, idle, interval, probes, host, port, name, namespace, envoy_version, budget }
    }
}
