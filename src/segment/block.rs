//! Blocks: the unit that is checked, read and cached; and, within one, the search for an entry.
//!
//! Every block has a header (checksum, lengths, kind, count). Data blocks and index blocks share one layout
//! for their entries: the common prefix of all keys once, then the entries in order, then the offset of each,
//! so that a search decodes only the entries that it looks at. In memory the offsets stand beside the *heads*, the first
//! bytes of each key behind the prefix, as numbers: a search goes through those, and looks at entries only where heads are
//! equal. In an index block the "value" of an
//! entry is where its child lies and its key is a separator: the child holds entries at or after it only.
//!
//! [`Block::decode`] checks every bound once. What it lets through, the accessors read without a chance of
//! failure; should they be wrong about that, they yield empty slices and never panic.

use super::builder::Encoding;
use super::filter::Filter;
use super::meta::{Child, SegmentIdentity};
use super::{BLOCK_BYTES_MAX, DIRECTORY_BYTES, FULL_KEY_BYTES_MAX};
use crate::codec::{Reader, compare_keys, compare_short, put_varint, same_key};
use crate::entry::DirectoryId;
use bytes::Bytes;
use std::cell::{Cell, OnceCell};
use std::cmp::Ordering;
use std::ops::Range;
use std::rc::{Rc, Weak};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Checksum 8, stored bytes 4, raw bytes 4, count 4, kind 1, encoding 1, width of offsets 1, zero 1.
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;

/// Where a block lies in its file; a length of 0 stands for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct BlockPtr {
    /// The offset of its header.
    pub(crate) offset: u64,
    /// Its bytes, header included, padding not.
    pub(crate) bytes: u32,
}

impl BlockPtr {
    pub(crate) fn is_absent(&self) -> bool {
        self.bytes == 0
    }

    /// Where it ends. It does not overflow for one that [`BlockPtr::fits`].
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.bytes)
    }

    /// Whether a file of that length can hold it, and readers are willing to read it.
    pub(crate) fn fits(&self, file_bytes: u64) -> bool {
        let end = self.offset.checked_add(u64::from(self.bytes));
        end.is_some_and(|end| end <= file_bytes)
            && (self.is_absent() || (BLOCK_HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&(self.bytes as usize)))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.bytes));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(BlockPtr { offset: reader.varint()?, bytes: u32::try_from(reader.varint()?).ok()? })
    }
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// Entries.
    Data = 1,
    /// Separators and data blocks.
    Leaf = 2,
    /// Separators and index blocks.
    Node = 3,
    /// The filter over a partition's keys.
    KeyFilter = 4,
    /// The filter over the segment's directories.
    DirectoryFilter = 5,
}

