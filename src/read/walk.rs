//! One direction of a scan: a merge over all that may hold its entries, walked page by page.
//!
//! How it works:
//!
//! 1. [`Walk::start`] makes cursors over the sources that may hold entries of the directory within the range, and
//!    seeks to the end of the range that it begins at.
//! 2. [`Walk::page`] walks on: of each key's versions the newest up to the frame's commit is visible; deletes and
//!    other versions are passed over. It stops where the page is full, at the range's other end (which may have come
//!    closer since the last page: a scan is read from both ends), and at the directory's.
//! 3. Within that, the walking itself never waits. It leaves off where a block has to be read, and where the
//!    [`Allowance`] is used up, and goes on after that.
//! 4. Whoever only looks at entries needs no page: [`Walk::step_now`] goes from one visible entry to the next, and they are
//!    looked at where they lie; [`Walk::show_now`] shows one after another.
//!
//! A walk is kept between the pages of its scan, so that they cost one seek together. It sees one state whatever is
//! committed or installed meanwhile: its cursors hold what they walk.
//!
//! A page whose future is dropped half way leaves its walk between two pages: such a walk must not be used again.
//! Whoever reads pages takes the walk away from where it is kept, and puts it back with the page.

use super::allowance::{Allowance, Grant};
use super::cursor::{Cursor, PartsCursor};
use super::merge::Merge;
use super::pages::{Page, PageRequest, Slot};
use crate::cache::BlockCache;
use crate::codec::{KeyBuffer, same_key};
use crate::engine::scan::RangeOf;
use crate::entry::DirectoryId;
use crate::error::Result;
use crate::levels::Commit;
use crate::memtable::Place;
use crate::segment::{SegmentCursor, VALUE_SHARED_BYTES_MIN};
use crate::table::TableCursor;
use crate::view::{Frame, Source};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

/// A page of a scan ends once it has this many bytes, whatever its entries.
const PAGE_BYTES_MAX: usize = 256 * 1024;
/// The most bytes that are set aside for a page before its entries are known.
const PAGE_BYTES_AHEAD_MAX: usize = 64 * 1024;

/// See the module's text.
pub(crate) struct Walk {
    merge: Merge,
    directory: DirectoryId,
    commit: Commit,
    back: bool,
    /// The key that was handed out last, or passed over for good after that; none before the first. While a page is being
    /// filled, the last key may be in there instead.
    key: Option<KeyBuffer>,
    /// It stands on the entry that was handed out last, which has that key.
    stands: bool,
    allowance: Rc<Allowance>,
}

/// Why the walking leaves off.
enum Left {
    /// The page is full.
    Full,
    /// There is no more within the range.
    End,
    /// The next entry has to be read.
    Disk,
    /// The grant is used up.
    Allowance,
}

impl Walk {
    /// Begins a walk over a range, at its high end (`back`) or its low one.
    pub(crate) async fn start(
        frame: &Frame,
        cache: &Rc<BlockCache>,
        allowance: &Rc<Allowance>,
        directory: DirectoryId,
        range: &RangeOf,
        back: bool,
    ) -> Result<Walk> {
        let mut merge = merge_of(frame, cache, directory, range).await?;
        if back {
            merge
                .seek_back(match &range.high {
                    Bound::Included(key) => Place::Behind(directory, key),
                    Bound::Excluded(key) => Place::Before(directory, key),
                    Bound::Unbounded => Place::DirectoryEnd(directory),
                })
                .await?;
        } else {
            merge.seek(low_end(directory, range)).await?;
        }
        Ok(Walk::new(merge, frame, allowance, directory, back))
    }

    /// Where the merge stands.
    fn new(
        merge: Merge,
        frame: &Frame,
        allowance: &Rc<Allowance>,
        directory: DirectoryId,
        back: bool,
    ) -> Walk {
        let allowance = allowance.clone();
        Walk { merge, directory, commit: frame.commit, back, key: None, stands: false, allowance }
    }

