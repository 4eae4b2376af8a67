//! One core's share of an engine: its thread, log, memtable, segments and compactor.
//!
//! [`Core`] is all of a shard. It is single-threaded and driven from outside: [`Core::turn`] does a bounded
//! piece of everything that is due and says whether there is more. On a real disk [`host`] drives it, on the
//! shard's own thread; in tests and simulations anything can, since a core reads no clock and no file but
//! through its disk.
//!
//! A turn, in order ([`Core::turn`]):
//!
//! 1. submit and collect disk operations;
//! 2. take the log's durable prefix and acknowledge the commits in it (`acknowledge`);
//! 3. sequence commits that wait, as room and pace allow (`sequence`);
//! 4. do the reads that on-core tasks have left to this turn ([`gather`]);
//! 5. start log writes (`write_log`), and hand them to the disk: it works while this core compacts; then wake the threads
//!    that were answered ([`bell`]);
//! 6. one slice of compaction, if one is owed or there is nothing else to do (`compaction`);
//! 7. tasks: reads that wait for the disk, scans, paths being resolved;
//! 8. submit again.
//!
//! Promises: a turn takes bounded time; commits are sequenced in the order in which they arrive; nothing here
//! blocks.

pub(crate) mod catalog;
pub(crate) mod compaction;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub(crate) mod gather;
pub(crate) mod host;
pub(crate) mod install;
pub(crate) mod local;
pub(crate) mod local_scan;
pub(crate) mod mailbox;
pub(crate) mod open;
pub(crate) mod post;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod schedule;
pub(crate) mod sequence;
pub(crate) mod serve;
pub(crate) mod snapshots;
pub(crate) mod statistics;
pub(crate) mod tasks;
pub(crate) mod tip;
pub(crate) mod verify;
pub(crate) mod waiters;

use crate::bell::{self, Bells};
use crate::cache::BlockCache;
use crate::disk::io::Io;
use crate::engine::Retained;
use crate::entry::DirectoryId;
use crate::error::{Error, Result};
use crate::levels::{Budget, Commit, Divisor, History};
use crate::limits;
use crate::log::Log;
use crate::options::{Durability, Fixed};
use crate::probes;
use crate::read::Allowance;
use crate::segment::{Leftover, SegmentOptions};
use crate::stats::Stages;
use crate::view::Frame;
use catalog::Catalog;
use compaction::Compaction;
use gather::Gathering;
use install::Installer;
use local::Spawner;
use request::ReplyTo;
use sequence::Queued;
use snapshots::Snapshots;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use tasks::Tasks;
use tip::Tip;
use waiters::Waiters;

/// How a shard is set up: what was fixed at creation and what was chosen at open.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) shard: u16,
    pub(crate) fixed: Fixed,
    pub(crate) divisor: Divisor,
    pub(crate) budget: Budget,
    pub(crate) segments: SegmentOptions,
    pub(crate) durability: Durability,
    /// Bytes that this shard's memtables may take.
    pub(crate) memtable_bytes: usize,
    pub(crate) group_bytes: usize,
    /// The least length of a generation of the manifest, in bytes.
    pub(crate) manifest_bytes: u64,
}

/// One shard.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) io: Io,
    pub(crate) cache: Rc<BlockCache>,
    pub(crate) state: RefCell<State>,
    pub(crate) tasks: Tasks,
    pub(crate) snapshots: RefCell<Snapshots>,
    pub(crate) gathering: Gathering,
    /// What scans may look at in a turn.
    pub(crate) allowance: Rc<Allowance>,
    /// Wakes whoever drives the turns.
    driver: RefCell<Option<Waker>>,
    /// What wakes threads that wait for its commits, if it has a mailbox.
    pub(crate) bells: OnceCell<Arc<Bells>>,
    /// To submit is to hand over to a ring, not to do what is queued.
    pub(crate) has_ring: bool,
    /// Runs on-core tasks.
    spawner: RefCell<Option<Spawner>>,
    /// There is news since the last turn began.
    kicked: Cell<bool>,
    /// Held by each on-core task.
    hosted: Rc<()>,
    /// Completions since the last turn.
    seen: Cell<usize>,
    /// The disk's clock when the last turn began, in nanoseconds.
    now: Cell<u64>,
}

