//! One shard, hosted on a [`SimulatedFolder`] and driven by hand: for tests of whole shards from a seed.
//!
//! [`SimulatedShard`] is what the shard's thread is on a real disk, without the thread: it polls the shard's
//! turns, runs on-core tasks on an executor of its own, and moves virtual time. How it works:
//!
//! 1. A [turn](SimulatedShard::turn) takes up requests, runs one turn of the shard, and polls some of the tasks that
//!    are ready, in the order in which they became so; how many, the seed says. So how commits are grouped into
//!    log writes, and how merges and commits interleave, differs from seed to seed.
//! 2. Where a turn leaves nothing to do, an operation of the disk completes; where none is in flight, the clock
//!    moves to the next deadline; where there is none either, the shard is idle.
//! 3. An [`Engine`] handle reaches the shard through its mailbox, a [`Local`] one without it.
//!
//! The same seed, folder and calls give the same run, byte for byte. Nothing here is for production use: a
//! shard that neither ends nor sleeps is a panic here.

use crate::disk::io::Io;
use crate::disk::simulated::{Simulated, SimulatedFolder, SimulatedOptions, SplitMix64};
use crate::engine::{Directory, Engine, ShardRecovery};
use crate::error::{Error, Result};
use crate::levels::{Commit, History, Piece, Shape, Span};
use crate::limits::REMOVAL_PIECE_BYTES;
use crate::log::Identity;
use crate::manifest::FILE_BYTES_MIN as MANIFEST_BYTES_MIN;
use crate::options::{Fixed, Options};
use crate::shard::gather::GATHERED_MIN;
use crate::shard::host::{config_of, log_options_of};
use crate::shard::local::{Local, LocalCommit};
use crate::shard::mailbox::Mailbox;
use crate::shard::request::{Action, Request};
use crate::shard::serve::Spent;
use crate::shard::{Core, Turn};
use crate::stats::{CarryStats, SegmentInfo};
use slab::Slab;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The number of every simulated engine; part of what its files are sealed with, so it must not vary.
const ENGINE: u128 = 0x51_u128 << 64;
/// More turns than any test's shard needs to settle.
const TURNS_MAX: u64 = 1_000_000;
/// The most tasks polled between two turns.
const TASKS_PER_TURN: u64 = 8;

/// What options do not say, for tests: files smaller than anyone needs, so that there are more of them.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The least length of a generation of the manifest, in bytes.
    pub manifest_bytes: u64,
    /// Bytes of one part of the base, instead of the option.
    pub part_bytes: Option<u64>,
    /// How many bytes of a file that is removed are given back at once.
    pub removal_piece_bytes: u64,
    /// Reads of on-core tasks are done together where so many are expected.
    pub reads_together_min: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            manifest_bytes: MANIFEST_BYTES_MIN,
            part_bytes: None,
            removal_piece_bytes: REMOVAL_PIECE_BYTES,
            reads_together_min: GATHERED_MIN,
        }
    }
}

/// A shard that is being opened, step by step.
pub struct Opening {
    io: Io,
    #[expect(clippy::type_complexity, reason = "written once")]
    work: Pin<Box<dyn Future<Output = Result<(Rc<Core>, ShardRecovery)>>>>,
    folder: SimulatedFolder,
    fixed: Fixed,
    options: Options,
    reads_together_min: usize,
    random: SplitMix64,
}

impl Opening {
    /// Goes on until the next operation of the disk has completed. The shard, once it is open.
    pub fn step(&mut self) -> Option<Result<SimulatedShard>> {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(opened) = self.work.as_mut().poll(&mut cx) {
            return Some(opened.map(|(core, recovery)| self.hosted(core, recovery)));
        }
        if self.io.pump() == 0 {
            self.io.wait();
        }
        None
    }

    fn hosted(&mut self, core: Rc<Core>, recovery: ShardRecovery) -> SimulatedShard {
        core.gathering.set_min(self.reads_together_min);
        let executor = Rc::new(Executor::default());
        let spawner = executor.clone();
        core.set_spawner(Some(Box::new(move |task| spawner.spawn(task))));
        let news = Arc::new(News(AtomicBool::new(true)));
        core.set_driver(&Waker::from(news.clone()));
        let mailbox = Arc::new(Mailbox::new(self.options.mailbox));
        let engine = Engine::detached(self.fixed.clone(), &self.options, mailbox.clone());
        SimulatedShard {
            core,
            mailbox,
            spent: Spent::default(),
            engine,
            executor,
            news,
            folder: self.folder.clone(),
            random: self.random.clone(),
            recovery,
        }
    }
}

