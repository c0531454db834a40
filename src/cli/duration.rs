//! The parser of durations in flags, environment and configuration file.

use std::time::Duration;

/// A duration with its unit: `90s`, `5m`, `2h`, `1h 30m`. Zero is refused.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.starts_with("--") {
        return Err(format!("the duration is missing before {text}; write one like 90s, 5m or 2h"));
    }
    if let Some(positive) = text.strip_prefix('-').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        let unit = if is_number(positive) { "s" } else { "" };
        return Err(format!("durations are not negative; write {positive}{unit}"));
    }
    if is_number(text) && text.parse::<f64>().is_ok_and(|number| number != 0.0) {
        return Err(format!("a duration needs a unit; write {text}s, {text}m or {text}h"));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("a duration of zero is not allowed; write one like 1s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) if is_number(text) => Err("a duration of zero is not allowed; write one like 1s".to_owned()),
        Err(_) => Err("not a duration; write a number and a unit, like 90s, 5m or 2h".to_owned()),
    }
}

/// A duration or bare seconds, because Envoy, Istio and HAProxy write keepalive times in seconds.
pub fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    text.trim().parse().map_or_else(|_| duration(text), |seconds| Ok(Duration::from_secs(seconds)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_above_zero() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("2h", 7200), (" 1h 30m ", 5400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, expected) in [
            ("350", "a duration needs a unit; write 350s, 350m or 350h"),
            ("-5s", "durations are not negative; write 5s"),
            ("-5", "durations are not negative; write 5s"),
            ("0", "a duration of zero is not allowed; write one like 1s"),
            ("0s", "a duration of zero is not allowed; write one like 1s"),
            ("soon", "not a duration; write a number and a unit, like 90s, 5m or 2h"),
            ("", "not a duration; write a number and a unit, like 90s, 5m or 2h"),
            ("--all", "the duration is missing before --all; write one like 90s, 5m or 2h"),
        ] {
            assert_eq!(duration(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn seconds_may_be_bare_where_the_field_writes_them_so() {
        assert_eq!(duration_or_seconds("300"), Ok(Duration::from_mins(5)));
        assert_eq!(duration_or_seconds("5m"), Ok(Duration::from_mins(5)));
        // the kernel's limits are checked where they are known, and zero with them
        assert_eq!(duration_or_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_seconds("-5"), Err("durations are not negative; write 5s".to_owned()));
    }
}
