//! The cost of the parts without system calls: decode, track, judge, render. `cargo bench --bench parts`.

#[path = "limits/generated.rs"]
mod generated;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::judge::report::Report;
use keepalive_auditor::show::json::Document;
use keepalive_auditor::show::metrics::{SweepDurations, View, text};
use keepalive_auditor::show::table;
use keepalive_auditor::wire::inet_diag::{Message, Messages};

use generated::Node;

const CONNECTIONS: u32 = 20_000;

/// The agent's default configuration.
fn config() -> AgentConfig {
    AgentConfig::new(&Common::default(), &AgentArgs::default(), &ConfigFile::default()).expect("defaults are valid")
}

fn digest() -> Digest {
    Digest::new(Arc::new(config().config.policy))
}

/// The report of a node after some idle minutes.
fn report(node: &Node) -> Report {
    let mut digest = digest();
    for number in 0..40 {
        let sweep = node.sweep(number);
        sweep.records(|record| digest.feed(record));
        digest.feed(&sweep.end());
    }
    digest.report("bench")
}

fn connections(criterion: &mut Criterion) {
    let node = Node::new(1, CONNECTIONS);
    let mut group = criterion.benchmark_group("20000 connections");
    group.throughput(Throughput::Elements(CONNECTIONS.into())).sample_size(20);
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2));

    let sweep = node.sweep(0);
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for message in sweep.datagrams().flat_map(Messages::new) {
                if let Ok(Message::Socket(reply)) = message {
                    black_box(reply.socket().expect("a whole reply"));
                }
            }
        });
    });
    group.bench_function("decode and track, first", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut digest = digest();
            sweep.records(|record| digest.feed(record));
            digest
        });
    });
    group.bench_function("decode and track, steady", |bencher| bencher.iter_custom(|rounds| steady(&node, rounds).0));
    group.bench_function("judge, steady", |bencher| bencher.iter_custom(|rounds| steady(&node, rounds).1));
}

/// The time to decode and track this number of sweeps after the first one, and the time to judge them.
fn steady(node: &Node, rounds: u64) -> (Duration, Duration) {
    let mut digest = digest();
    let (mut looks, mut judgements) = (Duration::ZERO, Duration::ZERO);
    for number in 0..=rounds {
        let sweep = node.sweep(number);
        let start = Instant::now();
        sweep.records(|record| digest.feed(record));
        let looked = Instant::now();
        digest.feed(&sweep.end());
        let judged = Instant::now();
        black_box(digest.report("bench"));
        if number > 0 {
            looks += looked - start;
            judgements += judged - looked;
        }
    }
    (looks, judgements)
}

fn faces(criterion: &mut Criterion) {
    let limits = config().limits;
    let durations = SweepDurations::default();
    let mut group = criterion.benchmark_group("250 pods");
    for each in [4, 40, 400] {
        let report = report(&Node::new(250, each));
        group.bench_function(format!("metrics, {each} connections a pod"), |bencher| {
            bencher.iter(|| text(View::new(Some(&report), &durations, limits)).expect("metrics are gathered"));
        });
    }
    let report = report(&Node::new(250, 40));
    group.throughput(Throughput::Elements(10_000)).sample_size(20);
    group.bench_function("json, 10000 connections", |bencher| {
        let all = || Document { report: &report, findings: || report.findings.iter() };
        bencher.iter(|| serde_json::to_string(&all()).expect("a report is written"));
    });
    group.bench_function("table, 10000 connections", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::new();
            table::write(&mut out, &report, || report.findings.iter(), table::Options::default())
                .expect("a table is written");
            out
        });
    });
}

criterion_group!(parts, connections, faces);
criterion_main!(parts);
