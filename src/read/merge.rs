//! Merging sources into one run of entries, in the one order.
//!
//! The cursors that are on an entry are kept in the order of their entries. A step moves the first one and
//! puts it back in its place: mostly the first again, since the sources differ much in size, else not far behind.
//! Beside each cursor stands the *head* of its entry, the directory and the first bytes of the key, so that most
//! comparisons decode nothing.

use super::cursor::Cursor;
use crate::codec::KeyBuffer;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::levels::Commit;
use crate::memtable::Place;
use crate::segment::{HeadBound, Target};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// The bytes of a key in a head.
const HEAD_BYTES: usize = size_of::<u128>();

/// Where heads differ, entries differ the same way; where they are equal, the entries have to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Head {
    directory: u64,
    /// Big endian, padded with zeros.
    key: u128,
}

impl Head {
    #[inline]
    fn of(entry: &Entry<'_>) -> Self {
        let DirectoryId(directory) = entry.directory;
        let key = match entry.key.first_chunk::<HEAD_BYTES>() {
            Some(bytes) => u128::from_be_bytes(*bytes),
            None => {
                let mut bytes = [0; HEAD_BYTES];
                bytes[..entry.key.len()].copy_from_slice(entry.key);
                u128::from_be_bytes(bytes)
            }
        };
        Head { directory, key }
    }
}

/// A source, and the head of its entry where it is in the order, save where it is the only one.
struct Merged {
    cursor: Cursor,
    head: Head,
}

/// See the module's text.
pub(crate) struct Merge {
    cursors: Vec<Merged>,
    /// Those that are on an entry, by its order; the next one **last**, so that taking it away is cheap.
    order: Vec<usize>,
    back: bool,
}

impl Merge {
    /// A merge over nothing yet, with room for so many sources.
    pub(crate) fn new(sources: usize) -> Self {
        Merge { order: Vec::with_capacity(sources), cursors: Vec::with_capacity(sources), back: false }
    }

    /// Adds a source. The merge is on no entry before a seek.
    #[inline]
    pub(crate) fn add(&mut self, cursor: Cursor) {
        self.cursors.push(Merged { cursor, head: Head::default() });
    }

    /// [`seek`](Merge::seek), if that needs no wait; answers whether it did. Where it did not, it is on no entry.
    pub(crate) fn seek_now(&mut self, place: Place<'_>) -> bool {
        self.back = false;
        self.order.clear();
        let sought = self.cursors.iter_mut().all(|merged| merged.cursor.seek_now(place, false));
        if sought {
            self.enter_all();
        }
        sought
    }

    /// Goes to the first entry behind a place; from there on forward.
    pub(crate) async fn seek(&mut self, place: Place<'_>) -> Result<()> {
        self.back = false;
        self.seek_all(place).await
    }

    /// Goes to the last entry before a place; from there on backward.
    pub(crate) async fn seek_back(&mut self, place: Place<'_>) -> Result<()> {
        self.back = true;
        self.seek_all(place).await
    }

    /// Seeks with all cursors. What needs no wait is done first; the reads of the others overlap.
    async fn seek_all(&mut self, place: Place<'_>) -> Result<()> {
        let back = self.back;
        self.order.clear();
        let mut waiting = Vec::new();
        for Merged { cursor, .. } in &mut self.cursors {
            if !cursor.seek_now(place, back) {
                waiting.push(cursor);
            }
        }
        if !waiting.is_empty() {
            let seeks = waiting.into_iter().map(|cursor| async move {
                if back { cursor.seek_back(place).await } else { cursor.seek(place).await }
            });
            try_join_all(seeks).await?;
        }
        self.enter_all();
        Ok(())
    }

    fn enter_all(&mut self) {
        for at in 0..self.cursors.len() {
            self.enter(at);
        }
    }

