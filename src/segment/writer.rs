//! Writing a segment: sorted entries in, the bytes of the file out, in chunks; no disk in sight.
//!
//! 1. An entry goes into the current data block, or closes it first (see [`SegmentWriter::closes_block`]).
//! 2. A closed block is framed and appended to the output; separator and place go into the current leaf.
//! 3. A leaf that is full is written behind its data blocks, then the filter of its keys; separator and
//!    places go into the node above, which in turn is written when full, and so on upwards.
//! 4. [`SegmentWriter::finish`] closes what is open from the bottom to the top, then writes the directory
//!    filter and the footer.
//!
//! So nothing is held but one block a level, one partition's hashes, the directories' hashes (bounded), and
//! chunks and a block that the caller has not taken yet.

use super::block::{BLOCK_HEADER_BYTES, Block, BlockKind, BlockPtr, Stored};
use super::builder::{BlockBuilder, Framer, common_prefix};
use super::filter::{self, DirectoryFilterBuilder, Filter, key_hash};
use super::meta::{Child, Compression, SegmentIdentity, SegmentMeta, SegmentOptions, footer, header_page};
use super::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_TARGET_MAX, BLOCK_PADDING_DIVISOR, CHUNK_BYTES, COMPRESSED_BLOCK_BYTES_RAW,
    DIRECTORY_BYTES, INDEX_BLOCK_BYTES_TARGET, INDEX_DEPTH_MAX, PARTITION_KEYS_MAX, page_ceil,
};
use crate::cache::Cached;
use crate::codec;
use crate::disk::IoBuf;
use crate::entry::{DirectoryId, Entry};
use sbbf_rs_safe::Filter as SplitBlockFilter;
use std::collections::VecDeque;
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3;

/// Makes a segment's bytes. See the module.
pub(crate) struct SegmentWriter {
    identity: SegmentIdentity,
    options: SegmentOptions,
    output: Output,
    framer: Framer,

    // The current data block and partition.
    block: BlockBuilder,
    /// The current block is to be handed out as well, once it is closed.
    keep: bool,
    /// What is to be handed out: blocks, and what leads to them.
    kept: Vec<(BlockPtr, Cached)>,
    /// Whether a data block was.
    keeps: bool,
    /// The separator in front of the current block, and its distance.
    separator: (Vec<u8>, u64),
    hashes: Vec<u64>,
    /// The index blocks under construction: leaves first, then each level above.
    levels: Vec<IndexLevel>,
    child_encoded: Vec<u8>,

    // The last entry added.
    last_full_key: Vec<u8>,
    last_distance: u64,
    last_directory: Option<DirectoryId>,

    // The whole segment.
    directories: DirectoryFilterBuilder,
    directory_count: u64,
    entries: u64,
    tombstones: u64,
    raw_bytes: u64,
    min_full_key: Box<[u8]>,
}

/// What ends a segment.
pub(crate) struct Finished {
    /// They follow those taken before; the last one may be short.
    pub(crate) chunks: Vec<IoBuf>,
    pub(crate) meta: SegmentMeta,
    /// See [`SegmentWriter::take_kept`].
    pub(crate) kept: Vec<(BlockPtr, Cached)>,
}

/// A block that was built and stored, for readers.
fn kept(built: Block, ptr: BlockPtr, stored: &[u8], identity: &SegmentIdentity) -> (BlockPtr, Cached) {
    debug_assert!(
        Block::decode(&Stored::Borrowed(stored), ptr, built.kind(), identity.seed(), identity)
            .is_ok_and(|read| read.is_as(&built)),
        "it is what a reader of the file would come by"
    );
    (ptr, Cached::Block(Rc::new(built)))
}

/// A filter as a reader of the file would come by it. Should its checks fail, a reader will say so.
fn filter_as_read(bits: &SplitBlockFilter, ptr: BlockPtr) -> Option<(BlockPtr, Cached)> {
    Filter::from_bytes(bits.as_bytes()).map(|filter| (ptr, Cached::Filter(Rc::new(filter))))
}

