//! The harness of the kernel ring: a world of its own for each test, sockets with known options, and the real binary.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test target uses its own part of the harness")]
#![allow(clippy::panic, reason = "a test fails by a panic; clippy knows only functions marked as tests")]

pub mod binary;
pub mod check;
pub mod link;
pub mod metrics;
pub mod netns;
pub mod recording;
pub mod socket;
pub mod watch;
pub mod world;

/// Declares a kernel test: the body runs in a process of its own, in its own user, network, mount and PID namespaces.
///
/// Tools that the body calls beside util-linux are named after the body: `kernel_test!(name, body, needs "nft")`.
macro_rules! kernel_test {
    ($name:ident, $body:expr $(, needs $tool:literal)*) => {
        #[test]
        fn $name() {
            $crate::support::world::run(concat!(module_path!(), "::", stringify!($name)), &[$($tool),*], $body);
        }
    };
}
pub(crate) use kernel_test;