/// The checksum of a block: over everything but itself, seeded with the segment's identity and its place, so
/// that a block of another file or from another place fails.
pub(crate) fn block_checksum(stored: &[u8], seed: u64, offset: u64) -> u64 {
    // An odd multiplier keeps all offsets apart.
    xxh3_64_with_seed(&stored[8..], seed ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The bytes of a block as they were read.
pub(crate) enum Stored<'a> {
    /// From a buffer that is used again: what is kept of it is copied.
    Borrowed(&'a [u8]),
    /// From a buffer that may be kept.
    Shared(Bytes),
}

/// A block's header and payload, checked as to lengths and checksum, and decompressed.
struct Opened {
    count: usize,
    wide_offsets: bool,
    payload: Bytes,
}

fn open(from: &Stored<'_>, ptr: BlockPtr, kind: BlockKind, seed: u64) -> Result<Opened, &'static str> {
    let stored = match from {
        Stored::Borrowed(bytes) => *bytes,
        Stored::Shared(bytes) => bytes.as_ref(),
    };
    if stored.len() != ptr.bytes as usize || stored.len() < BLOCK_HEADER_BYTES {
        return Err("the block is cut short");
    }
    const SHORT: &str = "the block's header is cut short";
    let mut header = Reader::new(stored);
    if header.u64() != Some(block_checksum(stored, seed, ptr.offset)) {
        return Err("the block's checksum does not match");
    }
    if header.u32() != Some(ptr.bytes) {
        return Err("the block's length is not the one in the index");
    }
    let raw_bytes = header.u32().ok_or(SHORT)? as usize;
    let count = header.u32().ok_or(SHORT)? as usize;
    if header.u8() != Some(kind as u8) {
        return Err("the block is of another kind than the index says");
    }
    let encoding = header.u8().ok_or(SHORT)?;
    let wide_offsets = match header.u8() {
        Some(2) => false,
        Some(4) => true,
        _ => return Err("the block's offsets have no known width"),
    };
    let body = &stored[BLOCK_HEADER_BYTES..];
    if raw_bytes > BLOCK_BYTES_MAX {
        return Err("the block is larger than any block can be");
    }
    let payload = match encoding {
        encoding if encoding == Encoding::Raw as u8 && raw_bytes == body.len() => match from {
            Stored::Borrowed(_) => Bytes::copy_from_slice(body),
            Stored::Shared(bytes) => bytes.slice(BLOCK_HEADER_BYTES..),
        },
        encoding if encoding == Encoding::Lz4 as u8 => {
            let mut raw = vec![0; raw_bytes];
            match lz4_flex::block::decompress_into(body, &mut raw) {
                Ok(bytes) if bytes == raw_bytes => Bytes::from(raw),
                _ => return Err("the block does not decompress"),
            }
        }
        _ => return Err("the block's encoding is unknown or its length wrong"),
    };
    Ok(Opened { count, wide_offsets, payload })
}

/// Checks a filter's block and gives its bits.
pub(crate) fn open_filter(
    stored: &Stored<'_>,
    ptr: BlockPtr,
    kind: BlockKind,
    seed: u64,
) -> Result<Bytes, &'static str> {
    debug_assert!(matches!(kind, BlockKind::KeyFilter | BlockKind::DirectoryFilter));
    open(stored, ptr, kind, seed).map(|opened| opened.payload)
}

/// What is looked for: a place in the order of entries, taken apart so that nothing needs to be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    directory: [u8; DIRECTORY_BYTES],
    key: &'a [u8],
    distance: u64,
}

impl<'a> Target<'a> {
    /// The place of the version that lies `distance` below the window's last commit.
    #[inline]
    pub(crate) fn new(directory: DirectoryId, key: &'a [u8], distance: u64) -> Self {
        Target { directory: directory.0.to_be_bytes(), key, distance }
    }
}

/// A key against `head` followed by `tail`.
#[inline]
fn compare_split(key: &[u8], head: &[u8], tail: &[u8]) -> Ordering {
    if head.is_empty() {
        return if same_key(key, tail) { Ordering::Equal } else { compare_keys(key, tail) };
    }
    match key.split_at_checked(head.len()) {
        Some((front, back)) => front.cmp(head).then_with(|| back.cmp(tail)),
        // A key that is cut within the head sorts before it where it agrees so far.
        None => key.cmp(&head[..key.len()]).then(Ordering::Less),
    }
}

/// A full key against directory and key.
#[inline]
pub(crate) fn compare_full_key(full_key: &[u8], directory: DirectoryId, key: &[u8]) -> Ordering {
    match full_key.split_first_chunk::<DIRECTORY_BYTES>() {
        Some((own, rest)) => u64::from_be_bytes(*own).cmp(&directory.0).then_with(|| compare_keys(rest, key)),
        None => compare_split(full_key, &directory.0.to_be_bytes(), key),
    }
}

/// A varint off the front. Nearly all here have one byte or two, and searches live on these.
#[inline(always)]
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match bytes {
        [byte, rest @ ..] if *byte < 0x80 => Some((u64::from(*byte), rest)),
        [low, high, rest @ ..] if *high < 0x80 => {
            Some((u64::from(*low & 0x7f) | u64::from(*high) << 7, rest))
        }
        _ => long_varint(bytes),
    }
}

#[cold]
fn long_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = Reader::new(bytes);
    let value = reader.varint()?;
    let rest = reader.bytes(reader.remaining())?;
    Some((value, rest))
}

/// One entry as it lies in its block.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RawEntry<'a> {
    /// The full key without the block's prefix.
    pub(crate) suffix: &'a [u8],
    /// How far below the window's last commit it was written.
    pub(crate) distance: u64,
    /// False for a tombstone.
    pub(crate) is_put: bool,
    /// The value; empty for a tombstone.
    pub(crate) value: &'a [u8],
}

