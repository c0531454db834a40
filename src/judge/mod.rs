//! Computes verdicts from the samples of sockets. Pure: it has no clock and opens nothing.

pub mod assess;
mod assessor;
pub mod cause;
pub mod ends;
mod facts;
pub mod groups;
pub mod idle_times;
pub mod lasting;
pub mod limits;
pub mod memory;
pub mod pair;
pub mod policy;
pub mod report;
pub mod verdict;
mod worst;
