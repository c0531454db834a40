//! A report as Prometheus metrics: every family is built from the last report, so series of a pod that is gone end with
//! the next sweep.

pub mod agent;
pub mod families;

mod ended;
mod exposition;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::judge::idle_times::{BUCKETS, IdleTimes};
use crate::judge::report::{LearnedLimit, Millis, Outcome, Path, Report};
use crate::judge::verdict::{Keepalive, Verdict};
use exposition::{Buckets, Values, family, float, histogram, seconds};
use families::Family;
use series::Series;

/// How finely connection metrics are labelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// By namespace, pod and container.
    #[default]
    Container,
    /// By namespace and pod.
    Pod,
    /// By namespace and workload: `pod` and `container` are empty, `workload` is one more label.
    Workload,
    /// By namespace.
    Namespace,
}

impl Detail {
    /// The label's value, as the flag writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Workload => "workload",
            Self::Namespace => "namespace",
        }
    }
}

/// What bounds the number of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How finely connection metrics are labelled.
    pub detail: Detail,
    /// The number of endpoints of a pod with a series of their own; the rest are `other`.
    pub top_endpoints: usize,
    /// The most connection and pod series that a scrape has.
    pub max_series: usize,
}

/// Upper bounds of the sweep duration histogram, seconds.
pub const SWEEP_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long sweeps took, since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepDurations {
    counts: [u64; SWEEP_BUCKETS.len() + 1],
    sum: f64,
}

impl SweepDurations {
    /// Counts one sweep of `seconds`.
    pub fn count(&mut self, seconds: f64) {
        self.counts[SWEEP_BUCKETS.partition_point(|&bound| bound < seconds)] += 1;
        self.sum += seconds;
    }
}

/// The families of one report, as the prometheus crate gathers them.
pub struct View {
    families: Vec<MetricFamily>,
}

impl View {
    /// Builds every family. Without a report, before the first sweep, there are only the agent's own metrics.
    #[must_use]
    pub fn new(report: Option<&Report>, durations: &SweepDurations, limits: Limits) -> Self {
        let detail = vec![limits.detail.name().to_owned()];
        let mut families = vec![build_info(), family(&families::METRICS_DETAIL_INFO, vec![(detail, 1.0)])];
        if let Some(report) = report {
            let (connections, dropped) = Series::new(report, limits).into_families();
            families.extend(connections);
            families.extend(sweep(report, dropped));
        }
        let sweeps = Buckets { values: vec![], counts: &durations.counts, bounds: &SWEEP_BUCKETS, sum: durations.sum };
        families.push(histogram(&families::SWEEP_DURATION_SECONDS, vec![sweeps]));
        families.retain(|family| !family.get_metric().is_empty());
        Self { families }
    }
}

impl Collector for View {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.clone()
    }
}

/// The sweep and its health.
fn sweep(report: &Report, dropped: u64) -> Vec<MetricFamily> {
    let one = |of: &Family, value: f64| family(of, vec![(vec![], value)]);
    let by = |of: &Family, values: Vec<(String, f64)>| {
        family(of, values.into_iter().map(|(label, value)| (vec![label], value)).collect())
    };
    let counts = report.namespaces;
    let namespaces = [
        ("dumped", counts.dumped),
        ("looked_up", counts.looked_up),
        ("skipped", counts.skipped),
        ("empty", counts.empty),
        ("vanished", counts.vanished),
        ("failed", counts.failed),
    ];
    let failures = report.totals.failures.iter().map(|(reason, count)| ((*reason).to_owned(), float(*count))).collect();
    let issues = report.totals.owner_issues.iter().map(|(kind, count)| (kind.clone(), float(*count))).collect();
    let verdicts = Verdict::ALL.into_iter().map(|verdict| (verdict.name().to_owned(), float(report.count(verdict))));
    let ended = Outcome::ALL.into_iter().zip(report.totals.ended.node);
    let outcomes = ended.map(|(outcome, count)| (outcome.name().to_owned(), float(count)));
    vec![
        idle_times(report),
        by(&families::IDLE_TIMEOUT_SECONDS, idle_timeouts(report)),
        by(&families::PATH_IDLE_SURVIVED_SECONDS, learned(report, |learned| learned.survived, Ord::max)),
        by(&families::PATH_IDLE_BROKEN_SECONDS, learned(report, |learned| Some(learned.broken?.0), Ord::min)),
        family(&families::PATH_INFO, path_info(report)),
        by(&families::PATH_READS_HTTP2, reads_http2(report)),
        by(&families::NODE_LIMIT_SECONDS, node_limits(report)),
        by(&families::NODE_CONNECTIONS, verdicts.collect()),
        by(&families::NODE_FLAGGED_CONNECTIONS_ENDED_TOTAL, outcomes.collect()),
        by(&families::NAMESPACES, namespaces.map(|(name, count)| (name.to_owned(), float(count))).to_vec()),
        by(&families::NAMESPACE_FAILURES_TOTAL, failures),
        one(&families::SWEEP_INCOMPLETE, float(report.incomplete.into())),
        one(&families::SWEEP_BLIND, float(report.is_blind.into())),
        one(&families::STALE_NAMESPACES, float(report.stale.namespaces)),
        one(&families::STALE_CONNECTIONS, float(report.stale.connections)),
        one(&families::STALE_AGE_SECONDS, seconds(report.stale.age)),
        by(&families::OWNER_TROUBLES_TOTAL, issues),
        one(&families::SWEEPS_TOTAL, float(report.totals.sweeps)),
        one(&families::DUMPS_INTERRUPTED_TOTAL, float(report.totals.dumps_interrupted)),
        one(&families::LAST_SWEEP_TIMESTAMP_SECONDS, seconds(Millis::new(report.started_at))),
        one(&families::TRACKED_CONNECTIONS, float(report.tracked)),
        one(&families::SERIES_DROPPED, float(dropped)),
    ]
}

