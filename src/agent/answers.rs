//! Stores answers that list connections until the next sweep, so that the same request gets the same text.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::web::Page;

/// The highest number of stored answers. Each takes about half a megabyte for 10 000 connections.
const MAX_STORED: usize = 4;
/// A longer query is not stored.
const MAX_KEY: usize = 512;

/// The stored answers, the oldest first.
#[derive(Default)]
pub(super) struct Answers(Mutex<Vec<Stored>>);

struct Stored {
    key: String,
    sweep: u64,
    page: Page,
}

/// The request.
pub(super) fn key(path: &str, query: &[(String, String)]) -> String {
    query.iter().fold(path.to_owned(), |key, (name, value)| key + "\n" + name + "\n" + value)
}

impl Answers {
    /// The answer to `key` from the sweep of this number, or from any.
    pub fn get(&self, key: &str, sweep: Option<u64>) -> Option<Page> {
        let fits = |stored: &&Stored| stored.key == key && sweep.is_none_or(|sweep| sweep == stored.sweep);
        self.stored().iter().find(fits).map(|stored| stored.page.clone())
    }

    /// Stores an answer. Drops the oldest one if there are too many, and all of earlier sweeps.
    pub fn put(&self, key: &str, sweep: u64, page: &Page) {
        if page.status != 200 || key.len() > MAX_KEY {
            return;
        }
        let mut stored = self.stored();
        stored.retain(|stored| stored.sweep == sweep && stored.key != key);
        if stored.len() >= MAX_STORED {
            stored.remove(0);
        }
        stored.push(Stored { key: key.to_owned(), sweep, page: page.clone() });
    }

    /// Drops the answers of sweeps before this one.
    pub fn expire(&self, sweep: u64) {
        self.stored().retain(|stored| stored.sweep >= sweep);
    }

    fn stored(&self) -> MutexGuard<'_, Vec<Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
