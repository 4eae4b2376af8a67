//! The block cache of a shard: checked, decompressed blocks and filters, within a budget of bytes.
//!
//! One thread uses it, so it locks nothing. Which block has to go is decided by `quick_cache` (CLOCK-PRO with
//! ghosts: what is read once does not push out what is read often). A block is known by the number of its
//! segment, which is never used twice, and by its offset; so a removed segment's blocks are never found
//! again. They were used often, and would age out slowly, in the place of what took their entries over: so they are
//! [forgotten](BlockCache::forget), a few each turn.

use crate::segment::{Block, Filter};
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::cell::{Cell, RefCell};
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
}

/// Of so many uses of blocks that were found without the cache, it is told of one …
const TOLD_OF: u64 = 8;
/// … once it is fuller than this share of its budget: below, nothing has to go soon.
const ROOM_SHARE: (u64, u64) = (3, 4);

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

    /// Keeps a block, unless it is too large for that.
    pub(crate) fn insert(&self, key: BlockKey, cached: Cached) {
        if Bytes.weight(&key, &cached) <= self.budget_bytes / BLOCK_SHARE_MAX {
            self.inner.borrow_mut().insert(key, cached);
        }
    }

    /// Keeps a block that is to take the place of one that is cached. It counts as used: else, where the cache is full, it would go
    /// before that one, which is forgotten soon, and leave nothing.
    pub(crate) fn take_over(&self, key: BlockKey, cached: Cached) {
        self.insert(key, cached);
        let _ = self.inner.borrow().get(&key);
    }

    /// Whether there is so much room that nothing has to go soon for what comes.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
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
