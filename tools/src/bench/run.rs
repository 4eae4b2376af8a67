//! What the clients of one phase share: the clock that starts and ends it, its data, and how it went.

use super::dataset::Dataset;
use super::draw::mix64;
use super::generator::{Client, Generator};
use super::record::{Outbox, Recorder, Window};
use super::schedule::{Arrivals, Schedule};
use super::workload::Recipe;
use quipu::Directory;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after its end an open loop still starts what fell due before.
const GRACE: Duration = Duration::from_secs(1);

/// The longest that a client of an open loop sleeps before it looks whether the phase is over.
const NAP: Duration = Duration::from_millis(100);

/// Clients of one phase, from its start to its end.
pub(crate) struct Run {
    /// The data.
    pub(crate) dataset: Arc<Dataset>,
    /// Handles of its directories, by shard.
    pub(crate) directories: Arc<Vec<Vec<Directory>>>,
    /// Which phase of the run this is; part of the seed of its operations.
    pub(crate) phase: u32,
    /// What the clients do.
    pub(crate) recipe: Arc<Recipe>,
    /// The start, warm-up included.
    pub(crate) begin: Instant,
    /// When it measures.
    pub(crate) window: Window,
    /// Where recorders hand over.
    pub(crate) outbox: Arc<Outbox>,
    /// Set by Ctrl-C.
    interrupted: Arc<AtomicBool>,
    /// Set by the first failure.
    failed: AtomicBool,
    /// The first failure.
    failure: Mutex<Option<quipu::Error>>,
    /// Reads that did not return what was acknowledged.
    wrong_reads: AtomicU64,
    /// Arrivals of an open loop that fell due within the window and never started.
    unstarted: AtomicU64,
    /// Groups of clients that have not ended; see [`Member`].
    groups: AtomicUsize,
}

/// A group of clients (a thread of them, usually) for as long as it runs.
pub(crate) struct Member(Arc<Run>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.groups.fetch_sub(1, Ordering::Release);
    }
}

impl Run {
    /// A phase; the seed of its operations is the data's.
    pub(crate) fn new(
        dataset: Arc<Dataset>,
        directories: Arc<Vec<Vec<Directory>>>,
        (phase, recipe): (u32, Arc<Recipe>),
        (begin, window): (Instant, Window),
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        Run {
            dataset,
            directories,
            phase,
            recipe,
            begin,
            window,
            outbox: Arc::default(),
            interrupted,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            wrong_reads: AtomicU64::new(0),
            unstarted: AtomicU64::new(0),
            groups: AtomicUsize::new(0),
        }
    }

    /// Adds a group of clients.
    pub(crate) fn join(self: &Arc<Self>) -> Member {
        self.groups.fetch_add(1, Ordering::Relaxed);
        Member(self.clone())
    }

    /// Whether all groups that have joined have ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.groups.load(Ordering::Acquire) == 0
    }

    /// Whether clients stop now: by the clock, Ctrl-C or a failure of one of them.
    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.window.deadline || self.aborted()
    }

    /// Whether what fell due in time is not started any more either: some time after the end, or by Ctrl-C or a failure.
    /// Until then an open loop starts it, so that a moment's lag at the end leaves nothing out.
    pub(crate) fn past_grace(&self, now: Instant) -> bool {
        now >= self.window.deadline + GRACE || self.aborted()
    }

    /// Until when to sleep that wants to until `then`: not so long that Ctrl-C would not be noticed.
    pub(crate) fn nap(&self, then: Instant) -> Instant {
        then.min(Instant::now() + NAP)
    }

    /// Whether Ctrl-C or a failure ended the phase.
    pub(crate) fn aborted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    /// Notes a failure, which ends the phase. The first one is kept.
    pub(crate) fn fail(&self, error: quipu::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The first failure.
    pub(crate) fn failure(&self) -> Option<quipu::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a read that did not return what was acknowledged.
    pub(crate) fn wrong_read(&self) {
        self.wrong_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// How many reads did not return what was acknowledged.
    pub(crate) fn wrong_reads(&self) -> u64 {
        self.wrong_reads.load(Ordering::Relaxed)
    }

    /// Counts the arrivals from `due` on that fell due within the window and will not start any more.
    pub(crate) fn leave_out(&self, due: Instant, rest: impl Iterator<Item = Instant>) {
        if self.aborted() {
            return;
        }
        let Window { epoch, deadline, .. } = self.window;
        let left = std::iter::once(due).chain(rest).take_while(|&due| due < deadline);
        self.unstarted.fetch_add(left.filter(|&due| due >= epoch).count() as u64, Ordering::Relaxed);
    }

    /// How many arrivals fell due and never started.
    pub(crate) fn unstarted(&self) -> u64 {
        self.unstarted.load(Ordering::Relaxed)
    }

    /// A recorder for one thread of clients.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(self.outbox.clone(), self.window)
    }

    /// The arrivals of one of several sources, at a rate of its own.
    pub(crate) fn schedule(&self, arrivals: Arrivals, rate: f64, source: (u32, u32)) -> Schedule {
        let stream = u64::from(self.phase) << 32 | u64::from(source.0);
        // Another seed than that of the operations, which would correlate with their arrivals otherwise.
        let seed = mix64(!self.dataset.shape.seed ^ mix64(stream));
        Schedule::new(arrivals, rate, source, seed)
    }

    /// The operations of a client on these shards.
    pub(crate) fn operations(&self, client: Client, shards: impl IntoIterator<Item = u16>) -> Generator {
        Generator::new(self.recipe.clone(), self.dataset.clone(), self.phase, client, shards)
    }
}
