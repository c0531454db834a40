//! The order of groups.

use std::cmp::Reverse;

use super::groups::Group;

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
