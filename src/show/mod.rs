//! FACES: a report, rendered. Pure.

pub mod compare;
pub mod explain;
pub mod profiles;
pub mod remedy;
pub mod workload;
