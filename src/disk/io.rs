//! Futures over a [`Disk`]: a cheap handle that every part of a shard shares.
//!
//! [`Io::start`] queues an operation and gives a [`Ticket`] for it. A ticket can be awaited, or polled by hand
//! ([`Ticket::take`]). [`Io::pump`], called once a turn, submits what was queued, collects what completed,
//! and wakes whoever awaits it. A dropped ticket lets its operation complete unheard.

use super::removals::Removals;
use super::{Completion, Disk, DiskStats, FileId, IoBuf, Op, OpenHow, Outcome};
use crate::limits::BULK_IN_FLIGHT_MAX;
use slab::Slab;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::Result;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

enum Slot {
    Waiting(Option<Waker>),
    Finished(Completion),
    Abandoned,
    /// A step of a removal; the next one follows.
    Removal,
}

struct Inner {
    /// Who is to be told that operations were queued outside of a turn.
    driver: Option<Waker>,
    /// A turn is under way: what is queued will be submitted by it.
    in_turn: bool,
    disk: Box<dyn Disk>,
    slots: Slab<Slot>,
    completions: Vec<Completion>,
    removals: Removals,
    bulk: Bulk,
}

/// Marks the tokens of [bulk operations](Io::start_bulk).
const BULK: u64 = 1 << 63;

/// Large operations that can wait, first come first served.
#[derive(Default)]
struct Bulk {
    /// Those that are not started, with their slots.
    waiting: VecDeque<(usize, Op)>,
    in_flight: usize,
}

impl Inner {
    /// Starts bulk operations that wait, as many as may be in flight.
    fn start_bulk(&mut self) {
        while self.bulk.in_flight < BULK_IN_FLIGHT_MAX
            && let Some((slot, op)) = self.bulk.waiting.pop_front()
        {
            self.bulk.in_flight += 1;
            self.disk.start(slot as u64 | BULK, op);
        }
    }

    /// Drops a completion that no one wants. A file that was opened for no one is closed again, as unheard.
    fn forget(&mut self, slot: usize) {
        let Slot::Finished(completion) = self.slots.remove(slot) else { return };
        if let Ok(Outcome::Opened { file, .. }) = completion.result {
            self.queue(Slot::Abandoned, Op::Close { file });
        }
    }

    /// Queues an operation, whose completion goes to a new slot.
    fn queue(&mut self, slot: Slot, op: Op) -> usize {
        let slot = self.slots.insert(slot);
        self.disk.start(slot as u64, op);
        self.announce();
        slot
    }

    /// Sees to it that what was queued is submitted soon.
    fn announce(&self) {
        if let Some(driver) = self.driver.as_ref().filter(|_| !self.in_turn) {
            driver.wake_by_ref();
        }
    }
}

/// A shard's handle to its disk. Clones share the disk.
#[derive(Clone)]
pub struct Io {
    inner: Rc<RefCell<Inner>>,
}

impl Io {
    /// Wraps a disk.
    pub fn new(disk: Box<dyn Disk>) -> Self {
        Io {
            inner: Rc::new(RefCell::new(Inner {
                driver: None,
                in_turn: false,
                disk,
                slots: Slab::new(),
                completions: Vec::new(),
                removals: Removals::new(),
                bulk: Bulk::default(),
            })),
        }
    }

    /// Queues an operation; it goes to the kernel with the next [`Io::pump`].
    pub fn start(&self, op: Op) -> Ticket {
        let slot = self.inner.borrow_mut().queue(Slot::Waiting(None), op);
        Ticket { io: self.clone(), slot: Some(slot) }
    }

    /// Queues a large read or write that can wait for others like it, as those of merges. A disk takes what is in its queue in turn, and a
    /// log write or a read that someone waits for comes behind it: so no more than [`BULK_IN_FLIGHT_MAX`] are in flight. One
    /// whose ticket is dropped while it waits is never started.
    pub(crate) fn start_bulk(&self, op: Op) -> Ticket {
        let mut inner = self.inner.borrow_mut();
        let slot = inner.slots.insert(Slot::Waiting(None));
        inner.bulk.waiting.push_back((slot, op));
        inner.start_bulk();
        inner.announce();
        Ticket { io: self.clone(), slot: Some(slot) }
    }

