//! What an operation that crosses threads returns: a future for any runtime, and a wait for a plain thread.

use crate::bell;
use crate::error::{Error, Result};
use crate::linger::Linger;
use crate::shard::host::is_hosting;
use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;

/// The answer of a shard, to be awaited on any async runtime, or waited for with [`Answer::wait`] on a plain
/// thread.
///
/// The operation is on its way when the answer is handed out, unless the shard's mailbox was full: then it is
/// sent when there is room, while the answer is awaited. Dropping an answer does not undo an operation that
/// is on its way.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// let first = users.put("ada", "1815");
/// let second = users.put("grace", "1906"); // both are in flight
/// assert!(first.wait()?.number < second.wait()?.number);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an answer must be awaited or waited for; a full mailbox sends only then"]
pub struct Answer<T> {
    state: State<T>,
    /// How a thread waits for it.
    wait: Wait,
}

/// How a thread waits.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// It looks for so long before it sleeps.
    Looks(Duration),
    /// It sleeps until a bell wakes it, together with the others that one log write has answered.
    Sleeps(bell::Number),
}

impl Wait {
    /// For what is there, or comes at its own time.
    pub(crate) const NONE: Self = Wait::Looks(Duration::ZERO);
}

enum State<T> {
    Sent(oneshot::Receiver<Result<T>>, u16),
    Waiting(Pin<Box<dyn Future<Output = Result<T>> + Send>>),
    Ready(Option<Result<T>>),
}

impl<T> Answer<T> {
    /// What a shard will answer.
    pub(crate) fn sent(receiver: oneshot::Receiver<Result<T>>, shard: u16, wait: Wait) -> Self {
        Answer { state: State::Sent(receiver, shard), wait }
    }

    pub(crate) fn later(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Answer { state: State::Waiting(Box::pin(future)), wait: Wait::NONE }
    }

    pub(crate) fn ready(result: Result<T>) -> Self {
        Answer { state: State::Ready(Some(result)), wait: Wait::NONE }
    }

    /// Waits for the answer on this thread. Not for use within an async task: it blocks.
    ///
    /// # Errors
    ///
    /// Besides the operation's own: [`Error::Invalid`] on a shard's thread, which must not wait for itself or for
    /// another; await the answer there.
    pub fn wait(self) -> Result<T> {
        let wait = self.wait;
        wait_for(self, wait)
    }
}

/// Waits for a future on this thread; an error on a shard's thread, where it is not done at once.
pub(crate) fn wait_for<T>(future: impl Future<Output = Result<T>>, wait: Wait) -> Result<T> {
    // A task that blocks, which it should not, would use up its share of tokio's runtime, and then wait for an answer that it is not to see.
    let mut future = pin!(unconstrained(future));
    if is_hosting() {
        return match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Error::invalid("wait", "on a shard's thread, which it would block; await")),
        };
    }
    let linger = match wait {
        Wait::Looks(linger) => linger,
        Wait::Sleeps(number) => {
            return bell::wait(number, |waker| match future.as_mut().poll(&mut Context::from_waker(waker)) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
        }
    };
    UNPARKS_THIS.with(|waker| {
        let mut context = Context::from_waker(waker);
        let mut result = None;
        let mut is_done = || {
            if let Poll::Ready(got) = future.as_mut().poll(&mut context) {
                result = Some(got);
            }
            result.is_some()
        };
        // The first look may be what sends it.
        let mut known = LINGER.get();
        let done = is_done() || known.look(linger, &mut is_done);
        LINGER.set(known);
        while !done && !is_done() {
            // Also returns for a waking that was meant for another: so it is looked again.
            thread::park();
        }
        // There is one: the loop ends with it. A shard that is gone would say the same.
        result.unwrap_or(Err(Error::Closed))
    })
}

thread_local! {
    static UNPARKS_THIS: Waker = Waker::from(Arc::new(Unparks(thread::current())));
    /// What this thread's waiting has come to.
    static LINGER: Cell<Linger> = Cell::default();
}

/// Ends a thread's [`thread::park`].
///
/// That takes no lock. A thread that is woken through a condition variable while its waker holds the lock wakes in order
/// to wait for the lock: two wakings and four switches for each answer, half of what a commit of a plain thread cost.
struct Unparks(Thread);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

// No state is pinned in place: a receiver is `Unpin`, and the future is boxed.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.state {
            // A shard that went away without an answer has been closed.
            State::Sent(receiver, shard) => Pin::new(receiver).poll(cx).map(|got| {
                let shard = *shard;
                got.unwrap_or(Err(Error::Closed)).map_err(|error| error.on_shard(shard))
            }),
            State::Waiting(future) => future.as_mut().poll(cx),
            State::Ready(result) => Poll::Ready(result.take().unwrap_or(Err(Error::Closed))),
        }
    }
}

impl<T> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_for_its_answer_whoever_wakes_it() {
        let (send, receive) = oneshot::channel();
        let (begin, begun) = std::sync::mpsc::channel();
        let waiting = thread::spawn(move || {
            begin.send(()).unwrap();
            Answer::sent(receive, 0, Wait::NONE).wait()
        });
        begun.recv().unwrap();
        // As a thread does whose `park` is used for something else, too.
        for _ in 0..1000 {
            waiting.thread().unpark();
            thread::yield_now();
        }
        assert!(!waiting.is_finished());
        send.send(Ok(7)).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 7);
        // What is there before anybody waits needs no waking.
        let (send, receive) = oneshot::channel();
        send.send(Ok(8)).unwrap();
        assert_eq!(Answer::sent(receive, 0, Wait::NONE).wait().unwrap(), 8);
        // A shard that went away is closed.
        let (send, receive) = oneshot::channel::<Result<u32>>();
        drop(send);
        assert!(matches!(Answer::sent(receive, 0, Wait::NONE).wait(), Err(Error::Closed)));
    }

    #[test]
    fn a_task_that_blocks_gets_all_its_answers() {
        // More than a task of tokio's may look at before it gives way.
        const ANSWERS: u32 = 1000;
        let (done, ended) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let bells = bell::Bells::new();
                for (answer, wait) in
                    (0..ANSWERS).zip([Wait::NONE, Wait::Sleeps(bells.current())].into_iter().cycle())
                {
                    let (send, receive) = oneshot::channel();
                    send.send(Ok(answer)).unwrap();
                    assert_eq!(Answer::sent(receive, 0, wait).wait().unwrap(), answer);
                }
            });
            done.send(()).unwrap();
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Ok(()));
    }
}
