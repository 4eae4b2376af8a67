//! Reads: from a [`Frame`], newest source first.
//!
//! A point read asks the live table, then each table and segment from the newest to the oldest, then the one
//! part of the base that can hold the key; the first version found is the answer, since the sources hold
//! disjoint ranges of commits. Segments look into their filters first. A scan [walks](walk) a merge of cursors over the
//! sources that have the directory, a page at a time.
//!
//! Reads never hold the shard's state across a wait: a frame is all they need, and it does not change.

pub(crate) mod allowance;
pub(crate) mod cursor;
pub(crate) mod merge;
pub(crate) mod pages;
pub(crate) mod scan;
pub(crate) mod together;
pub(crate) mod walk;

pub(crate) use allowance::Allowance;
pub(crate) use pages::{Page, PageRequest};
pub(crate) use walk::Walk;

use crate::cache::BlockCache;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use crate::segment::{Found, Segment, Wanted, key_hash};
use crate::table::Table;
use crate::view::{Frame, Source};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// The reads of a batched get that overlap, in memory and on the disk.
const GETS_AT_ONCE: usize = together::KEYS_TOGETHER_MAX;

/// The value of a key, as of the frame's commit.
pub(crate) async fn get(
    frame: &Frame,
    cache: &BlockCache,
    directory: DirectoryId,
    key: &[u8],
) -> Result<Option<Bytes>> {
    Ok(find(frame, cache, directory, key).await?.and_then(|found| found.value))
}

/// The newest version of a key up to the frame's commit.
async fn find(
    frame: &Frame,
    cache: &BlockCache,
    directory: DirectoryId,
    key: &[u8],
) -> Result<Option<Found>> {
    let at = frame.commit;
    if let Some(found) = in_table(&frame.active, directory, key, at) {
        return Ok(Some(found));
    }
    let hash = key_hash(directory, key);
    for source in &frame.view.sources {
        if source.span().after >= at {
            continue;
        }
        let found = match source {
            Source::Table(table) => in_table(table, directory, key, at),
            Source::Segment(segment) => in_segment(segment, cache, directory, key, hash, at).await?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    match frame.view.part_of(directory, key) {
        Some(part) => in_segment(&part.segment, cache, directory, key, hash, at).await,
        None => Ok(None),
    }
}

#[inline]
fn in_table(table: &Table, directory: DirectoryId, key: &[u8], at: Commit) -> Option<Found> {
    let own =
        |entry: Entry<'_>| Found { commit: entry.commit, value: entry.value.map(Bytes::copy_from_slice) };
    let found = table.with(|memtable| memtable.get(directory, key, at).map(own));
    table.found(u64::from(found.is_some()));
    found
}

#[inline]
async fn in_segment(
    segment: &Segment,
    cache: &BlockCache,
    directory: DirectoryId,
    key: &[u8],
    key_hash: u64,
    at: Commit,
) -> Result<Option<Found>> {
    match segment.get_now(cache, directory, key, key_hash, at) {
        Some(found) => Ok(found),
        // Boxed: a read that finds everything in memory need not carry the state of one that does not.
        None => Box::pin(segment.get(cache, directory, key, key_hash, at)).await,
    }
}

/// The values of several keys, as of the frame's commit, in their order. First all that takes no wait, step by step for all of
/// them; the reads of the others overlap.
pub(crate) async fn get_many<K: AsRef<[u8]>>(
    frame: &Frame,
    cache: &BlockCache,
    directory: DirectoryId,
    keys: &[K],
) -> Result<Vec<Option<Bytes>>> {
    if let [key] = keys {
        return Ok(vec![get(frame, cache, directory, key.as_ref()).await?]);
    }
    let mut values = together::Values::of_one_reader(keys.len());
    let mut unknown = Vec::new();
    for keys in keys.chunks(GETS_AT_ONCE) {
        let wanted = keys.iter().map(|key| Wanted::new(directory, key.as_ref()));
        together::get_now(frame, cache, wanted, &mut values, &mut unknown);
    }
    let mut values = values.into_vec();
    if !unknown.is_empty() {
        let gets = unknown.iter().map(|&at| get(frame, cache, directory, keys[at].as_ref()));
        let read: Vec<_> = stream::iter(gets).buffered(GETS_AT_ONCE).try_collect().await?;
        unknown.iter().zip(read).for_each(|(&at, value)| values[at] = value);
    }
    Ok(values)
}

/// The number that the catalog holds for a name under a directory, as of the frame's commit.
pub(crate) async fn catalog_entry(
    frame: &Frame,
    cache: &BlockCache,
    key: &[u8],
) -> Result<Option<DirectoryId>> {
    let value = get(frame, cache, DirectoryId::CATALOG, key).await?;
    Ok(value.and_then(|value| Some(DirectoryId(u64::from_be_bytes(value[..].try_into().ok()?)))))
}