    /// Begins a walk over a range, at its low end, if that takes no wait.
    pub(crate) fn start_now(
        frame: &Frame,
        cache: &Rc<BlockCache>,
        allowance: &Rc<Allowance>,
        directory: DirectoryId,
        range: &RangeOf,
    ) -> Option<Walk> {
        let mut cursors = Cursors::new(frame, cache);
        for source in sources_of(frame, directory, range) {
            if cursors.takes_now(source, directory)? {
                cursors.push(source);
            }
        }
        let mut merge = cursors.finish();
        let sought = merge.seek_now(low_end(directory, range));
        sought.then(|| Walk::new(merge, frame, allowance, directory, false))
    }

    /// Whether the walk stands where a page begins.
    pub(crate) fn stands_at(&self, request: &PageRequest) -> bool {
        let begin = if request.back { &request.range.high } else { &request.range.low };
        match (begin, &self.key) {
            (Bound::Excluded(begin), Some(key)) => request.back == self.back && begin == key.get(),
            _ => false,
        }
    }

    /// The entry that it stands on.
    #[inline]
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        let entry = self.merge.entry().filter(|_| self.stands)?;
        Some((entry.key, entry.value?))
    }

    /// The key that was handed out last.
    #[inline]
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.key.as_ref().map(KeyBuffer::get)
    }

    /// Goes forward to the next visible entry, up to the range's high end, and stands on it; answers whether there is one.
    /// Nothing where that takes a wait: then [`step`](Walk::step) goes on.
    #[inline]
    pub(crate) fn step_now(&mut self, high: &Bound<Bytes>) -> Option<bool> {
        match self.seek_visible::<false>(high, |allowance| allowance.spend(), |_, _| true) {
            Left::Full => Some(true),
            Left::End => Some(false),
            Left::Disk | Left::Allowance => None,
        }
    }

    /// Goes forward over visible entries, up to the range's high end, and shows each to `look` until that has seen enough: it
    /// stands on that one then. `Some(true)` where it has, `Some(false)` where there are no more; nothing where the next one
    /// takes a wait: then [`step`](Walk::step) goes on.
    #[inline]
    pub(crate) fn show_now(
        &mut self,
        high: &Bound<Bytes>,
        look: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Option<bool> {
        let mut grant = self.allowance.take();
        match self.seek_visible::<true>(high, |_| grant.spend(), look) {
            Left::Full => Some(true),
            Left::End => Some(false),
            Left::Disk | Left::Allowance => None,
        }
    }

    /// As [`step_now`](Walk::step_now), whatever that takes.
    pub(crate) async fn step(&mut self, high: &Bound<Bytes>) -> Result<bool> {
        let mut grant = self.allowance.take();
        loop {
            match self.seek_visible::<false>(high, |_| grant.spend(), |_, _| true) {
                Left::Full => return Ok(true),
                Left::End => return Ok(false),
                Left::Allowance => grant.renew().await,
                Left::Disk => {
                    grant.give_back();
                    self.stands = false;
                    self.merge.advance().await?;
                }
            }
        }
    }

    /// Goes over visible entries until `enough` says so of one: `Left::Full`, and it stands on that. The first version of a key that
    /// is not too new is the visible one. `Left::Disk` where it would go on from the entry that the merge is at. With `RUNS` many entries
    /// are expected to be gone over: those that one block has are, at once.
    #[inline]
    fn seek_visible<const RUNS: bool>(
        &mut self,
        high: &Bound<Bytes>,
        mut spend: impl FnMut(&Allowance) -> bool,
        mut enough: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Left {
        if self.stands && !self.merge.step() {
            return Left::Disk;
        }
        self.stands = false;
        loop {
            if RUNS && let ControlFlow::Break(left) = self.run(high, &mut spend, &mut enough) {
                self.stands = matches!(left, Left::Full);
                return left;
            }
            let Some(entry) = self.merge.entry() else { return Left::End };
            if !spend(&self.allowance) {
                return Left::Allowance;
            }
            if entry.directory != self.directory {
                return Left::End;
            }
            if !self.key.as_ref().is_some_and(|key| same_key(key.get(), entry.key)) {
                if !is_below(entry.key, high) {
                    return Left::End;
                }
                if entry.commit <= self.commit {
                    self.key.get_or_insert_default().set(0, entry.key);
                    if let Some(value) = entry.value
                        && enough(entry.key, value)
                    {
                        self.stands = true;
                        return Left::Full;
                    }
                }
            }
            if !self.merge.step() {
                return Left::Disk;
            }
        }
    }

    /// Goes over a run of entries; see [`Merge::run`].
    #[inline]
    fn run(
        &mut self,
        high: &Bound<Bytes>,
        spend: &mut impl FnMut(&Allowance) -> bool,
        enough: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> ControlFlow<Left> {
        let high = match high {
            Bound::Included(high) | Bound::Excluded(high) => Some(&high[..]),
            Bound::Unbounded => None,
        };
        let allowance = &*self.allowance;
        let spend = || match spend(allowance) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(Left::Allowance),
        };
        let look = |key: &[u8], value: &[u8]| match enough(key, value) {
            true => ControlFlow::Break(Left::Full),
            false => ControlFlow::Continue(()),
        };
        self.merge.run((self.directory, high), self.commit, &mut self.key, spend, look)
    }

    /// The next page. The request's range is what the scan has not read yet: the walk stands at one end of it.
    pub(crate) async fn page(&mut self, request: &PageRequest) -> Result<Page> {
        debug_assert!(self.key.is_none() || self.stands_at(request));
        // An entry that it stands on was handed out, and is passed over for its key.
        self.stands = false;
        let mut filling = Filling::new(request.entries);
        let mut grant = self.allowance.take();
        loop {
            let left = if self.back {
                self.fill_back(&request.range.low, &mut filling, &mut grant)
            } else {
                self.fill(&request.range.high, &mut filling, &mut grant)
            };
            match left {
                Left::Full => {
                    self.set_key(filling.last_key());
                    return Ok(filling.finish(true));
                }
                Left::End => return Ok(filling.finish(false)),
                Left::Allowance => grant.renew().await,
                Left::Disk => {
                    grant.give_back();
                    self.merge.advance().await?;
                }
            }
        }
    }

    /// Forward, the first version of a key that is not too new is the visible one.
    fn fill(&mut self, high: &Bound<Bytes>, filling: &mut Filling, grant: &mut Grant) -> Left {
        while let Some(entry) = self.merge.entry() {
            if !grant.spend() {
                return Left::Allowance;
            }
            if entry.directory != self.directory {
                return Left::End;
            }
            let last = if filling.has_last { Some(filling.last_key()) } else { self.key() };
            if !last.is_some_and(|last| same_key(last, entry.key)) {
                if !is_below(entry.key, high) {
                    return Left::End;
                }
                if entry.commit <= self.commit {
                    filling.has_last = entry.value.is_some();
                    if let Some(value) = entry.value {
                        filling.begin(entry.key);
                        filling.set(value, || self.merge.value_shared());
                        filling.end();
                        if filling.is_full() {
                            // The next page passes this entry over: its key is known.
                            return Left::Full;
                        }
                    } else {
                        self.key.get_or_insert_default().set(0, entry.key);
                    }
                }
            }
            if !self.merge.step() {
                return Left::Disk;
            }
        }
        Left::End
    }

    /// Backward, versions come oldest first: the last one of a key that is not too new is the visible one.
    fn fill_back(&mut self, low: &Bound<Bytes>, filling: &mut Filling, grant: &mut Grant) -> Left {
        while let Some(entry) = self.merge.entry() {
            if !grant.spend() {
                return Left::Allowance;
            }
            if entry.directory != self.directory {
                break;
            }
            let same = filling.begun_key() == Some(entry.key);
            if !same {
                filling.end();
                if filling.is_full() {
                    return Left::Full;
                }
                let inside = match low {
                    Bound::Included(low) => entry.key >= &low[..],
                    Bound::Excluded(low) => entry.key > &low[..],
                    Bound::Unbounded => true,
                };
                if !inside {
                    return Left::End;
                }
            }
            if entry.commit <= self.commit {
                if !same {
                    filling.begin(entry.key);
                }
                match entry.value {
                    Some(value) => filling.set(value, || self.merge.value_shared()),
                    None => filling.unset(),
                }
            }
            if !self.merge.step() {
                return Left::Disk;
            }
        }
        filling.end();
        Left::End
    }

    fn set_key(&mut self, last: &[u8]) {
        self.key.get_or_insert_default().set(0, last);
    }

    /// The memory that it holds, in bytes; an estimate.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Walk>() + self.merge.memory() + self.key.as_ref().map_or(0, KeyBuffer::memory)
    }
}

