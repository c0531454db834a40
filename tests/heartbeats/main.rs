//! Judges recorded heartbeats and pools of real programs, from their `tcp_info`, at every interval of an agent.
//!
//! `measured.tsv` was recorded on Linux 6.18 between two network namespaces, a sample each second: grpcio 1.85,
//! `RabbitMQ` 3.10 with pika 1.4, mosquitto 2.0 with paho-mqtt 2.2, websockets 17, `OpenSSH` 9.2, Redis 7.0,
//! `PostgreSQL` 15 with psycopg and pgbench,
//! nginx 1.22 with requests. A line is a sample that differs from the one before: series, milliseconds, segments sent
//! with payload, bytes sent, bytes received, segments sent, segments received, and the milliseconds since payload last
//! moved.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use keepalive_auditor::judge::memory::heartbeat::kinds::Protocol;
use keepalive_auditor::judge::memory::heartbeat::{HeartbeatWatch, Heartbeats, Movement, Totals};
use keepalive_auditor::judge::memory::{Millis, Moment};

/// A moment at which something had moved, and the counters then.
#[derive(Clone, Copy)]
struct Sample {
    at: u64,
    segments_sent: u64,
    sent: u64,
    received: u64,
    segments_received: u64,
    moved_at: u64,
}

#[derive(Clone, Default)]
struct Series {
    samples: Vec<Sample>,
    end: u64,
}

fn measured() -> BTreeMap<&'static str, Series> {
    let mut all = BTreeMap::<_, Series>::new();
    // any monotonic clock: the stored value wraps around, and one series must cross that point
    let boot = 65_400_000;
    for line in include_str!("measured.tsv").lines() {
        let mut fields = line.split('\t');
        let series = all.entry(fields.next().unwrap()).or_default();
        let numbers: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
        match numbers[..] {
            [at, segments_sent, sent, received, _, segments_received, idle] => {
                let (at, moved_at) = (boot + at, boot + at - idle);
                series.samples.push(Sample { at, segments_sent, sent, received, segments_received, moved_at });
            }
            [end, _] => series.end = boot + end,
            _ => panic!("{line}"),
        }
    }
    all
}

#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
fn totals(sample: Sample) -> Totals {
    Totals { sent: sample.sent as u16, received: sample.received as u16 }
}

/// An agent with this interval: the heartbeats that it knows of at each of its samples.
fn watch(series: &Series, interval: u64) -> Vec<(u64, Option<Heartbeats>)> {
    let start = series.samples[0].at;
    let sampled = |at: u64| series.samples[series.samples.partition_point(|sample| sample.at <= at) - 1];
    let mut before = sampled(start);
    let mut watch = HeartbeatWatch::new(totals(before));
    let observed = (start..series.end).step_by(usize::try_from(interval).unwrap()).skip(1).map(|at| {
        let now = sampled(at);
        watch.observe(
            totals(now),
            &Movement {
                segments_sent: u8::try_from(now.segments_sent - before.segments_sent).ok(),
                segments_received: u32::try_from(now.segments_received - before.segments_received).unwrap(),
                before: Moment::from_millis(before.moved_at),
                now: Moment::from_millis(now.moved_at),
            },
        );
        before = now;
        (at, watch.heartbeats(Millis::new(at - now.moved_at), Moment::from_millis(at)))
    });
    observed.collect()
}

/// When an agent with this interval first reports that heartbeats refresh the path, how many of its later samples do
/// not, and the protocol.
fn first_refreshed(series: &Series, interval: u64, idle_timeout: Duration) -> Option<(u64, usize, Protocol)> {
    let start = series.samples[0].at;
    let mut found = None;
    for (at, seen) in watch(series, interval) {
        let refreshed = seen.filter(|heartbeats| heartbeats.refresh(idle_timeout));
        match (&mut found, refreshed) {
            (None, Some(heartbeats)) => found = Some((at - start, 0, heartbeats.protocol)),
            (Some((_, exposed, _)), None) => *exposed += 1,
            _ => {}
        }
    }
    found
}

