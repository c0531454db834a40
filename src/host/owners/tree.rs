//! The cgroup v2 tree as an index from cgroup id, which is a directory's inode, to who lives there.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, statat};

use super::cgroup::{CgroupOwner, place};
use super::dir;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// The kernel's own inode of the root of the whole hierarchy; a cgroup namespace shows another.
const ROOT_INO: u64 = 1;
/// More cgroups than any node has; the walk ends there.
const MAX_CGROUPS: usize = 100_000;
/// Deeper than any runtime nests.
const MAX_DEPTH: usize = 32;

/// Who lives in which cgroup. Ids are never used again while the host is up, so an entry cannot turn wrong, only useless.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    known: HashMap<u64, CgroupOwner>,
    /// Asked for, and not found by a walk that began after they were asked for: their cgroups are gone, or out of sight.
    absent: BTreeSet<u64>,
    walked: bool,
    whole: bool,
}

impl Tree {
    /// Finds the mounted cgroup v2 tree: `root` itself, or `root/unified` on a hybrid host.
    pub fn find(root: &Path) -> Option<Self> {
        [root.to_owned(), root.join("unified")].into_iter().find(|path| is_cgroup2(path)).map(Self::at)
    }

    /// The tree below a folder that is known to be one.
    pub fn at(root: PathBuf) -> Self {
        let whole = statat(CWD, &root, AtFlags::empty()).is_ok_and(|stat| stat.st_ino == ROOT_INO);
        Self { root, known: HashMap::new(), absent: BTreeSet::new(), walked: false, whole }
    }

    /// Allows one more walk.
    pub fn begin_sweep(&mut self) {
        self.walked = false;
    }

    /// Makes sure that every id is known or known to be absent, by at most one walk a sweep; an error leaves the index as far
    /// as the walk came.
    pub fn learn(&mut self, ids: &BTreeSet<u64>) -> io::Result<()> {
        self.absent.retain(|id| ids.contains(id));
        let news = ids.iter().any(|id| !self.known.contains_key(id) && !self.absent.contains(id));
        if !news || self.walked {
            return Ok(());
        }
        self.walked = true;
        let mut old = std::mem::take(&mut self.known);
        let walk = self.walk(&mut old);
        // a cgroup may be gone while a socket that it created lives on
        self.known.extend(old.into_iter().filter(|(id, _)| ids.contains(id)));
        walk?;
        self.absent.extend(ids.iter().filter(|id| !self.known.contains_key(id)));
        Ok(())
    }

    /// Who lives in the cgroup, if it was learned.
    pub fn get(&self, id: u64) -> Option<&CgroupOwner> {
        self.known.get(&id)
    }

    /// Whether this is the whole hierarchy, not the part that a cgroup namespace shows.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn walk(&mut self, old: &mut HashMap<u64, CgroupOwner>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags, Mode::empty())?;
        self.known.insert(rustix::fs::fstat(&root)?.st_ino, CgroupOwner::default());
        self.below(&root, &mut String::new(), 0, old)?;
        if self.known.len() >= MAX_CGROUPS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_CGROUPS} cgroups")));
        }
        Ok(())
    }

    fn below(
        &mut self,
        folder: &OwnedFd,
        path: &mut String,
        depth: usize,
        old: &mut HashMap<u64, CgroupOwner>,
    ) -> io::Result<()> {
        let mut children = Vec::new();
        dir::entries(folder, ".", |entry| {
            if entry.is_dir {
                children.push((entry.ino, entry.name.to_owned()));
            }
        })?;
        for (ino, name) in children {
            if self.known.len() >= MAX_CGROUPS {
                break;
            }
            let len = path.len();
            path.push('/');
            path.push_str(&name);
            self.known.insert(ino, old.remove(&ino).unwrap_or_else(|| place(path)));
            // two links are the folder's own: a leaf, which need not be opened; most cgroups are
            let leaf = statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2);
            if !leaf && depth < MAX_DEPTH {
                // one that vanishes in between has nobody in it
                let _vanished = dir::open(folder, &name).and_then(|child| self.below(&child, path, depth + 1, old));
            }
            path.truncate(len);
        }
        Ok(())
    }
}

fn is_cgroup2(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = openat(CWD, path, flags, Mode::empty()) else { return false };
    fstatfs(folder).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2_MAGIC))
}