impl<'a> RawEntry<'a> {
    /// Head (suffix bytes and kind), suffix, distance, and the rest is the value.
    #[inline]
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = varint(bytes)?;
        let (suffix, rest) = rest.split_at_checked(usize::try_from(head >> 1).ok()?)?;
        let (distance, value) = varint(rest)?;
        Some(RawEntry { suffix, distance, is_put: head & 1 == 1, value })
    }

    /// Only the suffix: what a search looks at first.
    #[inline]
    fn decode_suffix(bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (head, rest) = varint(bytes)?;
        rest.get(..usize::try_from(head >> 1).ok()?)
    }
}

/// The first bytes of a key behind the block's prefix, which may lie in two pieces, as a number: big endian, padded with
/// zeros. Where heads differ, keys differ the same way.
#[inline]
pub(super) fn head_of(front: &[u8], back: &[u8]) -> u32 {
    if let (true, Some(bytes)) = (front.is_empty(), back.first_chunk()) {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; size_of::<u32>()];
    for (to, &from) in bytes.iter_mut().zip(front.iter().chain(back)) {
        *to = from;
    }
    u32::from_be_bytes(bytes)
}

/// What heads are compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct HeadBound(u64);

impl HeadBound {
    /// All heads are less.
    pub(crate) const NONE: HeadBound = HeadBound(u64::MAX);
}

/// What stands in memory beside an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// See [`head_of`].
    pub(super) head: u32,
    /// Where the entry begins.
    pub(super) start: u32,
}

/// A line of the processor's cache.
const LINE_BYTES: usize = 64;
/// So many bytes of an entry are fetched ahead: all of a short one, and the lines in front of a long one's value.
const ENTRY_BYTES_TOUCHED: usize = 3 * LINE_BYTES;
/// The slots of one line.
const SLOTS_A_LINE: usize = LINE_BYTES / size_of::<Slot>();

/// How many slots have a lower head. Each line is looked at in one place, and then one line in all its places: the loads do
/// not wait for each other, as those of a binary search do, so that lines that are not in the cache come all at once.
#[inline]
fn count_below(slots: &[Slot], head: u32) -> usize {
    let below = |slot: &&Slot| slot.head < head;
    let lines = slots.chunks_exact(SLOTS_A_LINE);
    let whole = lines.filter(|line| line.last().is_some_and(|slot| slot.head < head)).count();
    let line = slots.get(whole * SLOTS_A_LINE..).unwrap_or_default();
    whole * SLOTS_A_LINE + line.iter().take(SLOTS_A_LINE).filter(below).count()
}

/// What lies under an index block and is in memory: the way to it without a look into the cache. What the cache lets go of
/// is gone from here, too.
pub(crate) struct Children {
    blocks: Box<[Cell<Weak<Block>>]>,
    /// Of a node: the filters of its partitions.
    filters: Box<[Cell<Weak<Filter>>]>,
}

impl Children {
    pub(crate) fn new(blocks: usize, filters: usize) -> Self {
        Children {
            blocks: (0..blocks).map(|_| Cell::default()).collect(),
            filters: (0..filters).map(|_| Cell::default()).collect(),
        }
    }

    /// Block `at`, if it is known here and still in memory.
    #[inline]
    pub(crate) fn block(&self, at: usize) -> Option<Rc<Block>> {
        upgrade(self.blocks.get(at)?)
    }

    /// Filter `at`, if it is known here and still in memory.
    #[inline]
    pub(crate) fn filter(&self, at: usize) -> Option<Rc<Filter>> {
        upgrade(self.filters.get(at)?)
    }

    pub(crate) fn keep_block(&self, at: usize, block: &Rc<Block>) {
        if let Some(place) = self.blocks.get(at) {
            place.set(Rc::downgrade(block));
        }
    }

    pub(crate) fn keep_filter(&self, at: usize, filter: &Rc<Filter>) {
        if let Some(place) = self.filters.get(at) {
            place.set(Rc::downgrade(filter));
        }
    }
}

#[inline]
fn upgrade<T>(place: &Cell<Weak<T>>) -> Option<Rc<T>> {
    let weak = place.take();
    let strong = weak.upgrade();
    if strong.is_some() {
        place.set(weak);
    }
    strong
}

/// A data or index block, every bound of which has been checked.
pub(crate) struct Block {
    payload: Bytes,
    /// Of each entry, in order.
    slots: Box<[Slot]>,
    kind: BlockKind,
    prefix_end: usize,
    /// Where the entries end and the offsets begin.
    entries_end: usize,
    /// Of an index block.
    children: OnceCell<Children>,
    /// It is in the cache although nobody has read it.
    unread: Cell<bool>,
}

