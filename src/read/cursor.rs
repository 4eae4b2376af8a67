//! Cursors over whatever holds entries, behind one face.

use crate::cache::BlockCache;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use crate::memtable::Place;
use crate::segment::SegmentCursor;
use crate::table::TableCursor;
use crate::view::{Part, View};
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
            Cursor::Parts(_) => false,
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
    cursor: Option<SegmentCursor>,
}

impl PartsCursor {
    pub(crate) fn new(view: Rc<View>, cache: Rc<BlockCache>) -> Self {
        PartsCursor { view, cache, at: 0, cursor: None }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.as_ref()?.entry()
    }

    fn part(&self) -> Option<&Part> {
        self.view.parts.get(self.at)
    }

    /// The current entry, if it lies within the part.
    fn within(&self) -> bool {
        self.entry().zip(self.part()).is_some_and(|(entry, part)| {
            part.low.borrowed() <= (entry.directory, entry.key) && part.ends_above(entry.directory, entry.key)
        })
    }

    async fn seek(&mut self, place: Place<'_>) -> Result<()> {
        let (directory, key, _) = target(place);
        let above = self.view.parts.partition_point(|part| part.low.borrowed() <= (directory, key));
        self.at = above.saturating_sub(1);
        let Some(part) = self.view.parts.get(self.at) else {
            self.cursor = None;
            return Ok(());
        };
        let below = part.low.borrowed() > (directory, key);
        self.enter(if below { None } else { Some(place) }).await?;
        self.forward().await
    }

    /// Opens the current part at a place, or at its begin.
    async fn enter(&mut self, place: Option<Place<'_>>) -> Result<()> {
        let Some(part) = self.view.parts.get(self.at) else { return Ok(()) };
        let mut cursor = SegmentCursor::scan(part.segment.clone(), self.cache.clone());
        let low = Place::Before(part.low.directory, &part.low.key);
        seek_segment(&mut cursor, place.unwrap_or(low)).await?;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Goes on to later parts until it is on an entry within one.
    async fn forward(&mut self) -> Result<()> {
        while !self.within() {
            self.at += 1;
            if self.at >= self.view.parts.len() {
                self.cursor = None;
                return Ok(());
            }
            self.enter(None).await?;
        }
        Ok(())
    }

    async fn seek_back(&mut self, place: Place<'_>) -> Result<()> {
        let (directory, key, _) = target(place);
        let above = self.view.parts.partition_point(|part| part.low.borrowed() <= (directory, key));
        let Some(at) = above.checked_sub(1) else {
            self.cursor = None;
            return Ok(());
        };
        self.at = at;
        let part = &self.view.parts[at];
        let behind = !part.ends_above(directory, key);
        self.enter_back(if behind { None } else { Some(place) }).await?;
        self.backward().await
    }

    /// Opens the current part at a place, or at its end.
    async fn enter_back(&mut self, place: Option<Place<'_>>) -> Result<()> {
        let Some(part) = self.view.parts.get(self.at) else { return Ok(()) };
        let mut cursor = SegmentCursor::scan(part.segment.clone(), self.cache.clone());
        let high = part.high.as_ref().map_or(Place::End, |high| Place::Before(high.directory, &high.key));
        seek_segment_back(&mut cursor, place.unwrap_or(high)).await?;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Goes back to earlier parts until it is on an entry within one.
    async fn backward(&mut self) -> Result<()> {
        while !self.within() {
            let Some(at) = self.at.checked_sub(1) else {
                self.cursor = None;
                return Ok(());
            };
            self.at = at;
            self.enter_back(None).await?;
        }
        Ok(())
    }

    async fn advance(&mut self, back: bool) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        if back {
            cursor.prev().await?;
            self.backward().await
        } else {
            cursor.next().await?;
            self.forward().await
        }
    }
}