/// What a shard is made of at a moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The levels after the newest commit.
    pub shape: Shape,
    /// The newest commit.
    pub newest: Commit,
    /// The newest durable commit.
    pub durable: Commit,
    /// What lies on disk, oldest first.
    pub pieces: Vec<Piece>,
    /// What lies in memory, oldest first; the live table last.
    pub tables: Vec<Span>,
    /// The last commit folded into all of the base.
    pub base_end: Commit,
    /// The carries and spills that are not installed.
    pub carries: Vec<CarryStats>,
    /// Bytes merged since the shard was opened.
    pub merged_bytes: u64,
    /// Point reads done together with others since then.
    pub reads_together: u64,
    /// The most that compaction has done in one turn since then, in bytes merged or looked at.
    pub slice_bytes_max: u64,
    /// What can be read as of.
    pub history: History,
}

/// What a turn of the whole host left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Something.
    More,
    /// Nothing, until someone asks for something.
    Nothing,
    /// The shard is closed.
    Closed,
}

/// See the module.
pub struct SimulatedShard {
    core: Rc<Core>,
    mailbox: Arc<Mailbox>,
    spent: Spent,
    engine: Engine,
    executor: Rc<Executor>,
    news: Arc<News>,
    folder: SimulatedFolder,
    random: SplitMix64,
    recovery: ShardRecovery,
}

impl Drop for SimulatedShard {
    fn drop(&mut self) {
        // Tasks hold the shard, and the shard its tasks.
        self.core.set_spawner(None);
        self.executor.clear();
        self.core.let_go();
    }
}

impl SimulatedShard {
    /// Begins to open the only shard of an engine in a folder.
    ///
    /// # Errors
    ///
    /// [`Error::Options`].
    pub fn begin(folder: &SimulatedFolder, disk: SimulatedOptions, options: &Options) -> Result<Opening> {
        Self::begin_tuned(folder, disk, options, Tuning::default())
    }

    /// [`begin`](Self::begin), with files smaller than options allow.
    ///
    /// # Errors
    ///
    /// [`Error::Options`].
    pub fn begin_tuned(
        folder: &SimulatedFolder,
        disk: SimulatedOptions,
        options: &Options,
        tuning: Tuning,
    ) -> Result<Opening> {
        options.check()?;
        let mut fixed = Fixed::create(options, ENGINE, 1);
        if let Some(bytes) = tuning.part_bytes {
            fixed.part_bytes = bytes;
        }
        if fixed.shards != 1 {
            return Err(Error::Options { option: "shards", why: "a simulation hosts one".into() });
        }
        let mut random = SplitMix64::new(disk.seed ^ 0x5eed);
        let mut config = config_of(0, &fixed, options)?;
        config.manifest_bytes = tuning.manifest_bytes;
        let log = log_options_of(&fixed, options);
        let io = Io::new(Box::new(Simulated::new(folder, disk)));
        io.set_removal_piece(tuning.removal_piece_bytes);
        random.next_u64();
        let work = Core::open(io.clone(), config, log, options.cache_bytes, options.retention);
        Ok(Opening {
            io,
            work: Box::pin(work),
            folder: folder.clone(),
            fixed,
            options: options.clone(),
            reads_together_min: tuning.reads_together_min,
            random,
        })
    }

    /// Opens the only shard of an engine in a folder.
    ///
    /// # Errors
    ///
    /// As opening an engine.
    pub fn open(folder: &SimulatedFolder, disk: SimulatedOptions, options: &Options) -> Result<Self> {
        let mut opening = Self::begin(folder, disk, options)?;
        for _ in 0..TURNS_MAX {
            if let Some(opened) = opening.step() {
                return opened;
            }
        }
        panic!("the shard does not open");
    }

    /// A handle that reaches the shard through its mailbox.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A handle without a mailbox in between.
    pub fn local(&self) -> Local {
        Local::new(self.core.clone(), self.engine.weak())
    }

    /// What opening it took.
    pub fn recovery(&self) -> ShardRecovery {
        self.recovery
    }

    /// Renames a directory, without the mailbox.
    pub fn rename(&self, from: &Directory, to: &Directory) -> LocalCommit {
        self.local().act(Action::Rename { from: from.name().clone(), to: to.name().clone() })
    }

