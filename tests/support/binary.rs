//! Runs the real binary: `audit` to its end, `agent` beside the test. Reads the reports of both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::socket::Id;

/// A whole report in schema 1. A missing field fails the test.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub node: String,
    pub version: String,
    pub sweep: Sweep,
    pub verdicts: BTreeMap<String, u64>,
    pub truncated: u64,
    /// The default path is the first.
    pub paths: Vec<serde_json::Value>,
    pub connections: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Sweep {
    pub started_at: String,
    pub duration_seconds: f64,
    pub namespaces: BTreeMap<String, u64>,
    pub connections: u64,
    pub ignored: u64,
    pub incomplete: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    pub netns: u64,
    #[serde(deserialize_with = "present")]
    pub netns_name: Option<String>,
    pub owner: Owner,
    pub family: String,
    pub local: String,
    pub remote: String,
    pub direction: String,
    pub endpoint: String,
    pub timer: Timer,
    pub keepalive: String,
    #[serde(deserialize_with = "present")]
    pub keepalive_idle_seconds: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub keepalive_idle_is: Option<String>,
    #[serde(deserialize_with = "present")]
    pub data_idle_seconds: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub request_idle_seconds: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub wire_idle_seconds: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub last_heard_seconds: Option<f64>,
    pub unanswered: Unanswered,
    pub refreshed_by: String,
    pub reads_http2: bool,
    pub age_seconds: f64,
    pub waiting_for_reply: bool,
    pub path: String,
    pub idle_timeout_seconds: f64,
    pub peer: Peer,
    pub verdict: String,
    pub why: String,
    pub remedies: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub process: Option<serde_json::Value>,
    pub uid: u32,
    pub inode: u64,
    pub cookie: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Unanswered {
    pub probes: u32,
    pub retransmits: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Owner {
    pub kind: String,
    #[serde(deserialize_with = "present")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "present")]
    pub pod: Option<String>,
    #[serde(deserialize_with = "present")]
    pub pod_uid: Option<String>,
    #[serde(deserialize_with = "present")]
    pub container: Option<String>,
    #[serde(deserialize_with = "present")]
    pub container_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Timer {
    pub kind: String,
    #[serde(deserialize_with = "present")]
    pub expires_seconds: Option<f64>,
    pub retransmits: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    pub probes_seen: bool,
    pub on_node: bool,
    #[serde(deserialize_with = "present")]
    pub keepalive: Option<String>,
}

/// A field that may be null but must be present.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

impl Row {
    /// Identifies the socket of this row.
    pub fn id(&self) -> Id {
        let cookie = self.cookie.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Id { netns: self.netns, cookie: cookie.unwrap_or_else(|| panic!("no cookie: {}", self.cookie)) }
    }
}

impl Report {
    /// Reads JSON of `--format json` or of the agent.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("the report does not follow schema 1: {error}\n{text}"))
    }

    /// The row of one end of a connection.
    pub fn row(&self, id: Id) -> Option<&Row> {
        self.connections.iter().find(|row| row.id() == id)
    }

    /// The rows of one namespace.
    pub fn rows_of(&self, netns: u64) -> impl Iterator<Item = &Row> {
        self.connections.iter().filter(move |row| row.netns == netns)
    }
}

/// Exit status and output of a finished run.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The exit status. The test fails if a signal ended the program.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// The report of a run that must have succeeded.
    pub fn report(&self) -> Report {
        assert_eq!(self.code(), 0, "{self:?}");
        Report::read(&self.stdout)
    }
}

/// The binary with these arguments. Configuration in the test's own environment does not reach it.
pub fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepalive-auditor"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEEPALIVE_AUDITOR_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Outcome {
    finish(&mut command(arguments))
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Outcome {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("the binary writes UTF-8");
    Outcome { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `audit --all --format json` with more arguments.
pub fn audit(more: &[&str]) -> Report {
    run(&[&["audit", "--all", "--format", "json"], more].concat()).report()
}

/// An agent that runs beside the test, in the test's namespace. It ends when this value is dropped.
pub struct Agent {
    child: Child,
    /// The address that it listens on.
    pub at: SocketAddr,
}

impl Agent {
    /// Starts an agent and waits for the end of its first sweep.
    pub fn start(more: &[&str]) -> Self {
        Self::start_on(9986, more)
    }

    /// Starts an agent on this port of the loopback and waits for the end of its first sweep.
    pub fn start_on(port: u16, more: &[&str]) -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let listen = at.to_string();
        let child = command(&[&["agent", "--web.listen-address", &listen, "--log.level", "warn"], more].concat())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut agent = Self { child, at };
        let end = Instant::now() + Duration::from_mins(1);
        while agent.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = agent.child.try_wait().expect("our child") {
                panic!("the agent ended at once: {status}");
            }
            assert!(Instant::now() < end, "the agent is not ready after 60 s");
            thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// `GET path`: status and body, or `None` without an answer.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.at, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        // HTTP/1.0: the answer is not chunked, and the server closes the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The body of a page. The status must be 200.
    pub fn page(&self, path: &str) -> String {
        let (status, body) = self.get(path).unwrap_or_else(|| panic!("no answer for {path}"));
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The report of the last sweep.
    pub fn report(&self) -> Report {
        self.report_of("")
    }

    /// The report of the last sweep, for this query. A sweep that is slow on a loaded machine is waited for.
    pub fn report_of(&self, query: &str) -> Report {
        let path = format!("/api/v1/report{query}");
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match self.get(&path) {
                Some((200, body)) => return Report::read(&body),
                answer => assert!(Instant::now() < end, "{path}: {answer:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads the report again and again until `done` returns true or `timeout` has passed. Returns the last report in
    /// both cases.
    pub fn wait(&self, timeout: Duration, mut done: impl FnMut(&Report) -> bool) -> Result<Report, Box<Report>> {
        let end = Instant::now() + timeout;
        loop {
            let report = self.report();
            if done(&report) {
                return Ok(report);
            }
            if Instant::now() > end {
                return Err(Box::new(report));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a signal. Returns the exit status and how long the agent took to end.
    pub fn stop(mut self, signal: Signal) -> (ExitStatus, Duration) {
        let start = Instant::now();
        kill_process(self.pid(), signal).expect("the agent takes a signal");
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the agent does not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
