//! The same interface on architectures for which there is no filter.

use std::io;

/// Always fails.
pub fn refuse_calls() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there is no filter for this architecture"))
}
