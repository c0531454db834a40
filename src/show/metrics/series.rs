//! Series by connection and pod: their number is bounded here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::proto::MetricFamily;

use super::exposition::{Values, family, float, seconds};
use super::families::{self, Family};
use super::{Detail, Limits};
use crate::judge::report::{Direction, PodCounters, Report, Tally};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Owner, OwnerKind};
use crate::show::workload;

/// Reads one counter of a pod.
type Read = fn(&PodCounters) -> Option<u64>;

/// Namespace, pod, container, workload.
pub(super) type OwnerLabels = [String; 4];

/// Makes the series, the worst first: when the limit is reached, those that matter least are dropped.
pub(super) struct Series<'a> {
    pub(super) report: &'a Report,
    pub(super) limits: Limits,
    left: usize,
    dropped: u64,
}

impl<'a> Series<'a> {
    pub fn new(report: &'a Report, limits: Limits) -> Self {
        Self { report, limits, left: limits.max_series, dropped: 0 }
    }

    /// The families, and the number of dropped series.
    pub fn into_families(mut self) -> (Vec<MetricFamily>, u64) {
        let tallies = self.tallies();
        // first: without it nobody knows whose the others are
        let pod_info = self.pod_info();
        let mut flagged = Vec::new();
        let mut idle_max = Vec::new();
        for ((owner, direction), tally) in &tallies {
            for ((endpoint, path, verdict), count) in self.top_endpoints(tally) {
                let values = self.values(owner, *direction, [endpoint, path, verdict.name().to_owned()]);
                self.push(&mut flagged, values, count);
            }
            if let Some(idle) = tally.flagged_wire_idle_max {
                let values = self.values(owner, *direction, []);
                self.push(&mut idle_max, values, seconds(idle));
            }
        }
        let mut connections = Vec::new();
        for verdict in Verdict::ALL {
            for ((owner, direction), tally) in &tallies {
                for keepalive in Keepalive::ALL {
                    let count = tally.counts[keepalive as usize][verdict as usize];
                    if count > 0 {
                        let more = [keepalive.name().to_owned(), verdict.name().to_owned()];
                        let values = self.values(owner, *direction, more);
                        self.push(&mut connections, values, float(count));
                    }
                }
            }
        }
        let mut families = vec![
            family(&self.labelled(&families::CONNECTIONS, &CONNECTIONS), connections),
            family(&self.labelled(&families::FLAGGED_CONNECTIONS, &FLAGGED_CONNECTIONS), flagged),
            family(&self.labelled(&families::FLAGGED_WIRE_IDLE_SECONDS_MAX, &FLAGGED_WIRE_IDLE_SECONDS_MAX), idle_max),
            family(&families::POD_INFO, pod_info),
        ];
        families.push(self.ended());
        families.push(self.half_closed());
        families.extend(self.pods());
        (families, self.dropped)
    }

    pub(super) fn push(&mut self, series: &mut Vec<(Values, f64)>, values: Values, value: f64) {
        if self.left == 0 {
            self.dropped += 1;
        } else {
            self.left -= 1;
            series.push((values, value));
        }
    }

    /// Tallies by the labels that `--metrics-detail` leaves.
    fn tallies(&self) -> BTreeMap<(OwnerLabels, Direction), Tally> {
        let mut tallies: BTreeMap<(OwnerLabels, Direction), Tally> = BTreeMap::new();
        for ((owner, direction), tally) in self.report.tallies.iter() {
            tallies.entry((self.owner(owner), *direction)).or_default().add(tally.clone());
        }
        tallies
    }

    pub(super) fn owner(&self, owner: &Owner) -> OwnerLabels {
        let container = owner.container.clone().unwrap_or_default();
        let [namespace, pod] = if owner.kind == OwnerKind::Pod { pod_names(owner) } else { Default::default() };
        match self.limits.detail {
            Detail::Container => [namespace, pod, container, String::new()],
            Detail::Pod => [namespace, pod, String::new(), String::new()],
            Detail::Workload => {
                let workload = if pod.is_empty() { container } else { self.workload(&pod) };
                [namespace, String::new(), String::new(), workload]
            }
            Detail::Namespace => [namespace, String::new(), String::new(), String::new()],
        }
    }

    fn workload(&self, pod: &str) -> String {
        workload::name(pod, &self.report.node).to_owned()
    }

    /// The values of a connection family's labels: owner, direction, and what the family has besides.
    pub(super) fn values<const N: usize>(
        &self,
        owner: &OwnerLabels,
        direction: Direction,
        more: [String; N],
    ) -> Values {
        let [namespace, pod, container, workload] = owner.clone();
        let mut values = vec![namespace, pod, container, direction.name().to_owned()];
        values.extend(more);
        if self.limits.detail == Detail::Workload {
            values.push(workload);
        }
        values
    }

    /// The family with the labels that its series have at this detail.
    pub(super) fn labelled(&self, family: &Family, with_workload: &Family) -> Family {
        if self.limits.detail == Detail::Workload { *with_workload } else { *family }
    }

