//! The limits on what the program may cost, measured on this machine in namespaces made for it: `just bench`, benches/README.md.

#[path = "../../tests/support/mod.rs"]
mod support;

mod agent_line;
mod connections;
mod load;
mod measure;
mod namespaces;
mod raw;
mod table;

use std::env;
use std::time::Duration;

use support::world;

/// Longer than anything here takes; who measures for longer says so.
const LIMIT: Duration = Duration::from_secs(20 * 60);

const USAGE: &str = "what to measure:
  connections [N…]   what a sweep of N connections costs (20000 200000)
  namespaces         what a namespace costs";

fn main() {
    // cargo bench adds it
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if load::play(&arguments) {
        return;
    }
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            for all in ["connections", "namespaces"] {
                inside(&[all]);
            }
        }
        words => inside(words),
    }
}

/// Measures in a world of its own.
fn inside(words: &[&str]) {
    world::run_program(LIMIT, words, || match words {
        ["connections", counts @ ..] => connections::measure(&numbers(counts, &[20_000, 200_000])),
        ["namespaces"] => namespaces::measure(),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    });
}

fn numbers(words: &[&str], otherwise: &[usize]) -> Vec<usize> {
    if words.is_empty() {
        return otherwise.to_vec();
    }
    words.iter().map(|word| word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"))).collect()
}