    /// Removes a file of so many bytes, piece by piece, once it is closed, if it is open, and once those are gone that were
    /// to be removed before. No one hears of it.
    pub(crate) fn remove(&self, name: String, bytes: u64, open: Option<FileId>) {
        let mut inner = self.inner.borrow_mut();
        if let Some(op) = inner.removals.push(name, bytes, open) {
            inner.queue(Slot::Removal, op);
        }
    }

    /// Removes what is still to be removed, each file in one piece, and ends when that is done. To be polled after every
    /// [`Io::pump`]; for the end of a shard, where nothing waits for the device any more.
    pub(crate) async fn removed(&self) {
        self.set_removal_piece(u64::MAX);
        let is_done = |_: &mut Context<'_>| match self.inner.borrow().removals.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        poll_fn(is_done).await;
    }

    /// Sets how many bytes of a file are given back at once.
    pub(crate) fn set_removal_piece(&self, bytes: u64) {
        self.inner.borrow_mut().removals.piece_bytes = bytes;
    }

    /// Sets who is woken when an operation is queued outside of a turn: it is to call [`Io::pump`].
    pub(crate) fn set_driver(&self, waker: &Waker) {
        self.inner.borrow_mut().driver = Some(waker.clone());
    }

    /// Says whether a turn is under way, which ends with a [`Io::pump`].
    pub(crate) fn set_in_turn(&self, in_turn: bool) {
        self.inner.borrow_mut().in_turn = in_turn;
    }

    /// Submits what is queued.
    pub(crate) fn submit(&self) {
        self.inner.borrow_mut().disk.submit();
    }

    /// Submits what is queued, collects what has completed and wakes its waiters. Answers how many completed.
    pub fn pump(&self) -> usize {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        inner.disk.submit();
        inner.disk.collect(&mut inner.completions);
        let count = inner.completions.len();
        for completion in std::mem::take(&mut inner.completions) {
            let slot = (completion.token & !BULK) as usize;
            if completion.token & BULK != 0 {
                inner.bulk.in_flight -= 1;
            }
            match std::mem::replace(&mut inner.slots[slot], Slot::Finished(completion)) {
                // A waker may only schedule; it must not call back into this `Io`.
                Slot::Waiting(waker) => waker.into_iter().for_each(Waker::wake),
                Slot::Abandoned => inner.forget(slot),
                Slot::Removal => {
                    if let Slot::Finished(completion) = inner.slots.remove(slot)
                        && let Some(op) = inner.removals.next(completion.result)
                    {
                        inner.queue(Slot::Removal, op);
                    }
                }
                Slot::Finished(_) => debug_assert!(false, "an operation completed twice"),
            }
        }
        inner.start_bulk();
        count
    }

    /// Blocks until something has completed; only for hosts that have nothing else to do.
    pub fn wait(&self) {
        self.inner.borrow_mut().disk.wait();
    }

    /// Runs a future of a shard that has no loop, or none any more.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result;
            }
            if self.pump() == 0 {
                self.wait();
            }
        }
    }

    /// Nanoseconds of the disk's clock.
    pub fn now(&self) -> u64 {
        self.inner.borrow().disk.now()
    }

    /// See [`Disk::in_flight`].
    pub fn in_flight(&self) -> usize {
        self.inner.borrow().disk.in_flight()
    }

    /// See [`Disk::event_fd`].
    pub fn event_fd(&self) -> Option<OwnedFd> {
        self.inner.borrow().disk.event_fd()
    }

    /// See [`Disk::kind`].
    pub fn kind(&self) -> &'static str {
        self.inner.borrow().disk.kind()
    }

    /// See [`Disk::stats`].
    pub fn stats(&self) -> DiskStats {
        self.inner.borrow().disk.stats()
    }

    /// Opens a file; answers it and its length.
    pub async fn open(&self, name: &str, how: OpenHow) -> Result<(FileId, u64)> {
        match self.start(Op::Open { name: name.to_string(), how }).await.result? {
            Outcome::Opened { file, bytes } => Ok((file, bytes)),
            other => Err(std::io::Error::other(format!("open answered {other:?}"))),
        }
    }

    /// Reads `bytes` (rounded up to pages) at `offset`.
    pub async fn read(&self, file: FileId, offset: u64, bytes: usize) -> Result<IoBuf> {
        self.read_into(file, offset, bytes, IoBuf::default()).await
    }

    /// The same, into a buffer that served before: its memory need not be had from the system again.
    pub async fn read_into(&self, file: FileId, offset: u64, bytes: usize, mut buf: IoBuf) -> Result<IoBuf> {
        buf.resize(bytes);
        let done = self.start(Op::Read { file, offset, buf }).await;
        done.result?;
        Ok(done.buf.unwrap_or_default())
    }

    /// Writes the buffer at `offset` and gives it back.
    pub async fn write(&self, file: FileId, offset: u64, buf: IoBuf) -> Result<IoBuf> {
        let done = self.start(Op::Write { file, offset, buf }).await;
        done.result?;
        Ok(done.buf.unwrap_or_default())
    }

    /// Runs an operation that yields nothing.
    pub async fn run(&self, op: Op) -> Result<()> {
        self.start(op).await.result.map(drop)
    }

    /// Lists the folder's files with their lengths, sorted by name.
    pub async fn list(&self) -> Result<Vec<(String, u64)>> {
        match self.start(Op::List).await.result? {
            Outcome::Names(mut names) => {
                names.sort();
                Ok(names)
            }
            other => Err(std::io::Error::other(format!("list answered {other:?}"))),
        }
    }
}

