//! What several tests share: isolated namespaces for each test, sockets with known options, and the real binary.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test target uses its own part")]
#![allow(clippy::panic, reason = "a test fails by a panic; clippy knows only functions marked as tests")]

pub mod binary;
pub mod checks;
pub mod findings;
pub mod isolation;
pub mod metrics;
pub mod netns;
pub mod recording;
pub mod router;
pub mod rtnetlink;
pub mod socket;
pub mod timeline;

/// Declares a kernel test: the body runs in a process of its own, in its own user, network, mount and PID namespaces.
///
/// The body's tools other than util-linux are named after it: `kernel_test!(name, body, needs "nft")`.
macro_rules! kernel_test {
    ($name:ident, $body:expr $(, needs $tool:literal)*) => {
        #[test]
        fn $name() {
            $crate::support::isolation::run(concat!(module_path!(), "::", stringify!($name)), &[$($tool),*], $body);
        }
    };
}
pub(crate) use kernel_test;
