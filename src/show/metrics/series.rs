//! Series by connection and pod: their number is bounded here and nowhere else.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::exposition::{Values, family, float, seconds};
use super::families::{self, Family};
use super::{Detail, Limits};
use crate::judge::report::{Direction, PodCounters, Report, Tally};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Owner, OwnerKind};

/// Reads one counter of a pod.
type Read = fn(&PodCounters) -> Option<u64>;

/// Namespace, pod, container.
type OwnerLabels = [String; 3];

/// Makes the series, the worst first: when the limit is reached, those that matter least are dropped.
pub(super) struct Series<'a> {
    report: &'a Report,
    limits: Limits,
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
        let mut flagged = Vec::new();
        let mut idle_max = Vec::new();
        for ((owner, direction), tally) in &tallies {
            for ((endpoint, path, verdict), count) in self.top_endpoints(tally) {
                let mut values = owner_values(owner, *direction);
                values.extend([endpoint, path, verdict.name().to_owned()]);
                self.push(&mut flagged, values, count);
            }
            if let Some(idle) = tally.flagged_wire_idle_max {
                self.push(&mut idle_max, owner_values(owner, *direction), seconds(idle));
            }
        }
        let mut connections = Vec::new();
        for verdict in Verdict::ALL {
            for ((owner, direction), tally) in &tallies {
                for keepalive in Keepalive::ALL {
                    let count = tally.counts[keepalive as usize][verdict as usize];
                    if count > 0 {
                        let mut values = owner_values(owner, *direction);
                        values.extend([keepalive.name().to_owned(), verdict.name().to_owned()]);
                        self.push(&mut connections, values, float(count));
                    }
                }
            }
        }
        let mut families = vec![
            family(&families::CONNECTIONS, connections),
            family(&families::FLAGGED_CONNECTIONS, flagged),
            family(&families::FLAGGED_WIRE_IDLE_SECONDS_MAX, idle_max),
        ];
        families.extend(self.pods());
        (families, self.dropped)
    }

    fn push(&mut self, series: &mut Vec<(Values, f64)>, values: Values, value: f64) {
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
        for ((owner, direction), tally) in &self.report.tallies {
            tallies.entry((self.owner(owner), *direction)).or_default().add(tally.clone());
        }
        tallies
    }

    fn owner(&self, owner: &Owner) -> OwnerLabels {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let [namespace, pod, container] = match owner.kind {
            // a pod without a known name is identified by its uid
            OwnerKind::Pod => [
                text(&owner.namespace),
                owner.pod.clone().unwrap_or_else(|| text(&owner.pod_uid)),
                text(&owner.container),
            ],
            _ => [String::new(), String::new(), text(&owner.container)],
        };
        match self.limits.detail {
            Detail::Container => [namespace, pod, container],
            Detail::Pod => [namespace, pod, String::new()],
            Detail::Namespace => [namespace, String::new(), String::new()],
        }
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

    fn pods(&mut self) -> Vec<MetricFamily> {
        let pods: Vec<(Values, PodCounters)> = self
            .report
            .pods
            .iter()
            .map(|(owner, counters)| {
                let pod = owner.pod.clone().or_else(|| owner.pod_uid.clone()).unwrap_or_default();
                (vec![owner.namespace.clone().unwrap_or_default(), pod], *counters)
            })
            .collect();
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

fn owner_values(owner: &OwnerLabels, direction: Direction) -> Values {
    owner.iter().cloned().chain([direction.name().to_owned()]).collect()
}
