//! The flags of `agent`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration::duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  Serve metrics and the page on port 9986 of every address:
    keepalive-auditor agent
  Serve on one address, with TLS and passwords:
    keepalive-auditor agent --web.listen-address 10.0.0.5:9986 --web.config.file web.yaml
  Judge connections by the idle timeout of an AWS NLB:
    keepalive-auditor agent --profile aws-nlb

Paths: / the page, /metrics, /api/v1/report (verdict, namespace, pod, limit), /healthz, /readyz.
The metrics are explained in docs/metrics.md, and by keepalive-auditor explain METRIC.";

/// Flags of `agent`.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentArgs {
    /// Serve on this address and port [default: 0.0.0.0:9986]
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        value_parser = listen_address,
        env = "KEEPALIVE_AUDITOR_WEB_LISTEN_ADDRESS",
        help_heading = "HTTP"
    )]
    pub listen_address: Option<SocketAddr>,
    /// Read TLS and passwords from a file [default: neither]
    ///
    /// The file has the form that Prometheus' exporters use (exporter-toolkit). It is read again when it changes.
    #[arg(
        long = "web.config.file",
        value_name = "FILE",
        env = "KEEPALIVE_AUDITOR_WEB_CONFIG_FILE",
        help_heading = "HTTP"
    )]
    pub web_config: Option<PathBuf>,
    /// Start a sweep at this interval [default: 15s]
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        allow_hyphen_values = true,
        env = "KEEPALIVE_AUDITOR_INTERVAL",
        help_heading = "Sweep"
    )]
    pub interval: Option<Duration>,
    /// Keep the details of at most N connections, worst first [default: 10000]
    ///
    /// Counts are exact and whole, whatever N is.
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_MAX_FINDINGS", help_heading = "Sweep")]
    pub max_findings: Option<usize>,
    /// Watch how flagged connections end, so that their outcomes are exact
    ///
    /// The kernel then reports each TCP socket that it destroys, for a microsecond or two of CPU time. Only namespaces
    /// with flagged connections are watched, and each only as long as it has a process or a bind mount.
    #[arg(long, env = "KEEPALIVE_AUDITOR_WATCH_ENDS", help_heading = "Sweep")]
    pub watch_ends: bool,
    /// Give N endpoints per pod a series of their own [default: 10]
    ///
    /// The rest are counted with the endpoint `other`.
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_TOP_ENDPOINTS", help_heading = "Metrics")]
    pub top_endpoints: Option<usize>,
    /// Label by container, pod, workload or namespace [default: container]
    #[arg(long, value_name = "DETAIL", env = "KEEPALIVE_AUDITOR_METRICS_DETAIL", help_heading = "Metrics")]
    pub metrics_detail: Option<MetricsDetail>,
    /// Limit the connection and pod series of a scrape [default: 10000]
    ///
    /// The metric `series_dropped` counts the series beyond the limit.
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_MAX_SERIES", help_heading = "Metrics")]
    pub max_series: Option<usize>,
}

/// `--metrics-detail`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsDetail {
    /// Series by container
    #[default]
    Container,
    /// Series by pod: `container` is empty
    Pod,
    /// Series by workload: `pod` and `container` are empty, `workload` is one more label
    Workload,
    /// Series by Kubernetes namespace: `pod` and `container` are empty
    Namespace,
}

/// An address as `--web.listen-address` takes it: `0.0.0.0:9986`, `[::]:9986`, or `:9986` for every address.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "not an address with a port; write one like 0.0.0.0:9986, [::]:9986 or :9986".to_owned())
}
