//! Limits the queries to a source of names that may be slow, broken, or incomplete: once per sweep, less often after
//! failures, and only a few times for one name.

use std::collections::HashMap;

/// The number of queries for one unknown name: a pod's network namespace exists before the runtime reports its sandbox.
const MAX_TRIES: u8 = 4;
/// After consecutive failures the source is not queried for 1, 2, 4, 8 and then always 16 sweeps.
const MAX_PAUSE: u32 = 16;

/// The names that were queried without a result, and the failures of the source.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    asked: bool,
    failures: u32,
    pause: u32,
    /// The unknown names of this sweep, with their number of queries.
    wanted: HashMap<String, u8>,
    /// The same for the previous sweep.
    before: HashMap<String, u8>,
}

impl Backoff {
    /// Begins a sweep. Drops the names that the whole last sweep did not need.
    pub fn begin_sweep(&mut self) {
        self.asked = false;
        self.pause = self.pause.saturating_sub(1);
        self.before = std::mem::take(&mut self.wanted);
    }

    /// Whether to query the unknown name `key` now.
    pub fn may_ask(&mut self, key: &str) -> bool {
        let before = &self.before;
        let tries = self.wanted.entry(key.to_owned()).or_insert_with(|| before.get(key).copied().unwrap_or(0));
        if self.asked {
            // the answer of this sweep did not contain it
            *tries = tries.saturating_add(u8::from(self.failures == 0));
            return false;
        }
        self.pause == 0 && *tries < MAX_TRIES
    }

    /// Stores that the source was queried for `key`, and whether it answered.
    pub fn asked(&mut self, key: &str, answered: bool) {
        self.asked = true;
        if answered {
            self.failures = 0;
            *self.wanted.entry(key.to_owned()).or_default() += 1;
        } else {
            self.failures = self.failures.saturating_add(1);
            // the current sweep counts as one
            self.pause = (1 << (self.failures - 1).min(4)).min(MAX_PAUSE) + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps_that_ask(backoff: &mut Backoff, key: &str, sweeps: usize, answers: bool) -> Vec<usize> {
        let mut asked = Vec::new();
        for sweep in 0..sweeps {
            backoff.begin_sweep();
            if backoff.may_ask(key) {
                backoff.asked(key, answers);
                asked.push(sweep);
            }
        }
        asked
    }

    #[test]
    fn a_source_is_asked_once_a_sweep() {
        let mut backoff = Backoff::default();
        backoff.begin_sweep();
        assert!(backoff.may_ask("a"));
        backoff.asked("a", true);
        assert!(!backoff.may_ask("b"));
        backoff.begin_sweep();
        assert!(backoff.may_ask("b"), "the next sweep asks for what this one could not");
    }

    #[test]
    fn an_unknown_name_is_asked_for_a_few_times_and_again_after_it_was_away() {
        let mut backoff = Backoff::default();
        assert_eq!(sweeps_that_ask(&mut backoff, "a", 10, true), [0, 1, 2, 3]);
        backoff.begin_sweep();
        assert_eq!(sweeps_that_ask(&mut backoff, "a", 2, true), [0, 1]);
    }

    #[test]
    fn one_answer_counts_for_every_name_of_its_sweep() {
        let mut backoff = Backoff::default();
        let mut asked = 0;
        for _ in 0..20 {
            backoff.begin_sweep();
            for name in 0..50 {
                let key = format!("name {name}");
                if backoff.may_ask(&key) {
                    backoff.asked(&key, true);
                    asked += 1;
                }
            }
        }
        assert_eq!(asked, MAX_TRIES);
    }

    #[test]
    fn a_source_that_fails_is_queried_less_and_less() {
        let mut backoff = Backoff::default();
        let mut asked = Vec::new();
        for sweep in 0..80 {
            backoff.begin_sweep();
            if backoff.may_ask("a") {
                backoff.asked("a", false);
                asked.push(sweep);
            }
        }
        assert_eq!(asked, [0, 2, 5, 10, 19, 36, 53, 70]);
    }
}
