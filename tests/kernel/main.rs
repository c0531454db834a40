//! The kernel ring: real sockets with known options in namespaces of the test's own, and what the binary says of them.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod changes;
mod exact;
mod explain;
mod half_closed;
mod harness;
mod heartbeats;
mod hosts;
mod keepidle;

mod memory;
mod namespaces;
mod pairs;
mod payload;
mod selection;
mod skip;
mod unanswered;
