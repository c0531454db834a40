//! Creates the file of a recording, which only its owner can read and which overwrites nothing by mistake. Replays one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::digest::Digest;
use crate::host;
use crate::judge::policy::Policy;
use crate::record::{Header, Record, RecordError, Recorder, replay};

use super::streamed::Streamed;

/// A recording that is being written.
pub type FileRecorder = Recorder<Destination>;

/// What names stdin or stdout in place of a file.
const STANDARD: &str = "-";

/// Where a recording goes.
pub enum Destination {
    File(BufWriter<File>),
    Stdout(Streamed),
}

impl Destination {
    /// Writes what is left.
    pub fn end(self) -> io::Result<()> {
        match self {
            Self::File(mut file) => file.flush(),
            Self::Stdout(streamed) => streamed.end(),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(streamed) => streamed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(streamed) => streamed.flush(),
        }
    }
}

impl Seek for Destination {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Stdout(streamed) => streamed.seek(to),
        }
    }
}

/// Whether this is stdin or stdout in place of a file.
pub fn is_standard(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// Only the user who makes a recording may read it: it holds addresses and names.
const MODE: u32 = 0o600;

/// Creates the recording, and writes its header. `force`: an existing recording is replaced.
pub fn create(path: &Path, force: bool, node: &str) -> Result<FileRecorder> {
    let to = if is_standard(path) {
        if io::stdout().is_terminal() {
            bail!("--record - writes the recording to stdout, which is a terminal; write `> FILE` after it");
        }
        Destination::Stdout(Streamed::new(io::stdout()))
    } else {
        let file = open_new(path, force).with_context(|| format!("cannot create the recording {}", path.display()))?;
        tracing::warn!("the recording {} will hold addresses and names of this machine", path.display());
        Destination::File(BufWriter::new(file))
    };
    let header = Header::new(host::kernel_release(), node.to_owned(), host::wall_clock());
    Recorder::new(to, &header).map_err(plain)
}

fn open_new(path: &Path, force: bool) -> Result<File> {
    let new = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(new(path)?) };
    if !found.is_file() {
        bail!("it exists and is not a regular file; name another file");
    }
    if !force {
        bail!("it exists already; name another file, or overwrite it with --force");
    }
    // A new file replaces the old one, so that no link is followed that somebody has put there meanwhile.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", host::own_pid()));
    let beside = path.with_file_name(name);
    let file = new(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
    if let Err(error) = fs::rename(&beside, path) {
        let _ = fs::remove_file(&beside);
        return Err(error.into());
    }
    Ok(file)
}

/// The report of a recording, and the name of its node. `to` is the action that the error names.
pub fn read(policy: &Arc<Policy>, path: &Path, to: &str) -> Result<(Digest, String)> {
    let mut digest = Digest::new(Arc::clone(policy));
    let (failed, from): (_, Box<dyn BufRead>) = if is_standard(path) {
        (format!("cannot {to} the recording on stdin"), Box::new(io::stdin().lock()))
    } else {
        let failed = format!("cannot {to} {}", path.display());
        let file = File::open(path).with_context(|| failed.clone())?;
        (failed, Box::new(BufReader::new(file)))
    };
    let header = replay(from, |record: Record<'static>| {
        digest.feed(&record);
        Ok::<(), RecordError>(())
    })
    .map_err(plain)
    .context(failed)?;
    Ok((digest, header.node))
}

/// The error of a recording. One of the system is passed on as such, so that it is reported in plain words.
pub fn plain(error: RecordError) -> anyhow::Error {
    match error {
        RecordError::Io(error) => error.into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_recording_is_private_and_replaces_nothing_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.jsonl");
        open_new(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);

        fs::write(&path, "kept").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = open_new(&path, false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");

        open_new(&path, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE, "whatever the old one allowed");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_not_regular_is_refused_even_with_force() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "kept").unwrap();
        for (name, made) in [("link", &target), ("dangling", &folder.path().join("nowhere"))] {
            let link = folder.path().join(name);
            symlink(made, &link).unwrap();
            for force in [false, true] {
                let error = open_new(&link, force).unwrap_err().to_string();
                assert!(error.contains("not a regular file"), "{name}: {error}");
            }
        }
        assert!(open_new(Path::new("/dev/null"), true).is_err());
        assert!(open_new(folder.path(), true).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        assert!(!folder.path().join("nowhere").exists());
    }
}
