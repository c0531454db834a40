//! What the idle times of a path say of its limit, and whether that contradicts the limit that is configured.

use super::PeerEndpoint;
use super::evidence::{Evidence, SEVERAL};
use crate::judge::memory::Millis;
use crate::judge::policy::Path;
use crate::judge::policy::profiles::{PROFILES, Profile};

/// What was measured of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnedLimit {
    /// The longest idle time after which a segment was still answered.
    pub survived: Option<Millis>,
    /// The number of idle times that were survived.
    pub survivals: u64,
    /// The number of those above the configured limit; not all are counted.
    pub survived_limit: usize,
    /// The idle times after which no answer came: the shortest, and the longest of the stored ones. Only where several
    /// broke.
    pub broken: Option<(Millis, Millis)>,
    /// The number of these.
    pub breaks: usize,
    /// The endpoint with the most breaks, or else with the longest idle time that was survived.
    pub endpoint: Option<PeerEndpoint>,
    /// The number of endpoints with evidence.
    pub endpoints: usize,
    /// Another endpoint of this path survived longer than `broken`.
    pub survived_elsewhere: Option<Millis>,
}

/// How what was measured contradicts the limit of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Connections broke after shorter idle times.
    LimitTooHigh,
    /// Connections survived longer idle times.
    LimitTooLow,
}

impl Contradiction {
    /// The JSON value and label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LimitTooHigh => "limit_too_high",
            Self::LimitTooLow => "limit_too_low",
        }
    }
}

impl LearnedLimit {
    /// What the evidence of a path's endpoints says together. `limit` is its configured idle timeout.
    pub(super) fn of<'a>(limit: Millis, endpoints: impl Iterator<Item = (&'a PeerEndpoint, &'a Evidence)>) -> Self {
        let endpoints: Vec<_> = endpoints.collect();
        let mut broken: Vec<Millis> =
            endpoints.iter().flat_map(|(_, evidence)| evidence.broken.iter().copied()).collect();
        broken.sort_unstable();
        if broken.len() < SEVERAL {
            broken.clear();
        }
        let shortest = broken.first().copied();
        let below = |idle: &Millis| shortest.is_none_or(|shortest| *idle < shortest);
        let survived = endpoints.iter().flat_map(|(_, evidence)| evidence.survived.iter().copied());
        let longest = |(_, evidence): &&(&PeerEndpoint, &Evidence)| evidence.survived.first().copied();
        let most_breaks = endpoints.iter().filter(|(_, evidence)| shortest.is_some() && !evidence.broken.is_empty());
        let endpoint = most_breaks
            .max_by_key(|(endpoint, evidence)| (evidence.broken.len(), *endpoint))
            .or_else(|| endpoints.iter().max_by_key(|one| (longest(one), one.0)));
        Self {
            survived: survived.clone().filter(below).max(),
            survivals: endpoints.iter().map(|(_, evidence)| evidence.survivals).sum(),
            // a tenth: no sweep sees to the millisecond when an idle time began
            survived_limit: survived
                .clone()
                .filter(|idle| idle.get() > limit.get().saturating_add(limit.get() / 10))
                .count(),
            broken: shortest.zip(broken.last().copied()),
            breaks: broken.len(),
            endpoint: endpoint.map(|(endpoint, _)| **endpoint),
            endpoints: endpoints.len(),
            survived_elsewhere: survived.filter(|idle| !below(idle)).max(),
        }
    }

    /// Whether it contradicts the limit of the path.
    #[must_use]
    pub fn contradiction(&self, path: &Path) -> Option<Contradiction> {
        let limit = Millis::from(path.idle_timeout);
        if self.broken.is_some_and(|(shortest, _)| shortest < limit) {
            Some(Contradiction::LimitTooHigh)
        } else if self.survived_limit >= SEVERAL && self.survived.is_some_and(|survived| survived > limit) {
            Some(Contradiction::LimitTooLow)
        } else {
            None
        }
    }

    /// The idle timeout that fits, in seconds: one of a known middlebox just below what broke, or else a round number.
    #[must_use]
    pub fn fitting(&self) -> Option<u64> {
        let survived = self.survived.unwrap_or_default().get();
        let Some((shortest, _)) = self.broken else { return (survived >= 1000).then_some(survived / 1000) };
        // two clocks and a timer lie between the router's limit and ours
        let shortest = shortest.get() + 100;
        let fits = |seconds: &u64, percent: u64| {
            let ms = seconds * 1000;
            ms > survived && ms <= shortest && ms * 100 >= shortest * percent
        };
        let known = PROFILES.iter().map(|profile| profile.idle_timeout.as_secs()).filter(|seconds| fits(seconds, 97));
        let round =
            [3600, 1800, 600, 300, 60, 30, 10, 5, 1].into_iter().map(|unit: u64| shortest / (unit * 1000) * unit);
        known
            .max()
            .or_else(|| round.clone().find(|seconds| fits(seconds, 80)))
            .or((shortest >= 1000).then_some(shortest / 1000))
    }

    /// The known middleboxes whose idle timeout lies between what was survived and what was not.
    pub fn profiles(&self, path: &Path) -> impl Iterator<Item = &'static Profile> {
        let survived = self.survived.unwrap_or_default();
        let broken = self.broken.map(|(shortest, _)| shortest);
        let refreshed_by = path.refreshed_by;
        PROFILES.iter().filter(move |profile| {
            let limit = Millis::from(profile.idle_timeout);
            profile.refreshed_by == refreshed_by && limit >= survived && broken.is_some_and(|broken| limit <= broken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_a_known_limit_just_below_what_broke_or_a_round_number() {
        for (survived, broken, fits) in [
            (200_000, Some(241_000), Some(240)),
            (100_000, Some(351_000), Some(350)),
            (340_000, Some(352_900), Some(350)),
            (6_900, Some(8_000), Some(8)),
            (4_900, Some(9_840), Some(9)),
            (6_800, Some(12_000), Some(10)),
            (11_500, Some(12_000), Some(12)),
            (900_400, None, Some(900)),
            (400, None, None),
        ] {
            let broken = broken.map(|ms| (Millis::new(ms), Millis::new(ms + 1000)));
            let learned = LearnedLimit { survived: Some(Millis::new(survived)), broken, ..LearnedLimit::default() };
            assert_eq!(learned.fitting(), fits, "{survived} {broken:?}");
        }
    }
}
