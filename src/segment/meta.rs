//! What is known about a segment without reading its blocks: identity, counts, ranges, where the index starts.
//!
//! The same encoding stands in a segment's footer and in the manifest, so that opening a segment needs no
//! I/O. The header page repeats the identity, so that a file cannot be taken for another.

use super::block::BlockPtr;
use super::{
    DIRECTORY_BYTES, FULL_KEY_BYTES_MAX, INDEX_DEPTH_MAX, MAGIC_FOOTER, MAGIC_HEADER, VERSION, page_ceil,
};
use crate::codec::{Reader, put_prefixed, put_varint};
use crate::entry::DirectoryId;
use crate::levels::{Commit, Level};
use crate::limits::PAGE_BYTES;
pub(crate) use crate::options::Compression;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The compression's number in files.
pub(crate) fn compression_to_byte(compression: Compression) -> u8 {
    match compression {
        Compression::None => 0,
        Compression::Lz4 => 1,
    }
}

/// The compression with a number.
pub(crate) fn compression_from_byte(byte: u8) -> Option<Compression> {
    match byte {
        0 => Some(Compression::None),
        1 => Some(Compression::Lz4),
        _ => None,
    }
}

/// What shapes a segment's bytes besides its entries; fixed when an engine is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentOptions {
    /// How data blocks are compressed.
    pub(crate) compression: Compression,
    /// Bits of filter for each distinct key and directory: 10 give one false hit in about a hundred.
    pub(crate) filter_bits_per_key: u8,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions { compression: Compression::None, filter_bits_per_key: 10 }
    }
}

/// Which segment this is. Every block's checksum is mixed with it, so that no block passes in another file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentIdentity {
    /// What the segment is for (a window, a part of the base, a spill): its owner's number, opaque here.
    pub(crate) kind: u8,
    /// The level of its window.
    pub(crate) level: Level,
    /// The shard it belongs to.
    pub(crate) shard: u16,
    /// The first commit of its window.
    pub(crate) first: Commit,
    /// The last commit of its window: the segment covers `first..=last`.
    pub(crate) last: Commit,
    /// Which of several files with the same window it is; 0 where there is one.
    pub(crate) part: u32,
}

impl SegmentIdentity {
    const BYTES: usize = 24;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind;
        bytes[1] = self.level.0;
        bytes[2..4].copy_from_slice(&self.shard.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.last.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.part.to_le_bytes());
        bytes
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let identity = SegmentIdentity {
            kind: reader.u8()?,
            level: Level(reader.u8()?),
            shard: reader.u16()?,
            first: Commit(reader.u64()?),
            last: Commit(reader.u64()?),
            part: reader.u32()?,
        };
        (identity.first <= identity.last).then_some(identity)
    }

    /// What every checksum of this file is seeded with, before the offset is mixed in.
    pub(crate) fn seed(&self) -> u64 {
        xxh3_64(&self.to_bytes())
    }

    /// How far below the newest commit of the window a commit lies: the order of versions, ascending.
    #[inline]
    pub(crate) fn distance(&self, commit: Commit) -> u64 {
        self.last.0.saturating_sub(commit.0)
    }
}

/// A child in the index tree: a block, and for a leaf its partition's filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Child {
    /// The index block.
    pub(crate) block: BlockPtr,
    /// The filter of a leaf's keys; absent above the leaves.
    pub(crate) filter: BlockPtr,
}

/// All that is known about a segment without reading its blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentMeta {
    /// Which segment it is.
    pub(crate) identity: SegmentIdentity,
    /// How its data blocks are compressed.
    pub(crate) compression: Compression,
    /// How many entries it holds, tombstones included.
    pub(crate) entries: u64,
    /// How many of them are tombstones.
    pub(crate) tombstones: u64,
    /// How many distinct directories they belong to.
    pub(crate) directories: u64,
    /// The bytes of all keys and values (directories not counted).
    pub(crate) raw_bytes: u64,
    /// The length of the file.
    pub(crate) file_bytes: u64,
    /// xxh3-128 of every byte of the file before the footer.
    pub(crate) content_hash: u128,
    /// The root of the index; absent in an empty segment.
    pub(crate) root: Child,
    /// Levels of the index: 1 where the root is a leaf, 0 in an empty segment.
    pub(crate) depth: u8,
    /// The filter over directories; absent where there are fewer than two.
    pub(crate) directory_filter: BlockPtr,
    /// The first full key: the directory's number, big endian, then the key. Empty in an empty segment.
    pub(crate) min_full_key: Box<[u8]>,
    /// The last full key.
    pub(crate) max_full_key: Box<[u8]>,
}

