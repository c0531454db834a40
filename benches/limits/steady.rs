//! The agent's own cost with its defaults, over minutes, on a node with 250 namespaces of 200 connections each.

use std::thread;
use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::agent_line::unified;
use crate::load::{NETNS, Node};
use crate::support::binary::Agent;
use crate::support::metrics::Page;
use crate::table::row;

const NAMESPACES: usize = 250;
const EACH: usize = 200;
/// Close to the interval of Prometheus, but not a multiple of the 15 s between sweeps. The cost includes scrapes.
const SCRAPE: Duration = Duration::from_secs(25);

/// After this time all silent connections have passed the default limit, so that nobody's idle time is followed. The
/// programs of all flagged connections are known.
const SETTLED: Duration = Duration::from_mins(11);

/// Watches the agent for `span`. In `active` namespaces every second connection sends a byte every 30 s.
pub fn measure(span: Duration, active: usize) {
    let mut node = Node::new();
    let all = node.namespaces(NETNS, NAMESPACES);
    node.connect(active..all.end, EACH);
    node.sends_bytes = true;
    node.connect(0..active, EACH);

    // the owners of a host with cgroup v2
    let tree = unified().map(|tree| tree.display().to_string());
    let arguments: Vec<_> = tree.iter().flat_map(|tree| ["--cgroup-root", tree]).collect();
    let agent = Agent::start(&arguments);
    // the first sweeps dump everything
    while Page::read(&agent.page("/metrics")).of("keepalive_auditor_sweeps_total").all(|sweeps| sweeps.value < 2.0) {
        thread::sleep(Duration::from_secs(1));
    }
    let (begun, before) = (Instant::now(), cpu(&agent));
    let mut seen: Vec<(String, f64, f64)> = Vec::new();
    let mut settled = None;
    while begun.elapsed() < span {
        thread::sleep(SCRAPE.min(span.saturating_sub(begun.elapsed())));
        if settled.is_none() && begun.elapsed() >= SETTLED {
            settled = Some((Instant::now(), cpu(&agent)));
        }
        let page = Page::read(&agent.page("/metrics"));
        for sample in page.of("keepalive_auditor_namespaces") {
            let result = &sample.labels["result"];
            match seen.iter_mut().find(|(known, ..)| known == result) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + sample.value, *count + 1.0),
                None => seen.push((result.clone(), sample.value, 1.0)),
            }
        }
    }
    let used = cpu(&agent) - before;
    let shown: Vec<_> = seen.iter().map(|(result, sum, count)| format!("{result} {:.0}", sum / count)).collect();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{seconds:.0} s, {NAMESPACES} namespaces with {EACH} connections, {active} of them active: {used:.2} s of CPU"
    );
    println!("namespaces of a sweep, mean over the scrapes: {}", shown.join(", "));
    let limit = if active == 0 { 0.5 } else { 0.3 };
    let what = format!("3 the agent's CPU, {active} of {NAMESPACES} namespaces active, of one core");
    row(&what, 100.0 * used / seconds, limit, "%");
    if let Some((since, before)) = settled {
        let used = 100.0 * (cpu(&agent) - before) / since.elapsed().as_secs_f64();
        row(&format!("{what}, once settled"), used, limit, "%");
    }
}

/// The agent's CPU time in seconds, ended threads included.
fn cpu(agent: &Agent) -> f64 {
    let clock = clock_getcpuclockid(Pid::from_raw(agent.pid().as_raw_nonzero().get())).expect("the agent has a clock");
    Duration::from(clock.now().expect("it runs")).as_secs_f64()
}
