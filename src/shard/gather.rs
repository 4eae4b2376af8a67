//! Point reads of on-core tasks, kept until the next turn, which does all of them together.
//!
//! A read alone waits for memory again and again; several that go step by step wait for all of their lines at once
//! ([`together`]). The end of a log write wakes many tasks, and each of them comes back with its next read or commit. So
//! where [`GATHERED_MIN`] or more have come or are expected (and no more than [`GATHERED_MAX`]), reads of the newest
//! commit are kept. The next turn, before which those tasks have run, answers them, and holds back the log write for what
//! they do next, for a few turns. Where fewer are expected, a read is done at once; so is one of a name that is not known
//! to lead to a directory.
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
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Reads are kept where, with the one that has come, so many are kept already or expected. Fewer gain less than the other poll of
/// their tasks costs.
pub(crate) const GATHERED_MIN: usize = 8;
/// The most reads that are kept, and so are done in a turn; about as many tasks as tokio polls between two turns.
const GATHERED_MAX: usize = together::KEYS_TOGETHER_MAX;
/// So many tasks are expected that none reads together with others: once woken again, it would wait for all of them.
const TOO_MANY: usize = usize::MAX;

/// See the module's text.
pub(crate) struct Gathering {
    /// [`GATHERED_MIN`], but in simulations.
    min: Cell<usize>,
    /// Tasks that were woken and did not come back so far.
    expected: Cell<usize>,
    /// Reads and commits since the last turn.
    came: Cell<usize>,
    kept: RefCell<Kept>,
    /// Reads that were kept, and done.
    done: Cell<u64>,
}

#[derive(Default)]
struct Kept {
    reads: Vec<Read>,
    /// Their keys, one behind another.
    keys: Vec<u8>,
    places: Slab<Place>,
    /// Kept for its memory.
    values: together::Values,
}

struct Read {
    /// Where its name led in an epoch of the catalog.
    directory: DirectoryId,
    epoch: u64,
    /// Where its key lies.
    key: Range<usize>,
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
    /// See [`GATHERED_MIN`].
    pub(crate) fn set_min(&self, reads: usize) {
        self.min.set(reads);
    }

    /// How many reads were kept, and done.
    pub(crate) fn done(&self) -> u64 {
        self.done.get()
    }

    /// So many tasks were woken; one that waits for several commits counts as many times.
    #[inline]
    pub(super) fn expect(&self, tasks: usize) {
        let expected = self.expected.get().saturating_add(tasks);
        self.expected.set(if expected > GATHERED_MAX { TOO_MANY } else { expected });
    }

    /// A task has come, with a read or a commit.
    #[inline]
    pub(super) fn count(&self) {
        self.came.set(self.came.get() + 1);
        let expected = self.expected.get();
        if expected != TOO_MANY {
            self.expected.set(expected.saturating_sub(1));
        }
    }

    /// Whether a read that came just now is to be kept.
    #[inline]
    fn keeps(&self) -> bool {
        let (kept, expected) = (self.kept.borrow().reads.len(), self.expected.get());
        kept < GATHERED_MAX && expected != TOO_MANY && kept + expected + 1 >= self.min.get()
    }

    /// A turn begins. Where so few have come that keeping reads does not pay, the others are not expected any more: a task may have
    /// waited for many commits, or have gone on to something else.
    pub(super) fn begin_turn(&self) {
        if self.came.take() < self.min.get() {
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
        let start = kept.keys.len();
        kept.keys.extend_from_slice(key);
        let place = kept.places.insert(Place::Waiting(Waker::noop().clone()));
        kept.reads.push(Read { directory, epoch, key: start..kept.keys.len(), place });
        self.kick();
        Some(Gathered { core: self, place })
    }

    /// Does the reads that were kept, and wakes the tasks that wait for them. Answers how many.
    pub(super) fn answer_gathered(&self) -> usize {
        let mut kept = self.gathering.kept.borrow_mut();
        if kept.reads.is_empty() {
            return 0;
        }
        let epoch = self.state.borrow().catalog.epoch();
        let Kept { reads, keys, places, values } = &mut *kept;
        reads.retain(|read| {
            let waits = matches!(places[read.place], Place::Waiting(_));
            if !waits {
                places.remove(read.place);
            }
            waits
        });
        let wanted = reads.iter().map(|read| Wanted::new(read.directory, &keys[read.key.clone()]));
        let mut unknown = Vec::new();
        together::get_now(&self.frame(), &self.cache, wanted, values, &mut unknown);
        unknown.sort_unstable();
        let mut unknown = unknown.into_iter().peekable();
        let mut woken = Vec::with_capacity(reads.len());
        for (number, (read, value)) in reads.drain(..).zip(values.drain()).enumerate() {
            let answer = match unknown.next_if_eq(&number) {
                Some(_) => Place::Alone,
                None if read.epoch != epoch => Place::Alone,
                None => Place::Answered(value),
            };
            if let Place::Waiting(waker) = std::mem::replace(&mut places[read.place], answer) {
                woken.push(waker);
            }
        }
        keys.clear();
        drop(kept);
        let count = woken.len();
        probes::gets_together(self.config.shard, count);
        self.gathering.done.update(|done| done + count as u64);
        self.gathering.expect(count);
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
            Place::Waiting(waker) if waker.will_wake(cx.waker()) => Poll::Pending,
            Place::Waiting(waker) => {
                let old = std::mem::replace(waker, cx.waker().clone());
                // What a waker drops may be another read.
                drop(kept);
                drop(old);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A read that comes; whether it is kept.
    fn comes(gathering: &Gathering) -> bool {
        gathering.count();
        gathering.keeps()
    }

    #[test]
    fn reads_are_kept_while_many_are_expected() {
        let gathering = Gathering::default();
        assert!(!comes(&gathering), "nobody was woken");
        gathering.begin_turn();
        gathering.expect(GATHERED_MIN);
        assert!(comes(&gathering), "the others may come, too");
        gathering.count();
        assert!(!comes(&gathering), "too few are left");
        gathering.expect(GATHERED_MAX + 2);
        assert!(!comes(&gathering), "it would wait for all of them");
    }

    /// Whoever was woken may have ended, or one task may have waited for all.
    #[test]
    fn who_does_not_come_is_not_waited_for_again_and_again() {
        let gathering = Gathering::default();
        gathering.expect(50);
        assert!(comes(&gathering));
        gathering.begin_turn();
        gathering.expect(1);
        assert!(!comes(&gathering));
    }
}
