//! The claim behind the program: this connection breaks on its next use, that one does not. Each test compares the
//! claim with what happens, for each of two hundred connections and for both of its ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::harm;
use crate::support::binary::{Agent, Row, run};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::router::{Behaviour, INSIDE, LIMIT, OUTSIDE, Router};
use crate::support::socket::{Id, Keepalive};

/// From the last traffic to the moment at which the verdicts are frozen: the router has dropped whatever it will drop,
/// and the agents have watched it.
const IDLE: Duration = Duration::from_secs(17);
/// Some connections are used this long after the start: each time before the limit.
const RECENT: [Duration; 3] = [Duration::from_secs(6), Duration::from_secs(11), Duration::from_secs(16)];
/// The verdicts that say that the next use breaks.
const BREAKS: [&str; 3] = ["overdue", "blackholed", "unanswered"];

/// An agent, and the sockets that it said will break.
struct Watcher {
    sees: &'static str,
    agent: Agent,
    breaks: BTreeSet<Id>,
}

impl Watcher {
    /// Agents that see one host, the other, and both: the two ends are on one node or on two.
    fn all() -> Vec<Self> {
        let rules = ["--idle-timeout", "10s", "--long-lived", "1s", "--interval", "250ms", "--watch-ends"];
        let one = |sees, port, folders: &[&str]| {
            let folders: Vec<_> = folders.iter().flat_map(|folder| ["--netns-dir", *folder]).collect();
            Self { sees, agent: Agent::start_on(port, &[&rules[..], &folders].concat()), breaks: BTreeSet::new() }
        };
        vec![one("inside", 9001, &[INSIDE]), one("outside", 9002, &[OUTSIDE]), one("both", 9003, &[INSIDE, OUTSIDE])]
    }

    /// Adds what will break now. A socket that is gone later keeps this claim: its own late probe has met the router.
    fn ask(&mut self) {
        let report = self.agent.report_of(&format!("?verdict={}", BREAKS.join(",")));
        self.breaks.extend(report.connections.iter().map(Row::id));
    }

    /// Freezes the verdicts: those of the first sweep that begins after this call.
    fn freeze(&mut self) {
        let mut before = self.agent.report().sweep.started_at;
        for _ in 0..2 {
            let next = self.agent.wait(Duration::from_secs(30), |report| report.sweep.started_at > before);
            let report = next.expect("the agent goes on");
            before.clone_from(&report.sweep.started_at);
            for row in &report.connections {
                if BREAKS.contains(&&*row.verdict) {
                    self.breaks.insert(row.id())
                } else {
                    self.breaks.remove(&row.id())
                };
            }
        }
    }
}

/// The crowd lives for a while, the verdicts are frozen, and every connection is used. Returns which were answered.
fn play(crowd: &mut Crowd, watchers: &mut [Watcher]) -> Vec<bool> {
    let start = Instant::now();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for watcher in &mut *watchers {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    watcher.ask();
                    thread::sleep(Duration::from_millis(500));
                }
            });
        }
        crowd.live(RECENT.map(|after| start + after), start + IDLE);
        done.store(true, Ordering::Relaxed);
    });
    thread::scope(|scope| watchers.iter_mut().for_each(|watcher| drop(scope.spawn(|| watcher.freeze()))));
    crowd.use_all()
}

