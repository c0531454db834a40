//! The answers to clients of the port, and the resources that clients cannot hold.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::read::GzDecoder;

use super::agent::{Agent, connect, folder, status, wait_until};
use super::support::binary::run;

fn start() -> Agent {
    Agent::start(folder(), &["--interval", "1h"], Stdio::inherit()).ready()
}

/// Sends a request and reads to the end of the connection.
fn exchange(agent: &Agent, request: &str) -> Vec<u8> {
    let mut stream = connect(agent.at);
    stream.write_all(request.as_bytes()).expect("a request is sent");
    let mut answer = Vec::new();
    // a refused request may end in a reset
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Whether the server has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    match stream.read(&mut [0; 512]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn long_answers_are_compressed_for_clients_that_accept_gzip() {
    let agent = start();
    for path in ["/metrics", "/", "/api/v1/report"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n");
        let answer = exchange(&agent, &request);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{path}: {head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", answer.len() - end)), "{path}: {head}");
        let mut text = String::new();
        GzDecoder::new(&answer[end..]).read_to_string(&mut text).expect("gzip");
        let plain = agent.plain(path, None);
        let (head, plain) = plain.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", plain.len())), "{path}: {head}");
        // only some metrics of the process itself differ
        let same = text.lines().zip(plain.lines()).filter(|(a, b)| a == b).count();
        assert!(same > 0 && text.lines().count() - same < 12, "{path}: {text}\n{plain}");
    }
}

#[test]
fn every_answer_has_the_security_headers() {
    let agent = start();
    let get = ["/", "/metrics", "/api/v1/report", "/api/v1/report?limit=x", "/healthz", "/readyz", "/nothing"];
    let mut requests: Vec<_> = get.iter().map(|path| format!("GET {path} HTTP/1.0\r\n\r\n")).collect();
    requests.extend(["POST / HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n"].map(str::to_owned));
    // what cannot be parsed
    requests.extend(
        ["\0", "nonsense", "G@T / HTTP/1.1", "GET / HTTP/3.1", "GET / HTTP/1.1\r\na b: c"]
            .map(|line| format!("{line}\r\n\r\n")),
    );
    requests.push(format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)));
    requests.push(format!("GET /{} HTTP/1.1\r\n", "a".repeat(16 * 1024)));
    requests.push("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n".to_owned());
    for request in requests {
        let answer = String::from_utf8(exchange(&agent, &request)).expect("text").to_ascii_lowercase();
        for header in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "default-src 'none'",
        ] {
            let answers = answer.matches("http/1.").count();
            assert!(answers > 0, "{request}: no answer");
            assert_eq!(answer.matches(header).count(), answers, "{request}: {header} is missing: {answer}");
        }
    }
}

#[test]
fn idle_clients_do_not_block_new_ones() {
    // half of the descriptors are for connections
    let agent = Agent::start_as(folder(), &["--interval", "1h"], |command| {
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=1024:1024").arg(command.get_program()).args(command.get_args());
        *command = limited;
    });
    let agent = agent.ready();
    let mut idle: Vec<_> = (0..700).map(|_| connect(agent.at)).collect();
    assert_eq!(agent.status("/healthz", None), 200);
    assert_eq!(agent.status("/metrics", None), 200);
    wait_until("the oldest is closed", || is_closed(&mut idle[0]));
    let newest = idle.last_mut().expect("many");
    newest.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").expect("the newest is open");
    let mut answer = String::new();
    newest.read_to_string(&mut answer).expect("an answer");
    assert_eq!(status(&answer), 200);
    assert!(agent.metric("keepalive_auditor_web_connections_evicted_total").expect("a series") >= 100.0);
    assert!(agent.metric("keepalive_auditor_web_connections").expect("a series") <= 512.0);
    drop(idle);
    wait_until("they are gone", || agent.metric("keepalive_auditor_web_connections") == Some(1.0));
}

#[test]
fn half_a_request_ends_and_a_long_one_is_refused() {
    let agent = start();
    let mut half = connect(agent.at);
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("a part is sent");
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(40_000));
    let answer = String::from_utf8_lossy(&exchange(&agent, &long)).into_owned();
    assert!(matches!(status(&answer), 0 | 431), "{answer}");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    let answer = String::from_utf8_lossy(&exchange(&agent, &many)).into_owned();
    assert!(matches!(status(&answer), 0 | 431), "{answer}");
    wait_until("half a request is closed", || is_closed(&mut half));
    assert_eq!(agent.status("/metrics", None), 200);
}

#[test]
fn no_thread_may_do_more_than_it_needs() {
    /// `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE` and `CAP_SYS_ADMIN`.
    const SWEEPS: u64 = 1 << 2 | 1 << 19 | 1 << 21;
    let agent = start();
    assert_eq!(agent.status("/api/v1/report", None), 200);
    let mut seen = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", agent.child.id())).expect("its threads") {
        let task = task.expect("a thread").path();
        let read = |file: &str| fs::read_to_string(task.join(file)).expect("a thread's file");
        let name = read("comm").trim().to_owned();
        let status = read("status");
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).expect("a field").trim();
        let mask = |set: &str| u64::from_str_radix(field(set), 16).expect("a mask");
        let held = ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"].into_iter().fold(0, |all, set| all | mask(set));
        assert_eq!(held & !SWEEPS, 0, "{name} holds {held:x}");
        if ["web", "pages", "log"].contains(&&*name) {
            assert_eq!(held, 0, "{name}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"), "{name}");
        seen.push(name);
    }
    for name in ["web", "pages", "sweeps", "log"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} is not among {seen:?}");
    }
}

#[test]
fn the_agents_own_connections_have_keepalive() {
    let agent = start();
    let client = connect(agent.at);
    let local = client.local_addr().expect("an address").to_string();
    let report = run(&["audit", "--all", "--format", "json"]).report();
    let ours = report.connections.iter().find(|row| row.local == agent.at.to_string() && row.remote == local);
    let ours = ours.expect("our connection is audited");
    assert_eq!(ours.keepalive, "on", "{ours:?}");
}

#[test]
fn cpu_time_has_fractions() {
    let agent = start();
    let cpu = agent.metric("process_cpu_seconds_total").expect("a series");
    assert!(cpu > 0.0 && cpu.fract() > 0.0, "{cpu}");
    wait_until("more of it is used", || agent.metric("process_cpu_seconds_total").is_some_and(|now| now > cpu));
}
