//! Scans on the shard's own thread, which need no pages where entries are only looked at.
//!
//! How it works:
//!
//! 1. Entries that are to be kept come from pages, as everywhere ([`Scanner`]).
//! 2. Entries that are only looked at ([`LocalScan::next_ref`]), from the low end on, are handed out from where they lie: the
//!    [`Walk`] stands on the entry, and nothing is copied. [`LocalScan::for_each`] is shown one after another.
//! 3. A scan may go from one to the other at any time. The walk is the same; what is not read yet begins behind the key
//!    that it stands on, which is noted only where someone asks for it ([`LocalScan::settle`]).

use super::local::LocalSnapshot;
use crate::engine::scan::RangeOf;
use crate::error::Result;
use crate::path::Name;
use crate::read::pages::Pages;
use crate::read::scan::{PageReader, Scanner};
use crate::read::{Page, PageRequest, Walk};
use bytes::Bytes;
use std::ops::ControlFlow;

/// The entries of a page that stays on its thread, at most: few, so that they are still in the core's own cache when
/// they are handed out.
const PAGE_ENTRIES_MAX: usize = 128;

/// A scan for tasks on the shard's thread; see [`Scan`](crate::Scan).
///
/// It leaves the thread to others now and then, also where it finds everything in memory. Between its entries it
/// keeps its place in each file that it reads, with what is read ahead there: up to 384 KiB.
#[must_use = "a scan reads nothing until its next entry is asked for"]
pub struct LocalScan {
    scanner: Scanner<Reader>,
    /// The walk from the low end has gone on, and what is not read yet begins behind its key.
    ahead: bool,
}

/// Reads the pages of a scan.
struct Reader {
    snapshot: LocalSnapshot,
    name: Name,
    /// From the low end and from the high one.
    walks: [Option<Walk>; 2],
}

impl PageReader for Reader {
    async fn read(&mut self, request: PageRequest) -> Result<Page> {
        let (core, frame) = (self.snapshot.core(), self.snapshot.frame());
        let kept = &mut self.walks[usize::from(request.back)];
        let read = core.page(frame, &self.name, &request, kept.take()).await;
        let (page, walk) = read.map_err(|error| error.on_shard(core.config.shard))?;
        *kept = walk;
        Ok(page)
    }
}

impl Reader {
    /// Goes on to the next entry from the low end, whatever that needs; answers whether there is one. Where the future is
    /// dropped, or fails, the next walk begins at the range's low end.
    async fn walk_on(&mut self, range: &RangeOf) -> Result<bool> {
        let (core, frame) = (self.snapshot.core(), self.snapshot.frame());
        let mut walk = match self.walks[0].take() {
            Some(walk) => walk,
            None => match core.directory_of(frame, &self.name).await? {
                Some(directory) => core.begin_walk(frame, directory, range, false).await?,
                None => return Ok(false),
            },
        };
        let found = walk.step(&range.high).await?;
        self.walks[0] = found.then_some(walk);
        Ok(found)
    }
}

impl LocalScan {
    pub(super) fn new(snapshot: LocalSnapshot, name: Name, range: RangeOf) -> Self {
        let reader = Reader { snapshot, name, walks: [None, None] };
        LocalScan { scanner: Scanner::new(reader, Pages::new(range, PAGE_ENTRIES_MAX)), ahead: false }
    }

    /// At most this many entries from now on, counted as they are handed out, from whichever end.
    pub fn limit(self, entries: usize) -> Self {
        LocalScan { scanner: self.scanner.limit(entries), ..self }
    }

    /// From the high end to the low one.
    pub fn reverse(self) -> Self {
        LocalScan { scanner: self.scanner.reverse(), ..self }
    }

