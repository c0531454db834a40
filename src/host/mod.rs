//! Hands: the only folder that touches Linux.

pub mod owners;