#[inline]
fn is_below(key: &[u8], high: &Bound<Bytes>) -> bool {
    match high {
        Bound::Included(high) => key <= &high[..],
        Bound::Excluded(high) => key < &high[..],
        Bound::Unbounded => true,
    }
}

/// Where a walk over a range from its low end begins.
fn low_end(directory: DirectoryId, range: &RangeOf) -> Place<'_> {
    match &range.low {
        Bound::Included(key) => Place::Before(directory, key),
        Bound::Excluded(key) => Place::Behind(directory, key),
        Bound::Unbounded => Place::DirectoryStart(directory),
    }
}

/// The tables and segments that may hold entries of a directory within a range, as far as that is known without a look at
/// filters.
fn sources_of<'a>(
    frame: &'a Frame,
    directory: DirectoryId,
    range: &'a RangeOf,
) -> impl Iterator<Item = &'a Source> {
    fn key(bound: &Bound<Bytes>) -> Option<&[u8]> {
        match bound {
            Bound::Included(key) | Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        }
    }
    let (low, high) = (key(&range.low), key(&range.high));
    let visible = frame.view.sources.iter().filter(|source| source.span().after < frame.commit);
    visible.filter(move |source| match source {
        Source::Table(_) => true,
        Source::Segment(segment) => segment.overlaps(directory, low, high),
    })
}

