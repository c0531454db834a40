//! The agent's port and process: access, limits for clients, signals, changed files, and logs that nobody reads.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod agent;
mod life;
mod port;
