//! The lengths of ended idle times (the metric `silence_seconds`): they show which idle timeout would drop connections.

use super::memory::Millis;
use super::verdict::Keepalive;

/// The upper bounds of the buckets in seconds: the usual idle timeouts (see `profiles`), from 30 s up.
pub const BUCKETS: [u64; 15] = [30, 60, 120, 180, 240, 300, 350, 600, 900, 1200, 1800, 3600, 7200, 86_400, 432_000];

/// The ended idle times of connections with one keepalive state. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IdleTimes {
    /// The number in each bucket, not cumulative. The last bucket is for all longer ones.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Their sum in seconds.
    pub sum: f64,
}

/// The ended idle times by keepalive state, in the order of [`Keepalive::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IdleTimeHistogram(pub [IdleTimes; Keepalive::COUNT]);

impl IdleTimeHistogram {
    /// Counts one idle time that has ended.
    pub fn count(&mut self, keepalive: Keepalive, idle_time: Millis) {
        let idle_times = &mut self.0[keepalive as usize];
        let bucket = BUCKETS.partition_point(|&bound| Millis::from_secs(bound) < idle_time);
        idle_times.counts[bucket] += 1;
        idle_times.sum += idle_time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = IdleTimeHistogram::default();
        for ms in [30_000, 350_000, 350_001, 500_000_000] {
            histogram.count(Keepalive::Off, Millis::new(ms));
        }
        let counts = histogram.0[Keepalive::Off as usize].counts;
        assert_eq!((counts[0], counts[6], counts[7], counts[15]), (1, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 4);
    }
}
