//! What a process runs: its names, the ELF headers of its executable, and the shared libraries in its memory.
//!
//! A process can make each of these reads hang: its command line and its mappings are its memory, and its executable
//! may be on a file system of its own. So a thread with a deadline reads them.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, openat, readlinkat};

use super::names::printable;
use super::worker::Worker;
use crate::owner::{Binary, Holder};

mod command_line;
mod elf;

/// The most bytes of a command line that are read.
const MAX_COMMAND_LINE: u64 = 16 << 10;
/// The most bytes of the mappings of a process that are read: 10 000 lines.
const MAX_MAPPINGS: u64 = 1 << 20;
/// The most libraries of one process that are kept.
const MAX_LIBRARIES: usize = 256;
/// The most executables that are stored.
const MAX_BINARIES: usize = 4096;

/// Identifies the contents of a file: device, inode, size and the time of the last change.
type FileId = (u64, u64, u64, i64, i64);

/// Reads what processes run. Clones share the thread and what it has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs {
    files: Arc<Mutex<Worker>>,
    /// Executables that were read before.
    binaries: Arc<Mutex<Binaries>>,
}

type Binaries = HashMap<FileId, Option<Binary>>;

impl Programs {
    /// Starts the thread if there is none yet. The calling thread must be in the own network namespace.
    pub fn start(&self) -> io::Result<()> {
        lock(&self.files).start()
    }

    /// Everything about a process that may be read.
    pub fn read(&self, pid: u32, folder: BorrowedFd<'_>) -> Holder {
        let (binaries, names) = (Arc::clone(&self.binaries), names(pid, folder));
        let exe = names.exe.clone();
        let read = self.run(folder, move |folder| {
            let mappings = text(folder, "maps", MAX_MAPPINGS).unwrap_or_default();
            let libraries = libraries(&mappings).into_iter().map(printable).collect();
            (arguments(folder, &exe), binary(folder, &binaries), libraries)
        });
        let ((argv0, script), binary, libraries) = read.unwrap_or_default();
        Holder { argv0, script, binary, libraries, ..names }
    }

    /// Only what names the program of a process.
    pub fn read_names(&self, pid: u32, folder: BorrowedFd<'_>) -> Holder {
        let names = names(pid, folder);
        let exe = names.exe.clone();
        let (argv0, script) = self.run(folder, move |folder| arguments(folder, &exe)).unwrap_or_default();
        Holder { argv0, script, ..names }
    }

