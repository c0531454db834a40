//! What makes a group: the facts that its members share, and which of them give way where there would be too many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Endpoints, Group, MAX_APART, Split, seconds};
use crate::judge::cause::Cause;
use crate::judge::report::{Direction, Finding, Path};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, Owner};
use crate::show::workload;

/// What the members of a group share.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub verdict: Option<Verdict>,
    pub workload: String,
    pub direction: Direction,
    pub endpoints: Endpoints,
    pub program: Option<String>,
    /// Number among the processes of one owner that run this program; other pods of the workload have the same numbers.
    pub process: usize,
    pub path: Arc<Path>,
    pub keepalive: Keepalive,
    pub cause: Option<Cause>,
    pub seconds: Option<u64>,
}

/// The numbers of the processes, by owner and program.
#[derive(Default)]
pub(super) struct Processes(HashMap<(Arc<Owner>, String), Vec<u32>>);

impl Processes {
    fn number(&mut self, owner: &Arc<Owner>, holder: &Holder) -> usize {
        let pids = self.0.entry((Arc::clone(owner), holder.program().to_owned())).or_default();
        pids.iter().position(|pid| *pid == holder.pid).unwrap_or_else(|| {
            pids.push(holder.pid);
            pids.len() - 1
        })
    }
}

/// Joins the groups that differ only in what `without` takes away, where there are more than a few.
pub(super) fn fold(groups: BTreeMap<Key, Group>, without: impl Fn(&Key) -> Key) -> BTreeMap<Key, Group> {
    let mut counts: BTreeMap<Key, usize> = BTreeMap::new();
    for key in groups.keys() {
        *counts.entry(without(key)).or_default() += 1;
    }
    let mut folded: BTreeMap<Key, Group> = BTreeMap::new();
    for (key, group) in groups {
        let joined = without(&key);
        let is_joined = counts.get(&joined).is_some_and(|count| *count > MAX_APART);
        let key = if is_joined { joined } else { key };
        match folded.get_mut(&key) {
            Some(other) => other.join(group),
            None => drop(folded.insert(key, group)),
        }
    }
    folded
}

impl Key {
    pub fn of(finding: &Finding, split: Split, processes: &mut Processes) -> Self {
        let cause = Cause::of(finding);
        let holder = finding.holder.as_deref();
        Self {
            verdict: (split.verdicts || cause.is_none()).then_some(finding.verdict),
            workload: workload::of(&finding.owner),
            direction: finding.direction,
            endpoints: Endpoints::One(finding.endpoint()),
            program: holder.map(|holder| holder.program().to_owned()),
            process: holder.map_or(0, |holder| processes.number(&finding.owner, holder)),
            path: Arc::clone(&finding.path),
            keepalive: finding.keepalive,
            cause,
            seconds: seconds(finding, cause),
        }
    }
}
