//! The cost of one more namespace in a sweep, compared with the cost of dumping it. Each round runs each of them once.

use keepalive_auditor::wire::inet_diag::Request;

use crate::agent_line::Line;
use crate::connections::raw_cost;
use crate::load::{NETNS, Node};
use crate::measure::{cost_of, median};
use crate::support::binary::command;
use crate::table::row;

/// Connections in another audited namespace of the node.
const ELSEWHERE: usize = 18_000;
const EMPTY: usize = 400;
const ACTIVE: usize = 50;
/// The number of them that a raw loop dumps in each round.
const DUMPED: usize = 50;
const ROUNDS: usize = 21;

/// The cost of one more namespace, and of raw dumps of it, in seconds.
#[derive(Default)]
struct Costs {
    ours: Vec<f64>,
    one_walk: Vec<f64>,
    two_dumps: Vec<f64>,
    /// In `audit`, the whole process.
    audit: Vec<f64>,
}

/// Measures with 18 000 connections in another namespace.
pub fn measure() {
    let mut node = Node::new();
    node.namespaces(NETNS, 1);
    node.connect(0..1, ELSEWHERE);
    let empty = ("/run/empty", node.namespaces("/run/empty", EMPTY));
    let active = ("/run/active", node.namespaces("/run/active", ACTIVE));
    node.connect(active.1.clone(), 4);

    let mut without = Line::over(&[NETNS]);
    let mut costs = [empty, active].map(|(directory, places)| {
        (directory, Line::over(&[NETNS, directory]), &node.namespaces[places], Costs::default())
    });
    // The first round is not steady.
    let audit = |directories: &[&str]| {
        let folders = directories.iter().flat_map(|directory| ["--netns-dir", directory]);
        cost_of(&mut command(&["audit"].into_iter().chain(folders).collect::<Vec<_>>())).total
    };
    for round in 0..=ROUNDS {
        let less = without.sweep().0.total;
        let less_in_audit = audit(&[NETNS]);
        for (directory, line, namespaces, costs) in &mut costs {
            let more = line.sweep().0.total;
            let more_in_audit = audit(&[NETNS, directory]);
            // Always the same number in a row: a second walk of a table in the cache costs half of the first.
            let dumps = [&[Request::BothFamilies][..], &[Request::Inet, Request::Inet6]].map(|how| {
                let some = &namespaces[..DUMPED];
                some.iter().map(|netns| raw_cost(netns, how).total).sum::<f64>() / number(some.len())
            });
            if round > 0 {
                costs.ours.push((more - less) / number(namespaces.len()));
                costs.audit.push((more_in_audit - less_in_audit) / number(namespaces.len()));
                costs.one_walk.push(dumps[0]);
                costs.two_dumps.push(dumps[1]);
            }
        }
    }
    let [empty, active] = costs.map(|(.., costs)| costs);
    empty.print(&format!("a namespace without connections, {ELSEWHERE} elsewhere"));
    active.print("a namespace with 4 connections");
    row("2 a namespace without connections, to two dumps of it", ratio(&empty.ours, &empty.two_dumps), 1.0 / 20.0, "x");
    row(
        "2 a namespace without connections in `audit`, to two dumps of it",
        ratio(&empty.audit, &empty.two_dumps),
        1.0 / 20.0,
        "x",
    );
    // A sweep walks the table once, not twice, so the ratio is nearer to one.
    row("2 a namespace with 4 connections, to one walk of it", ratio(&active.ours, &active.one_walk), 1.5, "x");
}

impl Costs {
    fn print(&self, what: &str) {
        let micros = |costs: &[f64]| median(costs.iter().copied()) * 1e6;
        let [ours, audit, one, two] =
            [&self.ours, &self.audit, &self.one_walk, &self.two_dumps].map(|costs| micros(costs));
        println!(
            "{what}: {ours:.0} µs in a sweep, {audit:.0} µs in an audit; raw, one walk {one:.0} µs, one dump for each \
             family {two:.0} µs"
        );
    }
}

fn ratio(ours: &[f64], to: &[f64]) -> f64 {
    median(ours.iter().zip(to).map(|(ours, raw)| ours / raw))
}

#[expect(clippy::cast_precision_loss, reason = "few namespaces")]
fn number(count: usize) -> f64 {
    count as f64
}
