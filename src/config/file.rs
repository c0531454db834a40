//! The configuration file: its keys, and how it is read.

mod values;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::UsageError;
use crate::cli::{ColorWhen, FailOn, Format, LogFormat, MetricsDetail, ScopeArg, SortArg};
use crate::judge::policy::RefreshedBy;
use crate::{small_file, words, yaml};
use values::{AddressText, Cidr, GlobText, OneOrMore, Ports, ProfileName};
pub(super) use values::{DurationText, profile};

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
