//! A report, rendered. Nothing here reads the machine or a clock.

mod advice;
pub mod compare;
pub mod escape;
pub mod explain;
pub mod fit;
pub mod glossary;
pub mod groups;
mod heartbeats;
pub mod json;
mod layout;
pub mod limits;
pub mod merge;
pub mod metrics;
pub mod node_limits;
pub mod overview;
pub mod page;
pub mod profiles;
pub mod select;
pub mod sort;
pub mod table;
pub mod units;
pub mod watch;
pub mod why;
pub mod workload;
