//! A segment as readers know it: its meta, its file, and point reads.
//!
//! A point read asks in this order, and stops at the first "no": the window, the key range, the directory
//! filter, the partition's filter, the leaf, the data block. Each step is a block in the cache or one read;
//! a read whose blocks are all cached never waits. Index blocks know those of their children that are in memory, so that
//! such a read hardly asks the cache.

use super::block::{Block, BlockKind, BlockPtr, Children, Stored, Target, compare_full_key, open_filter};
use super::file::SegmentFile;
use super::filter::{Filter, directory_hash};
use super::meta::{Child, SegmentMeta};
use super::{page_ceil, page_floor};
use crate::cache::{BlockCache, BlockKey, Cached};
use crate::disk::io::{Io, Ticket};
use crate::disk::{Completion, IoBuf, Op};
use crate::entry::DirectoryId;
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::probes;
use bytes::Bytes;
use std::cell::Cell;
use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::rc::Rc;

/// Values from this size on are handed out as slices of their block; smaller ones are copied, so that a small
/// value does not keep a whole block in memory.
pub(crate) const VALUE_SHARED_BYTES_MIN: usize = 512;

/// Reads from this size on keep the buffer that was read into; smaller blocks are copied out of it, as a
/// buffer of whole pages costs the allocator up to a page more than it holds.
const READ_SHARED_BYTES_MIN: usize = 32 * 1024;

/// What a point read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// The commit that wrote the version.
    pub(crate) commit: Commit,
    /// Its value; `None` for a tombstone.
    pub(crate) value: Option<Bytes>,
}

/// An immutable file of sorted entries. Kept in an `Rc`; the file is closed when the last one goes, and
/// removed then too if it is obsolete.
pub(crate) struct Segment {
    meta: SegmentMeta,
    number: u64,
    seed: u64,
    obsolete: Cell<bool>,
    file: SegmentFile,
    /// The root of the index, and its filter where that is a leaf.
    root: Children,
}

/// One index block on the way down and the child taken.
pub(crate) struct Step {
    pub(crate) block: Rc<Block>,
    pub(crate) at: usize,
}

impl Step {
    /// Where the child lies.
    #[inline]
    pub(crate) fn child(&self) -> Child {
        self.block.child(self.at)
    }
}

impl Segment {
    /// A segment whose meta is known. No I/O: its file is opened at the first read. `number` is one that the
    /// cache it will be read through gave ([`BlockCache::segment_number`]).
    pub(crate) fn new(io: Io, name: String, meta: SegmentMeta, number: u64) -> Self {
        let seed = meta.identity.seed();
        let (obsolete, file) = (Cell::new(false), SegmentFile::new(io, name));
        Segment { meta, number, seed, obsolete, file, root: Children::new(1, 1) }
    }

