//! FACES: a report, rendered. Pure.

pub mod json;
pub mod metrics;
pub mod page;
pub mod profiles;
pub mod table;
pub mod units;
pub mod why;
