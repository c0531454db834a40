//! The limit of a path, measured: it lies between the longest idle time that was survived and the shortest that broke.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::binary::{Agent, Report, command};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::metrics::Page;
use crate::support::recording::Recording;
use crate::support::router::{Behaviour, From, INSIDE, OUTSIDE, Router};
use crate::support::socket::{Connection, Keepalive};

/// After how many seconds the router of these scenes drops an idle flow.
const LIMIT: u32 = 8;
/// The idle times after which connections are used, in seconds.
const IDLE: std::ops::RangeInclusive<u64> = 3..=12;
/// As many connections are used after each idle time by their client, and as many by their server.
const OF_EACH: usize = 2;
/// Between two sweeps.
const INTERVAL: f64 = 0.25;

/// An agent that sees one host, and is configured with a wrong limit.
fn agent(port: u16, folder: &str, limit: &str) -> Agent {
    let rules = ["--long-lived", "1s", "--interval", "250ms", "--idle-timeout", limit, "--netns-dir", folder];
    Agent::start_on(port, &rules)
}

/// Connections that are used after different idle times, and one that always is.
struct Pool {
    idle: Vec<(u64, Connection)>,
    busy: Connection,
    /// Every second connection is used by its server, and a new one is opened beside each that is used.
    by_both: bool,
    /// The new ones.
    opened: Vec<Connection>,
}

impl Pool {
    fn new(router: &Router) -> Self {
        Self { by_both: true, ..Self::of(router, &IDLE.flat_map(|idle| [idle; 2 * OF_EACH]).collect::<Vec<_>>()) }
    }

    fn of(router: &Router, idle: &[u64]) -> Self {
        let connect = || router.connect(From::Inside, [Keepalive::Off; 2]);
        let mut pool = Self {
            busy: connect(),
            idle: idle.iter().map(|idle| (*idle, connect())).collect(),
            by_both: false,
            opened: Vec::new(),
        };
        pool.busy.exchange();
        for (_, connection) in &mut pool.idle {
            connection.exchange();
        }
        pool
    }

    /// Uses each connection when its time has come, and the busy one all the time.
    fn use_each(&mut self, router: &Router) {
        let start = Instant::now();
        for second in 0..=IDLE.end() + 2 {
            thread::sleep(Duration::from_secs(second).saturating_sub(start.elapsed()));
            for (number, (_, connection)) in self.idle.iter_mut().enumerate().filter(|(_, (idle, _))| *idle == second) {
                let Connection { client, server } = connection;
                let end = if self.by_both && number % 2 == 1 { server } else { client };
                // it may have been reset
                let _ = end.stream.write_all(b"?");
                // as a pool does whose connection broke
                self.opened.extend(self.by_both.then(|| router.connect(From::Inside, [Keepalive::Off; 2])));
            }
            self.busy.exchange();
        }
    }
}

