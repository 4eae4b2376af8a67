//! Compaction: running the carries that are due, a slice a turn.
//!
//! A carry is queued when its commit is sequenced, begins when everything within its window is at rest, is
//! polled by hand with a grant of bytes each turn, and is over when its last change is installed. How much it
//! is granted follows the account of [`Pace`]: what is owed at the newest commit, or, where the shard has nothing
//! else to do, a slice ahead of time. Where little is owed, commits that are being made get half of the time at least, and a log
//! write that is about to start goes first; so do commits on their way to the disk, before what has time.
//!
//! A carry that goes more than one level up would hold its memtable for long: that table is *spilled* first,
//! to a file of its own. Tables are spilled too where memory or the log runs short.
//!
//! A carry that fails (no space, a damaged input) is given up and tried again later, once what it had written is
//! removed; meanwhile the shard is *stalled*: it goes on while the pace admits commits, and tells those that it
//! cannot take why.

use super::{Config, Core, State};
use crate::compact::loose::Loose;
use crate::compact::{self, Context, Throttle};
use crate::disk::io::Io;
use crate::error::{Error, Result};
use crate::levels::{Carry, Commit, Divisor, Level, Pace, Shape, Span};
use crate::probes;
use crate::stats::{CarriesInstalled, CarryKind, CarryStats};
use crate::table::Table;
use crate::view::{Kind, Source, work_bytes};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Bytes merged in one slice: about a hundred microseconds of work, as much as a log write takes.
const SLICE_BYTES: u64 = 32 * 1024;
/// Compaction pauses after a slice for so many times as long as that took: what is owed, where it is no more than [`OWED_LEFT`] and
/// there is other work at hand, and what has time, where commits are on their way to the disk. So those get half of the
/// time at least.
const PAUSE: u64 = 1;
/// Commits are held while more than this is owed, in bytes merged, and the processor is what it takes …
const OWED_MOST: u64 = 512 * 1024;
/// … until no more than this is: so that a second with much to merge is one with fewer commits, and none with nothing but.
const OWED_LEFT: u64 = 256 * 1024;
/// After how many bytes of commits it is looked at anew what is owed: they come to about as much as what is left, once merged.
const LOOK_AFTER_BYTES: usize = 16 * 1024;
/// Of what removed segments have left in the cache, so many blocks are looked for in a turn.
const BLOCKS_FORGOTTEN_PER_TURN: usize = 64;
/// How long after a failure a carry is tried again, in nanoseconds.
const RETRY_AFTER: u64 = 1_000_000_000;
/// The live table is spilled when it takes more than this share of the shard's memory.
const LIVE_SHARE: usize = 3;
/// Compaction hurries when more than half of the log's files is in use, so that they are released …
const LOG_HURRY: (u64, u64) = (1, 2);
/// … and tables are spilled when it is more than three quarters.
const LOG_SPILL: (u64, u64) = (3, 4);

type Work = Pin<Box<dyn Future<Output = Result<()>>>>;

/// What a job does.
#[derive(Clone)]
enum Task {
    Carry(Carry),
    /// Of one table, or of adjacent spills; newest first.
    Spill {
        inputs: Vec<Source>,
        tier: Level,
    },
}

impl Task {
    /// The commits it works on. A fold's own are those above the old base.
    fn span(&self) -> Span {
        match self {
            Task::Carry(Carry::Segment(window)) => window.span(),
            Task::Carry(Carry::Fold { from, to }) => Span::new(*from, *to),
            Task::Spill { inputs, .. } => {
                let (newest, oldest) = (inputs.first().map(Source::span), inputs.last().map(Source::span));
                newest.zip(oldest).map_or(Span::new(Commit::ZERO, Commit::ZERO), |(newest, oldest)| {
                    Span::new(oldest.after, newest.last)
                })
            }
        }
    }

    /// The spill of a table.
    fn spill(table: Rc<Table>) -> Self {
        Task::Spill { inputs: vec![Source::Table(table)], tier: Level(0) }
    }
}

/// The bytes that a carry will merge.
#[derive(Clone, Copy)]
pub(crate) struct WorkBytes {
    /// Those of windows, spills and tables.
    fresh: u64,
    /// Those of the base's parts.
    parts: u64,
}

impl WorkBytes {
    pub(crate) fn total(self) -> u64 {
        self.fresh.saturating_add(self.parts)
    }
}

