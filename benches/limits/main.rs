//! Measures the cost of the program against its limits, in namespaces of its own: `just bench`, benches/README.md.

#![expect(clippy::panic, reason = "a benchmark that cannot measure ends, and says why")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod agent_line;
mod connections;
mod digest;
#[expect(dead_code, reason = "`parts` uses all of it")]
mod generated;
mod growth;
mod load;
mod measure;
mod memory;
mod namespaces;
mod raw;
mod report;
mod scrape;
mod start;
mod steady;
mod table;

use std::env;
use std::time::Duration;

use support::isolation;

/// Longer than any benchmark here takes, except those that set their own limit.
const LIMIT: Duration = Duration::from_mins(20);

const USAGE: &str = "name what to measure; without arguments everything but growth and digest is measured:
  connections [N…]             cost of a sweep of N connections (20000 200000)
  namespaces                   cost of a namespace
  steady [MINUTES [ACTIVE]]    cost of the agent over time (10), with traffic in ACTIVE of 250 namespaces (0)
  memory [N]                   peak memory at N connections (200000)
  report                       memory held for readers of GET /api/v1/report
  scrape                       time of GET /metrics
  start                        time of an audit that finds almost nothing, and the size of the binary
  growth WHAT                  tables over connections, namespaces or processes
  digest CONNECTIONS SWEEPS    digests generated sweeps, for callgrind";

fn main() {
    // cargo bench adds it
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if load::run_as_holder(&arguments) || memory::run_as_parent(&arguments) || digest::run(&arguments) {
        return;
    }
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            for all in ["connections", "namespaces", "memory", "report", "scrape", "start", "steady"] {
                inside(&[all]);
            }
            inside(&["steady", "16", "250"]);
        }
        words => inside(words),
    }
}

/// Measures inside new namespaces.
fn inside(words: &[&str]) {
    let limit = match words {
        ["steady", minutes, ..] => LIMIT + Duration::from_secs(60 * number(minutes) as u64),
        _ => LIMIT,
    };
    isolation::run_program(limit, words, || match words {
        ["connections"] => connections::measure(&[20_000, 200_000]),
        ["connections", counts @ ..] => {
            connections::measure(&counts.iter().map(|word| number(word)).collect::<Vec<_>>());
        }
        ["namespaces"] => namespaces::measure(),
        ["steady", more @ ..] if more.len() <= 2 => {
            let minutes = more.first().map_or(10, |word| number(word));
            let active = more.get(1).map_or(0, |word| number(word));
            steady::measure(Duration::from_secs(60 * minutes as u64), active);
        }
        ["memory"] => memory::measure(200_000),
        ["memory", count] => memory::measure(number(count)),
        ["report"] => report::measure(),
        ["scrape"] => scrape::measure(),
        ["start"] => start::measure(),
        ["growth", "connections"] => growth::connections(),
        ["growth", "namespaces"] => growth::namespaces(),
        ["growth", "processes"] => growth::processes(),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    });
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("`{word}` is not a number"))
}