    /// The next entry, as key and value.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io).
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.settle();
        self.scanner.step(false).await
    }

    /// The next entry from the other end. Both ends meet: no entry comes from both.
    pub async fn next_back(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.settle();
        self.scanner.step(true).await
    }

    /// As [`next`](LocalScan::next), borrowed until the scan goes on: for whoever looks at entries and keeps none, this is the
    /// faster way. From the low end on, nothing is copied.
    pub async fn next_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.step_ref(false).await
    }

    /// As [`next_back`](LocalScan::next_back), borrowed until the scan goes on.
    pub async fn next_back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.step_ref(true).await
    }

    /// Shows each entry that is left, up to the limit, to `look`, from the end that the scan begins at, until that breaks; the scan
    /// can go on behind that entry. The fastest way to look at entries: from the low end on, what lies in memory is walked over
    /// without a stop, up to [`SCAN_ENTRIES_PER_TURN`](crate::limits::SCAN_ENTRIES_PER_TURN) between two turns of the shard. So `look`
    /// should be quick: nothing else happens on the thread meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`next`](LocalScan::next).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # let folder = tempfile::tempdir()?;
    /// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
    /// # let users = engine.directory("acme/users")?;
    /// # let copy = users.clone();
    /// let bytes = engine.run_on(&users, async move |local: quipu::Local| {
    ///     local.put(&copy, "ada", "1815").await?;
    ///     let mut bytes = 0;
    ///     let mut scan = local.iter(&copy)?;
    ///     scan.for_each(|key, value| {
    ///         bytes += key.len() + value.len();
    ///         ControlFlow::Continue(())
    ///     })
    ///     .await?;
    ///     Ok::<_, quipu::Error>(bytes)
    /// });
    /// assert_eq!(bytes.wait()??, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn for_each(&mut self, mut look: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        loop {
            if self.show_now(&mut look).is_break() {
                return Ok(());
            }
            // What takes a wait, or lies in a page.
            let Some((key, value)) = self.next_ref().await? else { return Ok(()) };
            if look(key, value).is_break() {
                return Ok(());
            }
        }
    }

    /// Shows entries from the low end on that take no wait and lie in no page. Breaks where `look` did, and where no more are
    /// asked for.
    #[inline]
    fn show_now(&mut self, look: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let Scanner { reader, pages } = &mut self.scanner;
        let Some(walk) = reader.walks[0].as_mut().filter(|_| pages.next_is_walked_to(false)) else {
            return ControlFlow::Continue(());
        };
        let (mut shown, most) = (0, pages.left());
        let walked = walk.show_now(&pages.rest().high, |key, value| {
            shown += 1;
            look(key, value).is_break() || shown == most
        });
        pages.walked(shown, walked == Some(false));
        self.ahead |= shown > 0;
        match walked {
            Some(true) => ControlFlow::Break(()),
            // Behind the end there may be what was read from the other one.
            Some(false) | None => ControlFlow::Continue(()),
        }
    }

    /// All that is left.
    pub async fn collect(mut self) -> Result<Vec<(Bytes, Bytes)>> {
        self.settle();
        self.scanner.collect().await
    }

    #[inline]
    async fn step_ref(&mut self, other: bool) -> Result<Option<(&[u8], &[u8])>> {
        if self.scanner.pages.next_is_walked_to(other) && self.walk_on().await? {
            return Ok(self.scanner.reader.walks[0].as_ref().and_then(Walk::entry));
        }
        self.settle();
        self.scanner.step_ref(other).await
    }

    /// Goes on to the next entry from the low end; answers whether there is one.
    #[inline]
    async fn walk_on(&mut self) -> Result<bool> {
        let Scanner { reader, pages } = &mut self.scanner;
        if reader.walks[0].is_none() {
            let (core, frame) = (reader.snapshot.core(), reader.snapshot.frame());
            reader.walks[0] = core.begin_walk_now(frame, &reader.name, pages.rest());
        }
        let now = reader.walks[0].as_mut().and_then(|walk| walk.step_now(&pages.rest().high));
        let found = match now {
            Some(found) => found,
            None => {
                self.settle();
                let Scanner { reader, pages } = &mut self.scanner;
                // Boxed: most steps need no wait, and need not carry the state of one that does.
                let walked = Box::pin(reader.walk_on(pages.rest())).await;
                walked.map_err(|error| error.on_shard(self.scanner.reader.snapshot.core().config.shard))?
            }
        };
        self.scanner.pages.walked(usize::from(found), !found);
        self.ahead = found;
        Ok(found)
    }

    /// Notes where what is not read yet begins.
    #[inline]
    fn settle(&mut self) {
        if std::mem::take(&mut self.ahead)
            && let Some(key) = self.scanner.reader.walks[0].as_ref().and_then(Walk::key)
        {
            self.scanner.pages.begin_behind(key);
        }
    }
}

impl std::fmt::Debug for LocalScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalScan({:?})", self.scanner.reader.name)
    }
}