/// A piece of work in flight.
struct Job {
    task: Task,
    total: u64,
    throttle: Rc<Throttle>,
    outbox: Rc<RefCell<VecDeque<compact::Change>>>,
    /// `None` once it has done its work, and waits for its changes to be installed.
    work: Option<Work>,
}

impl Job {
    fn left(&self) -> u64 {
        self.total.saturating_sub(self.throttle.done())
    }
}

/// See the module's text.
pub(crate) struct Compaction {
    pace: Pace,
    /// Carries that are due and have not begun, by commit.
    due: VecDeque<Carry>,
    jobs: Vec<Job>,
    stalled: Option<Error>,
    retry_at: Option<u64>,
    /// How many of each kind and level were installed.
    installed: BTreeMap<(CarryKind, Level), u64>,
    merged: u64,
    /// The most that one slice has spent.
    slice_max: u64,
    /// Whether commits are held until less is owed.
    holds: bool,
    /// Whether the last slice used all of its grant: nothing but the processor was waited for.
    works: bool,
    /// Bytes of commits since it was last looked at what is owed.
    unseen_bytes: usize,
    /// Until when it pauses, on the disk's clock.
    pause_until: u64,
    pub(crate) written: Rc<Cell<u64>>,
    /// Files that were begun and are not installed.
    pub(crate) loose: Rc<Loose>,
    /// Work was given up since what is loose was last removed.
    untidy: bool,
    /// Removes what a failure left loose, before anything is tried again.
    tidying: Option<Tidying>,
}

type Tidying = Pin<Box<dyn Future<Output = ()>>>;

impl Compaction {
    pub(crate) fn new() -> Self {
        Compaction {
            pace: Pace::new(),
            due: VecDeque::new(),
            jobs: Vec::new(),
            stalled: None,
            retry_at: None,
            installed: BTreeMap::new(),
            merged: 0,
            slice_max: 0,
            holds: false,
            works: false,
            unseen_bytes: 0,
            pause_until: 0,
            written: Rc::default(),
            loose: Rc::default(),
            untidy: false,
            tidying: None,
        }
    }

    /// A commit was sequenced.
    #[inline]
    pub(crate) fn sequenced(&mut self, commit: Commit, bytes: usize) {
        self.unseen_bytes += bytes;
        if self.unseen_bytes >= LOOK_AFTER_BYTES {
            self.look(commit);
        }
    }

    /// Looks whether commits are held, or no longer.
    fn look(&mut self, newest: Commit) {
        self.unseen_bytes = 0;
        let most = if self.holds { OWED_LEFT } else { OWED_MOST };
        self.holds = self.works && self.pace.owed_bytes(newest) > most;
    }

