//! The configuration file: its keys, the form of each value, and the errors about wrong ones.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobMatcher};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::UsageError;
use crate::cli::{self, ColorWhen, FailOn, Format, LogFormat, MetricsDetail, ScopeArg, SortArg};
use crate::judge::policy::RefreshedBy;
use crate::judge::policy::filter::canonical;
use crate::judge::policy::profiles::{self, Profile};
use crate::{small_file, words, yaml};

/// The keys of the file: every flag by its name with `-` as `_` and dots nested, and the settings without a flag.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct ConfigFile {
    pub(super) idle_timeout: Option<DurationText>,
    pub(super) profile: OneOrMore<ProfileName>,
    pub(super) refreshed_by: Option<RefreshedBy>,
    pub(super) reads_http2: Option<bool>,
    pub(super) long_lived: Option<DurationText>,
    pub(super) local_scope: Option<ScopeArg>,
    pub(super) path: PathKeys,
    pub(super) log: LogKeys,
    pub(super) web: WebKeys,
    pub(super) color: Option<ColorWhen>,
    pub(super) netns_dir: OneOrMore<PathBuf>,
    pub(super) cgroup_root: Option<PathBuf>,
    pub(super) pod_logs: Option<PathBuf>,
    pub(super) cri_endpoint: Option<PathBuf>,
    pub(super) node_name: Option<String>,
    pub(super) interval: Option<DurationText>,
    pub(super) top_endpoints: Option<usize>,
    pub(super) max_findings: Option<usize>,
    pub(super) metrics_detail: Option<MetricsDetail>,
    pub(super) max_series: Option<usize>,
    pub(super) watch_ends: bool,
    pub(super) limits: LimitKeys,
    pub(super) filter: Option<String>,
    pub(super) all: bool,
    pub(super) format: Option<Format>,
    pub(super) list: bool,
    pub(super) all_groups: bool,
    pub(super) sort: Option<SortArg>,
    pub(super) netns: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    #[serde(rename = "for")]
    pub(super) watch_for: Option<DurationText>,
    pub(super) watch: Option<DurationText>,
    pub(super) record: Option<PathBuf>,
    pub(super) replay: Option<PathBuf>,
    pub(super) exact: bool,
    pub(super) explain: bool,
    pub(super) compare: Option<PathBuf>,
    pub(super) fail_on: Option<FailOn>,
    pub(super) allow_incomplete: bool,
    pub(super) force: bool,
    pub(super) owner: Option<String>,
    pub(super) paths: Vec<PathKey>,
    pub(super) ignore: Vec<IgnoreKey>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PathKeys {
    pub(super) procfs: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitKeys {
    pub(super) from_node: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogKeys {
    pub(super) level: Option<String>,
    pub(super) format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebKeys {
    pub(super) listen_address: Option<AddressText>,
    pub(super) config: WebConfigKeys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebConfigKeys {
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PathKey {
    pub(super) name: String,
    #[serde(default)]
    pub(super) cidrs: Vec<Cidr>,
    #[serde(default)]
    pub(super) ports: Vec<Ports>,
    #[serde(default)]
    pub(super) profile: OneOrMore<ProfileName>,
    pub(super) idle_timeout: Option<DurationText>,
    pub(super) refreshed_by: Option<RefreshedBy>,
    pub(super) reads_http2: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IgnoreKey {
    pub(super) namespace: Option<GlobText>,
    pub(super) pod: Option<GlobText>,
    pub(super) container: Option<GlobText>,
}

/// One value, or a list of them.
#[derive(Debug)]
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

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
pub(super) struct DurationText(pub(super) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        cli::duration(&text).map(Self).map_err(|error| D::Error::custom(format!("invalid value `{text}`: {error}")))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AddressText(pub(super) SocketAddr);

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        cli::listen_address(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("invalid value `{text}`: {error}")))
    }
}

#[derive(Debug)]
pub(super) struct ProfileName(pub(super) &'static Profile);

impl<'de> Deserialize<'de> for ProfileName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        profile(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug)]
pub(super) struct Cidr(pub(super) IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(|net| Self(canonical(net))).map_err(|_| {
            D::Error::custom(format!("`{text}` is not a CIDR; write it like 10.20.0.0/16 or 2001:db8::/32"))
        })
    }
}

#[derive(Debug)]
pub(super) struct Ports(pub(super) RangeInclusive<u16>);

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
pub(super) struct GlobText(pub(super) GlobMatcher);

impl<'de> Deserialize<'de> for GlobText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        glob(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

/// The longest glob: names of pods have at most 253 characters.
const MAX_GLOB: usize = 1024;
/// The deepest nesting of braces: the parser is recursive.
const MAX_NESTING: usize = 8;

/// A glob of a flag, key or query, compiled.
pub fn glob(text: &str) -> Result<GlobMatcher, String> {
    if text.len() > MAX_GLOB {
        return Err(format!("a glob of {} bytes is too long; at most {MAX_GLOB} are allowed", text.len()));
    }
    let mut nesting: usize = 0;
    for character in text.chars() {
        match character {
            '{' => nesting += 1,
            '}' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > MAX_NESTING {
            return Err(format!("`{text}` is not a glob: its braces are nested more than {MAX_NESTING} deep"));
        }
    }
    Glob::new(text)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("`{text}` is not a glob: {}", problem(error.kind())))
}

fn problem(kind: &globset::ErrorKind) -> String {
    match kind {
        globset::ErrorKind::UnclosedClass => "a `[` is not closed; write [[] for the character itself".to_owned(),
        globset::ErrorKind::UnclosedAlternates => "a `{` is not closed; write [{] for the character itself".to_owned(),
        globset::ErrorKind::UnopenedAlternates => "a `}` has no `{`; write [}] for the character itself".to_owned(),
        globset::ErrorKind::DanglingEscape => "it ends with a backslash; write it twice".to_owned(),
        globset::ErrorKind::InvalidRange(first, last) => format!("the range {first}-{last} is empty"),
        _ => "it is too complex".to_owned(),
    }
}

pub(super) fn profile(name: &str) -> Result<&'static Profile, String> {
    let known = cli::profile_name(name).map_err(|error| format!("invalid value `{name}`: {error}"))?;
    profiles::find(&known).ok_or(known)
}

impl ConfigFile {
    /// The key of `--color`.
    #[must_use]
    pub fn color(&self) -> Option<ColorWhen> {
        self.color
    }

    /// Reads `--config`, or nothing.
    pub fn load(path: Option<&Path>) -> Result<Self, UsageError> {
        path.map_or_else(|| Ok(Self::default()), |path| Self::parse(path, &Self::read(path)?))
    }

    /// Reads `--config` again. An empty file is an error here: a program that writes a file truncates it first, and the
    /// defaults would replace every limit for a moment.
    pub fn load_again(path: Option<&Path>) -> Result<Self, UsageError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = Self::read(path)?;
        if text.trim().is_empty() {
            return Err(UsageError::new(format!(
                "the configuration file {} is empty; write a comment into it if you want every default",
                path.display()
            )));
        }
        Self::parse(path, &text)
    }

    fn read(path: &Path) -> Result<String, UsageError> {
        let file = path.to_owned();
        small_file::aside(move || small_file::read(&file)).and_then(|read| read).map_err(|error| {
            let reason = words::reason(&error);
            UsageError::new(format!("cannot read the configuration file {}: {reason}", path.display()))
        })
    }

    fn parse(path: &Path, text: &str) -> Result<Self, UsageError> {
        let wrong = |error: String| UsageError::new(format!("{}: {error}", path.display()));
        let file: Self = yaml::parse(text).map_err(wrong)?;
        match file.paths.iter().enumerate().find(|(_, path)| path.idle_timeout.is_none() && path.profile.0.is_empty()) {
            Some((at, path)) => {
                let name = &path.name;
                Err(wrong(format!(
                    "key paths[{at}]: the path `{name}` has no limit; write an idle_timeout or a profile"
                )))
            }
            None => Ok(file),
        }
    }
}

#[cfg(test)]
mod tests;