/// Gathers cursors over all that may hold entries of a directory.
struct Cursors<'a> {
    frame: &'a Frame,
    cache: &'a Rc<BlockCache>,
    merge: Merge,
}

impl<'a> Cursors<'a> {
    /// Over the live table.
    fn new(frame: &'a Frame, cache: &'a Rc<BlockCache>) -> Self {
        let mut merge = Merge::new(2 + frame.view.sources.len());
        let active = &frame.active;
        if active.span().after < frame.commit && !active.is_empty() {
            merge.add(Cursor::Table(TableCursor::new(active.clone())));
        }
        Cursors { frame, cache, merge }
    }

    /// Whether a source may have the directory, if that needs no wait.
    fn takes_now(&self, source: &Source, directory: DirectoryId) -> Option<bool> {
        match source {
            Source::Table(_) => Some(true),
            Source::Segment(segment) => segment.may_have_directory_now(self.cache, directory),
        }
    }

    fn push(&mut self, source: &Source) {
        self.merge.add(match source {
            Source::Table(table) => Cursor::Table(TableCursor::new(table.clone())),
            Source::Segment(segment) => {
                Cursor::Segment(SegmentCursor::scan(segment.clone(), self.cache.clone()))
            }
        });
    }

    /// All, with the base.
    fn finish(mut self) -> Merge {
        if !self.frame.view.parts.is_empty() {
            self.merge.add(Cursor::Parts(PartsCursor::new(self.frame.view.clone(), self.cache.clone())));
        }
        self.merge
    }
}

