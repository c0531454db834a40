//! Finds the paths that a source file names in its tokens: in `use` trees, inline and in macros, but not in comments or
//! strings.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path that a file names: `crate::`, `self::` and `super::` are resolved, a path of another crate begins with that
/// crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub line: usize,
    pub ours: bool,
    pub path: Vec<String>,
}

/// All paths of at least two segments, and globs of this crate, in the `source` of the module `module`.
pub fn named(source: &str, module: &[String]) -> Result<Vec<Named>, String> {
    let tokens: TokenStream = source.parse().map_err(|error| format!("not Rust: {error}"))?;
    let mut found = Vec::new();
    scan(tokens, module, &mut found);
    Ok(found)
}

fn scan(tokens: TokenStream, module: &[String], found: &mut Vec<Named>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] if word == "mod" => {
                let inner: Vec<_> = module.iter().cloned().chain([name.to_string()]).collect();
                scan(body.stream(), &inner, found);
                at += 3;
            }
            [TokenTree::Ident(_), ..] if is_separator(&tokens[at + 1..]) => {
                at = path(&tokens, at, &[], module, found);
            }
            [TokenTree::Group(group), ..] => {
                scan(group.stream(), module, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}

/// Reads the path that begins at `at`, after `prefix`; returns where it ends.
fn path(tokens: &[TokenTree], mut at: usize, prefix: &[String], module: &[String], found: &mut Vec<Named>) -> usize {
    let line = tokens[at].span().start().line;
    let mut segments = prefix.to_vec();
    loop {
        match tokens.get(at) {
            // turbofish, `*`: the path ends before them
            Some(TokenTree::Ident(segment)) => {
                if segment != "self" || segments.is_empty() {
                    segments.push(segment.to_string());
                }
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                branches(group, &segments, module, found);
                return at + 1;
            }
            _ => break,
        }
        if !is_separator(&tokens[at..]) {
            break;
        }
        at += 2;
    }
    if segments.len() > 1 || matches!(segments[0].as_str(), "crate" | "keepalive_auditor" | "self" | "super") {
        found.push(resolve(line, &segments, module));
    }
    at
}

/// The branches of a `use` tree: `{a::b, c as d, self, *}`.
fn branches(group: &Group, prefix: &[String], module: &[String], found: &mut Vec<Named>) {
    let tokens: Vec<_> = group.stream().into_iter().collect();
    for branch in tokens.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
        if !branch.is_empty() {
            path(branch, 0, prefix, module, found);
        }
    }
}

fn resolve(line: usize, segments: &[String], module: &[String]) -> Named {
    let (base, rest): (Vec<String>, usize) = match segments[0].as_str() {
        "crate" | "keepalive_auditor" => (Vec::new(), 1),
        "self" | "super" => {
            let own = usize::from(segments[0] == "self");
            let up = segments[own..].iter().take_while(|segment| *segment == "super").count();
            (module[..module.len().saturating_sub(up)].to_vec(), own + up)
        }
        _ => return Named { line, ours: false, path: segments.to_vec() },
    };
    Named { line, ours: true, path: base.into_iter().chain(segments[rest..].iter().cloned()).collect() }
}
