//! When to ask a source that may be slow, broken, or ignorant: once a sweep, seldom after failures, a few times for one
//! name.

use std::collections::HashMap;

/// How often one unknown name is asked for: a pod's network namespace is there before the runtime reports its sandbox.
const MAX_TRIES: u8 = 4;
/// After failures in a row the source is left alone for 1, 2, 4, 8 and then always 16 sweeps.
const MAX_PAUSE: u32 = 16;

/// What was asked for in vain, and how the source behaved.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    asked: bool,
    failures: u32,
    pause: u32,
    /// Names wanted in this sweep that were unknown, with how often they were asked for.
    wanted: HashMap<String, u8>,
    /// The same of the sweep before.
    before: HashMap<String, u8>,
}

impl Backoff {
    /// Names that a whole sweep did not want are dropped.
    pub fn begin_sweep(&mut self) {
        self.asked = false;
        self.pause = self.pause.saturating_sub(1);
        self.before = std::mem::take(&mut self.wanted);
    }

    /// Whether to ask for `key`, which is unknown, now.
    pub fn may_ask(&mut self, key: &str) -> bool {
        let before = &self.before;
        let tries = self.wanted.entry(key.to_owned()).or_insert_with(|| before.get(key).copied().unwrap_or(0));
        if self.asked {
            // this sweep's answer did not have it
            *tries = tries.saturating_add(u8::from(self.failures == 0));
            return false;
        }
        self.pause == 0 && *tries < MAX_TRIES
    }

    /// The source was asked for `key`, and did or did not answer.
    pub fn asked(&mut self, key: &str, answered: bool) {
        self.asked = true;
        if answered {
            self.failures = 0;
            *self.wanted.entry(key.to_owned()).or_default() += 1;
        } else {
            self.failures = self.failures.saturating_add(1);
            // the sweep that is running counts as one
            self.pause = (1 << (self.failures - 1).min(4)).min(MAX_PAUSE) + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps_that_ask(patience: &mut Backoff, key: &str, sweeps: usize, answers: bool) -> Vec<usize> {
        let mut asked = Vec::new();
        for sweep in 0..sweeps {
            patience.begin_sweep();
            if patience.may_ask(key) {
                patience.asked(key, answers);
                asked.push(sweep);
            }
        }
        asked
    }

    #[test]
    fn a_source_is_asked_once_a_sweep() {
        let mut patience = Backoff::default();
        patience.begin_sweep();
        assert!(patience.may_ask("a"));
        patience.asked("a", true);
        assert!(!patience.may_ask("b"));
        patience.begin_sweep();
        assert!(patience.may_ask("b"), "the next sweep asks for what this one could not");
    }

    #[test]
    fn an_unknown_name_is_asked_for_a_few_times_and_again_after_it_was_away() {
        let mut patience = Backoff::default();
        assert_eq!(sweeps_that_ask(&mut patience, "a", 10, true), [0, 1, 2, 3]);
        patience.begin_sweep();
        assert_eq!(sweeps_that_ask(&mut patience, "a", 2, true), [0, 1]);
    }

    #[test]
    fn one_answer_counts_for_every_name_of_its_sweep() {
        let mut patience = Backoff::default();
        let mut asked = 0;
        for _ in 0..20 {
            patience.begin_sweep();
            for name in 0..50 {
                let key = format!("name {name}");
                if patience.may_ask(&key) {
                    patience.asked(&key, true);
                    asked += 1;
                }
            }
        }
        assert_eq!(asked, MAX_TRIES);
    }

    #[test]
    fn a_source_that_fails_is_left_alone_longer_and_longer() {
        let mut patience = Backoff::default();
        let mut asked = Vec::new();
        for sweep in 0..80 {
            patience.begin_sweep();
            if patience.may_ask("a") {
                patience.asked("a", false);
                asked.push(sweep);
            }
        }
        assert_eq!(asked, [0, 2, 5, 10, 19, 36, 53, 70]);
    }
}
