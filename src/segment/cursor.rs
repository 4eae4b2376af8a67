//! Walking a segment in order, forwards and backwards.
//!
//! A cursor holds its way from the root of the index to one entry of one data block. A step within the block
//! touches no index and waits for nothing ([`SegmentCursor::step`]); a step out of it climbs the way up and
//! down again.
//!
//! Blocks come in one of two ways. A *scan* goes through the cache, and once it moves on forwards it reads
//! runs of blocks that grow as it goes, the next one while this one is used. A *stream*, for merges, reads
//! long runs past the cache, so that a carry does not push out what readers need; but what readers have in the cache it
//! takes from there, which counts as no use of it.
//!
//! A cursor that has left the entries, or met an error, or whose step was given up half way, is on no entry
//! until the next seek.

use super::block::{Block, BlockKind, BlockPtr, HeadBound, Stored, Target};
use super::meta::{Compression, split_full_key};
use super::reader::{Segment, Step, pages_around};
use super::{CHUNK_BYTES, DIRECTORY_BYTES};
use super::{page_ceil, page_floor};
use crate::cache::BlockCache;
use crate::codec::{KeyBuffer, behind_prefix, same_key};
use crate::disk::IoBuf;
use crate::disk::io::Ticket;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

/// The least run that a scan reads once it moves on, in bytes; each run is twice the one before.
const SCAN_RUN_BYTES_MIN: usize = 16 * 1024;
/// The longest run of a scan.
const SCAN_RUN_BYTES_MAX: usize = 128 * 1024;

/// See the module.
pub(crate) struct SegmentCursor {
    segment: Rc<Segment>,
    /// `None` for a stream.
    cache: Option<Rc<BlockCache>>,
    /// Of a stream: the cache that readers of the segment use.
    beside: Option<Rc<BlockCache>>,

    // Where it is.
    path: Way,
    block: Option<Rc<Block>>,
    /// Of a stream: whether the block was in the cache beside it, and somebody has read it.
    warm: bool,
    block_offset: u64,
    at: usize,
    /// The current full key; its front is the block's prefix.
    full_key: KeyBuffer,
    directory: DirectoryId,
    commit: Commit,
    is_put: bool,
    value: Range<usize>,

    // What was and is being read ahead.
    run_bytes: usize,
    run: Option<Run>,
    coming: Option<Coming>,
    /// In a stream: the leaf behind this one, while the last runs of this one are used.
    coming_leaf: Option<(BlockPtr, Ticket)>,
    /// The buffer of the run before, for the one after.
    spare: IoBuf,
}

/// The way down an index, one step a level; most have few.
type Way = SmallVec<[Step; 4]>;

/// Pages that hold a run of blocks.
struct Run {
    offset: u64,
    pages: IoBuf,
}

/// A run under way.
struct Coming {
    offset: u64,
    bytes: u64,
    ticket: Ticket,
}

/// Which end of a block to begin at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    First,
    Last,
}

impl SegmentCursor {
    /// A cursor that reads through the cache. It is on no entry yet.
    pub(crate) fn scan(segment: Rc<Segment>, cache: Rc<BlockCache>) -> Self {
        Self::new(segment, Some(cache), 0)
    }

    /// A cursor that reads runs of [`CHUNK_BYTES`] past the cache, the next while this one is used. It is on
    /// no entry yet.
    pub(crate) fn stream(segment: Rc<Segment>) -> Self {
        Self::new(segment, None, CHUNK_BYTES)
    }

    /// Of a stream: takes what is in the cache that readers of the segment use from there, and notes which blocks are.
    pub(crate) fn beside(self, cache: Rc<BlockCache>) -> Self {
        SegmentCursor { beside: Some(cache), ..self }
    }

