//! Reading a log file from front to back, some of it ahead of where it is used.

use super::files::{LogFile, slot_name};
use crate::disk::IoBuf;
use crate::disk::io::Io;
use crate::error::{Error, Result};
use crate::limits::PAGE_BYTES;
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::Range;

/// How much is read at once.
const PIECE_BYTES: u64 = 1024 * 1024;
/// How many pieces are read ahead.
const PIECES_AHEAD: usize = 4;

const PAGE: u64 = PAGE_BYTES as u64;

/// Buffers that served before, for other readers of the same recovery.
pub(super) type Spent = RefCell<Vec<IoBuf>>;

/// A reader of a file that only moves forward.
pub(super) struct Forward<'a> {
    name: String,
    pieces: LocalBoxStream<'a, std::io::Result<IoBuf>>,
    /// Pieces that were read and may be asked for, without a gap.
    held: VecDeque<IoBuf>,
    /// Where they begin in the file, and end.
    held_at: u64,
    held_end: u64,
    /// What was asked for last, where it lies in more than one piece.
    joined: Vec<u8>,
    spent: &'a Spent,
}

impl<'a> Forward<'a> {
    /// Reads some of a file: whole pages.
    pub(super) fn new(io: &'a Io, file: &'a LogFile, range: Range<u64>, spent: &'a Spent) -> Self {
        let Range { start: offset, end } = range;
        debug_assert!(offset.is_multiple_of(PAGE) && end.is_multiple_of(PAGE) && end <= file.bytes);
        let starts = range.step_by(PIECE_BYTES as usize);
        let reads = starts.map(move |start| async move {
            let buf = spent.borrow_mut().pop().unwrap_or_default();
            io.read_into(file.file, start, PIECE_BYTES.min(end - start) as usize, buf).await
        });
        Forward {
            name: slot_name(file.slot),
            pieces: stream::iter(reads).buffered(PIECES_AHEAD).boxed_local(),
            held: VecDeque::new(),
            held_at: offset,
            held_end: offset,
            joined: Vec::new(),
            spent,
        }
    }

    /// `bytes` bytes at `offset`, within what is read, and not before what was asked for last.
    pub(super) async fn at(&mut self, offset: u64, bytes: u64) -> Result<&[u8]> {
        debug_assert!(offset >= self.held_at);
        while self.held_end < offset + bytes {
            let next = self.pieces.next().await.unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into()));
            let piece = next.map_err(|error| Error::io("read", &self.name, error))?;
            self.held_end += piece.len() as u64;
            self.held.push_back(piece);
        }
        self.let_go(offset);
        let (start, bytes) = ((offset - self.held_at) as usize, bytes as usize);
        let Some(first) = self.held.front() else { return Ok(&[]) };
        if start + bytes <= first.len() {
            return Ok(&first[start..start + bytes]);
        }
        self.joined.clear();
        let mut skipped = start;
        for piece in &self.held {
            let missing = bytes - self.joined.len();
            let rest = &piece[skipped..];
            self.joined.extend_from_slice(&rest[..missing.min(rest.len())]);
            skipped = 0;
        }
        Ok(&self.joined)
    }

    /// Lets go of the pieces that end at or before an offset.
    fn let_go(&mut self, offset: u64) {
        while let Some(first) = self.held.front()
            && self.held_at + first.len() as u64 <= offset
        {
            self.held_at += first.len() as u64;
            self.spent.borrow_mut().extend(self.held.pop_front());
        }
    }
}
