//! The known middleboxes, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use humantime::format_duration;
use serde_json::json;

use crate::judge::policy::RefreshedBy;
use crate::judge::policy::profiles::{PROFILES, Profile};

const HEADINGS: [&str; 5] = ["PROFILE", "IDLE TIMEOUT", "CONFIGURABLE", "AT EXPIRY", "SOURCE"];

/// Every profile as a table; those that keepalive cannot help follow under a line that says so.
#[must_use]
pub fn table() -> String {
    let (helped, not_helped): (Vec<&Profile>, Vec<&Profile>) =
        PROFILES.iter().partition(|profile| profile.refreshed_by == RefreshedBy::Segment);
    let rows: Vec<[String; 5]> = PROFILES.iter().map(cells).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).fold(HEADINGS[column].len(), usize::max));
    let mut out = String::new();
    line(&mut out, &widths, &HEADINGS.map(String::from));
    for profile in helped {
        line(&mut out, &widths, &cells(profile));
    }
    if !not_helped.is_empty() {
        let forwards = not_helped.iter().filter(|profile| !profile.reads_http2);
        let counts: Vec<_> = forwards.map(|profile| profile.name).collect();
        let _ = writeln!(
            out,
            "\nNot helped by TCP keepalive (they count payload bytes, so only application traffic refreshes them; \
             HTTP/2 PING only {}):",
            counts.join(", ")
        );
    }
    for profile in not_helped {
        line(&mut out, &widths, &cells(profile));
    }
    out
}

/// The same as one JSON array; times in seconds.
#[must_use]
pub fn json() -> String {
    let rows: Vec<_> = PROFILES
        .iter()
        .map(|p| {
            json!({
                "name": p.name,
                "idle_timeout_seconds": p.idle_timeout.as_secs(),
                "configurable": p.range,
                "at_expiry": p.at_expiry,
                "how_to_change": p.change,
                "refreshed_by": p.refreshed_by.name(),
                "keepalive_helps": p.refreshed_by == RefreshedBy::Segment,
                "reads_http2": p.reads_http2,
                "http2_pings": p.pings,
                "source": p.source,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

/// One profile for `explain`.
#[must_use]
pub fn explain(profile: &Profile) -> String {
    let [_, idle, range, expiry, source] = cells(profile);
    let change = if profile.range == "fixed" { "it is fixed" } else { profile.change };
    let refreshed = match profile.refreshed_by {
        RefreshedBy::Segment => "any segment, keepalive probes included",
        RefreshedBy::Payload => "payload only: TCP keepalive does not help",
    };
    format!(
        "A known middlebox: use it with --profile {}.\n\nIdle timeout: {idle}\nConfigurable: {range}\nRefreshed by: \
         {refreshed}\nHTTP/2 PINGs: {}\n\
         At expiry:    {expiry}\nTo change it: {change}\nSource:       {source}",
        profile.name, profile.pings
    )
}

fn cells(profile: &Profile) -> [String; 5] {
    [
        profile.name.into(),
        seconds(profile.idle_timeout),
        profile.range.into(),
        profile.at_expiry.into(),
        profile.source.into(),
    ]
}

/// `350s` as the configuration writes it, and what that is where seconds alone are hard to read.
fn seconds(idle: Duration) -> String {
    let seconds = idle.as_secs();
    if seconds < 600 { format!("{seconds}s") } else { format!("{seconds}s ({})", format_duration(idle)) }
}

fn line(out: &mut String, widths: &[usize; 5], row: &[String; 5]) {
    let mut text = String::new();
    for (cell, width) in row.iter().zip(widths) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{cell:<width$}  ");
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_separates_what_keepalive_cannot_help() {
        let table = table();
        let (helped, not_helped) = table.split_once("Not helped by TCP keepalive").expect("has the line");
        assert!(helped.starts_with("PROFILE"), "{table}");
        assert!(helped.contains("\naws-nlb               350s"), "{table}");
        assert!(!helped.contains("aws-alb") && not_helped.contains("\naws-alb "), "{table}");
        assert_eq!(table.lines().count(), PROFILES.len() + 3, "one line each, a heading, a blank and a sentence");
    }

    #[test]
    fn the_json_has_every_profile_in_seconds() {
        let rows: serde_json::Value = serde_json::from_str(&json()).expect("is JSON");
        assert_eq!(rows.as_array().map(Vec::len), Some(PROFILES.len()));
        assert_eq!(rows[0]["name"], "aws-nlb");
        assert_eq!(rows[0]["idle_timeout_seconds"], 350);
        assert_eq!((&rows[0]["refreshed_by"], &rows[0]["keepalive_helps"]), (&json!("segment"), &json!(true)));
    }
}
