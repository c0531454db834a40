//! Combines flags, environment and file. It finds every wrong value before anything is opened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod file;
mod glob;
mod paths;

use crate::cli::{self, AgentArgs, AuditArgs, Common, Format, LogFormat, MetricsDetail, ScopeArg};
use crate::host::owners::Roots;
use crate::host::{HostPaths, node_name};
use crate::judge::policy::filter::Select;
use crate::judge::policy::{DEFAULT_LONG_LIVED, Ignore, LocalScope, OverdueBy, Policy};
use crate::show::metrics::{Detail, Limits};
pub use file::ConfigFile;
use file::{DurationText, IgnoreKey};
pub use glob::glob;
use paths::{default_path, rule};

/// A wrong flag, environment name or key: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// An error that names the flag or key.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

/// The settings of every command.
#[derive(Debug)]
pub struct Config {
    /// The paths to read.
    pub paths: HostPaths,
    /// The name of the node.
    pub node: String,
    /// The policy of the judgement.
    pub policy: Policy,
    /// The log level, if it was set.
    pub log_level: Option<String>,
    /// The format of logs.
    pub log_format: LogFormat,
}

impl Config {
    /// Flags and file together.
    pub fn new(flags: &Common, file: &ConfigFile) -> Result<Self, UsageError> {
        let default_path = Arc::new(default_path(flags, file)?);
        let rules = file.paths.iter().map(rule).collect::<Result<_, _>>().map_err(UsageError)?;
        let ignore = file.ignore.iter().enumerate().map(ignore_rule).collect::<Result<_, _>>().map_err(UsageError)?;
        let policy = Policy {
            default_path,
            rules,
            ignore,
            long_lived: flags.long_lived.or(value(file.long_lived)).unwrap_or(DEFAULT_LONG_LIVED),
            local_scope: match flags.local_scope.or(file.local_scope) {
                Some(ScopeArg::Namespace) => LocalScope::Namespace,
                Some(ScopeArg::Node) | None => LocalScope::Node,
            },
            reads_node_limits: flags.limits_from_node.or(file.limits.from_node).unwrap_or(true),
            ..Policy::default()
        };
        let or_path = |flag: &Option<PathBuf>, key: &Option<PathBuf>| flag.clone().or_else(|| key.clone());
        let roots = Roots {
            procfs: or_path(&flags.procfs, &file.path.procfs).unwrap_or_else(|| "/proc".into()),
            cgroup: or_path(&flags.cgroup_root, &file.cgroup_root),
            logs_required: flags.pod_logs.is_some() || file.pod_logs.is_some(),
            logs: or_path(&flags.pod_logs, &file.pod_logs).unwrap_or_else(|| "/var/log".into()),
            docker: "/var/lib/docker".into(),
            podman: "/var/lib/containers/storage".into(),
            cri: or_path(&flags.cri_endpoint, &file.cri_endpoint),
        };
        let configured = [&flags.netns_dir, &file.netns_dir.0].into_iter().find(|dirs| !dirs.is_empty()).cloned();
        let netns_dirs_required = configured.is_some();
        let netns_dirs = configured.unwrap_or_else(|| vec!["/run/netns".into(), "/run/docker/netns".into()]);
        Ok(Self {
            paths: HostPaths { roots, netns_dirs, netns_dirs_required, named: BTreeMap::new(), watch_ends: false },
            node: flags.node_name.clone().or_else(|| file.node_name.clone()).unwrap_or_else(node_name),
            policy,
            log_level: flags.log_level.clone().or_else(|| file.log.level.clone()),
            log_format: flags.log_format.or(file.log.format).unwrap_or_default(),
        })
    }
}

fn value(text: Option<DurationText>) -> Option<Duration> {
    text.map(|text| text.0)
}

/// The settings of `audit`.
#[derive(Debug)]
pub struct AuditConfig {
    /// The settings of every command.
    pub config: Config,
    /// The flags, completed from the file.
    pub args: AuditArgs,
}

impl AuditConfig {
    /// Flags and file together.
    pub fn new(common: &Common, mut args: AuditArgs, file: &ConfigFile) -> Result<Self, UsageError> {
        let mut config = Config::new(common, file)?;
        args.all |= file.all;
        args.exact |= file.exact;
        args.format = args.format.or(file.format);
        args.netns = args.netns.or_else(|| file.netns.clone());
        args.pid = args.pid.or(file.pid);
        args.watch_for = args.watch_for.or(value(file.watch_for));
        args.watch = args.watch.or(value(file.watch));
        args.record = args.record.or_else(|| file.record.clone());
        args.replay = args.replay.or_else(|| file.replay.clone());
        args.fail_on = args.fail_on.or(file.fail_on);
        args.allow_incomplete |= file.allow_incomplete;
        args.force |= file.force;
        args.namespace = args.namespace.or_else(|| file.namespace.clone());
        args.pod = args.pod.or_else(|| file.pod.clone());
        args.owner = args.owner.or_else(|| file.owner.clone());
        args.explain |= file.explain;
        args.compare = args.compare.or_else(|| file.compare.clone());
        args.all_groups |= file.all_groups;
        args.sort = args.sort.or(file.sort);
        if args.wide {
            args.format = Some(Format::Wide);
        } else if args.list || (file.list && args.format.is_none()) {
            args.format = Some(Format::Table);
        }
        if args.filter.is_empty() {
            args.filter = file.filter.iter().cloned().collect();
        }
        standard_streams(&args).map_err(UsageError)?;
        let matcher = |flag: &str, text: Option<&String>| {
            text.map(|text| glob(text).map_err(|error| UsageError(format!("{flag}: {error}")))).transpose()
        };
        config.policy.select = Select {
            filter: cli::filter(&args.filter).map_err(UsageError)?,
            namespace: matcher("--namespace", args.namespace.as_ref())?,
            pod: matcher("--pod", args.pod.as_ref())?,
            owner: matcher("--owner", args.owner.as_ref())?,
            netns: None,
        };
        Ok(Self { config, args })
    }
}