/// What changes from commit to commit.
pub(crate) struct State {
    // The sequence.
    pub(crate) tip: Tip,
    pub(crate) history: History,
    pub(crate) catalog: Catalog,

    // The way of a commit.
    pub(crate) log: Log,
    pub(crate) queue: VecDeque<Queued>,
    /// Barriers that wait for commits in the queue: for so many from its front.
    pub(crate) barriers: Vec<(usize, ReplyTo<()>)>,
    pub(crate) waiters: Waiters,
    /// A commit up to which the log is to be written without delay.
    pub(crate) urgent: Commit,
    /// The log tries again to make a file ready, for the commit that waits.
    pub(crate) shortage_tried: bool,
    /// When the oldest buffered commit must be on its way, in the disk's nanoseconds.
    pub(crate) write_by: Option<u64>,
    /// Commits staged when the last turn looked.
    staged_before: usize,
    /// For so many turns the log write was held back for tasks that were answered just now, whether reads or commits.
    held: u32,

    // Compaction.
    pub(crate) compaction: Compaction,
    pub(crate) installer: Installer,
    /// What removed segments have left in the cache.
    pub(crate) leftovers: VecDeque<Leftover>,

    // The end.
    pub(crate) poisoned: Option<Error>,
    pub(crate) closing: Option<ReplyTo<()>>,
    pub(crate) closed: bool,

    // Figures.
    pub(crate) stages: Stages,
    pub(crate) commits: u64,
    /// Bytes applied by the replay of the log.
    pub(crate) bytes_replayed: u64,
    pub(crate) log_starts: VecDeque<(Commit, u64)>,

    /// Memory for the record being made, and for its operations' directories.
    pub(crate) record: Vec<u8>,
    pub(crate) ids: Vec<Option<DirectoryId>>,
}

/// What became of the commits that are staged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LogWrite {
    /// There are none, or it is too early to write them.
    None,
    /// It would be time, but more are about to come.
    Held,
    /// They are on their way.
    Started,
}

/// What a turn leaves to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// More at once.
    Busy,
    /// Nothing until an operation completes, a request comes, or the clock reaches the time, if there is one.
    Idle(Option<u64>),
    /// The shard is closed.
    Closed,
}

impl Core {
    /// The newest commit.
    pub(crate) fn last(&self) -> Commit {
        self.state.borrow().tip.schedule.at
    }

    /// All that a read of the newest commit needs.
    pub(crate) fn frame(&self) -> Frame {
        let state = self.state.borrow();
        state.tip.active.see();
        Frame {
            commit: state.tip.schedule.at,
            active: state.tip.active.clone(),
            view: state.tip.view.clone(),
        }
    }

    /// All that a read as of a commit needs.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`].
    pub(crate) fn frame_as_of(&self, asked: Commit) -> Result<Frame> {
        let frame = self.frame();
        let state = self.state.borrow();
        let (divisor, newest) = (self.config.divisor, frame.commit);
        if !state.history.retained(divisor, asked, newest) {
            let nearest = Some(state.history.nearest(divisor, asked, newest));
            return Err(Error::NotRetained { shard: self.config.shard, asked, nearest });
        }
        Ok(Frame { commit: asked, ..frame })
    }

    /// Which commits can be read as of.
    pub(crate) fn retained(&self) -> Retained {
        let state = self.state.borrow();
        let (history, newest) = (state.history.clone(), state.tip.schedule.at);
        Retained { history, divisor: self.config.divisor, newest }
    }

