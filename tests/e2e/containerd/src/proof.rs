//! From a flagged pod to the proof of its remedy, through `exec` into the agent's container, whose file system is
//! read-only.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cri::{self, Cri};
use crate::pod::{Container, Pod, Running};

/// How long to wait for an expected event on a loaded machine.
const TIMEOUT: Duration = Duration::from_mins(1);
const OWNER: &str = "--owner=shop/till*";

/// Runs what the runbook says in the agent's container: explains, records, and compares after a change that does not
/// help and after one that does.
pub async fn run(cri: &mut Cri, cgroup: &str, scratch: &Path, agent: &Running, to: &str) -> Result<()> {
    let till =
        |keepalive: &str| Pod::new("shop", "till-0", vec![Container::load("app", &["dial", to, "1", keepalive])]);
    let audit = ["/keepalive-auditor", "audit", OWNER];
    let flagged = till("off")?.run(cri, cgroup).await?;
    let since = Instant::now();
    let explained = loop {
        let (text, said, status) = cri.exec(agent.container(), &[&audit[..], &["--explain"]].concat()).await?;
        if status == 0 && text.contains("keepalive-auditor remedy") {
            break text;
        }
        ensure!(since.elapsed() < TIMEOUT, "--explain in the agent's container ended with {status}: {text}{said}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    ensure!(explained.contains("shop/till (app), outbound to "), "--explain does not name the pod:\n{explained}");

    let file = scratch.join("before.jsonl");
    let (_, said, status) = cri.exec(agent.container(), &[&audit[..], &["--record=before.jsonl"]].concat()).await?;
    ensure!(status == 1 && said.contains("read-only file system"), "a recording in the container: {status}: {said}");
    let (recording, said, status) = cri.exec(agent.container(), &[&audit[..], &["--record=-"]].concat()).await?;
    ensure!(status == 0, "--record - ended with {status}: {said}");
    std::fs::write(&file, recording)?;

    let mut before = flagged;
    for (keepalive, expected, sentence) in [("off", 3, "It did not take effect"), ("60", 0, "It took effect: every")] {
        before.remove(cri).await?;
        before = till(keepalive)?.run(cri, cgroup).await?;
        let since = Instant::now();
        loop {
            let (status, text) = compare(agent, &file)?;
            if status == expected && text.contains(sentence) {
                break;
            }
            ensure!(since.elapsed() < TIMEOUT, "keepalive {keepalive}: --compare ended with {status}:\n{text}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        println!("through exec, keepalive {keepalive}: --compare ends with {expected}: {sentence}");
    }
    before.remove(cri).await
}

/// `audit --compare -` in the agent's container. CRI's `ExecSync` has no stdin, so containerd's own client runs it, as
/// `kubectl exec -i` does.
fn compare(agent: &Running, recording: &Path) -> Result<(i32, String)> {
    let output = Command::new("ctr")
        .args(["--address", cri::SOCKET.trim_start_matches("unix://"), "--namespace", "k8s.io", "tasks", "exec"])
        .args(["--exec-id", "compare", agent.container(), "/keepalive-auditor", "audit", OWNER, "--compare=-"])
        .stdin(Stdio::from(File::open(recording)?))
        .output()
        .context("ctr")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}
