//! FACES: a report, rendered. Pure.

mod advice;
pub mod compare;
pub mod explain;
pub mod fit;
pub mod json;
pub mod metrics;
pub mod page;
pub mod profiles;
pub mod table;
pub mod units;
pub mod why;
pub mod workload;
