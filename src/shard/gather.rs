//! Point reads of on-core tasks, kept until the next turn, which does all of them together.
//!
//! A read alone waits for memory again and again; several that go step by step wait for all of their lines at once
//! ([`together`]). The end of a log write wakes many tasks, and each of them comes back with its next read or commit. So
//! while [`GATHERED_MIN`] or more are expected, reads of the newest commit are kept: the turn that comes once those
//! tasks have run answers them, and holds back the log write for what
//! they do next, for a few turns. Where fewer are expected, a read is
//! done at once.
//!
//! Which reads are kept follows from what was woken and what came alone, never from a clock.

use super::Core;
use super::catalog::Known;
use crate::entry::DirectoryId;
use crate::path::Name;
use crate::probes;
use crate::read::together;
use crate::segment::Wanted;
use bytes::Bytes;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Reads are kept while so many are kept already or expected. Fewer gain less than the other poll of their tasks costs.
pub(crate) const GATHERED_MIN: usize = 8;
/// The most reads that are kept.
const GATHERED_MAX: usize = 256;

/// See the module's text.
pub(crate) struct Gathering {
    /// [`GATHERED_MIN`], but in simulations.
    min: Cell<usize>,
    /// Tasks that were woken and did not come back so far.
    expected: Cell<usize>,
    /// Reads and commits since the last turn.
    came: Cell<usize>,
    kept: RefCell<Kept>,
    /// Reads that were done together with others.
    done: Cell<u64>,
}

#[derive(Default)]
struct Kept {
    reads: Vec<Read>,
    /// Their keys, one behind another.
    keys: Vec<u8>,
    places: Slab<Place>,
    /// Kept for its memory.
    values: Vec<Option<Bytes>>,
}

struct Read {
    /// Where its name led in an epoch of the catalog.
    directory: DirectoryId,
    epoch: u64,
    /// Where its key ends.
    key_end: usize,
    place: usize,
}

/// Where a task finds what became of its read.
enum Place {
    Waiting(Waker),
    /// Whoever waited is gone.
    Left,
    Answered(Option<Bytes>),
    /// It is to be read alone: the disk has to be looked at, or where the name leads.
    Alone,
}

impl Default for Gathering {
    fn default() -> Self {
        Gathering {
            min: Cell::new(GATHERED_MIN),
            expected: Cell::default(),
            came: Cell::default(),
            kept: RefCell::default(),
            done: Cell::default(),
        }
    }
}

impl Gathering {
    /// Reads are kept while so many are kept already or expected.
    pub(crate) fn set_min(&self, reads: usize) {
        self.min.set(reads);
    }

    /// How many reads were done together with others.
    pub(crate) fn done(&self) -> u64 {
        self.done.get()
    }

    /// So many tasks were woken.
    #[inline]
    pub(super) fn expect(&self, tasks: usize) {
        self.expected.set(self.expected.get() + tasks);
    }

    /// A task has come, with a read or a commit.
    #[inline]
    pub(super) fn count(&self) {
        self.came.set(self.came.get() + 1);
        self.expected.set(self.expected.get().saturating_sub(1));
    }

    /// Whether a read that came just now is to be kept.
    #[inline]
    fn keeps(&self) -> bool {
        let kept = self.kept.borrow().reads.len();
        kept < GATHERED_MAX && kept + self.expected.get() + 1 >= self.min.get()
    }

    /// A turn begins. Tasks that had their turn and did not come are not expected any more.
    pub(super) fn begin_turn(&self) {
        if self.came.take() == 0 {
            self.expected.set(0);
        }
    }
}

impl Core {
    /// The newest value of a key, read together with those that others ask for; `None` where it is to be read alone.
    #[inline]
    pub(super) fn get_gathered(&self, name: &Name, key: &[u8]) -> Option<Gathered<'_>> {
        self.gathering.count();
        if !self.gathering.keeps() {
            return None;
        }
        self.keep(name, key)
    }

    fn keep(&self, name: &Name, key: &[u8]) -> Option<Gathered<'_>> {
        let catalog = &mut self.state.borrow_mut().catalog;
        let Known::Is(directory) = catalog.look_name(name) else { return None };
        let epoch = catalog.epoch();
        let mut kept = self.gathering.kept.borrow_mut();
        let kept = &mut *kept;
        kept.keys.extend_from_slice(key);
        let place = kept.places.insert(Place::Waiting(Waker::noop().clone()));
        kept.reads.push(Read { directory, epoch, key_end: kept.keys.len(), place });
        self.kick();
        Some(Gathered { core: self, place })
    }

    /// Does the reads that were kept, and wakes those who wait for them. Answers how many.
    pub(super) fn answer_gathered(&self) -> usize {
        let mut kept = self.gathering.kept.borrow_mut();
        let count = kept.reads.len();
        if count == 0 {
            return 0;
        }
        let epoch = self.state.borrow().catalog.epoch();
        let Kept { reads, keys, places, values } = &mut *kept;
        let mut start = 0;
        let wanted = reads.iter().map(|read| {
            let key = &keys[std::mem::replace(&mut start, read.key_end)..read.key_end];
            Wanted::new(read.directory, key)
        });
        let mut unknown = Vec::new();
        together::get_now(&self.frame(), &self.cache, wanted, values, &mut unknown);
        unknown.sort_unstable();
        let mut unknown = unknown.into_iter().peekable();
        let mut woken = Vec::with_capacity(count);
        for (number, (read, value)) in reads.drain(..).zip(values.drain(..)).enumerate() {
            let answer = match unknown.next_if_eq(&number) {
                Some(_) => Place::Alone,
                None if read.epoch != epoch => Place::Alone,
                None => Place::Answered(value),
            };
            match std::mem::replace(&mut places[read.place], answer) {
                Place::Waiting(waker) => woken.push(waker),
                _ => drop(places.remove(read.place)),
            }
        }
        keys.clear();
        drop(kept);
        probes::gets_together(self.config.shard, count);
        self.gathering.done.update(|done| done + count as u64);
        self.gathering.expect(woken.len());
        woken.into_iter().for_each(Waker::wake);
        count
    }
}

/// A read that was kept. It ends with the value, or with `None` where that has to be read alone.
pub(super) struct Gathered<'a> {
    core: &'a Core,
    place: usize,
}

impl Future for Gathered<'_> {
    type Output = Option<Option<Bytes>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kept = self.core.gathering.kept.borrow_mut();
        match &mut kept.places[self.place] {
            Place::Waiting(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Place::Answered(value) => Poll::Ready(Some(value.take())),
            Place::Left | Place::Alone => Poll::Ready(None),
        }
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        let mut kept = self.core.gathering.kept.borrow_mut();
        // What a waker or a value drops in its turn is not looked at from here.
        let _old = if matches!(kept.places[self.place], Place::Waiting(_)) {
            // The next turn removes it.
            std::mem::replace(&mut kept.places[self.place], Place::Left)
        } else {
            kept.places.remove(self.place)
        };
        drop(kept);
    }
}