#[test]
fn no_pool_has_heartbeats_at_any_interval_for_any_limit() {
    let pools = ["redis", "postgresql", "pgbench", "http", "echo"];
    let mut judged = 0;
    for (name, series) in measured().iter().filter(|(name, _)| pools.iter().any(|pool| name.starts_with(pool))) {
        for interval in [1, 2, 5, 10, 15, 30, 60] {
            for limit in [3, 5, 10, 20, 60, 120, 350] {
                let found = first_refreshed(series, interval * 1000, Duration::from_secs(limit));
                assert!(found.is_none(), "{name}, every {interval} s, limit {limit} s: {found:?}");
                judged += 1;
            }
        }
    }
    assert!(judged > 900, "{judged}");
}

#[test]
fn real_heartbeats_are_found_and_stay_recognised() {
    // the series, a suitable idle timeout, and the protocol
    let heartbeats = [
        ("grpc-2s", 20, Protocol::Http2),
        ("grpc-10s", 60, Protocol::Http2),
        ("grpc-10s", 350, Protocol::Http2),
        ("grpc-30s", 120, Protocol::Http2),
        ("grpc-60s-server", 350, Protocol::Http2),
        ("grpc-server-20s", 60, Protocol::Http2),
        ("grpc-tls-10s", 60, Protocol::Http2),
        ("amqp-10s", 60, Protocol::Amqp),
        ("amqp-30s", 60, Protocol::Amqp),
        ("amqp-60s-server", 120, Protocol::Amqp),
        ("amqp-consumer-10s-server", 60, Protocol::Amqp),
        ("mqtt-5s", 60, Protocol::Mqtt),
        ("mqtt-tls-5s", 60, Protocol::Mqtt),
        ("mqtt-tls12-5s", 60, Protocol::Mqtt),
        ("websocket-5s", 60, Protocol::WebSocket),
        ("websocket-server-20s", 60, Protocol::WebSocket),
        ("websocket-server-20s-server", 120, Protocol::WebSocket),
        ("websocket-tls-5s", 60, Protocol::WebSocket),
        ("ssh-5s", 60, Protocol::Ssh),
        ("ssh-15s", 60, Protocol::Ssh),
        ("ssh-30s-server", 120, Protocol::Ssh),
        ("ssh-aes-gcm-10s", 60, Protocol::Ssh),
        ("ssh-client-alive-15s", 120, Protocol::Ssh),
        ("ssh-sha2-512-10s", 60, Protocol::Ssh),
    ];
    let measured = measured();
    for (name, limit, protocol) in heartbeats {
        let idle_timeout = Duration::from_secs(limit);
        for interval in [1, 5, 15].into_iter().filter(|interval| interval * 4 <= limit) {
            let found = first_refreshed(&measured[name], interval * 1000, idle_timeout);
            let (after, exposed, kind) =
                found.unwrap_or_else(|| panic!("{name}, every {interval} s, limit {limit} s: not found"));
            assert_eq!((exposed, kind), (0, protocol), "{name}, every {interval} s, limit {limit} s");
            assert!(after >= limit * 1000, "{name}: watched for {after} ms only");
        }
    }
}

#[test]
fn pings_between_calls_count_but_calls_do_not() {
    let measured = measured();
    // a call every 25 s, a ping in the 10th and 20th second after each
    let found = first_refreshed(&measured["grpc-10s-call-25s"], 1000, Duration::from_mins(1));
    assert!(found.is_some_and(|(after, exposed, _)| after > 100_000 && exposed == 0), "{found:?}");
}

/// When payload that is not a PING of this size last moved before each moment at which payload moved.
fn others(series: &Series, size: u64) -> Vec<(u64, u64)> {
    let mut last = series.samples[0].moved_at;
    let mut all = vec![(series.samples[0].at, last)];
    for pair in series.samples.windows(2) {
        let [before, now] = pair else { continue };
        let (sent, received) = (now.sent - before.sent, now.received - before.received);
        let is_pings = sent == size * (now.segments_sent - before.segments_sent) && received % size == 0;
        if !is_pings {
            last = now.moved_at;
        }
        all.push((now.at, last));
    }
    all
}

