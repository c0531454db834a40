//! How connections ended, as far as the counters of their namespace prove it.

use super::Outcome;

/// What a namespace's counters say of ends, at one moment. They only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndCounters {
    /// `EstabResets`: connections that went from ESTABLISHED or CLOSE-WAIT to CLOSE without an orderly end.
    pub direct: u64,
    /// `TCPAbortOnTimeout`: the kernel gave up. It also counts sockets whose program had closed them before.
    pub timeouts: u64,
    /// `TCPAbortOnClose` and `TCPAbortOnData`: a program closed with unread data, or without lingering.
    pub aborts: u64,
    /// `ActiveOpens` and `PassiveOpens`.
    pub opens: u64,
}

impl EndCounters {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            direct: self.direct.wrapping_sub(earlier.direct),
            timeouts: self.timeouts.wrapping_sub(earlier.timeouts),
            aborts: self.aborts.wrapping_sub(earlier.aborts),
            opens: self.opens.wrapping_sub(earlier.opens),
        }
    }
}

/// What the counters say of the time between two reads of a namespace. The reads take time themselves, so there are
/// two windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Counted in a window that begins before the first read and ends after the second one.
    pub most: EndCounters,
    /// Counted in a window within these two: direct ends.
    pub least_direct: u64,
    /// Other connections that ended between the two reads.
    pub others: u64,
}

impl Window {
    /// How every one of `ended` connections ended, where the counters prove it for all of them. `unanswered`: each had
    /// something without an answer when it was last seen.
    #[must_use]
    pub fn outcome(&self, ended: u64, unanswered: bool) -> Option<Outcome> {
        let Self { most, least_direct, others } = *self;
        if most.direct == 0 {
            return Some(Outcome::Closed);
        }
        // connections that opened and ended between the reads were never seen
        let all = ended.saturating_add(others).saturating_add(most.opens);
        if least_direct < all {
            return None;
        }
        match (most.timeouts, most.aborts) {
            (0, 0) => Some(Outcome::Reset),
            (0, aborts) if aborts >= most.direct => Some(Outcome::Closed),
            (timeouts, 0) if timeouts >= most.direct && unanswered => Some(Outcome::TimedOut),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// This much was counted, and all of it between the two reads.
    pub fn window(direct: u64, timeouts: u64, aborts: u64) -> Window {
        Window { most: EndCounters { direct, timeouts, aborts, opens: 0 }, least_direct: direct, others: 0 }
    }

    #[test]
    fn counters_prove_an_outcome_only_for_all_connections_together() {
        assert_eq!(window(0, 3, 3).outcome(5, false), Some(Outcome::Closed), "none went down without an orderly end");
        assert_eq!(window(2, 0, 0).outcome(2, false), Some(Outcome::Reset));
        assert_eq!(window(2, 0, 0).outcome(3, false), None, "one of three was closed");
        assert_eq!(window(1, 1, 0).outcome(1, true), Some(Outcome::TimedOut));
        assert_eq!(window(1, 1, 0).outcome(1, false), None, "the timeout may be that of a closed socket");
        assert_eq!(window(2, 1, 0).outcome(2, true), None);
        assert_eq!(window(1, 0, 1).outcome(1, false), Some(Outcome::Closed), "aborted by its program");
        assert_eq!(Window { others: 1, ..window(1, 0, 0) }.outcome(1, false), None);
        let opened = EndCounters { opens: 1, ..window(1, 0, 0).most };
        assert_eq!(Window { most: opened, ..window(1, 0, 0) }.outcome(1, false), None);
        assert_eq!(Window { least_direct: 0, ..window(1, 0, 0) }.outcome(1, false), None);
    }
}
