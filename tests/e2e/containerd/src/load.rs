//! The program of the test's pods: listens, or dials with or without keepalive, and keeps the connections open while
//! the pod lives.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt;

/// `listen PORT`, `dial ADDRESS COUNT off|system|SECONDS`, `pause`.
pub fn run(words: &[&str]) -> Result<()> {
    match *words {
        ["pause"] => {}
        ["listen", port] => listen(port.parse()?)?,
        ["dial", address, count, keepalive] => {
            let held: Result<Vec<_>> = (0..count.parse()?).map(|_| dial(address, keepalive)).collect();
            // held until the container is killed
            std::mem::forget(held?);
        }
        _ => bail!("load: unknown words {words:?}"),
    }
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

fn listen(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listening")?;
    let held: Vec<_> = listener.incoming().collect();
    drop(held);
    Ok(())
}

fn dial(address: &str, keepalive: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("dialling {address}"))?;
    if keepalive != "off" {
        sockopt::set_socket_keepalive(&stream, true)?;
    }
    if let Ok(seconds) = keepalive.parse() {
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(seconds))?;
    }
    Ok(stream)
}
