//! Reads folders and small files of trees that others write: through file descriptors, with limits, without following
//! links.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};

/// The highest number of entries of one folder that are read.
const MAX_ENTRIES: usize = 200_000;

/// One entry of a folder.
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub ino: u64,
    pub is_dir: bool,
}

/// Opens a folder below another.
pub(super) fn open(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Passes each entry of the folder `name` below `parent` to `each`. Names that are not UTF-8 are skipped.
pub(super) fn entries(parent: impl AsFd, name: &str, mut each: impl FnMut(&Entry<'_>)) -> io::Result<()> {
    for (seen, entry) in Dir::new(open(parent, name)?)?.enumerate() {
        let entry = entry?;
        if seen >= MAX_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_ENTRIES} entries")));
        }
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => each(&Entry { name, ino: entry.ino(), is_dir: entry.file_type() == FileType::Directory }),
        }
    }
    Ok(())
}

/// The text of a small file below a folder, up to `limit` bytes.
pub(super) fn text(parent: impl AsFd, name: &str, limit: u64) -> io::Result<String> {
    let file = openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // most files of procfs are smaller than this and need one read
    let mut text = Vec::with_capacity(4096);
    std::fs::File::from(file).take(limit).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
