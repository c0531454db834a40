//! Executables of this machine, and damaged ones.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn of_file(path: &Path) -> Option<Binary> {
    read(&File::open(path).expect("the file opens"))
}

#[test]
fn this_test_is_a_rust_program() {
    let own = std::env::current_exe().expect("this program has a path");
    let linking = if cfg!(target_feature = "crt-static") { Linking::Static } else { Linking::Dynamic };
    assert_eq!(of_file(&own), Some(Binary { linking, language: Some(Language::Rust) }));
}

#[test]
fn programs_without_a_loader_are_static() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("a file");
    for (flag, linking) in [("-static", Linking::Static), ("-g", Linking::Dynamic)] {
        // not rustc, which may be in a home folder that this user cannot read
        let output = Command::new("cc").args([flag, "-o"]).arg(&program).arg(&source).output().expect("cc starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(of_file(&program), Some(Binary { linking, language: None }), "{flag}");
    }
}

#[test]
fn what_is_no_elf_file_says_nothing() {
    let script: &[u8] = b"#!/bin/sh\nexec true\n";
    for bytes in [&[][..], b"\x7fELF", script, &[0; 64]] {
        assert_eq!(read(&bytes), None, "{bytes:?}");
    }
}

/// A file of 32 or 64 bits with one segment for each of these parts, at whose end are the parts.
fn built(is_wide: bool, is_little: bool, parts: &[(u32, &[u8])]) -> Vec<u8> {
    let word = |number: u64, len: usize| -> Vec<u8> {
        let bytes = number.to_le_bytes()[..len].to_vec();
        if is_little { bytes } else { bytes.into_iter().rev().collect() }
    };
    let long = |number: usize| word(number as u64, if is_wide { 8 } else { 4 });
    let (header, segment) = if is_wide { (64, 56) } else { (52, 32) };
    let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(is_wide), 2 - u8::from(is_little)];
    file.resize(24, 0);
    file.extend([long(0), long(header), long(0), vec![0; 6]].concat());
    file.extend([word(segment as u64, 2), word(parts.len() as u64, 2), vec![0; 6]].concat());
    let mut at = header + segment * parts.len();
    for (kind, part) in parts {
        let kind = word(u64::from(*kind), 4);
        let fields = if is_wide {
            [kind, vec![0; 4], long(at), vec![0; 16], long(part.len())].concat()
        } else {
            [kind, long(at), vec![0; 8], long(part.len())].concat()
        };
        let end = file.len() + segment;
        file.extend(fields);
        file.resize(end, 0);
        at += part.len();
    }
    file.extend(parts.iter().flat_map(|(_, part)| *part));
    file
}

#[test]
fn every_width_and_order_of_bytes_is_read() {
    for (is_wide, is_little) in [(true, true), (true, false), (false, true), (false, false)] {
        let word = |number: u32| if is_little { number.to_le_bytes() } else { number.to_be_bytes() };
        let other = [&word(4)[..], &word(20), &word(3), b"GNU\0", &[7; 20]].concat();
        let go = [&other[..], &word(4), &word(8), &word(4), b"Go\0\0", b"buildid\0"].concat();
        for (parts, expected) in [
            (vec![(3, &b"/lib64/ld.so\0"[..]), (4, &other)], (Linking::Dynamic, None)),
            (vec![(4, &other[..])], (Linking::Static, None)),
            (vec![(1, b"code"), (4, &go)], (Linking::Static, Some(Language::Go))),
            (vec![(3, b"/lib/ld.so\0"), (4, &go)], (Linking::Dynamic, Some(Language::Go))),
        ] {
            let (linking, language) = expected;
            let file = built(is_wide, is_little, &parts);
            assert_eq!(read(&&file[..]), Some(Binary { linking, language }), "{is_wide} {is_little}");
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..2000)
}

/// Positions, and the extreme bytes that they get.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0_usize..3000, prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in bytes(), class in 1_u8..=2, data in 1_u8..=2) {
        let file = [&[0x7f, b'E', b'L', b'F', class, data][..], &bytes].concat();
        let _ = read(&&file[..]);
    }

    /// Fields of a real file, replaced by extreme ones.
    #[test]
    fn no_damage_makes_it_panic(changes in changes()) {
        thread_local!(static OWN: Vec<u8> = std::fs::read(std::env::current_exe().expect("a path")).expect("readable"));
        OWN.with(|own| {
            let mut head = own[..3000].to_vec();
            for (at, byte) in changes {
                head[at.max(6)] = byte;
            }
            let _ = read(&Damaged { head, rest: own });
        });
    }
}

/// A file whose first bytes are others.
struct Damaged<'a> {
    head: Vec<u8>,
    rest: &'a [u8],
}

impl Source for Damaged<'_> {
    fn read_at(&self, at: u64, len: usize) -> Vec<u8> {
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(self.rest.len());
        (from..self.rest.len()).take(len).map(|at| *self.head.get(at).unwrap_or(&self.rest[at])).collect()
    }
}
