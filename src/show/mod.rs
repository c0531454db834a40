//! FACES: a report, rendered. Pure.

pub mod profiles;
pub mod remedy;
