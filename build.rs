//! Embeds new remedies, and the revision of the sources.

use std::path::Path;
use std::process::Command;

/// Builds without a repository, such as the image's, set this variable.
const REVISION: &str = "KEEPALIVE_AUDITOR_REVISION";

fn main() {
    // `include_dir!` alone notices changed files, but no new ones
    println!("cargo:rerun-if-changed=src/remedy/targets");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={REVISION}");
    let given = std::env::var(REVISION).ok().filter(|revision| !revision.is_empty());
    let revision = given.or_else(packaged).or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env={REVISION}={revision}");
    println!("cargo:rustc-env={REVISION}_SHORT={}", revision.get(..12).unwrap_or(&revision));
}

/// The revision that `cargo package` recorded.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\": \"")?;
    rest.split('"').next().map(str::to_owned)
}

/// The revision that git checked out here. A repository that contains this folder is another project's.
fn checked_out() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(".").canonicalize().ok()? {
        return None;
    }
    // Cargo does not rebuild a debug build for each commit, so it cannot know its revision.
    if std::env::var("PROFILE").ok()? != "release" {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", file])?);
    }
    git(&["rev-parse", "HEAD"])
}

/// The first line of git's answer, if git is there and has one.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
