//! `just demo`: a router that drops idle connections, an agent that watches them, and what happens when they are used.
//!
//! Everything is real and happens in network namespaces of its own, which end with the program. It needs nft and no
//! root where user namespaces are allowed.

#[path = "../support/mod.rs"]
mod support;

mod screen;

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use screen::Screen;
use support::binary::{Agent, Report, run};
use support::isolation;
use support::router::{Behaviour, From, INSIDE, Router};
use support::socket::{Connection, Keepalive};

/// After how many seconds the router drops an idle flow.
const LIMIT: u32 = 8;
/// For how long nobody uses the connections.
const IDLE: u64 = 11;
/// The connections of each kind.
const OF_EACH: usize = 3;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// The kinds: what they are called, and the options of the shop's and the database's sockets.
const KINDS: [(&str, [Keepalive; 2]); 4] = [
    ("no keepalive", [Keepalive::Off, Keepalive::Off]),
    ("system default", [Keepalive::Default, Keepalive::Off]),
    ("keepalive 3s", [Keepalive::Idle(3), Keepalive::Off]),
    ("database probes", [Keepalive::Off, Keepalive::Idle(3)]),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wants = |word: &str| words.iter().any(|it| it == word);
    let behaviour = match () {
        () if wants("reset") => Behaviour::Reset,
        () if wants("backend") => Behaviour::AnotherBackend,
        () => Behaviour::Silent,
    };
    if !isolation::is_installed("nft") {
        eprintln!("demo: `nft` is not installed: apt-get install nftables");
        std::process::exit(1);
    }
    let color = wants("color") || std::io::stdout().is_terminal();
    let mut arguments = vec![match behaviour {
        Behaviour::Silent => "silent",
        Behaviour::Reset => "reset",
        Behaviour::AnotherBackend => "backend",
    }];
    arguments.extend(color.then_some("color"));
    isolation::run_program(Duration::from_mins(2), &arguments, || demo(behaviour, Screen { color }));
}

fn demo(behaviour: Behaviour, screen: Screen) {
    let router = Router::new(behaviour, LIMIT);
    screen.title(&format!("A router between a shop and its database drops connections that are idle for {LIMIT} s."));
    println!("  shop 10.99.1.2 ── router with NAT, 10.99.1.1:8080 ── database 10.99.2.2:8080");
    println!(
        "  Three network namespaces of this machine. Neither end learns of it. A segment of a dropped flow {}.",
        match behaviour {
            Behaviour::Silent => "gets no answer",
            Behaviour::Reset => "is answered with a reset",
            Behaviour::AnotherBackend => "goes to another backend, which answers with a reset",
        }
    );
    if behaviour == Behaviour::AnotherBackend && !std::path::Path::new("/proc/net/ip_vs").exists() {
        println!("  This kernel has no IPVS: a rule of nftables plays its part.");
    }
    let limit = format!("{LIMIT}s");
    let rules = ["--idle-timeout", &limit, "--long-lived", "1s", "--netns-dir", INSIDE];
    let agent = Agent::start_on(9986, &[&rules[..], &["--interval", "500ms"]].concat());

    let mut pool = Pool::new(&router, &KINDS);
    screen.title(&format!(
        "The shop opens {} connections, uses each once, and goes to sleep. The agent watches:",
        KINDS.len() * OF_EACH
    ));
    pool.watch(&agent, screen);
    screen.title("What `keepalive-auditor audit --for 4s` shows, which watches for probes of the database:");
    let audit = run(
        &[&["audit", "--for", "4s", "--color", if screen.color { "always" } else { "never" }], &rules[..]].concat()
    );
    audit.stdout.lines().for_each(|line| println!("  {line}"));

    screen.title("The shop wakes up and uses every connection:");
    let (flagged, broke) = pool.use_all(&agent, screen);
    println!("  {broke} broke. The agent had flagged {flagged} of them, and no other.");
    assert_eq!((flagged, broke), (2 * OF_EACH, 2 * OF_EACH), "the agent was wrong");
    show_measured(&agent);

    screen.title("The remedy, for sockets of a program in Python (`keepalive-auditor remedy --list` names 25 more):");
    let remedy = run(&["remedy", "python", "--idle-timeout", &limit]).stdout;
    remedy.lines().skip(3).take(6).for_each(|line| println!("  {line}"));
    let keepalive = Keepalive::IdleThenEvery(option(&remedy, "TCP_KEEPIDLE"), option(&remedy, "TCP_KEEPINTVL"));
    drop(pool);
    let mut pool = Pool::new(&router, &[("with the remedy", [keepalive, Keepalive::Off])]);
    pool.watch(&agent, screen);
    let (flagged, broke) = pool.use_all(&agent, screen);
    println!("  {broke} broke, and {flagged} were flagged.");
    assert_eq!((flagged, broke), (0, 0), "the remedy does not help");
}

