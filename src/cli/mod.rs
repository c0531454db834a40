//! The command line. Every flag has an environment variable, and every flag but `-w` a key of the configuration file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

mod agent;
mod audit;
mod duration;
mod errors;
mod examples;
mod parse;
mod print;
pub mod remedy;

use crate::judge::policy::filter::Filter;
use crate::judge::policy::profiles;
use crate::{small_file, words};
pub use agent::{AgentArgs, MetricsDetail, listen_address};
pub use audit::{AuditArgs, FailOn, Format, SortArg};
pub use duration::duration;
pub use parse::{FromEnvironment, Refused, similar_variables};
pub use print::{completions, man};
use remedy::RemedyArgs;

/// Find TCP connections that no keepalive protects, in every network namespace of this machine
///
/// Load balancers, NAT gateways and firewalls drop idle TCP connections after a timeout and tell neither end. This
/// program reads every socket and its timers from the kernel. It shows which connections are at risk, why, and what
/// to configure.
#[derive(Debug, Parser)]
#[command(
    name = "keepalive-auditor",
    version = VERSION,
    max_term_width = 100,
    disable_help_flag = true,
    after_long_help = examples::PROGRAM
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub common: Common,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("KEEPALIVE_AUDITOR_REVISION_SHORT"), ")");

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sweep every network namespace once and show connections at risk
    #[command(after_long_help = audit::EXAMPLES)]
    Audit(Box<AuditArgs>),
    /// Sweep at an interval and serve metrics, a report and a page over HTTP
    #[command(after_long_help = agent::EXAMPLES)]
    Agent(Box<AgentArgs>),
    /// Merge the JSON reports of several nodes into one table
    #[command(after_long_help = examples::MERGE)]
    Merge(MergeArgs),
    /// Print configuration that turns keepalive on
    #[command(after_long_help = remedy::EXAMPLES)]
    Remedy(Box<RemedyArgs>),
    /// List known middleboxes and their idle timeouts
    #[command(after_long_help = examples::PROFILES)]
    Profiles(ProfilesArgs),
    /// Explain a verdict, keepalive state, cause, column, profile or metric
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(ExplainArgs),
    /// Print shell completions
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_long_help = examples::MAN)]
    Man,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Read the configuration from a YAML file
    #[arg(long, global = true, value_name = "FILE", env = "KEEPALIVE_AUDITOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set the shortest idle timeout of the default path [default: 350s]
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        value_parser = duration,
        allow_hyphen_values = true,
        env = "KEEPALIVE_AUDITOR_IDLE_TIMEOUT"
    )]
    pub idle_timeout: Option<Duration>,
    /// Use the idle timeout of a known middlebox, e.g. aws-nlb; repeatable
    ///
    /// `keepalive-auditor profiles` lists the names. The shortest idle timeout counts.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = profile_name,
        env = "KEEPALIVE_AUDITOR_PROFILE"
    )]
    pub profile: Vec<String>,
    /// Let limits that are read from the node shorten the default path [default: true]
    ///
    /// They are those of the node's own NAT: conntrack and IPVS. A configured limit or a profile wins.
    #[arg(
        long = "limits.from-node",
        global = true,
        value_name = "BOOL",
        env = "KEEPALIVE_AUDITOR_LIMITS_FROM_NODE",
        hide_short_help = true
    )]
    pub limits_from_node: Option<bool>,
    /// Set the age from which a connection is long-lived [default: 5m]
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        value_parser = duration,
        allow_hyphen_values = true,
        env = "KEEPALIVE_AUDITOR_LONG_LIVED"
    )]
    pub long_lived: Option<Duration>,
    /// Choose which connections within this machine are local [default: node]
    #[arg(long, global = true, value_name = "SCOPE", env = "KEEPALIVE_AUDITOR_LOCAL_SCOPE", hide_short_help = true)]
    pub local_scope: Option<ScopeArg>,
    /// Read the host's procfs here [default: /proc]
    #[arg(
        long = "path.procfs",
        global = true,
        value_name = "DIR",
        env = "KEEPALIVE_AUDITOR_PATH_PROCFS",
        hide_short_help = true
    )]
    pub procfs: Option<PathBuf>,
    /// Find bind mounts of network namespaces here; repeatable [default: /run/netns, /run/docker/netns]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "KEEPALIVE_AUDITOR_NETNS_DIR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub netns_dir: Vec<PathBuf>,
    /// Read the host's cgroup v2 tree here [default: found under /sys/fs/cgroup]
    #[arg(long, global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_CGROUP_ROOT", hide_short_help = true)]
    pub cgroup_root: Option<PathBuf>,
    /// Find the kubelet's pods/ and containers/ here [default: /var/log]
    #[arg(long, global = true, value_name = "DIR", env = "KEEPALIVE_AUDITOR_POD_LOGS", hide_short_help = true)]
    pub pod_logs: Option<PathBuf>,
    /// Report this name of the node [default: `NODE_NAME` of the environment, or the host name]
    #[arg(long, global = true, value_name = "NAME", env = "KEEPALIVE_AUDITOR_NODE_NAME", hide_short_help = true)]
    pub node_name: Option<String>,
    /// Ask the container runtime for names through its CRI socket
    #[arg(long, global = true, value_name = "SOCKET", env = "KEEPALIVE_AUDITOR_CRI_ENDPOINT", hide_short_help = true)]
    pub cri_endpoint: Option<PathBuf>,
    /// Log this level and above, or a tracing filter [default: warn for audit, info for the agent]
    ///
    /// Levels: error, warn, info, debug, trace, off.
    #[arg(
        long = "log.level",
        global = true,
        value_name = "LEVEL",
        env = "KEEPALIVE_AUDITOR_LOG_LEVEL",
        hide_short_help = true
    )]
    pub log_level: Option<String>,
    /// Choose how logs are written [default: text]
    #[arg(
        long = "log.format",
        global = true,
        value_name = "FORMAT",
        env = "KEEPALIVE_AUDITOR_LOG_FORMAT",
        hide_short_help = true
    )]
    pub log_format: Option<LogFormat>,
    /// Use colour [default: auto]
    ///
    /// `auto` uses colour on a terminal, unless `NO_COLOR` is set.
    #[arg(long, global = true, value_name = "WHEN", env = "KEEPALIVE_AUDITOR_COLOR", hide_short_help = true)]
    pub color: Option<ColorWhen>,
    /// Show this help; --help adds rare flags, details and examples
    #[arg(short = 'h', long, global = true, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// Flags of `merge`.
