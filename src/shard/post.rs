//! The protocol between the threads that post to a shard and the shard that sleeps: no wake is lost, none is sent in vain.
//!
//! 1. Who posts has taken permits of the room before, so there is a place. It pushes, fences, and wakes the shard only
//!    where that sleeps.
//! 2. The shard, before it sleeps: registers its waker, says in `sleeps_for` that it does, fences, looks at the queue again,
//!    and only then sleeps. Either it sees what was pushed, or who posts sees that it sleeps: with both fences
//!    sequentially consistent, at least one of the two stores comes before the other side's look.
//! 3. A shard that something else will wake soon may sleep until so many are posted, as far as they are patient: then the
//!    last of them wakes it. Of several who post at once, the one whose fence is last sees what all have pushed.
//! 4. Closing is the same between two others: who closes closes the room, fences, and empties the queue; who posts
//!    pushes, fences, looks whether the room is closed, and if so empties the queue, too.
//!
//! It is generic over what it is made of ([`Parts`]), so that the very code that runs in the engine
//! ([`crate::shard::mailbox`]) is run by loom, in every order of its steps (`post/model.rs`).

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod model;

use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::task::Waker;
use tokio::sync::{Semaphore, TryAcquireError};

/// What the protocol is made of.
pub(crate) trait Parts {
    /// The queue of what is posted.
    type Queue<T>: Queue<T>;
    /// The places in it.
    type Room: Room;
    /// A number that both sides read and set.
    type Number: Number;
    /// What wakes it.
    type Alarm: Alarm;
    /// A sequentially consistent fence.
    fn fence();
}

/// A bounded queue, for any number of threads.
pub(crate) trait Queue<T> {
    fn new(capacity: usize) -> Self;
    /// Whether there was a place.
    fn push(&self, item: T) -> bool;
    fn pop(&self) -> Option<T>;
    fn len(&self) -> usize;
}

/// Permits, waited for in the order of asking.
pub(crate) trait Room {
    fn new(permits: usize) -> Self;
    fn try_take(&self, permits: u32) -> Result<(), Refused>;
    /// False where the room is closed, or is while this waits.
    fn take(&self, permits: u32) -> impl Future<Output = bool>;
    fn give(&self, permits: usize);
    fn close(&self);
    fn is_closed(&self) -> bool;
}

/// Why there are no permits now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// An atomic number, 0 at first.
pub(crate) trait Number {
    fn new() -> Self;
    fn load(&self, order: Ordering) -> usize;
    fn store(&self, value: usize, order: Ordering);
    fn swap(&self, value: usize, order: Ordering) -> usize;
}

/// A place for one waker.
pub(crate) trait Alarm {
    fn new() -> Self;
    fn register(&self, waker: &Waker);
    /// Wakes who registered last, if that was not done.
    fn wake(&self);
}

/// See the module's text.
pub(crate) struct Post<T, P: Parts> {
    queue: P::Queue<T>,
    room: P::Room,
    /// How many have to be posted until the shard is to be woken; 0 while it is awake.
    sleeps_for: P::Number,
    alarm: P::Alarm,
    wakes_sent: AtomicU64,
    wakes_saved: AtomicU64,
}

impl<T, P: Parts> Post<T, P> {
    pub(crate) fn new(capacity: usize) -> Self {
        Post {
            queue: P::Queue::new(capacity),
            room: P::Room::new(capacity),
            sleeps_for: P::Number::new(),
            alarm: P::Alarm::new(),
            wakes_sent: AtomicU64::new(0),
            wakes_saved: AtomicU64::new(0),
        }
    }

    /// The permits: one at least is taken for each [`Post::push`].
    #[inline]
    pub(crate) fn room(&self) -> &P::Room {
        &self.room
    }

    /// Posts what permits were taken for. With `patient` it may wait for as long as the shard said that it can.
    #[inline]
    pub(crate) fn push(&self, item: T, patient: bool) {
        let pushed = self.queue.push(item);
        debug_assert!(pushed, "a permit without a place");
        self.wake_for(patient);
        // Pairs with the fence in `close`: either that one's look at the queue finds the item, or this one
        // finds that no one will look any more.
        P::fence();
        if self.room.is_closed() {
            self.drain();
        }
    }

    /// Drops what is in the queue.
    fn drain(&self) {
        while let Some(item) = self.queue.pop() {
            drop(item);
        }
    }