    fn run<T: Send + 'static>(
        &self,
        folder: BorrowedFd<'_>,
        read: impl FnOnce(BorrowedFd<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let mut files = lock(&self.files);
        // a new thread would be in the namespace that this one has entered
        if !files.is_started() {
            return None;
        }
        let folder = folder.try_clone_to_owned().ok()?;
        files.run(move || read(folder.as_fd())).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names of a process that the kernel has without asking it. Its command line is not one: see [`Programs`].
fn names(pid: u32, folder: BorrowedFd<'_>) -> Holder {
    let exe = readlinkat(folder, "exe", Vec::new()).ok();
    let exe = exe.as_ref().and_then(|exe| Path::new(exe.to_str().ok()?).file_name()?.to_str());
    Holder {
        pid,
        comm: printable(text(folder, "comm", MAX_COMMAND_LINE).unwrap_or_default().trim_end_matches('\n')),
        // an executable that was replaced while it runs
        exe: exe.map(|exe| printable(exe.strip_suffix(" (deleted)").unwrap_or(exe))).unwrap_or_default(),
        ..Holder::default()
    }
}

/// The first argument of a command line, and what an interpreter runs.
fn arguments(folder: BorrowedFd<'_>, exe: &str) -> (String, String) {
    let line = text(folder, "cmdline", MAX_COMMAND_LINE).unwrap_or_default();
    let arguments: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    let argv0 = arguments.first().copied().unwrap_or_default();
    (printable(argv0), printable(command_line::script(exe, &arguments)))
}

/// What the headers of the executable say.
fn binary(folder: BorrowedFd<'_>, known: &Mutex<Binaries>) -> Option<Binary> {
    // the link leads to the file itself, in whichever mount namespace it is
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(folder, "exe", flags, Mode::empty()).ok()?);
    let facts = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let id = (facts.dev(), facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec());
    let mut known = lock(known);
    if let Some(binary) = known.get(&id) {
        return *binary;
    }
    if known.len() >= MAX_BINARIES {
        known.clear();
    }
    *known.entry(id).or_insert(elf::read(&file))
}

/// The file names of shared libraries in `/proc/PID/maps`, in alphabetical order.
fn libraries(mappings: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for line in mappings.lines() {
        // address, access, offset, device, inode, path
        let path = line.find('/').and_then(|at| line.get(at..)).unwrap_or_default();
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let file = path.rsplit('/').next().unwrap_or_default();
        if file.split('.').skip(1).any(|part| part == "so") && found.len() < MAX_LIBRARIES {
            found.insert(file);
        }
    }
    found
}

/// The grammars for files that another user's process can influence: a command line, mappings, an executable.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(text: &str) {
    let arguments: Vec<&str> = text.split('\n').collect();
    let exe = arguments.first().copied().unwrap_or_default();
    let _ = (command_line::script(exe, &arguments), libraries(text), elf::read(&text.as_bytes()));
}

fn text(folder: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<String> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn text_of_others_is_harmless() {
        for text in ["", "\n", "java\n-jar", "beam.smp\n-s", "busybox\nbusybox\nbusybox", "/\n/ /.so", "ld-.so\n\n-"] {
            fuzz(text);
        }
    }

    #[test]
    fn libraries_are_the_mapped_files_that_look_like_some() {
        let mappings = "\
            7f00-7f01 r-xp 00000000 08:01 11 /usr/lib/x86_64-linux-gnu/libpq.so.5.15\n\
            7f01-7f02 r--p 00000000 08:01 11 /usr/lib/x86_64-linux-gnu/libpq.so.5.15\n\
            7f02-7f03 r-xp 00000000 08:01 12 /srv/my app/_psycopg.cpython-311-x86_64-linux-gnu.so (deleted)\n\
            7f03-7f04 rw-p 00000000 00:00 0  [heap]\n\
            7f04-7f05 rw-p 00000000 00:00 0\n\
            7f05-7f06 r-xp 00000000 08:01 13 /usr/bin/python3.11\n";
        let found: Vec<_> = libraries(mappings).into_iter().collect();
        assert_eq!(found, ["_psycopg.cpython-311-x86_64-linux-gnu.so", "libpq.so.5.15"]);
    }

    #[test]
    fn this_process_is_read_whole_with_the_thread_and_by_its_names_without() {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, "/proc/self", folder, Mode::empty()).expect("our own folder");
        let programs = Programs::default();
        let before = programs.read(1, folder.as_fd());
        assert!(!before.comm.is_empty() && before.argv0.is_empty() && before.binary.is_none(), "{before:?}");
        programs.start().expect("a thread");
        let whole = programs.read(1, folder.as_fd());
        assert_eq!(Some(&*whole.argv0), std::env::args().next().as_deref());
        assert!(whole.binary.is_some() && whole.script.is_empty(), "{whole:?}");
        let named = programs.read_names(1, folder.as_fd());
        assert_eq!(named, Holder { binary: None, libraries: Vec::new(), ..whole.clone() });
        if whole.binary.is_some_and(|binary| binary.linking == crate::owner::Linking::Dynamic) {
            assert!(whole.libraries.iter().any(|library| library.starts_with("libc.so")), "{whole:?}");
        }
        assert_eq!(programs.binaries.lock().expect("no panic").len(), 1, "an executable is read once");
    }
}
