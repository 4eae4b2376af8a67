//! The mailbox: the one thing between cores. Bounded, lock-free on the shard's side, and quiet: a shard that
//! is awake is never woken.
//!
//! How it works:
//!
//! 1. A client takes permits for its request (one, plus one for each [`MAILBOX_PERMIT_BYTES`] it carries); where none
//!    are left it waits. So what is queued or being worked on is bounded in number and in bytes.
//! 2. It pushes the request, fences, and wakes the shard only where `sleeping` is set.
//! 3. The shard, before it sleeps: registers its waker, sets `sleeping`, fences, looks at the queue again, and
//!    only then sleeps. Either it sees the request, or the client sees `sleeping`: with both fences sequentially
//!    consistent, at least one of the two stores comes before the other side's look.
//! 4. The permits come back when the request is answered, given back in one go at the end of a turn.

use super::request::Request;
use crate::error::{Error, Result};
use crate::limits::{MAILBOX_MIN, MAILBOX_PERMIT_BYTES};
use crossbeam_queue::{ArrayQueue, SegQueue};
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::Waker;
use tokio::sync::{Semaphore, TryAcquireError};

/// A request with the permits it holds.
pub(crate) struct Letter {
    pub(crate) request: Request,
    pub(crate) permits: u32,
    /// Nanoseconds of the process's clock when it was posted.
    pub(crate) posted: std::time::Instant,
}

/// See the module's text.
pub(crate) struct Mailbox {
    queue: ArrayQueue<Letter>,
    room: Arc<Semaphore>,
    capacity: u32,
    sleeping: AtomicBool,
    ending: AtomicBool,
    waker: AtomicWaker,
    wakes_sent: AtomicU64,
    wakes_saved: AtomicU64,
    /// Snapshots whose handles went away; at most as many as were open, so unbounded in type only.
    released: SegQueue<u64>,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(MAILBOX_MIN);
        Mailbox {
            queue: ArrayQueue::new(capacity),
            room: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
            sleeping: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            wakes_sent: AtomicU64::new(0),
            wakes_saved: AtomicU64::new(0),
            released: SegQueue::new(),
        }
    }

    /// Posts a request if there is room; gives it back if not.
    // The request comes back by value: the way there is the fast one, and it is on it.
    #[allow(clippy::result_large_err)]
    pub(crate) fn try_post(&self, request: Request) -> std::result::Result<(), PostError> {
        let permits = self.permits_for(&request);
        match self.room.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Err(PostError::Full(request)),
            Err(TryAcquireError::Closed) => return Err(PostError::Closed),
        }
        self.push(request, permits);
        Ok(())
    }

    /// Posts a request when there is room.
    pub(crate) async fn post(&self, request: Request) -> Result<()> {
        let permits = self.permits_for(&request);
        match self.room.acquire_many(permits).await {
            Ok(permit) => permit.forget(),
            Err(_closed) => return Err(Error::Closed),
        }
        self.push(request, permits);
        Ok(())
    }

    fn permits_for(&self, request: &Request) -> u32 {
        (1 + (request.bytes() / MAILBOX_PERMIT_BYTES) as u32).min(self.capacity)
    }

    fn push(&self, request: Request, permits: u32) {
        let letter = Letter { request, permits, posted: std::time::Instant::now() };
        // There are as many places as permits, and every letter holds at least one.
        let pushed = self.queue.push(letter).is_ok();
        debug_assert!(pushed, "a permit without a place");
        self.wake();
        // Pairs with the fence in `close`: either that one's look at the queue finds the letter, or this one
        // finds that no one will look any more.
        fence(Ordering::SeqCst);
        if self.room.is_closed() {
            self.drain();
        }
    }

    /// Drops what is in the queue: its clients learn that the engine is closed.
    fn drain(&self) {
        while let Some(letter) = self.queue.pop() {
            drop(letter);
        }
    }

    /// Wakes the shard if it sleeps. The caller has made its news visible before.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `prepare_to_sleep`.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.wakes_sent.fetch_add(1, Ordering::Relaxed);
            self.waker.wake();
        } else {
            self.wakes_saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says that a snapshot's handle went away. Never blocks.
    pub(crate) fn release(&self, snapshot: u64) {
        self.released.push(snapshot);
        self.wake();
    }

    /// The shard's side: the next request.
    pub(crate) fn pop(&self) -> Option<Letter> {
        self.queue.pop()
    }

    /// The shard's side: how many snapshots are to be let go, and how many requests have to be taken up before
    /// that, since they may have been made through them.
    pub(crate) fn released(&self) -> (usize, usize) {
        // In this order: whatever was posted before a release that is counted is counted, too.
        let released = self.released.len();
        (released, self.queue.len())
    }

    /// The shard's side: the next snapshot to let go.
    pub(crate) fn pop_released(&self) -> Option<u64> {
        self.released.pop()
    }

    /// The shard's side: whether it may sleep. After `true`, anything posted wakes `waker`.
    pub(crate) fn prepare_to_sleep(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
        if self.queue.is_empty() && self.released.is_empty() && !self.is_ending() {
            return true;
        }
        self.awake();
        false
    }

    /// The shard's side: it is awake, for whatever reason.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The shard's side: gives permits back.
    pub(crate) fn give_back(&self, permits: usize) {
        if permits > 0 {
            self.room.add_permits(permits);
        }
    }

    /// Refuses everything from now on, and drops what is queued.
    pub(crate) fn close(&self) {
        self.room.close();
        // Pairs with the fence in `push`.
        fence(Ordering::SeqCst);
        self.drain();
    }

    /// Tells the shard to close, when no one can wait for it to do so.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// The shard's side: whether it was told to close.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Wakes sent, and wakes saved because the shard was awake.
    pub(crate) fn wakes(&self) -> (u64, u64) {
        (self.wakes_sent.load(Ordering::Relaxed), self.wakes_saved.load(Ordering::Relaxed))
    }
}

/// Why a request could not be posted at once.
pub(crate) enum PostError {
    /// There is no room; here it is back.
    Full(Request),
    /// The engine is closed.
    Closed,
}