    /// The entry it is at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        self.cursors[*self.order.last()?].cursor.entry()
    }

    /// The value of the entry it is at without a copy, where its source can share it.
    pub(crate) fn value_shared(&self) -> Option<Bytes> {
        self.cursors[*self.order.last()?].cursor.value_shared()
    }

    /// Whether readers have what the entry it is at lies in in memory; see [`Cursor::is_warm`].
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        self.order.last().is_some_and(|&first| self.cursors[first].cursor.is_warm())
    }

    /// The number of the source that the entry it is at comes from, in the order in which they were added.
    #[inline]
    pub(crate) fn source(&self) -> Option<usize> {
        self.order.last().copied()
    }

    /// Goes to the next entry, if that needs no wait; answers whether it did.
    #[inline]
    pub(crate) fn step(&mut self) -> bool {
        let Some(&first) = self.order.last() else { return true };
        if !self.cursors[first].cursor.step(self.back) {
            return false;
        }
        self.moved(first);
        true
    }

    /// Goes forward over entries of `directory` that come one after another from one block, in front of all that others have and
    /// of keys from `high` on, and that [count](crate::segment::SegmentCursor::run). It need not go over any, and is on an entry all the same.
    #[inline]
    pub(crate) fn run<B>(
        &mut self,
        (directory, high): (DirectoryId, Option<&[u8]>),
        newest: Commit,
        passed: &mut Option<KeyBuffer>,
        spend: impl FnMut() -> ControlFlow<B>,
        look: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        debug_assert!(!self.back);
        let Some(&first) = self.order.last() else { return ControlFlow::Continue(()) };
        let second = self.order.len().checked_sub(2).map(|at| self.order[at]);
        let (walked, other) = match second.map(|second| self.cursors.get_disjoint_mut([first, second])) {
            Some(Ok([walked, second])) => (walked, second.cursor.entry()),
            // None stands in the order twice.
            Some(Err(_)) => return ControlFlow::Continue(()),
            None => (&mut self.cursors[first], None),
        };
        let Some(cursor) = walked.cursor.within_segment() else { return ControlFlow::Continue(()) };
        let Some(block) = cursor.block_of(directory) else { return ControlFlow::Continue(()) };
        let mut bound = HeadBound::NONE;
        // What others have of other directories comes later.
        let other = other.filter(|entry| entry.directory == directory).map(|entry| entry.key);
        for key in other.into_iter().chain(high) {
            bound = bound.min(block.bound(&Target::new(directory, key, 0)));
        }
        let went = cursor.run(bound, newest, passed, spend, look);
        self.moved(first);
        went
    }

    /// Goes to the next entry, whatever that needs.
    pub(crate) async fn advance(&mut self) -> Result<()> {
        let Some(&first) = self.order.last() else { return Ok(()) };
        self.cursors[first].cursor.advance(self.back).await?;
        self.moved(first);
        Ok(())
    }

    /// The memory that it holds beyond what the cache holds anyway, in bytes; an estimate.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Merge>() + self.cursors.iter().map(|merged| merged.cursor.memory()).sum::<usize>()
    }

    /// The first cursor of the order has moved on.
    #[inline]
    fn moved(&mut self, first: usize) {
        let Some(second) = self.order.len().checked_sub(2).map(|at| self.order[at]) else {
            // With no others there is nothing to compare.
            if self.cursors[first].cursor.entry().is_none() {
                self.order.clear();
            }
            return;
        };
        let moved = &mut self.cursors[first];
        let Some(entry) = moved.cursor.entry() else {
            self.order.pop();
            return;
        };
        moved.head = Head::of(&entry);
        if self.comes_before(second, first) {
            self.order.pop();
            self.insert(first);
        }
    }

    /// Puts a cursor in its place, if it is on an entry.
    fn enter(&mut self, cursor: usize) {
        let entered = &mut self.cursors[cursor];
        let Some(entry) = entered.cursor.entry() else { return };
        entered.head = Head::of(&entry);
        self.insert(cursor);
    }

    fn insert(&mut self, cursor: usize) {
        // Those that come later stand in front. The sources differ much in size, and what has moved on comes soon again.
        let earlier = self.order.iter().rev().take_while(|&&other| !self.comes_before(cursor, other)).count();
        let at = self.order.len() - earlier;
        self.order.insert(at, cursor);
    }

    /// Whether the entry of one cursor comes before that of another.
    #[inline]
    fn comes_before(&self, one: usize, other: usize) -> bool {
        let order = match self.cursors[one].head.cmp(&self.cursors[other].head) {
            Ordering::Equal => self.compare(one, other),
            order => order,
        };
        (order == Ordering::Less) != self.back
    }

    fn compare(&self, one: usize, other: usize) -> Ordering {
        match (self.cursors[one].cursor.entry(), self.cursors[other].cursor.entry()) {
            (Some(one), Some(other)) => one.order(&other),
            // All in the order are on an entry.
            _ => Ordering::Equal,
        }
    }
}
