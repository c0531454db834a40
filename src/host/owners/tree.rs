//! Indexes the owners in the cgroup v2 tree by cgroup id, which is the inode of a directory.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, statat};

use super::cgroup::{CgroupOwner, owner_of_path};
use super::dir;
use crate::host::failure::is_gone;
use crate::host::worker::Worker;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// The kernel's own inode of the root of the whole hierarchy; a cgroup namespace shows another.
const ROOT_INO: u64 = 1;
/// The walk ends at this number of cgroups. No node has so many.
const MAX_CGROUPS: usize = 100_000;
/// Deeper than any runtime nests cgroups.
const MAX_DEPTH: usize = 32;

/// The owner of each cgroup. The kernel does not reuse ids while the host is up, so an entry stays valid.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    known: HashMap<u64, CgroupOwner>,
    /// The ids that a walk did not find: their cgroups are gone or not visible.
    absent: BTreeSet<u64>,
    walked: bool,
    is_whole: bool,
    is_hybrid: bool,
}

impl Tree {
    /// Finds the mounted cgroup v2 tree: `root` itself, or `root/unified` on a hybrid host.
    pub fn find(root: &Path) -> io::Result<Option<Self>> {
        if is_cgroup2(root)? {
            return Ok(Some(Self::at(root.to_owned())));
        }
        let unified = root.join("unified");
        match is_cgroup2(&unified) {
            Ok(true) => Ok(Some(Self { is_hybrid: true, ..Self::at(unified) })),
            Ok(false) => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tree below a folder that is known to be a cgroup v2 tree.
    pub fn at(root: PathBuf) -> Self {
        let is_whole = statat(CWD, &root, AtFlags::empty()).is_ok_and(|stat| stat.st_ino == ROOT_INO);
        Self { root, known: HashMap::new(), absent: BTreeSet::new(), walked: false, is_whole, is_hybrid: false }
    }

    /// Allows one more walk.
    pub fn begin_sweep(&mut self) {
        self.walked = false;
    }

    /// Makes every id known or known to be absent, with at most one walk in each sweep. After an error, the results so
    /// far and the earlier ones stay.
    pub fn learn(&mut self, ids: &BTreeSet<u64>, files: &mut Worker) -> io::Result<()> {
        self.absent.retain(|id| ids.contains(id));
        let news = ids.iter().any(|id| !self.known.contains_key(id) && !self.absent.contains(id));
        if !news || self.walked {
            return Ok(());
        }
        self.walked = true;
        let root = self.root.clone();
        let walk = files.run(move || Walk::of(&root))?;
        let old = std::mem::replace(&mut self.known, walk.found);
        // a cgroup may be gone while a socket that was created in it still exists
        let failed = walk.error.is_some();
        for (id, owner) in old.into_iter().filter(|(id, _)| failed || ids.contains(id)) {
            self.known.entry(id).or_insert(owner);
        }
        if let Some(error) = walk.error {
            return Err(error);
        }
        self.absent.extend(ids.iter().filter(|id| !self.known.contains_key(id)));
        Ok(())
    }

    /// The owner of the cgroup, if it is known.
    pub fn get(&self, id: u64) -> Option<&CgroupOwner> {
        self.known.get(&id)
    }

    /// Whether this is the whole hierarchy and not the part that a cgroup namespace shows.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether container runtimes may use hierarchies of version 1 as well.
    pub fn is_hybrid(&self) -> bool {
        self.is_hybrid
    }
}

/// One walk over the tree.
#[derive(Default)]
struct Walk {
    found: HashMap<u64, CgroupOwner>,
    /// The first error. The walk continues after it.
    error: Option<io::Error>,
}

impl Walk {
    fn of(root: &Path) -> Self {
        let mut walk = Self::default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            openat(CWD, root, flags, Mode::empty()).and_then(|root| Ok((rustix::fs::fstat(&root)?.st_ino, root)));
        match root {
            Ok((ino, root)) => {
                walk.found.insert(ino, CgroupOwner::default());
                walk.below(&root, &mut String::new(), 0);
                if walk.found.len() >= MAX_CGROUPS {
                    let kind = io::ErrorKind::FileTooLarge;
                    walk.fail(io::Error::new(kind, format!("it has more than {MAX_CGROUPS} cgroups")));
                }
            }
            Err(errno) => walk.fail(errno.into()),
        }
        walk
    }

    fn fail(&mut self, error: io::Error) {
        self.error.get_or_insert(error);
    }

    fn below(&mut self, folder: &OwnedFd, path: &mut String, depth: usize) {
        let mut children = Vec::new();
        let listed = dir::entries(folder, ".", |entry| {
            if entry.is_dir {
                children.push((entry.ino, entry.name.to_owned()));
            }
        });
        // a cgroup that was removed meanwhile has no processes
        if let Err(error) = listed
            && !is_gone(&error)
        {
            self.fail(error);
        }
        for (ino, name) in children {
            if self.found.len() >= MAX_CGROUPS {
                break;
            }
            let len = path.len();
            path.push('/');
            path.push_str(&name);
            self.found.insert(ino, owner_of_path(path));
            // a folder with two links has no subfolders, so it need not be opened; most cgroups are such leaves
            let leaf = statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2);
            if !leaf && depth < MAX_DEPTH {
                match dir::open(folder, &name) {
                    Ok(child) => self.below(&child, path, depth + 1),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => self.fail(error),
                }
            }
            path.truncate(len);
        }
    }
}

fn is_cgroup2(path: &Path) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty())?;
    Ok(u64::try_from(fstatfs(folder)?.f_type) == Ok(CGROUP2_MAGIC))
}