    /// Whether a commit has to wait for some work to be done, however far its deadline is. So only while it is being done.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.holds
    }

    /// Whether the pace admits a commit.
    #[inline]
    pub(crate) fn admits(&self, commit: Commit) -> bool {
        self.pace.admits(commit)
    }

    /// A carry is due: the account of its work begins.
    pub(crate) fn due(&mut self, carry: Carry, shape: &Shape, now: Commit, work: WorkBytes) {
        self.pace.reshape(shape, now);
        self.pace.begin(shape, carry, now, work.total(), work.fresh);
        self.due.push_back(carry);
    }

    /// The carry due at a commit is installed.
    pub(crate) fn installed(&mut self, due: Commit, divisor: Divisor) {
        if let Some(work) = self.pace.in_flight().find(|work| work.due == due) {
            *self.installed.entry((kind_of(work.carry), work.carry.level(divisor))).or_default() += 1;
        }
        self.pace.install(due);
        self.due.retain(|carry| carry.due() != due);
        self.jobs.retain(|job| !matches!(&job.task, Task::Carry(carry) if carry.due() == due));
        self.recovered();
    }

    /// A spill is installed, or has become needless.
    pub(crate) fn spilled(&mut self, span: Span) {
        self.jobs.retain(|job| !matches!(job.task, Task::Spill { .. }) || job.task.span() != span);
        self.recovered();
    }

    /// The removal of all that is loose: what goes on, or a new one. Nothing must be in flight.
    fn tidying(&mut self, io: &Io) -> &mut Tidying {
        self.tidying.get_or_insert_with(|| {
            let (io, loose) = (io.clone(), self.loose.clone());
            Box::pin(async move { loose.remove_all(&io).await })
        })
    }

    /// Removes what abandoned work has left behind, for the end.
    pub(crate) async fn tidied(&mut self, io: &Io) {
        self.tidying(io).await;
        self.tidying = None;
    }

    /// Goes on removing what is loose. Answers whether nothing is any more. Nothing must be in flight.
    fn tidy(&mut self, io: &Io) -> bool {
        let tidying = self.tidying(io);
        let tidy = tidying.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_ready();
        if tidy {
            self.tidying = None;
            self.untidy = false;
        }
        tidy
    }

    fn recovered(&mut self) {
        self.stalled = None;
        self.retry_at = None;
    }

    /// Whether something is in flight or due.
    pub(crate) fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || !self.due.is_empty()
    }

    /// Why compaction stands still, if it does.
    pub(crate) fn stalled(&self) -> Option<&Error> {
        self.stalled.as_ref()
    }

    /// When it is tried again.
    pub(crate) fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Gives up everything in flight; what was begun is done again when the shard is opened.
    pub(crate) fn abandon(&mut self) {
        self.jobs.clear();
        self.due.clear();
    }

    /// How many carries were installed since the shard was opened.
    pub(crate) fn carries_done(&self) -> u64 {
        self.installed.values().sum()
    }

    /// The same, by kind and level.
    pub(crate) fn carries_installed(&self) -> Vec<CarriesInstalled> {
        let of =
            |(&(kind, level), &count): (&(CarryKind, Level), &u64)| CarriesInstalled { kind, level, count };
        self.installed.iter().map(of).collect()
    }

    /// Bytes merged since the shard was opened.
    pub(crate) fn merged(&self) -> u64 {
        self.merged
    }

    /// The most that the jobs of one turn have spent of their grants since the shard was opened, in bytes.
    pub(crate) fn slice_max(&self) -> u64 {
        self.slice_max
    }

    /// Bytes yet to be merged by what is in flight or due.
    pub(crate) fn backlog(&self) -> u64 {
        let spills = self.jobs.iter().filter(|job| matches!(job.task, Task::Spill { .. }));
        self.pace.in_flight().map(|work| work.total_bytes - work.done_bytes).sum::<u64>()
            + spills.map(Job::left).sum::<u64>()
    }

    /// What is in flight, for the stats.
    pub(crate) fn in_flight(&self, shape: &Shape) -> Vec<CarryStats> {
        let carries = self.pace.in_flight().map(|work| CarryStats {
            kind: kind_of(work.carry),
            level: work.carry.level(shape.divisor),
            due: work.due,
            deadline: work.deadline,
            done: work.done_bytes,
            total: work.total_bytes,
        });
        let spills = self.jobs.iter().filter_map(|job| match &job.task {
            Task::Spill { .. } => Some(CarryStats {
                kind: CarryKind::Spill,
                level: shape.flush_level,
                due: job.task.span().last,
                deadline: job.task.span().last,
                done: job.throttle.done(),
                total: job.total,
            }),
            Task::Carry(_) => None,
        });
        carries.chain(spills).collect()
    }

    /// Whether something in flight or due takes a table out of memory.
    fn takes(&self, table: &Table) -> bool {
        let span = table.span();
        let due = self.due.iter().any(|&carry| Task::Carry(carry).span().covers(span));
        due || self.jobs.iter().any(|job| job.task.span().covers(span))
    }

    /// Whether something in flight works on a commit of a span.
    fn touches(&self, span: Span) -> bool {
        self.jobs.iter().any(|job| {
            let other = job.task.span();
            span.after < other.last && other.after < span.last
        })
    }
}

fn kind_of(carry: Carry) -> CarryKind {
    match carry {
        Carry::Fold { .. } => CarryKind::Fold,
        Carry::Segment(_) => CarryKind::Segment,
    }
}

impl State {
    /// Whether the memtables have room for a commit of `bytes`.
    #[inline]
    pub(crate) fn memory_admits(&self, config: &Config, bytes: usize) -> bool {
        self.tip.frozen_bytes == 0
            || self.tip.frozen_bytes + self.tip.active.memory() + bytes <= config.memtable_bytes
    }

    /// Whether the disk waits for a group of commits that is about to be complete.
    fn writes_soon(&self) -> bool {
        self.log.in_flight() == 0 && self.log.staged().0 > 0 && self.urgent > self.log.started()
    }

