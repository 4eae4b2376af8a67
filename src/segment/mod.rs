//! Segments: immutable sorted files, each holding exactly one window of commits.
//!
//! A segment keeps its entries in the one order of [`crate::entry`]: directory, key, newest commit first.
//! `docs/format.md` draws the file byte by byte. In short:
//!
//! 1. A header page with the magic, the version and the segment's identity.
//! 2. Data blocks, and among them, as they fill, the blocks of an index tree. Each leaf of the tree has one
//!    filter over the keys of its data blocks: leaf and filter together are a *partition*.
//! 3. A filter over the directories, then a footer with the [`SegmentMeta`].
//!
//! [`SegmentWriter`] turns sorted entries into those bytes and knows no disk. [`Segment`] answers point reads
//! and [`SegmentCursor`] walks in both directions, both over [`crate::disk::io::Io`] and a
//! [`crate::cache::BlockCache`]. [`Segment::verify`] reads everything and believes nothing.
//!
//! Promises:
//!
//! * The bytes of a file are a function of its entries, its options and its identity, and of nothing else.
//! * Writer and cursors hold bounded memory, however large the segment is.
//! * Any bytes whatsoever may be read: what is wrong with them becomes [`crate::Error::Damaged`] with file,
//!   offset and window. Each block's bounds are checked once, when it is loaded; no access after that can fail.

mod block;
mod builder;
mod cursor;
mod file;
mod filter;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod many;
mod meta;
mod reader;
mod verify;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod figures;
#[cfg(any(fuzzing, test))]
#[allow(clippy::expect_used)]
mod test_disk;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub(crate) use block::{Block, BlockKind, BlockPtr, HeadBound, Target};
pub(crate) use cursor::SegmentCursor;
pub(crate) use filter::{Filter, key_hash};
pub(crate) use many::{Answered, Wanted, get_each_now};
pub(crate) use meta::{SegmentIdentity, SegmentMeta, SegmentOptions};
pub(crate) use reader::{Found, Leftover, Segment, VALUE_SHARED_BYTES_MIN};
pub(crate) use writer::{Finished, SegmentWriter};

use crate::limits::{KEY_BYTES_MAX, PAGE_BYTES, VALUE_BYTES_MAX};

/// The first eight bytes of a segment.
const MAGIC_HEADER: u64 = u64::from_le_bytes(*b"QUIPUSEG");
/// The last eight bytes of a segment.
const MAGIC_FOOTER: u64 = u64::from_le_bytes(*b"GESUPIUQ");
/// The version of the format. Readers refuse any other.
const VERSION: u32 = 1;

/// What a writer hands out at a time, in bytes: large enough that a write costs its bytes rather than its
/// system call, small enough that a slice of a carry ends in good time.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// What a block of entries grows to, in bytes, unless one entry alone is larger. A point read reads a block
/// whole, and from here on the padding is small in proportion anyway.
const BLOCK_BYTES_TARGET_MAX: usize = 64 * 1024;

/// A block may be closed once its padding is at most this part of it.
const BLOCK_PADDING_DIVISOR: usize = 16;

/// How much is gathered for one compressed block, in bytes before compression: LZ4 finds little more in
/// larger blocks, and a point read decompresses a block whole.
const COMPRESSED_BLOCK_BYTES_RAW: usize = 16 * 1024;

/// A compressed block must be smaller than its raw bytes by this part of them, or it is stored raw.
const COMPRESSION_GAIN_DIVISOR: usize = 8;

/// The most bytes that a block can have, stored or raw: one entry of the largest key and value with its
/// framing, or an index block that overshoots its target by separators. Readers allocate no more than this.
const BLOCK_BYTES_MAX: usize = VALUE_BYTES_MAX + 8 * KEY_BYTES_MAX;

/// The distinct keys of a partition: with 10 bits a key its filter has 10 KiB, and a reader that misses
/// fetches no more than that.
const PARTITION_KEYS_MAX: usize = 8192;

/// An index block is closed when it has this many bytes (and, above the leaves, two entries).
const INDEX_BLOCK_BYTES_TARGET: usize = 16 * 1024;

/// The deepest index tree. With two children a node, the least there can be, it is never reached.
const INDEX_DEPTH_MAX: u8 = 48;

/// Up to this many directories their filter is sized exactly; the writer holds eight bytes for each.
const DIRECTORIES_EXACT_MAX: usize = 100_000;

/// The size of the directory filter beyond [`DIRECTORIES_EXACT_MAX`], in bytes.
const DIRECTORY_FILTER_BYTES_MAX: usize = 1024 * 1024;

/// The bytes of a directory's number in front of a key, big endian so that bytes sort as numbers do.
const DIRECTORY_BYTES: usize = 8;

/// The longest full key: directory and key.
const FULL_KEY_BYTES_MAX: usize = DIRECTORY_BYTES + KEY_BYTES_MAX;

/// Rounds up to whole pages.
fn page_ceil(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES as u64)
}

/// Rounds down to whole pages.
fn page_floor(bytes: u64) -> u64 {
    bytes - bytes % PAGE_BYTES as u64
}