    /// Every pod that owns a connection or a network namespace. At namespace detail no series has a pod.
    fn pod_info(&mut self) -> Vec<(Values, f64)> {
        let owners = self.report.tallies.keys().map(|(owner, _)| owner).chain(self.report.pods.keys());
        let pods = owners.filter(|owner| owner.kind == OwnerKind::Pod).map(|owner| pod_names(owner));
        let pods: BTreeSet<_> = pods.filter(|_| self.limits.detail != Detail::Namespace).collect();
        let mut series = Vec::new();
        for [namespace, pod] in pods {
            let workload = self.workload(&pod);
            self.push(&mut series, vec![namespace, pod, workload], 1.0);
        }
        series
    }

    /// The endpoints with the most flagged connections, the rest together as `other`.
    fn top_endpoints(&self, tally: &Tally) -> Vec<((String, String, Verdict), f64)> {
        let mut totals: BTreeMap<_, u64> = BTreeMap::new();
        for ((endpoint, ..), count) in &tally.endpoints {
            if let Some(endpoint) = endpoint {
                *totals.entry(*endpoint).or_default() += count;
            }
        }
        let mut ranked: Vec<_> = totals.into_iter().collect();
        ranked.sort_by_key(|&(endpoint, count)| (std::cmp::Reverse(count), endpoint));
        ranked.truncate(self.limits.top_endpoints);
        let mut series: BTreeMap<(String, String, Verdict), u64> = BTreeMap::new();
        for ((endpoint, path, verdict), count) in &tally.endpoints {
            let named = endpoint.filter(|endpoint| ranked.iter().any(|(top, _)| top == endpoint));
            let name = named.map_or_else(|| "other".to_owned(), |endpoint| endpoint.to_string());
            *series.entry((name, path.name.clone(), *verdict)).or_default() += count;
        }
        series.into_iter().map(|(key, count)| (key, float(count))).collect()
    }

    fn half_closed(&mut self) -> MetricFamily {
        let mut counts: BTreeMap<Values, u64> = BTreeMap::new();
        for ((owner, waits), count) in &self.report.half_closed {
            let [namespace, pod, container, workload] = self.owner(owner);
            let mut values = vec![namespace, pod, container, waits.name().to_owned()];
            if self.limits.detail == Detail::Workload {
                values.push(workload);
            }
            *counts.entry(values).or_default() += count;
        }
        let mut series = Vec::new();
        for (values, count) in counts {
            self.push(&mut series, values, float(count));
        }
        family(&self.labelled(&families::HALF_CLOSED_CONNECTIONS, &HALF_CLOSED_CONNECTIONS), series)
    }

    fn pods(&mut self) -> Vec<MetricFamily> {
        let pods: Vec<(Values, PodCounters)> =
            self.report.pods.iter().map(|(owner, counters)| (pod_names(owner).to_vec(), *counters)).collect();
        let counters: [(&Family, Read); 4] = [
            (&families::POD_TCP_KEEPALIVE_TIME_SECONDS, |pod| pod.tcp_keepalive_time.map(u64::from)),
            (&families::POD_TCP_ESTABLISHED_RESETS_TOTAL, |pod| pod.estab_resets),
            (&families::POD_TCP_ABORT_ON_TIMEOUT_TOTAL, |pod| pod.abort_on_timeout),
            (&families::POD_TCP_KEEPALIVE_PROBES_TOTAL, |pod| pod.keepalive_probes),
        ];
        counters
            .into_iter()
            .map(|(of, read)| {
                let mut series = Vec::new();
                for (values, counters) in &pods {
                    if let Some(value) = read(counters) {
                        self.push(&mut series, values.clone(), float(value));
                    }
                }
                family(of, series)
            })
            .collect()
    }
}

/// Namespace and name of a pod; without a known name it is identified by its uid.
fn pod_names(owner: &Owner) -> [String; 2] {
    let pod = owner.pod.clone().or_else(|| owner.pod_uid.clone());
    [owner.namespace.clone().unwrap_or_default(), pod.unwrap_or_default()]
}

/// The connection families as `--metrics-detail workload` labels them.
const CONNECTIONS: Family = Family {
    labels: &["namespace", "pod", "container", "direction", "keepalive", "verdict", "workload"],
    ..families::CONNECTIONS
};
const FLAGGED_CONNECTIONS: Family = Family {
    labels: &["namespace", "pod", "container", "direction", "endpoint", "path", "verdict", "workload"],
    ..families::FLAGGED_CONNECTIONS
};
const HALF_CLOSED_CONNECTIONS: Family =
    Family { labels: &["namespace", "pod", "container", "state", "workload"], ..families::HALF_CLOSED_CONNECTIONS };
const FLAGGED_WIRE_IDLE_SECONDS_MAX: Family = Family {
    labels: &["namespace", "pod", "container", "direction", "workload"],
    ..families::FLAGGED_WIRE_IDLE_SECONDS_MAX
};

#[cfg(test)]
mod tests;
