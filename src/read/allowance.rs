//! How much scans may look at between two turns of their shard's loop, all together.
//!
//! A scan that hands out nothing for long (over deletes, over versions that are too new or superseded) would otherwise
//! keep its shard from everything else. So:
//!
//! 1. Whoever walks entries holds a [`Grant`] and spends one of it for each entry looked at; or, who hands out one entry after
//!    another, spends them one by one ([`Allowance::spend`]).
//! 2. A grant is at most a *slice*, taken from what is left of the turn. Who has used up its slice takes another; where
//!    nothing is left, or others wait already, it waits in line.
//! 3. Each turn fills up what was spent ([`Allowance::refill`]) and serves the line, the longest wait first; so
//!    scans take turns, and none is starved by others however many there are.
//! 4. What is left of a grant is given back with it, and goes to the next in line. A grant is not held while its scan
//!    waits for the disk.
//!
//! Promise: between two refills no more than [`SCAN_ENTRIES_PER_TURN`] entries are looked at, since the grants, what is
//! left and what was spent always sum up to that.

use crate::limits::SCAN_ENTRIES_PER_TURN;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The most entries that one scan looks at before others get their turn.
const ENTRIES_PER_SLICE: usize = 1024;

/// See the module's text.
pub(crate) struct Allowance {
    left: Cell<usize>,
    /// Since the last refill.
    spent: Cell<usize>,
    /// In all.
    examined: Cell<u64>,
    line: RefCell<VecDeque<Rc<Waiting>>>,
    /// Wakes whoever drives the turns: a scan waits for the next one.
    driver: RefCell<Option<Waker>>,
}

/// One in the line.
#[derive(Default)]
struct Waiting {
    granted: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Allowance {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Allowance {
            left: Cell::new(SCAN_ENTRIES_PER_TURN),
            spent: Cell::new(0),
            examined: Cell::new(0),
            line: RefCell::default(),
            driver: RefCell::default(),
        })
    }

    /// Sets who is woken when a scan waits for the next turn.
    pub(crate) fn set_driver(&self, waker: &Waker) {
        *self.driver.borrow_mut() = Some(waker.clone());
    }

    /// A turn has come.
    pub(crate) fn refill(&self) {
        self.give_back(self.spent.take());
    }

    /// Whether someone waits for the next turn.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.line.borrow().is_empty()
    }

    /// Entries looked at so far.
    pub(crate) fn examined(&self) -> u64 {
        self.examined.get()
    }

    /// A slice, or what is left; nothing where others wait for it.
    #[inline]
    pub(crate) fn take(self: &Rc<Self>) -> Grant {
        let granted = if self.line.borrow().is_empty() { self.left.get().min(ENTRIES_PER_SLICE) } else { 0 };
        self.left.set(self.left.get() - granted);
        Grant { allowance: self.clone(), left: granted, spent: 0 }
    }

    /// Spends one entry without a grant; false where none is left, or others wait for it.
    #[inline]
    pub(crate) fn spend(&self) -> bool {
        let some = self.left.get() > 0 && self.line.borrow().is_empty();
        if some {
            self.left.set(self.left.get() - 1);
            self.spent.set(self.spent.get() + 1);
            self.examined.set(self.examined.get() + 1);
        }
        some
    }

    fn next_in_line(&self) -> Option<Rc<Waiting>> {
        self.line.borrow_mut().pop_front()
    }

    fn give_back(&self, entries: usize) {
        self.left.set(self.left.get() + entries);
        while self.left.get() > 0
            && let Some(next) = self.next_in_line()
        {
            if Rc::strong_count(&next) == 1 {
                // It was given up.
                continue;
            }
            let granted = self.left.get().min(ENTRIES_PER_SLICE);
            self.left.set(self.left.get() - granted);
            next.granted.set(granted);
            // A waker may only schedule.
            next.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Entries that its holder may look at.
pub(crate) struct Grant {
    allowance: Rc<Allowance>,
    left: usize,
    spent: usize,
}

impl Grant {
    /// Spends one entry; false where none is left.
    #[inline]
    pub(crate) fn spend(&mut self) -> bool {
        let some = self.left > 0;
        self.left -= usize::from(some);
        self.spent += usize::from(some);
        some
    }

    /// Gives back what is left.
    pub(crate) fn give_back(&mut self) {
        let (spent, left) = (std::mem::take(&mut self.spent), std::mem::take(&mut self.left));
        let allowance = &self.allowance;
        allowance.spent.set(allowance.spent.get() + spent);
        allowance.examined.set(allowance.examined.get() + spent as u64);
        if left > 0 {
            allowance.give_back(left);
        }
    }

    /// Gets another slice: at once, or in line.
    pub(crate) async fn renew(&mut self) {
        self.give_back();
        let mut fresh = self.allowance.take();
        self.left = std::mem::take(&mut fresh.left);
        if self.left == 0 {
            let waiting = Rc::new(Waiting::default());
            self.allowance.line.borrow_mut().push_back(waiting.clone());
            if let Some(driver) = &*self.allowance.driver.borrow() {
                driver.wake_by_ref();
            }
            self.left = Wait { allowance: &self.allowance, waiting }.await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Waits in line; gives back what was granted to it where it is dropped before it learns of that.
struct Wait<'a> {
    allowance: &'a Allowance,
    waiting: Rc<Waiting>,
}

impl Future for Wait<'_> {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        match self.waiting.granted.take() {
            0 => {
                *self.waiting.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            granted => Poll::Ready(granted),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let granted = self.waiting.granted.take();
        if granted > 0 {
            self.allowance.give_back(granted);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll<F: Future>(future: Pin<&mut F>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn no_more_than_a_turns_share_is_granted_and_the_line_is_kept() {
        let allowance = Allowance::new();
        let mut first = allowance.take();
        let mut examined = 0;
        // One alone gets slice after slice, up to the turn's share.
        loop {
            while first.spend() {
                examined += 1;
            }
            if !poll(pin!(first.renew())) {
                break;
            }
        }
        assert_eq!(examined, SCAN_ENTRIES_PER_TURN);
        let (mut a, mut b) = (allowance.take(), allowance.take());
        assert!(!a.spend() && !b.spend());
        {
            let mut given_up = Box::pin(first.renew());
            assert!(!poll(given_up.as_mut()));
            let mut waits = pin!(a.renew());
            assert!(!poll(waits.as_mut()));
            drop(given_up);
            allowance.refill();
            // Who comes now does not pass those in line, and who gave up takes nothing along.
            assert!(poll(waits.as_mut()) && !allowance.is_awaited());
        }
        let mut all = usize::from(poll(pin!(b.renew())));
        for grant in [&mut a, &mut b, &mut first] {
            while grant.spend() {
                all += 1;
            }
        }
        assert_eq!(all, 2 * ENTRIES_PER_SLICE + 1);
        // What is granted to one that gives up before it looks is granted to the next.
        let mut grants: Vec<Grant> = (0..2).map(|_| allowance.take()).collect();
        for grant in &mut grants {
            while grant.spend() {}
        }
        let mut gives_up = Box::pin(first.renew());
        let mut waits = Box::pin(a.renew());
        assert!(!poll(gives_up.as_mut()) && !poll(waits.as_mut()));
        drop(grants);
        allowance.refill();
        drop(gives_up);
        assert!(poll(waits.as_mut()));
        drop(waits);
        drop((first, a, b));
        allowance.refill();
        assert_eq!(allowance.left.get(), SCAN_ENTRIES_PER_TURN);
    }
}