#[derive(Clone, Debug, Default, Args)]
pub struct MergeArgs {
    /// Read reports of `audit --format json`, one or several in a file; `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Add to each row why it is flagged and which remedies fit
    #[arg(long, env = "KEEPALIVE_AUDITOR_EXPLAIN")]
    pub explain: bool,
}

/// Flags of `profiles`.
#[derive(Clone, Debug, Default, Args)]
pub struct ProfilesArgs {
    /// Write a table or json
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Explain this word of the output; without one, list all words
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
}

/// Flags of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Write for bash, elvish, fish, powershell or zsh
    pub shell: clap_complete::Shell,
}

/// `--local-scope`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeArg {
    /// Both ends in one network namespace, or on this machine without address translation between them
    Node,
    /// Both ends in one network namespace
    Namespace,
}

/// `--log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// `--color`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorWhen {
    /// On a terminal
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Never
    Never,
}

/// `profiles --format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table for people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// The words of FILTER: one argument or several, as for ss.
pub fn filter(words: &[String]) -> Result<Option<Filter>, String> {
    let text = words.join(" ");
    if text.trim().is_empty() { Ok(None) } else { Filter::parse_with(&text, &service).map(Some) }
}

/// The TCP port of a service of this machine, from `/etc/services`.
fn service(name: &str) -> Option<u16> {
    let services = small_file::read(Path::new("/etc/services")).ok()?;
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// The name of a profile.
pub fn profile_name(name: &str) -> Result<String, String> {
    let known = profiles::PROFILES.iter().map(|profile| profile.name);
    if profiles::find(name).is_some() {
        return Ok(name.to_owned());
    }
    let near = words::did_you_mean(name, known);
    Err(words::with_list("no such profile", &near, "`keepalive-auditor profiles` lists all"))
}
