//! Reads small files of others. It never waits for a writer, and never reads more than [`MAX_BYTES`].

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::OFlags;

/// The size limit. No configuration, certificate or key is so large.
pub const MAX_BYTES: u64 = 1 << 20;
/// The time limit for a file system to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The text of a regular file.
pub fn read(path: &Path) -> io::Result<String> {
    // without O_NONBLOCK, opening a FIFO waits for its writer
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Runs `work` on a separate thread, and stops waiting after ten seconds: a network file system may never answer.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = mpsc::channel();
    std::thread::Builder::new().name("files".to_owned()).spawn(move || {
        // nobody waits after the deadline
        let _ = done.send(work());
    })?;
    result
        .recv_timeout(DEADLINE)
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the file system has not answered within 10 seconds"))
}

/// The values that change when a file is written or replaced: device, inode, size, seconds and nanoseconds.
pub type Stamp = (u64, u64, u64, i64, i64);

/// The current stamp of a file. `None` if there is no file.
#[must_use]
pub fn stamp(path: &Path) -> Option<Stamp> {
    let stat = std::fs::metadata(path).ok()?;
    Some((stat.dev(), stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec()))
}

/// The stamps of several files.
#[must_use]
pub fn stamps<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Option<Stamp>> {
    paths.into_iter().map(|path| stamp(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "a: 1\n").unwrap();
        assert_eq!(read(&path).unwrap(), "a: 1\n");
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "a FIFO is refused, not waited for");
        assert_eq!(read(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
