//! Finds TCP connections that a load balancer, NAT or firewall would drop for being idle.
//!
//! In the order in which data flows: [`host`] reads Linux and makes [`record`]s. [`digest`] turns them into one
//! [`judge::report::Report`], with [`wire`] and [`judge`]. [`show`] renders the report. `ARCHITECTURE.md` has the
//! details.

pub mod agent;
pub mod audit;
pub mod cli;
pub mod config;
pub mod digest;
pub mod host;
pub mod judge;
pub mod logging;
pub mod owner;
pub mod record;
pub mod remedy;
pub mod show;
pub mod small_file;
pub mod socket;
pub mod web;
pub mod wire;
pub mod words;
pub mod yaml;
