//! Stdout as the file of a recording, for `--record -`: where a container's file system cannot be written.

use std::io::{self, Seek, SeekFrom, Stdout, Write};

/// What is held back: a recorder overwrites the end record, which is shorter.
const HELD: usize = 4096;

/// Passes on what is written, except for its last bytes. A seek can go back over these.
pub struct Streamed<W = Stdout> {
    out: W,
    held: Vec<u8>,
    passed_on: u64,
}

impl<W: Write> Streamed<W> {
    pub fn new(out: W) -> Self {
        Self { out, held: Vec::new(), passed_on: 0 }
    }

    /// Passes on the last bytes.
    pub fn end(mut self) -> io::Result<()> {
        self.out.write_all(&self.held)?;
        self.out.flush()
    }
}

impl<W: Write> Write for Streamed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= 16 * HELD {
            let ready = self.held.len() - HELD;
            self.out.write_all(&self.held[..ready])?;
            self.held.drain(..ready);
            self.passed_on += ready as u64;
        }
        Ok(bytes.len())
    }

    /// Does nothing: what is held may still change.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W> Seek for Streamed<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let back = match to {
            SeekFrom::Current(by) if by <= 0 => usize::try_from(by.unsigned_abs()).ok(),
            _ => None,
        };
        let left = back.and_then(|back| self.held.len().checked_sub(back));
        self.held.truncate(left.ok_or(io::ErrorKind::Unsupported)?);
        Ok(self.passed_on + self.held.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_can_be_written_again_and_all_bytes_arrive() {
        let mut arrived = Vec::new();
        let mut streamed = Streamed::new(&mut arrived);
        let long = vec![b'a'; 40 * HELD];
        for chunk in long.chunks(1000) {
            streamed.write_all(chunk).unwrap();
        }
        streamed.write_all(b"end").unwrap();
        assert_eq!(streamed.stream_position().unwrap(), long.len() as u64 + 3);
        streamed.seek(SeekFrom::Current(-3)).unwrap();
        assert!(streamed.seek(SeekFrom::Start(0)).is_err());
        assert!(streamed.seek(SeekFrom::Current(-80_000)).is_err(), "what was passed on is gone");
        streamed.write_all(b"more").unwrap();
        streamed.flush().unwrap();
        streamed.end().unwrap();
        assert_eq!(arrived, [&long[..], b"more"].concat());
    }
}
