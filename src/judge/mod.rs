//! MIND: pure judgement of what the kernel said. Nothing here reads a clock, a file or the network.

pub mod profiles;