/// One level of the index while it is built.
#[derive(Default)]
struct IndexLevel {
    block: BlockBuilder,
    /// Whether a block of this level has been written already.
    written: bool,
    /// The current block is to be handed out, since it leads to one that is.
    keep: bool,
    /// The child added last: the root, where it is the only one.
    last_child: Child,
}

impl SegmentWriter {
    /// Starts a segment.
    pub(crate) fn new(options: SegmentOptions, identity: SegmentIdentity) -> Self {
        debug_assert!(identity.first <= identity.last);
        debug_assert!((1..=32).contains(&options.filter_bits_per_key));
        let mut output = Output::new();
        output.append(&header_page(&identity, &options));
        SegmentWriter {
            identity,
            options,
            output,
            framer: Framer::new(identity.seed()),
            block: BlockBuilder::default(),
            keep: false,
            kept: Vec::new(),
            keeps: false,
            separator: (Vec::new(), 0),
            hashes: Vec::with_capacity(PARTITION_KEYS_MAX),
            levels: vec![IndexLevel::default()],
            child_encoded: Vec::new(),
            last_full_key: Vec::new(),
            last_distance: 0,
            last_directory: None,
            directories: DirectoryFilterBuilder::new(),
            directory_count: 0,
            entries: 0,
            tombstones: 0,
            raw_bytes: 0,
            min_full_key: Box::default(),
        }
    }

    /// Adds an entry. Entries come in strictly ascending order and belong to the segment's window.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        debug_assert!(self.identity.first <= entry.commit && entry.commit <= self.identity.last);
        let distance = self.identity.distance(entry.commit);
        let same_directory = self.last_directory == Some(entry.directory);
        let same_key = same_directory && codec::same_key(&self.last_full_key[DIRECTORY_BYTES..], entry.key);
        debug_assert!(
            self.entries == 0
                || (self.last_directory, &self.last_full_key[DIRECTORY_BYTES..], self.last_distance)
                    < (Some(entry.directory), entry.key, distance),
            "entries come in order"
        );
        if !same_directory {
            self.last_directory = Some(entry.directory);
            self.directories.insert(entry.directory);
            self.directory_count += 1;
        }

        // Close what the entry does not fit into, while `last_full_key` still is the one before it.
        let full_key_bytes = DIRECTORY_BYTES + entry.key.len();
        let keep = if same_key { full_key_bytes } else { self.set_full_key(entry, same_directory) };
        if !self.block.is_empty() && self.closes_block(distance, entry.value.map_or(0, <[u8]>::len)) {
            self.close_block();
            if self.hashes.len() >= PARTITION_KEYS_MAX
                || self.levels[0].block.bytes() >= INDEX_BLOCK_BYTES_TARGET
            {
                self.close_partition();
            }
        }
        if self.block.is_empty() {
            self.set_separator(keep, same_key);
        }
        self.last_distance = distance;

