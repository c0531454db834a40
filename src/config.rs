//! The configuration file, and what it means together with the flags: everything that may be wrong is found before anything is opened.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobMatcher};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::cli::{self, AgentArgs, AuditArgs, Common, FailOn, Format, LogFormat, MetricsDetail, ScopeArg};
use crate::host::Places;
use crate::host::owners::Roots;
use crate::judge::policy::{
    DEFAULT_IDLE_TIMEOUT, DEFAULT_LONG_LIVED, Ignore, LocalScope, OverdueBy, Path, PathRule, Policy,
};
use crate::judge::profiles;
use crate::judge::select::Select;
use crate::show::metrics::{Detail, Limits};
use crate::web::Access;
use crate::yaml;

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

/// The file as people write it: every flag by its name with `-` as `_`, dots nested; and what has no flag.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    idle_timeout: Option<DurationText>,
    profile: OneOrMore<ProfileName>,
    long_lived: Option<DurationText>,
    local_scope: Option<ScopeArg>,
    path: PathKeys,
    log: LogKeys,
    web: WebKeys,
    netns_dir: OneOrMore<PathBuf>,
    cgroup_root: Option<PathBuf>,
    pod_logs: Option<PathBuf>,
    cri_endpoint: Option<PathBuf>,
    interval: Option<DurationText>,
    top_endpoints: Option<usize>,
    max_findings: Option<usize>,
    metrics_detail: Option<MetricsDetail>,
    max_series: Option<usize>,
    filter: Option<String>,
    all: bool,
    format: Option<Format>,
    netns: Option<String>,
    pid: Option<u32>,
    namespace: Option<String>,
    pod: Option<String>,
    #[serde(rename = "for")]
    watch_for: Option<DurationText>,
    watch: Option<DurationText>,
    record: Option<PathBuf>,
    replay: Option<PathBuf>,
    exact: bool,
    explain: bool,
    compare: Option<PathBuf>,
    fail_on: Option<FailOn>,
    paths: Vec<PathKey>,
    ignore: Vec<IgnoreKey>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PathKeys {
    procfs: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogKeys {
    level: Option<String>,
    format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebKeys {
    listen_address: Option<AddressText>,
    config: WebConfigKeys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebConfigKeys {
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathKey {
    name: String,
    #[serde(default)]
    cidrs: Vec<Cidr>,
    #[serde(default)]
    ports: Vec<Ports>,
    #[serde(default)]
    profile: OneOrMore<ProfileName>,
    idle_timeout: Option<DurationText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IgnoreKey {
    namespace: Option<GlobText>,
    pod: Option<GlobText>,
    container: Option<GlobText>,
}

/// One value, or a list of them.
#[derive(Debug)]
struct OneOrMore<T>(Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMore<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| OneOrMore(vec![one]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }
        from.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[derive(Clone, Copy, Debug)]
struct DurationText(Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        cli::duration(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Clone, Copy, Debug)]
struct AddressText(SocketAddr);

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        cli::listen_address(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug)]
struct ProfileName(Duration);

impl<'de> Deserialize<'de> for ProfileName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        profile(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug)]
struct Cidr(IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| {
            D::Error::custom(format!("`{text}` is not a CIDR; write it like 10.20.0.0/16 or 2001:db8::/32"))
        })
    }
}

#[derive(Debug)]
struct Ports(RangeInclusive<u16>);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ports;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port like 443 or a range like \"8000-8999\"")
            }
            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<Ports, E> {
                let port = u16::try_from(port).map_err(|_| E::custom(format!("{port} is not a port (0 to 65535)")))?;
                Ok(Ports(port..=port))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ports, E> {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) if first <= last => Ok(Ports(first..=last)),
                    _ => Err(E::custom(format!("`{text}` is neither a port like 443 nor a range like 8000-8999"))),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[derive(Clone, Debug)]
struct GlobText(GlobMatcher);

impl<'de> Deserialize<'de> for GlobText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        glob(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

fn glob(text: &str) -> Result<GlobMatcher, String> {
    Glob::new(text)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("`{text}` is not a glob: {}", error.kind()))
}

fn profile(name: &str) -> Result<Duration, String> {
    let profile = profiles::find(name).ok_or_else(|| {
        format!("`{name}` is not a known profile; `keepalive-auditor profiles` lists them: {}", known_profiles())
    })?;
    Ok(profile.idle_timeout)
}

fn known_profiles() -> String {
    profiles::PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
}

impl ConfigFile {
    /// Reads `--config`, or nothing.
    pub fn load(path: Option<&FilePath>) -> Result<Self, UsageError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("cannot read the configuration file {}: {error}", path.display())))?;
        yaml::parse(&text).map_err(|error| UsageError(format!("{}: {error}", path.display())))
    }
}