/// Compares each claim with what happened, and prints both by kind.
fn compare(checks: &mut Checks, behaviour: Behaviour, crowd: &Crowd, watchers: &[Watcher], answered: &[bool]) {
    // By kind: connections, broken ones, and what each agent said would break.
    let mut table: BTreeMap<usize, (&str, Vec<usize>)> = BTreeMap::new();
    let mut first_of = BTreeMap::new();
    for (position, (member, answered)) in crowd.0.iter().zip(answered).enumerate() {
        let row = *first_of.entry(member.kind).or_insert(position);
        let (_, counts) = table.entry(row).or_insert_with(|| (member.kind, vec![0; 2 + watchers.len()]));
        counts[0] += 1;
        counts[1] += usize::from(!answered);
        let connection = &member.connection;
        for (watcher, count) in watchers.iter().zip(&mut counts[2..]) {
            let ends = [("client", &connection.client), ("server", &connection.server)];
            for (end, socket) in ends {
                let seen = harm::sees(watcher.sees, socket);
                let breaks = watcher.breaks.contains(&socket.id);
                *count += usize::from(seen && breaks);
                checks.that(!seen || breaks != *answered, || {
                    let (said, was) =
                        (if breaks { "breaks" } else { "holds" }, if *answered { "held" } else { "broke" });
                    format!("{}, its {end}, by the agent that sees {}: {said}, and it {was}", member.kind, watcher.sees)
                });
            }
        }
    }
    println!("{behaviour}");
    println!(
        "{:<46}{:>6}{:>7}{:>16}{:>16}{:>16}",
        "KIND", "CONNS", "BROKE", "INSIDE SAID", "OUTSIDE SAID", "BOTH SAID"
    );
    for (kind, counts) in table.values() {
        let [all, broke, inside, outside, both] = counts[..] else { continue };
        println!("{kind:<46}{all:>6}{broke:>7}{inside:>16}{outside:>16}{:>16}", both / 2);
    }
    let broke = answered.iter().filter(|answered| !**answered).count();
    checks.that((60..=140).contains(&broke), || {
        format!("{broke} of {} broke: the scene is not what it says", answered.len())
    });
}

fn predict(behaviour: Behaviour) {
    let router = Router::new(behaviour, LIMIT);
    let mut watchers = Watcher::all();
    let mut crowd = Crowd::of_all_kinds(&router);
    let answered = play(&mut crowd, &mut watchers);
    let mut checks = Checks::default();
    compare(&mut checks, behaviour, &crowd, &watchers, &answered);
    harm::compare(&mut checks, crowd, watchers.iter().map(|watcher| (watcher.sees, &watcher.agent)));

    // The same with the remedy: nothing breaks, and nothing is said to.
    for watcher in &mut watchers {
        watcher.breaks.clear();
    }
    let mut crowd = Crowd::of_one_kind(&router, remedy());
    let answered = play(&mut crowd, &mut watchers);
    checks.that(answered.iter().all(|answered| *answered), || format!("broken in spite of the remedy: {answered:?}"));
    for watcher in &watchers {
        let own = |id: &&Id| {
            crowd.0.iter().any(|member| member.connection.client.id == **id || member.connection.server.id == **id)
        };
        let breaks = watcher.breaks.iter().filter(own).count();
        checks.equal("flagged in spite of the remedy", breaks, 0);
    }
    println!("with the remedy: {} connections, {} broke", answered.len(), answered.iter().filter(|it| !**it).count());
    checks.finish();
}

/// The keepalive that the program proposes for this limit.
fn remedy() -> Keepalive {
    let text = run(&["remedy", "python", "--idle-timeout", &format!("{LIMIT}s")]).stdout;
    let option = |name: &str| {
        let value =
            text.lines().find_map(|line| line.trim().split_once(&format!("socket.{name}, "))?.1.strip_suffix("),"));
        value.and_then(|value| value.parse().ok()).expect("the remedy names the option")
    };
    Keepalive::IdleThenEvery(option("TCP_KEEPIDLE"), option("TCP_KEEPINTVL"))
}

kernel_test!(
    every_break_is_predicted_and_nothing_else_where_the_router_drops_what_it_does_not_know,
    || predict(Behaviour::Silent),
    needs "nft"
);

kernel_test!(
    every_break_is_predicted_and_nothing_else_where_the_router_resets_what_it_does_not_know,
    || predict(Behaviour::Reset),
    needs "nft"
);

kernel_test!(
    every_break_is_predicted_and_nothing_else_where_another_backend_gets_what_the_router_does_not_know,
    || predict(Behaviour::AnotherBackend),
    needs "nft"
);
