//! Merging sources into one run of entries, in the one order.
//!
//! The cursors that are on an entry are kept in the order of their entries. A step moves the first one and
//! puts it back in its place; with uniform keys that is a binary search among a handful.

use super::cursor::Cursor;
use crate::entry::Entry;
use crate::error::Result;
use crate::memtable::Place;
use futures_util::future::try_join_all;

/// See the module's text.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// Those that are on an entry, by its order; the next one **last**, so that taking it away is cheap.
    order: Vec<usize>,
    back: bool,
}

impl Merge {
    /// A merge that is on no entry yet.
    pub(crate) fn new(cursors: Vec<Cursor>) -> Self {
        Merge { order: Vec::with_capacity(cursors.len()), cursors, back: false }
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

    /// Seeks with all cursors, their reads overlapping.
    async fn seek_all(&mut self, place: Place<'_>) -> Result<()> {
        let back = self.back;
        match &mut self.cursors[..] {
            [only] => {
                if back {
                    only.seek_back(place).await?
                } else {
                    only.seek(place).await?
                }
            }
            cursors => {
                let seeks = cursors.iter_mut().map(|cursor| async move {
                    if back { cursor.seek_back(place).await } else { cursor.seek(place).await }
                });
                try_join_all(seeks).await?;
            }
        }
        self.order.clear();
        for at in 0..self.cursors.len() {
            self.enter(at);
        }
        Ok(())
    }

    /// The entry it is at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        self.cursors[*self.order.last()?].entry()
    }

    /// Goes to the next entry, if that needs no wait; answers whether it did.
    #[inline]
    pub(crate) fn step(&mut self) -> bool {
        let Some(&first) = self.order.last() else { return true };
        if !self.cursors[first].step(self.back) {
            return false;
        }
        self.order.pop();
        self.enter(first);
        true
    }

    /// Goes to the next entry, whatever that needs.
    pub(crate) async fn advance(&mut self) -> Result<()> {
        let Some(&first) = self.order.last() else { return Ok(()) };
        self.cursors[first].advance(self.back).await?;
        self.order.pop();
        self.enter(first);
        Ok(())
    }

    /// Puts a cursor in its place, if it is on an entry.
    #[inline]
    fn enter(&mut self, cursor: usize) {
        let Some(entry) = self.cursors[cursor].entry() else { return };
        let before = |other: &usize| match self.cursors[*other].entry() {
            // Those that come later stand in front.
            Some(other) => (other.order(&entry).is_gt()) != self.back,
            None => false,
        };
        let at = self.order.partition_point(before);
        self.order.insert(at, cursor);
    }
}
