//! Verification: reads all of a segment and compares everything with everything.

use super::block::{BlockKind, BlockPtr};
use super::cursor::SegmentCursor;
use super::filter::{Filter, directory_hash, key_hash};
use super::meta::{FOOTER_BYTES_MAX, check_header, footer_bytes_of, read_footer};
use super::reader::Segment;
use super::{CHUNK_BYTES, DIRECTORY_BYTES};
use crate::disk::IoBuf;
use crate::entry::DirectoryId;
use crate::error::Result;
use crate::limits::PAGE_BYTES;
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3;

impl Segment {
    /// Reads everything, past the cache, and checks it:
    ///
    /// 1. header and footer say what the meta says;
    /// 2. every block has its checksum and shape, the entries ascend, and the index leads to each;
    /// 3. the filters let every key and directory pass;
    /// 4. counts and key range are those of the meta;
    /// 5. every byte before the footer, padding included, hashes to the content hash.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`] with the place where the first disagreement was found.
    pub(crate) async fn verify(self: &Rc<Self>) -> Result<()> {
        let footer_at = self.verify_ends().await?;
        self.verify_entries().await?;
        let mut hash = Xxh3::new();
        let mut offset = 0;
        while offset < footer_at {
            let bytes = (footer_at - offset).min(CHUNK_BYTES as u64);
            hash.update(&self.read_through(offset, bytes).await?);
            offset += bytes;
        }
        if hash.digest128() != self.meta().content_hash {
            return Err(self.damaged(0, "the content hash does not match: padding or unused bytes changed"));
        }
        Ok(())
    }

    async fn read_through(&self, offset: u64, bytes: u64) -> Result<IoBuf> {
        let ticket = self.start_bulk_read(offset, bytes, IoBuf::default()).await?;
        self.finish_read(offset, ticket).await
    }

    /// Header and footer; answers where the footer begins.
    async fn verify_ends(&self) -> Result<u64> {
        let file_bytes = self.meta().file_bytes;
        let header = self.read_through(0, PAGE_BYTES as u64).await?;
        check_header(&header, &self.meta().identity).map_err(|why| self.damaged(0, why))?;
        let tail_bytes = file_bytes.min(FOOTER_BYTES_MAX as u64).next_multiple_of(PAGE_BYTES as u64);
        let tail_bytes = tail_bytes.min(file_bytes);
        let tail = self.read_through(file_bytes - tail_bytes, tail_bytes).await?;
        let at_end = |why: &str| self.damaged(file_bytes - PAGE_BYTES as u64, why);
        let footer_bytes = footer_bytes_of(&tail).map_err(at_end)?;
        let footer = tail.len().checked_sub(footer_bytes).and_then(|at| tail.get(at..));
        let footer = footer.ok_or_else(|| at_end("the footer is longer than the file"))?;
        if read_footer(footer, file_bytes).map_err(at_end)? != *self.meta() {
            return Err(at_end("the footer describes another segment than the manifest"));
        }
        Ok(file_bytes - footer_bytes as u64)
    }

    async fn verify_entries(self: &Rc<Self>) -> Result<()> {
        let meta = self.meta();
        let mut cursor = SegmentCursor::stream(self.clone());
        let directory_filter = match meta.directory_filter {
            ptr if ptr.is_absent() => None,
            ptr => Some(self.load_filter(ptr, BlockKind::DirectoryFilter).await?),
        };
        let mut partition: Option<(BlockPtr, Filter)> = None;
        let (mut entries, mut tombstones, mut directories, mut raw_bytes) = (0u64, 0u64, 0u64, 0u64);
        let mut last: Option<(DirectoryId, Vec<u8>, u64)> = None;
        let mut first_full_key: Option<Vec<u8>> = None;
        let mut more = cursor.seek_first().await?;
        while more {
            let at = cursor.block_offset();
            let ptr = cursor.partition_filter();
            let filter = match &mut partition {
                Some((known, filter)) if *known == ptr => filter,
                other => &mut other.insert((ptr, self.load_filter(ptr, BlockKind::KeyFilter).await?)).1,
            };
            if cursor.at_edge() && !cursor.check_path() {
                return Err(self.damaged(at, "the index does not lead to an entry of the block"));
            }
            let Some(entry) = cursor.entry() else { break };
            let distance = self.distance(entry.commit);
            let new_directory = match &mut last {
                Some((directory, key, before)) => {
                    if (*directory, key.as_slice(), *before) >= (entry.directory, entry.key, distance) {
                        return Err(self.damaged(at, "the entries do not ascend"));
                    }
                    let new = *directory != entry.directory;
                    *directory = entry.directory;
                    key.clear();
                    key.extend_from_slice(entry.key);
                    *before = distance;
                    new
                }
                None => {
                    last = Some((entry.directory, entry.key.to_vec(), distance));
                    first_full_key = Some(full_key(entry.directory, entry.key));
                    true
                }
            };
            if !filter.may_contain(key_hash(entry.directory, entry.key)) {
                return Err(self.damaged(ptr.offset, "the filter denies a key that is there"));
            }
            if new_directory {
                directories += 1;
                let denied = directory_filter
                    .as_ref()
                    .is_some_and(|filter| !filter.may_contain(directory_hash(entry.directory)));
                if denied {
                    let at = meta.directory_filter.offset;
                    return Err(self.damaged(at, "the filter denies a directory that is there"));
                }
            }
            entries += 1;
            tombstones += u64::from(entry.value.is_none());
            raw_bytes += entry.size() as u64;
            more = cursor.next().await?;
        }
        let last_full_key = last.map(|(directory, key, _)| full_key(directory, &key)).unwrap_or_default();
        let same = (entries, tombstones, directories, raw_bytes)
            == (meta.entries, meta.tombstones, meta.directories, meta.raw_bytes)
            && first_full_key.unwrap_or_default() == *meta.min_full_key
            && last_full_key == *meta.max_full_key;
        if !same {
            return Err(self.damaged(0, "counts or key range are not those of the meta"));
        }
        Ok(())
    }
}

fn full_key(directory: DirectoryId, key: &[u8]) -> Vec<u8> {
    let mut full_key = Vec::with_capacity(DIRECTORY_BYTES + key.len());
    full_key.extend_from_slice(&directory.0.to_be_bytes());
    full_key.extend_from_slice(key);
    full_key
}
