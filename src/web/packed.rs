//! Text that is held compressed. Clients that accept gzip get it as it is; for the others it is decompressed while it
//! is sent.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc, Decompress, FlushDecompress, Status};
use hyper::body::Bytes;

/// Level 1: the text repeats itself so much that higher levels cost more than they save.
const LEVEL: Compression = Compression::fast();
/// RFC 1952: magic number, deflate, no flags, no time, "fastest", system unknown.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
/// RFC 1951: a last block without any content.
const DEFLATE_END: [u8; 2] = [0x03, 0x00];
/// Text is sent in chunks of this many bytes.
pub(super) const CHUNK: usize = 16 * 1024;

/// Compressed pieces of text, shared by the requests that are answered with them.
#[derive(Clone, Debug, Default)]
pub struct Packed(Vec<Arc<Piece>>);

/// Deflate blocks, none of them marked as the last one: pieces can be joined.
#[derive(Debug)]
struct Piece {
    deflated: Bytes,
    crc: Crc,
    length: u64,
}

impl Packed {
    /// Compresses a text.
    pub fn new(text: &str) -> io::Result<Self> {
        let mut packer = Packer::new();
        packer.write_all(text.as_bytes())?;
        packer.finish()
    }

    /// This text and then `more`; nothing is copied.
    #[must_use]
    pub fn followed_by(&self, more: Self) -> Self {
        Self(self.0.iter().cloned().chain(more.0).collect())
    }

    /// The length of the text.
    pub(super) fn length(&self) -> u64 {
        self.0.iter().map(|piece| piece.length).sum()
    }

    /// One gzip member, in parts.
    pub(super) fn gzip(&self) -> VecDeque<Bytes> {
        let mut crc = Crc::new();
        self.0.iter().for_each(|piece| crc.combine(&piece.crc));
        let end = [&DEFLATE_END[..], &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat();
        let header = Bytes::from_static(&GZIP_HEADER);
        let pieces = self.0.iter().map(|piece| piece.deflated.clone());
        std::iter::once(header).chain(pieces).chain([Bytes::from(end)]).collect()
    }
}

/// Compresses what is written to it, so that a long text is never held whole.
pub struct Packer {
    encoder: DeflateEncoder<Vec<u8>>,
    crc: Crc,
    length: u64,
}

impl Packer {
    /// Of an empty text.
    #[must_use]
    pub fn new() -> Self {
        Self { encoder: DeflateEncoder::new(Vec::new(), LEVEL), crc: Crc::new(), length: 0 }
    }

    /// What was written.
    pub fn finish(mut self) -> io::Result<Packed> {
        // ends the block at a whole byte, without the mark of the last one
        self.encoder.flush()?;
        let deflated = std::mem::take(self.encoder.get_mut()).into();
        Ok(Packed(vec![Arc::new(Piece { deflated, crc: self.crc, length: self.length })]))
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses one chunk after the other.
pub(super) struct Unpacker {
    inflate: Decompress,
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Unpacker {
    pub fn new(packed: &Packed) -> Self {
        Self {
            inflate: Decompress::new(false),
            pieces: packed.0.iter().map(|piece| piece.deflated.clone()).collect(),
            left: packed.length(),
        }
    }

    /// How many bytes of text are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next chunk; `None` after the last one.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = Vec::with_capacity(CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK)));
        while self.left > 0 && chunk.len() < chunk.capacity() {
            let Some(piece) = self.pieces.front_mut() else { return Err(damaged()) };
            let (consumed, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress_vec(piece, &mut chunk, FlushDecompress::None)?;
            let consumed = usize::try_from(self.inflate.total_in() - consumed).unwrap_or(usize::MAX);
            let written = self.inflate.total_out() - written;
            drop(piece.split_to(consumed.min(piece.len())));
            self.left = self.left.saturating_sub(written);
            let is_stuck = consumed == 0 && written == 0;
            if piece.is_empty() && written == 0 {
                self.pieces.pop_front();
            } else if is_stuck || status == Status::StreamEnd {
                return Err(damaged());
            }
        }
        Ok((!chunk.is_empty()).then(|| chunk.into()))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a compressed answer is damaged")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(packed: &Packed) -> Vec<u8> {
        let mut unpacker = Unpacker::new(packed);
        let mut text = Vec::new();
        while let Some(chunk) = unpacker.next_chunk().unwrap() {
            assert!(chunk.len() <= CHUNK, "{} bytes in one chunk", chunk.len());
            text.extend_from_slice(&chunk);
        }
        assert_eq!(unpacker.left(), 0);
        text
    }

    fn gunzipped(packed: &Packed) -> Vec<u8> {
        let member: Vec<u8> = packed.gzip().into_iter().flatten().collect();
        let mut text = Vec::new();
        // one member and nothing after it: not every client reads several
        flate2::bufread::GzDecoder::new(&member[..]).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn both_forms_give_the_text_back_whole_and_joined() {
        let long = (0..30_000).map(|number| number.to_string()).collect::<Vec<_>>().join(" of a text\n");
        for (first, second) in [("", ""), ("a", ""), ("", "b"), ("one\n", "two\n"), (&*long, "end"), ("start", &*long)]
        {
            let joined = Packed::new(first).unwrap().followed_by(Packed::new(second).unwrap());
            let expected = format!("{first}{second}");
            assert_eq!(joined.length(), expected.len() as u64);
            assert!(unpacked(&joined) == expected.as_bytes(), "unpacked: {} bytes", expected.len());
            assert!(gunzipped(&joined) == expected.as_bytes(), "gunzipped: {} bytes", expected.len());
        }
    }
}
