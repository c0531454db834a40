//! Formats a report as lines that the test can compare.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The connections of a report, one line each: owner, direction, keepalive, verdict. The agent's own HTTP connections
/// are left out.
pub fn lines(report: &Value) -> Result<Vec<String>> {
    let connections = report["connections"].as_array().context("a report has connections")?;
    let mut lines: Vec<String> = connections.iter().filter(|connection| !is_http(connection)).map(line).collect();
    lines.sort();
    Ok(lines)
}

/// The uids of the pods with this name in a report.
pub fn uids(report: &Value, pod: &str) -> Vec<String> {
    let connections = report["connections"].as_array().into_iter().flatten();
    let mut uids: Vec<_> = connections
        .filter(|connection| connection["owner"]["pod"] == pod)
        .map(|connection| word(&connection["owner"]["pod_uid"]).to_owned())
        .collect();
    uids.sort();
    uids.dedup();
    uids
}

/// The names of the pod with this uid, where a recording has it as the owner of a namespace.
pub fn namespaces_of(recording: &str, uid: &str) -> Result<Vec<String>> {
    let records: Vec<Value> = recording.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let owners = records.iter().map(|record| &record["namespace"]["owner"]);
    Ok(owners.filter(|owner| owner["pod_uid"] == uid).map(|owner| word(&owner["pod"]).to_owned()).collect())
}

fn is_http(connection: &Value) -> bool {
    ["local", "remote"].iter().any(|end| word(&connection[end]).ends_with(":9986"))
}

fn line(connection: &Value) -> String {
    let owner = &connection["owner"];
    let name = match word(&owner["kind"]) {
        "pod" => format!("{}/{} ({})", word(&owner["namespace"]), word(&owner["pod"]), word(&owner["container"])),
        kind => format!("{kind} {}", word(&owner["container"])),
    };
    let of = |key: &str| word(&connection[key]);
    format!("{name} {} {} {}", of("direction"), of("keepalive"), of("verdict"))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
