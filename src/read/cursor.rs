//! Cursors over whatever holds entries, behind one face.

use crate::cache::BlockCache;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use crate::memtable::Place;
use crate::segment::SegmentCursor;
use crate::table::TableCursor;
use crate::view::{Part, View};
use bytes::Bytes;
use std::rc::Rc;

/// Newer than any commit: a seek to it finds the first version of a key.
const NEWEST: Commit = Commit(u64::MAX);
/// Older than any commit: a seek to it goes behind all versions of a key.
const OLDEST: Commit = Commit(0);

/// Walks one source in the order of entries.
pub(crate) enum Cursor {
    Table(TableCursor),
    Segment(SegmentCursor),
    Parts(PartsCursor),
}

impl Cursor {
    /// The entry it is at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Cursor::Table(cursor) => cursor.entry(),
            Cursor::Segment(cursor) => cursor.entry(),
            Cursor::Parts(cursor) => cursor.entry(),
        }
    }

    /// The value of the entry it is at, without a copy; none where it is a delete's, or its source cannot share it.
    pub(crate) fn value_shared(&self) -> Option<Bytes> {
        match self {
            Cursor::Table(_) => None,
            Cursor::Segment(cursor) => cursor.value_shared(),
            Cursor::Parts(cursor) => cursor.cursor.as_ref()?.value_shared(),
        }
    }

    /// Where it walks a segment, and may do so up to the end of the block that it is in: that cursor.
    #[inline]
    pub(crate) fn within_segment(&mut self) -> Option<&mut SegmentCursor> {
        match self {
            Cursor::Segment(cursor) => Some(cursor),
            Cursor::Parts(cursor) if !cursor.bounded => cursor.cursor.as_mut(),
            _ => None,
        }
    }

    /// Whether readers have what the entry lies in in memory, and look for it, as far as a merge for a carry knows.
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        match self {
            Cursor::Table(cursor) => cursor.is_warm(),
            Cursor::Segment(cursor) => cursor.is_warm(),
            Cursor::Parts(_) => false,
        }
    }

    /// The memory that it holds, in bytes; an estimate.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Cursor>()
            + match self {
                Cursor::Table(cursor) => cursor.memory(),
                Cursor::Segment(cursor) => cursor.memory(),
                Cursor::Parts(cursor) => cursor.cursor.as_ref().map_or(0, SegmentCursor::memory),
            }
    }

    /// Goes to the first entry behind a place (`back`: to the last one before it), if that needs no wait; answers
    /// whether it did. Where it did not, it is on no entry.
    pub(crate) fn seek_now(&mut self, place: Place<'_>, back: bool) -> bool {
        match (self, back) {
            (Cursor::Table(cursor), false) => cursor.seek(place),
            (Cursor::Table(cursor), true) => cursor.seek_back(place),
            (Cursor::Segment(cursor), _) => return seek_segment_now(cursor, place, back),
            (Cursor::Parts(cursor), _) => return cursor.seek_now(place, back),
        }
        true
    }

    /// Goes to the first entry behind a place.
    pub(crate) async fn seek(&mut self, place: Place<'_>) -> Result<()> {
        match self {
            Cursor::Table(cursor) => cursor.seek(place),
            Cursor::Segment(cursor) => seek_segment(cursor, place).await?,
            Cursor::Parts(cursor) => cursor.seek(place).await?,
        }
        Ok(())
    }

    /// Goes to the last entry before a place.
    pub(crate) async fn seek_back(&mut self, place: Place<'_>) -> Result<()> {
        match self {
            Cursor::Table(cursor) => cursor.seek_back(place),
            Cursor::Segment(cursor) => seek_segment_back(cursor, place).await?,
            Cursor::Parts(cursor) => cursor.seek_back(place).await?,
        }
        Ok(())
    }

    /// Goes one on, if that needs no wait; answers whether it did.
    #[inline]
    pub(crate) fn step(&mut self, back: bool) -> bool {
        match self {
            Cursor::Table(cursor) => {
                if back {
                    cursor.prev()
                } else {
                    cursor.next()
                }
                true
            }
            Cursor::Segment(cursor) => {
                if back {
                    cursor.step_back()
                } else {
                    cursor.step()
                }
            }
            Cursor::Parts(cursor) => cursor.step(back),
        }
    }

    /// Goes one on, whatever that needs.
    pub(crate) async fn advance(&mut self, back: bool) -> Result<()> {
        match self {
            Cursor::Table(_) => drop(self.step(back)),
            Cursor::Segment(cursor) => drop(if back { cursor.prev().await? } else { cursor.next().await? }),
            Cursor::Parts(cursor) => cursor.advance(back).await?,
        }
        Ok(())
    }
}

/// As [`seek_segment`] and [`seek_segment_back`], if that needs no wait; answers whether it did.
fn seek_segment_now(cursor: &mut SegmentCursor, place: Place<'_>, back: bool) -> bool {
    if matches!(place, Place::Start | Place::End) {
        return false;
    }
    let (directory, key, newest) = target(place);
    cursor.seek_now(directory, key, newest, back)
}

async fn seek_segment(cursor: &mut SegmentCursor, place: Place<'_>) -> Result<()> {
    match place {
        Place::Start => cursor.seek_first().await?,
        Place::End => {
            cursor.seek_last().await?;
            cursor.next().await?
        }
        _ => {
            let (directory, key, newest) = target(place);
            cursor.seek(directory, key, newest).await?
        }
    };
    Ok(())
}

async fn seek_segment_back(cursor: &mut SegmentCursor, place: Place<'_>) -> Result<()> {
    match place {
        Place::End => cursor.seek_last().await?,
        Place::Start => {
            cursor.seek_first().await?;
            cursor.prev().await?
        }
        _ => {
            let (directory, key, newest) = target(place);
            cursor.seek_before(directory, key, newest).await?
        }
    };
    Ok(())
}