/// What every command needs to know.
#[derive(Debug)]
pub struct Config {
    /// Where to look.
    pub places: Places,
    /// By what to judge.
    pub policy: Policy,
    /// What is logged, where it was said.
    pub log_level: Option<String>,
    /// How logs are written.
    pub log_format: LogFormat,
}

impl Config {
    /// Flags and file together.
    pub fn new(flags: &Common, file: &ConfigFile) -> Result<Self, UsageError> {
        let default_path = default_path(flags, file)?;
        let rules = file.paths.iter().map(rule).collect::<Result<_, _>>().map_err(UsageError)?;
        let ignore = file
            .ignore
            .iter()
            .map(|key| Ignore {
                namespace: key.namespace.clone().map(|glob| glob.0),
                pod: key.pod.clone().map(|glob| glob.0),
                container: key.container.clone().map(|glob| glob.0),
            })
            .collect();
        let policy = Policy {
            default_path: Arc::new(Path { name: "default".to_owned(), idle_timeout: default_path }),
            rules,
            ignore,
            long_lived: flags.long_lived.or(value(file.long_lived)).unwrap_or(DEFAULT_LONG_LIVED),
            local_scope: match flags.local_scope.or(file.local_scope) {
                Some(ScopeArg::Namespace) => LocalScope::Namespace,
                Some(ScopeArg::Node) | None => LocalScope::Node,
            },
            ..Policy::default()
        };
        let or_path = |flag: &Option<PathBuf>, key: &Option<PathBuf>| flag.clone().or_else(|| key.clone());
        let roots = Roots {
            procfs: or_path(&flags.procfs, &file.path.procfs).unwrap_or_else(|| "/proc".into()),
            cgroup: or_path(&flags.cgroup_root, &file.cgroup_root),
            logs: or_path(&flags.pod_logs, &file.pod_logs).unwrap_or_else(|| "/var/log".into()),
            cri: or_path(&flags.cri_endpoint, &file.cri_endpoint),
        };
        let netns_dirs = [&flags.netns_dir, &file.netns_dir.0]
            .into_iter()
            .find(|dirs| !dirs.is_empty())
            .cloned()
            .unwrap_or_else(|| vec!["/run/netns".into(), "/run/docker/netns".into()]);
        Ok(Self {
            places: Places { roots, netns_dirs, only: None },
            policy,
            log_level: flags.log_level.clone().or_else(|| file.log.level.clone()),
            log_format: flags.log_format.or(file.log.format).unwrap_or_default(),
        })
    }
}

fn value(text: Option<DurationText>) -> Option<Duration> {
    text.map(|text| text.0)
}

/// What flags say about the default path replaces what the file says; of several limits the shortest counts.
fn default_path(flags: &Common, file: &ConfigFile) -> Result<Duration, UsageError> {
    let by_flags = flags
        .profile
        .iter()
        .map(|name| profile(name).map_err(|error| UsageError(format!("--profile: {error}"))))
        .chain(flags.idle_timeout.map(Ok))
        .collect::<Result<Vec<_>, _>>()?;
    let by_file = file.profile.0.iter().map(|name| name.0).chain(value(file.idle_timeout)).min();
    Ok(by_flags.into_iter().min().or(by_file).unwrap_or(DEFAULT_IDLE_TIMEOUT))
}

fn rule(key: &PathKey) -> Result<PathRule, String> {
    let idle_timeout = key.profile.0.iter().map(|name| name.0).chain(value(key.idle_timeout)).min();
    let idle_timeout =
        idle_timeout.ok_or_else(|| format!("paths: the path `{}` needs an idle_timeout or a profile", key.name))?;
    Ok(PathRule {
        cidrs: key.cidrs.iter().map(|cidr| cidr.0).collect(),
        ports: key.ports.iter().map(|ports| ports.0.clone()).collect(),
        path: Arc::new(Path { name: key.name.clone(), idle_timeout }),
    })
}

/// What `audit` does.
#[derive(Debug)]
pub struct AuditConfig {
    /// What every command needs.
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
        args.explain |= file.explain;
        args.compare = args.compare.or_else(|| file.compare.clone());
        let flag = if args.explain { "--explain" } else { "--compare" };
        if (args.explain || args.compare.is_some()) && matches!(args.format, Some(Format::Json | Format::Jsonl)) {
            return Err(UsageError(format!("{flag} writes prose: it does not go with --format json or jsonl")));
        }
        if args.filter.is_empty() {
            args.filter = file.filter.iter().cloned().collect();
        }
        let matcher = |flag: &str, text: Option<&String>| {
            text.map(|text| glob(text).map_err(|error| UsageError(format!("{flag}: {error}")))).transpose()
        };
        config.policy.select = Select {
            filter: cli::filter(&args.filter).map_err(UsageError)?,
            namespace: matcher("--namespace", args.namespace.as_ref().or(file.namespace.as_ref()))?,
            pod: matcher("--pod", args.pod.as_ref().or(file.pod.as_ref()))?,
        };
        Ok(Self { config, args })
    }
}

