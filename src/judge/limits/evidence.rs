//! What the idle times of one endpoint's connections prove.

use crate::judge::memory::Millis;
use crate::judge::policy::{Path, RefreshedBy};

/// The most idle times that are stored of each kind.
const STORED: usize = 32;
/// So many breaks say more than what was survived before them: somebody has lowered the limit.
pub const SEVERAL: usize = 3;

/// What restarts an idle time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartedBy {
    /// Any segment.
    #[default]
    Segment,
    /// Payload.
    Payload,
    /// Payload other than HTTP/2 PING frames.
    Request,
}

impl RestartedBy {
    /// What restarts the idle time of this path.
    pub fn of(path: &Path) -> Self {
        match path.refreshed_by {
            RefreshedBy::Segment => Self::Segment,
            RefreshedBy::Payload if path.reads_http2 => Self::Request,
            RefreshedBy::Payload => Self::Payload,
        }
    }
}

/// The longest idle times that were survived, and the shortest that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What restarted these idle times.
    pub restarted_by: RestartedBy,
    /// The number of idle times that ended with an answer.
    pub survivals: u64,
    /// The longest of these, the longest first.
    pub survived: Vec<Millis>,
    /// Idle times that ended without one, the shortest first: longer than all that were survived, or later.
    pub broken: Vec<Millis>,
}

impl Evidence {
    /// An idle time ended with an answer. No shorter one broke because of the path's limit.
    pub fn add_survived(&mut self, restarted_by: RestartedBy, idle: Millis) {
        self.restart_if_changed(restarted_by);
        self.survivals += 1;
        self.broken.retain(|broken| *broken > idle);
        let at = self.survived.partition_point(|longer| *longer >= idle);
        self.survived.insert(at, idle);
        self.survived.truncate(STORED);
    }

    /// An idle time ended without an answer, and the peer is not to blame.
    pub fn add_broken(&mut self, restarted_by: RestartedBy, idle: Millis) {
        self.restart_if_changed(restarted_by);
        let at = self.broken.partition_point(|shorter| *shorter <= idle);
        self.broken.insert(at, idle);
        self.broken.truncate(STORED);
        let longest = self.survived.first().copied().unwrap_or_default();
        if self.broken.iter().filter(|broken| **broken <= longest).count() >= SEVERAL
            && let Some(shortest) = self.broken.first().copied()
        {
            self.survived.retain(|survived| *survived < shortest);
        }
    }

    fn restart_if_changed(&mut self, restarted_by: RestartedBy) {
        if self.restarted_by != restarted_by {
            *self = Self { restarted_by, ..Self::default() };
        }
    }

    /// What it is worth where there is not enough room: the longest idle time of it.
    pub fn strength(&self) -> Millis {
        let broken = self.broken.first().map_or(Millis::ZERO, |_| Millis::MAX);
        self.survived.first().copied().unwrap_or_default().max(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Millis {
        Millis::from_secs(seconds)
    }

    fn evidence(survived: &[u64], broken: &[u64]) -> Evidence {
        let mut evidence = Evidence::default();
        for idle in survived {
            evidence.add_survived(RestartedBy::Segment, seconds(*idle));
        }
        for idle in broken {
            evidence.add_broken(RestartedBy::Segment, seconds(*idle));
        }
        evidence
    }

    #[test]
    fn the_longest_survived_and_the_shortest_broken_idle_times_are_stored() {
        let many: Vec<u64> = (1..=100).collect();
        let evidence = evidence(&many, &(300..400).rev().collect::<Vec<_>>());
        assert_eq!(evidence.survived, (69..=100).rev().map(seconds).collect::<Vec<_>>());
        assert_eq!(evidence.broken, (300..332).map(seconds).collect::<Vec<_>>());
        assert_eq!(evidence.survivals, 100);
    }

    #[test]
    fn a_longer_idle_time_that_is_survived_refutes_a_shorter_one_that_was_not() {
        let mut evidence = evidence(&[60], &[100, 200, 300, 400]);
        evidence.add_survived(RestartedBy::Segment, seconds(250));
        assert_eq!(evidence.broken, [seconds(300), seconds(400)]);
    }

    #[test]
    fn several_breaks_after_a_longer_survival_show_that_the_limit_was_lowered() {
        let mut evidence = evidence(&[900, 100], &[250, 260]);
        assert_eq!(evidence.survived.first(), Some(&seconds(900)));
        evidence.add_broken(RestartedBy::Segment, seconds(255));
        assert_eq!(evidence.survived, [seconds(100)]);
    }

    #[test]
    fn evidence_of_another_kind_of_path_is_void() {
        let mut evidence = evidence(&[60], &[]);
        evidence.add_survived(RestartedBy::Payload, seconds(10));
        assert_eq!(evidence.survived, [seconds(10)]);
    }
}
