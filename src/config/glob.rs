//! Globs of flags, keys and queries: bounded, and with errors in plain words.

use globset::{Glob, GlobMatcher};

/// The longest glob: names of pods have at most 253 characters.
const MAX_GLOB: usize = 1024;
/// The deepest nesting of braces: the parser is recursive.
const MAX_NESTING: usize = 8;

/// A glob of a flag, key or query, compiled.
pub fn glob(text: &str) -> Result<GlobMatcher, String> {
    if text.len() > MAX_GLOB {
        return Err(format!("a glob of {} bytes is too long; at most {MAX_GLOB} are allowed", text.len()));
    }
    let mut nesting: usize = 0;
    for character in text.chars() {
        match character {
            '{' => nesting += 1,
            '}' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > MAX_NESTING {
            return Err(format!("`{text}` is not a glob: its braces are nested more than {MAX_NESTING} deep"));
        }
    }
    Glob::new(text)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("`{text}` is not a glob: {}", problem(error.kind())))
}

fn problem(kind: &globset::ErrorKind) -> String {
    match kind {
        globset::ErrorKind::UnclosedClass => "a `[` is not closed; write [[] for the character itself".to_owned(),
        globset::ErrorKind::UnclosedAlternates => "a `{` is not closed; write [{] for the character itself".to_owned(),
        globset::ErrorKind::UnopenedAlternates => "a `}` has no `{`; write [}] for the character itself".to_owned(),
        globset::ErrorKind::DanglingEscape => "it ends with a backslash; write it twice".to_owned(),
        globset::ErrorKind::InvalidRange(first, last) => format!("the range {first}-{last} is empty"),
        _ => "it is too complex".to_owned(),
    }
}
