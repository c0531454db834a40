//! The cost of a sweep as connections, namespaces and processes grow. Prints Markdown for benches/README.md.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use keepalive_auditor::wire::inet_diag::Request;

use crate::agent_line::Line;
use crate::connections::raw_cost;
use crate::load::{Idlers, NETNS, Node};
use crate::measure::{cost_of, median};
use crate::support::binary::Agent;

const ROUNDS: usize = 9;

/// The cost of a steady sweep, in milliseconds.
fn sweep(line: &mut Line) -> f64 {
    line.sweep();
    median((0..ROUNDS).map(|_| line.sweep().0.total * 1e3))
}

/// Growth in connections, all in one namespace.
pub fn connections() {
    let mut node = Node::new();
    node.namespaces(NETNS, 1);
    println!("| connections | sweep, ms | µs each | raw loop, ms | µs each | `ss -tnoi`, ms | µs each |");
    println!("|---|---|---|---|---|---|---|");
    for count in [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000] {
        node.connect(0..1, count - node.connections);
        let near = &node.namespaces[0];
        let mut line = Line::over(&[NETNS]);
        line.sweep();
        let mut columns = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            columns[0].push(line.sweep().0.total * 1e3);
            columns[1].push(raw_cost(near, &[Request::BothFamilies]).total * 1e3);
            columns[2].push(near.enter(|| cost_of(Command::new("ss").arg("-tnoi"))).total * 1e3);
        }
        let cells = columns.map(|column| {
            let ms = median(column);
            format!("{ms:.1} | {:.2}", ms * 1e3 / f64::from(u32::try_from(count).expect("few")))
        });
        println!("| {count} | {} |", cells.join(" | "));
    }
}

/// Growth in namespaces, empty or with four connections each. 18 000 other connections on the node are not audited.
pub fn namespaces() {
    let mut node = Node::new();
    node.namespaces(NETNS, 1);
    node.connect(0..1, 18_000);
    println!(
        "| namespaces | sweep, empty, ms | µs each | sweep, 4 connections each, ms | µs each | threads of the agent |"
    );
    println!("|---|---|---|---|---|---|");
    let mut made = 0;
    for count in [1, 10, 100, 300, 1000] {
        node.namespaces("/run/empty", count - made);
        let active = node.namespaces("/run/active", count - made);
        node.connect(active, 4);
        made = count;
        let cells = ["/run/empty", "/run/active"].map(|directory| {
            let ms = sweep(&mut Line::over(&[directory]));
            format!("{ms:.1} | {:.0}", ms * 1e3 / f64::from(u32::try_from(count).expect("few")))
        });
        println!("| {count} | {} | {} |", cells.join(" | "), threads());
    }
}

/// The highest number of the agent's threads while it sweeps all these namespaces repeatedly.
fn threads() -> u64 {
    let agent = Agent::start(&["--interval", "1s", "--netns-dir", "/run/empty,/run/active"]);
    let path = format!("/proc/{}/status", agent.pid().as_raw_nonzero());
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let status = fs::read_to_string(&path).expect("the agent runs");
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("it has threads");
        most = most.max(line.trim().parse().expect("a number of threads"));
        thread::sleep(Duration::from_millis(2));
    }
    most
}

/// Growth in processes without sockets, with one namespace.
pub fn processes() {
    let mut idlers = Idlers::new();
    println!("| processes | sweep, ms | µs each |");
    println!("|---|---|---|");
    let mut made = 0;
    for count in [100, 1_000, 5_000, 20_000] {
        idlers.add(count - made);
        made = count;
        let ms = sweep(&mut Line::over(&[NETNS]));
        println!("| {count} | {ms:.1} | {:.1} |", ms * 1e3 / f64::from(u32::try_from(count).expect("few")));
    }
}
