//! Runs the agent as a process next to the test, and sends requests to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_rustls::rustls;

use super::support::binary::command;

/// An agent with its own folder.
pub struct Agent {
    pub folder: tempfile::TempDir,
    pub child: Child,
    pub at: SocketAddr,
}

impl Agent {
    /// Starts an agent with a web configuration.
    pub fn guarded(folder: tempfile::TempDir, config: &str) -> Self {
        fs::write(folder.path().join("web.yaml"), config).expect("write");
        let file = folder.path().join("web.yaml").display().to_string();
        Self::start(folder, &["--web.config.file", &file, "--interval", "1h"], Stdio::inherit())
    }

    /// Starts an agent with these flags that logs to `stderr`.
    pub fn start(folder: tempfile::TempDir, flags: &[&str], stderr: Stdio) -> Self {
        Self::start_as(folder, flags, |command| {
            command.stderr(stderr);
        })
    }

    /// Starts an agent with these flags, after `adapt` has changed its command.
    pub fn start_as(folder: tempfile::TempDir, flags: &[&str], adapt: impl FnOnce(&mut std::process::Command)) -> Self {
        let at = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let listen = at.to_string();
        let level: &[&str] = if flags.contains(&"--log.level") { &[] } else { &["--log.level", "error"] };
        let mut command = command(&[&["agent", "--web.listen-address", &listen], level, flags].concat());
        command.stdout(Stdio::null());
        adapt(&mut command);
        let mut agent = Self { folder, child: command.spawn().expect("the binary starts"), at };
        let end = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(agent.at).is_err() {
            assert_eq!(agent.child.try_wait().expect("our child"), None, "the agent ended at once");
            assert!(Instant::now() < end, "the agent does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// Waits for its first sweep.
    pub fn ready(self) -> Self {
        wait_until("the first sweep is over", || self.status("/readyz", None) == 200);
        self
    }

    /// The value of a series of `/metrics`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.plain("/metrics", None);
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child");
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < end, "the agent does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server's answer over plain TCP.
    pub fn plain(&self, path: &str, user: Option<&str>) -> String {
        ask(connect(self.at), path, user)
    }

    /// The status over plain TCP.
    pub fn status(&self, path: &str, user: Option<&str>) -> u16 {
        status(&self.plain(path, user))
    }

    /// The server's certificate, and its answer.
    pub fn tls(
        &self,
        client: &Arc<ClientConfig>,
        path: &str,
        user: Option<&str>,
    ) -> std::io::Result<(CertificateDer<'static>, String)> {
        let name = ServerName::from(self.at.ip());
        let mut connection = ClientConnection::new(client.clone(), name).expect("a client");
        let mut stream = connect(self.at);
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let shown = connection.peer_certificates().expect("a certificate")[0].clone().into_owned();
        let answer = ask(StreamOwned::new(connection, stream), path, user);
        // in TLS 1.3 a client is refused after its own side of the handshake is done
        if answer.is_empty() { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok((shown, answer)) }
    }

    pub fn tls_status(&self, client: &Arc<ClientConfig>, path: &str) -> Option<u16> {
        self.tls(client, path, None).ok().map(|(_, answer)| status(&answer))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("the agent listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Sends one request. Returns the answer, or the part that arrived before the connection broke.
pub fn ask(mut stream: impl Read + Write, path: &str, user: Option<&str>) -> String {
    let user = user.map(|user| format!("Authorization: Basic {}\r\n", STANDARD.encode(user))).unwrap_or_default();
    let mut answer = Vec::new();
    if stream.write_all(format!("GET {path} HTTP/1.0\r\n{user}\r\n").as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// Waits for an event that must happen, also on a busy machine.
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !happened() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