/// The claim to one operation's completion.
#[must_use = "a dropped ticket's outcome is lost"]
pub struct Ticket {
    io: Io,
    slot: Option<usize>,
}

impl Ticket {
    /// The completion, if it is there; after that the ticket is spent.
    pub fn take(&mut self) -> Option<Completion> {
        let slot = self.slot?;
        let mut inner = self.io.inner.borrow_mut();
        if !matches!(inner.slots[slot], Slot::Finished(_)) {
            return None;
        }
        self.slot = None;
        match inner.slots.remove(slot) {
            Slot::Finished(completion) => Some(completion),
            _ => None,
        }
    }
}

impl Future for Ticket {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        if let Some(completion) = self.take() {
            return Poll::Ready(completion);
        }
        if let Some(slot) = self.slot {
            let mut inner = self.io.inner.borrow_mut();
            inner.slots[slot] = Slot::Waiting(Some(cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut inner = self.io.inner.borrow_mut();
        match inner.slots[slot] {
            Slot::Finished(_) => inner.forget(slot),
            _ => match inner.bulk.waiting.iter().position(|(waiting, _)| *waiting == slot) {
                Some(at) => {
                    inner.bulk.waiting.remove(at);
                    inner.slots.remove(slot);
                }
                None => inner.slots[slot] = Slot::Abandoned,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::simulated::{Simulated, SimulatedFolder, SimulatedOptions};
    use crate::limits::PAGE_BYTES;

    fn page(of: u8) -> IoBuf {
        let mut buf = IoBuf::zeroed(PAGE_BYTES);
        buf.fill(of);
        buf
    }

    #[test]
    fn few_bulk_operations_are_in_flight_and_those_given_up_are_never_started() {
        let folder = SimulatedFolder::new();
        let io = Io::new(Box::new(Simulated::new(&folder, SimulatedOptions::default())));
        let how = OpenHow { write: true, create_new: true, durable: false };
        let (file, _) = io.block_on(io.open("a", how)).unwrap();
        let write = |at: u64| Op::Write { file, offset: at * PAGE_BYTES as u64, buf: page(at as u8 + 1) };
        let mut tickets: Vec<_> = (0..8).map(|at| Some(io.start_bulk(write(at)))).collect();
        // In flight already, or still waiting.
        for given_up in [0, 3, 7] {
            tickets[given_up] = None;
        }
        let awaited = io.start(write(9));
        for (at, ticket) in tickets.into_iter().enumerate() {
            assert!(io.in_flight() <= BULK_IN_FLIGHT_MAX + 1, "before {at}");
            if let Some(ticket) = ticket {
                io.block_on(ticket).result.unwrap();
            }
        }
        io.block_on(awaited).result.unwrap();
        assert_eq!((io.in_flight(), io.inner.borrow().slots.len()), (0, 0));
        let bytes = &folder.files()["a"];
        let written = |at: usize| bytes.get(at * PAGE_BYTES).copied().unwrap_or_default();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 9].map(written), [1, 2, 3, 0, 5, 6, 7, 0, 10]);
    }
}
