//! Heartbeats of an application, as small and regular as HTTP/2 PING frames, next to a pool with the same period. What
//! PING frames are worth depends on the middlebox.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::hosts::{Case, Hosts, LATE, LIMIT, RULES, agent, exchange_all};
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::recording::Recording;
use crate::support::socket::Keepalive;
use crate::support::timeline::{SocketTimeline, check_all, expect_all, record_for, record_until_expected};

const PERIOD: Duration = Duration::from_millis(500);

/// Threads that exchange data on these connections until this value is dropped.
struct Exchanges {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchanges {
    /// Sends `there` bytes from the near end in each period, and then `back` bytes from the far end.
    fn start(cases: &[Case], there: usize, back: usize) -> Self {
        let clone = |stream: &TcpStream| stream.try_clone().expect("a stream can be cloned");
        let mut ends: Vec<_> = cases.iter().map(|case| (clone(&case.near.stream), clone(&case.far.stream))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                for (near, far) in &mut ends {
                    send(near, far, there);
                    send(far, near, back);
                }
                next += PERIOD;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Exchanges {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the exchanges end");
        }
    }
}

fn send(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    from.write_all(&[0; 32][..bytes]).expect("one end writes");
    to.read_exact(&mut [0; 32][..bytes]).expect("the peer reads");
}

kernel_test!(heartbeats_protect_while_they_come_and_a_regular_pool_is_exposed, || {
    let hosts = Hosts::new();
    let pings: Vec<_> =
        [(Keepalive::Off, "off"), (LATE, "late")].map(|(near, is)| (hosts.four(near, Keepalive::Off), is)).into();
    let pool = hosts.four(Keepalive::Off, Keepalive::Off);
    let one_way = hosts.four(Keepalive::Off, Keepalive::Off);

    let beats: Vec<_> = pings.iter().map(|(cases, _)| Exchanges::start(cases, 17, 17)).collect();
    let _polls = Exchanges::start(&pool, 22, 9);
    let _pushes = Exchanges::start(&one_way, 17, 0);
    let mut of_pings: Vec<Vec<SocketTimeline>> = pings
        .iter()
        .map(|(cases, is)| {
            let timeline = |case: &Case| SocketTimeline::new(&case.name, &case.near, is, "app_protected");
            cases.iter().map(timeline).collect()
        })
        .collect();
    let never = |case: &Case| {
        SocketTimeline::new(&case.name, &case.near, "off", "exposed").never(&["app_protected", "peer_protected"])
    };
    let mut of_others: Vec<_> = pool.iter().chain(&one_way).map(never).collect();

    let start = Instant::now();
    let recording = Recording::start("heartbeats", Some("10s"), &RULES);
    let agent = agent();
    let mut checks = Checks::default();
    for timelines in &mut of_pings {
        record_until_expected(&agent, timelines, || ());
        check_all(&*timelines, &mut checks, start);
        let why = &timelines[0].last().expect("a row").why;
        checks.that(why.contains("HTTP/2 PING frames came at most"), || why.clone());
    }
    record_for(&agent, &mut of_others, Duration::from_secs(5), || ());
    check_all(&of_others, &mut checks, start);
    recording.finish();

    drop(beats);
    for (timelines, (_, is)) in of_pings.iter_mut().zip(&pings) {
        expect_all(timelines, is, "overdue");
        record_until_expected(&agent, timelines, || ());
        check_all(&*timelines, &mut checks, start);
    }
    checks.finish();
});

kernel_test!(http2_pings_do_not_protect_where_a_middlebox_reads_http2, || {
    let hosts = Hosts::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let path =
        "paths:\n  - {name: gateway, idle_timeout: 4s, reads_http2: true}\nlocal_scope: namespace\nlong_lived: 1s\n";
    fs::write(&file, path).expect("a file");
    let mut pings = hosts.four(Keepalive::Off, Keepalive::Off);
    let websockets = hosts.four(Keepalive::Off, Keepalive::Off);
    let _beats = Exchanges::start(&pings, 17, 17);
    let _pings = Exchanges::start(&websockets, 6, 2);
    let timeline = |verdict| move |case: &Case| SocketTimeline::new(&case.name, &case.near, "off", verdict);
    let never = &["app_protected", "blackholed", "unanswered"];
    let mut of_pings: Vec<_> = pings.iter().map(timeline("overdue")).map(|timeline| timeline.never(never)).collect();
    let mut of_websockets: Vec<_> = websockets.iter().map(timeline("app_protected")).collect();

    let start = Instant::now();
    let agent = Agent::start(&["--config", file.to_str().expect("a path in UTF-8"), "--interval", "250ms"]);
    let mut checks = Checks::default();
    record_until_expected(&agent, &mut of_pings, || ());
    check_all(&of_pings, &mut checks, start);
    checks.that(start.elapsed() >= LIMIT, || format!("overdue after {:?}", start.elapsed()));
    for timeline in &of_pings {
        let row = timeline.last().expect("a row");
        checks.equal("reads_http2", row.reads_http2, true);
        checks.equal("refreshed_by", &*row.refreshed_by, "payload");
        checks.that(row.why.contains("nothing but HTTP/2 PING frames"), || row.why.clone());
        checks.that(row.request_idle_seconds >= Some(4.0), || format!("{row:?}"));
        checks.that(row.request_idle_seconds > row.data_idle_seconds, || format!("{row:?}"));
    }
    record_until_expected(&agent, &mut of_websockets, || ());
    check_all(&of_websockets, &mut checks, start);

    // a call, among PINGs that go on
    exchange_all(&mut pings);
    expect_all(&mut of_pings, "off", "exposed");
    record_until_expected(&agent, &mut of_pings, || ());
    expect_all(&mut of_pings, "off", "overdue");
    record_until_expected(&agent, &mut of_pings, || ());
    check_all(&of_pings, &mut checks, start);
    checks.finish();
});