/// What `agent` does.
#[derive(Debug)]
pub struct AgentConfig {
    /// What every command needs.
    pub config: Config,
    /// Where to serve.
    pub listen_address: SocketAddr,
    /// To whom, and by which certificate; `None`: to everybody, in plain text.
    pub access: Option<Access>,
    /// Time between the starts of two sweeps.
    pub interval: Duration,
    /// What bounds the number of series.
    pub limits: Limits,
}

impl AgentConfig {
    /// Flags and file together.
    pub fn new(common: &Common, args: &AgentArgs, file: &ConfigFile) -> Result<Self, UsageError> {
        let mut config = Config::new(common, file)?;
        config.policy.overdue_by = OverdueBy::Watch;
        config.policy.max_findings = args.max_findings.or(file.max_findings).unwrap_or(10_000);
        let access = args.web_config.as_ref().or(file.web.config.file.as_ref());
        Ok(Self {
            config,
            access: access.map(|path| Access::load(path)).transpose().map_err(UsageError)?,
            listen_address: args
                .listen_address
                .or(file.web.listen_address.map(|address| address.0))
                .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 9986))),
            interval: args.interval.or(value(file.interval)).unwrap_or(Duration::from_secs(15)),
            limits: Limits {
                detail: match args.metrics_detail.or(file.metrics_detail).unwrap_or_default() {
                    MetricsDetail::Container => Detail::Container,
                    MetricsDetail::Pod => Detail::Pod,
                    MetricsDetail::Namespace => Detail::Namespace,
                },
                top_endpoints: args.top_endpoints.or(file.top_endpoints).unwrap_or(10),
                max_series: args.max_series.or(file.max_series).unwrap_or(10_000),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_line_and_key() {
        let cases = [
            ("idle_timeout: 350", "line 1, key idle_timeout: `350` is not a duration; write it with a unit, as 350s"),
            ("\nidle_timeot: 350s", "line 2, key idle_timeot: unknown field `idle_timeot`"),
            (
                "paths:\n  - name: nlb\n    cidrs: [10.0.0.0/33]\n    idle_timeout: 5s",
                "line 3, key paths[0].cidrs[0]: `10.0.0.0/33` is not a CIDR",
            ),
            (
                "paths:\n  - name: nlb\n    profile: aws-nbl",
                "line 3, key paths[0].profile: `aws-nbl` is not a known profile",
            ),
            ("paths:\n  - name: nlb\n    ports: [\"9-8\"]", "line 3, key paths[0].ports[0]: `9-8` is neither"),
            ("paths:\n  - idle_timeout: 5s", "key paths[0]: missing field `name`"),
            ("web: {listen-address: x}", "line 1, key web.listen-address"),
            ("ignore:\n  - {pod: \"[\"}", "line 2, key ignore[0].pod: `[` is not a glob"),
        ];
        for (text, expected) in cases {
            let error = yaml::parse::<ConfigFile>(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}\n got: {error}\nwant: {expected}");
        }
    }

    #[test]
    fn the_first_matching_path_counts_and_of_several_limits_the_shortest() {
        let text = r#"
idle_timeout: 100s
paths:
  - name: nlb
    cidrs: [10.20.0.0/16, "2001:db8::/32"]
    ports: [443, "8000-8999"]
    profile: [aws-nlb, azure-lb]
    idle_timeout: 300s
  - {name: rest, cidrs: [10.0.0.0/8], idle_timeout: 50s}
"#;
        let file = yaml::parse::<ConfigFile>(text).unwrap();
        let policy = Config::new(&Common::default(), &file).unwrap().policy;
        let cases = [
            ("10.20.1.1", 443, "nlb", 240),
            ("10.20.1.1", 8500, "nlb", 240),
            ("10.20.1.1", 80, "rest", 50),
            ("2001:db8::1", 443, "nlb", 240),
            ("192.0.2.1", 443, "default", 100),
        ];
        for (remote, port, name, seconds) in cases {
            let path = policy.path(remote.parse().unwrap(), port);
            assert_eq!((path.name.as_str(), path.idle_timeout.as_secs()), (name, seconds), "{remote}:{port}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = yaml::parse::<ConfigFile>("idle_timeout: 100s\nlong_lived: 1m").unwrap();
        let flags = Common { profile: vec!["azure-lb".to_owned()], ..Common::default() };
        let policy = Config::new(&flags, &file).unwrap().policy;
        assert_eq!(policy.default_path.idle_timeout.as_secs(), 240);
        assert_eq!(policy.long_lived.as_secs(), 60);
    }
}