/// The limit that the agent has measured meanwhile.
fn show_measured(agent: &Agent) {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let report: serde_json::Value = serde_json::from_str(&agent.page("/api/v1/report")).expect("a report is JSON");
        let path = &report["paths"][0];
        if let (Some(survived), Some(broken)) =
            (path["idle_survived_seconds"].as_f64(), path["idle_broken_seconds"].as_f64())
        {
            println!("  Measured: the limit lies between {survived:.1} s, which were survived, and {broken:.1} s.");
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The value of an option in the remedy's text.
fn option(remedy: &str, name: &str) -> u32 {
    let value =
        remedy.lines().find_map(|line| line.trim().split_once(&format!("socket.{name}, "))?.1.strip_suffix("),"));
    value.and_then(|value| value.parse().ok()).expect("the remedy names the option")
}

/// The shop's connections, by kind.
struct Pool(Vec<(&'static str, Vec<Connection>)>);

impl Pool {
    fn new(router: &Router, kinds: &[(&'static str, [Keepalive; 2])]) -> Self {
        let of = |keep| (0..OF_EACH).map(|_| router.connect(From::Inside, keep)).collect();
        let mut pool = Self(kinds.iter().map(|(name, keep)| (*name, of(*keep))).collect());
        for connection in pool.0.iter_mut().flat_map(|(_, connections)| connections) {
            connection.exchange();
        }
        pool
    }

    /// Shows each second what the agent says of each kind.
    fn watch(&self, agent: &Agent, screen: Screen) {
        let names = self.0.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        screen.row("IDLE", &names, |_| "1");
        let start = Instant::now();
        for second in 1..=IDLE {
            thread::sleep(Duration::from_secs(second).saturating_sub(start.elapsed()));
            let report = agent.report();
            screen.row(&format!("{second}s"), &self.verdicts(&report), screen::style);
        }
    }

    /// The verdict of each kind.
    fn verdicts(&self, report: &Report) -> Vec<String> {
        let verdict = |connections: &Vec<Connection>| {
            let row = connections.first().and_then(|first| report.row(first.client.id));
            row.map_or_else(|| "gone".to_owned(), |row| row.verdict.clone())
        };
        self.0.iter().map(|(_, connections)| verdict(connections)).collect()
    }

    /// Uses every connection. Shows by kind how many were answered; returns how many were flagged, and how many broke.
    fn use_all(&mut self, agent: &Agent, screen: Screen) -> (usize, usize) {
        let report = agent.report();
        let breaks = |connection: &Connection| {
            let row = report.row(connection.client.id);
            row.is_none_or(|row| ["overdue", "blackholed", "unanswered"].contains(&&*row.verdict))
        };
        let (mut flagged, mut broke) = (0, 0);
        for (_, connections) in &mut self.0 {
            for connection in connections {
                flagged += usize::from(breaks(connection));
                let _ = connection.client.stream.write_all(b"select 1");
            }
        }
        let end = Instant::now() + ANSWER;
        let mut answers = Vec::new();
        for (_, connections) in &mut self.0 {
            let mut answered = 0;
            for connection in &mut *connections {
                answered += usize::from(answer(connection, end));
            }
            broke += connections.len() - answered;
            answers.push(format!("{answered} of {} answered", connections.len()));
        }
        let names = self.0.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        screen.row("", &names, |_| "1");
        screen.row("", &answers, |text| if text.starts_with('0') { "1;31" } else { "32" });
        (flagged, broke)
    }
}

/// Whether the database gets the question and the shop gets the answer before `end`.
fn answer(connection: &mut Connection, end: Instant) -> bool {
    let read = |stream: &mut std::net::TcpStream| {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
        stream.set_read_timeout(Some(left)).is_ok() && stream.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0)
    };
    let Connection { client, server } = connection;
    read(&mut server.stream) && server.stream.write_all(b"1").is_ok() && read(&mut client.stream)
}