/// Splits a full key.
pub(crate) fn split_full_key(full_key: &[u8]) -> Option<(DirectoryId, &[u8])> {
    let (directory, key) = full_key.split_first_chunk::<DIRECTORY_BYTES>()?;
    Some((DirectoryId(u64::from_be_bytes(*directory)), key))
}

/// No segment has more entries, or bytes of keys and values: sums over segments do not overflow.
const COUNT_MAX: u64 = 1 << 48;

impl SegmentMeta {
    /// The first directory and key; `None` in an empty segment.
    pub(crate) fn min(&self) -> Option<(DirectoryId, &[u8])> {
        split_full_key(&self.min_full_key)
    }

    /// The last directory and key; `None` in an empty segment.
    pub(crate) fn max(&self) -> Option<(DirectoryId, &[u8])> {
        split_full_key(&self.max_full_key)
    }

    /// Appends the encoding that [`SegmentMeta::decode`] reads.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_bytes());
        out.push(compression_to_byte(self.compression));
        out.push(self.depth);
        // Fixed width: the footer's length, and so this number, must not depend on this number.
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.content_hash.to_le_bytes());
        for number in [self.entries, self.tombstones, self.directories, self.raw_bytes] {
            put_varint(out, number);
        }
        for ptr in [self.root.block, self.root.filter, self.directory_filter] {
            ptr.encode(out);
        }
        put_prefixed(out, &self.min_full_key);
        put_prefixed(out, &self.max_full_key);
    }

    /// Takes a meta off the front; `None` where the bytes are not one, or contradict themselves.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let identity = SegmentIdentity::decode(reader)?;
        let compression = compression_from_byte(reader.u8()?)?;
        let depth = reader.u8()?;
        let file_bytes = reader.u64()?;
        let content_hash = reader.u128()?;
        let entries = reader.varint()?;
        let tombstones = reader.varint()?;
        let directories = reader.varint()?;
        let raw_bytes = reader.varint()?;
        let block = BlockPtr::decode(reader)?;
        let filter = BlockPtr::decode(reader)?;
        let directory_filter = BlockPtr::decode(reader)?;
        let mut full_key = || reader.prefixed().filter(|key| key.len() <= FULL_KEY_BYTES_MAX).map(Box::from);
        let min_full_key: Box<[u8]> = full_key()?;
        let max_full_key: Box<[u8]> = full_key()?;

        let ptrs_fit = file_bytes.is_multiple_of(PAGE_BYTES as u64)
            && [block, filter, directory_filter].iter().all(|ptr| ptr.fits(file_bytes));
        let counts_agree = tombstones <= entries
            && directories <= entries
            && entries.max(raw_bytes) <= COUNT_MAX
            && depth <= INDEX_DEPTH_MAX;
        let shape_agrees = if entries == 0 {
            depth == 0 && block.is_absent() && min_full_key.is_empty() && max_full_key.is_empty()
        } else {
            depth > 0
                && !block.is_absent()
                && filter.is_absent() == (depth > 1)
                && directories > 0
                && directory_filter.is_absent() == (directories == 1)
                && min_full_key.len() >= DIRECTORY_BYTES
                && max_full_key.len() >= DIRECTORY_BYTES
                && min_full_key <= max_full_key
        };
        (ptrs_fit && counts_agree && shape_agrees).then_some(SegmentMeta {
            identity,
            compression,
            entries,
            tombstones,
            directories,
            raw_bytes,
            file_bytes,
            content_hash,
            root: Child { block, filter },
            depth,
            directory_filter,
            min_full_key,
            max_full_key,
        })
    }
}

/// The header page: magic, checksum, version, identity, options, zeros.
pub(crate) fn header_page(identity: &SegmentIdentity, options: &SegmentOptions) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend_from_slice(&MAGIC_HEADER.to_le_bytes());
    page.extend_from_slice(&[0; 8]);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(&identity.to_bytes());
    page.push(compression_to_byte(options.compression));
    page.push(options.filter_bits_per_key);
    page.resize(PAGE_BYTES, 0);
    let checksum = xxh3_64_with_seed(&page[16..], MAGIC_HEADER);
    page[8..16].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// Reads a header page; says what is wrong with one that is none.
