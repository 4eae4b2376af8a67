//! A shard's own tasks: reads that wait for the disk, paths being resolved. Polled once a turn.

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Tasks {
    running: RefCell<FuturesUnordered<Task>>,
    /// Added while tasks were being polled.
    added: RefCell<Vec<Task>>,
}

impl Tasks {
    /// Runs a task: at once as far as it goes, then in later turns.
    ///
    /// Most reads find all they need in memory and are over here.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + 'static) {
        let mut task: Task = Box::pin(task);
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.added.borrow_mut().push(task);
        }
    }

    /// Polls the tasks that can go on. Their wakers are woken when the disk's operations complete, which
    /// happens within a turn, before this.
    pub(crate) fn poll(&self) {
        let mut running = self.running.borrow_mut();
        loop {
            running.extend(self.added.take());
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut *running).poll_next(&mut cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.added.borrow().is_empty() => return,
                _ => {}
            }
        }
    }

    /// Drops all tasks.
    pub(crate) fn clear(&self) {
        self.running.borrow_mut().clear();
        self.added.borrow_mut().clear();
    }
}
