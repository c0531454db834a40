//! The soak test: connections of all kinds for a long time, and an agent. It compares every judgement of the agent with
//! the events on the connections.
//!
//! `tests/soak/run [MINUTES]`. Not one wrong `overdue`, and none missed for longer than one interval after the rule
//! allows it.

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod oracle;

use std::env;
use std::time::{Duration, Instant};

use fleet::Fleet;
use oracle::Oracle;
use support::binary::Agent;
use support::isolation;
use support::metrics::Page;

/// The path's idle timeout. It is short, so that many connections outlive it in twenty minutes.
const LIMIT: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_secs(2);

#[test]
fn no_overdue_is_wrong_and_none_is_missed() {
    let minutes = number("SOAK_MINUTES", 20);
    let limit = Duration::from_secs(60 * u64::from(minutes) + 300);
    let path = concat!(module_path!(), "::no_overdue_is_wrong_and_none_is_missed");
    isolation::run_for(limit, path, &[], || soak(Duration::from_secs(60 * u64::from(minutes))));
}

fn soak(span: Duration) {
    isolation::allow_many_files();
    let connections = number("SOAK_CONNECTIONS", 2000);
    let mut fleet = Fleet::new(connections, u64::from(number("SOAK_SEED", 1)));
    let rules = ["--local-scope", "namespace", "--idle-timeout", "20s", "--long-lived", "5s", "--interval", "2s"];
    let agent = Agent::start(&rules);
    let mut oracle = Oracle::new();
    let start = Instant::now();
    let before = Usage::of(&agent);
    let (mut asked, mut reported) = (Instant::now(), Instant::now());
    while start.elapsed() < span {
        fleet.run_due();
        if asked.elapsed() > Duration::from_millis(700) {
            asked = Instant::now();
            oracle.check(&agent.report(), &fleet);
        }
        if reported.elapsed() > Duration::from_mins(1) {
            reported = Instant::now();
            println!("{:>5} s: {oracle}", start.elapsed().as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let after = Usage::of(&agent);
    println!("soak: {} s, {connections} connections ({fleet}), {oracle}", start.elapsed().as_secs());
    println!(
        "agent: {:.2} s of CPU, {:.1} MiB at first, {:.1} MiB at the end, {} connections tracked",
        after.cpu - before.cpu,
        before.memory / 1_048_576.0,
        after.memory / 1_048_576.0,
        after.tracked
    );
    oracle.finish();
}

/// The resources that the agent used.
struct Usage {
    cpu: f64,
    memory: f64,
    tracked: f64,
}

impl Usage {
    fn of(agent: &Agent) -> Self {
        let page = Page::read(&agent.page("/metrics"));
        let one = |name| page.of(name).next().map_or(f64::NAN, |sample| sample.value);
        Self {
            cpu: one("process_cpu_seconds_total"),
            memory: one("process_resident_memory_bytes"),
            tracked: one("keepalive_auditor_tracked_connections"),
        }
    }
}

fn number(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}
