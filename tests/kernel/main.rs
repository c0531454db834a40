//! Kernel tests: each makes real sockets with known options in its own namespaces and checks what the binary reports.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod changes;
mod direction;
mod ends;
mod exact;
mod explain;
mod half_closed;
mod harness;
mod heartbeats;
mod hosts;
mod keepidle;
mod limits;
mod many;
mod memory;
mod namespaces;
mod order;
mod pairs;
mod payload;
mod peer_probes;
mod programs;
mod proxies;
mod segments;
mod selection;
mod skip;
mod unanswered;