/// Several rules may share a name: their series shows the shortest limit.
fn idle_timeouts(report: &Report) -> Vec<(String, f64)> {
    let mut paths: BTreeMap<String, f64> = BTreeMap::new();
    for path in &report.paths {
        let limit = path.idle_timeout.as_secs_f64();
        paths.entry(path.name.clone()).and_modify(|shortest| *shortest = shortest.min(limit)).or_insert(limit);
    }
    paths.into_iter().collect()
}

/// What was measured, by path. Several rules may share a name.
fn learned(
    report: &Report,
    of: impl Fn(&LearnedLimit) -> Option<Millis>,
    stronger: impl Fn(Millis, Millis) -> Millis,
) -> Vec<(String, f64)> {
    let mut paths: BTreeMap<&str, Millis> = BTreeMap::new();
    for (path, learned) in report.paths.iter().zip(&report.learned) {
        if let Some(measured) = of(learned) {
            paths.entry(&path.name).and_modify(|other| *other = stronger(*other, measured)).or_insert(measured);
        }
    }
    paths.into_iter().map(|(name, idle)| (name.to_owned(), idle.as_secs_f64())).collect()
}

/// The idle timeouts of the node's own NAT.
fn node_limits(report: &Report) -> Vec<(String, f64)> {
    let facts = &report.node_limits;
    let kinds = [
        ("conntrack", facts.conntrack),
        ("conntrack_elsewhere", facts.shortest_conntrack_elsewhere),
        ("ipvs", facts.ipvs),
    ];
    kinds.into_iter().filter_map(|(kind, limit)| Some((kind.to_owned(), limit?.as_secs_f64()))).collect()
}

/// One series for each path, for each way in which rules of its name are refreshed.
fn path_info(report: &Report) -> Vec<(Values, f64)> {
    let values =
        |path: &Arc<Path>| [path.name.clone(), path.refreshed_by.name().to_owned(), path.source.name().to_owned()];
    let paths: BTreeSet<_> = report.paths.iter().map(values).collect();
    paths.into_iter().map(|values| (values.to_vec(), 1.0)).collect()
}

/// The paths on which HTTP/2 PING frames do not count.
fn reads_http2(report: &Report) -> Vec<(String, f64)> {
    let paths: BTreeSet<_> =
        report.paths.iter().filter(|path| path.reads_http2).map(|path| path.name.clone()).collect();
    paths.into_iter().map(|name| (name, 1.0)).collect()
}

fn idle_times(report: &Report) -> MetricFamily {
    #[expect(clippy::cast_precision_loss, reason = "bucket bounds are small")]
    let bounds: Vec<f64> = BUCKETS.iter().map(|&bound| bound as f64).collect();
    let series = Keepalive::ALL
        .into_iter()
        .zip(&report.totals.idle_times.0)
        .filter(|(_, idle_times)| **idle_times != IdleTimes::default())
        .map(|(keepalive, idle_times)| Buckets {
            values: Values::from([keepalive.name().to_owned()]),
            counts: &idle_times.counts,
            bounds: &bounds,
            sum: idle_times.sum,
        });
    histogram(&families::SILENCE_SECONDS, series.collect())
}

fn build_info() -> MetricFamily {
    let values = vec![env!("CARGO_PKG_VERSION").to_owned(), env!("KEEPALIVE_AUDITOR_REVISION").to_owned()];
    family(&families::BUILD_INFO, vec![(values, 1.0)])
}

/// The text format of a view.
pub fn text(view: View) -> prometheus::Result<String> {
    let registry = prometheus::Registry::new();
    registry.register(Box::new(view))?;
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}
