//! The flags of `audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser as NonEmpty;
use clap::{Args, ValueEnum};

use super::duration::duration;
use crate::judge::verdict::Verdict;

pub(super) const EXAMPLES: &str = "\
Examples:
  Show what is at risk in groups, worst first; one row per connection with --list:
    keepalive-auditor audit
  Explain why, and print the commands of the remedies that fit:
    keepalive-auditor audit --explain
  Watch for a minute, so that probes of the peers show:
    keepalive-auditor audit --for 60s
  Select PostgreSQL connections of some pods, as JSON:
    keepalive-auditor audit --pod 'web-*' -o json 'dport = :5432'
  Prove a fix: record, change the configuration, compare:
    keepalive-auditor audit --record before.jsonl
    keepalive-auditor audit --compare before.jsonl
  Fail a script if a connection is overdue:
    keepalive-auditor audit --fail-on overdue

Exit status: 0 done, 1 something failed, 2 wrong usage or configuration, 3 --fail-on found something or
--compare shows that a change did not take effect.
Words such as `overdue`: keepalive-auditor explain WORD";

/// Flags of `audit`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct AuditArgs {
    /// Select connections in the language of ss: 'dst 10.0.0.0/8 and not dport = :443'
    ///
    /// Terms: src, dst (address, CIDR or address:port), sport, dport (= != < <= > >=; number, 0x1bb or https). Combine
    /// them with and, or, not and parentheses. As in ss, and and or bind equally, from left to right.
    /// Beyond ss: verdict, keepalive, direction (= !=), owner, namespace, pod, container, program (globs), idle, age
    /// (> 5m).
    #[arg(value_name = "FILTER", env = "KEEPALIVE_AUDITOR_FILTER")]
    pub filter: Vec<String>,

    /// Select one network namespace: a name in --netns-dir, or a path
    #[arg(
        long,
        value_name = "NAME|PATH",
        env = "KEEPALIVE_AUDITOR_NETNS",
        value_parser = NonEmpty::new(),
        help_heading = "Selection"
    )]
    pub netns: Option<String>,
    /// Select the network namespace of a process
    #[arg(long, value_name = "PID", env = "KEEPALIVE_AUDITOR_PID", help_heading = "Selection")]
    pub pid: Option<u32>,
    /// Select pods by their Kubernetes namespace
    #[arg(
        long,
        value_name = "GLOB",
        env = "KEEPALIVE_AUDITOR_NAMESPACE",
        value_parser = NonEmpty::new(),
        help_heading = "Selection"
    )]
    pub namespace: Option<String>,
    /// Select pods by their name
    #[arg(
        long,
        value_name = "GLOB",
        env = "KEEPALIVE_AUDITOR_POD",
        value_parser = NonEmpty::new(),
        help_heading = "Selection"
    )]
    pub pod: Option<String>,
    /// Select owners by name: a pod, unit, container or namespace
    #[arg(
        long,
        value_name = "GLOB",
        env = "KEEPALIVE_AUDITOR_OWNER",
        value_parser = NonEmpty::new(),
        help_heading = "Selection"
    )]
    pub owner: Option<String>,

    /// Show every connection, not only flagged ones
    #[arg(short = 'a', long, env = "KEEPALIVE_AUDITOR_ALL", help_heading = "Output")]
    pub all: bool,
    /// Write groups, table, wide, json or jsonl [default: groups on a terminal, else table]
    #[arg(short = 'o', long, value_name = "FORMAT", env = "KEEPALIVE_AUDITOR_FORMAT", help_heading = "Output")]
    pub format: Option<Format>,
    /// Show one row per connection, like --format table
    #[arg(long, env = "KEEPALIVE_AUDITOR_LIST", conflicts_with = "format", help_heading = "Output")]
    pub list: bool,
    /// Show every group, even if the screen is too small
    #[arg(long, env = "KEEPALIVE_AUDITOR_ALL_GROUPS", help_heading = "Output", hide_short_help = true)]
    pub all_groups: bool,
    /// Order groups and rows [default: worst]
    ///
    /// JSON is always worst first.
    #[arg(long, value_name = "ORDER", env = "KEEPALIVE_AUDITOR_SORT", help_heading = "Output", hide_short_help = true)]
    pub sort: Option<SortArg>,
    /// Show every column, like --format wide
    #[arg(short = 'w', conflicts_with = "format", help_heading = "Output")]
    pub wide: bool,
    /// Explain per workload and endpoint, and list the remedies that fit
    #[arg(
        long,
        env = "KEEPALIVE_AUDITOR_EXPLAIN",
        conflicts_with_all = ["watch", "compare"],
        help_heading = "Output"
    )]
    pub explain: bool,
    /// Show what a change did since an earlier recording; `-` is stdin
    ///
    /// Compare the connections that were opened since with those that are left from before.
    #[arg(
        long,
        value_name = "BEFORE",
        env = "KEEPALIVE_AUDITOR_COMPARE",
        conflicts_with = "watch",
        help_heading = "Output"
    )]
    pub compare: Option<PathBuf>,
    /// Exit with status 3 on exposed or on overdue connections, or worse
    ///
    /// With --watch, the first sweep that finds one ends the watch.
    #[arg(long, value_name = "VERDICT", env = "KEEPALIVE_AUDITOR_FAIL_ON", help_heading = "Output")]
    pub fail_on: Option<FailOn>,
    /// Let --fail-on succeed although something could not be read
    #[arg(long, env = "KEEPALIVE_AUDITOR_ALLOW_INCOMPLETE", help_heading = "Output", hide_short_help = true)]
    pub allow_incomplete: bool,

    /// Watch for this long before judging, so that probes of the peers show
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = duration,
        allow_hyphen_values = true,
        env = "KEEPALIVE_AUDITOR_FOR",
        help_heading = "Sweep"
    )]
    pub watch_for: Option<Duration>,
    /// Watch on a screen: sweep again at this interval
    ///
    /// The screen sorts, filters and opens groups, and shows what changed since its start; `?` lists its keys. To a
    /// pipe, and with a --format other than groups, each sweep writes one block.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        allow_hyphen_values = true,
        env = "KEEPALIVE_AUDITOR_WATCH",
        conflicts_with_all = ["watch_for", "replay"],
        help_heading = "Sweep"
    )]
    pub watch: Option<Duration>,
    /// Read the actual socket options from the processes
    ///
    /// Read them of flagged connections, and with --all of all connections.
    #[arg(long, env = "KEEPALIVE_AUDITOR_EXACT", help_heading = "Sweep")]
    pub exact: bool,
    /// Write what the kernel reports to a file, addresses included; `-` is stdout
    #[arg(
        long,
        value_name = "FILE",
        env = "KEEPALIVE_AUDITOR_RECORD",
        conflicts_with = "replay",
        help_heading = "Sweep"
    )]
    pub record: Option<PathBuf>,
    /// Overwrite an existing recording
    #[arg(long, env = "KEEPALIVE_AUDITOR_FORCE", requires = "record", help_heading = "Sweep", hide_short_help = true)]
    pub force: bool,
    /// Judge a recording instead of this machine; `-` is stdin
    #[arg(
        long,
        value_name = "FILE",
        env = "KEEPALIVE_AUDITOR_REPLAY",
        conflicts_with_all = ["netns", "pid", "watch_for"],
        help_heading = "Sweep"
    )]
    pub replay: Option<PathBuf>,
}

/// `audit --format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Connections with the same owner, program, endpoint and cause as one row
    Groups,
    /// One row per connection, with the columns that people need first
    Table,
    /// Every column, and why
    Wide,
    /// One JSON document
    Json,
    /// One JSON object per line and connection
    Jsonl,
}

/// `--sort`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortArg {
    /// Worst verdict first
    Worst,
    /// Most connections first: of the group, and in rows of the owner with that endpoint
    Connections,
    /// Longest idle time first
    Idle,
    /// By the owner's name
    Owner,
}

/// `--fail-on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    /// Any flagged connection
    Exposed,
    /// A connection that is overdue, unanswered or blackholed
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