        if !same_key || self.hashes.is_empty() {
            self.hashes.push(key_hash(entry.directory, entry.key));
        }
        self.block.push(&self.last_full_key, distance, entry.value);
        if self.entries == 0 {
            self.min_full_key = self.last_full_key.as_slice().into();
        }
        self.entries += 1;
        self.tombstones += u64::from(entry.value.is_none());
        self.raw_bytes += entry.size() as u64;
    }

    /// The data block that the last entry went into is handed out, once it is closed, and so are the filter and the index
    /// blocks that lead to it: see [`SegmentWriter::take_kept`].
    #[inline]
    pub(crate) fn keep_block(&mut self) {
        self.keep = true;
    }

    /// One of those to be handed out that are closed, as a reader of the file would have it.
    #[inline]
    pub(crate) fn take_kept(&mut self) -> Option<(BlockPtr, Cached)> {
        self.kept.pop()
    }

    /// Makes `last_full_key` the entry's; answers how many bytes it shares with the one before.
    fn set_full_key(&mut self, entry: &Entry<'_>, same_directory: bool) -> usize {
        let directory = entry.directory.0.to_be_bytes();
        let last = &mut self.last_full_key;
        let keep = if same_directory {
            DIRECTORY_BYTES + common_prefix(&last[DIRECTORY_BYTES..], entry.key)
        } else {
            common_prefix(last, &directory)
        };
        last.clear();
        last.extend_from_slice(&directory);
        last.extend_from_slice(entry.key);
        keep
    }

    /// Sets what separates the block about to begin from the one before: the least bytes of its first key
    /// that are more than the last key, or, between versions of one key, the version after the last.
    fn set_separator(&mut self, shared: usize, same_key: bool) {
        let (separator, distance) = &mut self.separator;
        separator.clear();
        *distance = 0;
        if self.entries == 0 {
            return; // nothing lies before the first block
        }
        let bytes = if same_key { shared } else { (shared + 1).min(self.last_full_key.len()) };
        separator.extend_from_slice(&self.last_full_key[..bytes]);
        if same_key {
            *distance = self.last_distance + 1;
        }
    }

    /// Whether the entry (its key is in `last_full_key`) must begin a new block. A pure function of sizes.
    fn closes_block(&self, distance: u64, value_bytes: usize) -> bool {
        let with = self.block.bytes_with(&self.last_full_key, distance, value_bytes);
        match self.options.compression {
            Compression::Lz4 => with > COMPRESSED_BLOCK_BYTES_RAW,
            Compression::None if with > BLOCK_BYTES_TARGET_MAX => true,
            Compression::None => {
                let now = self.block.bytes();
                let pages = page_ceil(now as u64) as usize;
                with > pages && pages - now <= pages / BLOCK_PADDING_DIVISOR
            }
        }
    }

    /// Writes the current data block and notes it in the current leaf.
    fn close_block(&mut self) {
        debug_assert!(!self.block.is_empty());
        let compress = self.options.compression != Compression::None;
        if !compress {
            self.output.pad_to_page();
        }
        let offset = self.output.bytes;
        let keep = std::mem::take(&mut self.keep);
        self.keeps |= keep;
        let (stored, built) = self.framer.entries(&mut self.block, BlockKind::Data, compress, offset, keep);
        let block = self.output.append_block(stored);
        self.kept.extend(built.map(|built| kept(built, block, stored, &self.identity)));
        let (separator, distance) = std::mem::take(&mut self.separator);
        self.add_child(0, &separator, distance, Child { block, filter: BlockPtr::default() }, keep);
        self.separator.0 = separator; // its memory is used again
    }

    /// Writes the current leaf and the filter of its keys.
    fn close_partition(&mut self) {
        let offset = self.output.bytes;
        let leaf = &mut self.levels[0];
        let (separator, distance) = (leaf.block.first_key().to_vec(), leaf.block.first_distance());
        let keep = std::mem::take(&mut leaf.keep);
        let (stored, built) = self.framer.entries(&mut leaf.block, BlockKind::Leaf, false, offset, keep);
        let block = self.output.append_block(stored);
        self.kept.extend(built.map(|built| kept(built, block, stored, &self.identity)));
        let bits = filter::build(&self.hashes, self.options.filter_bits_per_key);
        self.hashes.clear();
        let filter = self.framer.filter(bits.as_bytes(), BlockKind::KeyFilter, self.output.bytes);
        let filter = self.output.append_block(filter);
        if keep {
            self.kept.extend(filter_as_read(&bits, filter));
        }
        self.add_child(1, &separator, distance, Child { block, filter }, keep);
    }

    /// Writes the current node of a level and notes it above.
    fn close_node(&mut self, level: usize) {
        let offset = self.output.bytes;
        let node = &mut self.levels[level];
        node.written = true;
        let (separator, distance) = (node.block.first_key().to_vec(), node.block.first_distance());
        let keep = std::mem::take(&mut node.keep);
        let (stored, built) = self.framer.entries(&mut node.block, BlockKind::Node, false, offset, keep);
        let block = self.output.append_block(stored);
        self.kept.extend(built.map(|built| kept(built, block, stored, &self.identity)));
        self.add_child(level + 1, &separator, distance, Child { block, filter: BlockPtr::default() }, keep);
    }

    /// Notes a child in the current block of a level, after closing that block if it is full. With `keep` that is handed out
    /// as the child was.
    fn add_child(&mut self, level: usize, separator: &[u8], distance: u64, child: Child, keep: bool) {
        if level == self.levels.len() {
            self.levels.push(IndexLevel::default());
        }
        let full =
            |level: &IndexLevel| level.block.bytes() >= INDEX_BLOCK_BYTES_TARGET && level.block.count() >= 2;
        if level > 0 && full(&self.levels[level]) {
            self.close_node(level);
        }
        self.child_encoded.clear();
        child.block.encode(&mut self.child_encoded);
        if level > 0 {
            child.filter.encode(&mut self.child_encoded);
        }
        self.levels[level].block.push(separator, distance, Some(&self.child_encoded));
        self.levels[level].last_child = child;
        self.levels[level].keep |= keep;
    }

    /// Whether a full chunk is ready.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        !self.output.full.is_empty()
    }

    /// Which segment it is.
    pub(crate) fn identity(&self) -> SegmentIdentity {
        self.identity
    }

    /// A full chunk, to be written behind those taken before.
    pub(crate) fn take_output(&mut self) -> Option<IoBuf> {
        self.output.full.pop_front()
    }

    /// Gives a written chunk's memory back for another.
    pub(crate) fn recycle(&mut self, chunk: IoBuf) {
        self.output.recycle(chunk);
    }

    /// How many bytes the file would have at least if it were finished now, the open index aside.
    pub(crate) fn bytes_so_far(&self) -> u64 {
        let block = if self.block.is_empty() { BLOCK_HEADER_BYTES } else { self.block.bytes() };
        self.output.bytes + block as u64
    }

    /// How many entries were added.
    pub(crate) fn entries_so_far(&self) -> u64 {
        self.entries
    }

    /// Closes everything.
    pub(crate) fn finish(mut self) -> Finished {
        let (root, depth) = if self.entries == 0 { (Child::default(), 0) } else { self.finish_index() };
        let directory_filter = match self.directory_count {
            // With one directory or none, the key range says it all.
            0 | 1 => BlockPtr::default(),
            _ => {
                let bits = self.directories.finish(self.options.filter_bits_per_key);
                debug_assert!(bits.as_bytes().len() + BLOCK_HEADER_BYTES <= BLOCK_BYTES_MAX);
                let offset = self.output.bytes;
                let stored = self.framer.filter(bits.as_bytes(), BlockKind::DirectoryFilter, offset);
                let filter = self.output.append_block(stored);
                if self.keeps {
                    self.kept.extend(filter_as_read(&bits, filter));
                }
                filter
            }
        };
        self.output.pad_to_page();
        let body_bytes = self.output.bytes;
        let mut meta = SegmentMeta {
            identity: self.identity,
            compression: self.options.compression,
            entries: self.entries,
            tombstones: self.tombstones,
            directories: self.directory_count,
            raw_bytes: self.raw_bytes,
            file_bytes: 0,
            content_hash: self.output.content_hash(),
            root,
            depth,
            directory_filter,
            min_full_key: self.min_full_key,
            max_full_key: self.last_full_key.as_slice().into(),
        };
        let footer = footer(&mut meta, body_bytes);
        self.output.append(&footer);
        debug_assert_eq!(self.output.bytes, meta.file_bytes);
        Finished { chunks: self.output.finish(), meta, kept: self.kept }
    }

    /// Closes the index from the bottom upwards; answers its root and depth.
    fn finish_index(&mut self) -> (Child, u8) {
        self.close_block();
        self.close_partition();
        let mut level = 1;
        loop {
            let top = &self.levels[level];
            if level + 1 == self.levels.len() && !top.written && top.block.count() == 1 {
                debug_assert!(level <= usize::from(INDEX_DEPTH_MAX));
                return (top.last_child, level as u8);
            }
            self.close_node(level);
            level += 1;
        }
    }

    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(|level| level.block.memory_bytes()).sum();
        let directories = match &self.directories {
            DirectoryFilterBuilder::Few(hashes) => hashes.capacity() * 8,
            DirectoryFilterBuilder::Many(filter) => filter.as_bytes().len(),
        };
        let chunks = self.output.full.len() + self.output.spare.len() + 1;
        self.block.memory_bytes()
            + levels
            + directories
            + self.hashes.capacity() * 8
            + self.framer.memory_bytes()
            + chunks * CHUNK_BYTES
    }
}

