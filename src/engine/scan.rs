//! Scans from any thread: pages of a snapshot, read as they are needed, from both ends.

use super::EngineInner;
use super::snapshot::Held;
use crate::answer::{Wait, wait_for};
use crate::error::{Error, Result};
use crate::path::Name;
use crate::read::pages::{Page, PageRequest, Pages};
use crate::read::scan::{PageReader, Scanner};
use crate::shard::request::{At, Request};
use bytes::Bytes;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// The entries of a page that crosses threads, at most: enough that the way there and back does not count.
const PAGE_ENTRIES_MAX: usize = 1024;

/// A range of keys, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeOf {
    pub(crate) low: Bound<Bytes>,
    pub(crate) high: Bound<Bytes>,
}

impl RangeOf {
    /// From a range over anything that is bytes.
    pub(crate) fn bounds<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        RangeOf { low: own(range.start_bound()), high: own(range.end_bound()) }
    }

    /// All keys that begin with a prefix.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        // The least key above all that begin with the prefix: drop trailing 0xff, add one to the last byte.
        let mut above = prefix.to_vec();
        while above.pop_if(|last| *last == u8::MAX).is_some() {}
        let high = match above.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(Bytes::from(above))
            }
            None => Bound::Unbounded,
        };
        RangeOf { low: Bound::Included(Bytes::copy_from_slice(prefix)), high }
    }

    /// Refuses a range that ends before it begins. An empty one (`a..a`) is fine.
    pub(crate) fn check(&self) -> Result<()> {
        let (Bound::Included(low) | Bound::Excluded(low)) = &self.low else { return Ok(()) };
        let (Bound::Included(high) | Bound::Excluded(high)) = &self.high else { return Ok(()) };
        if low > high {
            return Err(Error::invalid("range", "reversed: its start lies above its end"));
        }
        Ok(())
    }

    /// Whether no key can lie within.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
                low >= high
            }
            _ => false,
        }
    }
}

/// The entries of a directory within a range, in key order, from one snapshot: whatever is committed
/// meanwhile, the scan does not see it.
///
/// It can be read from both ends, holds one page of entries for each, and may be dropped at any point.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// for year in ["1815", "1906", "1912"] {
///     users.put(year, "born").wait()?;
/// }
/// let twentieth: Vec<_> = users.range("1900".."2000").blocking().collect::<Result<_, _>>()?;
/// assert_eq!(twentieth.len(), 2);
/// let newest = users.iter().reverse().limit(1).blocking().next().transpose()?;
/// assert_eq!(newest.map(|(key, _)| key).as_deref(), Some(&b"1912"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a scan reads nothing until its next entry is asked for"]
pub struct Scan {
    scanner: Scanner<Remote>,
}

/// Has the pages of a scan read by its shard.
struct Remote {
    engine: Arc<EngineInner>,
    name: Name,
    /// The snapshot that the scan is of; none for the newest state.
    held: Option<Arc<Held>>,
    /// The scan's own, from its first page on, where that is not all: with it the shard keeps the way to the next
    /// page.
    own: Option<Held>,
    range: RangeOf,
}

impl PageReader for Remote {
    async fn read(&mut self, request: PageRequest) -> Result<Page> {
        self.range.check()?;
        let (at, own) = match (&self.own, &self.held) {
            (Some(own), _) => (own.at(), true),
            (None, Some(held)) => (held.at(), false),
            (None, None) => (At::Newest, false),
        };
        let name = self.name.clone();
        let answer =
            self.engine.ask(name.shard(), |reply| Request::Page { name, page: request, at, own, reply });
        let mut page = answer.await?;
        if let Some(opened) = page.opened.take() {
            self.own = Some(Held::new(self.engine.clone(), self.name.shard(), opened));
        }
        Ok(page)
    }
}

impl Scan {
    pub(crate) fn new(engine: Arc<EngineInner>, name: Name, held: Option<Arc<Held>>, range: RangeOf) -> Self {
        let pages = Pages::new(range.clone(), PAGE_ENTRIES_MAX);
        Scan { scanner: Scanner::new(Remote { engine, name, held, own: None, range }, pages) }
    }

    /// At most this many entries from now on, counted as they are handed out, from whichever end.
    pub fn limit(self, entries: usize) -> Self {
        Scan { scanner: self.scanner.limit(entries) }
    }

    /// From the high end to the low one.
    pub fn reverse(self) -> Self {
        Scan { scanner: self.scanner.reverse() }
    }

    /// The next entry, as key and value.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a reversed range, [`Error::Damaged`], [`Error::Io`], [`Error::TooMany`]
    /// snapshots, [`Error::Closed`].
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.scanner.step(false).await
    }

    /// The next entry from the other end. Both ends meet: no entry comes from both.
    pub async fn next_back(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.scanner.step(true).await
    }

    /// As [`next`](Scan::next), borrowed until the scan goes on: for whoever looks at entries and keeps none, this is the
    /// faster way.
    pub async fn next_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.scanner.step_ref(false).await
    }

    /// As [`next_back`](Scan::next_back), borrowed until the scan goes on.
    pub async fn next_back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.scanner.step_ref(true).await
    }

    /// All that is left.
    pub async fn collect(self) -> Result<Vec<(Bytes, Bytes)>> {
        self.scanner.collect().await
    }

    /// The same scan as a plain iterator, for a thread that may block.
    pub fn blocking(self) -> BlockingScan {
        BlockingScan { scan: self, failed: false }
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan({:?}, {:?})", self.scanner.reader.name, self.scanner.reader.range)
    }
}

/// A [`Scan`] as an iterator that blocks its thread. After an error it ends.
#[derive(Debug)]
pub struct BlockingScan {
    scan: Scan,
    failed: bool,
}

impl BlockingScan {
    fn step(&mut self, other: bool) -> Option<Result<(Bytes, Bytes)>> {
        if self.failed {
            return None;
        }
        let linger = self.scan.scanner.reader.engine.linger;
        let got = wait_for(self.scan.scanner.step(other), Wait::Looks(linger));
        self.failed = got.is_err();
        got.transpose()
    }
}

impl Iterator for BlockingScan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for BlockingScan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_of_all_that_begin_with_it() {
        let range = RangeOf::prefix(b"ab");
        assert_eq!(range.high, Bound::Excluded(Bytes::from_static(b"ac")));
        assert_eq!(RangeOf::prefix(b"a\xff").high, Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(RangeOf::prefix(b"\xff\xff").high, Bound::Unbounded);
        assert_eq!(RangeOf::prefix(b"").high, Bound::Unbounded);
    }

    #[test]
    fn reversed_ranges_are_refused_and_empty_ones_are_not() {
        let range = |low, high| RangeOf {
            low: Bound::Included(Bytes::from_static(low)),
            high: Bound::Excluded(Bytes::from_static(high)),
        };
        assert!(range(b"b", b"a").check().is_err());
        assert!(range(b"a", b"a").check().is_ok() && range(b"a", b"a").is_empty());
        assert!(range(b"a", b"b").check().is_ok() && !range(b"a", b"b").is_empty());
    }
}
