//! What changed since the watch began: the connections of the first sweep, by cookie, and their verdicts.

use std::fmt;

use hashbrown::HashMap;

use crate::judge::report::{Finding, Report};
use crate::judge::verdict::Verdict;
use crate::owner::NsId;
use crate::show::groups::Change;
use crate::socket::Cookie;

/// The connections of the first sweep.
pub struct Baseline {
    /// When that sweep started, in milliseconds since the Unix epoch.
    pub started_at: u64,
    verdicts: HashMap<(NsId, Cookie), Verdict>,
}

/// How many connections changed, of all that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They were not there.
    pub new: usize,
    /// They are not there any more.
    pub gone: usize,
    /// Their verdicts became worse.
    pub worse: usize,
    /// Their verdicts became better.
    pub better: usize,
}

impl Baseline {
    /// What later sweeps are compared with.
    pub fn new(report: &Report, findings: &[Finding]) -> Self {
        let verdicts = findings.iter().map(|finding| ((finding.netns, finding.cookie), finding.verdict)).collect();
        Self { started_at: report.started_at, verdicts }
    }

    /// How a connection changed, if it did.
    pub fn change(&self, finding: &Finding) -> Option<Change> {
        let Some(before) = self.verdicts.get(&(finding.netns, finding.cookie)) else { return Some(Change::New) };
        match rank(finding.verdict).cmp(&rank(*before)) {
            std::cmp::Ordering::Less => Some(Change::Worse),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Change::Better),
        }
    }

    /// How many connections changed.
    pub fn changes(&self, findings: &[Finding]) -> Changes {
        let mut changes = Changes::default();
        for finding in findings {
            match self.change(finding) {
                Some(Change::New) => changes.new += 1,
                Some(Change::Worse) => changes.worse += 1,
                Some(Change::Better) => changes.better += 1,
                None => {}
            }
        }
        changes.gone = self.verdicts.len().saturating_sub(findings.len() - changes.new);
        changes
    }
}

/// Flagged verdicts in their order, worst first; all others are equally good.
fn rank(verdict: Verdict) -> usize {
    if verdict.flagged() { verdict as usize } else { Verdict::COUNT }
}

/// With the marks of the column CHANGE: `2 new (+), 1 gone, 46 worse (↓)`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts =
            [(self.new, "new (+)"), (self.gone, "gone"), (self.worse, "worse (↓)"), (self.better, "better (↑)")];
        let words: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        f.write_str(&if words.is_empty() { "no change".to_owned() } else { words.join(", ") })
    }
}
