//! A file for interfaces that take a path.

use std::path::PathBuf;

/// Writes `content` to a file of this process and returns its path.
pub fn with(name: &str, content: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("keepalive-auditor-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the file");
    let path = folder.join(name);
    std::fs::write(&path, content).expect("the file is written");
    path
}
