//! The thread of a sweep. It ends with the sweep, because a thread that entered a namespace does not return to its own.

use std::io;
use std::thread::{Builder, scope};

/// Runs `work` on a new thread. A panic of `work` and a thread that cannot start become errors.
pub fn on_own_thread<T: Send, E: Send + From<io::Error>>(work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E> {
    start(work)?
}

/// Like [`on_own_thread`]. The outer error means that the thread could not start, so `work` did not run.
pub(super) fn start<T: Send, E: Send + From<io::Error>>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> io::Result<Result<T, E>> {
    scope(|scope| {
        let thread = Builder::new().name("sweep".to_owned()).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|_| Err(io::Error::other("the sweep's thread panicked").into())))
    })
}
