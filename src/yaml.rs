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
        message.to_owned()
    }
}
