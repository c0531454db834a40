//! The worst connections of a sweep, in the order in which they are shown, in bounded memory.

use super::memory::Millis;
use super::verdict::Verdict;
use crate::socket::Cookie;

/// The position of a connection in the order: worst verdict first, then the longest idle time, then values that are the
/// same in every sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The verdict in the upper bits. The lower bits hold the difference between the idle time and the longest possible
    /// one. Most comparisons need only this.
    severity: u64,
    /// Position of its namespace among the tracker's.
    pub namespace: u32,
    cookie: Cookie,
    /// Position among the entries of its namespace.
    pub at: u32,
}

/// The bits for milliseconds: the rest of 64 bits after the verdict.
const IDLE_BITS: u32 = (Verdict::COUNT - 1).leading_zeros() + u64::BITS - usize::BITS;
const LONGEST_MS: u64 = (1 << IDLE_BITS) - 1;
const _: () = assert!((Verdict::COUNT - 1) >> (u64::BITS - IDLE_BITS) == 0, "every verdict must fit into its bits");

impl Rank {
    /// The rank of a connection with this verdict and idle time.
    pub fn new(verdict: Verdict, idle: Millis, namespace: u32, cookie: Cookie, at: u32) -> Self {
        let severity = (verdict as u64) << IDLE_BITS | (LONGEST_MS - idle.get().min(LONGEST_MS));
        Self { severity, namespace, cookie, at }
    }
}

/// The first `limit` ranks of all ranks that are added.
#[derive(Debug, Default)]
pub(super) struct Worst {
    limit: usize,
    /// At most twice the limit. To shorten the list from time to time costs less than to keep it sorted.
    ranks: Vec<Rank>,
    /// The first rank that was cut off. Later ranks are not kept either.
    beyond: Option<Rank>,
    offered: u64,
}

impl Worst {
    /// A list with room for `expected` ranks.
    pub fn new(limit: usize, expected: usize) -> Self {
        let room = limit.saturating_mul(2).min(expected);
        Self { limit, ranks: Vec::with_capacity(room), ..Self::default() }
    }

    /// Adds a rank, if it is among the first.
    pub fn offer(&mut self, rank: Rank) {
        self.offered += 1;
        if self.beyond.is_some_and(|beyond| rank >= beyond) {
            return;
        }
        if self.ranks.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
        self.ranks.push(rank);
    }

    fn cut(&mut self) {
        if self.ranks.len() > self.limit {
            self.beyond = Some(*self.ranks.select_nth_unstable(self.limit).1);
            self.ranks.truncate(self.limit);
        }
    }

    /// The number of ranks that are kept.
    pub fn len(&self) -> usize {
        self.ranks.len().min(self.limit)
    }

    /// The number of ranks that were added, but are not kept.
    pub fn cut_off(&self) -> u64 {
        self.offered - self.len() as u64
    }

    /// Sorts them.
    pub fn sort(&mut self) {
        self.cut();
        self.ranks.sort_unstable();
    }

    /// The ranks that are kept. They are in order after [`Self::sort`].
    pub fn ranks(&self) -> &[Rank] {
        &self.ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(number: u32) -> Rank {
        Rank::new(
            Verdict::ALL[number as usize % Verdict::COUNT],
            Millis::new(u64::from(number) % 13),
            1,
            Cookie(number.into()),
            number,
        )
    }

    #[test]
    fn the_worst_are_kept_in_order_whatever_comes_first() {
        // every number below 1000 once, in no order
        let numbers = || (0..1000).map(|number: u32| number * 617 % 1000);
        let mut sorted: Vec<Rank> = numbers().map(rank).collect();
        sorted.sort_unstable();
        for limit in [0, 1, 2, 7, 500, 999, 1000, 5000, usize::MAX] {
            let mut worst = Worst::new(limit, 1000);
            numbers().for_each(|number| worst.offer(rank(number)));
            assert_eq!(worst.len(), limit.min(1000));
            worst.sort();
            assert_eq!(worst.ranks(), &sorted[..sorted.len().min(limit)], "limit {limit}");
        }
    }

    #[test]
    fn verdicts_come_first_and_then_longer_idle_times() {
        let ranks = [
            Rank::new(Verdict::Blackholed, Millis::new(0), 9, Cookie(9), 9),
            Rank::new(Verdict::Overdue, Millis::new(u64::MAX), 9, Cookie(9), 9),
            Rank::new(Verdict::Overdue, Millis::new(2), 9, Cookie(9), 9),
            Rank::new(Verdict::Overdue, Millis::new(1), 1, Cookie(3), 2),
            Rank::new(Verdict::Overdue, Millis::new(1), 2, Cookie(1), 2),
            Rank::new(Verdict::Overdue, Millis::new(1), 2, Cookie(2), 1),
            Rank::new(Verdict::Exposed, Millis::new(1), 0, Cookie(0), 0),
            Rank::new(Verdict::Local, Millis::new(0), 0, Cookie(0), 0),
        ];
        assert!(ranks.is_sorted());
    }
}
