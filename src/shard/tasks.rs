//! A shard's own tasks: reads that wait for the disk, paths being resolved. Polled once a turn.

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Tasks {
    running: RefCell<FuturesUnordered<Task>>,
    /// Added while tasks were being polled.
    added: RefCell<Vec<Task>>,
    woken: Arc<Woken>,
}

/// A waker that leaves a note. Atomic because wakers are; only the shard's thread uses it.
#[derive(Default)]
struct Woken {
    flag: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Relaxed);
    }
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

    /// Polls the tasks that can go on. Answers whether some can go on at once: they woke themselves or each
    /// other, or there are too many for one turn. (Most are woken when the disk's operations complete, which happens
    /// within a turn, before this.)
    pub(crate) fn poll(&self) -> bool {
        let mut running = self.running.borrow_mut();
        let waker = Waker::from(self.woken.clone());
        self.woken.flag.store(false, Ordering::Relaxed);
        loop {
            running.extend(self.added.take());
            match Pin::new(&mut *running).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.added.borrow().is_empty() => break,
                _ => {}
            }
        }
        self.woken.flag.load(Ordering::Relaxed)
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.running.borrow().len() + self.added.borrow().len()
    }

    /// Drops all tasks.
    pub(crate) fn clear(&self) {
        self.running.borrow_mut().clear();
        self.added.borrow_mut().clear();
    }
}