impl Block {
    /// What [`Block::decode`] would make of a block that was just built: its payload, not compressed, a slot for each entry, and where
    /// the entries begin and end.
    pub(super) fn built(kind: BlockKind, payload: Bytes, slots: Box<[Slot]>, entries: Range<usize>) -> Self {
        let Range { start: prefix_end, end: entries_end } = entries;
        let (children, unread) = (OnceCell::new(), Cell::new(false));
        Block { payload, slots, kind, prefix_end, entries_end, children, unread }
    }

    /// One without entries, for tests of caches: only its bytes count.
    #[cfg(test)]
    pub(crate) fn of_bytes(payload: Bytes) -> Self {
        Block::built(BlockKind::Data, payload, Box::default(), 2..2)
    }

    /// Whether it is the same as another.
    pub(super) fn is_as(&self, other: &Block) -> bool {
        let ends = |block: &Block| (block.kind, block.prefix_end, block.entries_end);
        self.payload == other.payload && self.slots == other.slots && ends(self) == ends(other)
    }

    /// Checks what was read at `ptr` and makes it a block. `identity`, its segment's, bounds what it may say.
    pub(crate) fn decode(
        stored: &Stored<'_>,
        ptr: BlockPtr,
        kind: BlockKind,
        seed: u64,
        identity: &SegmentIdentity,
    ) -> Result<Self, &'static str> {
        debug_assert!(matches!(kind, BlockKind::Data | BlockKind::Leaf | BlockKind::Node));
        let Opened { count, wide_offsets, payload } = open(stored, ptr, kind, seed)?;
        const SHORT: &str = "the block's payload is cut short";
        let mut reader = Reader::new(&payload);
        let prefix_bytes = usize::from(reader.u16().ok_or(SHORT)?);
        reader.bytes(prefix_bytes).ok_or(SHORT)?;
        let prefix_end = 2 + prefix_bytes;
        let offset_width = if wide_offsets { 4 } else { 2 };
        let offsets = count.checked_mul(offset_width).filter(|&bytes| bytes <= reader.remaining());
        let entries_end = payload.len() - offsets.ok_or(SHORT)?;
        if count == 0 {
            return Err("the block is empty");
        }
        let slots = payload[entries_end..].chunks_exact(offset_width).map(|bytes| {
            let start = match *bytes {
                [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                [a, b] => u32::from(u16::from_le_bytes([a, b])),
                _ => 0,
            };
            Slot { head: 0, start }
        });
        let slots = slots.collect();
        let (children, unread) = (OnceCell::new(), Cell::new(false));
        let mut block = Block { payload, slots, kind, prefix_end, entries_end, children, unread };
        block.check(ptr, identity)?;
        Ok(block)
    }