    /// Whether more than a share of the log's files is in use.
    fn log_beyond(&self, (share, of): (u64, u64)) -> bool {
        let usage = self.log.usage();
        usage.bytes_used > usage.bytes_cap / of * share
            || usage.bytes_cap - usage.bytes_used.min(usage.bytes_cap) < self.log.file_bytes()
    }

    /// The bytes that a carry will merge.
    pub(crate) fn work_of(&self, carry: Carry) -> WorkBytes {
        let span = carry.span();
        let sources = self.tip.view.sources.iter().filter(|source| span.covers(source.span()));
        let parts = match carry {
            Carry::Fold { .. } => self.tip.view.parts.iter().map(|part| work_bytes(&part.segment)).sum(),
            Carry::Segment(_) => 0,
        };
        WorkBytes { fresh: sources.map(Source::bytes).sum(), parts }
    }
}

impl Core {
    /// One slice of compaction, and installing what is ready. With `idle`, ahead of time; where tasks on the core are reading, for half
    /// of the time. Answers whether there is more to do at once.
    pub(super) fn compact(self: &Rc<Self>, idle: bool, reading: bool) -> bool {
        if self.state.borrow().poisoned.is_some() {
            return false;
        }
        if self.may_begin() {
            self.begin_due();
            self.spill_under_pressure();
        }
        let worked = self.slice(idle, reading);
        let collected = self.collect();
        let installed = match self.install() {
            Ok(installed) => installed,
            Err(error) => {
                self.give_up(error);
                // What became of the edit is not known: until the shard is opened again, nothing may be written under
                // a name that the manifest may hold by now.
                let mut state = self.state.borrow_mut();
                if state.installer.is_failed() {
                    state.compaction.retry_at = None;
                }
                false
            }
        };
        let mut state = self.state.borrow_mut();
        let newest = state.tip.schedule.at;
        state.compaction.pace.settle(newest);
        let forgot = match state.leftovers.front_mut() {
            Some(leftover) => {
                if !leftover.forget(&self.cache, BLOCKS_FORGOTTEN_PER_TURN) {
                    state.leftovers.pop_front();
                }
                true
            }
            None => false,
        };
        worked || collected || installed || forgot
    }

    /// Spills a table where memory or the log runs short, or merges spills that have become many. One such job
    /// at a time.
    fn spill_under_pressure(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.compaction.jobs.iter().any(|job| matches!(job.task, Task::Spill { .. })) {
            return;
        }
        let log_short = state.log_beyond(LOG_SPILL);
        let memory_short = state.tip.active.memory() > self.config.memtable_bytes / LIVE_SHARE;
        // A table that was frozen early waits for no carry, so nothing else takes it out of memory.
        let early = state.tip.view.tables().find(|table| !state.compaction.takes(table)).cloned();
        if let Some(table) = early {
            return self.begin(state, Task::spill(table));
        }
        if log_short || memory_short {
            if state.tip.view.tables().next().is_none() {
                state.tip.freeze_active();
            }
            let oldest = state.tip.view.tables().next().cloned();
            if let Some(table) = oldest {
                return self.begin(state, Task::spill(table));
            }
        }
        if let Some(spills) = self.crowded_spills(state) {
            self.begin(state, spills);
        }
    }

    /// Adjacent spills of one tier, as many as the divisor: to be merged into one of the next tier. So a window
    /// far too large for memory has few spills in each of few tiers.
    fn crowded_spills(&self, state: &State) -> Option<Task> {
        let tier_of = |source: &Source| match source {
            Source::Segment(segment) if segment.meta().identity.kind == Kind::Spill.to_byte() => {
                Some(segment.meta().identity.level)
            }
            _ => None,
        };
        let many = self.config.divisor.get() as usize;
        let crowd = state.tip.view.sources.windows(many).find(|sources| {
            let tier = tier_of(&sources[0]);
            tier.is_some() && sources.iter().all(|source| tier_of(source) == tier)
        })?;
        let tier = tier_of(&crowd[0])?.above();
        let task = Task::Spill { inputs: crowd.to_vec(), tier };
        // Those of a window that has closed are left to its carry; least of all may a spill reach over its end.
        let closed = state.compaction.due.iter().any(|carry| task.span().contains(carry.due()));
        (!closed && !state.compaction.touches(task.span())).then_some(task)
    }

