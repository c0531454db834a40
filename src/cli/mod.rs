//! What a user may say: the command line, with an environment name for every flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod nearest;
pub mod remedy;

use crate::judge::policy::filter::Filter;
use crate::judge::verdict::Verdict;
use remedy::RemedyArgs;

/// Finds established TCP connections that no keepalive protects, in every network namespace of this machine.
///
/// A connection that stays silent longer than some load balancer, NAT or firewall on its path remembers it is dead, and neither end knows.
/// This program reads the kernel's own view of every socket and its timers, and says which connections are at risk and what to configure.
#[derive(Debug, Parser)]
#[command(name = "keepalive-auditor", version, max_term_width = 110, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub common: Common,
}

const EXIT_STATUS: &str = "Exit status: 0 done (with --fail-on: nothing found), 1 something failed, 2 wrong usage or configuration, \
                           3 --fail-on found something. Data goes to stdout, logs to stderr.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One sweep over every network namespace, and a table of what is at risk.
    Audit(Box<AuditArgs>),
    /// Sweeps on, and serves metrics, a report and a page over HTTP.
    Agent(Box<AgentArgs>),
    /// Prints configuration that turns keepalive on.
    Remedy(Box<RemedyArgs>),
    /// Lists known middleboxes and their idle timeouts.
    Profiles(ProfilesArgs),
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Configuration file (YAML); flags win over the environment, the environment over the file.
    #[arg(long, global = true, value_name = "FILE", env = "KEEPALIVE_AUDITOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// The shortest idle timeout on the default path [default: 350s].
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, env = "KEEPALIVE_AUDITOR_IDLE_TIMEOUT")]
    pub idle_timeout: Option<Duration>,
    /// A known middlebox on the default path (see `profiles`); may be given more than once, the shortest counts.
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',', env = "KEEPALIVE_AUDITOR_PROFILE")]
    pub profile: Vec<String>,
    /// The age from which a connection counts as long-lived [default: 5m].
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, env = "KEEPALIVE_AUDITOR_LONG_LIVED")]
    pub long_lived: Option<Duration>,
    /// Which connections within this machine count as local [default: node].
    #[arg(long, global = true, value_name = "SCOPE", env = "KEEPALIVE_AUDITOR_LOCAL_SCOPE")]
    pub local_scope: Option<ScopeArg>,
    /// The host's procfs [default: /proc].
    #[arg(long = "path.procfs", global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_PATH_PROCFS")]
    pub procfs: Option<PathBuf>,
    /// Directory of network namespaces' bind mounts; may be given more than once [default: /run/netns, /run/docker/netns].
    #[arg(long, global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_NETNS_DIR", value_delimiter = ',')]
    pub netns_dir: Vec<PathBuf>,
    /// The host's cgroup v2 tree [default: found under /sys/fs/cgroup].
    #[arg(long, global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
    /// The directory that holds the kubelet's pods/ and containers/ [default: /var/log].
    #[arg(long, global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_POD_LOGS")]
    pub pod_logs: Option<PathBuf>,
    /// The container runtime's CRI socket, as a second source of names.
    #[arg(long, global = true, value_name = "SOCKET", env = "KEEPALIVE_AUDITOR_CRI_ENDPOINT")]
    pub cri_endpoint: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter [default: warn for audit, info for the agent].
    #[arg(long = "log.level", global = true, value_name = "LEVEL", env = "KEEPALIVE_AUDITOR_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// How logs are written [default: text].
    #[arg(long = "log.format", global = true, value_name = "FORMAT", env = "KEEPALIVE_AUDITOR_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Flags of `audit`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct AuditArgs {
    /// Only connections that fit, in the language of ss: `sport = :8080 or dport = :8080`, `dst 10.0.0.0/8 and not dport = :443`.
    #[arg(value_name = "FILTER", env = "KEEPALIVE_AUDITOR_FILTER")]
    pub filter: Vec<String>,
    /// Shows every connection, not only flagged ones.
    #[arg(long, env = "KEEPALIVE_AUDITOR_ALL")]
    pub all: bool,
    /// How the result is written [default: table].
    #[arg(long, value_name = "FORMAT", env = "KEEPALIVE_AUDITOR_FORMAT")]
    pub format: Option<Format>,
    /// Only this network namespace: a name in the netns directories, or a path.
    #[arg(long, value_name = "NAME|PATH", env = "KEEPALIVE_AUDITOR_NETNS")]
    pub netns: Option<String>,
    /// Only the network namespace of this process.
    #[arg(long, value_name = "PID", env = "KEEPALIVE_AUDITOR_PID")]
    pub pid: Option<u32>,
    /// Only pods of this Kubernetes namespace (a glob).
    #[arg(long, value_name = "NAMESPACE", env = "KEEPALIVE_AUDITOR_NAMESPACE")]
    pub namespace: Option<String>,
    /// Only pods of this name (a glob).
    #[arg(long, value_name = "POD", env = "KEEPALIVE_AUDITOR_POD")]
    pub pod: Option<String>,
    /// Show only owners of this name: a pod, unit, container or namespace (a glob)
    #[arg(long, value_name = "OWNER", env = "KEEPALIVE_AUDITOR_OWNER")]
    pub owner: Option<String>,
    /// Keeps watching for this long before it judges, so that the other ends' probes can be seen.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, env = "KEEPALIVE_AUDITOR_FOR")]
    pub watch_for: Option<Duration>,
    /// Sweeps again and redraws, every so often, until interrupted.
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "KEEPALIVE_AUDITOR_WATCH", conflicts_with_all = ["watch_for", "replay"])]
    pub watch: Option<Duration>,
    /// Also writes what the kernel said to a file, addresses included.
    #[arg(long, value_name = "FILE", env = "KEEPALIVE_AUDITOR_RECORD", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Overwrite an existing recording
    #[arg(long, env = "KEEPALIVE_AUDITOR_FORCE", requires = "record")]
    pub force: bool,
    /// Judges a recording instead of this machine.
    #[arg(long, value_name = "FILE", env = "KEEPALIVE_AUDITOR_REPLAY", conflicts_with_all = ["netns", "pid", "watch_for"])]
    pub replay: Option<PathBuf>,
    /// Reads the true socket options from the processes that hold the sockets: of flagged connections, with --all of all.
    #[arg(long, env = "KEEPALIVE_AUDITOR_EXACT")]
    pub exact: bool,
    /// Adds, for each workload and endpoint, why its connections are flagged and which remedies fit.
    #[arg(long, env = "KEEPALIVE_AUDITOR_EXPLAIN", conflicts_with_all = ["watch", "compare"])]
    pub explain: bool,
    /// Tells what a change did, by an earlier recording: what was opened since, and what is left from before.
    #[arg(long, value_name = "BEFORE", env = "KEEPALIVE_AUDITOR_COMPARE", conflicts_with = "watch")]
    pub compare: Option<PathBuf>,
    /// Exits with status 3 if a connection is at least that bad.
    #[arg(long, value_name = "VERDICT", env = "KEEPALIVE_AUDITOR_FAIL_ON")]
    pub fail_on: Option<FailOn>,
    /// Let --fail-on succeed although something could not be read
    #[arg(long, env = "KEEPALIVE_AUDITOR_ALLOW_INCOMPLETE")]
    pub allow_incomplete: bool,
}

