//! Writes and reads a recording: records as JSON, one per line.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use crate::owner::NsId;
use crate::socket::{Cookie, SocketName};

use super::{
    BYTE_ORDER, Consumer, FORMAT, Header, HolderSearch, Namespace, Record, SocketsToRead, VERSION, WhatToRead,
};

/// The longest line that a reader takes, in bytes: room for the owners of 50 000 cgroups.
const MAX_LINE: u64 = 16 << 20;

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is not a record.
    #[error("line {line}: not a record of a keepalive-auditor recording; record again")]
    Syntax {
        /// The line, counted from 1.
        line: u64,
    },
    /// A second header: two recordings in one file.
    #[error("line {0}: a second header; a file holds one recording, so take them apart first")]
    SecondHeader(u64),
    /// The file starts with something else.
    #[error("line 1: not a keepalive-auditor recording, which starts with a header; `audit --record FILE` writes one")]
    Foreign,
    /// Written by a newer version of the program.
    #[error("the recording has version {0}; this program reads up to version {VERSION}; use a newer keepalive-auditor")]
    Newer(u32),
    /// Written on a machine with another byte order.
    #[error("the recording was made on a {0}-endian machine; replay it on one of the same byte order")]
    ByteOrder(String),
    /// The file ends inside a sweep, or without its end record.
    #[error("the recording has no end: it was cut off after line {0}; copy it whole, or record again")]
    Truncated(u64),
    /// Something follows the end record.
    #[error("line {0}: something follows the end of the recording; a file holds one recording")]
    BeyondEnd(u64),
    /// A line is longer than any record.
    #[error("line {0}: longer than {MAX_LINE} bytes, which no record is")]
    LineTooLong(u64),
}

/// Writes records, one JSON object per line.
pub struct Recorder<W> {
    out: W,
    /// The length of the end record that the file ends with; 0 during a sweep.
    end: i64,
}

impl<W: Write + Seek> Recorder<W> {
    /// A recorder that has written its header.
    pub fn new(mut out: W, header: &Header) -> Result<Self, RecordError> {
        write_line(&mut out, &Record::Header(header.clone()))?;
        Ok(Self { out, end: 0 })
    }

    /// The file, to finish it.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Appends one record. After each sweep the file ends with an end record, which the next sweep overwrites. So a
    /// reader can detect a truncated file, even if this program was interrupted.
    pub fn write(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        if self.end > 0 {
            self.out.seek(SeekFrom::Current(-std::mem::take(&mut self.end)))?;
        }
        write_line(&mut self.out, record)?;
        if matches!(record, Record::SweepEnd { .. }) {
            let before = self.out.stream_position()?;
            write_line(&mut self.out, &Record::End)?;
            self.end = self.out.stream_position()?.saturating_sub(before).try_into().unwrap_or(0);
            self.out.flush()?;
        }
        Ok(())
    }
}

/// A consumer that also writes every record to a recording, if there is one.
pub struct Recording<'a, C, W> {
    consumer: &'a mut C,
    recorder: Option<&'a mut Recorder<W>>,
}

impl<'a, C, W> Recording<'a, C, W> {
    /// Passes every record to `consumer` first, then to `recorder`.
    pub fn new(consumer: &'a mut C, recorder: Option<&'a mut Recorder<W>>) -> Self {
        Self { consumer, recorder }
    }
}

impl<C: Consumer<Error = io::Error>, W: Write + Seek> Consumer for Recording<'_, C, W> {
    type Error = RecordError;

    fn consume(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        self.consumer.consume(record)?;
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.write(record))
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        self.consumer.what_to_read(namespace)
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        self.consumer.unknown_cgroups()
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        self.consumer.unknown_inodes(all)
    }

    fn flagged(&self, namespace: NsId) -> Vec<Cookie> {
        self.consumer.flagged(namespace)
    }

    fn ended(&self, namespace: NsId) -> Vec<SocketName> {
        self.consumer.ended(namespace)
    }

    fn sockets_to_read(&self) -> SocketsToRead {
        self.consumer.sockets_to_read()
    }

    fn descriptors_to_read(&self, search: HolderSearch) -> usize {
        self.consumer.descriptors_to_read(search)
    }
}

fn write_line(out: &mut impl Write, record: &Record<'_>) -> Result<(), RecordError> {
    serde_json::to_writer(&mut *out, record).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Reads a recording from its start: passes the header to `header` and each later record to `each`, in order.
///
/// The file is untrusted: a wrong one gives an error and never a panic, and a line that is too long for a record is not
/// kept in memory.
pub fn replay<E: From<RecordError>>(
    mut from: impl BufRead,
    mut each: impl FnMut(Record<'static>) -> Result<(), E>,
) -> Result<Header, E> {
    let mut line = Vec::new();
    let mut number = 0;
    let mut header = None;
    // a recording has at least one complete sweep
    let mut inside = true;
    let mut ended = false;
    loop {
        line.clear();
        number += 1;
        let read = (&mut from).take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(RecordError::Io)?;
        if read == 0 {
            break;
        }
        if line.len() as u64 > MAX_LINE {
            return Err(RecordError::LineTooLong(number).into());
        }
        let record: Record<'static> = match serde_json::from_slice(&line) {
            Ok(record) => record,
            Err(_) if header.is_none() => return Err(RecordError::Foreign.into()),
            // a last line without its newline means that the file was truncated
            Err(_) if line.last() != Some(&b'\n') => return Err(RecordError::Truncated(number - 1).into()),
            Err(_) => return Err(RecordError::Syntax { line: number }.into()),
        };
        if ended && !matches!(record, Record::Header(_)) {
            return Err(RecordError::BeyondEnd(number).into());
        }
        match (&record, &header) {
            (Record::Header(found), None) => {
                check(found)?;
                header = Some(found.clone());
                continue;
            }
            (_, None) => return Err(RecordError::Foreign.into()),
            (Record::Header(_), Some(_)) => return Err(RecordError::SecondHeader(number).into()),
            (Record::Sweep { .. }, _) => inside = true,
            (Record::SweepEnd { .. }, _) => inside = false,
            (Record::End, _) => {
                ended = true;
                continue;
            }
            _ => {}
        }
        each(record)?;
    }
    match header {
        None => Err(RecordError::Foreign.into()),
        Some(header) if inside || (header.has_end && !ended) => Err(RecordError::Truncated(number - 1).into()),
        Some(header) => Ok(header),
    }
}

fn check(header: &Header) -> Result<(), RecordError> {
    if header.format != FORMAT {
        return Err(RecordError::Foreign);
    }
    if header.version > VERSION {
        return Err(RecordError::Newer(header.version));
    }
    if header.byte_order != BYTE_ORDER {
        return Err(RecordError::ByteOrder(header.byte_order.clone()));
    }
    Ok(())
}
