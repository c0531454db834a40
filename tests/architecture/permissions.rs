//! Checks the sources against the two tables of ARCHITECTURE.md: who may import whom, and who may touch the outside.

use super::paths::{Named, named};
use super::{Sources, is_rust, quoted, read, section, sources};

/// A row of a table: the names in its first cell and the names in its second.
struct Row {
    first: Vec<String>,
    second: Vec<String>,
}

/// What ARCHITECTURE.md allows.
struct Rules {
    /// Modules, and what they may import from this crate.
    imports: Vec<Row>,
    /// Paths of other crates, and the modules that may name them.
    outside: Vec<Row>,
}

impl Rules {
    fn read() -> Self {
        let document = read("ARCHITECTURE.md");
        Self {
            imports: table(section(&document, "Who may import whom")),
            outside: table(section(&document, "Who may touch the outside")),
        }
    }

    /// What a module may import, or `None` without a row.
    fn imports_of(&self, module: &str) -> Option<&[String]> {
        self.imports.iter().find(|row| row.first.iter().any(|name| name == module)).map(|row| &*row.second)
    }
}

/// The rows of every table in a section whose first cell holds names.
fn table(section: &str) -> Vec<Row> {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_start_matches('|').split('|').map(quoted);
        Row { first: cells.next().unwrap_or_default(), second: cells.next().unwrap_or_default() }
    })
    .collect()
}

/// `host/owners/mod.rs` is the module `host::owners`.
fn module_of(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
    file.split('/').filter(|segment| *segment != "lib").map(str::to_owned).collect()
}

/// The top module of a file: `host/owners/mod.rs` belongs to `host`.
fn top_module(module: &[String]) -> &str {
    module.first().map_or("lib", String::as_str)
}

/// Whether `path` is `within`, or below it.
fn is_within(path: &[String], within: &str) -> bool {
    let within: Vec<_> = within.split("::").collect();
    path.len() >= within.len() && within.iter().zip(path).all(|(a, b)| a == b)
}

fn paths_of(file: &str, text: &str) -> Vec<Named> {
    named(text, &module_of(file)).unwrap_or_else(|error| panic!("src/{file}: {error}"))
}

/// Every path that a rule forbids, as a sentence.
fn violations(rules: &Rules, file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let own = top_module(&module);
    let Some(allowed) = rules.imports_of(own) else {
        return vec![format!("src/{file}: `{own}` has no row in ARCHITECTURE.md's table of imports")];
    };
    let mut wrong = Vec::new();
    for named in paths_of(file, text) {
        let location = format!("src/{file}:{}: {}", named.line, named.path.join("::"));
        if named.ours {
            let mut within = allowed.iter().map(String::as_str).chain([own]);
            if !within.any(|within| is_within(&named.path, within)) {
                wrong.push(format!("{location}: `{own}` may import only {allowed:?}"));
            }
        } else {
            for row in rules.outside.iter().filter(|row| row.first.iter().any(|path| is_within(&named.path, path))) {
                if !row.second.iter().any(|holder| is_within(&module, holder)) {
                    wrong.push(format!("{location}: only for {:?}", row.second));
                }
            }
        }
    }
    wrong
}

/// Every permission that no file uses, as a sentence.
fn unused(rules: &Rules, sources: &Sources) -> Vec<String> {
    let files = sources.iter().filter(|(file, _)| is_rust(file));
    let uses: Vec<_> =
        files.flat_map(|(file, text)| paths_of(file, text).into_iter().map(|named| (module_of(file), named))).collect();
    let mut unused = Vec::new();
    for row in &rules.imports {
        for permitted in &row.second {
            let needed = uses.iter().any(|(module, named)| {
                named.ours && row.first.iter().any(|own| own == top_module(module)) && is_within(&named.path, permitted)
            });
            if !needed {
                unused.push(format!("{:?} may import `{permitted}`", row.first));
            }
        }
    }
    for row in &rules.outside {
        let uses: Vec<_> = uses.iter().filter(|(_, named)| !named.ours).collect();
        for path in &row.first {
            if !uses.iter().any(|(_, named)| is_within(&named.path, path)) {
                unused.push(format!("`{path}`"));
            }
        }
        for holder in &row.second {
            let names_one = |named: &Named| row.first.iter().any(|path| is_within(&named.path, path));
            if !uses.iter().any(|(module, named)| is_within(module, holder) && names_one(named)) {
                unused.push(format!("`{holder}` may name {:?}", row.first));
            }
        }
    }
    unused
}

#[test]
fn imports_are_those_of_the_tables() {
    let rules = Rules::read();
    let sources = sources();
    let mut wrong = Vec::new();
    for (file, text) in sources.iter().filter(|(file, _)| is_rust(file)) {
        wrong.extend(violations(&rules, file, text));
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md's tables do not allow this:\n{}", wrong.join("\n"));
}

#[test]
fn every_permission_is_used() {
    let unused = unused(&Rules::read(), &sources());
    assert!(unused.is_empty(), "ARCHITECTURE.md's tables allow what no file in src/ does:\n{}", unused.join("\n"));
}

#[test]
fn unused_permissions_are_found() {
    let row = |first: &[&str], second: &[&str]| Row {
        first: first.iter().map(ToString::to_string).collect(),
        second: second.iter().map(ToString::to_string).collect(),
    };
    let rules = Rules {
        imports: vec![
            row(&["show"], &["judge::report", "judge::verdict"]),
            row(&["judge"], &[]),
            row(&["gone"], &["judge"]),
        ],
        outside: vec![row(&["std::fs"], &["show", "judge"]), row(&["std::thread"], &["show"])],
    };
    let files = [("show/table.rs", "use crate::judge::report::Report; use std::fs;"), ("judge/report.rs", "")];
    let sources = files.map(|(file, text)| (file.to_owned(), text.to_owned())).into();
    let expected = [
        r#"["show"] may import `judge::verdict`"#,
        r#"["gone"] may import `judge`"#,
        r#"`judge` may name ["std::fs"]"#,
        "`std::thread`",
        r#"`show` may name ["std::thread"]"#,
    ];
    assert_eq!(unused(&rules, &sources), expected);
}

#[test]
fn planted_violations_are_found() {
    let rules = Rules::read();
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
fn allowed_imports_are_not_reported() {
    let rules = Rules::read();
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