    /// Drops a directory, without the mailbox.
    pub fn remove(&self, directory: &Directory) -> LocalCommit {
        self.local().act(Action::Remove { name: directory.name().clone() })
    }

    /// Runs a task beside others: at once as far as it goes, then between turns.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let key = self.executor.tasks.borrow_mut().insert(Some(Box::pin(task)));
        self.executor.poll_one(key);
    }

    /// One turn of the shard and of its tasks; where that leaves nothing to do, time passes.
    pub fn turn(&mut self) -> Left {
        self.news.0.store(false, Ordering::Relaxed);
        self.mailbox.awake();
        let turn = self.core.turn_with(&self.mailbox, &self.spent);
        self.executor.poll(1 + self.random.below(TASKS_PER_TURN));
        let until = match turn {
            Turn::Closed => return Left::Closed,
            Turn::Busy => return Left::More,
            Turn::Idle(until) => until,
        };
        // Only what really wakes a sleeping shard counts.
        let most = self.core.patience();
        let woken = !self.mailbox.prepare_to_sleep(&Waker::from(self.news.clone()), most);
        if self.executor.has_ready() || woken || self.news.0.load(Ordering::Relaxed) {
            return Left::More;
        }
        if self.core.io.in_flight() > 0 {
            // Where the disk takes its time, what is due by the clock comes first.
            match (self.folder.earliest(), until) {
                (Some(earliest), Some(until)) if until < earliest => {
                    self.folder.advance(until.saturating_sub(self.core.io.now()));
                }
                _ => self.core.io.wait(),
            }
            return Left::More;
        }
        let Some(until) = until else { return Left::Nothing };
        self.folder.advance(until.saturating_sub(self.core.io.now()));
        Left::More
    }

    /// Polls all tasks that are ready, without a turn.
    pub fn poll_tasks(&self) {
        while self.executor.poll(TASKS_PER_TURN) > 0 {}
    }

    /// A few turns, or none: the seed says.
    pub fn breathe(&mut self) {
        let turns = self.random.below(4).saturating_sub(1) * (1 + self.random.below(3));
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Turns until there is nothing left to do: all is durable, and all that is due is installed.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.turn() != Left::More {
                return;
            }
        }
        panic!("the shard does not settle: {:?}", self.picture());
    }

    /// Turns until a future is done. It is polled when it is woken, and only then.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let woken = Arc::new(News(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        let mut idle = false;
        for _ in 0..TURNS_MAX {
            if woken.0.swap(false, Ordering::Relaxed) {
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
                idle = false;
            }
            assert!(!idle, "the shard sleeps, and nobody will wake the future: {:?}", self.picture());
            idle = self.turn() != Left::More;
        }
        panic!("the shard does not come to an end: {:?}", self.picture());
    }

    /// The power fails.
    pub fn crash(self, random: &mut SplitMix64) {
        self.folder.crash(random);
        self.kill();
    }

    /// The process ends at once; what is in flight goes on. The same as dropping it.
    pub fn kill(self) {}

    /// Closes the shard in good order.
    ///
    /// # Errors
    ///
    /// What failed in the last log write.
    pub fn close(mut self) -> Result<()> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        // Where the mailbox is full, it is emptied first.
        while self.mailbox.try_post(Request::Close { reply: dead_end() }).is_err() {
            self.turn();
        }
        let mut closed = false;
        for _ in 0..TURNS_MAX {
            closed = self.turn() == Left::Closed;
            if closed {
                break;
            }
        }
        assert!(closed, "the shard does not close: {:?}", self.picture());
        self.core.state.borrow_mut().closing = Some(reply);
        self.core.set_spawner(None);
        self.executor.clear();
        self.mailbox.close();
        while self.mailbox.pop().is_some() {}
        self.core.io.block_on(self.core.finish());
        let result = answer.try_recv().unwrap_or(Err(Error::Closed));
        self.kill();
        result
    }

    /// The live files.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.core.segments()
    }

    /// Entries that scans have looked at, handed out or not.
    pub fn entries_scanned(&self) -> u64 {
        self.core.allowance.examined()
    }

    /// The newest commit.
    pub fn newest(&self) -> Commit {
        self.core.last()
    }

    /// The newest durable commit.
    pub fn durable(&self) -> Commit {
        self.core.durable()
    }

    /// Why the shard takes no commits any more, or why its compaction stands still, if so.
    pub fn trouble(&self) -> Option<Error> {
        let state = self.core.state.borrow();
        state.poisoned.clone().or_else(|| state.compaction.stalled().cloned())
    }

    /// Numbers that differ whenever [`picture`](Self::picture) does, cheaper than that.
    pub fn signature(&self) -> [u64; 5] {
        let state = self.core.state.borrow();
        let view = Rc::as_ptr(&state.tip.view) as usize as u64;
        let jobs = u64::from(state.compaction.is_busy()) + (state.compaction.carries_done() << 1);
        [state.tip.schedule.at.0, state.waiters.durable_until().0, view, state.compaction.merged(), jobs]
    }

    /// What the shard is made of now.
    pub fn picture(&self) -> Picture {
        let state = self.core.state.borrow();
        let tip = &state.tip;
        let mut tables: Vec<Span> = tip.view.tables().map(|table| table.span()).collect();
        tables.push(tip.active.span());
        let mut pieces = tip.view.pieces(self.core.config.divisor);
        pieces.retain(|piece| !matches!(piece, Piece::Spill(span) if tables.contains(span)));
        Picture {
            shape: tip.schedule.shape,
            newest: tip.schedule.at,
            durable: state.waiters.durable_until(),
            pieces,
            tables,
            base_end: tip.view.base_end,
            carries: state.compaction.in_flight(&tip.schedule.shape),
            merged_bytes: state.compaction.merged(),
            reads_together: self.core.gathering.done(),
            slice_bytes_max: state.compaction.slice_max(),
            history: state.history.clone(),
        }
    }

    /// What tells which commits are durable while a turn of the shard goes on.
    pub fn probe(&self) -> Probe {
        Probe { core: Rc::downgrade(&self.core) }
    }

    /// The generator behind the host's choices, for choices of a test's own.
    pub fn random(&mut self) -> &mut SplitMix64 {
        &mut self.random
    }
}