    /// Sets who is woken when there is something to do outside of a turn.
    pub(crate) fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *driver = Some(waker.clone());
            self.io.set_driver(waker);
            self.allowance.set_driver(waker);
        }
    }

    /// Sets who runs on-core tasks.
    pub(crate) fn set_spawner(&self, spawner: Option<Spawner>) {
        *self.spawner.borrow_mut() = spawner;
    }

    /// Runs an on-core task. Where the shard is closing, the task is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(spawner) = &*self.spawner.borrow() {
            let hosted = self.hosted.clone();
            spawner(Box::pin(async move {
                let _hosted = hosted;
                task.await;
            }));
        }
    }

    /// Whether there are on-core tasks. Those that tasks have started past [`Core::spawn`] are not counted.
    pub(crate) fn has_tasks(&self) -> bool {
        Rc::strong_count(&self.hosted) > 1
    }

    /// Says that there is something to do.
    #[inline]
    pub(crate) fn kick(&self) {
        if !self.kicked.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    /// The disk's clock at the beginning of the turn, in nanoseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Looks for completions between two turns; the next one goes on with them. Answers whether there are some.
    pub(crate) fn pump(&self) -> bool {
        let completed = self.io.pump();
        self.seen.update(|seen| seen + completed);
        completed > 0
    }

    /// One turn; see the module's text.
    pub(crate) fn turn(self: &Rc<Self>) -> Turn {
        self.io.set_in_turn(true);
        let turn = self.turn_inner();
        self.io.set_in_turn(false);
        turn
    }

    fn turn_inner(self: &Rc<Self>) -> Turn {
        probes::turn_begun(self.config.shard);
        self.kicked.set(false);
        let completed = self.seen.take() + self.io.pump();
        self.now.set(self.io.now());
        self.gathering.begin_turn();
        // Threads that wait for what has become durable are woken when the next log write is on its way: one of them may take the core.
        let (sequenced, answered, log_write) = bell::together(|| {
            let acknowledged = self.acknowledge();
            let sequenced = self.sequence_queue();
            let answered = self.answer_gathered();
            let log_write = self.write_log(acknowledged, answered);
            if log_write == LogWrite::Started {
                // Before those who are woken come again.
                if let Some(bells) = self.bells.get() {
                    bells.go_on();
                }
                if self.has_ring {
                    self.io.submit();
                }
            }
            (sequenced, answered, log_write)
        });
        if log_write == LogWrite::Started && !self.has_ring {
            // To submit is to write: nobody is to wait for that who was answered before.
            self.io.submit();
        }
        let staged = self.staged_moves();
        // A write that is held back is looked at again in the next turn, whatever comes before.
        let active = completed > 0 || sequenced > 0 || log_write != LogWrite::None || staged;
        let compacted = self.compact(!active, answered > 0);
        let woken = self.tasks.poll() || self.allowance.is_awaited();
        if self.state.borrow().closing.is_some() && bell::together(|| self.try_close()) {
            return Turn::Closed;
        }
        let late = self.io.pump();
        let took = self.io.now().saturating_sub(self.now());
        self.state.borrow_mut().stages.turn.saturating_record(took.max(1));
        probes::turn_ended(self.config.shard, took);
        if active || answered > 0 || compacted || woken || late > 0 || self.kicked.get() {
            Turn::Busy
        } else {
            Turn::Idle(self.next_deadline())
        }
    }

    /// Takes what has become durable, and answers whoever waits for it. Answers for how many commits tasks on this core did.
    fn acknowledge(&self) -> usize {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        match state.log.poll() {
            Ok(None) => 0,
            Ok(Some(durable)) => {
                probes::log_durable(self.config.shard, durable);
                while let Some((last, started)) = state.log_starts.front().copied()
                    && last <= durable
                {
                    state.log_starts.pop_front();
                    state.stages.log_write.saturating_record(now.saturating_sub(started).max(1));
                }
                let tasks =
                    state.waiters.durable(durable, now, self.config.shard, &mut state.stages.acknowledged);
                self.gathering.expect(tasks);
                probes::log_acknowledged(self.config.shard, durable);
                tasks
            }
            Err(error) => {
                self.poison(state, error);
                0
            }
        }
    }

    /// Ends the acknowledging: nothing that is not durable by now will be.
    fn poison(&self, state: &mut State, error: Error) {
        if state.poisoned.is_some() {
            return;
        }
        let error =
            Error::Poisoned { shard: self.config.shard, source: Box::new(error.on_shard(self.config.shard)) };
        state.waiters.fail(&error);
        for queued in state.queue.drain(..) {
            queued.reply.send(Err(error.clone()));
        }
        for (_, who) in state.barriers.drain(..) {
            let _ = who.send(Err(error.clone()));
        }
        state.poisoned = Some(error);
    }

    /// Whether commits were staged since the last turn: more may be on their way, so it is early to write.
    fn staged_moves(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let staged = state.log.staged().0;
        std::mem::replace(&mut state.staged_before, staged) < staged
    }

    /// Starts log writes, if it is time. In this turn tasks on this core were told that so many commits are durable
    /// (`acknowledged`), and were given what so many reads found (`answered`): they run next, and may come with commits.
    ///
    /// Group commit clocks itself. What comes while tasks are still running and writes are in flight makes the
    /// next group, which is written once two of three hold: nothing more comes (a turn in which nothing was staged),
    /// no write is in flight, and it has a few pages. A write costs the processor as much whatever its size: small
    /// ones beside one another would take it from the commits that they carry. While tasks come back from reads, or from more
    /// commits than are staged, a turn in which nothing was staged does not say that nothing more comes, but only
    /// [`HELD_TURNS_MAX`] times. (Else the few commits that came too late for one write would get the next, and all the
    /// others, who come back meanwhile, wait for that.)
    fn write_log(&self, acknowledged: usize, answered: usize) -> LogWrite {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let (records, bytes) = state.log.staged();
        if records == 0 || state.poisoned.is_some() {
            return LogWrite::None;
        }
        let due = state.write_by.is_some_and(|by| by <= now) || state.closing.is_some();
        let urgent = state.urgent > state.log.started();
        let settled = records == state.staged_before;
        let full = bytes >= self.config.group_bytes / 2;
        let quiet = state.log.in_flight() == 0;
        let enough = bytes >= GROUP_BYTES_ENOUGH;
        let ripe = (settled && (quiet || enough)) || (quiet && enough);
        let start = due || full || (urgent && ripe);
        if !start {
            return LogWrite::None;
        }
        let must = due || full || (quiet && enough);
        let more = answered > 0 || acknowledged > records;
        if more && !must && state.held < HELD_TURNS_MAX {
            state.held += 1;
            return LogWrite::Held;
        }
        let before = state.log.stats();
        let started = state.log.start_writes();
        if started == 0 {
            return LogWrite::None;
        }
        state.held = 0;
        let records = state.log.stats().records - before.records;
        probes::log_write_started(self.config.shard, state.log.started(), records, started);
        state.stages.group.saturating_record(records / started as u64);
        state.log_starts.push_back((state.log.started(), now));
        if state.log.staged().0 == 0 {
            state.write_by = None;
        }
        state.staged_before = state.log.staged().0;
        LogWrite::Started
    }

    /// For how many durable commits from other threads it may sleep before they wake it.
    ///
    /// While a log write is in flight, that is half as many as wait for it and behind it: its end wakes the shard soon. A
    /// wake costs as much as several commits, and so does a log write; clients that were answered together come back
    /// one after another, and without this each would be woken for, and the first few get a write of their own. Where
    /// few wait, the next one wakes it at once: with nothing else to share the write with, it would only wait longer.
    pub(crate) fn patience(&self) -> usize {
        let state = self.state.borrow();
        if state.log.in_flight() > 0 { (state.waiters.len() / 2).max(1) } else { 1 }
    }

    /// Whether those who wait for commits are, for the greater part, tasks on this core.
    pub(crate) fn is_waited_for_here(&self) -> bool {
        let state = self.state.borrow();
        self.has_tasks() && state.waiters.clients() * 2 <= state.waiters.len()
    }

    /// When the next thing is due by the clock.
    fn next_deadline(&self) -> Option<u64> {
        let state = self.state.borrow();
        let staged = state.log.staged().0 > 0;
        let write = state.write_by.filter(|_| staged && state.poisoned.is_none());
        // What is past already waits for something else: an operation to complete, a file to be made ready.
        let retry = state.compaction.retry_at().filter(|_| state.poisoned.is_none());
        [write, retry].into_iter().flatten().filter(|&at| at > self.now()).min()
    }

    /// Whether a log write takes so long that kernel threads may be waiting for the core.
    pub(crate) fn log_is_late(&self) -> bool {
        let started = self.state.borrow().log_starts.front().map(|(_, started)| *started);
        started.is_some_and(|started| self.now().saturating_sub(started) > LOG_LATE_NANOS)
    }

    /// Works towards the end once it was asked for. Answers whether it is reached.
    fn try_close(self: &Rc<Self>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.closed {
            return true;
        }
        if !state.queue.is_empty() && state.poisoned.is_none() {
            // Commits that wait for compaction are waited for, unless it stands still.
            if let Some(error) = state.compaction.stalled().cloned() {
                for queued in state.queue.drain(..) {
                    queued.reply.send(Err(error.clone()));
                }
            }
            return false;
        }
        let drained = state.log.staged().0 == 0 && state.log.in_flight() == 0;
        if state.poisoned.is_none() && (!drained || state.installer.is_busy() || self.tasks.len() > 0) {
            return false;
        }
        state.closed = true;
        true
    }

    /// Drops what holds the shard while the shard holds it: tasks, kept snapshots, work in flight.
    pub(crate) fn let_go(&self) {
        self.tasks.clear();
        self.snapshots.take();
        // Borrowed only where a turn has panicked.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.compaction.abandon();
        }
    }

    /// The last acts of a closed shard, after its last turn, when no task uses it any more: whoever still waits is told, the
    /// log is sealed, and files that nothing refers to are removed.
    // No one else borrows the state by then.
    #[allow(clippy::await_holding_refcell_ref)]
    pub(crate) async fn finish(&self) {
        self.let_go();
        let mut state = self.state.borrow_mut();
        bell::together(|| state.waiters.fail(&Error::Closed));
        let result = match state.poisoned.clone() {
            Some(error) => Err(error),
            None => match state.log.seal().await {
                Ok(()) => {
                    let last = state.tip.schedule.at;
                    match state.installer.note_durable(last).await {
                        // It only helps to notice a log that is lost later; closing may be what makes space.
                        Err(Error::NoSpace { .. }) => Ok(()),
                        noted => noted,
                    }
                }
                failed => failed,
            },
        };
        // A file of an edit that may or may not have become durable is left to the next opening.
        if state.poisoned.is_none() && !state.installer.is_failed() {
            state.compaction.tidied(&self.io).await;
            self.io.removed().await;
        }
        if let Some(reply) = state.closing.take() {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    /// The catalog's key of a name under a directory.
    pub(crate) fn catalog_key(parent: u64, name: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(8 + name.len());
        key.extend_from_slice(&parent.to_be_bytes());
        key.extend_from_slice(name.as_bytes());
        key
    }
}

/// This much is enough to start a log write while more is coming, or beside another.
const GROUP_BYTES_ENOUGH: usize = 16 * 1024;

/// A log write that takes longer may wait for this core, not for the disk. On the machine measured, one in a thousand takes 2 ms.
const LOG_LATE_NANOS: u64 = 2_000_000;

/// For so many turns a log write is held back for tasks that come back from reads or commits.
const HELD_TURNS_MAX: u32 = 8;

/// The number under which the catalog keeps the directories of the top level.
pub(crate) const TOP: u64 = 0;

const _: () = assert!(limits::BATCH_OPERATIONS_MAX <= 1 << 16, "a commit counts its directories in 16 bits");
