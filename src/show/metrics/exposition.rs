//! Series in the prometheus crate's types.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::families::{Family, Kind};
use crate::judge::report::Millis;

/// The values of a series' labels, in the order of its family's names.
pub type Values = Vec<String>;

/// A family of gauges or counters.
pub fn family(family: &Family, series: Vec<(Values, f64)>) -> MetricFamily {
    let metrics = series.into_iter().map(|(values, value)| with_value(labelled(family, values), family.kind, value));
    with_metrics(family, metrics.collect())
}

/// A family of one series without labels whose name does not start with our prefix.
pub fn gathered(name: &str, kind: Kind, help: &str, value: f64) -> MetricFamily {
    named(name.to_owned(), kind, help, vec![with_value(Metric::default(), kind, value)])
}

fn with_value(mut metric: Metric, kind: Kind, value: f64) -> Metric {
    if kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// One series of a histogram.
pub struct Buckets<'a> {
    /// The values of its labels.
    pub values: Values,
    /// How many fell into each bucket, not cumulated: one more than there are bounds.
    pub counts: &'a [u64],
    /// The upper bounds.
    pub bounds: &'a [f64],
    /// The sum of what was counted.
    pub sum: f64,
}

/// A family of histograms.
pub fn histogram(family: &Family, series: Vec<Buckets<'_>>) -> MetricFamily {
    let metrics = series.into_iter().map(|series| {
        let mut cumulated = 0;
        let buckets = series.bounds.iter().zip(series.counts).map(|(&bound, count)| {
            cumulated += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(cumulated);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(series.counts.iter().sum());
        histogram.set_sample_sum(series.sum);
        let mut metric = labelled(family, series.values);
        metric.set_histogram(histogram);
        metric
    });
    with_metrics(family, metrics.collect())
}

fn with_metrics(family: &Family, metrics: Vec<Metric>) -> MetricFamily {
    named(family.full_name(), family.kind, family.help, metrics)
}

fn named(name: String, kind: Kind, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut gathered = MetricFamily::default();
    gathered.set_name(name);
    gathered.set_help(help.to_owned());
    gathered.set_field_type(match kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    gathered.set_metric(metrics);
    gathered
}

fn labelled(family: &Family, values: Values) -> Metric {
    debug_assert_eq!(family.labels.len(), values.len(), "labels of {}", family.name);
    let pairs = family.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

/// A count as Prometheus takes it.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Milliseconds in seconds.
pub fn seconds(span: Millis) -> f64 {
    span.as_secs_f64()
}
