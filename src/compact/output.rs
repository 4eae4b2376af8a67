//! From a segment writer to the disk: chunks at consecutive offsets, several in flight, then a flush.

use super::Context;
use crate::cache::{BlockKey, Cached};
use crate::disk::io::Ticket;
use crate::disk::{FileId, IoBuf, Op, OpenHow, Outcome};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::segment::{BlockKind, BlockPtr, Finished, Segment, SegmentIdentity, SegmentWriter};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// Chunks in flight; beyond this the merge waits for the disk.
const CHUNKS_IN_FLIGHT: usize = 4;

/// A file being written. Dropped before [`finish`](Output::finish), or never installed, it is loose: the shard removes
/// it before the next attempt, the next opening as an orphan.
pub(crate) struct Output {
    context: Context,
    name: String,
    file: FileId,
    offset: u64,
    writer: SegmentWriter,
    /// What the cache will know the segment by.
    number: u64,
    /// Where the blocks lie that were put into the cache; they are forgotten if it comes to nothing.
    kept: Vec<u64>,
    /// The block being filled takes the place of one that is cached.
    takes_over: bool,
    /// It has entries that readers have in memory.
    warm: bool,
    flights: VecDeque<Ticket>,
    open: bool,
}

impl Output {
    /// Creates the file; what an earlier attempt left under its name goes.
    pub(crate) async fn create(context: &Context, name: String, identity: SegmentIdentity) -> Result<Self> {
        let how = OpenHow { write: true, create_new: true, durable: false };
        context.loose.begin(&name);
        let open = || context.loose.run(&context.io, Op::Open { name: name.clone(), how });
        let opened = match open().await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let removed = context.loose.run(&context.io, Op::Remove { name: name.clone() }).await;
                removed.map_err(|error| Error::io("remove", &name, error))?;
                open().await
            }
            opened => opened,
        };
        let file = match opened {
            Ok(Outcome::Opened { file, .. }) => Ok(file),
            Ok(other) => Err(io::Error::other(format!("open answered {other:?}"))),
            Err(error) => Err(error),
        };
        let file = file.map_err(|error| Error::io("create", &name, error))?;
        let writer = SegmentWriter::new(context.segments, identity);
        let (context, number) = (context.clone(), context.cache.segment_number());
        Ok(Output {
            context,
            name,
            file,
            offset: 0,
            writer,
            number,
            kept: Vec::new(),
            takes_over: false,
            warm: false,
            flights: VecDeque::new(),
            open: true,
        })
    }

    /// Adds an entry; `warm` where readers have what it comes from in memory: then they get the block that it goes into, and
    /// what leads to it, as well. So they do while the cache has room: the next fold need not read it from the disk, where log
    /// writes would wait behind that. Answers whether chunks are ready to be written: then [`flush`](Output::flush).
    #[inline]
    pub(crate) fn add(&mut self, entry: &Entry<'_>, warm: bool) -> bool {
        self.writer.add(entry);
        let mut closed = false;
        while let Some(kept) = self.writer.take_kept() {
            self.keep(kept);
            closed = true;
        }
        if closed {
            (self.takes_over, self.warm) = (false, false);
        }
        self.warm |= warm;
        if warm || self.context.cache.has_room_for_unread() {
            self.writer.keep_block();
        }
        self.writer.has_output()
    }

    /// The block that the last entry went into takes the place of one that readers have in the cache.
    #[inline]
    pub(crate) fn take_over(&mut self) {
        self.writer.keep_block();
        self.takes_over = true;
    }

    fn keep(&mut self, (ptr, kept): (BlockPtr, Cached)) {
        let key = BlockKey { segment: self.number, offset: ptr.offset };
        let cache = &self.context.cache;
        match kept {
            kept if self.takes_over => cache.take_over(key, kept),
            Cached::Block(block) if block.kind() == BlockKind::Data && !self.warm => {
                cache.insert_unread(key, block);
            }
            kept => cache.insert(key, kept),
        }
        self.kept.push(ptr.offset);
    }

    /// The bytes of the file so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.bytes_so_far()
    }

    /// How many entries were added.
    pub(crate) fn entries(&self) -> u64 {
        self.writer.entries_so_far()
    }

    /// Starts writing the chunks that are ready; waits where too many are in flight.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        while let Some(chunk) = self.writer.take_output() {
            self.write(chunk).await?;
        }
        Ok(())
    }

    async fn write(&mut self, buf: IoBuf) -> Result<()> {
        while self.flights.len() >= CHUNKS_IN_FLIGHT {
            self.land().await?;
        }
        let (offset, bytes) = (self.offset, buf.len() as u64);
        self.offset += bytes;
        self.context.written.set(self.context.written.get() + bytes);
        self.flights.push_back(self.context.io.start_bulk(Op::Write { file: self.file, offset, buf }));
        Ok(())
    }

    /// Waits for the oldest chunk in flight.
    async fn land(&mut self) -> Result<()> {
        if let Some(flight) = self.flights.front_mut() {
            let done = flight.await;
            self.flights.pop_front();
            done.result.map_err(|error| Error::io("write", &self.name, error))?;
            if let Some(buf) = done.buf {
                self.writer.recycle(buf);
            }
        }
        Ok(())
    }

    /// Gives the file up and removes it.
    pub(crate) async fn discard(mut self) -> Result<()> {
        self.open = false;
        // Nothing more is to be started on a file that is closed.
        self.flights.clear();
        let io = self.context.io.clone();
        // A file that does not close well is removed all the same.
        let _ = io.run(Op::Close { file: self.file }).await;
        let removed = self.context.loose.run(&io, Op::Remove { name: self.name.clone() }).await;
        removed.map_err(|error| Error::io("remove", &self.name, error))?;
        self.context.loose.settle(&self.name);
        Ok(())
    }

    /// Ends the file and makes it durable, with its name.
    pub(crate) async fn finish(mut self) -> Result<Rc<Segment>> {
        let identity = self.writer.identity();
        let writer = std::mem::replace(&mut self.writer, SegmentWriter::new(self.context.segments, identity));
        let Finished { chunks, meta, kept } = writer.finish();
        kept.into_iter().for_each(|closed| self.keep(closed));
        for chunk in chunks {
            self.write(chunk).await?;
        }
        while !self.flights.is_empty() {
            self.land().await?;
        }
        debug_assert_eq!(self.offset, meta.file_bytes);
        let io = self.context.io.clone();
        let flushed = io.run(Op::Sync { file: self.file }).await;
        flushed.map_err(|error| Error::io("flush", &self.name, error))?;
        let flushed = io.run(Op::SyncFolder).await;
        flushed.map_err(|error| Error::io("flush the folder of", &self.name, error))?;
        self.open = false;
        self.kept.clear();
        // A file that does not close well is closed all the same; what counts was flushed.
        let _ = io.run(Op::Close { file: self.file }).await;
        let name = std::mem::take(&mut self.name);
        Ok(Rc::new(Segment::new(io, name, meta, self.number)))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        for offset in self.kept.drain(..) {
            self.context.cache.forget(BlockKey { segment: self.number, offset });
        }
        if self.open {
            // Given up: the disk closes it when what is in flight has landed, unheard.
            drop(self.context.io.start(Op::Close { file: self.file }));
        }
    }
}