    /// Walks all entries: offsets ascend and stay inside, and each entry is well formed for its kind. Notes their heads.
    fn check(&mut self, ptr: BlockPtr, identity: &SegmentIdentity) -> Result<(), &'static str> {
        if self.offset(0) != self.prefix_end {
            return Err("the first entry of the block is not where it must be");
        }
        let distance_max = identity.last.0 - identity.first.0;
        let prefix_bytes = self.prefix().len();
        let mut child_end = 0;
        let mut end = self.offset(0);
        for at in 0..self.count() {
            let start = std::mem::replace(&mut end, self.offset(at + 1));
            let bytes = if start < end { self.payload.get(start..end) } else { None };
            // The last end is where the offsets begin, so what ascends also stays inside.
            let entry = bytes.and_then(RawEntry::decode);
            let entry = entry.ok_or("an entry of the block is cut short")?;
            self.slots[at].head = head_of(&[], entry.suffix);
            let full_key_bytes = prefix_bytes + entry.suffix.len();
            if full_key_bytes > FULL_KEY_BYTES_MAX {
                return Err("a key of the block is longer than any key can be");
            }
            if self.kind == BlockKind::Data {
                if full_key_bytes < DIRECTORY_BYTES || entry.distance > distance_max {
                    return Err("an entry of the block has no directory or a commit outside the window");
                }
                if !entry.is_put && !entry.value.is_empty() {
                    return Err("a tombstone of the block has a value");
                }
                continue;
            }
            // Children lie before their parents and one after another: so no walk can go round in circles.
            let child = self.decode_child(entry.value).ok_or("a pointer of the index is cut short")?;
            if child.block.is_absent() || !child.block.fits(ptr.offset) || !child.filter.fits(ptr.offset) {
                return Err("a pointer of the index leads outside the file or forwards");
            }
            if child.block.offset < child_end {
                return Err("the pointers of an index block do not ascend");
            }
            child_end = child.block.end();
        }
        Ok(())
    }

    /// It is kept although nobody has read it.
    pub(crate) fn set_unread(&self) {
        self.unread.set(true);
    }

    /// Somebody reads it.
    #[inline]
    pub(crate) fn set_read(&self) {
        if self.unread.get() {
            self.unread.set(false);
        }
    }

    /// Whether nobody has read it since it was kept.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// What kind it was read as.
    pub(crate) fn kind(&self) -> BlockKind {
        self.kind
    }

    /// How many entries it has; at least one.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// The memory it takes, in bytes. An index block's children among it: what remains of them once the cache has let go.
    pub(crate) fn bytes(&self) -> usize {
        let child = match self.kind {
            BlockKind::Data => 0,
            _ => size_of::<Weak<Block>>() + size_of::<Block>(),
        };
        self.payload.len() + size_of_val(&*self.slots) + size_of::<Block>() + child * self.count()
    }

    /// An index block's children.
    #[inline]
    pub(crate) fn children(&self) -> &Children {
        self.children.get_or_init(|| match self.kind {
            BlockKind::Node => Children::new(self.count(), self.count()),
            BlockKind::Leaf => Children::new(self.count(), 0),
            _ => Children::new(0, 0),
        })
    }

    /// What all its keys begin with.
    #[inline]
    pub(crate) fn prefix(&self) -> &[u8] {
        self.payload.get(2..self.prefix_end).unwrap_or_default()
    }

    /// Where entry `at` begins; where the entries end, past the last.
    #[inline]
    fn offset(&self, at: usize) -> usize {
        self.slots.get(at).map_or(self.entries_end, |slot| slot.start as usize)
    }

    /// The key of entry `at` without the block's prefix.
    #[inline]
    fn suffix(&self, at: usize) -> &[u8] {
        // All in front of the next entry will do: the entry says how long it is.
        let bytes = self.payload.get(self.offset(at)..).unwrap_or_default();
        RawEntry::decode_suffix(bytes).unwrap_or_default()
    }

    /// Entry `at`, which must be below [`Block::count`].
    #[inline]
    pub(crate) fn entry(&self, at: usize) -> RawEntry<'_> {
        debug_assert!(at < self.count());
        let bytes = self.payload.get(self.offset(at)..self.offset(at + 1)).unwrap_or_default();
        RawEntry::decode(bytes).unwrap_or_default()
    }

    /// Fetches what a search among its entries looks at first into the core's cache.
    #[inline]
    pub(crate) fn touch_slots(&self) -> u32 {
        let heads = self.slots.iter().step_by(SLOTS_A_LINE).fold(0, |sum, slot| sum ^ slot.head);
        heads ^ self.payload.first().map_or(0, |&byte| u32::from(byte))
    }

    /// Entry `at`, and where its value lies for [`Block::slice`].
    #[inline]
    pub(crate) fn entry_and_range(&self, at: usize) -> (RawEntry<'_>, Range<usize>) {
        let entry = self.entry(at);
        let end = self.offset(at + 1);
        (entry, end - entry.value.len()..end)
    }

    /// Bytes of the block by place.
    #[inline]
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.payload.get(range).unwrap_or_default()
    }

    /// The value of entry `at` without a copy; it keeps the block's memory alive.
    pub(crate) fn value_shared(&self, at: usize) -> Bytes {
        self.payload.slice_ref(self.entry(at).value)
    }

    /// What is left of a target behind the block's prefix, in two pieces; or where all entries lie: before it or behind.
    #[inline]
    fn behind_prefix<'a>(&self, target: &'a Target<'_>) -> Result<(&'a [u8], &'a [u8]), Ordering> {
        let prefix = self.prefix();
        let Some((own, rest)) = prefix.split_first_chunk::<DIRECTORY_BYTES>() else {
            let (directory, head) = target.directory.split_at(prefix.len());
            return match prefix.cmp(directory) {
                Ordering::Equal => Ok((head, target.key)),
                order => Err(order),
            };
        };
        // As most blocks: of one directory.
        let (key, tail) = target.key.split_at(target.key.len().min(rest.len()));
        let directories = u64::from_be_bytes(*own).cmp(&u64::from_be_bytes(target.directory));
        match directories.then_with(|| compare_short(rest, key)) {
            Ordering::Equal => Ok((&[], tail)),
            order => Err(order),
        }
    }

    /// What a head must be less than so that its entry comes before the target beyond doubt: see [`Block::is_below`].
    #[inline]
    pub(crate) fn bound(&self, target: &Target<'_>) -> HeadBound {
        HeadBound(match self.behind_prefix(target) {
            Ok((head, tail)) => u64::from(head_of(head, tail)),
            Err(Ordering::Less) => u64::MAX,
            Err(_) => 0,
        })
    }

    /// Whether there is an entry `at`, with a head that is less than the bound. Where the bound is a target's, the entry then
    /// comes before that, as all in front of it do; where not, it may all the same.
    #[inline]
    pub(crate) fn is_below(&self, at: usize, bound: HeadBound) -> bool {
        self.slots.get(at).is_some_and(|slot| u64::from(slot.head) < bound.0)
    }

    /// Fetches the entry that a search for the target most likely looks at into the core's cache.
    #[inline]
    pub(crate) fn touch_entry(&self, target: &Target<'_>) -> u8 {
        let Ok((head, tail)) = self.behind_prefix(target) else { return 0 };
        let start = self.offset(count_below(&self.slots, head_of(head, tail)));
        let bytes = self.payload.get(start..).unwrap_or_default();
        bytes.iter().take(ENTRY_BYTES_TOUCHED).step_by(LINE_BYTES).fold(0, |sum, &byte| sum ^ byte)
    }

    /// How many entries lie before the target, or, `inclusive`, at or before it.
    #[inline]
    pub(crate) fn rank(&self, target: &Target<'_>, inclusive: bool) -> usize {
        // First the prefix, for all entries at once.
        match self.behind_prefix(target) {
            Ok(pieces) => self.rank_behind(pieces, target.distance, inclusive),
            Err(Ordering::Less) => self.count(),
            Err(_) => 0,
        }
    }

    /// As [`Block::rank`], where what is left of the target behind the prefix is `head` then `tail`.
    #[inline]
    fn rank_behind(&self, (head, tail): (&[u8], &[u8]), distance: u64, inclusive: bool) -> usize {
        let goal = head_of(head, tail);
        let mut low = count_below(&self.slots, goal);
        let equal = |slot: &Slot| slot.head == goal;
        // Mostly one or none.
        let mut high = match self.slots.get(low..).unwrap_or_default() {
            same @ [first, ..] if equal(first) => low + same.partition_point(equal),
            _ => low,
        };
        while low < high {
            let middle = low.midpoint(high);
            let order = compare_split(self.suffix(middle), head, tail)
                .then_with(|| self.entry(middle).distance.cmp(&distance));
            if order == Ordering::Less || (inclusive && order == Ordering::Equal) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The newest version, at or below the target's commit, of exactly the target's key.
    #[inline]
    pub(crate) fn find(&self, target: &Target<'_>) -> Option<usize> {
        let (head, tail) = self.behind_prefix(target).ok()?;
        let at = self.rank_behind((head, tail), target.distance, false);
        // Only in front of the end is there an entry.
        if at == self.count() {
            return None;
        }
        let suffix = self.suffix(at);
        let rest = if head.is_empty() { Some(suffix) } else { suffix.strip_prefix(head) };
        rest.is_some_and(|rest| same_key(rest, tail)).then_some(at)
    }

    /// In an index block: which child holds the target, if any does.
    #[inline]
    pub(crate) fn child_of(&self, target: &Target<'_>) -> Option<usize> {
        self.rank(target, true).checked_sub(1)
    }

    /// In an index block: where child `at` lies.
    #[inline]
    pub(crate) fn child(&self, at: usize) -> Child {
        debug_assert!(self.kind != BlockKind::Data);
        self.decode_child(self.entry(at).value).unwrap_or_default()
    }

    fn decode_child(&self, value: &[u8]) -> Option<Child> {
        let mut reader = Reader::new(value);
        let block = BlockPtr::decode(&mut reader)?;
        let filter = match self.kind {
            BlockKind::Node => BlockPtr::decode(&mut reader)?,
            _ => BlockPtr::default(),
        };
        reader.is_empty().then_some(Child { block, filter })
    }
}
