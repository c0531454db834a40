//! The sources follow ARCHITECTURE.md: its map shows every file, and every path in src/ obeys its two tables.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod files;
mod map;
mod paths;
mod permissions;
mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The sources: path below src/ with `/` (folders end in one), and text.
type Sources = BTreeMap<String, String>;

fn read(relative: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn sources() -> Sources {
    fn collect(folder: &Path, prefix: &str, into: &mut Sources) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                into.insert(format!("{name}/"), String::new());
                collect(&path, &format!("{name}/"), into);
            } else {
                into.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = Sources::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    found
}

/// The text under the heading `## title`, up to the next one.
fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let start = document.find(&heading).unwrap_or_else(|| panic!("ARCHITECTURE.md has no heading `{title}`"));
    let rest = &document[start + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The words in backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_rust(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
}
