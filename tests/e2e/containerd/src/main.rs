//! Tests the agent on a real node: containerd with the CRI plugin and CNI runs pods made through CRI, and the agent is
//! one of them.
//!
//! One program has several parts: `supervise` makes a node from namespaces and removes it, `inside` is the test on that
//! node, and `load` runs in the test's pods.

mod cri;
mod deploy;
mod http;
mod image;
mod load;
#[cfg(test)]
mod messages;
mod node;
mod pod;
mod proof;
mod report;
mod runc;
mod scenario;

use std::path::Path;
use std::process::ExitCode;

use node::{Cgroups, Node};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["load", ref words @ ..] => load::run(words),
        ["runc", ref words @ ..] => runc::run(words),
        ["inside", scratch, cgroup, auditor, cgroups] => {
            let cgroups = if cgroups == "unified" { Cgroups::Unified } else { Cgroups::Machine };
            scenario::run(&Node { scratch: Path::new(scratch), cgroup, cgroups }, Path::new(auditor))
        }
        [auditor] => node::supervise(Path::new(auditor)),
        _ => Err(anyhow::anyhow!(
            "usage: e2e-containerd PATH-OF-A-STATIC-KEEPALIVE-AUDITOR, from the root of the repository"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