    /// All that is known without reading.
    pub(crate) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        self.file.name()
    }

    /// The file is to be removed once nobody reads it any more: when the last `Rc` of this goes.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.set(true);
    }

    /// An [`Error::Damaged`] of this file.
    pub(crate) fn damaged(&self, offset: u64, why: impl Into<String>) -> Error {
        let identity = &self.meta.identity;
        let window = Some((identity.first, identity.last));
        Error::Damaged { file: self.name().to_string(), offset, why: why.into(), window }
    }

    /// Where a version that `at` may see lies in the order of versions.
    #[inline]
    pub(crate) fn distance(&self, at: Commit) -> u64 {
        self.meta.identity.distance(at)
    }

    /// Whether the directory and key are within the segment's range. No I/O.
    #[inline]
    pub(crate) fn in_range(&self, directory: DirectoryId, key: &[u8]) -> bool {
        self.meta.entries > 0
            && compare_full_key(&self.meta.min_full_key, directory, key) != Ordering::Greater
            && compare_full_key(&self.meta.max_full_key, directory, key) != Ordering::Less
    }

    /// Whether the segment may hold entries of the directory: false is certain.
    pub(crate) async fn may_have_directory(
        &self,
        cache: &BlockCache,
        directory: DirectoryId,
    ) -> Result<bool> {
        if let Some(known) = self.may_have_directory_now(cache, directory) {
            return Ok(known);
        }
        let filter = self.filter(cache, self.meta.directory_filter, BlockKind::DirectoryFilter).await?;
        Ok(filter.may_contain(directory_hash(directory)))
    }

    /// [`may_have_directory`](Segment::may_have_directory), if that needs no wait.
    pub(crate) fn may_have_directory_now(&self, cache: &BlockCache, directory: DirectoryId) -> Option<bool> {
        let (Some((min, _)), Some((max, _))) = (self.meta.min(), self.meta.max()) else {
            return Some(false);
        };
        if directory == min || directory == max {
            return Some(true);
        }
        if directory < min || directory > max || self.meta.directory_filter.is_absent() {
            return Some(false);
        }
        match cache.peek(self.key_of(self.meta.directory_filter)) {
            Some(Cached::Filter(filter)) => Some(filter.may_contain(directory_hash(directory))),
            _ => None,
        }
    }

    /// Whether keys of a directory between two bounds, both included, can lie within the segment's range; none stands
    /// for the directory's end. No I/O.
    pub(crate) fn overlaps(&self, directory: DirectoryId, low: Option<&[u8]>, high: Option<&[u8]>) -> bool {
        let (min, max) = (&self.meta.min_full_key, &self.meta.max_full_key);
        let below = compare_full_key(max, directory, low.unwrap_or_default()) == Ordering::Less;
        let above = match (high, self.meta.min()) {
            (Some(high), _) => compare_full_key(min, directory, high) == Ordering::Greater,
            (None, min) => min.is_some_and(|(least, _)| least > directory),
        };
        self.meta.entries > 0 && !below && !above
    }

    /// The newest version of a key that was written at or before `at`, if this segment holds one. `key_hash`
    /// is [`super::key_hash`] of the two.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], or what the disk said.
    pub(crate) async fn get(
        &self,
        cache: &BlockCache,
        directory: DirectoryId,
        key: &[u8],
        key_hash: u64,
        at: Commit,
    ) -> Result<Option<Found>> {
        debug_assert_eq!(key_hash, super::key_hash(directory, key));
        if at < self.meta.identity.first || !self.in_range(directory, key) {
            return Ok(None);
        }
        if !self.may_have_directory(cache, directory).await? {
            return Ok(None);
        }
        let target = Target::new(directory, key, self.distance(at));
        let mut child = self.meta.root;
        for _ in 1..self.meta.depth {
            let node = self.block(cache, child.block, BlockKind::Node).await?;
            let Some(slot) = node.child_of(&target) else { return Ok(None) };
            child = node.child(slot);
        }
        if !self.filter(cache, child.filter, BlockKind::KeyFilter).await?.may_contain(key_hash) {
            return Ok(None);
        }
        let leaf = self.block(cache, child.block, BlockKind::Leaf).await?;
        let Some(slot) = leaf.child_of(&target) else { return Ok(None) };
        let data = self.block(cache, leaf.child(slot).block, BlockKind::Data).await?;
        Ok(self.found_in(&data, &target))
    }

    /// [`get`](Segment::get), if all that it needs is in memory.
    #[inline]
    pub(crate) fn get_now(
        &self,
        cache: &BlockCache,
        directory: DirectoryId,
        key: &[u8],
        key_hash: u64,
        at: Commit,
    ) -> Option<Option<Found>> {
        if at < self.meta.identity.first || !self.in_range(directory, key) {
            return Some(None);
        }
        if !self.may_have_directory_now(cache, directory)? {
            return Some(None);
        }
        let target = Target::new(directory, key, self.distance(at));
        let mut above: Option<Step> = None;
        for _ in 1..self.meta.depth {
            let node = self.child_now(cache, above.as_ref(), BlockKind::Node)?;
            let Some(slot) = node.child_of(&target) else { return Some(None) };
            above = Some(Step { block: node, at: slot });
        }
        if !self.filter_now(cache, above.as_ref())?.may_contain(key_hash) {
            return Some(None);
        }
        let leaf = self.child_now(cache, above.as_ref(), BlockKind::Leaf)?;
        let Some(slot) = leaf.child_of(&target) else { return Some(None) };
        let data = self.child_now(cache, Some(&Step { block: leaf, at: slot }), BlockKind::Data)?;
        Some(self.found_in(&data, &target))
    }

    /// What a point read looks for, in the only block that can hold it.
    #[inline]
    fn found_in(&self, data: &Block, target: &Target<'_>) -> Option<Found> {
        let slot = data.find(target)?;
        let entry = data.entry(slot);
        let value = entry.is_put.then(|| {
            if entry.value.len() < VALUE_SHARED_BYTES_MIN {
                Bytes::copy_from_slice(entry.value)
            } else {
                data.value_shared(slot)
            }
        });
        Some(Found { commit: Commit(self.meta.identity.last.0 - entry.distance), value })
    }

    /// The block at a place of the index (`None`: the root), if it is in memory.
    #[inline]
    pub(crate) fn child_now(
        &self,
        cache: &BlockCache,
        above: Option<&Step>,
        kind: BlockKind,
    ) -> Option<Rc<Block>> {
        let ptr = || above.map_or(self.meta.root, Step::child).block;
        let (children, at) = above.map_or((&self.root, 0), |step| (step.block.children(), step.at));
        if let Some(block) = children.block(at) {
            debug_assert!(block.kind() == kind);
            block.set_read();
            cache.used_beside(|| self.key_of(ptr()));
            return Some(block);
        }
        let block = self.peek_block(cache, ptr(), kind)?;
        children.keep_block(at, &block);
        Some(block)
    }

    /// The filter at a place of the index (`None`: the root's), if it is in memory.
    #[inline]
    pub(super) fn filter_now(&self, cache: &BlockCache, above: Option<&Step>) -> Option<Rc<Filter>> {
        let ptr = || above.map_or(self.meta.root, Step::child).filter;
        let (children, at) = above.map_or((&self.root, 0), |step| (step.block.children(), step.at));
        if let Some(filter) = children.filter(at) {
            cache.used_beside(|| self.key_of(ptr()));
            return Some(filter);
        }
        let Some(Cached::Filter(filter)) = cache.peek(self.key_of(ptr())) else { return None };
        children.keep_filter(at, &filter);
        Some(filter)
    }

    fn key_of(&self, ptr: BlockPtr) -> BlockKey {
        BlockKey { segment: self.number, offset: ptr.offset }
    }

    /// A block that is cached; counts a hit or a miss.
    #[inline]
    pub(crate) fn cached_block(
        &self,
        cache: &BlockCache,
        ptr: BlockPtr,
        kind: BlockKind,
    ) -> Option<Rc<Block>> {
        block_of(cache.get(self.key_of(ptr)), kind).inspect(|block| block.set_read())
    }

    /// A block that is cached; counts a hit, but no miss: who does not find it here reads it with
    /// [`block`](Segment::block), which counts that.
    #[inline]
    pub(crate) fn peek_block(&self, cache: &BlockCache, ptr: BlockPtr, kind: BlockKind) -> Option<Rc<Block>> {
        block_of(cache.peek(self.key_of(ptr)), kind).inspect(|block| block.set_read())
    }

    /// A block that is cached; counts as no use of it.
    pub(super) fn glance_block(
        &self,
        cache: &BlockCache,
        ptr: BlockPtr,
        kind: BlockKind,
    ) -> Option<Rc<Block>> {
        block_of(cache.glance(self.key_of(ptr)), kind)
    }

    pub(crate) fn is_cached(&self, cache: &BlockCache, ptr: BlockPtr) -> bool {
        cache.contains(self.key_of(ptr))
    }

    pub(crate) fn keep_block(&self, cache: &BlockCache, ptr: BlockPtr, block: &Rc<Block>) {
        cache.insert(self.key_of(ptr), Cached::Block(block.clone()));
    }

    /// A block, from the cache or the file.
    #[inline]
    pub(crate) async fn block(
        &self,
        cache: &BlockCache,
        ptr: BlockPtr,
        kind: BlockKind,
    ) -> Result<Rc<Block>> {
        if let Some(block) = self.cached_block(cache, ptr, kind) {
            return Ok(block);
        }
        // Boxed: a read that finds everything cached need not carry the state of one that does not.
        let block = Box::pin(self.load_block(ptr, kind)).await?;
        self.keep_block(cache, ptr, &block);
        Ok(block)
    }

    /// A block from the file, whatever is cached.
    pub(crate) async fn load_block(&self, ptr: BlockPtr, kind: BlockKind) -> Result<Rc<Block>> {
        let pages = self.fetch(ptr).await?;
        self.decode_fetched(pages, ptr, kind)
    }

    /// Checks a block within the pages around it.
    pub(crate) fn decode_fetched(&self, pages: IoBuf, ptr: BlockPtr, kind: BlockKind) -> Result<Rc<Block>> {
        let range = within_pages(ptr);
        debug_assert!(range.end <= pages.len());
        if range.len() < READ_SHARED_BYTES_MIN {
            self.decode_block(&Stored::Borrowed(pages.get(range).unwrap_or_default()), ptr, kind)
        } else {
            self.decode_block(&Stored::Shared(Bytes::from_owner(pages).slice(range)), ptr, kind)
        }
    }

    /// Checks what was read at `ptr`.
    pub(crate) fn decode_block(
        &self,
        stored: &Stored<'_>,
        ptr: BlockPtr,
        kind: BlockKind,
    ) -> Result<Rc<Block>> {
        let block = Block::decode(stored, ptr, kind, self.seed, &self.meta.identity);
        block.map(Rc::new).map_err(|why| self.damaged(ptr.offset, why))
    }

    /// A filter, from the cache or the file.
    #[inline]
    async fn filter(&self, cache: &BlockCache, ptr: BlockPtr, kind: BlockKind) -> Result<Rc<Filter>> {
        if let Some(Cached::Filter(filter)) = cache.get(self.key_of(ptr)) {
            return Ok(filter);
        }
        let filter = Rc::new(Box::pin(self.load_filter(ptr, kind)).await?);
        cache.insert(self.key_of(ptr), Cached::Filter(filter.clone()));
        Ok(filter)
    }

    /// A filter from the file, whatever is cached.
    pub(crate) async fn load_filter(&self, ptr: BlockPtr, kind: BlockKind) -> Result<Filter> {
        let pages = self.fetch(ptr).await?;
        let stored = Stored::Borrowed(pages.get(within_pages(ptr)).unwrap_or_default());
        let bits = open_filter(&stored, ptr, kind, self.seed).map_err(|why| self.damaged(ptr.offset, why))?;
        let filter = Filter::from_bytes(&bits);
        filter.ok_or_else(|| self.damaged(ptr.offset, "a filter cannot have this length"))
    }

    /// Reads the pages around a block.
    async fn fetch(&self, ptr: BlockPtr) -> Result<IoBuf> {
        if ptr.is_absent() {
            return Err(self.damaged(0, "the index names no block where there must be one"));
        }
        let (start, bytes) = pages_around(ptr);
        let ticket = self.start_read(start, bytes, IoBuf::default()).await?;
        self.finish_read(start, ticket).await
    }

    /// Starts to read whole pages, into a buffer used before or a new one; opens the file first if need be.
    pub(crate) async fn start_read(&self, offset: u64, bytes: u64, buf: IoBuf) -> Result<Ticket> {
        let read = self.read_of(offset, bytes, buf).await?;
        Ok(self.file.io().start(read))
    }

    /// The same for a merge, which can wait: see [`Io::start_bulk`].
    pub(crate) async fn start_bulk_read(&self, offset: u64, bytes: u64, buf: IoBuf) -> Result<Ticket> {
        let read = self.read_of(offset, bytes, buf).await?;
        Ok(self.file.io().start_bulk(read))
    }

    /// A read of the file, which is opened if need be.
    async fn read_of(&self, offset: u64, bytes: u64, mut buf: IoBuf) -> Result<Op> {
        let opened = self.file.open().await.map_err(|source| Error::io("open", self.name(), source));
        let (file, file_bytes) = opened?;
        if file_bytes != self.meta.file_bytes {
            let why = format!("the file has {file_bytes} bytes and must have {}", self.meta.file_bytes);
            return Err(self.damaged(file_bytes.min(self.meta.file_bytes), why));
        }
        debug_assert!(offset + bytes <= file_bytes);
        buf.resize(bytes as usize);
        probes::block_read_started(offset, bytes);
        Ok(Op::Read { file, offset, buf })
    }

    /// Awaits a read that was started at `offset`.
    pub(crate) async fn finish_read(
        &self,
        offset: u64,
        ticket: impl Future<Output = Completion>,
    ) -> Result<IoBuf> {
        let done = ticket.await;
        probes::block_read_ended(offset, done.buf.as_ref().map_or(0, |buf| buf.len()));
        match done.result {
            Ok(_) => Ok(done.buf.unwrap_or_default()),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged(offset, "the file ends before its block does"))
            }
            Err(source) => Err(Error::io("read", self.name(), source)),
        }
    }

    /// The root of the index, in a segment that has entries.
    pub(crate) fn root(&self) -> Option<Child> {
        (self.meta.depth > 0).then_some(self.meta.root)
    }
}

