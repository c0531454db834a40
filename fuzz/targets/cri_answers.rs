//! Answers of a container runtime: two lists and a status, each after its length in two bytes.
#![no_main]

use keepalive_auditor::host::owners::fuzzing;
use libfuzzer_sys::fuzz_target;

/// Takes as many bytes as the first two bytes say, or all that are left.
fn part<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return std::mem::take(bytes) };
    let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    *bytes = rest;
    part
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    let lists = [part(&mut bytes), part(&mut bytes)];
    fuzzing::cri_answers(lists, bytes);
});
