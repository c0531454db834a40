//! The memory that the agent holds while slow clients read `/api/v1/report`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::load::{NETNS, Node};
use crate::memory::megabytes;
use crate::support::binary::Agent;
use crate::table::row;

const NAMESPACES: usize = 250;
const EACH: usize = 200;
/// Fewer than the agent answers at a time.
const READERS: u32 = 4;

/// Measures with 50 000 connections: the answer itself, which all requests share, and each reader of it.
pub fn measure() {
    let mut node = Node::new();
    let all = node.namespaces(NETNS, NAMESPACES);
    node.connect(all, EACH);
    let agent = Agent::start(&["--interval", "5m", "--long-lived", "1ms"]);
    let swept = resident(&agent);
    let length = megabytes(agent.page("/api/v1/report").len() as u64);
    let stored = resident(&agent);
    println!(
        "{} connections: the report has {length:.1} MB; making and storing it: {:.1} MB",
        NAMESPACES * EACH,
        stored - swept
    );
    for encoding in ["identity", "gzip"] {
        let before = resident(&agent);
        let readers: Vec<TcpStream> = (0..READERS).map(|_| begin(&agent, encoding)).collect();
        let held = (resident(&agent) - before) / f64::from(READERS);
        row(&format!("4 held for each slow reader of the report, {encoding}"), held, 1.0, "MB");
        drop(readers);
    }
}

/// Asks for the report and reads no more than the beginning of the answer.
fn begin(agent: &Agent, encoding: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.at).expect("the agent answers");
    let request = format!("GET /api/v1/report HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: {encoding}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request is sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}

/// `VmRSS` of the agent, megabytes.
fn resident(agent: &Agent) -> f64 {
    let path = format!("/proc/{}/status", agent.pid().as_raw_nonzero());
    let status = fs::read_to_string(&path).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kibibytes: u64 = line.trim_end_matches("kB").trim().parse().expect("a number of kB");
    megabytes(kibibytes * 1024)
}