/// A block of this kind, if that is what is cached.
#[inline]
fn block_of(cached: Option<Cached>, kind: BlockKind) -> Option<Rc<Block>> {
    match cached {
        Some(Cached::Block(block)) if block.kind() == kind => Some(block),
        _ => None,
    }
}

/// What the cache has of a segment that is removed, as far as its index leads there within the cache.
pub(crate) struct Leftover {
    /// What the cache knows the segment by.
    segment: u64,
    /// Index blocks, each with the first of its children that was not looked at; the next to go on with last.
    index: Vec<Step>,
}

impl Leftover {
    /// Of a segment that is not read any more, but through snapshots: they read what they need again.
    pub(crate) fn of(segment: &Segment, cache: &BlockCache) -> Self {
        let mut leftover = Leftover { segment: segment.number, index: Vec::new() };
        let SegmentMeta { root, directory_filter, .. } = segment.meta;
        cache.forget(leftover.key_of(directory_filter));
        leftover.forget_child(root, cache);
        leftover
    }

    /// Takes some of it out of the cache, looking at so many blocks at most. Answers whether there may be more.
    pub(crate) fn forget(&mut self, cache: &BlockCache, blocks: usize) -> bool {
        for _ in 0..blocks {
            let Some(step) = self.index.last_mut() else { return false };
            if step.at == step.block.count() {
                self.index.pop();
                continue;
            }
            let child = step.child();
            step.at += 1;
            match step.block.kind() {
                BlockKind::Leaf => cache.forget(self.key_of(child.block)),
                _ => self.forget_child(child, cache),
            }
        }
        true
    }

    /// Forgets an index block and the filter beside it, and goes on with its children.
    fn forget_child(&mut self, child: Child, cache: &BlockCache) {
        let key = self.key_of(child.block);
        if let Some(Cached::Block(block)) = cache.glance(key) {
            self.index.push(Step { block, at: 0 });
            cache.forget(key);
        }
        cache.forget(self.key_of(child.filter));
    }

    fn key_of(&self, ptr: BlockPtr) -> BlockKey {
        BlockKey { segment: self.segment, offset: ptr.offset }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.obsolete.get() {
            // Should this fail, recovery finds the file as an orphan.
            self.file.remove(self.meta.file_bytes);
        } else {
            self.file.close();
        }
    }
}

/// The pages that hold a block: their offset and bytes.
pub(crate) fn pages_around(ptr: BlockPtr) -> (u64, u64) {
    let start = page_floor(ptr.offset);
    (start, page_ceil(ptr.end()) - start)
}

/// Where a block lies within the pages around it.
fn within_pages(ptr: BlockPtr) -> Range<usize> {
    let at = (ptr.offset - page_floor(ptr.offset)) as usize;
    at..at + ptr.bytes as usize
}
