//! Who waits for which commit to be durable, in the order of the commits.
//!
//! Since commits become durable in their order, a queue that begins at the first one that is not durable is
//! all it takes: no lookup, and no allocation for a task on the shard's own thread.

use super::request::ReplyTo;
use crate::engine::CommitId;
use crate::error::Error;
use crate::levels::Commit;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::task::Waker;

/// One that waits.
enum Waiter {
    Nobody,
    Task(Waker),
    Client(ReplyTo<CommitId>),
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Waiters {
    /// The newest durable commit.
    durable: Commit,
    /// Those of the commits after it, each with the time when it was sequenced.
    queue: VecDeque<(Waiter, u64)>,
    /// How many of those are clients on other threads.
    clients: usize,
    /// Barriers: those who wait for a commit beside the one whose commit it is.
    barriers: Vec<(Commit, ReplyTo<()>)>,
}

impl Waiters {
    /// Before any commit after `durable`.
    pub(crate) fn new(durable: Commit) -> Self {
        Waiters { durable, ..Waiters::default() }
    }

    /// The newest durable commit.
    pub(crate) fn durable_until(&self) -> Commit {
        self.durable
    }

    /// How many commits are not durable.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many of those are waited for by clients on other threads.
    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// A commit was sequenced.
    #[inline]
    pub(crate) fn sequenced(&mut self, now: u64) {
        self.queue.push_back((Waiter::Nobody, now));
    }

    /// A client waits for a commit that was sequenced just now.
    pub(crate) fn client(&mut self, commit: Commit, reply: ReplyTo<CommitId>) {
        let at = (commit.0 - self.durable.0 - 1) as usize;
        if let Some((waiter, _)) = self.queue.get_mut(at) {
            *waiter = Waiter::Client(reply);
            self.clients += 1;
        }
    }

    /// A task waits for a commit that is not durable.
    pub(crate) fn wait(&mut self, commit: Commit, waker: &Waker) {
        debug_assert!(commit > self.durable);
        let at = (commit.0 - self.durable.0 - 1) as usize;
        if let Some((waiter, _)) = self.queue.get_mut(at)
            && !matches!(waiter, Waiter::Task(known) if known.will_wake(waker))
        {
            *waiter = Waiter::Task(waker.clone());
        }
    }

    /// Someone waits for a commit that may be another's.
    pub(crate) fn barrier(&mut self, commit: Commit, who: ReplyTo<()>) {
        self.barriers.push((commit, who));
    }

    /// Everything up to a commit is durable. Answers how many tasks were woken.
    pub(crate) fn durable(
        &mut self,
        durable: Commit,
        now: u64,
        shard: u16,
        acknowledged: &mut Histogram<u64>,
    ) -> usize {
        let mut commit = self.durable;
        let count = (durable.0 - commit.0) as usize;
        self.durable = durable;
        let (mut run, mut run_at) = (0, 0);
        let mut tasks = 0;
        for (waiter, at) in self.queue.drain(..count.min(self.queue.len())) {
            commit = commit.next();
            // Commits of one turn have one time: count them together.
            if at != run_at && run > 0 {
                acknowledged.saturating_record_n(now.saturating_sub(run_at).max(1), run);
                run = 0;
            }
            (run, run_at) = (run + 1, at);
            match waiter {
                Waiter::Nobody => {}
                Waiter::Task(waker) => {
                    tasks += 1;
                    waker.wake();
                }
                Waiter::Client(reply) => {
                    self.clients -= 1;
                    // The client may have stopped waiting.
                    let _ = reply.send(Ok(CommitId { shard, number: commit }));
                }
            }
        }
        if run > 0 {
            acknowledged.saturating_record_n(now.saturating_sub(run_at).max(1), run);
        }
        for (_, who) in self.barriers.extract_if(.., |(commit, _)| *commit <= durable) {
            let _ = who.send(Ok(()));
        }
        tasks
    }

    /// None of those who wait will get what they wait for. Tasks look at the shard's state when woken.
    pub(crate) fn fail(&mut self, error: &Error) {
        for (waiter, _) in self.queue.drain(..) {
            match waiter {
                Waiter::Nobody => {}
                Waiter::Task(waker) => waker.wake(),
                Waiter::Client(reply) => drop(reply.send(Err(error.clone()))),
            }
        }
        self.clients = 0;
        for (_, who) in self.barriers.drain(..) {
            let _ = who.send(Err(error.clone()));
        }
    }
}
