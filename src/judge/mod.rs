//! The mind: from what was seen of a socket, now and before, to a verdict. Pure; owns no clock and touches nothing.

pub mod assess;
mod assessor;
pub mod cause;
pub mod groups;
pub mod lasting;
pub mod memory;
pub mod pair;
pub mod policy;
pub mod report;
pub mod silence;
pub mod verdict;
mod worst;
