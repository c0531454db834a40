//! The cost of a sweep per connection, compared with a loop that only receives and with `ss -tnoi`. Each round runs
//! each of them once.

use std::path::PathBuf;
use std::process::Command;

use keepalive_auditor::wire::inet_diag::Request;

use crate::agent_line::{Line, unified};
use crate::load::{NETNS, Node};
use crate::measure::{Cpu, Runs, cost, cost_of};
use crate::raw;
use crate::support::binary::command;
use crate::support::netns::Netns;
use crate::table::row;

/// The runs of each program, in the same rounds.
struct Compared {
    count: usize,
    first: Cpu,
    raw: Runs,
    ours: Runs,
    ss: Runs,
    /// Nothing is flagged.
    audit: Runs,
    /// Two thirds are flagged, and each is a row of the table.
    listed: Runs,
    /// The same two without cgroup v2.
    audit_v1: Runs,
    listed_v1: Runs,
}

/// Measures with each of these numbers of connections, in ascending order.
pub fn measure(counts: &[usize]) {
    let mut node = Node::new();
    node.namespaces(NETNS, 1);
    let mut before: Option<(usize, f64)> = None;
    for &count in counts {
        node.connect(0..1, count - node.connections);
        let compared = compare(&node);
        compared.print();
        let each = compared.ours.median() / nanos(count);
        if let Some((fewer, cheaper)) = before {
            row(&format!("1 a connection of {count}, to one of {fewer}"), each / cheaper, 1.15, "x");
        }
        before = Some((count, each));
    }
}

fn compare(node: &Node) -> Compared {
    let count = node.connections;
    let near = &node.namespaces[0];
    let rounds = if count < 50_000 { 31 } else { 11 };
    let mut line = Line::over(&[NETNS]);
    let (first, report) = line.sweep();
    assert_eq!(report.connections, count as u64, "the sweep sees every connection");
    let mut compared = Compared {
        count,
        first,
        raw: Runs::default(),
        ours: Runs::default(),
        ss: Runs::default(),
        audit: Runs::default(),
        listed: Runs::default(),
        audit_v1: Runs::default(),
        listed_v1: Runs::default(),
    };
    for _ in 0..rounds {
        compared.raw.add(raw_cost(near, &[Request::BothFamilies]));
        compared.ours.add(line.sweep().0);
        compared.ss.add(near.enter(|| cost_of(Command::new("ss").arg("-tnoi"))));
        compared.audit.add(cost_of(&mut audit(YOUNG, unified())));
        compared.listed.add(cost_of(&mut audit(FLAGGED, unified())));
        compared.audit_v1.add(cost_of(&mut audit(YOUNG, Some(NO_CGROUP2.into()))));
        compared.listed_v1.add(cost_of(&mut audit(FLAGGED, Some(NO_CGROUP2.into()))));
    }
    compared
}

/// No connection is long-lived, so nothing is flagged.
const YOUNG: &[&str] = &["--long-lived", "1h"];
/// Connections are long-lived at once, so that two thirds are flagged.
const FLAGGED: &[&str] = &["--long-lived", "1ms"];
/// A folder without a cgroup v2 tree, as on a host with version 1 alone.
const NO_CGROUP2: &str = "/run";

/// An audit that finds owners in this tree.
fn audit(arguments: &[&str], cgroup_root: Option<PathBuf>) -> Command {
    // a warning for each run hides the table
    let mut audit = command(&[&["--log.level", "error", "audit"], arguments].concat());
    audit.args(cgroup_root.map(|tree| ["--cgroup-root".into(), tree.into_os_string()]).into_iter().flatten());
    audit
}

/// The cost of the raw loop in a namespace.
pub fn raw_cost(near: &Netns, requests: &[Request]) -> Cpu {
    near.enter(|| {
        let socket = raw::open();
        cost(|| raw::drain(&socket, requests)).0
    })
}

impl Compared {
    fn print(&self) {
        let count = self.count;
        let first = Runs::of(self.first);
        println!("{count} connections: CPU, ns a connection (its part in user space, ns)");
        for (name, runs) in [
            ("raw loop", &self.raw),
            ("sweep, first", &first),
            ("sweep, steady", &self.ours),
            ("audit, nothing flagged", &self.audit),
            ("audit, 2/3 in its table", &self.listed),
            ("audit, no cgroup v2", &self.audit_v1),
            ("the same, 2/3 in its table", &self.listed_v1),
            ("ss -tnoi, whole process", &self.ss),
        ] {
            let each = runs.median() / nanos(count);
            println!("  {name:<26} {each:>7.0} ({:.0})", each * runs.user_share());
        }
        row(&format!("1 sweep of {count} connections, to the raw loop"), self.ours.ratio(&self.raw), 1.25, "x");
        row(&format!("1 sweep of {count} connections, to ss -tnoi"), self.ours.ratio(&self.ss), 0.25, "x");
        row(&format!("2 audit of {count} connections, to the raw loop"), self.audit.ratio(&self.raw), 1.4, "x");
        row(&format!("2 audit of {count} connections, to ss -tnoi"), self.audit.ratio(&self.ss), 0.3, "x");
        row(
            &format!("2 audit that lists 2/3 of {count} connections, to ss -tnoi"),
            self.listed.ratio(&self.ss),
            0.3,
            "x",
        );
        row(
            &format!("3 audit of {count} without cgroup v2, to one with it"),
            self.audit_v1.ratio(&self.audit),
            1.5,
            "x",
        );
        row(
            &format!("3 audit that lists 2/3 of {count} without cgroup v2, to one with it"),
            self.listed_v1.ratio(&self.listed),
            1.5,
            "x",
        );
    }
}

/// The factor from seconds for all connections to nanoseconds for each.
#[expect(clippy::cast_precision_loss, reason = "numbers of connections are far below 2^52")]
fn nanos(count: usize) -> f64 {
    count as f64 / 1e9
}
