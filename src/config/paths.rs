//! The paths of a policy, from flags and keys.

use std::sync::Arc;
use std::time::Duration;

use super::file::{ConfigFile, PathKey, profile};
use super::{UsageError, value};
use crate::cli::Common;
use crate::judge::policy::profiles::Profile;
use crate::judge::policy::{LimitSource, Path, PathRule, RefreshedBy};

/// The default path. Flags replace the file: either they give the limit, or the file does.
///
/// With `--idle-timeout` alone, the file still says what refreshes the path.
pub(super) fn default_path(flags: &Common, file: &ConfigFile) -> Result<Path, UsageError> {
    let named = |name: &String| profile(name).map_err(|error| UsageError(format!("--profile: {error}")));
    let by_flags = flags.profile.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let by_file: Vec<_> = file.profile.0.iter().map(|name| name.0).collect();
    let limit = shortest(&by_flags, flags.idle_timeout).or_else(|| shortest(&by_file, value(file.idle_timeout)));
    let (refreshed_by, reads_http2) = if by_flags.is_empty() {
        refresh(&by_file, file.refreshed_by, file.reads_http2)
            .map_err(|error| UsageError(format!("refreshed_by: {error}")))?
    } else {
        (strictest(&by_flags), reads_http2(&by_flags))
    };
    let unlimited = Path { refreshed_by, reads_http2, ..Path::default() };
    Ok(match limit {
        Some((idle_timeout, source)) => Path { idle_timeout, source, ..unlimited },
        None => unlimited,
    })
}

/// Several limits mean several middleboxes, so the shortest one counts.
fn shortest(profiles: &[&Profile], configured: Option<Duration>) -> Option<(Duration, LimitSource)> {
    let by_profile = profiles.iter().map(|profile| (profile.idle_timeout, LimitSource::Profile));
    by_profile.chain(configured.map(|limit| (limit, LimitSource::Configured))).min()
}

/// What refreshes every one of several middleboxes: payload, if one of them counts only that.
fn strictest(profiles: &[&Profile]) -> RefreshedBy {
    profiles.iter().map(|profile| profile.refreshed_by).max().unwrap_or_default()
}

/// Whether HTTP/2 PING frames end at one of several middleboxes.
fn reads_http2(profiles: &[&Profile]) -> bool {
    profiles.iter().any(|profile| profile.reads_http2)
}

/// What refreshes a path, and whether a middlebox on it reads HTTP/2, by its profiles and the two keys.
///
/// A middlebox that reads HTTP/2 ends TCP connections, so it counts payload.
fn refresh(
    profiles: &[&Profile],
    refreshed_by: Option<RefreshedBy>,
    http2: Option<bool>,
) -> Result<(RefreshedBy, bool), &'static str> {
    match (refreshed_by, http2) {
        (Some(RefreshedBy::Segment), Some(true)) => {
            Err("`segment` contradicts `reads_http2: true`: a middlebox that reads HTTP/2 counts only payload; write \
                 `payload`, or leave one of the two out")
        }
        (Some(RefreshedBy::Segment), _) => Ok((RefreshedBy::Segment, false)),
        (_, Some(true)) => Ok((RefreshedBy::Payload, true)),
        (refreshed_by, http2) => {
            Ok((refreshed_by.unwrap_or_else(|| strictest(profiles)), http2.unwrap_or_else(|| reads_http2(profiles))))
        }
    }
}

pub(super) fn rule(key: &PathKey) -> Result<PathRule, String> {
    let profiles: Vec<_> = key.profile.0.iter().map(|name| name.0).collect();
    let (idle_timeout, source) = shortest(&profiles, value(key.idle_timeout))
        .ok_or_else(|| format!("paths: the path `{}` has no limit; write an idle_timeout or a profile", key.name))?;
    let (refreshed_by, reads_http2) = refresh(&profiles, key.refreshed_by, key.reads_http2)
        .map_err(|error| format!("paths: the path `{}`: refreshed_by: {error}", key.name))?;
    Ok(PathRule {
        cidrs: key.cidrs.iter().map(|cidr| cidr.0).collect(),
        ports: key.ports.iter().map(|ports| ports.0.clone()).collect(),
        path: Arc::new(Path { name: key.name.clone(), idle_timeout, refreshed_by, reads_http2, source }),
    })
}
