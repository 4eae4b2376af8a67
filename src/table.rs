//! A memtable with its place in the order of commits: live while commits go into it, then frozen.
//!
//! A table is shared (`Rc`) by the shard, by snapshots and by the carry that writes it to a segment. While it is
//! live its memtable is borrowed for moments at a time; once frozen it cannot change and is borrowed freely.

use crate::entry::{DirectoryId, Entry};
use crate::levels::{Commit, Span};
use crate::memtable::{Memtable, Place, Position};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// A table is warm where at least one point read in it succeeded for so many of its commits.
const WARM_SHARE: u64 = 16;

/// A memtable and the commits it holds.
pub(crate) struct Table {
    after: Commit,
    last: Cell<Commit>,
    /// The newest commit as of which anybody began to read.
    seen: Cell<Commit>,
    /// Of point reads, how many found what they looked for in it.
    found: Cell<u64>,
    live: RefCell<Memtable>,
    frozen: OnceCell<Memtable>,
}

impl Table {
    /// An empty table for the commits after `after`.
    pub(crate) fn new(after: Commit) -> Rc<Self> {
        Rc::new(Table {
            after,
            last: Cell::new(after),
            seen: Cell::new(after),
            found: Cell::new(0),
            live: RefCell::new(Memtable::new()),
            frozen: OnceCell::new(),
        })
    }

    /// The commits in it.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.after, self.last.get())
    }

    /// Bytes of the entries in it, as the pace counts work. What was superseded is none.
    pub(crate) fn bytes(&self) -> u64 {
        self.with(Memtable::weight)
    }

    pub(crate) fn memory(&self) -> usize {
        self.with_lagging(Memtable::memory)
    }

    /// Somebody is about to read it as of its newest commit, or of an earlier one.
    #[inline]
    pub(crate) fn see(&self) {
        self.seen.set(self.last.get());
    }

    /// The newest commit as of which anybody may be reading it.
    #[inline]
    pub(crate) fn seen(self: &Rc<Self>) -> Commit {
        // But for its shard nobody has it.
        if Rc::strong_count(self) == 1 { self.after } else { self.seen.get() }
    }

    /// So many point reads found what they looked for.
    #[inline]
    pub(crate) fn found(&self, reads: u64) {
        self.found.set(self.found.get() + reads);
    }

    /// Whether readers look for what is in it: then they are likely to do so once it lies in a segment.
    pub(crate) fn is_warm(&self) -> bool {
        let commits = self.last.get().0 - self.after.0;
        self.found.get() > 0 && self.found.get() >= commits / WARM_SHARE
    }

    /// Whether nothing was added so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.with_lagging(Memtable::is_empty)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.get().is_some()
    }

    /// Calls `f` with the memtable to add to it. The table must be live.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(&mut Memtable) -> R) -> R {
        debug_assert!(!self.is_frozen(), "a frozen table does not change");
        f(&mut self.live.borrow_mut())
    }

    /// Counts a commit as in the table, once its operations are.
    pub(crate) fn extend(&self, commit: Commit) {
        debug_assert_eq!(commit, self.last.get().next(), "commits come without gaps");
        self.last.set(commit);
    }

    /// Nothing is added from now on; what was staged is put in.
    pub(crate) fn freeze(&self) {
        let mut memtable = self.live.take();
        memtable.settle();
        let fresh = self.frozen.set(memtable).is_ok();
        debug_assert!(fresh, "a table freezes once");
    }

    /// Calls `f` with the memtable, all of its records in place.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Memtable) -> R) -> R {
        if !self.is_frozen() && self.live.borrow().lags() {
            self.live.borrow_mut().catch_up();
        }
        self.with_lagging(f)
    }

    /// Calls `f` with the memtable, some of whose records may still be kept aside.
    #[inline]
    fn with_lagging<R>(&self, f: impl FnOnce(&Memtable) -> R) -> R {
        match self.frozen.get() {
            Some(memtable) => f(memtable),
            None => f(&self.live.borrow()),
        }
    }
}

/// An owned copy of an entry, whose memory is reused.
#[derive(Default)]
struct Copy {
    directory: Option<DirectoryId>,
    commit: Commit,
    delete: bool,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Copy {
    fn set(&mut self, entry: &Entry<'_>) {
        self.directory = Some(entry.directory);
        self.commit = entry.commit;
        self.delete = entry.value.is_none();
        self.key.clear();
        self.key.extend_from_slice(entry.key);
        self.value.clear();
        self.value.extend_from_slice(entry.value.unwrap_or_default());
    }

    fn entry(&self) -> Option<Entry<'_>> {
        Some(Entry {
            directory: self.directory?,
            key: &self.key,
            commit: self.commit,
            value: (!self.delete).then_some(&self.value),
        })
    }
}

/// Walks a table in either direction. Entries added to a live table meanwhile may or may not be seen: whoever
/// reads a snapshot passes over newer commits.
pub(crate) struct TableCursor {
    table: Rc<Table>,
    position: Option<Position>,
    /// The entry at the position, where the table was live when it was reached.
    copy: Copy,
    /// So many of the next records were fetched ahead.
    ahead: usize,
}

/// The records that a cursor fetches at a time, once it moves on.
const RECORDS_AHEAD: usize = 8;

impl TableCursor {
    pub(crate) fn new(table: Rc<Table>) -> Self {
        TableCursor { table, position: None, copy: Copy::default(), ahead: 0 }
    }

    /// The memory that it holds beyond its table, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.copy.key.capacity() + self.copy.value.capacity()
    }

    /// See [`Table::is_warm`].
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        self.table.is_warm()
    }

    /// Moves to the first entry behind a place.
    pub(crate) fn seek(&mut self, place: Place<'_>) {
        let position = self.table.with(|memtable| memtable.first_from(place));
        self.set(position);
    }

    /// Moves to the last entry before a place.
    pub(crate) fn seek_back(&mut self, place: Place<'_>) {
        let position = self.table.with(|memtable| memtable.last_before(place));
        self.set(position);
    }

    pub(crate) fn next(&mut self) {
        self.advance(false);
    }

    pub(crate) fn prev(&mut self) {
        self.advance(true);
    }

    #[inline]
    fn advance(&mut self, back: bool) {
        let Some(at) = self.position else { return };
        if self.ahead == 0 {
            self.ahead = RECORDS_AHEAD;
            self.table.with(|memtable| memtable.touch_ahead(at, back, RECORDS_AHEAD));
        }
        self.ahead -= 1;
        let position = self.table.with(|memtable| if back { memtable.prev(at) } else { memtable.next(at) });
        self.set(position);
    }

    fn set(&mut self, position: Option<Position>) {
        self.position = position;
        self.copy.directory = None;
        if let Some(position) = position
            && !self.table.is_frozen()
        {
            let table = self.table.live.borrow();
            self.copy.set(&table.entry(position));
        }
    }

    /// The entry it is at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        let position = self.position?;
        match self.table.frozen.get() {
            Some(memtable) if self.copy.directory.is_none() => Some(memtable.entry(position)),
            _ => self.copy.entry(),
        }
    }
}
