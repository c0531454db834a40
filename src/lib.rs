//! A live auditor of TCP connections: which of them would outlive the memory of the middleboxes on their path without anybody noticing.
//!
//! The map of the sources, in the order the data flows: [`record`] carries what [`host`] read from Linux; [`digest`] turns a stream of
//! records into one [`judge::report::Report`] by way of [`wire`] and [`judge`]; [`show`] renders it. `ARCHITECTURE.md` tells the rest.

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
