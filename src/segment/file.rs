//! A segment's file, opened when it is first read and closed when it is dropped.
//!
//! However many reads ask at once, the file is opened once: the first starts the operation, and it belongs to
//! the file, not to that read, so a read that is given up neither loses the descriptor nor stops the others.

use crate::disk::io::{Io, Ticket};
use crate::disk::{FileId, Op, OpenHow, Outcome};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// See the module.
pub(crate) struct SegmentFile {
    io: Io,
    name: String,
    state: RefCell<State>,
}

enum State {
    Closed,
    Opening { ticket: Ticket, waiters: Arc<Waiters> },
    Open { file: FileId, bytes: u64 },
}

/// All who wait for the file to open. A ticket wakes one waker only; this one wakes them all.
#[derive(Default)]
struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    fn add(&self, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl SegmentFile {
    pub(crate) fn new(io: Io, name: String) -> Self {
        SegmentFile { io, name, state: RefCell::new(State::Closed) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file and its length; opens it if need be.
    pub(crate) async fn open(&self) -> io::Result<(FileId, u64)> {
        if let State::Open { file, bytes } = *self.state.borrow() {
            return Ok((file, bytes));
        }
        std::future::poll_fn(|cx| self.poll_open(cx)).await
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<io::Result<(FileId, u64)>> {
        let mut state = self.state.borrow_mut();
        if let State::Closed = *state {
            let op = Op::Open { name: self.name.clone(), how: OpenHow::default() };
            *state = State::Opening { ticket: self.io.start(op), waiters: Arc::default() };
        }
        match &mut *state {
            State::Open { file, bytes } => Poll::Ready(Ok((*file, *bytes))),
            State::Closed => Poll::Ready(Err(io::Error::other("the file did not start to open"))),
            State::Opening { ticket, waiters } => {
                waiters.add(cx.waker());
                let all = Waker::from(waiters.clone());
                let Poll::Ready(done) = Pin::new(ticket).poll(&mut Context::from_waker(&all)) else {
                    return Poll::Pending;
                };
                let result = match done.result {
                    Ok(Outcome::Opened { file, bytes }) => Ok((file, bytes)),
                    Ok(other) => Err(io::Error::other(format!("open answered {other:?}"))),
                    Err(error) => Err(error),
                };
                // Whoever else waits looks again: at the open file, or by trying anew.
                *state = match result {
                    Ok((file, bytes)) => State::Open { file, bytes },
                    Err(_) => State::Closed,
                };
                drop(state);
                all.wake();
                Poll::Ready(result)
            }
        }
    }

    /// What the file is on.
    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    /// Starts to close the file, if it is open.
    pub(crate) fn close(&self) {
        if let Some(file) = self.take_open() {
            drop(self.io.start(Op::Close { file }));
        }
    }

    /// Removes the file, of so many bytes, once it is closed. Removed while it is open, the kernel may give its space back
    /// in the course of the close, on the shard's own thread: tens of milliseconds.
    pub(crate) fn remove(&self, bytes: u64) {
        self.io.remove(self.name.clone(), bytes, self.take_open());
    }

    /// The file, if it is open. Nobody else closes it then.
    fn take_open(&self) -> Option<FileId> {
        match self.state.replace(State::Closed) {
            State::Closed => None,
            State::Open { file, .. } => Some(file),
            // Still under way, the open is left to the disk's handle, as every abandoned ticket is.
            State::Opening { mut ticket, .. } => match ticket.take()?.result {
                Ok(Outcome::Opened { file, .. }) => Some(file),
                _ => None,
            },
        }
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        self.close();
    }
}
