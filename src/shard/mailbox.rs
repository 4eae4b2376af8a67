//! The mailbox: the one thing between cores. Bounded, lock-free on the shard's side, and quiet: a shard that
//! is awake is never woken.
//!
//! How it works:
//!
//! 1. A client takes permits for its request (one, plus one for each [`MAILBOX_PERMIT_BYTES`] it carries); where none
//!    are left it waits. So what is queued or being worked on is bounded in number and in bytes.
//! 2. It pushes the request and wakes the shard only where that sleeps; [`Post`] is the protocol of sleeping and
//!    waking, and the reason why no wake is lost. While a log write is in flight, the shard sleeps through the first of
//!    the commits that come ([`Core::patience`](super::Core::patience)).
//! 3. The permits come back when the request is answered, given back in one go at the end of a turn.

use super::post::{Post, Real, Refused, Room};
use super::request::Request;
use crate::bell::{Bells, together};
use crate::error::{Error, Result};
use crate::limits::{MAILBOX_MIN, MAILBOX_PERMIT_BYTES};
use crossbeam_queue::SegQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

/// A request with the permits it holds.
pub(crate) struct Letter {
    pub(crate) request: Request,
    pub(crate) permits: u32,
    /// Nanoseconds of the process's clock when it was posted.
    pub(crate) posted: std::time::Instant,
}

/// See the module's text.
pub(crate) struct Mailbox {
    post: Post<Letter, Real>,
    capacity: u32,
    ending: AtomicBool,
    /// What wakes threads that wait for durable commits.
    bells: Arc<Bells>,
    /// Snapshots whose handles went away; at most as many as were open, so unbounded in type only.
    released: SegQueue<u64>,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(MAILBOX_MIN);
        Mailbox {
            post: Post::new(capacity),
            capacity: capacity as u32,
            ending: AtomicBool::new(false),
            bells: Arc::new(Bells::new()),
            released: SegQueue::new(),
        }
    }

    /// Posts a request if there is room; gives it back if not.
    // The request comes back by value: the way there is the fast one, and it is on it.
    #[allow(clippy::result_large_err)]
    pub(crate) fn try_post(&self, request: Request) -> std::result::Result<(), PostError> {
        let permits = self.permits_for(&request);
        match self.post.room().try_take(permits) {
            Ok(()) => self.push(request, permits),
            Err(Refused::Full) => return Err(PostError::Full(request)),
            Err(Refused::Closed) => return Err(PostError::Closed),
        }
        Ok(())
    }

    /// Posts a request when there is room.
    pub(crate) async fn post(&self, request: Request) -> Result<()> {
        let permits = self.permits_for(&request);
        if !self.post.room().take(permits).await {
            return Err(Error::Closed);
        }
        self.push(request, permits);
        Ok(())
    }

    fn permits_for(&self, request: &Request) -> u32 {
        (1 + (request.bytes() / MAILBOX_PERMIT_BYTES) as u32).min(self.capacity)
    }

    /// There are as many places as permits, and every letter holds at least one.
    fn push(&self, request: Request, permits: u32) {
        let patient = request.is_patient();
        self.post.push(Letter { request, permits, posted: std::time::Instant::now() }, patient);
    }

    /// What wakes threads that wait for durable commits.
    pub(crate) fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    /// Wakes the shard if it sleeps. The caller has made its news visible before.
    pub(crate) fn wake(&self) {
        self.post.wake();
    }

    /// Says that a snapshot's handle went away. Never blocks.
    pub(crate) fn release(&self, snapshot: u64) {
        self.released.push(snapshot);
        self.wake();
    }

    /// The shard's side: the next request.
    pub(crate) fn pop(&self) -> Option<Letter> {
        self.post.pop()
    }

    /// The shard's side: how many snapshots are to be let go, and how many requests have to be taken up before
    /// that, since they may have been made through them.
    pub(crate) fn released(&self) -> (usize, usize) {
        // In this order: whatever was posted before a release that is counted is counted, too.
        let released = self.released.len();
        (released, self.post.len())
    }

    /// The shard's side: the next snapshot to let go.
    pub(crate) fn pop_released(&self) -> Option<u64> {
        self.released.pop()
    }

    /// The shard's side: whether something came.
    pub(crate) fn has_news(&self) -> bool {
        self.post.len() > 0 || !self.is_quiet()
    }

    /// Whether there is no news but what is posted.
    fn is_quiet(&self) -> bool {
        self.released.is_empty() && !self.is_ending()
    }

    /// The shard's side: whether it may sleep. After `true`, anything posted wakes `waker`; of
    /// [patient](Request::is_patient) requests only the last of `most`.
    pub(crate) fn prepare_to_sleep(&self, waker: &Waker, most: usize) -> bool {
        self.post.prepare_to_sleep(waker, most, || self.is_quiet())
    }

    /// The shard's side: it is awake, for whatever reason.
    pub(crate) fn awake(&self) {
        self.post.awake();
    }

    /// The shard's side: gives permits back.
    pub(crate) fn give_back(&self, permits: usize) {
        if permits > 0 {
            self.post.room().give(permits);
        }
    }

    /// Refuses everything from now on, and drops what is queued: its clients learn that the engine is closed.
    pub(crate) fn close(&self) {
        together(|| self.post.close());
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
        self.post.wakes()
    }
}

/// Why a request could not be posted at once.
#[allow(
    clippy::large_enum_variant,
    reason = "a request is moved, not boxed, on its way in; so is one that comes back"
)]
pub(crate) enum PostError {
    /// There is no room; here it is back.
    Full(Request),
    /// The engine is closed.
    Closed,
}