    /// Whether work may begin: not soon after a failure, not on top of what a carry that was given up may still
    /// have installed, and not at all where the manifest is in doubt.
    fn may_begin(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let compaction = &mut state.compaction;
        if compaction.stalled.is_none() && !compaction.untidy {
            return true;
        }
        // Something may have been installed since, and the stall be over; what is loose is removed all the same.
        let calm = match compaction.retry_at {
            Some(retry_at) => retry_at <= self.now(),
            None => compaction.stalled.is_none(),
        };
        let may = calm && !state.installer.is_busy() && compaction.tidy(&self.io);
        if may {
            state.compaction.recovered();
        }
        may
    }

    /// Begins carries whose inputs are at rest.
    fn begin_due(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut at = 0;
        while let Some(&carry) = state.compaction.due.get(at) {
            if self.try_begin(state, carry) {
                state.compaction.due.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Begins a carry, or the spill that it waits for. Answers whether it began.
    fn try_begin(self: &Rc<Self>, state: &mut State, carry: Carry) -> bool {
        let span = Task::Carry(carry).span();
        let earlier = |other: &Carry| *other != carry && span.covers(Task::Carry(*other).span());
        if state.compaction.touches(span) || state.compaction.due.iter().any(earlier) {
            return false;
        }
        let shape = &state.tip.schedule.shape;
        if carry.level_of_work(shape) > shape.flush_level.above() {
            let table = state.tip.view.tables().find(|table| span.covers(table.span())).cloned();
            if let Some(table) = table {
                self.begin(state, Task::spill(table));
                return false;
            }
        }
        self.begin(state, Task::Carry(carry));
        true
    }

    fn begin(self: &Rc<Self>, state: &mut State, task: Task) {
        let throttle = Rc::new(Throttle::default());
        let outbox = Rc::new(RefCell::default());
        // What it works on has to be durable before it is installed, however lazy the commits were.
        state.urgent = state.urgent.max(task.span().last);
        let context = Context {
            io: self.io.clone(),
            cache: self.cache.clone(),
            shard: self.config.shard,
            divisor: self.config.divisor,
            segments: self.config.segments,
            part_bytes: self.config.fixed.part_bytes,
            history: state.history.clone(),
            throttle: throttle.clone(),
            outbox: outbox.clone(),
            written: state.compaction.written.clone(),
            loose: state.compaction.loose.clone(),
        };
        let span = task.span();
        let inputs = || -> Vec<Source> {
            state.tip.view.sources.iter().filter(|source| span.covers(source.span())).cloned().collect()
        };
        let (total, work): (u64, Work) = match &task {
            Task::Carry(carry @ Carry::Segment(window)) => {
                (state.work_of(*carry).total(), Box::pin(compact::carry::window(context, *window, inputs())))
            }
            Task::Carry(carry @ Carry::Fold { from, to }) => {
                let parts = state.tip.view.parts.clone();
                (
                    state.work_of(*carry).total(),
                    Box::pin(compact::fold::fold(context, *from, *to, inputs(), parts)),
                )
            }
            Task::Spill { inputs, tier } => {
                let work = compact::carry::spill(context, span, *tier, inputs.clone());
                (inputs.iter().map(Source::bytes).sum(), Box::pin(work))
            }
        };
        if let Task::Carry(carry) = &task {
            state.compaction.pace.start(carry.due(), state.tip.schedule.at);
        }
        probes::carry_begun(self.config.shard, span, total);
        state.compaction.jobs.push(Job { task, total, throttle, outbox, work: Some(work) });
    }

    /// Grants a slice to the job that needs it most, what that leaves to the others, and polls all. Answers whether more is owed.
    fn slice(self: &Rc<Self>, idle: bool, reading: bool) -> bool {
        let mut jobs = {
            let mut state = self.state.borrow_mut();
            if state.compaction.jobs.is_empty() {
                (state.compaction.works, state.compaction.holds) = (false, false);
                return false;
            }
            std::mem::take(&mut state.compaction.jobs)
        };
        let started = self.io.now();
        let (owed, held_back, first) = {
            let state = self.state.borrow();
            let hurry = state.log_beyond(LOG_HURRY) || !state.queue.is_empty();
            let bytes = state.compaction.pace.owed_bytes(state.tip.schedule.at);
            let pauses =
                (!idle || reading) && (state.compaction.pause_until > started || state.writes_soon());
            let owed = hurry || bytes > OWED_LEFT || (bytes > 0 && !pauses);
            (owed, bytes > 0 && !owed, state.compaction.pace.next())
        };
        let spill = jobs.iter().position(|job| matches!(job.task, Task::Spill { .. }) && job.work.is_some());
        let carry = || {
            let owing = |job: &Job| matches!(&job.task, Task::Carry(carry) if Some(carry.due()) == first);
            jobs.iter().position(|job| owing(job) && job.work.is_some())
        };
        let chosen = spill.or_else(carry).or_else(|| jobs.iter().position(|job| job.work.is_some()));
        let ahead = || {
            let state = self.state.borrow();
            let at_rest = !reading && state.log.in_flight() == 0 && state.log.staged().0 == 0;
            idle && (at_rest || state.compaction.pause_until <= started)
        };
        let granted = chosen.filter(|_| spill.is_some() || owed || ahead());
        probes::slice_begun(self.config.shard);
        let mut more = false;
        let mut worked = false;
        let mut spent = 0;
        let mut failed = None;
        // The one chosen goes first; what it leaves, since it waits for the disk, is for the others. All are polled: what is
        // not merging needs no grant.
        let mut left = if granted.is_some() { SLICE_BYTES } else { 0 };
        let others = (0..jobs.len()).filter(|&at| Some(at) != granted);
        for at in granted.into_iter().chain(others) {
            let job = &mut jobs[at];
            let Some(work) = &mut job.work else { continue };
            job.throttle.grant(left);
            let (before, spent_before) = (job.throttle.done(), job.throttle.spent());
            let polled = work.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
            let bytes = job.throttle.done() - before;
            let used = job.throttle.spent() - spent_before;
            spent += used;
            worked |= left > 0 && used >= left;
            left = left.saturating_sub(used);
            let compaction = &mut self.state.borrow_mut().compaction;
            compaction.merged += bytes;
            if let Task::Carry(carry) = &job.task {
                compaction.pace.progress(carry.due(), bytes);
            }
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    job.work = None;
                    more = true;
                }
                Poll::Ready(Err(error)) => {
                    job.work = None;
                    failed = Some(error);
                }
            }
        }
        more |= worked;
        probes::slice_ended(self.config.shard, spent);
        if granted.is_some() {
            let ended = self.io.now();
            let took = ended.saturating_sub(started);
            let mut state = self.state.borrow_mut();
            state.stages.slice.saturating_record(took.max(1));
            state.compaction.pause_until = ended.saturating_add(PAUSE.saturating_mul(took));
        }
        {
            let mut state = self.state.borrow_mut();
            let newest = state.tip.schedule.at;
            let compaction = &mut state.compaction;
            compaction.jobs.extend(jobs);
            compaction.slice_max = compaction.slice_max.max(spent);
            // A turn without a slice says nothing about what the work waits for.
            if !held_back {
                compaction.works = worked;
            }
            compaction.look(newest);
        }
        if let Some(error) = failed {
            self.give_up(error);
            return false;
        }
        more
    }

    /// Takes finished changes to the installer; those whose commits the log has made durable. A segment that
    /// outlived the log would leave a hole after a crash.
    fn collect(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let State { compaction, installer, waiters, .. } = &mut *state;
        let mut any = false;
        for job in &compaction.jobs {
            if job.task.span().last > waiters.durable_until() {
                continue;
            }
            for change in job.outbox.borrow_mut().drain(..) {
                installer.push(change);
                any = true;
            }
        }
        any
    }

    /// A carry failed: everything in flight is given up, to be tried again after a while.
    fn give_up(&self, error: Error) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let jobs = std::mem::take(&mut state.compaction.jobs);
        let mut due: Vec<Carry> = state.compaction.due.drain(..).collect();
        due.extend(jobs.iter().filter_map(|job| match &job.task {
            Task::Carry(carry) => Some(*carry),
            Task::Spill { .. } => None,
        }));
        due.sort_by_key(|carry| carry.due());
        state.compaction.due = due.into();
        state.installer.clear();
        state.compaction.untidy = true;
        state.compaction.stalled = Some(error.on_shard(self.config.shard));
        state.compaction.retry_at = Some(self.now() + RETRY_AFTER);
        state.log.retry();
        // Commits that wait for it are to be told.
        self.kick();
    }
}
