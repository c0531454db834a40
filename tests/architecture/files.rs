//! Each source file has a first line with its subject, and lines that fit on a screen.

use std::fs;
use std::path::{Path, PathBuf};

use super::{is_rust, sources};

/// rustfmt's `max_width`, which rustfmt does not apply to comments and long strings.
const COLUMNS: usize = 120;

/// Every file of Rust below a folder of the repository.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                collect(&path, into);
            } else if is_rust(&path.to_string_lossy()) {
                into.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found
}

#[test]
fn every_file_opens_with_its_subject() {
    let sources = sources();
    let rust: Vec<_> = sources.iter().filter(|(file, _)| is_rust(file)).collect();
    assert!(rust.len() > 20, "only {} files found", rust.len());
    let without: Vec<_> = rust.iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(without.is_empty(), "these do not open with a `//!` line: {without:?}");
}

#[test]
fn no_line_is_longer_than_120_columns() {
    let files: Vec<_> = ["src", "tests", "benches", "fuzz"].into_iter().flat_map(rust_files).collect();
    assert!(files.len() > 100, "only {} files found", files.len());
    let mut long = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| line.chars().count() > COLUMNS) {
            long.push(format!("{}:{number}: {} columns", file.display(), line.chars().count()));
        }
    }
    assert!(long.is_empty(), "{} lines are longer than {COLUMNS} columns:\n{}", long.len(), long.join("\n"));
}

/// Small files have one subject each. Long ones are the exception.
#[test]
fn files_are_small() {
    let mut lines: Vec<_> =
        sources().iter().filter(|(file, _)| is_rust(file)).map(|(_, text)| text.lines().count()).collect();
    lines.sort_unstable();
    let (median, most) = (lines[lines.len() / 2], lines[lines.len() * 9 / 10]);
    assert!(
        median <= 150 && most <= 300,
        "of {} files half have up to {median} lines, nine tenths {most}",
        lines.len()
    );
}
