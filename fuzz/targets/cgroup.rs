//! A cgroup path. Anybody who can make cgroups chooses such paths.
#![no_main]

use keepalive_auditor::host::owners::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzzing::cgroup_path(text));
