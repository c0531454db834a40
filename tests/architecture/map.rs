//! The map of ARCHITECTURE.md.

use std::collections::BTreeMap;

use super::{is_rust, read, section, sources};

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

#[test]
fn the_map_shows_every_file_and_nothing_else() {
    let map = map();
    let sources = sources();
    // Other files are described by their folder.
    let shown = |path: &str| is_rust(path) || path.ends_with('/');
    let absent: Vec<_> = sources.keys().filter(|path| shown(path) && !map.contains_key(*path)).collect();
    assert!(absent.is_empty(), "not in ARCHITECTURE.md's map: {absent:?}");
    let gone: Vec<_> = map.keys().filter(|path| !sources.contains_key(*path)).collect();
    assert!(gone.is_empty(), "in ARCHITECTURE.md's map, but not in src/: {gone:?}");
    let undescribed: Vec<_> = map.iter().filter(|(_, what)| what.is_empty()).map(|(path, _)| path).collect();
    assert!(undescribed.is_empty(), "ARCHITECTURE.md's map does not say what these are: {undescribed:?}");
}
