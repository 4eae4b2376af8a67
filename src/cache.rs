//! The block cache of a shard: checked, decompressed blocks and filters, within a budget of bytes.
//!
//! One thread uses it, so it locks nothing. Which block has to go is decided by `quick_cache` (CLOCK-PRO with
//! ghosts: what is read once does not push out what is read often). A block is known by the number of its
//! segment, which is never used twice, and by its offset; so a removed segment's blocks are never found
//! again. They were used often, and would age out slowly, in the place of what took their entries over: so they are
//! [forgotten](BlockCache::forget), a few each turn.
//!
//! What carries write is kept, too, while there is room: they need not read it from the disk then. It does not take part in the above:
//! it is *unread*, and the first to go, until somebody reads it.

use crate::segment::{Block, Filter};
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

/// A block's place: the number of its segment and its offset in the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockKey {
    /// See [`BlockCache::segment_number`].
    pub(crate) segment: u64,
    /// In bytes.
    pub(crate) offset: u64,
}

/// What is cached. Clones share it.
#[derive(Clone)]
pub(crate) enum Cached {
    /// A data or index block.
    Block(Rc<Block>),
    /// A filter over keys or directories.
    Filter(Rc<Filter>),
}

/// What an entry costs beyond its bytes: the cache's own slots, the reference counts, the allocator.
const OVERHEAD_BYTES: u64 = 96;

/// The part of the budget that one block may take; a larger one is read and not kept.
const BLOCK_SHARE_MAX: u64 = 4;

#[derive(Clone)]
struct Bytes;

impl Weighter<BlockKey, Cached> for Bytes {
    fn weight(&self, _: &BlockKey, cached: &Cached) -> u64 {
        let bytes = match cached {
            Cached::Block(block) => block.bytes(),
            Cached::Filter(filter) => filter.bytes(),
        };
        bytes as u64 + OVERHEAD_BYTES
    }
}

/// Hashes the two numbers of a [`BlockKey`] by multiplication. Fixed, unlike the default, which is seeded at
/// random: what is evicted, and so what is read, must be the same in every run.
#[derive(Clone, Copy, Default)]
struct FixedHash(u64);

impl BuildHasher for FixedHash {
    type Hasher = FixedHash;

    fn build_hasher(&self) -> FixedHash {
        FixedHash(0)
    }
}

impl Hasher for FixedHash {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

type Inner = Cache<BlockKey, Cached, Bytes, FixedHash, DefaultLifecycle<BlockKey, Cached>>;

/// The cache of one shard.
pub(crate) struct BlockCache {
    inner: RefCell<Inner>,
    budget_bytes: u64,
    hits: Cell<u64>,
    misses: Cell<u64>,
    next_segment: Cell<u64>,
    besides: Cell<u64>,
    /// Blocks that were kept although nobody had read them, about in the order in which they came. Some are gone by now, or were read.
    unread: RefCell<VecDeque<BlockKey>>,
}

/// Of so many uses of blocks that were found without the cache, it is told of one …
const TOLD_OF: u64 = 8;
/// … once it is fuller than this share of its budget: below, nothing has to go soon.
const ROOM_SHARE: (u64, u64) = (3, 4);
/// A smaller budget has no room for what nobody has read: a few large blocks would fill it.
const ROOM_BUDGET_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// So many blocks that nobody has read make way for one that is read. Two, since they differ in size.
const UNREAD_MAKE_WAY: usize = 2;
/// So many places in the line of those are looked at each time: for each that comes, and each that is to go.
const UNREAD_LOOKED_AT: usize = 4;

impl BlockCache {
    /// A cache that keeps at most `budget_bytes`; with 0 it keeps nothing.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        // Room for blocks of 8 KiB without growing; only an estimate.
        let items = usize::try_from(budget_bytes / 8192).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(items).weight_capacity(budget_bytes.max(1));
        let inner = match options.build() {
            Ok(options) => {
                Cache::with_options(options, Bytes, FixedHash::default(), DefaultLifecycle::default())
            }
            // Both options are set, which is all that it asks for.
            Err(_) => Cache::with(
                items,
                budget_bytes.max(1),
                Bytes,
                FixedHash::default(),
                DefaultLifecycle::default(),
            ),
        };
        BlockCache {
            inner: RefCell::new(inner),
            budget_bytes,
            hits: Cell::new(0),
            misses: Cell::new(0),
            next_segment: Cell::new(1),
            besides: Cell::new(0),
            unread: RefCell::default(),
        }
    }

    /// A number for a segment, never given before by this cache.
    pub(crate) fn segment_number(&self) -> u64 {
        let number = self.next_segment.get();
        self.next_segment.set(number + 1);
        number
    }

    /// What is cached of a block.
    #[inline]
    pub(crate) fn get(&self, key: BlockKey) -> Option<Cached> {
        let found = self.inner.borrow().get(&key).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        found
    }

    /// What is cached of a block; counts a hit, but no miss.
    #[inline]
    pub(crate) fn peek(&self, key: BlockKey) -> Option<Cached> {
        let found = self.inner.borrow().get(&key).cloned();
        self.hits.set(self.hits.get() + u64::from(found.is_some()));
        found
    }

    /// A block was used that is cached and was found without a look in here; counts a hit. Now and then it is looked up all
    /// the same, so that what is used often stays; not while there is so much room that nothing has to go.
    #[inline]
    pub(crate) fn used_beside(&self, key: impl FnOnce() -> BlockKey) {
        self.hits.set(self.hits.get() + 1);
        let besides = self.besides.get() + 1;
        self.besides.set(besides);
        if besides.is_multiple_of(TOLD_OF) && !self.has_room() {
            let _ = self.inner.borrow().get(&key());
        }
    }

