//! Reads from the headers of an ELF file how it is linked, and the compiler's mark. Whoever made the file chose every
//! byte of it, so each read is bounded.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::owner::{Binary, Language, Linking};

/// The most headers that are read; real executables have 15 and 45.
const MAX_HEADERS: u64 = 256;
/// The most bytes of one note, of the names of sections, and of the compilers' marks.
const MAX_BYTES: u64 = 16 << 10;

const PT_INTERP: u64 = 3;
const PT_NOTE: u64 = 4;
const SHT_NOBITS: u64 = 8;

/// A file that can be read at any position.
pub(super) trait Source {
    /// Up to `len` bytes from there; fewer at the end of the file or after an error.
    fn read_at(&self, at: u64, len: usize) -> Vec<u8>;
}

impl Source for File {
    fn read_at(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        bytes.truncate(done);
        bytes
    }
}

/// Bytes in memory: for tests and fuzz targets.
#[cfg(any(test, fuzzing))]
impl Source for &[u8] {
    fn read_at(&self, at: u64, len: usize) -> Vec<u8> {
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        self.iter().skip(from).copied().take(len).collect()
    }
}

/// The form of an ELF file: 32 or 64 bits, and the order of bytes.
#[derive(Clone, Copy)]
struct Form {
    is_wide: bool,
    is_little: bool,
}

/// Positions of fields in structures of 32 and of 64 bits.
type At = [usize; 2];

impl Form {
    fn number(self, bytes: &[u8], at: At, len: At) -> Option<u64> {
        let which = usize::from(self.is_wide);
        let bytes = bytes.get(at[which]..)?.get(..len[which])?;
        let digit = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.is_little { bytes.iter().rev().fold(0, digit) } else { bytes.iter().fold(0, digit) })
    }

    fn half(self, bytes: &[u8], at: At) -> Option<u64> {
        self.number(bytes, at, [2; 2])
    }

    fn word(self, bytes: &[u8], at: At) -> Option<u64> {
        self.number(bytes, at, [4; 2])
    }

    /// An address, an offset or a size.
    fn long(self, bytes: &[u8], at: At) -> Option<u64> {
        self.number(bytes, at, [4, 8])
    }
}

/// A part of the file.
#[derive(Clone, Copy)]
struct Part {
    at: u64,
    len: u64,
}

impl Part {
    fn read(self, file: &impl Source) -> Vec<u8> {
        file.read_at(self.at, usize::try_from(self.len.min(MAX_BYTES)).unwrap_or_default())
    }
}

/// What the headers say. `None` if it is not an ELF executable.
pub(super) fn read(file: &impl Source) -> Option<Binary> {
    let header = file.read_at(0, 64);
    let [0x7f, b'E', b'L', b'F', class @ (1 | 2), data @ (1 | 2), ..] = header[..] else { return None };
    let form = Form { is_wide: class == 2, is_little: data == 1 };
    let table = |at: At, size: At, count: At| {
        let (size, count) = (form.half(&header, size)?, form.half(&header, count)?);
        let len = usize::try_from(size * count.min(MAX_HEADERS)).ok()?;
        (size > 0).then(|| (file.read_at(form.long(&header, at).unwrap_or_default(), len), size))
    };
    let (segments, size) = table([28, 32], [42, 54], [44, 56])?;
    let segments: Vec<&[u8]> = segments.chunks_exact(usize::try_from(size).ok()?).collect();
    let kind = |segment: &[u8]| form.word(segment, [0; 2]);
    let is_dynamic = segments.iter().any(|segment| kind(segment) == Some(PT_INTERP));
    let notes = segments.iter().filter(|segment| kind(segment) == Some(PT_NOTE));
    let notes = notes.filter_map(|it| Some(Part { at: form.long(it, [4, 8])?, len: form.long(it, [16, 32])? }));
    let is_go = notes.into_iter().any(|note| has_go_note(form, &note.read(file)));
    let sections = table([32, 40], [46, 58], [48, 60]).map(|(sections, size)| {
        let names = form.half(&header, [50, 62]).unwrap_or_default();
        Sections { form, size: usize::try_from(size).unwrap_or(usize::MAX), names, bytes: sections }
    });
    let language = match sections {
        _ if is_go => Some(Language::Go),
        Some(sections) => sections.language(file),
        None => None,
    };
    Some(Binary { linking: if is_dynamic { Linking::Dynamic } else { Linking::Static }, language })
}

/// Whether a note is the build id of Go: name `Go`, type 4.
fn has_go_note(form: Form, mut notes: &[u8]) -> bool {
    let padded = |len: u64| usize::try_from(len.next_multiple_of(4)).ok();
    loop {
        let fields = (form.word(notes, [0; 2]), form.word(notes, [4; 2]), form.word(notes, [8; 2]));
        let (Some(name), Some(text), Some(kind)) = fields else { return false };
        if kind == 4 && notes.get(12..).is_some_and(|name| name.starts_with(b"Go\0\0")) {
            return true;
        }
        let next = padded(name).zip(padded(text)).and_then(|(name, text)| notes.get(12 + name + text..));
        let Some(next) = next else { return false };
        notes = next;
    }
}

/// The section headers.
struct Sections {
    form: Form,
    /// Of one header.
    size: usize,
    /// The number of the section with the names.
    names: u64,
    bytes: Vec<u8>,
}

impl Sections {
    fn language(&self, file: &impl Source) -> Option<Language> {
        let all: Vec<&[u8]> = self.bytes.chunks_exact(self.size).collect();
        let names = self.part(all.get(usize::try_from(self.names).ok()?)?)?.read(file);
        let name = |section: &[u8]| {
            let at = usize::try_from(self.form.word(section, [0; 2])?).ok()?;
            names.get(at..)?.split(|byte| *byte == 0).next()
        };
        let find = |wanted: &[u8]| all.iter().find(|section| name(section) == Some(wanted));
        if find(b".go.buildinfo").or_else(|| find(b".note.go.buildid")).is_some() {
            return Some(Language::Go);
        }
        let marks = self.part(find(b".comment")?)?.read(file);
        let is_rust = marks.split(|byte| *byte == 0).any(|mark| mark.starts_with(b"rustc version"));
        is_rust.then_some(Language::Rust)
    }

    fn part(&self, section: &[u8]) -> Option<Part> {
        let has_bytes = self.form.word(section, [4; 2])? != SHT_NOBITS;
        let part = Part { at: self.form.long(section, [16, 24])?, len: self.form.long(section, [20, 32])? };
        has_bytes.then_some(part)
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