/// A merge over all sources that may hold entries of a directory within a range.
async fn merge_of(
    frame: &Frame,
    cache: &Rc<BlockCache>,
    directory: DirectoryId,
    range: &RangeOf,
) -> Result<Merge> {
    let mut cursors = Cursors::new(frame, cache);
    for source in sources_of(frame, directory, range) {
        let takes = match source {
            Source::Table(_) => true,
            Source::Segment(segment) => segment.may_have_directory(cache, directory).await?,
        };
        if takes {
            cursors.push(source);
        }
    }
    Ok(cursors.finish())
}

/// A page being filled. Keys and small values lie in one allocation, and are handed out as slices of it; large values
/// stay where they are.
struct Filling {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    shared: Vec<Bytes>,
    shared_bytes: usize,
    entries: usize,
    /// The entry at hand, and whether it has a value.
    entry: Option<(Slot, bool)>,
    /// The last key that its walk has decided about is the last of the page.
    has_last: bool,
}

impl Filling {
    fn new(entries: usize) -> Self {
        Filling {
            bytes: Vec::new(),
            slots: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            entries,
            entry: None,
            has_last: false,
        }
    }

    /// Begins an entry.
    #[inline]
    fn begin(&mut self, key: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.entry = Some((Slot::new(start, middle), false));
    }

    /// The key of the entry that was begun.
    #[inline]
    fn begun_key(&self) -> Option<&[u8]> {
        self.entry.as_ref().map(|(slot, _)| &self.bytes[slot.key()])
    }

    /// The key of the last entry in the page.
    #[inline]
    fn last_key(&self) -> &[u8] {
        self.slots.last().map_or(&[], |slot| &self.bytes[slot.key()])
    }

    /// Gives the entry that was begun a value, in place of the one it had.
    #[inline]
    fn set(&mut self, value: &[u8], shared: impl FnOnce() -> Option<Bytes>) {
        self.unset();
        let Some((slot, has_value)) = &mut self.entry else { return };
        *has_value = true;
        if value.len() >= VALUE_SHARED_BYTES_MIN
            && let Some(shared) = shared()
        {
            self.shared_bytes += shared.len();
            slot.share(self.shared.len());
            self.shared.push(shared);
        } else {
            self.bytes.extend_from_slice(value);
            slot.end_at(self.bytes.len());
        }
    }

    /// Takes the value of the entry that was begun away.
    #[inline]
    fn unset(&mut self) {
        let Some((slot, has_value)) = &mut self.entry else { return };
        if std::mem::take(has_value) {
            if slot.is_shared() {
                self.shared_bytes -= self.shared.pop().map_or(0, |value| value.len());
            }
            self.bytes.truncate(slot.key().end);
            slot.end_at(slot.key().end);
        }
    }

    /// Ends the entry that was begun, if one was: it is in the page if it has a value.
    #[inline]
    fn end(&mut self) {
        match self.entry.take() {
            Some((slot, true)) => {
                if self.slots.is_empty() {
                    self.set_aside();
                }
                self.slots.push(slot);
            }
            Some((slot, false)) => self.bytes.truncate(slot.key().start),
            None => {}
        }
    }

    /// Sets memory aside for the page, as far as its first entry tells.
    fn set_aside(&mut self) {
        let more = self.entries.saturating_sub(1);
        let bytes = self.bytes.len() * more;
        self.bytes.reserve(bytes.min(PAGE_BYTES_AHEAD_MAX));
        self.slots.reserve_exact(self.entries.min(PAGE_BYTES_AHEAD_MAX / size_of::<Slot>()));
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.slots.len() >= self.entries || self.bytes.len() + self.shared_bytes >= PAGE_BYTES_MAX
    }

    fn finish(mut self, more: bool) -> Page {
        // A reader may keep an entry for long, and with it the page.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        Page::new(Bytes::from(self.bytes), self.slots, self.shared, more)
    }
}

const _: () = assert!(PAGE_BYTES_MAX < crate::limits::VALUE_BYTES_MAX * 2);
