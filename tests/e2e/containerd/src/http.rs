//! A minimal HTTP request to the agent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// The body of the agent's answer for `path`.
pub fn get(ip: &str, path: &str) -> Result<String> {
    let address = format!("{ip}:9986").parse().with_context(|| format!("the agent's address {ip}"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {ip}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "GET {path}: {head}\n{body}");
    ensure!(!head.to_ascii_lowercase().contains("transfer-encoding"), "GET {path}: the body comes in chunks:\n{head}");
    Ok(body.to_owned())
}