pub(crate) fn check_header(page: &[u8], expected: &SegmentIdentity) -> Result<(), &'static str> {
    const SHORT: &str = "the header page is cut short";
    let mut reader = Reader::new(page);
    if reader.u64().ok_or(SHORT)? != MAGIC_HEADER {
        return Err("not a segment: the header's magic is wrong");
    }
    let checksum = reader.u64().ok_or(SHORT)?;
    if page.len() != PAGE_BYTES || checksum != xxh3_64_with_seed(&page[16..], MAGIC_HEADER) {
        return Err("the header's checksum does not match");
    }
    if reader.u32().ok_or(SHORT)? != VERSION {
        return Err("the version of the format is not one that this build reads");
    }
    match SegmentIdentity::decode(&mut reader) {
        Some(identity) if identity == *expected => Ok(()),
        _ => Err("the header names another segment"),
    }
}

/// The trailer at the very end of the footer: checksum, footer bytes, meta bytes, version, zero, magic.
pub(crate) const TRAILER_BYTES: usize = 32;

/// How long the footer of a meta is that encodes to `meta_bytes`.
fn footer_bytes(meta_bytes: usize) -> usize {
    page_ceil((meta_bytes + TRAILER_BYTES) as u64) as usize
}

/// The longest footer: a meta's keys may each have the greatest length.
pub(crate) const FOOTER_BYTES_MAX: usize = 2 * FULL_KEY_BYTES_MAX + PAGE_BYTES;

/// Sets the meta's file length, as everything before the footer has `body_bytes`, and gives the footer.
pub(crate) fn footer(meta: &mut SegmentMeta, body_bytes: u64) -> Vec<u8> {
    let mut footer = Vec::new();
    meta.encode(&mut footer);
    let (meta_bytes, total) = (footer.len(), footer_bytes(footer.len()));
    meta.file_bytes = body_bytes + total as u64;
    footer.clear();
    meta.encode(&mut footer);
    debug_assert_eq!(footer.len(), meta_bytes, "the file's length is encoded in fixed width");

    footer.resize(total - TRAILER_BYTES + 8, 0);
    footer.extend_from_slice(&(total as u32).to_le_bytes());
    footer.extend_from_slice(&(meta_bytes as u32).to_le_bytes());
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&[0; 4]);
    footer.extend_from_slice(&MAGIC_FOOTER.to_le_bytes());
    let checksum = footer_checksum(&footer);
    let at = total - TRAILER_BYTES;
    footer[at..at + 8].copy_from_slice(&checksum.to_le_bytes());
    debug_assert!(footer.len() == total && total <= FOOTER_BYTES_MAX);
    footer
}

/// Over everything of a footer but the checksum itself.
pub(super) fn footer_checksum(footer: &[u8]) -> u64 {
    let at = footer.len().saturating_sub(TRAILER_BYTES);
    let tail = xxh3_64_with_seed(&footer[(at + 8).min(footer.len())..], MAGIC_FOOTER);
    xxh3_64_with_seed(&footer[..at], tail)
}

/// How long the footer is, from the file's last page.
pub(crate) fn footer_bytes_of(last_page: &[u8]) -> Result<usize, &'static str> {
    let trailer = last_page.last_chunk::<TRAILER_BYTES>().ok_or("the footer is cut short")?;
    let mut reader = Reader::new(&trailer[8..]);
    let (bytes, _meta_bytes) = (reader.u32(), reader.u32());
    let (version, _zero, magic) = (reader.u32(), reader.u32(), reader.u64());
    if magic != Some(MAGIC_FOOTER) {
        return Err("no footer at the end of the file: cut short, or not a segment");
    }
    if version != Some(VERSION) {
        return Err("the version of the format is not one that this build reads");
    }
    match bytes.map(|bytes| bytes as usize) {
        Some(bytes) if bytes > 0 && bytes % PAGE_BYTES == 0 && bytes <= FOOTER_BYTES_MAX => Ok(bytes),
        _ => Err("the footer's length makes no sense"),
    }
}

/// Reads a whole footer of a file of `file_bytes`.
pub(crate) fn read_footer(footer: &[u8], file_bytes: u64) -> Result<SegmentMeta, &'static str> {
    if footer_bytes_of(footer)? != footer.len() {
        return Err("the footer's length makes no sense");
    }
    let at = footer.len() - TRAILER_BYTES;
    let mut trailer = Reader::new(&footer[at..]);
    if trailer.u64() != Some(footer_checksum(footer)) {
        return Err("the footer's checksum does not match");
    }
    let meta_bytes = trailer.bytes(4).and_then(|_| trailer.u32()).ok_or("the footer is cut short")? as usize;
    let mut reader = Reader::new(footer.get(..meta_bytes.min(at)).unwrap_or_default());
    let meta = SegmentMeta::decode(&mut reader).filter(|_| reader.is_empty());
    let meta = meta.ok_or("the footer's description of the segment makes no sense")?;
    if meta.file_bytes != file_bytes {
        return Err("the file's length is not the one in its footer");
    }
    Ok(meta)
}
