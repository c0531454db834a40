//! The order of groups and rows.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::groups::{Group, idle};
use super::workload;
use crate::judge::report::Finding;

/// The order of the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Worst verdict first.
    #[default]
    Worst,
    /// Most connections first.
    Connections,
    /// Longest idle time first.
    Idle,
    /// By the owner's name.
    Owner,
}

impl Sort {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Worst, Self::Connections, Self::Idle, Self::Owner];

    /// The value in the page's address.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Connections => "connections",
            Self::Idle => "idle",
            Self::Owner => "owner",
        }
    }

    /// The next value, and after the last one the first.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.into_iter().position(|sort| sort == self).map_or(0, |at| at + 1);
        Self::ALL[at % Self::ALL.len()]
    }

    /// Orders connections that are worst first.
    pub fn sort_rows(self, findings: &mut [Finding]) {
        let group = |finding: &Finding| (workload::of(&finding.owner), finding.direction, finding.endpoint());
        match self {
            Self::Worst => {}
            Self::Connections => {
                let mut counts: HashMap<_, usize> = HashMap::new();
                for finding in findings.iter() {
                    *counts.entry(group(finding)).or_default() += 1;
                }
                findings.sort_by_cached_key(|finding| {
                    let group = group(finding);
                    (Reverse(counts.get(&group).copied()), group)
                });
            }
            Self::Idle => findings.sort_by_key(|finding| Reverse(idle(finding))),
            Self::Owner => findings.sort_by_cached_key(|finding| finding.owner.to_string()),
        }
    }

    /// Orders groups that are worst first.
    pub fn sort(self, groups: &mut [Group]) {
        match self {
            Self::Worst => {}
            Self::Connections => groups.sort_by_key(|group| Reverse(group.connections())),
            Self::Idle => groups.sort_by_key(|group| Reverse(group.idle)),
            Self::Owner => groups.sort_by(|one, other| one.workload.cmp(&other.workload)),
        }
    }
}
