//! Which connections of a namespace with traffic must be read before its next whole read.
//!
//! Traffic in a namespace says nothing of a single connection. An idle connection cannot reach its limit before the
//! rest of it has passed. So a node with many connections reads each only when time may change its verdict, or when its
//! idle time has grown by a quarter. Everything else waits for the whole read
//! ([`longest`](super::baseline::Baseline::holds)).
//!
//! A connection with probes of the peer, or with what may be heartbeats, is read in each sweep: its verdict rests on
//! these samples.

use super::clock::{Millis, Moment};

/// Shorter idle times are not followed: the histogram of idle times begins here.
pub const SHORTEST_FOLLOWED: Millis = Millis::from_secs(30);
/// An idle time that has grown by this part of itself is read again, so that its end is known as precisely.
const GROWTH: u64 = 4;

/// How far ahead moments are stored, in longest times between reads: the whole read may come a sweep later.
pub const HORIZON: u64 = 2;

/// The moments at which connections are due, by position among the entries. Only those before the next whole read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueReads {
    /// The beginning of the last whole read.
    since: Moment,
    /// Milliseconds after it.
    due: Vec<(u32, u32)>,
}

impl DueReads {
    /// None yet, of a whole read that began at `since`.
    #[must_use]
    pub fn new(since: Moment) -> Self {
        Self { since, due: Vec::new() }
    }

    /// Adds the entry at a position, unless the next whole read comes before: at the latest `longest` after the last,
    /// if sweeps are not rarer.
    pub fn add(&mut self, entry: u32, at: Moment, longest: Millis) {
        let after = at.since(self.since);
        if after < longest.saturating_mul(HORIZON)
            && let Ok(after) = u32::try_from(after.get())
        {
            self.due.push((after, entry));
        }
    }

    /// The positions of the entries that are due at `now`.
    pub fn at(&self, now: Moment) -> impl Iterator<Item = usize> {
        let passed = now.since(self.since).get();
        self.due.iter().filter(move |(after, _)| u64::from(*after) <= passed).map(|(_, entry)| *entry as usize)
    }
}

/// When the idle time of a connection is read again. It was `idle` for this long at `at`, and the path drops it after
/// `limit`.
#[must_use]
pub fn follow(idle: Millis, limit: Millis, at: Moment) -> Moment {
    if (SHORTEST_FOLLOWED..limit).contains(&idle) { at.plus(Millis::new(idle.get() / GROWTH)) } else { Moment::NEVER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_is_followed_from_thirty_seconds_to_the_limit() {
        let at = Moment::from_millis(1_000_000);
        let after = |idle| follow(Millis::from_secs(idle), Millis::from_secs(350), at).since(at);
        let cases = [(0, None), (29, None), (30, Some(7_500)), (200, Some(50_000)), (340, Some(85_000)), (350, None)];
        for (idle, expected) in cases {
            let expected = expected.map_or(Moment::NEVER.since(at), Millis::new);
            assert_eq!(after(idle), expected, "idle for {idle} s");
        }
    }

    #[test]
    fn what_is_due_before_the_next_whole_read_is_kept_and_found_in_time() {
        let since = Moment::from_millis(5_000);
        let mut due = DueReads::new(since);
        let longest = Millis::from_secs(60);
        for (entry, after) in [(0, 0), (1, 20), (2, 119), (3, 120)] {
            due.add(entry, since.plus(Millis::from_secs(after)), longest);
        }
        due.add(4, Moment::NEVER, longest);
        due.add(5, Moment::from_millis(1), longest);
        let at = |seconds| due.at(since.plus(Millis::from_secs(seconds))).collect::<Vec<_>>();
        assert_eq!(at(0), [0, 5]);
        assert_eq!(at(19), [0, 5]);
        assert_eq!(at(20), [0, 1, 5]);
        assert_eq!(at(1000), [0, 1, 2, 5]);
    }
}
