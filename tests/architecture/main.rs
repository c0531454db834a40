//! The sources follow ARCHITECTURE.md: its map shows every file, and every path in src/ obeys its two tables.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod paths;
mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use paths::named;

/// The sources: path below src/ with `/` (folders end in one), and text.
type Sources = BTreeMap<String, String>;
/// First cell of a table's row to the names in its second.
type Table = BTreeMap<String, Vec<String>>;

/// What ARCHITECTURE.md allows.
struct Rules {
    /// Module to what it may import of ours.
    imports: Table,
    /// Path outside of this crate to the modules that may name it.
    outside: Table,
}

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

/// Rows of every table in a section whose first cell holds names; their second cell holds names too.
fn table(section: &str) -> Table {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| {
        let row = format!("`{row}");
        let mut cells = row.split('|');
        let first = quoted(cells.next().unwrap_or_default());
        let second = quoted(cells.next().unwrap_or_default());
        first.into_iter().map(move |name| (name, second.clone()))
    })
    .collect()
}

fn rules() -> Rules {
    let document = read("ARCHITECTURE.md");
    Rules {
        imports: table(section(&document, "Who may import whom")),
        outside: table(section(&document, "Who may touch the outside")),
    }
}

/// Paths in the tree drawn under "The map of the sources", with their line of description.
fn map() -> BTreeMap<String, String> {
    let document = read("ARCHITECTURE.md");
    let tree = section(&document, "The map of the sources").split("```").nth(1).expect("the map is a code block");
    let mut folders: Vec<&str> = Vec::new();
    let mut found = BTreeMap::new();
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let (name, what) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        folders.truncate(depth);
        let path = folders.concat() + name;
        if name.ends_with('/') {
            folders.push(name);
        }
        if let Some(path) = path.strip_prefix("src/").filter(|path| !path.is_empty()) {
            found.insert(path.to_owned(), what.trim().to_owned());
        }
    }
    found
}

/// `host/owners/mod.rs` is the module `host::owners`.
fn module_of(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
    file.split('/').filter(|segment| *segment != "lib").map(str::to_owned).collect()
}

/// Whether `path` is `within`, or below it.
fn is_within(path: &[String], within: &str) -> bool {
    let within: Vec<_> = within.split("::").collect();
    path.len() >= within.len() && within.iter().zip(path).all(|(a, b)| a == b)
}

fn is_rust(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
}

/// Every path that a rule forbids, as a sentence.
fn violations(rules: &Rules, file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let own = module.first().map_or("lib", String::as_str);
    let Some(allowed) = rules.imports.get(own) else {
        return vec![format!("src/{file}: `{own}` has no row in ARCHITECTURE.md's table of imports")];
    };
    let paths = named(text, &module).unwrap_or_else(|error| panic!("src/{file}: {error}"));
    let mut wrong = Vec::new();
    for named in paths {
        let place = format!("src/{file}:{}: {}", named.line, named.path.join("::"));
        if named.ours {
            let mut within = allowed.iter().map(String::as_str).chain([own]);
            if !within.any(|within| is_within(&named.path, within)) {
                wrong.push(format!("{place}: `{own}` may import only {allowed:?}"));
            }
        } else {
            let bound = rules.outside.iter().filter(|(outside, _)| is_within(&named.path, outside));
            for (_, holders) in bound {
                if !holders.iter().any(|holder| is_within(&module, holder)) {
                    wrong.push(format!("{place}: only for {holders:?}"));
                }
            }
        }
    }
    wrong
}

