//! A scan, whoever reads its pages: from both ends, with a limit, entry by entry or all at once.
//!
//! [`Scan`](crate::Scan) has its pages read by a shard through its mailbox, [`LocalScan`](crate::LocalScan) on the
//! shard's thread; everything else they have in common is here.

use super::pages::{At, Page, PageRequest, Pages, Taken};
use crate::error::Result;
use bytes::Bytes;
use std::future::Future;

/// Reads the pages of a scan.
pub(crate) trait PageReader {
    /// Reads a page. Where the future is dropped, the same page may be asked for again.
    fn read(&mut self, request: PageRequest) -> impl Future<Output = Result<Page>>;
}

/// See the module's text.
pub(crate) struct Scanner<R> {
    pub(crate) reader: R,
    pub(crate) pages: Pages,
}

impl<R: PageReader> Scanner<R> {
    pub(crate) fn new(reader: R, pages: Pages) -> Self {
        Scanner { reader, pages }
    }

    /// See [`Pages::limit`].
    pub(crate) fn limit(mut self, entries: usize) -> Self {
        self.pages.limit(entries);
        self
    }

    /// See [`Pages::reverse`].
    pub(crate) fn reverse(mut self) -> Self {
        self.pages.reverse();
        self
    }

    /// The next entry from an end (`other`: the end that the scan does not begin at).
    #[inline]
    pub(crate) async fn step(&mut self, other: bool) -> Result<Option<(Bytes, Bytes)>> {
        Ok(self.advance(other).await?.map(|at| self.pages.entry(at)))
    }

    /// As [`step`](Scanner::step), without counting references to it.
    #[inline]
    pub(crate) async fn step_ref(&mut self, other: bool) -> Result<Option<(&[u8], &[u8])>> {
        Ok(self.advance(other).await?.map(|at| self.pages.entry_ref(at)))
    }

    #[inline]
    async fn advance(&mut self, other: bool) -> Result<Option<At>> {
        loop {
            match self.pages.take(other) {
                Taken::Entry(at) => return Ok(Some(at)),
                Taken::End => return Ok(None),
                Taken::Read => {}
            }
            let page = self.reader.read(self.pages.next_page(other)).await?;
            self.pages.fill(other, page);
        }
    }

    /// All that is left.
    pub(crate) async fn collect(mut self) -> Result<Vec<(Bytes, Bytes)>> {
        self.pages.want_all();
        let mut all = Vec::new();
        loop {
            self.pages.take_read(&mut all);
            // One by one only where there is nothing to take together: to read the next page.
            match self.step(false).await? {
                Some(entry) => all.push(entry),
                None => return Ok(all),
            }
        }
    }
}