/// The file's bytes, in chunks.
struct Output {
    full: VecDeque<IoBuf>,
    spare: Vec<IoBuf>,
    current: IoBuf,
    filled: usize,
    bytes: u64,
    hash: Xxh3,
}

impl Output {
    /// How many chunks are kept for use again: as many as a caller has in flight at a time, or so.
    const SPARE_MAX: usize = 4;
    /// What the first chunk begins with: it doubles as it fills, so that a small segment costs little.
    const FIRST_BYTES: usize = 16 * 1024;

    fn new() -> Self {
        Output {
            full: VecDeque::new(),
            spare: Vec::new(),
            current: IoBuf::zeroed(Self::FIRST_BYTES),
            filled: 0,
            bytes: 0,
            hash: Xxh3::new(),
        }
    }

    /// Appends bytes; every byte of a chunk is written, so that one used before shows no trace.
    fn append(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            self.reserve(now.len());
            self.current[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.advance(now.len());
            bytes = later;
        }
    }

    /// Makes room for so many bytes in the chunk, within its full size.
    fn reserve(&mut self, bytes: usize) {
        let needed = self.filled + bytes;
        if needed > self.current.len() {
            self.current.resize(needed.max(2 * self.current.len()).min(CHUNK_BYTES));
        }
    }

    fn append_block(&mut self, stored: &[u8]) -> BlockPtr {
        debug_assert!((BLOCK_HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&stored.len()));
        let ptr = BlockPtr { offset: self.bytes, bytes: stored.len() as u32 };
        self.append(stored);
        ptr
    }

