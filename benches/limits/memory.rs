//! Peak resident memory of the agent and of `audit`, at 200 000 connections.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::agent_line::unified;
use crate::load::{NETNS, Node};
use crate::support::binary::{Agent, command};
use crate::support::metrics::Page;
use crate::table::row;

/// Measures with this number of connections.
pub fn measure(count: usize) {
    let mut node = Node::new();
    node.namespaces(NETNS, 1);
    node.connect(0..1, count);
    let limit = 12.0 + 128.0 * megabytes(count as u64);
    let tree = unified().map(|tree| tree.display().to_string());
    let root: Vec<_> = tree.iter().flat_map(|tree| ["--cgroup-root", tree]).collect();

    let [swept, paged] = peaks_of_agent(&root, limit);
    row(&format!("4 the agent, {count} connections, swept and scraped: peak resident"), swept, limit, "MB");
    row(&format!("4 the agent, {count} connections, page and 1000 of the report read"), paged, limit, "MB");
    let [without, _] = peaks_of_agent(&["--cgroup-root", "/run"], limit);
    row(&format!("3 the agent, {count} connections without cgroup v2, to one with it"), without / swept, 1.5, "x");

    for more in [&["--all", "--format", "jsonl"][..], &["--all"]] {
        let arguments = [&["audit", "--long-lived", "1ms"], more, &root].concat();
        let what = format!("4 audit {}, {count} connections: peak resident", more.join(" "));
        row(&what, peak_of(&arguments), limit, "MB");
    }
    for (which, more) in [("nothing flagged", "1h"), ("2/3 in its table", "1ms")] {
        let arguments = ["audit", "--long-lived", more];
        let peak = peak_of(&[&arguments[..], &root].concat());
        let what = format!("audit of {count} connections, {which}: peak resident");
        row(&format!("2 {what}"), peak, (32.0 * megabytes(count as u64) / 0.19).max(32.0), "MB");
        let without = peak_of(&[&arguments[..], &["--cgroup-root", "/run"]].concat());
        row(&format!("3 {what} without cgroup v2, to one with it"), without / peak, 1.5, "x");
    }
}

/// The peaks of an agent: after some sweeps with all connections, and after one request for each page.
fn peaks_of_agent(root: &[&str], limit: f64) -> [f64; 2] {
    let agent = Agent::start(&[&["--interval", "2s", "--long-lived", "1ms"], root].concat());
    loop {
        thread::sleep(Duration::from_millis(500));
        let page = Page::read(&agent.page("/metrics"));
        let one = |name| page.of(name).next().map_or(0.0, |sample| sample.value);
        if one("keepalive_auditor_sweep_duration_seconds_count") >= 5.0 {
            let tracked = one("keepalive_auditor_tracked_connections");
            assert!(tracked >= limit, "only {tracked} connections are tracked");
            break;
        }
    }
    let swept = high_water(&agent);
    agent.page("/");
    agent.page("/api/v1/report?limit=1000");
    [swept, high_water(&agent)]
}

/// `VmHWM` of the agent, megabytes.
fn high_water(agent: &Agent) -> f64 {
    let path = format!("/proc/{}/status", agent.pid().as_raw_nonzero());
    let status = fs::read_to_string(&path).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    let kibibytes: u64 = line.trim_end_matches("kB").trim().parse().expect("a number of kB");
    megabytes(kibibytes * 1024)
}

/// Runs the program to its end and returns its peak in megabytes. A small process in between starts it, because a
/// program's peak is at least that of its parent, and the kernel keeps one peak for all children.
fn peak_of(arguments: &[&str]) -> f64 {
    let program = command(arguments);
    let output = Command::new(env::current_exe().expect("this program has a path"))
        .arg("peak")
        .arg(program.get_program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("this program starts again");
    let text = String::from_utf8(output.stdout).expect("a number");
    megabytes(text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{arguments:?} failed: {text}")) * 1024)
}

/// Acts as the process in between: runs the rest of the arguments and prints the peak in KiB.
pub fn run_as_parent(arguments: &[String]) -> bool {
    let [role, program, rest @ ..] = arguments else { return false };
    if role != "peak" {
        return false;
    }
    let status = Command::new(program).args(rest).stdout(Stdio::null()).status().expect("the program starts");
    assert!(status.success(), "{program}: {status}");
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel reports usage").max_rss());
    true
}

#[expect(clippy::cast_precision_loss, reason = "a machine's memory is far below 2^52 bytes")]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
