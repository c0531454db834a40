//! The worst connections of a sweep, in the order in which they are shown, in bounded memory.

use super::memory::Millis;
use super::verdict::Verdict;
use crate::socket::Cookie;

/// Where a connection comes in the order: worst verdict first, then the longest silence, then what stays the same from
/// sweep to sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The verdict in the upper bits, below it how far the silence is from the longest that fits: most comparisons end
    /// here.
    severity: u64,
    /// Position of its namespace among the tracker's.
    pub namespace: u32,
    cookie: Cookie,
    /// Position among the entries of its namespace.
    pub at: u32,
}

/// What the verdict leaves of 64 bits, for milliseconds.
const SILENCE_BITS: u32 = (Verdict::COUNT - 1).leading_zeros() + u64::BITS - usize::BITS;
const LONGEST_MS: u64 = (1 << SILENCE_BITS) - 1;
const _: () = assert!((Verdict::COUNT - 1) >> (u64::BITS - SILENCE_BITS) == 0, "every verdict must fit into its bits");

impl Rank {
    /// Of a connection with this verdict and silence.
    pub fn new(verdict: Verdict, silence: Millis, namespace: u32, cookie: Cookie, at: u32) -> Self {
        let severity = (verdict as u64) << SILENCE_BITS | (LONGEST_MS - silence.get().min(LONGEST_MS));
        Self { severity, namespace, cookie, at }
    }
}

/// The first `limit` ranks of all that are offered.
#[derive(Debug, Default)]
pub(super) struct Worst {
    limit: usize,
    /// At most twice the limit. Cutting them down now and then costs less than keeping them in order.
    ranks: Vec<Rank>,
    /// The first that was cut off: a rank that does not come before it is not kept.
    beyond: Option<Rank>,
}

impl Worst {
    /// For at most `offered` ranks.
    pub fn new(limit: usize, offered: usize) -> Self {
        let room = limit.saturating_mul(2).min(offered);
        Self { limit, ranks: Vec::with_capacity(room), beyond: None }
    }

    pub fn offer(&mut self, rank: Rank) {
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

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.ranks.len().min(self.limit)
    }

    /// Puts them in order.
    pub fn sort(&mut self) {
        self.cut();
        self.ranks.sort_unstable();
    }

    /// The ranks that are kept; in order once they were sorted.
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
    fn verdicts_count_before_silence_and_longer_silence_before_shorter() {
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
