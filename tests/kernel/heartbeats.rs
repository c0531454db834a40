//! Heartbeats of an application, as small and regular as HTTP/2 PING frames, next to a pool with the same period.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::hosts::{Case, Hosts, LATE, RULES, agent};
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
