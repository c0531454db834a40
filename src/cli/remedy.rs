//! What a user may say to `remedy`.

use std::time::Duration;

use clap::Args;

use crate::remedy::Request;

/// Configuration that turns keepalive on, ready to be piped on.
#[derive(Args, Debug, Clone)]
pub struct RemedyArgs {
    /// What to configure; see --list
    #[arg(required_unless_present = "list")]
    pub target: Option<String>,
    /// Describe every target: which side it mends, when it takes effect, and its catch
    #[arg(long)]
    pub list: bool,
    /// Silence before the first probe; derived from the idle timeout unless given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle: Option<Duration>,
    /// Time between unanswered probes; derived from the idle timeout unless given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Unanswered probes until the connection is given up
    #[arg(long, value_name = "N")]
    pub probes: Option<u32>,
    /// The other end of the connections: a DNS name, a Service or an IP address
    #[arg(long)]
    pub host: Option<String>,
    /// The port of the listening end
    #[arg(long)]
    pub port: Option<u16>,
    /// The name of the object; what it names is the target's to say (see --list)
    #[arg(long)]
    pub name: Option<String>,
    /// The Kubernetes namespace of the object
    #[arg(long)]
    pub namespace: Option<String>,
    /// Envoy's version, where the form depends on it
    #[arg(long, value_name = "VERSION")]
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

/// `300s`, `5m`, and bare seconds as Envoy and Istio people write them.
fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    text.parse().map_or_else(|_| humantime::parse_duration(text), |seconds| Ok(Duration::from_secs(seconds)))
}
