//! The network namespaces that are mounted in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::super::failure::{is_gone, reason};
use super::super::netns::{Device, handle_on, nsfs};
use crate::owner::NsId;
use crate::record::LossReason;

/// The bind mounts of one directory.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub found: Vec<(PathBuf, NsId)>,
    /// The reason why some entries could not be listed.
    pub failure: Option<io::Error>,
    /// Entries that cannot be opened, with the error of the first.
    pub refused: BTreeMap<LossReason, (BTreeSet<PathBuf>, io::Error)>,
}

impl Mounts {
    pub fn failed(error: io::Error) -> Self {
        Self { failure: Some(error), ..Self::default() }
    }

    pub fn read(directory: &Path) -> Self {
        let mut read = Self::default();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return Self::failed(error),
        };
        let nsfs = nsfs();
        for entry in entries {
            match entry {
                Ok(entry) => read.entry(entry.path(), nsfs),
                Err(error) => {
                    read.failure = Some(error);
                    break;
                }
            }
        }
        read
    }

    fn entry(&mut self, path: PathBuf, nsfs: Option<Device>) {
        match handle_on(&path, nsfs) {
            Ok(Some(id)) => self.found.push((path, id)),
            // a file that is left over from an unmounted namespace
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                let refused = self.refused.entry(reason(&error));
                refused.or_insert_with(|| (BTreeSet::new(), error)).0.insert(path);
            }
        }
    }
}
