//! A scan as its reader sees it: a range of keys, read page by page from either end.
//!
//! Pure bookkeeping, without I/O: it says which page to read next and hands out what was read.

use crate::engine::scan::RangeOf;
use bytes::Bytes;
use std::ops::{Bound, Range};

/// The entries of a scan's first page, where nothing is known of how many are wanted.
const FIRST_PAGE_ENTRIES: usize = 32;
/// Each later page has so many times the entries of the one before.
const PAGE_GROWTH: usize = 4;

/// A page to be read.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    /// What was not read yet.
    pub(crate) range: RangeOf,
    /// From the high end.
    pub(crate) back: bool,
    /// At most this many entries.
    pub(crate) entries: usize,
}

/// Where an entry lies in its page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    start: u32,
    middle: u32,
    /// Where the value ends, in bytes; of a shared one, its number.
    end: u32,
    shared: bool,
}

impl Slot {
    /// An entry whose key lies there. A page's bytes are far fewer than 32 bits count.
    #[inline]
    pub(crate) fn new(start: usize, middle: usize) -> Self {
        Slot { start: start as u32, middle: middle as u32, end: middle as u32, shared: false }
    }

    /// Its value lies behind its key, up to there.
    #[inline]
    pub(crate) fn end_at(&mut self, end: usize) {
        (self.end, self.shared) = (end as u32, false);
    }

    /// Its value is that of the shared ones.
    #[inline]
    pub(crate) fn share(&mut self, number: usize) {
        (self.end, self.shared) = (number as u32, true);
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Where its key lies.
    #[inline]
    pub(crate) fn key(&self) -> Range<usize> {
        self.start as usize..self.middle as usize
    }
}

/// A page that was read.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Keys, and values that are not shared.
    bytes: Bytes,
    /// In the order asked for.
    slots: Vec<Slot>,
    /// Values that stay in their blocks.
    shared: Vec<Bytes>,
    /// The first of those not handed out yet.
    next: usize,
    /// There may be more behind them.
    pub(crate) more: bool,
    /// The snapshot that it was read from, where that was opened for its scan, and is kept.
    pub(crate) opened: Option<crate::shard::request::Opened>,
}

impl Page {
    pub(crate) fn new(bytes: Bytes, slots: Vec<Slot>, shared: Vec<Bytes>, more: bool) -> Self {
        Page { bytes, slots, shared, next: 0, more, opened: None }
    }

