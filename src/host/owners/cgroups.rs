//! The host's cgroup v2 tree, if it has one. It is found once, and walked when an unknown id appears.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::CgroupOwner;
use super::issues::{Issues, OwnerIssue};
use super::tree::Tree;
use crate::host::worker::Worker;
use crate::host::{failure, node};
use crate::record::{Loss, LossReason};

/// Where cgroup v2 is mounted by default.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The owners by cgroup id.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The root that the user named.
    configured: Option<PathBuf>,
    procfs: PathBuf,
    /// Whether the search for a tree has finished.
    searched: bool,
    pub(super) tree: Option<Tree>,
    files: Worker,
}

impl Cgroups {
    pub fn new(configured: Option<PathBuf>, procfs: PathBuf) -> Self {
        Self { configured, procfs, searched: false, tree: None, files: Worker::default() }
    }

    /// Begins a sweep, which allows one more walk. Searches for the tree until it is found or known to be absent.
    pub fn begin_sweep(&mut self, issues: &mut Issues, losses: &mut Vec<Loss>) {
        self.tree.iter_mut().for_each(Tree::begin_sweep);
        if self.searched {
            return;
        }
        if node::is_32_bit() {
            self.searched = true;
            issues.note(OwnerIssue::CgroupIds);
            return;
        }
        let (root, elsewhere) = (self.root(), self.configured.is_none().then(|| self.root_of_init()));
        match self.files.run(move || find(&root, elsewhere.as_deref())).and_then(|found| found) {
            Ok(Some(tree)) => (self.tree, self.searched) = (Some(tree), true),
            Ok(None) => {
                self.searched = true;
                issues.note(OwnerIssue::NoCgroup2);
            }
            Err(error) if self.configured.is_none() && failure::reason(&error) == LossReason::Missing => {
                self.searched = true;
                issues.note(OwnerIssue::NoCgroup2);
            }
            Err(error) => {
                issues.note(OwnerIssue::CgroupTree);
                losses.push(failure::loss("find the cgroup tree in", self.shown(), &error));
            }
        }
    }

    fn root(&self) -> PathBuf {
        self.configured.clone().unwrap_or_else(|| CGROUP_ROOT.into())
    }

    /// The tree as process 1 sees it: our own mount namespace may not have it.
    fn root_of_init(&self) -> PathBuf {
        self.procfs.join("1/root").join(CGROUP_ROOT.trim_start_matches('/'))
    }

    fn shown(&self) -> String {
        format!("{}{}", self.root().display(), if self.configured.is_some() { " (--cgroup-root)" } else { "" })
    }

    /// Finds the owners of these cgroups, unless this sweep has already walked the tree.
    pub fn learn(&mut self, ids: &BTreeSet<u64>, issues: &mut Issues, losses: &mut Vec<Loss>) {
        let Some(tree) = &mut self.tree else { return };
        let learned = tree.learn(ids, &mut self.files);
        let missing = !tree.is_whole() && ids.iter().any(|id| tree.get(*id).is_none());
        issues.note_if(missing || learned.is_err(), OwnerIssue::CgroupTree);
        if let Err(error) = learned {
            losses.push(failure::loss("walk the cgroup tree", self.shown(), &error));
        }
    }

    /// The owner of the cgroup, if it is known.
    pub fn get(&self, id: u64) -> Option<&CgroupOwner> {
        self.tree.as_ref()?.get(id)
    }

    /// Whether there is a tree in which every container has its own cgroup. On a hybrid host only systemd's units have
    /// one.
    pub fn name_containers(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| !tree.is_hybrid())
    }
}

/// The tree at `root`, or else a whole one at `elsewhere`. A part of a tree would give cgroups wrong paths.
fn find(root: &Path, elsewhere: Option<&Path>) -> io::Result<Option<Tree>> {
    let found = Tree::find(root);
    if matches!(found, Ok(Some(_))) {
        return found;
    }
    let other = elsewhere.and_then(|root| Tree::find(root).ok().flatten()).filter(Tree::is_whole);
    other.map_or(found, |tree| Ok(Some(tree)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_tree_is_found_where_process_1_sees_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let real = [CGROUP_ROOT, "/sys/fs/cgroup/unified"].map(Path::new);
        let is_whole = |root: &&&Path| Tree::find(root).ok().flatten().is_some_and(|tree| tree.is_whole());
        let hidden = find(scratch.path(), Some(&scratch.path().join("nowhere")));
        assert!(matches!(hidden, Ok(None)), "{hidden:?}");
        assert!(find(&scratch.path().join("nowhere"), None).is_err(), "the error is that of our own root");
        let Some(root) = real.iter().find(is_whole) else {
            eprintln!("!!! SKIPPED in part: this machine shows no whole cgroup v2 tree");
            return;
        };
        let found = find(scratch.path(), Some(root)).expect("no error").expect("a tree");
        assert!(found.is_whole());
    }
}
