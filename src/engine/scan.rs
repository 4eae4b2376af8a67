//! Scans from any thread: pages of a snapshot, read as they are needed, from both ends.

use super::EngineInner;
use super::snapshot::Held;
use crate::error::{Error, Result};
use crate::path::Name;
use crate::read::{Pages, Taken};
use crate::shard::request::{At, Request};
use bytes::Bytes;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

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
/// It can be read from both ends, holds one page of entries at a time, and may be dropped at any point.
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
    engine: Arc<EngineInner>,
    name: Name,
    /// The snapshot read; `None` until the first page has come, or where that is all.
    held: Option<Arc<Held>>,
    pages: Pages,
    range: RangeOf,
}

impl Scan {
    pub(crate) fn new(engine: Arc<EngineInner>, name: Name, held: Option<Arc<Held>>, range: RangeOf) -> Self {
        Scan { engine, name, held, pages: Pages::new(range.clone()), range }
    }

    /// At most this many entries.
    pub fn limit(mut self, entries: usize) -> Self {
        self.pages.limit(entries);
        self
    }

    /// From the high end to the low one.
    pub fn reverse(mut self) -> Self {
        self.pages.reverse();
        self
    }

    /// The next entry, as key and value.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a reversed range, [`Error::Damaged`], [`Error::Io`], [`Error::TooMany`]
    /// snapshots, [`Error::Closed`].
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.step(false).await
    }

    /// The next entry from the other end.
    pub async fn next_back(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.step(true).await
    }

    /// All that is left.
    pub async fn collect(mut self) -> Result<Vec<(Bytes, Bytes)>> {
        let mut all = Vec::new();
        while let Some(entry) = self.next().await? {
            all.push(entry);
        }
        Ok(all)
    }

    /// The same scan as a plain iterator, for a thread that may block.
    pub fn blocking(self) -> BlockingScan {
        BlockingScan { scan: self, failed: false }
    }

    async fn step(&mut self, other: bool) -> Result<Option<(Bytes, Bytes)>> {
        self.range.check()?;
        loop {
            match self.pages.take(other) {
                Taken::Entry(entry) => return Ok(Some(entry)),
                Taken::End => return Ok(None),
                Taken::Read => {}
            }
            let at = self.held.as_ref().map_or(At::Newest, |held| held.at());
            let (name, page) = (self.name.clone(), self.pages.next_page(other));
            let answer = self.engine.ask(name.shard(), |reply| Request::Page { name, page, at, reply });
            let mut page = answer.await?;
            if let Some(opened) = page.opened.take() {
                self.held = Some(Arc::new(Held::new(self.engine.clone(), self.name.shard(), opened)));
            }
            self.pages.fill(other, page);
        }
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan({:?}, {:?})", self.name, self.range)
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
        let got = pollster::block_on(self.scan.step(other));
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
