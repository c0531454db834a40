//! Checks the files for clusters: the manifests ask for no more than they need, chart and kustomize base agree, rules
//! and dashboards are valid. The tests read the golden renders. tests/deploy/render.py compares those with the output
//! of Helm and kustomize.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod dashboards;
mod docs;
mod manifests;
mod plugin;
mod program;
mod rules;
mod verdicts;

use keepalive_auditor::show::metrics::families::{self, Kind};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("cannot read {relative}: {error}"))
}

/// Every document of a YAML file.
fn yaml(relative: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read(relative)).unwrap_or_else(|error| panic!("{relative} is not YAML: {error}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn json(relative: &str) -> Value {
    serde_json::from_str(&read(relative)).unwrap_or_else(|error| panic!("{relative} is not JSON: {error}"))
}

/// The files of a directory with one of these endings, relative to the repository.
fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(path(directory))
        .unwrap_or_else(|error| panic!("cannot list {directory}: {error}"))
        .map(|entry| format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|file| file.ends_with(ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{directory} holds no {ending}");
    found
}

/// Names in a query that begin like metrics of the agent, or like series recorded from them.
fn metric_names(expr: &str) -> Vec<String> {
    expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.contains("keepalive_auditor_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// Every metric of the agent, with the suffixes that a histogram's series have.
fn known_metrics() -> Vec<String> {
    let mut names = Vec::new();
    for family in families::ALL {
        match family.kind {
            Kind::Histogram => {
                names.extend(["bucket", "count", "sum"].map(|part| format!("{}_{part}", family.full_name())));
            }
            Kind::Gauge | Kind::Counter => names.push(family.full_name()),
        }
    }
    names
}
