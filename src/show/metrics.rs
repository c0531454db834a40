//! A report as Prometheus metrics: every family is built fresh for each scrape, so that a pod that is gone leaves no series behind.
//!
//! Which series there are, and how many, is decided here and nowhere else. Series of zero are left out.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::judge::report::{Direction, PodCounters, Report, Tally};
use crate::judge::silence::{BUCKETS, Silences};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Owner, OwnerKind};

/// How finely connection metrics are labelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// By namespace, pod and container.
    #[default]
    Container,
    /// By namespace and pod.
    Pod,
    /// By namespace.
    Namespace,
}

/// What bounds the number of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How finely connection metrics are labelled.
    pub detail: Detail,
    /// How many endpoints of a pod get a series of their own; the rest are `other`.
    pub top_endpoints: usize,
    /// How many connection and pod series a scrape holds at most.
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
    /// Builds every family. `report` is absent before the first sweep: then there are only the agent's own metrics.
    #[must_use]
    pub fn new(report: Option<&Report>, durations: &SweepDurations, limits: Limits) -> Self {
        let mut families = vec![build_info()];
        if let Some(report) = report {
            let (connections, dropped) = Series::new(report, limits).into_families();
            families.extend(connections);
            families.extend(own(report, dropped));
        }
        families.push(histogram(
            "sweep_duration_seconds",
            "How long one pass over every network namespace took.",
            vec![(Vec::new(), durations.counts.as_slice(), &SWEEP_BUCKETS[..], durations.sum)],
        ));
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

/// Reads one counter of a pod.
type Read = fn(&PodCounters) -> Option<u64>;
type Labels = Vec<(&'static str, String)>;

/// Series by connection and pod, bounded: the worst come first, so that what is dropped matters least.
struct Series<'a> {
    report: &'a Report,
    limits: Limits,
    left: usize,
    dropped: u64,
}

/// Namespace, pod, container.
type OwnerLabels = [String; 3];

impl<'a> Series<'a> {
    fn new(report: &'a Report, limits: Limits) -> Self {
        Self { report, limits, left: limits.max_series, dropped: 0 }
    }

    fn into_families(mut self) -> (Vec<MetricFamily>, u64) {
        let tallies = self.tallies();
        let mut flagged = Vec::new();
        let mut idle_max = Vec::new();
        for ((owner, direction), tally) in &tallies {
            for ((endpoint, path, verdict), count) in self.top_endpoints(tally) {
                let mut labels = owner_labels(owner, *direction);
                labels.extend([("endpoint", endpoint), ("path", path), ("verdict", verdict.name().to_owned())]);
                self.push(&mut flagged, labels, count);
            }
            if let Some(idle) = tally.flagged_wire_idle_max {
                self.push(&mut idle_max, owner_labels(owner, *direction), seconds(idle));
            }
        }
        let mut connections = Vec::new();
        for verdict in Verdict::ALL {
            for ((owner, direction), tally) in &tallies {
                for keepalive in Keepalive::ALL {
                    let count = tally.counts[keepalive as usize][verdict as usize];
                    if count > 0 {
                        let mut labels = owner_labels(owner, *direction);
                        labels.extend([
                            ("keepalive", keepalive.name().to_owned()),
                            ("verdict", verdict.name().to_owned()),
                        ]);
                        self.push(&mut connections, labels, float(count));
                    }
                }
            }
        }
        let mut families = vec![
            family(
                "connections",
                "Established connections by owner, keepalive state of this end, and verdict.",
                MetricType::GAUGE,
                connections,
            ),
            family(
                "flagged_connections",
                "Connections that are exposed, overdue or blackholed, by service endpoint and path.",
                MetricType::GAUGE,
                flagged,
            ),
            family(
                "flagged_wire_idle_seconds_max",
                "The longest time since the last segment on the wire of a flagged connection.",
                MetricType::GAUGE,
                idle_max,
            ),
        ];
        families.extend(self.pods());
        (families, self.dropped)
    }

    fn push(&mut self, metrics: &mut Vec<(Labels, f64)>, labels: Labels, value: f64) {
        if self.left == 0 {
            self.dropped += 1;
        } else {
            self.left -= 1;
            metrics.push((labels, value));
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
            // a pod whose name nobody told is still told from the others
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
        let pods: Vec<_> = self
            .report
            .pods
            .iter()
            .map(|(owner, counters)| {
                let pod = owner.pod.clone().or_else(|| owner.pod_uid.clone()).unwrap_or_default();
                (vec![("namespace", owner.namespace.clone().unwrap_or_default()), ("pod", pod)], *counters)
            })
            .collect();
        let kinds: [(&str, &str, MetricType, Read); 4] = [
            (
                "pod_tcp_keepalive_time_seconds",
                "net.ipv4.tcp_keepalive_time of the pod's network namespace.",
                MetricType::GAUGE,
                |pod| pod.tcp_keepalive_time.map(u64::from),
            ),
            (
                "pod_tcp_established_resets_total",
                "Established connections of the pod that were reset (EstabResets).",
                MetricType::COUNTER,
                |pod| pod.estab_resets,
            ),
            (
                "pod_tcp_abort_on_timeout_total",
                "Connections of the pod that the kernel gave up after unanswered sends or probes (TCPAbortOnTimeout).",
                MetricType::COUNTER,
                |pod| pod.abort_on_timeout,
            ),
            (
                "pod_tcp_keepalive_probes_total",
                "Keepalive probes that the pod sent (TCPKeepAlive).",
                MetricType::COUNTER,
                |pod| pod.keepalive_probes,
            ),
        ];
        kinds
            .into_iter()
            .map(|(name, help, kind, read)| {
                let mut metrics = Vec::new();
                for (labels, counters) in &pods {
                    if let Some(value) = read(counters) {
                        self.push(&mut metrics, labels.clone(), float(value));
                    }
                }
                family(name, help, kind, metrics)
            })
            .collect()
    }
}

fn owner_labels([namespace, pod, container]: &OwnerLabels, direction: Direction) -> Labels {
    vec![
        ("namespace", namespace.clone()),
        ("pod", pod.clone()),
        ("container", container.clone()),
        ("direction", direction.name().to_owned()),
    ]
}

/// The health of the sweep.
fn own(report: &Report, dropped: u64) -> Vec<MetricFamily> {
    let one = |value: f64| vec![(Vec::new(), value)];
    let by = |label: &'static str, values: Vec<(String, f64)>| -> Vec<(Labels, f64)> {
        values.into_iter().map(|(name, value)| (vec![(label, name)], value)).collect()
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
    // several rules may share a name: the shortest limit is the one to know
    let mut paths: BTreeMap<String, f64> = BTreeMap::new();
    for path in &report.paths {
        let limit = path.idle_timeout.as_secs_f64();
        paths.entry(path.name.clone()).and_modify(|known| *known = known.min(limit)).or_insert(limit);
    }
    let silences = Keepalive::ALL
        .into_iter()
        .zip(&report.totals.silences.0)
        .filter(|(_, silences)| **silences != Silences::default())
        .map(|(keepalive, silences)| {
            (vec![("keepalive", keepalive.name().to_owned())], silences.counts.as_slice(), silences.sum)
        });
    #[expect(clippy::cast_precision_loss, reason = "bucket bounds are small")]
    let bounds: Vec<f64> = BUCKETS.iter().map(|&bound| bound as f64).collect();
    vec![
        histogram(
            "silence_seconds",
            "Silences of long-lived connections of 30 s and more that ended, by their length.",
            silences.map(|(labels, counts, sum)| (labels, counts, bounds.as_slice(), sum)).collect(),
        ),
        family(
            "idle_timeout_seconds",
            "The idle timeout that a path is judged by.",
            MetricType::GAUGE,
            by("path", paths.into_iter().collect()),
        ),
        family(
            "namespaces",
            "Network namespaces of the last sweep, by what became of them.",
            MetricType::GAUGE,
            by("result", namespaces.map(|(name, count)| (name.to_owned(), float(count))).to_vec()),
        ),
        family(
            "namespace_failures_total",
            "Network namespaces, or parts of them, that could not be read.",
            MetricType::COUNTER,
            by("reason", failures),
        ),
        family(
            "owner_troubles_total",
            "Owners that are named less well than they could be, by what went wrong.",
            MetricType::COUNTER,
            by("kind", issues),
        ),
        family("sweeps_total", "Sweeps that ended.", MetricType::COUNTER, one(float(report.totals.sweeps))),
        family(
            "dumps_interrupted_total",
            "Dumps during which the kernel's table changed, or that ended with an error.",
            MetricType::COUNTER,
            one(float(report.totals.dumps_interrupted)),
        ),
        family(
            "last_sweep_timestamp_seconds",
            "When the last sweep began.",
            MetricType::GAUGE,
            one(seconds(report.started_at)),
        ),
        family("tracked_connections", "Connections remembered.", MetricType::GAUGE, one(float(report.tracked))),
        family(
            "series_dropped",
            "Connection and pod series left out of this scrape because of --max-series.",
            MetricType::GAUGE,
            one(float(dropped)),
        ),
    ]
}

fn build_info() -> MetricFamily {
    let revision = option_env!("KEEPALIVE_AUDITOR_BUILD_REVISION").unwrap_or("unknown");
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("revision", revision.to_owned())];
    family("build_info", "The version of this program.", MetricType::GAUGE, vec![(labels, 1.0)])
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<(Labels, f64)>) -> MetricFamily {
    let metrics = metrics
        .into_iter()
        .map(|(labels, value)| {
            let mut metric = Metric::default();
            metric.set_label(pairs(labels));
            if kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        })
        .collect();
    with_metrics(name, help, kind, metrics)
}

/// A histogram from counts that are not cumulated, one more than there are bounds.
fn histogram(name: &str, help: &str, series: Vec<(Labels, &[u64], &[f64], f64)>) -> MetricFamily {
    let metrics = series
        .into_iter()
        .map(|(labels, counts, bounds, sum)| {
            let mut histogram = Histogram::default();
            let mut cumulated = 0;
            let buckets = bounds
                .iter()
                .zip(counts)
                .map(|(&bound, count)| {
                    cumulated += count;
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(bound);
                    bucket.set_cumulative_count(cumulated);
                    bucket
                })
                .collect();
            histogram.set_bucket(buckets);
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(sum);
            let mut metric = Metric::default();
            metric.set_label(pairs(labels));
            metric.set_histogram(histogram);
            metric
        })
        .collect();
    with_metrics(name, help, MetricType::HISTOGRAM, metrics)
}

fn with_metrics(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("keepalive_auditor_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn float(count: u64) -> f64 {
    count as f64
}

fn seconds(ms: u64) -> f64 {
    float(ms) / 1000.0
}

/// The text format of a view, and of the process's own metrics where `process` says so.
pub fn text(view: View, process: bool) -> prometheus::Result<String> {
    let registry = prometheus::Registry::new();
    registry.register(Box::new(view))?;
    if process {
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    }
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}