impl std::fmt::Debug for SimulatedShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedShard({:?})", self.picture())
    }
}

/// Looks at a shard from within a turn: from a watcher of its disk, say. It does not keep the shard.
#[derive(Clone, Default)]
pub struct Probe {
    core: Weak<Core>,
}

impl Probe {
    /// The newest commit that is acknowledged durable. `None` once the shard is gone, and where it is just being changed.
    pub fn durable(&self) -> Option<Commit> {
        let core = self.core.upgrade()?;
        let state = core.state.try_borrow().ok()?;
        Some(state.waiters.durable_until())
    }
}

/// The newest commit of which any intact group in a log file of a simulated shard says that it was durable.
pub fn log_tells(file: &[u8]) -> Commit {
    crate::log::durable_told(Identity { engine: ENGINE, shard: 0 }, file)
}

/// A reply that nobody waits for.
fn dead_end<T>() -> crate::shard::request::ReplyTo<T> {
    tokio::sync::oneshot::channel().0
}

/// A waker that only takes note.
struct News(AtomicBool);

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Runs tasks in the order in which they become ready.
#[derive(Default)]
struct Executor {
    /// `None` while one is being polled.
    tasks: RefCell<Slab<Option<Task>>>,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

/// Makes one task ready.
struct Ready {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
        }
    }
}

impl Executor {
    fn spawn(&self, task: Task) {
        let key = self.tasks.borrow_mut().insert(Some(task));
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
    }

    /// Polls at most so many tasks that are ready; answers how many.
    fn poll(&self, most: u64) -> u64 {
        for count in 0..most {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(key) = next else { return count };
            self.poll_one(key);
        }
        most
    }

    /// Whether tasks are ready.
    fn has_ready(&self) -> bool {
        !self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn poll_one(&self, key: usize) {
        let task = self.tasks.borrow_mut().get_mut(key).and_then(Option::take);
        // Woken more than once, or by something that outlived it.
        let Some(mut task) = task else { return };
        let ready = self.ready.clone();
        let waker = Waker::from(Arc::new(Ready { task: key, queued: AtomicBool::new(false), ready }));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.tasks.borrow_mut();
        match polled {
            Poll::Ready(()) => drop(tasks.try_remove(key)),
            Poll::Pending => {
                if let Some(place) = tasks.get_mut(key) {
                    *place = Some(task);
                }
            }
        }
    }

    fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
