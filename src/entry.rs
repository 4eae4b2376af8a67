//! What is stored: one version of one key, and the order in which versions are kept everywhere.
//!
//! Memtables, segments and merges all hold [`Entry`]s in one order: by directory, then by key as bytes, then
//! newest commit first. A put carries a value; a delete (a tombstone) carries none.

use crate::codec::compare_keys;
use crate::levels::Commit;
use crate::limits::OPERATION_BYTES_OVERHEAD;
use std::cmp::Ordering;

/// The number of a directory within its shard, given at its first write and never used again after a drop.
///
/// It is `commit << 16 | index`, where `commit` made the directory and `index` counts the directories that
/// commit made; so it needs no counter of its own, and the same commits give the same numbers. The numbers
/// below [`DirectoryId::FIRST_FREE`] belong to the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirectoryId(pub u64);

impl DirectoryId {
    /// The catalog: (parent's number, big endian, then the child's name) → the child's number, big endian.
    pub const CATALOG: DirectoryId = DirectoryId(0);
    /// The drops: a dropped directory's number, big endian → nothing. Carries read it to let go of data.
    pub const DROPS: DirectoryId = DirectoryId(1);
    /// The smallest number that a user's directory can have.
    pub const FIRST_FREE: DirectoryId = DirectoryId(1 << 16);
}

/// One version of one key, borrowed from wherever it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The directory it belongs to.
    pub directory: DirectoryId,
    /// The key within the directory.
    pub key: &'a [u8],
    /// The commit that wrote it.
    pub commit: Commit,
    /// The value of a put; `None` for a delete.
    pub value: Option<&'a [u8]>,
}

impl Entry<'_> {
    /// The one order of entries: directory, key, then newest commit first.
    #[inline]
    pub fn order(&self, other: &Entry<'_>) -> Ordering {
        let keys = self.directory.cmp(&other.directory).then_with(|| compare_keys(self.key, other.key));
        keys.then_with(|| other.commit.cmp(&self.commit))
    }

    /// Bytes of its key and value.
    #[inline]
    pub fn size(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len)
    }

    /// What it counts towards budgets, and what merging it counts as work, in bytes.
    #[inline]
    pub fn weight(&self) -> u64 {
        (self.size() + OPERATION_BYTES_OVERHEAD) as u64
    }
}
