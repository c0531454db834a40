//! Checks that are all made before the test fails: a scene costs seconds, so one run tells everything that is wrong with it.

use std::fmt::Debug;

use super::binary::{Report, Row};
use super::socket::End;

/// What went wrong so far.
#[derive(Default)]
pub struct Checks {
    failures: Vec<String>,
    made: usize,
}

impl Checks {
    /// Notes a failure unless `holds`.
    pub fn that(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.made += 1;
        if !holds {
            self.failures.push(what());
        }
    }

    /// Notes a failure unless both are equal.
    #[expect(clippy::needless_pass_by_value, reason = "reads as assert_eq! does")]
    pub fn equal<T: PartialEq<U> + Debug, U: Debug>(&mut self, what: &str, got: T, expected: U) {
        let same = got == expected;
        self.that(same, || format!("{what}: expected {expected:?}, got {got:?}"));
    }

    /// Checks one end of a connection: that it is reported once, as itself, and as this keepalive and verdict.
    pub fn end<'r>(
        &mut self,
        case: &str,
        report: &'r Report,
        end: &End,
        keepalive: &str,
        verdict: &str,
    ) -> Option<&'r Row> {
        let Some(row) = report.row(end.id) else {
            self.that(false, || format!("{case}: {} → {} is not in the report", end.local(), end.remote()));
            return None;
        };
        self.equal(&format!("{case}: local"), &*row.local, end.local().to_string());
        self.equal(&format!("{case}: remote"), &*row.remote, end.remote().to_string());
        self.equal(&format!("{case}: inode"), row.inode, end.inode);
        let judged = (&*row.keepalive, &*row.verdict);
        self.that(judged == (keepalive, verdict), || {
            format!("{case}: expected {keepalive} / {verdict}, got {} / {}\n    {row:?}", judged.0, judged.1)
        });
        Some(row)
    }

    /// Fails the test if anything went wrong.
    pub fn finish(self) {
        assert!(self.made > 0, "a test that checks nothing");
        let count = self.failures.len();
        assert!(count == 0, "{count} of {} checks failed:\n- {}", self.made, self.failures.join("\n- "));
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // A panic elsewhere must not hide what was found before it.
        if std::thread::panicking() {
            for failure in &self.failures {
                eprintln!("found before: {failure}");
            }
        }
    }
}