    /// Whether the current entry lies in a block that was in the cache beside a stream, and that readers look for.
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        self.warm
    }

    fn new(segment: Rc<Segment>, cache: Option<Rc<BlockCache>>, run_bytes: usize) -> Self {
        SegmentCursor {
            segment,
            cache,
            beside: None,
            path: Way::new(),
            block: None,
            warm: false,
            block_offset: 0,
            at: 0,
            full_key: KeyBuffer::default(),
            directory: DirectoryId(0),
            commit: Commit(0),
            is_put: false,
            value: 0..0,
            run_bytes,
            run: None,
            coming: None,
            coming_leaf: None,
            spare: IoBuf::default(),
        }
    }

    /// The current entry, if it is on one.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        let block = self.block.as_deref()?;
        let (_, key) = split_full_key(self.full_key.get())?;
        let value = self.is_put.then(|| block.slice(self.value.clone()));
        Some(Entry { directory: self.directory, key, commit: self.commit, value })
    }

    /// Whether it is on an entry.
    #[inline]
    pub(crate) fn is_on_entry(&self) -> bool {
        self.block.is_some()
    }

    /// The value of the current entry without a copy; it keeps the block's memory alive.
    pub(crate) fn value_shared(&self) -> Option<Bytes> {
        let block = self.block.as_deref().filter(|_| self.is_put)?;
        Some(block.value_shared(self.at))
    }

    /// The memory that it holds, in bytes: its block, whether that is cached or not, and what it reads ahead.
    pub(crate) fn memory(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes());
        let run = self.run.as_ref().map_or(0, |run| run.pages.len());
        let coming = self.coming.as_ref().map_or(0, |coming| coming.bytes as usize);
        let path: usize = self.path.iter().map(|step| step.block.bytes()).sum();
        self.full_key.memory() + block + run + coming + path + self.spare.len()
    }

    /// [`seek`](SegmentCursor::seek) (`back`: [`seek_before`](SegmentCursor::seek_before)), where all blocks on the way
    /// are cached; answers whether that is so. Where it is not, the
    /// cursor is on no entry. Most scans begin in memory, and this way they have no future to make for it.
    pub(crate) fn seek_now(
        &mut self,
        directory: DirectoryId,
        key: &[u8],
        newest: Commit,
        back: bool,
    ) -> bool {
        self.reset();
        let Some(cache) = self.cache.as_deref() else { return false };
        if self.segment.root().is_none() {
            return true;
        }
        let target = Target::new(directory, key, self.segment.distance(newest));
        let depth = usize::from(self.segment.meta().depth);
        while self.path.len() < depth {
            let kind = self.kind_at(self.path.len());
            let Some(block) = self.segment.child_now(cache, self.path.last(), kind) else { return false };
            let at = block.child_of(&target).unwrap_or(0);
            self.path.push(Step { block, at });
        }
        let block = self.segment.child_now(cache, self.path.last(), BlockKind::Data);
        let (Some(block), Some(leaf)) = (block, self.path.last()) else { return false };
        let rank = block.rank(&target, false);
        let ptr = leaf.child().block;
        self.go_into(block, ptr);
        let found = match rank.checked_sub(usize::from(back)) {
            Some(at) => self.settle(at) || self.step_over(Edge::First),
            None => self.step_over(Edge::Last),
        };
        if !found {
            self.block = None;
        }
        found
    }

    /// Goes to the first entry at or after a place: of the key's versions, the newest that is not newer than
    /// `newest`. Answers whether there is one.
    pub(crate) async fn seek(&mut self, directory: DirectoryId, key: &[u8], newest: Commit) -> Result<bool> {
        let target = Target::new(directory, key, self.segment.distance(newest));
        if !self.descend_to(&target).await? {
            return Ok(false);
        }
        let rank = self.block.as_ref().map_or(0, |block| block.rank(&target, false));
        if self.settle(rank) { Ok(true) } else { self.advance(Edge::First).await }
    }

    /// Goes to the last entry before a place; of the key's versions, only those newer than `newest` lie
    /// before it (with commit 0: all of them, with the greatest: none). Answers whether there is one.
    pub(crate) async fn seek_before(
        &mut self,
        directory: DirectoryId,
        key: &[u8],
        newest: Commit,
    ) -> Result<bool> {
        // Commit 0 and all before the window lie behind every version that is here.
        let target = Target::new(directory, key, self.segment.distance(newest));
        if !self.descend_to(&target).await? {
            return Ok(false);
        }
        let rank = self.block.as_ref().map_or(0, |block| block.rank(&target, false));
        match rank.checked_sub(1) {
            Some(at) => Ok(self.settle(at)),
            None => self.advance(Edge::Last).await,
        }
    }

    /// Goes to the first entry of all.
    pub(crate) async fn seek_first(&mut self) -> Result<bool> {
        self.reset();
        let Some(step) = self.root(Edge::First).await? else { return Ok(false) };
        self.descend(smallvec![step], Edge::First).await
    }

    /// Goes to the last entry of all.
    pub(crate) async fn seek_last(&mut self) -> Result<bool> {
        self.reset();
        let Some(step) = self.root(Edge::Last).await? else { return Ok(false) };
        self.descend(smallvec![step], Edge::Last).await
    }

    /// Goes one entry on, within the block or to one that is cached; false, and nothing has changed, where that needs
    /// another block.
    #[inline]
    pub(crate) fn step(&mut self) -> bool {
        self.block.is_some() && (self.settle(self.at + 1) || self.step_over(Edge::First))
    }

    /// The block of the current entry, where all its entries are of that directory, and another one follows in it.
    #[inline]
    pub(crate) fn block_of(&self, directory: DirectoryId) -> Option<&Block> {
        let block = self.block.as_deref()?;
        let of_one = block.prefix().len() >= DIRECTORY_BYTES && self.directory == directory;
        (of_one && self.at + 1 < block.count()).then_some(block)
    }

    /// Goes over a run of entries at once: from the current one on, those of its block that are below the bound, but for the last of
    /// the block. Of each key that is not `passed`, the newest version up to `newest` counts: where that has a value, it is shown to
    /// `look`, and then or else the key is `passed`. Before each entry `spend` is asked. Where either breaks, the cursor is on
    /// that entry; else on the first that was not gone over. Nothing happens where the block's directories differ.
    #[inline]
    pub(crate) fn run<B>(
        &mut self,
        bound: HeadBound,
        newest: Commit,
        passed: &mut Option<KeyBuffer>,
        mut spend: impl FnMut() -> ControlFlow<B>,
        mut look: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(block) = self.block.as_deref() else { return ControlFlow::Continue(()) };
        let prefix_bytes = block.prefix().len();
        let Some(prefix) = block.prefix().get(DIRECTORY_BYTES..) else { return ControlFlow::Continue(()) };
        // The way to a single one is shorter without.
        if !block.is_below(self.at + 1, bound) {
            return ControlFlow::Continue(());
        }
        let nearest = self.segment.distance(newest);
        // Of a key that was passed in here, what is behind the prefix.
        let mut last: Option<&[u8]> = None;
        let mut broken = ControlFlow::Continue(());
        let mut at = self.at;
        while at + 1 < block.count() && block.is_below(at, bound) {
            broken = spend();
            if broken.is_break() {
                break;
            }
            let (entry, value) = block.entry_and_range(at);
            let same = match (last, &*passed) {
                (Some(last), _) => same_key(last, entry.suffix),
                (None, Some(passed)) => {
                    behind_prefix(passed.get(), prefix).is_some_and(|passed| same_key(passed, entry.suffix))
                }
                (None, None) => false,
            };
            if !same && entry.distance >= nearest {
                last = Some(entry.suffix);
                if entry.is_put {
                    // It is on what it shows: should that panic, it can go on.
                    self.full_key.set(prefix_bytes, entry.suffix);
                    (self.at, self.is_put, self.value) = (at, true, value);
                    self.commit = Commit(self.segment.meta().identity.last.0 - entry.distance);
                    broken = look(&self.full_key.get()[DIRECTORY_BYTES..], entry.value);
                    if broken.is_break() {
                        break;
                    }
                }
            }
            at += 1;
        }
        if let Some(last) = last {
            let passed = passed.get_or_insert_default();
            passed.set(0, prefix);
            passed.set(prefix.len(), last);
        }
        if at > self.at {
            self.settle(at);
        }
        broken
    }

    /// Goes one entry back; see [`SegmentCursor::step`].
    #[inline]
    pub(crate) fn step_back(&mut self) -> bool {
        match self.at.checked_sub(1) {
            Some(at) => self.settle(at),
            None => self.step_over(Edge::Last),
        }
    }

    /// Goes on to the next block of the same leaf, if that is cached; false, and nothing has changed, where not.
    fn step_over(&mut self, edge: Edge) -> bool {
        let (Some(cache), Some(leaf)) = (self.cache.as_deref(), self.path.last_mut()) else { return false };
        if self.block.is_none() {
            return false;
        }
        let next = match edge {
            Edge::First => leaf.at + 1,
            // Where there is none before, this is past the last, too.
            Edge::Last => leaf.at.wrapping_sub(1),
        };
        if next >= leaf.block.count() {
            return false;
        }
        let here = std::mem::replace(&mut leaf.at, next);
        let Some(block) = self.segment.child_now(cache, Some(leaf), BlockKind::Data) else {
            leaf.at = here;
            return false;
        };
        let ptr = leaf.child().block;
        let at = edge_of(&block, edge);
        self.go_into(block, ptr);
        self.settle(at)
    }

    /// Makes a data block the current one. The cursor is on no entry of it yet.
    fn go_into(&mut self, block: Rc<Block>, ptr: BlockPtr) {
        self.full_key.set(0, block.prefix());
        if let Some((directory, _)) = split_full_key(block.prefix()) {
            self.directory = directory;
        }
        self.block = Some(block);
        self.block_offset = ptr.offset;
    }

    /// Goes to the next entry. Answers whether there is one.
    pub(crate) async fn next(&mut self) -> Result<bool> {
        if self.step() { Ok(true) } else { Box::pin(self.advance(Edge::First)).await }
    }

    /// Goes to the entry before. Answers whether there is one.
    pub(crate) async fn prev(&mut self) -> Result<bool> {
        if self.step_back() { Ok(true) } else { Box::pin(self.advance(Edge::Last)).await }
    }

    /// The offset of the current data block.
    pub(super) fn block_offset(&self) -> u64 {
        self.block_offset
    }

    /// Where the current data block lies.
    #[cfg(test)]
    pub(super) fn block_ptr(&self) -> BlockPtr {
        self.path.last().map_or(BlockPtr::default(), |leaf| leaf.child().block)
    }

    /// Whether all separators on the way lead to the current entry; for verification.
    pub(super) fn check_path(&self) -> bool {
        let Some(entry) = self.entry() else { return false };
        let target = Target::new(entry.directory, entry.key, self.segment.distance(entry.commit));
        self.path.iter().all(|step| step.block.child_of(&target) == Some(step.at))
    }

    /// Whether the current entry is the first or the last of its block.
    pub(super) fn at_edge(&self) -> bool {
        self.block.as_ref().is_some_and(|block| self.at == 0 || self.at + 1 == block.count())
    }

    /// The filter of the current partition.
    pub(super) fn partition_filter(&self) -> BlockPtr {
        match self.path.len() {
            0 => BlockPtr::default(),
            1 => self.segment.meta().root.filter,
            depth => self.path.get(depth - 2).map_or(BlockPtr::default(), |s| s.child().filter),
        }
    }

    fn reset(&mut self) {
        self.path.clear();
        self.block = None;
        if self.cache.is_some() {
            self.run_bytes = 0;
        }
    }

    /// Makes entry `at` of the current block the current one; false, and nothing has changed, where the block
    /// has no such entry.
    #[inline]
    fn settle(&mut self, at: usize) -> bool {
        let Some(block) = self.block.as_deref() else { return false };
        if at >= block.count() {
            return false;
        }
        let (entry, value) = block.entry_and_range(at);
        self.at = at;
        let prefix_bytes = block.prefix().len();
        self.full_key.set(prefix_bytes, entry.suffix);
        // Else it is that of the whole block.
        if prefix_bytes < DIRECTORY_BYTES
            && let Some((directory, _)) = split_full_key(self.full_key.get())
        {
            self.directory = directory;
        }
        self.commit = Commit(self.segment.meta().identity.last.0 - entry.distance);
        self.is_put = entry.is_put;
        self.value = value;
        true
    }

    async fn index_block(&mut self, ptr: BlockPtr, kind: BlockKind) -> Result<Rc<Block>> {
        match &self.cache {
            Some(cache) => self.segment.block(cache, ptr, kind).await,
            None => match &mut self.coming_leaf {
                Some((coming, ticket)) if *coming == ptr => {
                    let pages = self.segment.finish_read(ptr.offset, ticket).await;
                    self.coming_leaf = None;
                    self.segment.decode_fetched(pages?, ptr, kind)
                }
                _ => match self.block_beside(ptr, kind) {
                    Some(block) => Ok(block),
                    None => self.segment.load_block(ptr, kind).await,
                },
            },
        }
    }

    /// Of a stream: a block that is in the cache beside it.
    fn block_beside(&self, ptr: BlockPtr, kind: BlockKind) -> Option<Rc<Block>> {
        self.segment.glance_block(self.beside.as_deref()?, ptr, kind)
    }

    fn kind_at(&self, depth: usize) -> BlockKind {
        if depth + 1 < usize::from(self.segment.meta().depth) { BlockKind::Node } else { BlockKind::Leaf }
    }

    async fn root(&mut self, edge: Edge) -> Result<Option<Step>> {
        let Some(root) = self.segment.root() else { return Ok(None) };
        let block = self.index_block(root.block, self.kind_at(0)).await?;
        let at = edge_of(&block, edge);
        Ok(Some(Step { block, at }))
    }

    /// Loads the block that would hold the target, with the way to it.
    async fn descend_to(&mut self, target: &Target<'_>) -> Result<bool> {
        self.reset();
        let mut path = Way::new();
        let Some(mut step) = self.root(Edge::First).await? else { return Ok(false) };
        loop {
            step.at = step.block.child_of(target).unwrap_or(0);
            let child = step.child();
            path.push(step);
            if path.len() == usize::from(self.segment.meta().depth) {
                break;
            }
            let block = self.index_block(child.block, self.kind_at(path.len())).await?;
            step = Step { block, at: 0 };
        }
        self.enter(path, Edge::First).await
    }

    /// Goes down from the last step of the way, along one edge, to an entry.
    async fn descend(&mut self, mut path: Way, edge: Edge) -> Result<bool> {
        while path.len() < usize::from(self.segment.meta().depth) {
            let Some(step) = path.last() else { return Ok(false) };
            let child = step.child();
            let block = self.index_block(child.block, self.kind_at(path.len())).await?;
            let at = edge_of(&block, edge);
            path.push(Step { block, at });
        }
        self.enter(path, edge).await
    }

    /// Loads the data block that the way leads to and goes to one end of it.
    async fn enter(&mut self, path: Way, edge: Edge) -> Result<bool> {
        let Some(leaf) = path.last() else { return Ok(false) };
        let ptr = leaf.child().block;
        let block = self.data_block(&path, leaf, ptr).await?;
        let at = edge_of(&block, edge);
        self.path = path;
        self.go_into(block, ptr);
        Ok(self.settle(at))
    }

    /// Leaves the block for the next one (whose first entry is the edge) or the one before (the last).
    async fn advance(&mut self, edge: Edge) -> Result<bool> {
        if self.block.take().is_none() {
            return Ok(false);
        }
        let mut path = std::mem::take(&mut self.path);
        while let Some(step) = path.last_mut() {
            let next = match edge {
                Edge::First => Some(step.at + 1).filter(|&at| at < step.block.count()),
                Edge::Last => step.at.checked_sub(1),
            };
            if let Some(next) = next {
                step.at = next;
                break;
            }
            path.pop();
        }
        if path.is_empty() {
            return Ok(false);
        }
        if self.cache.is_some() {
            self.run_bytes = match edge {
                Edge::First => (self.run_bytes * 2).clamp(SCAN_RUN_BYTES_MIN, SCAN_RUN_BYTES_MAX),
                Edge::Last => 0,
            };
        }
        let before = self.block_offset;
        let moved = self.descend(path, edge).await?;
        // Blocks lie in the file in the order of their entries. An index that says otherwise is damaged, and
        // could lead round in circles.
        if moved && (self.block_offset > before) != (edge == Edge::First) {
            self.block = None;
            return Err(self.segment.damaged(self.block_offset, "the index leads back to an earlier block"));
        }
        Ok(moved)
    }

    /// The data block that the way leads to: from the cache, the run, the run under way, or the file.
    async fn data_block(&mut self, path: &[Step], leaf: &Step, ptr: BlockPtr) -> Result<Rc<Block>> {
        let beside = self.block_beside(ptr, BlockKind::Data);
        self.warm = beside.as_ref().is_some_and(|block| !block.is_unread());
        if let Some(block) = beside {
            return Ok(block);
        }
        let segment = self.segment.clone();
        if let Some(cache) = &self.cache {
            if let Some(block) = segment.cached_block(cache, ptr, BlockKind::Data) {
                return Ok(block);
            }
            if self.run_bytes == 0 {
                return segment.block(cache, ptr, BlockKind::Data).await;
            }
        }
        if !self.run.as_ref().is_some_and(|run| run.holds(ptr)) {
            let comes = self.coming.as_ref().is_some_and(|coming| coming.holds(ptr));
            if !comes && self.is_hole(leaf) {
                return segment.load_block(ptr, BlockKind::Data).await;
            }
            if let Some(used) = self.run.take() {
                self.spare = used.pages;
            }
            if !comes {
                self.coming = None;
                self.start_run(&leaf.block, leaf.at).await?;
            }
            if let Some(coming) = &mut self.coming {
                // The ticket stays where it is while it is awaited: a step given up loses nothing.
                let pages = segment.finish_read(coming.offset, &mut coming.ticket).await;
                let offset = coming.offset;
                self.coming = None;
                self.run = Some(Run { offset, pages: pages? });
            }
            self.read_on(path, leaf).await?;
        }
        let stored = self.run.as_ref().and_then(|run| run.block(ptr));
        let Some(stored) = stored else { return segment.load_block(ptr, BlockKind::Data).await };
        let block = segment.decode_block(&Stored::Borrowed(stored), ptr, BlockKind::Data)?;
        if let Some(cache) = &self.cache {
            segment.keep_block(cache, ptr, &block);
        }
        Ok(block)
    }

    /// Of a stream: whether the block at hand was passed over when the run under way was started, since it was in the cache beside,
    /// and is no longer. What follows is there, so that run stays.
    fn is_hole(&self, leaf: &Step) -> bool {
        let Some(coming) = self.coming.as_ref().filter(|_| self.cache.is_none()) else { return false };
        let next = leaf.at + 1;
        next < leaf.block.count() && {
            let next = leaf.block.child(next).block;
            next.offset <= coming.offset + coming.bytes && (coming.holds(next) || self.has_cached(next))
        }
    }

    /// Starts to read what follows the current run, while that is used.
    async fn read_on(&mut self, path: &[Step], leaf: &Step) -> Result<()> {
        let end = self.run.as_ref().map_or(0, Run::end);
        let behind = |&next: &usize| leaf.block.child(next).block.end() > end;
        if let Some(next) = (leaf.at + 1..leaf.block.count()).find(behind) {
            let next = match self.cache {
                Some(_) => Some(next).filter(|&next| !self.has_cached(leaf.block.child(next).block)),
                None => self.to_read(&leaf.block, next),
            };
            if let Some(next) = next {
                return self.start_run(&leaf.block, next).await;
            }
        }
        // The leaf is used up. A stream goes on to the next one, if its parent knows it; the blocks of that
        // lie between the filter of this one and the leaf itself.
        let Some(parent) = path.len().checked_sub(2).and_then(|at| path.get(at)) else { return Ok(()) };
        if self.cache.is_some() || parent.at + 1 >= parent.block.count() {
            return Ok(());
        }
        let next_leaf = parent.block.child(parent.at + 1).block;
        if let Some(block) = self.block_beside(next_leaf, BlockKind::Leaf) {
            return match self.to_read(&block, 0) {
                Some(first) => self.start_run(&block, first).await,
                None => Ok(()),
            };
        }
        let (start, bytes) = pages_around(next_leaf);
        let ticket = self.segment.start_read(start, bytes, IoBuf::default()).await?;
        self.coming_leaf = Some((next_leaf, ticket));
        let from = parent.block.child(parent.at).filter.end();
        let from = if self.segment.meta().compression == Compression::None {
            page_ceil(from)
        } else {
            page_floor(from)
        };
        let until = page_ceil(next_leaf.offset).min(from + self.run_bytes as u64);
        if from < until {
            self.start_pages(from, until).await?;
        }
        Ok(())
    }

    /// Whether a block is in the cache that this goes through, or in the one beside it.
    fn has_cached(&self, ptr: BlockPtr) -> bool {
        let cache = self.cache.as_ref().or(self.beside.as_ref());
        cache.is_some_and(|cache| self.segment.is_cached(cache, ptr))
    }

    /// Of a stream: the first of a leaf's blocks from `at` on that has to be read.
    fn to_read(&self, leaf: &Block, at: usize) -> Option<usize> {
        (at..leaf.count()).find(|&at| !self.has_cached(leaf.child(at).block))
    }

    /// Starts to read a run of the leaf's blocks from `at` on: as many as fit, one at least. A stream's ends with the last that is not
    /// cached.
    async fn start_run(&mut self, leaf: &Block, at: usize) -> Result<()> {
        let offset = page_floor(leaf.child(at).block.offset);
        let mut end = page_ceil(leaf.child(at).block.end());
        for next in at + 1..leaf.count() {
            let next = leaf.child(next).block;
            let further = page_ceil(next.end());
            if further - offset > self.run_bytes as u64 {
                break;
            }
            if self.cache.is_some() || !self.has_cached(next) {
                end = further;
            }
        }
        self.start_pages(offset, end).await
    }

    async fn start_pages(&mut self, offset: u64, end: u64) -> Result<()> {
        debug_assert!(self.coming.is_none());
        let buf = std::mem::take(&mut self.spare);
        let ticket = match self.cache {
            Some(_) => self.segment.start_read(offset, end - offset, buf).await?,
            None => self.segment.start_bulk_read(offset, end - offset, buf).await?,
        };
        self.coming = Some(Coming { offset, bytes: end - offset, ticket });
        Ok(())
    }
}

fn edge_of(block: &Block, edge: Edge) -> usize {
    match edge {
        Edge::First => 0,
        Edge::Last => block.count() - 1,
    }
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.pages.len() as u64
    }

    fn holds(&self, ptr: BlockPtr) -> bool {
        self.offset <= ptr.offset && ptr.end() <= self.end()
    }

    fn block(&self, ptr: BlockPtr) -> Option<&[u8]> {
        let start = usize::try_from(ptr.offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(ptr.bytes as usize)?;
        self.pages.get(start..end)
    }
}

impl Coming {
    fn holds(&self, ptr: BlockPtr) -> bool {
        self.offset <= ptr.offset && ptr.end() <= self.offset + self.bytes
    }
}
