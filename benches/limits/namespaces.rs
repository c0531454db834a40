//! What one more namespace costs a sweep, beside the dumps that it would take to ask it.

use keepalive_auditor::wire::inet_diag::Request;

use crate::agent_line::Line;
use crate::connections::raw_cost;
use crate::load::Node;
use crate::measure::median;
use crate::support::netns::Netns;
use crate::table::row;

/// Connections elsewhere on the node.
const ELSEWHERE: usize = 18_000;
const FEW: usize = 50;
const MANY: usize = 450;
const ROUNDS: usize = 15;

/// Measures with 18 000 connections in another namespace.
pub fn measure() {
    let mut node = Node::new();
    node.namespaces(1);
    node.connect(0..1, ELSEWHERE);
    node.namespaces(1 + FEW);
    let few = sweep();
    node.namespaces(1 + MANY);
    let many = sweep();
    let per_family = dumps(&node.namespaces[1..], &[Request::Inet, Request::Inet6]);
    let empty = (many - few) / difference(FEW, MANY);
    println!("a namespace without connections, {ELSEWHERE} elsewhere: {:.0} µs in a sweep, two dumps of it {:.0} µs", empty * 1e6, per_family * 1e6);
    row("2 a namespace without connections, to two dumps of it", empty / per_family, 1.0 / 20.0, "x");

    node.connect(1..1 + FEW, 4);
    let talking = (sweep() - many) / difference(0, FEW) + empty;
    let walk = dumps(&node.namespaces[1..=FEW], &[Request::BothFamilies]);
    let walks = dumps(&node.namespaces[1..=FEW], &[Request::Inet, Request::Inet6]);
    println!("a namespace with 4 connections: {:.0} µs in a sweep, one walk of it {:.0} µs, two {:.0} µs", talking * 1e6, walk * 1e6, walks * 1e6);
    // One walk, not two: nearer to one than to two.
    row("2 a namespace with 4 connections, to one walk of it", talking / walk, 1.5, "x");
}

/// CPU of a steady sweep, seconds.
fn sweep() -> f64 {
    let mut line = Line::new();
    line.sweep();
    median((0..ROUNDS).map(|_| line.sweep().0.total))
}

/// CPU of one round of these requests in one namespace, seconds: entering it and opening the socket are not counted.
fn dumps(namespaces: &[Netns], requests: &[Request]) -> f64 {
    let some = namespaces.len().min(50);
    median((0..3).flat_map(|_| &namespaces[..some]).map(|netns| raw_cost(netns, requests).total))
}

#[expect(clippy::cast_precision_loss, reason = "few namespaces")]
fn difference(from: usize, to: usize) -> f64 {
    (to - from) as f64
}
