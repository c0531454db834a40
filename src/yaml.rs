//! YAML that people write: errors name line and key.

use serde::de::DeserializeOwned;

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
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        let line = error.location().map_or(0, |location| location.line());
        let key = if key.is_empty() || key == "." { String::new() } else { format!(", key {key}") };
        format!("line {line}{key}: {message}")
    })
}
