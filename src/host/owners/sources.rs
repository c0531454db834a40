//! Combines the sources of names.
//!
//! The log folders come first. The container runtime is queried for names that they do not have, and wins if both have
//! one.

use std::io;
use std::path::{Path, PathBuf};

use super::Roots;
use super::cgroup::is_container_id;
use super::cri::Cri;
use super::issues::{Issues, OwnerIssue};
use super::logs::Logs;
use super::names::{ContainerName, PodName};
use super::runtimes::Runtimes;
use crate::host::failure;
use crate::host::worker::Worker;
use crate::record::Loss;

/// All sources of names. Each is read at most once per sweep, and only when a name is missing.
#[derive(Debug)]
pub(super) struct Sources {
    root: PathBuf,
    /// Whether the user named the folder.
    required: bool,
    logs: Logs,
    files: Worker,
    /// Whether the folders were listed in this sweep, and whether that succeeded.
    listed: Option<bool>,
    cri: Option<Cri>,
    runtimes: Runtimes,
}

impl Sources {
    pub fn new(roots: &Roots) -> Self {
        #[cfg(feature = "cri")]
        let cri = roots.cri.as_deref().map(Cri::new);
        #[cfg(not(feature = "cri"))]
        let cri = None;
        let (root, required) = (roots.logs.clone(), roots.logs_required);
        let runtimes = Runtimes::new(&roots.docker, &roots.podman);
        Self { root, required, logs: Logs::default(), files: Worker::default(), listed: None, cri, runtimes }
    }

    /// Allows each source to be read once more. The calling thread must not have entered a namespace.
    pub fn begin_sweep(&mut self, losses: &mut Vec<Loss>) {
        self.listed = None;
        let checked = if self.required {
            let root = self.root.clone();
            self.files.run(move || is_folder(&root)).flatten()
        } else {
            self.files.start()
        };
        if let Err(error) = checked {
            losses.push(failure::loss("read", self.shown(), &error));
        }
        self.cri.iter_mut().for_each(Cri::begin_sweep);
        self.runtimes.begin_sweep();
    }

    /// False if the user named a runtime and nothing listens on its socket, even if no name is missing.
    pub fn cri_is_reachable(&self) -> bool {
        self.cri.as_ref().is_none_or(Cri::is_reachable)
    }

    /// The name of the pod with this uid.
    pub fn pod(&mut self, uid: &str, issues: &mut Issues, losses: &mut Vec<Loss>) -> Option<PodName> {
        let known = |sources: &Self| {
            let logs = sources.logs.pod_by_uid(uid);
            let cri = sources.cri.as_ref().and_then(|cri| cri.pod_by_uid(uid));
            let disagree = matches!((logs, cri), (Some(logs), Some(cri)) if logs != cri);
            Some((cri.or(logs)?.clone(), disagree))
        };
        let (name, disagree) = self.find(uid, issues, losses, known)?;
        issues.note_if(disagree, OwnerIssue::Disagree);
        Some(name)
    }

    /// The name of the container with this id, and of its pod.
    pub fn container(&mut self, id: &str, issues: &mut Issues, losses: &mut Vec<Loss>) -> Option<ContainerName> {
        let known = |sources: &Self| {
            let logs = sources.logs.container_by_id(id);
            let cri = sources.cri.as_ref().and_then(|cri| cri.container_by_id(id));
            let same =
                |logs: &ContainerName, cri: &ContainerName| (&logs.pod, &logs.container) == (&cri.pod, &cri.container);
            let disagree = matches!((logs, cri), (Some(logs), Some(cri)) if !same(logs, cri));
            Some((cri.or(logs)?.clone(), disagree))
        };
        let (name, disagree) = self.find(id, issues, losses, known)?;
        issues.note_if(disagree, OwnerIssue::Disagree);
        Some(name)
    }

    /// The name that Docker or Podman gave a container, else twelve digits of its id, as both runtimes show it.
    pub fn container_outside_pods(&mut self, id: &str, is_delegated: bool) -> String {
        if !is_container_id(id) {
            return id.to_owned();
        }
        let named = if is_delegated { None } else { self.runtimes.name(id, &mut self.files) };
        named.unwrap_or_else(|| id[..12].to_owned())
    }

    /// The pod whose network namespace is bound at this file name. Only the runtime knows it.
    pub fn pod_by_netns(&mut self, netns: &str, issues: &mut Issues) -> Option<(String, PodName)> {
        let cri = self.cri.as_mut()?;
        if cri.pod_by_netns(netns).is_none() {
            issues.note_if(!cri.ask_for(netns, true), OwnerIssue::Cri);
        }
        cri.pod_by_netns(netns).map(|(uid, name)| (uid.to_owned(), name.clone()))
    }

    /// Whether the log folders could be listed, or were not needed.
    pub fn logs_listed(&self) -> bool {
        self.listed != Some(false)
    }

    fn shown(&self) -> String {
        format!("{}{}", self.root.display(), if self.required { " (--pod-logs)" } else { "" })
    }

