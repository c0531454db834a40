//! The agent's port and life: who is answered, what clients can hold, signals, changed files, logs that nobody reads.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod agent;
mod life;
mod port;