/// A middlebox that reads HTTP/2 itself does not count PING frames. For it a connection is idle since its last call.
#[test]
fn the_time_since_other_payload_is_never_too_long_and_soon_exact() {
    let measured = measured();
    for (name, size, has_calls) in [
        ("grpc-2s", 17, false),
        ("grpc-10s", 17, false),
        ("grpc-30s", 17, false),
        ("grpc-60s-server", 17, false),
        ("grpc-server-20s", 17, false),
        ("grpc-tls-10s", 39, false),
        ("grpc-10s-call-25s", 17, true),
    ] {
        let series = &measured[name];
        let others = others(series, size);
        for interval in [1_000, 5_000, 15_000] {
            let mut longest = 0;
            for (at, seen) in watch(series, interval) {
                let Some(seen) = seen else { continue };
                let (_, last) = others[others.partition_point(|(moved, _)| *moved <= at) - 1];
                let (truth, known) = (at - last, seen.other_ago.get());
                assert!(known <= truth, "{name}, every {interval} ms: {known} ms, but it was {truth} ms");
                assert!(seen.other_ago >= seen.ago.saturating_sub(Millis::from_secs(1)), "{name}: {seen:?}");
                longest = longest.max(known);
            }
            let length = series.end - series.samples[0].at;
            if has_calls {
                assert!((5_000..=25_000).contains(&longest), "{name}, every {interval} ms: {longest} ms");
            } else {
                // the first beat and the last sample: a gap of 60 s at most
                assert!(longest + 62_000 + 2 * interval > length, "{name}: {longest} ms of {length} ms");
            }
        }
    }
}

#[test]
fn a_call_among_pings_starts_the_time_since_other_payload_again() {
    // a PING each 5 s, and a call in the 303rd second
    let mut series = beats((5_000..600_000).step_by(5_000), 17, 600_000);
    let call = series.samples.partition_point(|sample| sample.at < 303_000);
    let before = series.samples[call - 1];
    let of_call = Sample { at: 303_000, sent: before.sent, moved_at: 303_000, ..before };
    series.samples.insert(call, of_call);
    for sample in &mut series.samples[call..] {
        (sample.segments_sent, sample.sent) = (sample.segments_sent + 1, sample.sent + 200);
        (sample.segments_received, sample.received) = (sample.segments_received + 1, sample.received + 90);
    }
    let known = |interval, at| {
        let observed = watch(&series, interval);
        observed.iter().rfind(|(sampled, _)| *sampled <= at).and_then(|(_, seen)| *seen).unwrap().other_ago.get()
    };
    for interval in [1_000, 5_000, 15_000] {
        assert!((295_000 - interval..=300_000).contains(&known(interval, 300_000)), "{interval}");
        let after = known(interval, 315_000);
        assert!(after <= 12_000 && after + interval >= 11_000, "{interval}: {after}");
        let end = known(interval, 585_000);
        assert!(end <= 282_000 && end + 15_000 >= 282_000, "{interval}: {end}");
    }
}

/// 16 bits of seconds wrap around in 18 hours.
#[test]
fn days_of_pings_are_a_long_time_since_other_payload() {
    let day = 86_400_000;
    let series = beats((30_000..3 * day).step_by(30_000), 17, 3 * day);
    for (at, seen) in watch(&series, 15_000).into_iter().skip(10) {
        let known = seen.unwrap().other_ago.get();
        assert!(known <= at && known + 60_000 >= at.min(32_768_000), "{known} after {at} ms");
    }
}

/// Beats at these moments, each with a segment of this size in both directions.
fn beats(moments: impl IntoIterator<Item = u64>, size: u64, end: u64) -> Series {
    let first = Sample { at: 0, segments_sent: 0, sent: 0, received: 0, segments_received: 0, moved_at: 0 };
    let mut samples = vec![first];
    for at in moments {
        let last = *samples.last().unwrap();
        samples.push(Sample {
            at,
            segments_sent: last.segments_sent + 1,
            sent: last.sent + size,
            received: last.received + size,
            segments_received: last.segments_received + 1,
            moved_at: at,
        });
    }
    Series { samples, end }
}

