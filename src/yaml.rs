//! YAML files that people write: an error names its line and key, and suggests the nearest valid word.

use serde::de::DeserializeOwned;

use crate::words;

/// Parses a file's text; one without any content is the default.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    let mut key = String::new();
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |from| {
        serde_path_to_error::deserialize(from).map_err(|error| {
            key = error.path().to_string();
            error.into_inner()
        })
    })
    .map_err(|error| {
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        let line = error.location().map_or(0, |location| location.line());
        if let Some(twice) = message.strip_prefix("duplicate mapping key: ") {
            return format!("line {line}, key {}: given twice", twice.split(',').next().unwrap_or(twice));
        }
        let key = if key.is_empty() || key == "." { String::new() } else { format!(", key {key}") };
        format!("line {line}{key}: {}", plain(message))
    })
}

/// The parser's message in the words of this program. What is not known here stays as it is.
fn plain(message: &str) -> String {
    let expected = message.split_once(", expected ").map(|(_, list)| list.trim_start_matches("one of "));
    if let (Some(kind), true) = (expected, message.starts_with("invalid type: ")) {
        return format!("not {kind}");
    }
    let known = expected.unwrap_or_default().split([',', ' ']).map(|word| word.trim_matches('`'));
    let known: Vec<&str> = known.filter(|word| !word.is_empty() && *word != "or").collect();
    let quoted = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(key) = quoted("unknown field `") {
        format!("unknown key{}", words::suggest(key, known.iter().copied()))
    } else if let Some(value) = quoted("unknown variant `") {
        format!("unknown value `{value}`{}", words::suggest(value, known.iter().copied()))
    } else if let Some(key) = quoted("missing field `") {
        format!("the key `{key}` is missing")
    } else {
        of_shape(message).map_or_else(|| message.to_owned(), str::to_owned)
    }
}

/// What the parser says of a value of the wrong kind, or of the file as a whole.
fn of_shape(message: &str) -> Option<&'static str> {
    if let Some(kind) = message.strip_prefix("invalid ") {
        return match kind.chars().next()? {
            'u' | 'i' if kind[1..].parse::<u8>().is_ok() || kind.ends_with("size") => {
                Some("not a whole number; write digits only")
            }
            'f' if kind[1..].parse::<u8>().is_ok() => Some("not a number; write one like 10"),
            'b' if kind.starts_with("bool") => Some("neither true nor false; write one of them"),
            _ => None,
        };
    }
    let of_start = [
        ("expected sequence", "not a list; write [a, b], or one line `- a` for each"),
        ("expected mapping", "not a mapping; write lines of `key: value`"),
        ("expected string scalar", "not one value; write a text or a number"),
        ("expected scalar", "not one value; write a text or a number"),
        ("cannot deserialize null", "no value; write one, or leave the key out"),
        ("cannot deserialize tagged", "a tag such as !x is not allowed; write the value alone"),
        ("unsupported tag", "a tag such as !x is not allowed; write the value alone"),
        ("multiple YAML documents", "a second document begins; write one document"),
        ("unexpected end", "the file ends too early; see whether it was copied whole"),
        ("input is not valid UTF-8", "the file is not text in UTF-8"),
        ("budget breached", "the file is too large or too deeply nested"),
        ("alias", "an alias (*name) is wrong or used too often; write the value itself"),
    ];
    of_start.into_iter().find(|(start, _)| message.starts_with(start)).map(|(_, plain)| plain)
}