/// Flags of `agent`.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentArgs {
    /// Where to serve [default: 0.0.0.0:9986].
    #[arg(long = "web.listen-address", value_name = "ADDRESS", value_parser = listen_address, env = "KEEPALIVE_AUDITOR_WEB_LISTEN_ADDRESS")]
    pub listen_address: Option<SocketAddr>,
    /// TLS and passwords of the agent's port, as Prometheus' exporters are given them [default: neither].
    #[arg(long = "web.config.file", value_name = "FILE", env = "KEEPALIVE_AUDITOR_WEB_CONFIG_FILE")]
    pub web_config: Option<PathBuf>,
    /// Time between the starts of two sweeps [default: 15s].
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "KEEPALIVE_AUDITOR_INTERVAL")]
    pub interval: Option<Duration>,
    /// How many endpoints of a pod get a series of their own; the rest are `other` [default: 10].
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_TOP_ENDPOINTS")]
    pub top_endpoints: Option<usize>,
    /// How many connections are kept in detail, worst first; counts are always whole [default: 10000].
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_MAX_FINDINGS")]
    pub max_findings: Option<usize>,
    /// How finely connection metrics are labelled [default: container].
    #[arg(long, value_name = "DETAIL", env = "KEEPALIVE_AUDITOR_METRICS_DETAIL")]
    pub metrics_detail: Option<MetricsDetail>,
    /// How many connection series a scrape holds at most; what is left out is counted in `series_dropped` [default: 10000].
    #[arg(long, value_name = "N", env = "KEEPALIVE_AUDITOR_MAX_SERIES")]
    pub max_series: Option<usize>,
}

/// Flags of `profiles`.
#[derive(Clone, Debug, Default, Args)]
pub struct ProfilesArgs {
    /// How the list is written.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
}

/// `--local-scope`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeArg {
    /// Both ends in one network namespace, or on this machine with nothing translating between them.
    Node,
    /// Both ends in one network namespace.
    Namespace,
}

/// `--log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `audit --format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What a person wants to see.
    #[default]
    Table,
    /// Every column, and why.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a connection.
    Jsonl,
}

/// `profiles --format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// `--fail-on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    /// Any flagged connection.
    Exposed,
    /// A connection that is overdue, unanswered or blackholed.
    Overdue,
}

impl std::fmt::Display for FailOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exposed => "exposed",
            Self::Overdue => "overdue",
        })
    }
}

impl FailOn {
    /// Whether a connection with this verdict is bad enough.
    #[must_use]
    pub fn includes(self, verdict: Verdict) -> bool {
        match self {
            Self::Exposed => verdict.flagged(),
            Self::Overdue => matches!(verdict, Verdict::Overdue | Verdict::Unanswered | Verdict::Blackholed),
        }
    }
}

/// `--metrics-detail`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsDetail {
    /// Series by container.
    #[default]
    Container,
    /// Series by pod: `container` is empty.
    Pod,
    /// Series by Kubernetes namespace: `pod` and `container` are empty.
    Namespace,
}

/// A duration as people write them: `90s`, `5m`, `2h`, `1h 30m`; the unit is required, and zero is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim()).map_err(|_| {
        let unit = if text.trim().parse::<f64>().is_ok() { format!(", as {}s", text.trim()) } else { String::new() };
        format!("`{text}` is not a duration; write it with a unit{unit}, like 90s, 5m or 2h")
    })?;
    if duration.is_zero() {
        Err(format!("`{text}` is no time at all; give a duration above zero"))
    } else {
        Ok(duration)
    }
}

/// The words of FILTER, which may come as one argument or as several, as ss takes them.
pub fn filter(words: &[String]) -> Result<Option<Filter>, String> {
    let text = words.join(" ");
    if text.trim().is_empty() { Ok(None) } else { Filter::parse(&text).map(Some) }
}

/// An address as `--web.listen-address` takes it: `0.0.0.0:9986`, `[::]:9986`, or `:9986` for every address.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("`{text}` is not an address with a port, such as 0.0.0.0:9986 or [::]:9986"))
}