#[test]
fn a_missed_beat_ends_the_protection_until_beats_were_watched_again() {
    let limit = Duration::from_mins(1);
    let every_5_s = |from: u64, to: u64| (from..to).step_by(5_000);
    let steady = beats(every_5_s(5_000, 600_000), 17, 600_000);
    assert_eq!(first_refreshed(&steady, 1_000, limit), Some((65_000, 0, Protocol::Http2)));
    // no beat for 31 s: exposed after half the limit, until the heartbeats have been watched long enough again
    let missed = beats(every_5_s(5_000, 300_000).chain(every_5_s(326_000, 600_000)), 17, 600_000);
    let (_, exposed, _) = first_refreshed(&missed, 1_000, limit).unwrap();
    assert!((55..=75).contains(&exposed), "{exposed} samples");
    // they end for good
    let ended = beats(every_5_s(5_000, 300_000), 17, 600_000);
    let (_, exposed, _) = first_refreshed(&ended, 1_000, limit).unwrap();
    assert!((270..=275).contains(&exposed), "{exposed} samples");
}

/// Every 105 s a sample falls between a beat and its answer. The answer is no beat of its own.
#[test]
fn a_sample_between_a_beat_and_its_answer_does_not_end_the_protection() {
    let mut series = beats([], 17, 3_600_000);
    for at in (7_000..3_600_000).step_by(7_000) {
        let last = *series.samples.last().unwrap();
        let asked = Sample { at, moved_at: at, segments_sent: last.segments_sent + 1, sent: last.sent + 17, ..last };
        let (received, segments_received) = (last.received + 17, last.segments_received + 1);
        let answered = Sample { at: at + 20, moved_at: at + 20, received, segments_received, ..asked };
        series.samples.extend([asked, answered]);
    }
    let found = first_refreshed(&series, 15_000, Duration::from_mins(5));
    assert!(found.is_some_and(|(after, exposed, _)| after < 330_000 && exposed == 0), "{found:?}");
}

#[test]
fn one_way_and_uneven_beats_are_not_heartbeats() {
    let limit = Duration::from_mins(1);
    let every_5_s = || beats((5_000..600_000).step_by(5_000), 17, 600_000);
    for change in [
        // no answers, only answers, and two answers to each beat
        (|sample: &mut Sample| sample.received = 0) as fn(&mut Sample),
        |sample| (sample.sent, sample.segments_sent) = (0, 0),
        |sample| sample.received *= 2,
        // of other sizes, in two segments, or in large ones kind sizes differ by 2^16
        |sample| sample.received += sample.segments_sent,
        |sample| sample.segments_sent *= 2,
        |sample| {
            (sample.received, sample.segments_received) =
                (sample.received + (sample.segments_sent << 16), 46 * sample.segments_sent);
        },
    ] {
        let mut series = every_5_s();
        series.samples.iter_mut().for_each(change);
        assert_eq!(first_refreshed(&series, 1_000, limit), None);
        assert_eq!(first_refreshed(&series, 15_000, limit), None);
    }
}

/// Numbers between 0 and 1, the same in each run.
fn random(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    f64::from(u32::try_from(*seed >> 32).unwrap()) / f64::from(u32::MAX)
}

/// Random traffic with exactly the size of a heartbeat does not count, from dense to rare.
#[test]
fn random_traffic_of_a_heartbeats_size_is_not_regular() {
    let mut seed = 12;
    for mean_ms in [500.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 40_000.0, 80_000.0] {
        for _ in 0..12 {
            let end = 3_600_000;
            let mut at = 0.0;
            let mut moments = Vec::new();
            while at < 3_600_000.0 {
                at += mean_ms * -(1.0 - random(&mut seed)).max(1e-9).ln();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive time")]
                moments.push(at as u64);
            }
            let series = beats(moments, 17, end);
            for interval in [1_000, 5_000, 15_000] {
                let found = first_refreshed(&series, interval, Duration::from_secs(350));
                assert_eq!(found, None, "{mean_ms} ms on average, every {interval} ms");
            }
        }
    }
}