/// A place as directory, key and version.
fn target(place: Place<'_>) -> (DirectoryId, &[u8], Commit) {
    match place {
        Place::Start => (DirectoryId(0), &[], NEWEST),
        Place::DirectoryStart(directory) => (directory, &[], NEWEST),
        Place::Before(directory, key) => (directory, key, NEWEST),
        Place::AsOf(directory, key, commit) => (directory, key, commit),
        Place::Behind(directory, key) => (directory, key, OLDEST),
        Place::DirectoryEnd(directory) => (DirectoryId(directory.0.saturating_add(1)), &[], NEWEST),
        Place::End => (DirectoryId(u64::MAX), &[], OLDEST),
    }
}

/// Walks the base: its parts, one after another, each within its bounds.
pub(crate) struct PartsCursor {
    view: Rc<View>,
    cache: Rc<BlockCache>,
    /// The part that the cursor is in.
    at: usize,
    /// The part's file has entries beyond the bound ahead. Only a fold under way leaves such parts.
    bounded: bool,
    cursor: Option<SegmentCursor>,
}

impl PartsCursor {
    pub(crate) fn new(view: Rc<View>, cache: Rc<BlockCache>) -> Self {
        PartsCursor { view, cache, at: 0, bounded: true, cursor: None }
    }

    /// A cursor over the current part, on no entry yet.
    fn open(&mut self, back: bool) -> SegmentCursor {
        let part = &self.view.parts[self.at];
        let meta = part.segment.meta();
        self.bounded = !if back {
            meta.min().is_some_and(|(directory, key)| part.low.compare(directory, key).is_le())
        } else {
            meta.max().is_some_and(|(directory, key)| part.ends_above(directory, key))
        };
        SegmentCursor::scan(part.segment.clone(), self.cache.clone())
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.as_ref()?.entry()
    }

    /// Whether it is on an entry that lies within the part. It comes from within, so only one bound is looked at.
    #[inline]
    fn within(&self, back: bool) -> bool {
        if !self.bounded {
            return self.cursor.as_ref().is_some_and(SegmentCursor::is_on_entry);
        }
        let Some(entry) = self.entry() else { return false };
        let part = &self.view.parts[self.at];
        if back {
            part.low.compare(entry.directory, entry.key).is_le()
        } else {
            part.ends_above(entry.directory, entry.key)
        }
    }

    /// Goes to the part that a seek begins in. Answers whether the place lies within its bounds; none where there
    /// is no part on that side.
    fn find(&mut self, place: Place<'_>, back: bool) -> Option<bool> {
        self.cursor = None;
        let (directory, key, _) = target(place);
        let parts = &self.view.parts;
        let above = parts.partition_point(|part| part.low.compare(directory, key).is_le());
        if back {
            self.at = above.checked_sub(1)?;
            Some(parts[self.at].ends_above(directory, key))
        } else {
            self.at = above.saturating_sub(1);
            Some(parts.get(self.at)?.low.compare(directory, key).is_le())
        }
    }

    /// See [`Cursor::seek_now`].
    fn seek_now(&mut self, place: Place<'_>, back: bool) -> bool {
        let Some(inside) = self.find(place, back) else { return true };
        let view = self.view.clone();
        let part = &view.parts[self.at];
        let mut cursor = self.open(back);
        let place = if inside { place } else { edge_of(part, back) };
        let sought = seek_segment_now(&mut cursor, place, back);
        self.cursor = Some(cursor);
        sought && self.within(back)
    }

    async fn seek(&mut self, place: Place<'_>) -> Result<()> {
        let Some(inside) = self.find(place, false) else { return Ok(()) };
        self.enter(inside.then_some(place), false).await?;
        self.go_on(false).await
    }

    async fn seek_back(&mut self, place: Place<'_>) -> Result<()> {
        let Some(inside) = self.find(place, true) else { return Ok(()) };
        self.enter(inside.then_some(place), true).await?;
        self.go_on(true).await
    }

    /// Opens the current part at a place, or at the end that one comes to first.
    async fn enter(&mut self, place: Option<Place<'_>>, back: bool) -> Result<()> {
        let view = self.view.clone();
        let part = &view.parts[self.at];
        let mut cursor = self.open(back);
        let place = place.unwrap_or_else(|| edge_of(part, back));
        if back {
            seek_segment_back(&mut cursor, place).await?;
        } else {
            seek_segment(&mut cursor, place).await?;
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Goes on to the next parts until it is on an entry within one.
    async fn go_on(&mut self, back: bool) -> Result<()> {
        while !self.within(back) {
            let next = if back { self.at.checked_sub(1) } else { Some(self.at + 1) };
            let Some(next) = next.filter(|&next| next < self.view.parts.len()) else {
                self.cursor = None;
                return Ok(());
            };
            self.at = next;
            self.enter(None, back).await?;
        }
        Ok(())
    }

    /// See [`Cursor::step`]. Where it leaves the part, [`advance`](PartsCursor::advance) finds the next one.
    #[inline]
    fn step(&mut self, back: bool) -> bool {
        let Some(cursor) = &mut self.cursor else { return true };
        (if back { cursor.step_back() } else { cursor.step() }) && self.within(back)
    }

    async fn advance(&mut self, back: bool) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        if back {
            cursor.prev().await?;
        } else {
            cursor.next().await?;
        }
        self.go_on(back).await
    }
}

/// The end of a part that one comes to first.
fn edge_of(part: &Part, back: bool) -> Place<'_> {
    if back {
        part.high.as_ref().map_or(Place::End, |high| Place::Before(high.directory, &high.key))
    } else {
        Place::Before(part.low.directory, &part.low.key)
    }
}
