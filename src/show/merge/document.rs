//! What a merge reads of a report in JSON, schema 1. Everything that a report may lack is optional.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::show::escape;

#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub schema: u32,
    pub node: Text,
    pub sweep: Sweep,
    pub verdicts: BTreeMap<String, u64>,
    #[serde(default)]
    pub truncated: u64,
    pub connections: Vec<Connection>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sweep {
    pub connections: u64,
    #[serde(default)]
    pub incomplete: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Connection {
    pub verdict: Text,
    pub owner: Owner,
    pub direction: Text,
    pub endpoint: Text,
    pub keepalive: Text,
    pub path: Text,
    pub idle_timeout_seconds: f64,
    pub wire_idle_seconds: Option<f64>,
    pub process: Option<Process>,
    pub cause: Option<Text>,
    pub remedies: Option<Vec<Text>>,
    #[serde(default)]
    pub why: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct Owner {
    pub namespace: Option<Text>,
    pub pod: Option<Text>,
    pub container: Option<Text>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Process {
    pub comm: Option<Text>,
    /// As people know it. The first reports had none.
    pub program: Option<Text>,
}

/// Text of another machine. It is one line, and cannot steer a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(super) struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(escape::line(&text).into_owned())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
