//! Where a memtable's records lie: appended to chunks, never moved, never removed.
//!
//! A record is a [`Header`], the key and the value, end to end. It may become that of a newer version of its key, where the
//! value has room ([`Arena::overwrite`]). Chunks start small, so that an idle shard
//! costs little, and double up to [`CHUNK_BYTES_MAX`]. A record that would waste much of a chunk's end gets a
//! chunk of its own, of just its size, and the chunk being filled goes on being filled.

use crate::entry::{DirectoryId, Entry};
use crate::levels::Commit;
use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

/// The first chunk of a table.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Chunks double up to this: large enough that their ends and their number do not matter.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A record longer than this gets its own chunk, so that at most an eighth of a full-size chunk is wasted.
const OWN_CHUNK_BYTES: usize = CHUNK_BYTES_MAX / 8;

/// Full-size chunks that a thread keeps for its next tables. Giving tens of megabytes back to the system, and
/// having every page of the next table faulted in again, takes milliseconds: longer than a turn of a shard's loop
/// may take.
const CHUNKS_KEPT_MAX: usize = 128;

thread_local! {
    /// See [`CHUNKS_KEPT_MAX`].
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty chunk, of memory that was used before if there is some.
fn take_chunk(capacity: usize) -> Vec<u8> {
    let kept = if capacity == CHUNK_BYTES_MAX {
        // Not while the thread ends, and its locals are gone.
        KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten()
    } else {
        None
    };
    kept.unwrap_or_else(|| Vec::with_capacity(capacity))
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            for mut chunk in self.chunks.drain(..).filter(|chunk| chunk.capacity() == CHUNK_BYTES_MAX) {
                if kept.len() < CHUNKS_KEPT_MAX {
                    chunk.clear();
                    kept.push(chunk);
                }
            }
        });
    }
}

/// Stands for the value's length in the record of a delete.
const NO_VALUE: u32 = u32::MAX;

/// What precedes a record's key and value.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    commit: u64,
    directory: u64,
    value_len: u32,
    key_len: u16,
    /// Bytes behind the value that belong to the record, too.
    spare: u16,
}

/// What memory is fetched by.
const CACHE_LINE_BYTES: usize = 64;

const HEADER_BYTES: usize = size_of::<Header>();

/// Where a record lies. No two records of an arena, whatever they hold, have the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Locator {
    chunk: u32,
    offset: u32,
}

impl Locator {
    /// Something that cannot be known before the locator is fetched.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.chunk) << 32 | u64::from(self.offset)
    }
}

pub(super) struct Arena {
    /// None ever grows beyond the capacity it was made with.
    chunks: Vec<Vec<u8>>,
    /// The chunk being filled; chunks of a single record may stand behind it.
    filling: usize,
    /// The capacity of the next chunk to be filled.
    next_bytes: usize,
    /// The sum of the chunks' capacities.
    bytes: usize,
}

impl Arena {
    pub(super) fn new() -> Self {
        Arena { chunks: Vec::new(), filling: 0, next_bytes: CHUNK_BYTES_MIN, bytes: 0 }
    }

    /// Copies an entry in.
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> Locator {
        let value = entry.value.unwrap_or_default();
        debug_assert!(value.len() < NO_VALUE as usize && entry.key.len() <= u16::MAX.into());
        let header = Header {
            commit: entry.commit.0,
            directory: entry.directory.0,
            value_len: entry.value.map_or(NO_VALUE, |value| value.len() as u32),
            key_len: entry.key.len() as u16,
            spare: 0,
        };
        let at = self.chunk_for(HEADER_BYTES + entry.size());
        let chunk = &mut self.chunks[at];
        let offset = chunk.len();
        chunk.extend_from_slice(bytemuck::bytes_of(&header));
        chunk.extend_from_slice(entry.key);
        chunk.extend_from_slice(value);
        Locator { chunk: at as u32, offset: offset as u32 }
    }

    /// The record at a locator of this arena.
    #[inline]
    pub(super) fn entry(&self, at: Locator) -> Entry<'_> {
        let (header, rest) = self.chunks[at.chunk as usize][at.offset as usize..].split_at(HEADER_BYTES);
        let header: Header = bytemuck::pod_read_unaligned(header);
        let (key, rest) = rest.split_at(header.key_len.into());
        Entry {
            directory: DirectoryId(header.directory),
            key,
            commit: Commit(header.commit),
            value: (header.value_len != NO_VALUE).then(|| &rest[..header.value_len as usize]),
        }
    }

    /// Makes a record that of another version of its key, if that fits where it lies.
    #[inline]
    pub(super) fn overwrite(&mut self, at: Locator, commit: Commit, value: Option<&[u8]>) -> bool {
        let record = &mut self.chunks[at.chunk as usize][at.offset as usize..];
        let (bytes, rest) = record.split_at_mut(HEADER_BYTES);
        let header: Header = bytemuck::pod_read_unaligned(bytes);
        let held = if header.value_len == NO_VALUE { 0 } else { header.value_len as usize };
        let new = value.unwrap_or_default();
        let room = held + usize::from(header.spare);
        let Some(Ok(spare)) = room.checked_sub(new.len()).map(u16::try_from) else { return false };
        let value_len = value.map_or(NO_VALUE, |value| value.len() as u32);
        bytes.copy_from_slice(bytemuck::bytes_of(&Header { commit: commit.0, value_len, spare, ..header }));
        rest[header.key_len.into()..][..new.len()].copy_from_slice(new);
        true
    }

    /// Fetches the beginning of a record into the core's cache; what it answers means nothing.
    #[inline]
    pub(super) fn touch(&self, at: Locator) -> u8 {
        let record = &self.chunks[at.chunk as usize][at.offset as usize..];
        let line = |number: usize| record.get(number * CACHE_LINE_BYTES).copied().unwrap_or_default();
        line(0) ^ line(1) ^ line(2)
    }

    /// The bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<Vec<u8>>()
    }

    /// The chunk that has room for a record of so many bytes.
    #[inline]
    fn chunk_for(&mut self, bytes: usize) -> usize {
        match self.chunks.get(self.filling) {
            Some(chunk) if chunk.capacity() - chunk.len() >= bytes => self.filling,
            _ => self.add_chunk(bytes),
        }
    }

    #[cold]
    fn add_chunk(&mut self, bytes: usize) -> usize {
        let at = self.chunks.len();
        let capacity = if bytes > OWN_CHUNK_BYTES {
            bytes
        } else {
            let capacity = self.next_bytes.max(bytes.next_power_of_two());
            self.next_bytes = (capacity * 2).min(CHUNK_BYTES_MAX);
            self.filling = at;
            capacity
        };
        let chunk = take_chunk(capacity);
        self.bytes += chunk.capacity();
        self.chunks.push(chunk);
        at
    }
}
