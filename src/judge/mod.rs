//! The mind: from what was seen of a socket, now and before, to a verdict. Pure; owns no clock and touches nothing.

pub mod assess;
pub mod fresh;
pub mod groups;
pub mod keepidle;
pub mod pair;
pub mod policy;
pub mod profiles;
pub mod report;
pub mod select;
pub mod silence;
pub mod skip;
pub mod track;
pub mod tracked;
pub mod verdict;
mod worst;
