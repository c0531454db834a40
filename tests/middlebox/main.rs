//! A middlebox that drops idle connections, made of network namespaces and nftables: what the program predicted before
//! each connection was used again, and what really happened.

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod harm;
mod limits;
mod prediction;