    /// Wakes the shard if it sleeps. The caller has made its news visible before.
    #[inline]
    pub(crate) fn wake(&self) {
        self.wake_for(false);
    }

    #[inline]
    fn wake_for(&self, patient: bool) {
        // Pairs with the fence in `prepare_to_sleep`.
        P::fence();
        let sleeps_for = self.sleeps_for.load(Ordering::Relaxed);
        let enough = sleeps_for > 0 && (!patient || sleeps_for == 1 || self.queue.len() >= sleeps_for);
        // Acquire and Release pair with those there: who takes it upon itself to wake has the waker that was registered
        // for this sleep, and who says that it sleeps says so after what was said of the sleep before.
        if enough && self.sleeps_for.swap(0, Ordering::AcqRel) > 0 {
            self.wakes_sent.fetch_add(1, Ordering::Relaxed);
            self.alarm.wake();
        } else {
            self.wakes_saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The shard's side: what was posted first.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// How much is posted and not taken up.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The shard's side: whether it may sleep. `quiet` looks for news of other kinds, whose bearers call [`Post::wake`].
    /// After `true`, `waker` is woken by what is posted: by all that is not patient, and by the last of `most` that are.
    /// So with more than one, something else has to wake the shard after a while.
    pub(crate) fn prepare_to_sleep(&self, waker: &Waker, most: usize, quiet: impl FnOnce() -> bool) -> bool {
        self.alarm.register(waker);
        // Pairs with the other swap, in `wake`.
        self.sleeps_for.swap(most.max(1), Ordering::AcqRel);
        // Pairs with the fence in `wake`.
        P::fence();
        if self.queue.len() == 0 && quiet() {
            return true;
        }
        self.awake();
        false
    }

    /// The shard's side: it is awake, for whatever reason.
    #[inline]
    pub(crate) fn awake(&self) {
        self.sleeps_for.store(0, Ordering::Relaxed);
    }

    /// Refuses everything from now on, and drops what is queued.
    pub(crate) fn close(&self) {
        self.room.close();
        // Pairs with the fence in `push`.
        P::fence();
        self.drain();
    }

    /// Wakes sent, and wakes saved because the shard was awake.
    pub(crate) fn wakes(&self) -> (u64, u64) {
        (self.wakes_sent.load(Ordering::Relaxed), self.wakes_saved.load(Ordering::Relaxed))
    }
}

/// What the engine's mailboxes are made of.
pub(crate) struct Real;

impl Parts for Real {
    type Queue<T> = ArrayQueue<T>;
    type Room = Semaphore;
    type Number = AtomicUsize;
    type Alarm = AtomicWaker;

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl<T> Queue<T> for ArrayQueue<T> {
    fn new(capacity: usize) -> Self {
        ArrayQueue::new(capacity)
    }

    #[inline]
    fn push(&self, item: T) -> bool {
        ArrayQueue::push(self, item).is_ok()
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        ArrayQueue::pop(self)
    }

    fn len(&self) -> usize {
        ArrayQueue::len(self)
    }
}

impl Room for Semaphore {
    fn new(permits: usize) -> Self {
        Semaphore::new(permits)
    }

    #[inline]
    fn try_take(&self, permits: u32) -> Result<(), Refused> {
        match self.try_acquire_many(permits) {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(Refused::Full),
            Err(TryAcquireError::Closed) => Err(Refused::Closed),
        }
    }

    async fn take(&self, permits: u32) -> bool {
        match self.acquire_many(permits).await {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_closed) => false,
        }
    }

    fn give(&self, permits: usize) {
        self.add_permits(permits);
    }

    fn close(&self) {
        Semaphore::close(self);
    }

    #[inline]
    fn is_closed(&self) -> bool {
        Semaphore::is_closed(self)
    }
}

impl Number for AtomicUsize {
    fn new() -> Self {
        AtomicUsize::new(0)
    }

    #[inline]
    fn load(&self, order: Ordering) -> usize {
        AtomicUsize::load(self, order)
    }

    #[inline]
    fn store(&self, value: usize, order: Ordering) {
        AtomicUsize::store(self, value, order);
    }

    #[inline]
    fn swap(&self, value: usize, order: Ordering) -> usize {
        AtomicUsize::swap(self, value, order)
    }
}

impl Alarm for AtomicWaker {
    fn new() -> Self {
        AtomicWaker::new()
    }

    fn register(&self, waker: &Waker) {
        AtomicWaker::register(self, waker);
    }

    fn wake(&self) {
        AtomicWaker::wake(self);
    }
}
