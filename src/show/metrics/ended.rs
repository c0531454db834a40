//! Series of flagged connections that ended.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::Detail;
use super::exposition::{family, float};
use super::families::{self, Family};
use super::series::{OwnerLabels, Series};
use crate::judge::report::{Direction, Outcome, Outcomes, Tally};
use crate::judge::verdict::Verdict;

/// The family as `--metrics-detail workload` labels it.
const BY_WORKLOAD: Family = Family {
    labels: &["namespace", "pod", "container", "direction", "outcome", "workload"],
    ..families::FLAGGED_CONNECTIONS_ENDED_TOTAL
};

impl Series<'_> {
    /// Every outcome of each owner that has or had flagged connections. The zeros let Prometheus see the first rise.
    ///
    /// Pods that are gone stay in the sums of their workload or namespace, because a counter must not fall.
    pub(super) fn ended(&mut self) -> MetricFamily {
        let keeps_gone = matches!(self.limits.detail, Detail::Workload | Detail::Namespace);
        let mut counts: BTreeMap<(OwnerLabels, Direction), Outcomes> = BTreeMap::new();
        for ((owner, direction), ended) in &self.report.totals.ended.owners {
            if keeps_gone || !ended.is_gone {
                let sums = counts.entry((self.owner(owner), *direction)).or_default();
                sums.iter_mut().zip(ended.outcomes).for_each(|(sum, more)| *sum += more);
            }
        }
        for ((owner, direction), _) in self.report.tallies.iter().filter(|(_, tally)| is_flagged(tally)) {
            counts.entry((self.owner(owner), *direction)).or_default();
        }
        let mut series = Vec::new();
        for ((owner, direction), outcomes) in counts {
            for (outcome, count) in Outcome::ALL.into_iter().zip(outcomes) {
                let values = self.values(&owner, direction, [outcome.name().to_owned()]);
                self.push(&mut series, values, float(count));
            }
        }
        family(&self.labelled(&families::FLAGGED_CONNECTIONS_ENDED_TOTAL, &BY_WORKLOAD), series)
    }
}

fn is_flagged(tally: &Tally) -> bool {
    let flagged = Verdict::ALL.into_iter().filter(|verdict| verdict.flagged());
    flagged.into_iter().any(|verdict| tally.counts.iter().any(|counts| counts[verdict as usize] > 0))
}