/// Checks that stdin and stdout, written as `-`, have one use each.
fn standard_streams(args: &AuditArgs) -> Result<(), String> {
    let is_standard = |path: &Option<PathBuf>| path.as_deref() == Some(std::path::Path::new("-"));
    if is_standard(&args.replay) && is_standard(&args.compare) {
        return Err("--replay - and --compare - both read stdin; name a file for one of them".to_owned());
    }
    let others =
        [("--watch", args.watch.is_some()), ("--explain", args.explain), ("--compare", args.compare.is_some())];
    match others.into_iter().find(|(_, is_set)| *is_set && is_standard(&args.record)) {
        Some((flag, _)) => Err(format!("--record - and {flag} both write to stdout; name a file for the recording")),
        None => Ok(()),
    }
}

/// The settings of `agent`.
#[derive(Debug)]
pub struct AgentConfig {
    /// The settings of every command.
    pub config: Config,
    /// The address to serve on.
    pub listen_address: SocketAddr,
    /// The web configuration file. `None`: serve everybody in plain text.
    pub web_config: Option<PathBuf>,
    /// Time between the starts of two sweeps.
    pub interval: Duration,
    /// The limits of the number of series.
    pub limits: Limits,
}

impl AgentConfig {
    /// Flags and file together.
    pub fn new(common: &Common, args: &AgentArgs, file: &ConfigFile) -> Result<Self, UsageError> {
        let mut config = Config::new(common, file)?;
        config.policy.overdue_by = OverdueBy::Watch;
        config.paths.watch_ends = args.watch_ends || file.watch_ends;
        config.policy.max_findings = args.max_findings.or(file.max_findings).unwrap_or(10_000);
        Ok(Self {
            config,
            web_config: args.web_config.as_ref().or(file.web.config.file.as_ref()).cloned(),
            listen_address: args
                .listen_address
                .or(file.web.listen_address.map(|address| address.0))
                .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 9986))),
            interval: args.interval.or(value(file.interval)).unwrap_or(Duration::from_secs(15)),
            limits: Limits {
                detail: match args.metrics_detail.or(file.metrics_detail).unwrap_or_default() {
                    MetricsDetail::Container => Detail::Container,
                    MetricsDetail::Pod => Detail::Pod,
                    MetricsDetail::Workload => Detail::Workload,
                    MetricsDetail::Namespace => Detail::Namespace,
                },
                top_endpoints: args.top_endpoints.or(file.top_endpoints).unwrap_or(10),
                max_series: args.max_series.or(file.max_series).unwrap_or(10_000),
            },
        })
    }
}

/// The sources of the agent's configuration, to read it again.
#[derive(Debug)]
pub struct AgentSource {
    common: Common,
    args: Box<AgentArgs>,
}

impl AgentSource {
    /// The flags, and the file that they name.
    #[must_use]
    pub fn new(common: Common, args: Box<AgentArgs>) -> Self {
        Self { common, args }
    }

    /// The configuration file.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        self.common.config.as_deref()
    }

    /// The flags with this file.
    pub fn with(&self, file: &ConfigFile) -> Result<AgentConfig, UsageError> {
        AgentConfig::new(&self.common, &self.args, file)
    }

    /// The flags with the file as it is now.
    pub fn load_again(&self) -> Result<AgentConfig, UsageError> {
        self.with(&ConfigFile::load_again(self.path())?)
    }
}

/// An ignore rule. One without a key would ignore every connection, so that nothing is ever flagged.
fn ignore_rule((at, key): (usize, &IgnoreKey)) -> Result<Ignore, String> {
    let IgnoreKey { namespace, pod, container } = key;
    if namespace.is_none() && pod.is_none() && container.is_none() {
        return Err(format!(
            "key ignore[{at}]: a rule without a key ignores every connection; name a namespace, pod or container"
        ));
    }
    Ok(Ignore {
        namespace: namespace.clone().map(|glob| glob.0),
        pod: pod.clone().map(|glob| glob.0),
        container: container.clone().map(|glob| glob.0),
    })
}

#[cfg(test)]
mod tests;
