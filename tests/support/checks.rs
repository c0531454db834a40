//! Checks that all run before the test fails. A scene takes seconds, so one run shows everything that is wrong.

use std::fmt::Debug;

use super::binary::{Report, Row};
use super::socket::End;

/// The checks so far and their failures.
#[derive(Default)]
pub struct Checks {
    failures: Vec<String>,
    made: usize,
}

impl Checks {
    /// Adds a failure unless `holds`.
    pub fn that(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.made += 1;
        if !holds {
            self.failures.push(what());
        }
    }

    /// Adds a failure unless both are equal.
    #[expect(clippy::needless_pass_by_value, reason = "is called as assert_eq! is")]
    pub fn equal<T: PartialEq<U> + Debug, U: Debug>(&mut self, what: &str, got: T, expected: U) {
        let same = got == expected;
        self.that(same, || format!("{what}: expected {expected:?}, got {got:?}"));
    }

    /// Checks that the report shows one end of a connection, with this keepalive and verdict.
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

    /// Fails the test if a check failed.
    pub fn finish(self) {
        assert!(self.made > 0, "the test checked nothing");
        let count = self.failures.len();
        assert!(count == 0, "{count} of {} checks failed:\n- {}", self.made, self.failures.join("\n- "));
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // A panic elsewhere must not hide the failures before it.
        if std::thread::panicking() {
            for failure in &self.failures {
                eprintln!("failed before the panic: {failure}");
            }
        }
    }
}