/// Waits until an agent has measured both bounds.
fn wait_for_bounds(agent: &Agent) -> Value {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let path = agent.report().paths[0].clone();
        let is_known = path["idle_survived_seconds"].is_number() && path["breaks"].as_u64() >= Some(6);
        if is_known || Instant::now() > end {
            return path;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The router's limit lies between both bounds, and they are as close as the idle times that were tried.
fn check_bounds(checks: &mut Checks, who: &str, path: &Value) {
    let (survived, broken) = (path["idle_survived_seconds"].as_f64(), path["idle_broken_seconds"].as_f64());
    let limit = f64::from(LIMIT);
    let near = |bound: Option<f64>, from: f64, to: f64| bound.is_some_and(|bound| (from..=to).contains(&bound));
    checks.that(near(survived, limit - 1.5 - INTERVAL, limit + INTERVAL), || format!("{who}: {path}"));
    checks.that(near(broken, limit - INTERVAL, limit + 1.5 + INTERVAL), || format!("{who}: {path}"));
}

fn measure(behaviour: Behaviour) {
    let router = Router::new(behaviour, LIMIT);
    let agents = [
        ("inside, 60 s configured", agent(9001, INSIDE, "60s"), "limit_too_high"),
        ("inside, 3 s configured", agent(9002, INSIDE, "3s"), "limit_too_low"),
        ("outside, 60 s configured", agent(9003, OUTSIDE, "60s"), "limit_too_high"),
    ];
    let mut audit =
        command(&["audit", "--for", "18s", "--format", "json", "--long-lived", "1s", "--netns-dir", INSIDE]);
    let audit = audit.stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    // it has seen nothing yet; a connection that it does not see from the start is no witness
    thread::sleep(Duration::from_secs(1));
    let mut pool = Pool::new(&router);
    pool.use_each(&router);
    let mut checks = Checks::default();
    for (who, agent, contradiction) in &agents {
        let path = wait_for_bounds(agent);
        println!("{who}: {path}");
        check_bounds(&mut checks, who, &path);
        checks.equal(who, path["contradiction"].as_str(), Some(*contradiction));
        let metrics = Page::read(&agent.page("/metrics"));
        for (name, field) in [("survived", "idle_survived_seconds"), ("broken", "idle_broken_seconds")] {
            let value =
                metrics.of(&format!("keepalive_auditor_path_idle_{name}_seconds")).next().map(|sample| sample.value);
            checks.equal(name, value, path[field].as_f64());
        }
        let advice = path["advice"].as_str().unwrap_or_default();
        checks.that(agent.page("/").contains(&advice.replace('\'', "&#39;")), || {
            format!("{who}: the page lacks {advice}")
        });
    }
    let output = audit.wait_with_output().expect("our child ends");
    let path = Report::read(&String::from_utf8_lossy(&output.stdout)).paths[0].clone();
    println!("audit: {path}");
    check_bounds(&mut checks, "audit --for", &path);
    checks.finish();
}

kernel_test!(
    the_limit_of_a_router_that_drops_is_measured_whatever_is_configured,
    || measure(Behaviour::Silent),
    needs "nft"
);

kernel_test!(
    the_limit_of_a_router_that_resets_is_measured_whatever_is_configured,
    || measure(Behaviour::Reset),
    needs "nft"
);

/// A small scene for a recording, and what an audit says that watched it. A replay says the same.
fn record(case: &str, behaviour: Behaviour) {
    let router = Router::new(behaviour, LIMIT);
    let recording =
        Recording::start(case, Some("16s"), &["--long-lived", "1s", "--idle-timeout", "60s", "--netns-dir", INSIDE]);
    recording.wait_for_sweeps(1);
    Pool::of(&router, &[6, 9, 10, 11]).use_each(&router);
    let path = recording.finish().paths[0].clone();
    let between = |bound: &Value, from: f64, to: f64| bound.as_f64().is_some_and(|bound| (from..=to).contains(&bound));
    assert!(between(&path["idle_survived_seconds"], 4.5, 8.5), "{path}");
    assert!(between(&path["idle_broken_seconds"], 7.5, 11.0), "{path}");
}

kernel_test!(
    a_replay_measures_the_limit_of_a_router_that_drops,
    || record("limit-silent", Behaviour::Silent),
    needs "nft"
);

kernel_test!(
    a_replay_measures_the_limit_of_a_router_that_resets,
    || record("limit-reset", Behaviour::Reset),
    needs "nft"
);

kernel_test!(
    a_server_that_crashes_is_not_taken_for_a_limit,
    || {
        let router = Router::new(Behaviour::Silent, 3600);
        let agents = [agent(9001, INSIDE, "60s"), agent(9002, INSIDE, "5s")];
        let mut pool = Pool::new(&router);
        let start = Instant::now();
        for second in 1..=6 {
            thread::sleep(Duration::from_secs(second).saturating_sub(start.elapsed()));
            pool.busy.exchange();
        }
        // All at once: the busy connection, too, finds no answer from here on.
        router.outside.run("nft", &["add table inet off"]);
        router.outside.run("nft", &["add chain inet off in { type filter hook input priority 0; policy drop; }"]);
        let _ = pool.busy.client.stream.write_all(b"?");
        for (number, (_, connection)) in pool.idle.iter_mut().enumerate() {
            // Not all at once: each has another idle time.
            thread::sleep(Duration::from_millis(200));
            let _ = connection.client.stream.write_all(&[b'?'; 8][..=number % 8]);
        }
        let hangs = |report: &Report| report.verdicts["blackholed"] + report.verdicts["unanswered"] >= 30;
        let mut checks = Checks::default();
        let found = agents[1].wait(Duration::from_secs(40), hangs);
        checks.that(found.is_ok(), || format!("{:?}", found.map(|report| report.verdicts)));
        // A server that is back answers new connections, and resets the old ones.
        router.outside.run("nft", &["delete table inet off"]);
        router.outside.run("nft", &["add table inet back"]);
        router.outside.run("nft", &["add chain inet back in { type filter hook input priority 0; }"]);
        router.outside.run("nft", &["add rule inet back in ct state established reject with tcp reset"]);
        let new = |report: &Report| report.verdicts["blackholed"] + report.verdicts["unanswered"] == 0;
        let reset = agents[1].wait(Duration::from_mins(1), new);
        checks.that(reset.is_ok(), || format!("{:?}", reset.map(|report| report.verdicts)));
        for agent in &agents {
            let path = agent.report().paths[0].clone();
            checks.that(path["idle_broken_seconds"].is_null() && path["breaks"] == 0, || format!("{path}"));
        }
        checks.finish();
    },
    needs "nft"
);
