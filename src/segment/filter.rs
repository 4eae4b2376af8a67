//! Filters: "certainly not here" for keys and directories, in about ten bits each.
//!
//! Both are split block bloom filters as in the Parquet specification (BloomFilter.md), over xxh3-64. A
//! partition's filter is built when its last key is known, from the hashes gathered so far, so it is sized
//! exactly and the writer holds one partition's hashes at most.

use super::{DIRECTORIES_EXACT_MAX, DIRECTORY_FILTER_BYTES_MAX};
use crate::entry::DirectoryId;
use sbbf_rs_safe::Filter as SplitBlockFilter;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The hash that filters know a key by. A reader computes it once for all segments.
#[inline]
pub(crate) fn key_hash(directory: DirectoryId, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, directory.0)
}

/// The hash that filters know a directory by.
#[inline]
pub(crate) fn directory_hash(directory: DirectoryId) -> u64 {
    xxh3_64(&directory.0.to_le_bytes())
}

/// A filter that was read.
pub(crate) struct Filter {
    bits: SplitBlockFilter,
    bytes: usize,
}

impl Filter {
    /// Takes a filter's bytes; `None` where no filter has that length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Filter { bits: SplitBlockFilter::from_bytes(bytes)?, bytes: bytes.len() })
    }

    /// False only where the hash was never inserted.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.bits.contains_hash(hash)
    }

    /// The memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A filter of exactly these hashes.
pub(crate) fn build(hashes: &[u64], bits_per_key: u8) -> SplitBlockFilter {
    let mut filter = SplitBlockFilter::new(usize::from(bits_per_key), hashes.len());
    for &hash in hashes {
        filter.insert_hash(hash);
    }
    filter
}

/// Gathers directories: exactly while they are few, in a filter of fixed size once they are many.
pub(crate) enum DirectoryFilterBuilder {
    /// At most [`DIRECTORIES_EXACT_MAX`] hashes.
    Few(Vec<u64>),
    /// A filter of [`DIRECTORY_FILTER_BYTES_MAX`].
    Many(SplitBlockFilter),
}

impl DirectoryFilterBuilder {
    pub(crate) fn new() -> Self {
        DirectoryFilterBuilder::Few(Vec::new())
    }

    /// Adds a directory; the caller adds each once.
    pub(crate) fn insert(&mut self, directory: DirectoryId) {
        let hash = directory_hash(directory);
        match self {
            DirectoryFilterBuilder::Few(hashes) if hashes.len() < DIRECTORIES_EXACT_MAX => hashes.push(hash),
            DirectoryFilterBuilder::Few(hashes) => {
                let mut filter = SplitBlockFilter::new(8, DIRECTORY_FILTER_BYTES_MAX);
                for &hash in hashes.iter().chain([&hash]) {
                    filter.insert_hash(hash);
                }
                *self = DirectoryFilterBuilder::Many(filter);
            }
            DirectoryFilterBuilder::Many(filter) => {
                filter.insert_hash(hash);
            }
        }
    }

    pub(crate) fn finish(self, bits_per_key: u8) -> SplitBlockFilter {
        match self {
            DirectoryFilterBuilder::Few(hashes) => build(&hashes, bits_per_key),
            DirectoryFilterBuilder::Many(filter) => filter,
        }
    }
}
