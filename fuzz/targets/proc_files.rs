//! Files of `/proc`: a process's cgroups, a namespace's counters, a link to a descriptor.
#![no_main]

use keepalive_auditor::host::owners::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzzing::proc_files(text));