    fn pad_to_page(&mut self) {
        let bytes = (page_ceil(self.bytes) - self.bytes) as usize;
        self.bytes += bytes as u64;
        // Chunks are whole pages, so the padding lies within one.
        self.reserve(bytes);
        self.current[self.filled..self.filled + bytes].fill(0);
        self.advance(bytes);
    }

    fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
        if self.filled == CHUNK_BYTES {
            self.hash.update(&self.current);
            let next = self.spare.pop().unwrap_or_else(|| IoBuf::zeroed(CHUNK_BYTES));
            self.full.push_back(std::mem::replace(&mut self.current, next));
            self.filled = 0;
        }
    }

    /// The hash of everything appended so far.
    fn content_hash(&self) -> u128 {
        let mut hash = self.hash.clone();
        hash.update(&self.current[..self.filled]);
        hash.digest128()
    }

    fn recycle(&mut self, chunk: IoBuf) {
        if self.spare.len() < Self::SPARE_MAX {
            // A short one grows when it is filled.
            self.spare.push(chunk);
        }
    }

    fn finish(mut self) -> Vec<IoBuf> {
        debug_assert_eq!(page_ceil(self.bytes), self.bytes, "a file ends with a whole page");
        if self.filled > 0 {
            self.current.truncate(self.filled);
            self.full.push_back(self.current);
        }
        self.full.into()
    }
}