    fn find<T>(
        &mut self,
        key: &str,
        issues: &mut Issues,
        losses: &mut Vec<Loss>,
        known: impl Fn(&Self) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = known(self) {
            return Some(found);
        }
        if self.listed.is_none() {
            self.list(losses);
            if let Some(found) = known(self) {
                return Some(found);
            }
        }
        let answered = self.cri.as_mut()?.ask_for(key, false);
        issues.note_if(!answered, OwnerIssue::Cri);
        known(self)
    }

    /// Lists the log folders. If that fails, the known names stay.
    fn list(&mut self, losses: &mut Vec<Loss>) {
        let root = self.root.clone();
        let listed = match self.files.run(move || Logs::read(&root)) {
            Ok((logs, Ok(()))) => {
                self.logs = logs;
                Ok(())
            }
            Ok((logs, failed)) => {
                self.logs.add(logs);
                failed
            }
            Err(error) => Err(error),
        };
        self.listed = Some(listed.is_ok());
        if let Err(error) = listed.or_else(|error| if failure::is_gone(&error) { Ok(()) } else { Err(error) }) {
            losses.push(failure::loss("list the logs of pods and containers in", self.shown(), &error));
        }
    }
}

fn is_folder(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

#[cfg(all(test, feature = "cri"))]
mod tests {
    use super::super::cgroup::{CgroupOwner, InPod};
    use super::super::cri_messages::{PodSandbox, PodSandboxMetadata};
    use super::super::owner_of;
    use super::*;

    #[test]
    fn where_folders_and_runtime_disagree_the_runtime_is_believed_and_it_is_counted() {
        let log = tempfile::tempdir().expect("a scratch folder");
        std::fs::create_dir_all(log.path().join("pods/shop_old_u1")).expect("mkdir");
        std::fs::create_dir_all(log.path().join("pods/shop_same_u2")).expect("mkdir");
        std::fs::create_dir_all(log.path().join("containers")).expect("mkdir");
        let roots = Roots {
            procfs: "/proc".into(),
            logs: log.path().to_owned(),
            cri: Some("/nonexistent/cri.sock".into()),
            ..Roots::default()
        };
        let mut sources = Sources::new(&roots);
        let mut issues = Issues::default();
        sources.begin_sweep(&mut Vec::new());
        assert_eq!(sources.pod("u1", &mut issues, &mut Vec::new()), PodName::new("shop", "old"));
        assert_eq!(sources.pod("u3", &mut issues, &mut Vec::new()), None);
        assert_eq!(issues.take(), [(OwnerIssue::Cri, 1)].into(), "the runtime is asked for what no folder has");

        let sandbox = |uid: &str, name: &str| {
            let metadata =
                PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: "shop".into(), attempt: 0 };
            PodSandbox { id: format!("sandbox-of-{uid}"), metadata: Some(metadata), ..PodSandbox::default() }
        };
        let items = vec![sandbox("u1", "new"), sandbox("u2", "same"), sandbox("u3", "third")];
        sources.cri.as_mut().expect("given").answer(items);
        assert_eq!(sources.pod("u2", &mut issues, &mut Vec::new()), PodName::new("shop", "same"));
        assert_eq!(sources.pod("u3", &mut issues, &mut Vec::new()), PodName::new("shop", "third"));
        assert_eq!(issues.take(), [].into());
        assert_eq!(sources.pod("u1", &mut issues, &mut Vec::new()), PodName::new("shop", "new"));
        assert_eq!(issues.take(), [(OwnerIssue::Disagree, 1)].into());
    }

    #[test]
    fn a_successor_of_the_same_uid_does_not_take_its_predecessors_sockets_over() {
        let roots = Roots {
            procfs: "/proc".into(),
            logs: "/nonexistent".into(),
            cri: Some("/nonexistent/cri.sock".into()),
            ..Roots::default()
        };
        let mut sources = Sources::new(&roots);
        let mut issues = Issues::default();
        sources.begin_sweep(&mut Vec::new());
        let sandbox = |id: &str, name: &str, attempt| PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: "u1".into(),
                namespace: "shop".into(),
                attempt,
            }),
            ..PodSandbox::default()
        };
        let cri = sources.cri.as_mut().expect("given");
        cri.answer(vec![sandbox("new", "renamed", 1), sandbox("old", "first", 0)]);
        let mut owner = |id: Option<&str>| {
            let pods = vec![InPod { uid: "u1".into(), container_id: id.map(str::to_owned) }];
            owner_of(&CgroupOwner { pods, ..CgroupOwner::default() }, &mut sources, &mut issues, &mut Vec::new())
                .to_string()
        };
        assert_eq!(owner(Some("old")), "shop/first");
        assert_eq!(owner(Some("new")), "shop/renamed");
        assert_eq!(owner(None), "shop/renamed");
        assert_eq!(issues.take(), [].into(), "one source does not disagree with itself");
    }
}
