//! When an answer that lists connections is made: between two sweeps, and after one that has read all of them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Published;
use crate::agent::sweeps::Order;
use crate::digest::Digest;
use crate::judge::report::Report;
use crate::web::Page;

/// The time for which a page that lists connections waits for the end of a sweep.
const WAIT: Duration = Duration::from_secs(10);
/// Requests ask for a sweep at most once in this time.
const BETWEEN_ASKED: Duration = Duration::from_secs(5);

impl Published {
    /// Answers with a page of the last report and its findings. It waits for the end of the current sweep. If that
    /// takes too long, it returns the stored answer.
    pub(super) fn with_findings(&self, key: &str, page: impl FnOnce(&Report, &mut Digest) -> Page) -> Page {
        let number = self.state().number;
        if let Some(stored) = self.answers.get(key, Some(number)) {
            return stored;
        }
        let after = self.ask_for_sweep();
        let is_taken = |digest: &mut Option<Digest>| {
            digest.is_none()
                || self.sweep_waits.load(Ordering::Relaxed)
                || after.is_some_and(|after| self.state().number <= after)
        };
        let waited = self.digest_is_back.wait_timeout_while(self.digest(), WAIT, is_taken);
        let (mut digest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (report, number) = {
            let state = self.state();
            (state.report.clone(), state.number)
        };
        if let Some(stored) = self.answers.get(key, digest.is_some().then_some(number)) {
            return stored;
        }
        match (report, digest.as_mut()) {
            (Some(report), Some(digest)) => {
                let page = page(&report, digest);
                self.answers.put(key, number, &page);
                page
            }
            (Some(_), None) => Page::unavailable("a sweep takes long; /metrics shows the numbers of the last one\n", 5),
            (None, _) => Page::unavailable("the first sweep is under way\n", 1),
        }
    }

    /// Asks for a sweep that reads every connection, if the last one did not. Returns the number after which its result
    /// comes.
    fn ask_for_sweep(&self) -> Option<u64> {
        let mut state = self.state();
        let is_soon = |asked: Instant| asked.elapsed() < BETWEEN_ASKED;
        if state.has_read_all || state.asked.is_some_and(is_soon) {
            return None;
        }
        self.orders.get()?.upgrade()?.send(Order::SweepAll).ok()?;
        state.asked = Some(Instant::now());
        // the result of one that is under way comes first
        Some(state.number + u64::from(state.running.is_some()))
    }
}