    /// How many entries were not handed out yet.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.next
    }

    /// Goes past the next entry, and says where it lies.
    #[inline]
    fn first(&mut self) -> Option<Slot> {
        let slot = *self.slots.get(self.next)?;
        self.next += 1;
        Some(slot)
    }

    /// Takes the last entry off, and says where it lies.
    fn last(&mut self) -> Option<Slot> {
        if self.len() == 0 { None } else { self.slots.pop() }
    }

    /// Hands out the next entry.
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<(Bytes, Bytes)> {
        self.first().map(|slot| self.entry(slot))
    }

    #[inline]
    fn entry_ref(&self, slot: Slot) -> (&[u8], &[u8]) {
        let value = if slot.shared {
            self.shared.get(slot.end as usize).map_or(&[][..], |value| value)
        } else {
            &self.bytes[slot.middle as usize..slot.end as usize]
        };
        (&self.bytes[slot.key()], value)
    }

    #[inline]
    fn entry(&self, slot: Slot) -> (Bytes, Bytes) {
        let value = if slot.shared {
            self.shared.get(slot.end as usize).cloned().unwrap_or_default()
        } else {
            self.bytes.slice(slot.middle as usize..slot.end as usize)
        };
        (self.bytes.slice(slot.key()), value)
    }

    /// The key of the last entry.
    fn last_key(&self) -> Option<Bytes> {
        self.slots.last().map(|slot| self.bytes.slice(slot.key()))
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Pages {
    /// What is not read yet.
    rest: RangeOf,
    /// Read from the low end, and not handed out.
    front: Page,
    /// Read from the high end, and not handed out; the highest first.
    back: Page,
    limit: usize,
    reversed: bool,
    exhausted: bool,
    /// The entries of the next page, where no limit says.
    next_entries: usize,
    page_entries_max: usize,
}

impl Pages {
    /// A range that is read in pages of at most so many entries.
    pub(crate) fn new(range: RangeOf, page_entries_max: usize) -> Self {
        Pages {
            // A reversed range is refused when its first page is asked for, not taken for an empty one.
            exhausted: range.is_empty() && range.check().is_ok(),
            rest: range,
            front: Page::default(),
            back: Page::default(),
            limit: usize::MAX,
            reversed: false,
            next_entries: FIRST_PAGE_ENTRIES.min(page_entries_max),
            page_entries_max,
        }
    }

    /// At most this many entries from now on, from both ends together.
    pub(crate) fn limit(&mut self, entries: usize) {
        self.limit = self.limit.min(entries);
        // Whoever names a limit mostly wants all up to it.
        self.next_entries = self.limit.min(self.page_entries_max);
    }

    /// Exchanges the ends.
    pub(crate) fn reverse(&mut self) {
        self.reversed = !self.reversed;
    }

    /// All that is left will be asked for.
    pub(crate) fn want_all(&mut self) {
        self.next_entries = self.page_entries_max;
    }

    /// Goes past the next entry from an end (`other`: the end that the scan does not begin at), if it was read.
    #[inline]
    pub(crate) fn take(&mut self, other: bool) -> Taken {
        if self.limit == 0 {
            return Taken::End;
        }
        let back = self.at_high_end(other);
        let (near, far) = match back {
            true => (&mut self.back, &mut self.front),
            false => (&mut self.front, &mut self.back),
        };
        let at = match near.first() {
            Some(slot) => Some(At { back, slot }),
            None if self.exhausted => far.last().map(|slot| At { back: !back, slot }),
            None => return Taken::Read,
        };
        at.map_or(Taken::End, |at| {
            self.limit -= 1;
            Taken::Entry(at)
        })
    }

    /// The entry that [`take`](Pages::take) went past last.
    #[inline]
    pub(crate) fn entry_ref(&self, at: At) -> (&[u8], &[u8]) {
        self.page(at).entry_ref(at.slot)
    }

    /// As [`entry_ref`](Pages::entry_ref), to be kept.
    #[inline]
    pub(crate) fn entry(&self, at: At) -> (Bytes, Bytes) {
        self.page(at).entry(at.slot)
    }

    fn page(&self, at: At) -> &Page {
        if at.back { &self.back } else { &self.front }
    }

    /// Hands out all entries that were read, as [`take`](Pages::take) would from the end that the scan begins at.
    pub(crate) fn take_read(&mut self, into: &mut Vec<(Bytes, Bytes)>) {
        let (near, far) = match self.at_high_end(false) {
            true => (&mut self.back, &mut self.front),
            false => (&mut self.front, &mut self.back),
        };
        let count = near.len().min(self.limit);
        into.reserve(count);
        into.extend((0..count).map_while(|_| near.take_first()));
        self.limit -= count;
        if self.exhausted {
            let count = far.len().min(self.limit);
            into.extend((0..count).map_while(|_| far.last().map(|slot| far.entry(slot))));
            self.limit -= count;
        }
    }

    fn at_high_end(&self, other: bool) -> bool {
        self.reversed != other
    }

    /// Whether the next entry from an end is the next one that a walk from the low end comes to.
    #[inline]
    pub(crate) fn next_is_walked_to(&self, other: bool) -> bool {
        self.limit > 0 && !self.exhausted && !self.at_high_end(other) && self.front.len() == 0
    }

    /// What is not read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &RangeOf {
        &self.rest
    }

    /// How many entries may be handed out.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.limit
    }

    /// A walk from the low end has gone on over so many entries, which are handed out, and whether it came to the end.
    #[inline]
    pub(crate) fn walked(&mut self, entries: usize, end: bool) {
        self.limit -= entries;
        self.exhausted = end;
    }

    /// What is not read yet begins behind a key.
    pub(crate) fn begin_behind(&mut self, key: &[u8]) {
        self.rest.low = Bound::Excluded(Bytes::copy_from_slice(key));
    }

    /// The page to read so that [`take`](Pages::take) can go on.
    pub(crate) fn next_page(&self, other: bool) -> PageRequest {
        let entries = self.limit.min(self.next_entries);
        PageRequest { range: self.rest.clone(), back: self.at_high_end(other), entries }
    }

    /// Takes in the page that was asked for.
    pub(crate) fn fill(&mut self, other: bool, page: Page) {
        self.next_entries = self.next_entries.saturating_mul(PAGE_GROWTH).min(self.page_entries_max);
        self.exhausted = !page.more;
        let back = self.at_high_end(other);
        // Once all is read, nothing is asked for any more.
        if let Some(last) = page.last_key().filter(|_| page.more) {
            let end = if back { &mut self.rest.high } else { &mut self.rest.low };
            *end = Bound::Excluded(last);
        }
        // The one before it is used up: that is why this was asked for.
        *(if back { &mut self.back } else { &mut self.front }) = page;
    }
}

/// Where an entry lies that was gone past; good until the next page is read.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// In the page from the high end.
    back: bool,
    slot: Slot,
}

/// What [`Pages::take`] has.
pub(crate) enum Taken {
    Entry(At),
    /// A page has to be read first.
    Read,
    End,
}