    /// What is cached of a block; counts as no use of it.
    pub(crate) fn glance(&self, key: BlockKey) -> Option<Cached> {
        self.inner.borrow().peek(&key).cloned()
    }

    /// Lets go of a block that no one will look for any more.
    pub(crate) fn forget(&self, key: BlockKey) {
        let forgotten = self.inner.borrow_mut().remove(&key);
        // Its memory is given back when nothing is borrowed any more.
        drop(forgotten);
    }

    /// Whether a block is cached; counts as neither hit nor miss.
    pub(crate) fn contains(&self, key: BlockKey) -> bool {
        self.inner.borrow().contains_key(&key)
    }

    /// Keeps a block, unless it is too large for that. Where room is short, those that nobody has read make way.
    pub(crate) fn insert(&self, key: BlockKey, cached: Cached) {
        if Bytes.weight(&key, &cached) <= self.budget_bytes / BLOCK_SHARE_MAX {
            if !self.has_room() {
                self.make_way();
            }
            self.inner.borrow_mut().insert(key, cached);
        }
    }

    /// Keeps a block that nobody has read, while there is [room](BlockCache::has_room_for_unread).
    pub(crate) fn insert_unread(&self, key: BlockKey, block: Rc<Block>) {
        block.set_unread();
        self.insert(key, Cached::Block(block));
        let mut unread = self.unread.borrow_mut();
        // What is gone, or was read, is taken out by and by: the line is about as long as there are such blocks.
        for _ in 0..UNREAD_LOOKED_AT {
            let first = unread.pop_front().filter(|&first| self.is_unread(first));
            unread.extend(first);
        }
        unread.push_back(key);
    }

    /// Lets go of some that nobody has read.
    fn make_way(&self) {
        let mut gone = 0;
        for _ in 0..UNREAD_LOOKED_AT {
            let Some(first) = self.unread.borrow_mut().pop_front() else { return };
            if self.is_unread(first) {
                self.forget(first);
                gone += 1;
            }
            if gone == UNREAD_MAKE_WAY {
                return;
            }
        }
    }

    /// Whether a block is cached that nobody has read.
    fn is_unread(&self, key: BlockKey) -> bool {
        matches!(self.inner.borrow().peek(&key), Some(Cached::Block(block)) if block.is_unread())
    }

    /// Keeps a block that is to take the place of one that is cached. It counts as used: else, where the cache is full, it would go
    /// before that one, which is forgotten soon, and leave nothing.
    pub(crate) fn take_over(&self, key: BlockKey, cached: Cached) {
        self.insert(key, cached);
        let _ = self.inner.borrow().get(&key);
    }

    /// Whether there is so much room that what nobody has read may be kept, too. It is the first to go where room is short.
    #[inline]
    pub(crate) fn has_room_for_unread(&self) -> bool {
        self.budget_bytes >= ROOM_BUDGET_BYTES_MIN && self.has_room()
    }

    /// Whether nothing has to go soon.
    #[inline]
    fn has_room(&self) -> bool {
        self.bytes() < self.budget_bytes / ROOM_SHARE.1 * ROOM_SHARE.0
    }

    /// The bytes kept now.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.borrow().weight()
    }

    /// How many lookups found their block.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// How many lookups did not.
    pub(crate) fn misses(&self) -> u64 {
        self.misses.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const BUDGET: u64 = 64 << 20;
    const BLOCK: usize = 4096;
    const BLOCKS: u64 = BUDGET / BLOCK as u64;

    fn block() -> Rc<Block> {
        Rc::new(Block::of_bytes(Bytes::from_static(&[0; BLOCK])))
    }

    fn key(segment: u64, number: u64) -> BlockKey {
        BlockKey { segment, offset: number * BLOCK as u64 }
    }

    /// Reads blocks one after the other; answers how many were not cached.
    fn read(cache: &BlockCache, blocks: u64) -> u64 {
        let mut missed = 0;
        for number in 0..blocks {
            if cache.get(key(1, number)).is_none() {
                missed += 1;
                cache.insert(key(1, number), Cached::Block(block()));
            }
        }
        missed
    }

    #[test]
    fn what_nobody_has_read_makes_way_for_what_is_read() {
        let cache = BlockCache::new(BUDGET);
        let mut unread = 0;
        while cache.has_room_for_unread() {
            cache.insert_unread(key(2, unread), block());
            unread += 1;
        }
        assert!(unread > BLOCKS / 2, "{unread} of {BLOCKS} blocks");
        let most = BLOCKS / 10 * 7;
        assert_eq!(read(&cache, most), most);
        let missed = read(&cache, most);
        assert!(missed < most / 20, "{missed} of {most} blocks missed the second time");
        assert_eq!(read(&cache, most), 0);
    }

    /// Windows come and go: what is gone leaves no place in the line behind.
    #[test]
    fn the_line_of_what_nobody_has_read_is_no_longer_than_that() {
        let cache = BlockCache::new(BUDGET);
        let lives = 100;
        (0..lives).for_each(|number| cache.insert_unread(key(0, number), block()));
        for number in 0..100 * lives {
            cache.insert_unread(key(1 + number, 0), block());
            cache.forget(key(1 + number, 0));
        }
        let line = cache.unread.borrow().len() as u64;
        assert!((lives..2 * lives).contains(&line), "{line} places for {lives} blocks");
    }
}