#[test]
fn imports_are_those_of_the_tables() {
    let rules = rules();
    let sources = sources();
    let mut wrong = Vec::new();
    for (file, text) in sources.iter().filter(|(file, _)| is_rust(file)) {
        wrong.extend(violations(&rules, file, text));
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md's tables do not allow this:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_is_about_something_that_exists() {
    let rules = rules();
    let sources = sources();
    let modules: Vec<_> = sources.keys().filter(|file| is_rust(file)).map(|file| module_of(file)).collect();
    let is_module = |name: &str| modules.iter().any(|module| is_within(module, name));
    let holders = rules.outside.values().flatten();
    let stale: Vec<_> = rules.imports.keys().chain(holders).filter(|name| *name != "lib" && !is_module(name)).collect();
    assert!(stale.is_empty(), "ARCHITECTURE.md names modules that do not exist: {stale:?}");
    let named: Vec<_> = sources
        .iter()
        .filter(|(file, _)| is_rust(file))
        .flat_map(|(file, text)| named(text, &module_of(file)).unwrap())
        .filter(|path| !path.ours)
        .collect();
    let used = |name: &&String| named.iter().any(|path| is_within(&path.path, name));
    let idle: Vec<_> = rules.outside.keys().filter(|name| !used(name)).collect();
    assert!(idle.is_empty(), "nothing in src/ names {idle:?} any more");
}

#[test]
fn planted_violations_are_found() {
    let rules = rules();
    let planted = [
        ("judge/planted.rs", "use crate::host::netns;", "host::netns"),
        ("judge/planted.rs", "use crate::{owner::Owner, host::{self, Host}};", "host"),
        ("judge/planted.rs", "use super::super::show::table;", "show::table"),
        ("judge/planted.rs", "mod tests { use super::super::super::web; }", "web"),
        ("judge/planted.rs", "fn f() { vec![crate::record::Record::new()]; }", "record::Record::new"),
        (
            "judge/planted.rs",
            "fn f() -> crate::show::json::Document<'static> { g::<crate::web::Page>() }",
            "show::json",
        ),
        ("show/planted.rs", "use crate::judge::memory::Tracker;", "judge::memory::Tracker"),
        ("show/planted.rs", "use crate::judge;", "judge"),
        ("show/planted.rs", "use crate::*;", "`show` may import"),
        ("socket.rs", "use crate::owner::Owner;", "owner::Owner"),
        ("main.rs", "use keepalive_auditor::host::Host;", "host::Host"),
        ("judge/planted.rs", "fn now() -> u64 { std::time::Instant::now().elapsed().as_secs() }", "Instant"),
        ("digest.rs", "use std::{fs, fmt};", "std::fs"),
        ("wire/planted.rs", "use rustix::net;", "rustix::net"),
    ];
    for (file, text, path) in planted {
        let wrong = violations(&rules, file, text);
        assert!(wrong.iter().any(|wrong| wrong.contains(path)), "{file}: {text}\nfound: {wrong:?}");
    }
    let missing = violations(&rules, "annex.rs", "");
    assert!(missing.concat().contains("no row"), "{missing:?}");
}

#[test]
fn what_is_allowed_is_not_reported() {
    let rules = rules();
    let fine = [
        ("judge/planted.rs", "use crate::{owner::{NsId, Owner}, socket::*};"),
        ("judge/planted.rs", "use super::memory::Tracker; mod tests { use super::*; use super::super::policy; }"),
        (
            "judge/planted.rs",
            "//! [`crate::host`]\n/* crate::host */ const S: &str = \"use crate::host;\"; // crate::web",
        ),
        ("host/owners/planted.rs", "use super::super::netns; use rustix::fs::Dir;"),
    ];
    for (file, text) in fine {
        assert_eq!(violations(&rules, file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn the_map_shows_every_file_and_nothing_else() {
    let map = map();
    let sources = sources();
    // what is not Rust is told of by its folder
    let shown = |path: &str| is_rust(path) || path.ends_with('/');
    let absent: Vec<_> = sources.keys().filter(|path| shown(path) && !map.contains_key(*path)).collect();
    assert!(absent.is_empty(), "not in ARCHITECTURE.md's map: {absent:?}");
    let gone: Vec<_> = map.keys().filter(|path| !sources.contains_key(*path)).collect();
    assert!(gone.is_empty(), "in ARCHITECTURE.md's map, but not in src/: {gone:?}");
    let silent: Vec<_> = map.iter().filter(|(_, what)| what.is_empty()).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "ARCHITECTURE.md's map does not say what these are: {silent:?}");
}

#[test]
fn every_file_opens_with_its_subject() {
    let sources = sources();
    let rust: Vec<_> = sources.iter().filter(|(file, _)| is_rust(file)).collect();
    assert!(rust.len() > 20, "only {} files found", rust.len());
    let mute: Vec<_> = rust.iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(mute.is_empty(), "these do not open with a `//!` line: {mute:?}");
}
