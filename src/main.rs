//! Exit codes, logging, dispatch.
fn main() {}
