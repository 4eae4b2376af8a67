//! A scan as its reader sees it: a range of keys, read page by page from either end.
//!
//! Pure bookkeeping, without I/O: it says which page to read next and hands out what was read.

use crate::engine::scan::RangeOf;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Bound;

/// The entries of the first page; short scans need no more than this.
const FIRST_PAGE_ENTRIES: usize = 128;
/// The entries of each later page.
const PAGE_ENTRIES: usize = 1024;

/// A page to be read.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    pub(crate) range: RangeOf,
    /// From the high end.
    pub(crate) back: bool,
    /// At most this many entries.
    pub(crate) entries: usize,
}

/// A page that was read.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In the order asked for.
    pub(crate) entries: Vec<(Bytes, Bytes)>,
    /// There may be more behind them.
    pub(crate) more: bool,
    /// The snapshot it was read from, where it was opened for this and kept.
    pub(crate) opened: Option<crate::shard::request::Opened>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Pages {
    /// What is not read yet.
    rest: RangeOf,
    /// Read from the low end, and not handed out.
    front: VecDeque<(Bytes, Bytes)>,
    /// Read from the high end, and not handed out; the highest first.
    back: VecDeque<(Bytes, Bytes)>,
    limit: usize,
    reversed: bool,
    exhausted: bool,
    started: bool,
}

impl Pages {
    pub(crate) fn new(range: RangeOf) -> Self {
        Pages {
            exhausted: range.is_empty(),
            rest: range,
            front: VecDeque::new(),
            back: VecDeque::new(),
            limit: usize::MAX,
            reversed: false,
            started: false,
        }
    }

    /// At most this many entries from now on.
    pub(crate) fn limit(&mut self, entries: usize) {
        self.limit = self.limit.min(entries);
    }

    /// Exchanges the ends.
    pub(crate) fn reverse(&mut self) {
        self.reversed = !self.reversed;
    }

    /// The next entry from an end (`other`: the end that the scan does not begin at), if it was read.
    pub(crate) fn take(&mut self, other: bool) -> Taken {
        if self.limit == 0 {
            return Taken::End;
        }
        let (near, far) = match self.at_high_end(other) {
            true => (&mut self.back, &mut self.front),
            false => (&mut self.front, &mut self.back),
        };
        let entry = near.pop_front().or_else(|| if self.exhausted { far.pop_back() } else { None });
        match entry {
            Some(entry) => {
                self.limit -= 1;
                Taken::Entry(entry)
            }
            None if self.exhausted => Taken::End,
            None => Taken::Read,
        }
    }

    fn at_high_end(&self, other: bool) -> bool {
        self.reversed != other
    }

    /// The page to read so that [`take`](Pages::take) can go on.
    pub(crate) fn next_page(&self, other: bool) -> PageRequest {
        let most = if self.started { PAGE_ENTRIES } else { FIRST_PAGE_ENTRIES };
        PageRequest { range: self.rest.clone(), back: self.at_high_end(other), entries: self.limit.min(most) }
    }

    /// Takes in the page that was asked for.
    pub(crate) fn fill(&mut self, other: bool, page: Page) {
        self.started = true;
        self.exhausted = !page.more;
        let back = self.at_high_end(other);
        if let Some((last, _)) = page.entries.last() {
            let end = if back { &mut self.rest.high } else { &mut self.rest.low };
            *end = Bound::Excluded(last.clone());
        }
        let target = if back { &mut self.back } else { &mut self.front };
        target.extend(page.entries);
    }
}

/// What [`Pages::take`] has.
pub(crate) enum Taken {
    Entry((Bytes, Bytes)),
    /// A page has to be read first.
    Read,
    End,
}
