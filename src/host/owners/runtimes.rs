//! The names that Docker and Podman gave their containers, from the files in which they keep them. Nothing is listed:
//! a file is read for an id that a cgroup shows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Deserialize;

use super::cgroup::is_container_id;
use super::dir;
use crate::host::worker::Worker;

/// The most bytes that are read of one file: Podman's lists all containers.
const MAX_BYTES: u64 = 4 << 20;
/// Docker's file of one container, below its folder.
const DOCKER: &str = "config.v2.json";
/// Podman's files, by storage driver. Those of containers that a restart of the host ends are apart.
const PODMAN: [&str; 6] = [
    "overlay-containers/containers.json",
    "overlay-containers/volatile-containers.json",
    "vfs-containers/containers.json",
    "vfs-containers/volatile-containers.json",
    "btrfs-containers/containers.json",
    "btrfs-containers/volatile-containers.json",
];

/// Names by container id. An id is never used again, so a name is read once as long as its container is seen.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    docker: PathBuf,
    podman: PathBuf,
    /// Of this sweep, and of the last one.
    names: [HashMap<String, Option<String>>; 2],
}

#[derive(Deserialize)]
struct DockerContainer {
    #[serde(rename = "Name")]
    name: String,
}

#[derive(Deserialize)]
struct PodmanContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Runtimes {
    /// `docker` is Docker's data root, `podman` the storage that Podman and others share.
    pub fn new(docker: &Path, podman: &Path) -> Self {
        Self { docker: docker.to_owned(), podman: podman.to_owned(), names: Default::default() }
    }

    /// Drops the names of containers that the last sweep did not show.
    pub fn begin_sweep(&mut self) {
        self.names.swap(0, 1);
        self.names[0].clear();
    }

    /// The name of the container. A container without one is looked for again in each sweep.
    pub fn name(&mut self, id: &str, files: &mut Worker) -> Option<String> {
        if let Some(known) = self.names[0].get(id) {
            return known.clone();
        }
        let known = self.names[1].remove(id).flatten();
        let name = known.or_else(|| {
            let (docker, podman, id) = (self.docker.clone(), self.podman.clone(), id.to_owned());
            // without the file, or without permission, the container has its id
            files.run(move || of_docker(&docker, &id).or_else(|| of_podman(&podman, &id))).ok().flatten()
        });
        self.names[0].insert(id.to_owned(), name.clone());
        name
    }
}

fn of_docker(root: &Path, id: &str) -> Option<String> {
    let text = text(root, &format!("containers/{id}/{DOCKER}")).filter(|_| is_container_id(id))?;
    let container: DockerContainer = serde_json::from_str(&text).ok()?;
    valid(container.name.strip_prefix('/').unwrap_or(&container.name))
}

fn of_podman(root: &Path, id: &str) -> Option<String> {
    PODMAN.iter().find_map(|file| {
        let containers: Vec<PodmanContainer> = serde_json::from_str(&text(root, file)?).ok()?;
        let container = containers.into_iter().find(|container| container.id == id)?;
        container.names.iter().find_map(|name| valid(name))
    })
}

fn text(root: &Path, file: &str) -> Option<String> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    dir::text(&root, file, MAX_BYTES).ok()
}

/// A name as both runtimes accept it.
fn valid(name: &str) -> Option<String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    (starts && name.len() <= 253 && name.bytes().all(inner)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const WEB: &str = "0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef";
    const DB: &str = "1f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef";

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    fn docker(root: &Path, id: &str, name: &str) {
        let text =
            format!(r#"{{"StreamConfig":{{}},"State":{{"Running":true}},"ID":"{id}","Name":"{name}","Path":"x"}}"#);
        write(&root.join(format!("containers/{id}/{DOCKER}")), &text);
    }

    #[test]
    fn both_runtimes_files_give_names() {
        let (moby, storage) = (tempfile::tempdir().expect("scratch"), tempfile::tempdir().expect("scratch"));
        docker(moby.path(), WEB, "/shop-web-1");
        let podman =
            format!(r#"[{{"id":"{WEB}","names":["other"]}},{{"id":"{DB}","names":["db"],"layer":"l","image":"i"}}]"#);
        write(&storage.path().join(PODMAN[0]), &podman);
        let mut runtimes = Runtimes::new(moby.path(), storage.path());
        let files = &mut Worker::default();
        assert_eq!(runtimes.name(WEB, files).as_deref(), Some("shop-web-1"), "Docker is asked first");
        assert_eq!(runtimes.name(DB, files).as_deref(), Some("db"));
        let third = WEB.replace("0f", "2f");
        assert_eq!(runtimes.name(&third, files), None);
        docker(moby.path(), &third, "/late");
        assert_eq!(runtimes.name(&third, files), None, "once in each sweep");
        runtimes.begin_sweep();
        assert_eq!(runtimes.name(&third, files).as_deref(), Some("late"));
    }

    #[test]
    fn a_name_stays_as_long_as_its_container_is_seen() {
        let root = tempfile::tempdir().expect("scratch");
        docker(root.path(), WEB, "/web");
        let mut runtimes = Runtimes::new(root.path(), Path::new("/nonexistent"));
        let files = &mut Worker::default();
        assert_eq!(runtimes.name(WEB, files).as_deref(), Some("web"));
        fs::remove_dir_all(root.path().join("containers")).expect("rm");
        runtimes.begin_sweep();
        assert_eq!(runtimes.name(WEB, files).as_deref(), Some("web"), "it was read");
        runtimes.begin_sweep();
        runtimes.begin_sweep();
        assert_eq!(runtimes.name(WEB, files), None, "it was not seen for a sweep");
    }

    #[test]
    fn what_is_no_name_is_not_shown() {
        let root = tempfile::tempdir().expect("scratch");
        for name in ["", "/", "/a b", "/../etc", "/-x", "/\\u001b[31m"] {
            docker(root.path(), WEB, name);
            assert_eq!(of_docker(root.path(), WEB), None, "{name}");
        }
        for text in ["", "{", "[]", r#"{"Name":7}"#] {
            write(&root.path().join(format!("containers/{WEB}/{DOCKER}")), text);
            assert_eq!(of_docker(root.path(), WEB), None, "{text}");
        }
        assert_eq!(of_docker(root.path(), "../../etc"), None);
    }
}
