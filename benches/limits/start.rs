//! The time of `audit` on an almost idle machine from start to end, and the size of the binary.

use std::fs;
use std::time::Instant;

use crate::measure::{Runs, cost_of, median};
use crate::support::binary::command;
use crate::table::row;

const RUNS: usize = 101;

/// Measures with one namespace and a few processes.
pub fn measure() {
    let mut runs = Runs::default();
    let wall = median((0..RUNS).map(|_| {
        let start = Instant::now();
        runs.add(cost_of(&mut command(&["audit"])));
        start.elapsed().as_secs_f64()
    }));
    println!("audit of one namespace: {:.1} ms of CPU", runs.median() * 1e3);
    row("6 audit of an almost idle machine, wall time", wall * 1e3, 30.0, "ms");
    let size = fs::metadata(command::<&str>(&[]).get_program()).expect("the binary is there").len();
    let megabytes = f64::from(u32::try_from(size).expect("a small binary")) / 1e6;
    row("6 the release binary, stripped", megabytes, 13.0, "MB");
}
