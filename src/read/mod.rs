//! Reads: from a [`Frame`], newest source first.
//!
//! A point read asks the live table, then each table and segment from the newest to the oldest, then the one
//! part of the base that can hold the key; the first version found is the answer, since the sources hold
//! disjoint ranges of commits. Segments look into their filters first. A scan merges cursors over the sources
//! that have the directory.
//!
//! Reads never hold the shard's state across a wait: a frame is all they need, and it does not change.

pub(crate) mod cursor;
pub(crate) mod merge;
pub(crate) mod pages;

pub(crate) use pages::{Page, PageRequest, Pages, Taken};

use crate::cache::BlockCache;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use crate::limits;
use crate::memtable::Place;
use crate::segment::{Found, SegmentCursor, key_hash};
use crate::table::TableCursor;
use crate::view::{Frame, Source};
use bytes::{Bytes, BytesMut};
use cursor::{Cursor, PartsCursor};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use merge::Merge;
use std::ops::{Bound, Range};
use std::rc::Rc;

/// The reads of a batched get that overlap.
const GETS_AT_ONCE: usize = 64;
/// A page of a scan ends once it has this many bytes, whatever its entries.
const PAGE_BYTES_MAX: usize = 256 * 1024;

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
    let own =
        |entry: Entry<'_>| Found { commit: entry.commit, value: entry.value.map(Bytes::copy_from_slice) };
    if let Some(found) = frame.active.with(|memtable| memtable.get(directory, key, at).map(own)) {
        return Ok(Some(found));
    }
    let hash = key_hash(directory, key);
    for source in &frame.view.sources {
        if source.span().after >= at {
            continue;
        }
        let found = match source {
            Source::Table(table) => table.with(|memtable| memtable.get(directory, key, at).map(own)),
            Source::Segment(segment) => segment.get(cache, directory, key, hash, at).await?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    match frame.view.part_of(directory, key) {
        Some(part) => part.segment.get(cache, directory, key, hash, at).await,
        None => Ok(None),
    }
}

/// The values of several keys, as of the frame's commit, in their order. The reads overlap.
pub(crate) async fn get_many<K: AsRef<[u8]>>(
    frame: &Frame,
    cache: &BlockCache,
    directory: DirectoryId,
    keys: &[K],
) -> Result<Vec<Option<Bytes>>> {
    if let [key] = keys {
        return Ok(vec![get(frame, cache, directory, key.as_ref()).await?]);
    }
    let gets = keys.iter().map(|key| get(frame, cache, directory, key.as_ref()));
    stream::iter(gets).buffered(GETS_AT_ONCE).try_collect().await
}

/// Cursors over all sources that may hold entries of a directory.
async fn cursors_of(frame: &Frame, cache: &Rc<BlockCache>, directory: DirectoryId) -> Result<Vec<Cursor>> {
    let mut cursors = vec![Cursor::Table(TableCursor::new(frame.active.clone()))];
    for source in &frame.view.sources {
        if source.span().after >= frame.commit {
            continue;
        }
        match source {
            Source::Table(table) => cursors.push(Cursor::Table(TableCursor::new(table.clone()))),
            Source::Segment(segment) => {
                if segment.may_have_directory(cache, directory).await? {
                    cursors.push(Cursor::Segment(SegmentCursor::scan(segment.clone(), cache.clone())));
                }
            }
        }
    }
    if !frame.view.parts.is_empty() {
        cursors.push(Cursor::Parts(PartsCursor::new(frame.view.clone(), cache.clone())));
    }
    Ok(cursors)
}

/// Walks the visible entries of a directory: one version a key, deletes passed over.
struct Visible {
    merge: Merge,
    directory: DirectoryId,
    commit: Commit,
    back: bool,
    /// The key that was handed out or passed over last.
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    begun: bool,
}

impl Visible {
    /// The next visible entry, into `key` and `value`. Answers whether there is one.
    async fn next(&mut self) -> Result<bool> {
        if self.back { self.next_back().await } else { self.next_forward().await }
    }

    /// Forward, the first version of a key that is not too new is the visible one.
    async fn next_forward(&mut self) -> Result<bool> {
        while let Some(entry) = self.merge.entry() {
            if entry.directory != self.directory {
                return Ok(false);
            }
            let passed = entry.commit > self.commit || (self.begun && entry.key == self.key);
            let mut visible = false;
            if !passed {
                self.begun = true;
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                if let Some(value) = entry.value {
                    let copy = self.value.get_or_insert_default();
                    copy.clear();
                    copy.extend_from_slice(value);
                    visible = true;
                }
            }
            if !self.merge.step() {
                self.merge.advance().await?;
            }
            if visible {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Backward, versions come oldest first: the last one of a key that is not too new is the visible one.
    async fn next_back(&mut self) -> Result<bool> {
        loop {
            let mut found = false;
            while let Some(entry) = self.merge.entry().filter(|entry| entry.directory == self.directory) {
                if entry.commit <= self.commit {
                    if found && entry.key != self.key {
                        break;
                    }
                    if !found {
                        found = true;
                        self.key.clear();
                        self.key.extend_from_slice(entry.key);
                    }
                    match entry.value {
                        Some(value) => {
                            let copy = self.value.get_or_insert_default();
                            copy.clear();
                            copy.extend_from_slice(value);
                        }
                        None => self.value = None,
                    }
                } else if found && entry.key != self.key {
                    break;
                }
                if !self.merge.step() {
                    self.merge.advance().await?;
                }
            }
            if !found || self.value.is_some() {
                return Ok(found);
            }
        }
    }
}

/// One page of a scan, as of the frame's commit.
pub(crate) async fn page(
    frame: &Frame,
    cache: &Rc<BlockCache>,
    directory: DirectoryId,
    request: &PageRequest,
) -> Result<Page> {
    let mut merge = Merge::new(cursors_of(frame, cache, directory).await?);
    let range = &request.range;
    if request.back {
        merge
            .seek_back(match &range.high {
                Bound::Included(key) => Place::Behind(directory, key),
                Bound::Excluded(key) => Place::Before(directory, key),
                Bound::Unbounded => Place::DirectoryEnd(directory),
            })
            .await?;
    } else {
        merge
            .seek(match &range.low {
                Bound::Included(key) => Place::Before(directory, key),
                Bound::Excluded(key) => Place::Behind(directory, key),
                Bound::Unbounded => Place::DirectoryStart(directory),
            })
            .await?;
    }
    let commit = frame.commit;
    let key = Vec::with_capacity(64);
    let mut visible =
        Visible { merge, directory, commit, back: request.back, key, value: None, begun: false };

    // All entries of a page lie in one allocation, and are handed out as slices of it.
    let mut bytes = BytesMut::new();
    let mut places: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut more = false;
    while visible.next().await? {
        let key = &visible.key[..];
        let inside = if request.back {
            match &range.low {
                Bound::Included(low) => key >= &low[..],
                Bound::Excluded(low) => key > &low[..],
                Bound::Unbounded => true,
            }
        } else {
            match &range.high {
                Bound::Included(high) => key <= &high[..],
                Bound::Excluded(high) => key < &high[..],
                Bound::Unbounded => true,
            }
        };
        if !inside {
            break;
        }
        let start = bytes.len();
        bytes.extend_from_slice(key);
        let middle = bytes.len();
        bytes.extend_from_slice(visible.value.as_deref().unwrap_or_default());
        places.push((start..middle, middle..bytes.len()));
        if places.len() >= request.entries || bytes.len() >= PAGE_BYTES_MAX {
            more = true;
            break;
        }
    }
    let bytes = bytes.freeze();
    let entries = places.into_iter().map(|(key, value)| (bytes.slice(key), bytes.slice(value))).collect();
    Ok(Page { entries, more, opened: None })
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

const _: () = assert!(PAGE_BYTES_MAX < limits::VALUE_BYTES_MAX * 2);
