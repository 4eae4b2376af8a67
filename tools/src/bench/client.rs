//! Clients: what one does with an operation, and when it starts the next.
//!
//! The same code drives clients on the shards' cores, tasks on other threads and plain threads; what differs is the
//! [`Target`], the way to the engine.
//!
//! - Closed loop: the next operation starts when the last one has ended. One reading of the clock an operation: its
//!   end is the start of the next, so that a latency includes what the client itself needs (choosing, making key and
//!   value: about 100 ns).
//! - Open loop: operations start when a [`Schedule`] says so, each as a task of its own, whether or not those before it
//!   have ended. Latencies count from the intended start. Where so many are in flight that the cap is reached, arrivals
//!   wait, and the wait counts too.
//!
//! A read checks what it can for nothing: the value is of that key, and no older than what was acknowledged when
//! the read began. Every byte is checked at the end, by [`verify`](super::verify).

use super::dataset::Dataset;
use super::generator::Generator;
use super::key::PREFIX;
use super::op::{Op, OpKind};
use super::record::{Found, Recorder, Times};
use super::run::{Member, Run};
use super::schedule::Schedule;
use super::timer::Timer;
use quipu::{Batch, Bytes, Commit, CommitId, Directory, Error, Result, Retained};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Keys and values, in order.
pub(crate) type Entries = Vec<(Bytes, Bytes)>;

/// A way to the engine.
pub(crate) trait Target {
    /// The answer to a put, which owns what it needs of key and value.
    type Put: Future<Output = Result<CommitId>>;

    /// Commits one put.
    fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Self::Put;
    /// Commits a batch.
    async fn commit(&self, batch: Batch) -> Result<CommitId>;
    /// Reads one key.
    async fn get(&self, directory: &Directory, key: &[u8]) -> Result<Option<Bytes>>;
    /// Reads the first `limit` entries from a key on.
    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Result<Entries>;
    /// Reads the last `limit` entries with a prefix, the last one first.
    async fn newest(&self, directory: &Directory, prefix: &[u8], limit: usize) -> Result<Entries>;
    /// Which commits can be read as of.
    async fn retained(&self, directory: &Directory) -> Result<Retained>;
    /// Reads one key as of a commit.
    async fn get_as_of(&self, directory: &Directory, commit: Commit, key: &[u8]) -> Result<Option<Bytes>>;
}

/// As-of reads between two looks at what is retained.
const RETAINED_USES: u32 = 1000;

/// The shortest that a source of arrivals sleeps: what falls due meanwhile starts together. Each wake costs system calls
/// on the shard's own core, 20,000 a second at most so; the lag that it makes is reported and counts.
const NAP_MIN: Duration = Duration::from_micros(50);

/// Arrivals that are started before other tasks of the thread get a turn.
const BURST: u32 = 64;

/// Operations that a client of a closed loop does without waiting for anything before other tasks of the thread get a
/// turn: reads that find all they need in memory would keep the shard from its work. The others' turns are no latency.
const TURNS: u32 = 4;

/// A put that has begun.
struct Putting<P> {
    slot: u32,
    version: u32,
    put: P,
}

/// What the clients of one thread share.
pub(crate) struct Thread<T> {
    run: Arc<Run>,
    target: T,
    recorder: RefCell<Recorder>,
    /// Where values are made, one after the other: stays in the core's nearest cache.
    value: RefCell<Vec<u8>>,
    /// By shard, what was retained when last looked at, and how often that was used.
    retained: RefCell<Vec<Option<(Retained, u32)>>>,
    /// Operations of an open loop in flight.
    in_flight: Cell<u32>,
    /// Whether someone waits for one of them to end.
    waiting: Cell<bool>,
    ended: Notify,
    _member: Member,
}

impl<T: Target> Thread<T> {
    /// A thread of clients that reach the engine through `target`.
    pub(crate) fn new(member: Member, run: Arc<Run>, target: T) -> Self {
        Thread {
            target,
            recorder: RefCell::new(run.recorder()),
            value: RefCell::default(),
            retained: RefCell::new(vec![None; usize::from(run.dataset.shards())]),
            in_flight: Cell::new(0),
            waiting: Cell::new(false),
            ended: Notify::new(),
            _member: member,
            run,
        }
    }

    fn dataset(&self) -> &Dataset {
        &self.run.dataset
    }

    /// Runs one client of a closed loop until the phase or its operations are over.
    pub(crate) async fn closed(&self, mut operations: Generator) {
        let mut started = Instant::now();
        let mut turns = 0;
        let mut next = operations.next();
        while let Some(op) = next
            && !self.run.over(started)
        {
            next = operations.next();
            if let Some(next) = &next {
                next.touch(self.dataset());
            }
            let mut perform = pin!(self.perform(op));
            let mut waited = false;
            let performed = poll_fn(|context| {
                let polled = perform.as_mut().poll(context);
                waited |= polled.is_pending();
                polled
            });
            match performed.await {
                Ok(found) => {
                    let ended = Instant::now();
                    let times = Times { intended: started, started, ended };
                    self.recorder.borrow_mut().record(op.kind, times, found);
                    started = ended;
                }
                Err(error) => return self.run.fail(error),
            }
            turns = if waited { 0 } else { turns + 1 };
            if turns == TURNS {
                turns = 0;
                tokio::task::yield_now().await;
                started = Instant::now();
            }
        }
    }

    /// Runs an open loop until the phase is over and all that was started has ended. `spawn` starts a task of this
    /// thread; at most `cap` operations are in flight.
    pub(crate) async fn open(
        self: Rc<Self>,
        mut operations: Generator,
        mut schedule: Schedule,
        cap: u32,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()>>>),
    ) where
        T: 'static,
    {
        let deadline = self.run.window.deadline;
        let begin = self.run.begin;
        let mut arrivals = std::iter::from_fn(|| Some(begin + schedule.next()?));
        let timer = match Timer::new() {
            Ok(timer) => timer,
            Err(error) => return self.run.fail(timer_error(error)),
        };
        let Some(mut due) = arrivals.next() else { return };
        'phase: while due < deadline && !self.run.past_grace(Instant::now()) {
            let now = Instant::now();
            let mut started = 0;
            while due <= now && due < deadline && started < BURST {
                if self.in_flight.get() >= cap {
                    self.one_ended().await;
                    continue 'phase;
                }
                let Some(op) = operations.next() else { break 'phase };
                self.in_flight.update(|in_flight| in_flight + 1);
                let (this, intended) = (self.clone(), due);
                if op.kind == OpKind::Put {
                    // Begun here, so that all that is kept of the many in flight is what its end needs.
                    let begun = Instant::now();
                    let put = self.begin_put(self.directory(&op), op.slot);
                    spawn(Box::pin(async move {
                        let found = this.end_put(put).await;
                        this.served(OpKind::Put, intended, begun, found);
                    }));
                } else {
                    spawn(Box::pin(async move {
                        let begun = Instant::now();
                        let found = this.perform(op).await;
                        this.served(op.kind, intended, begun, found);
                    }));
                }
                let Some(next) = arrivals.next() else { break 'phase };
                due = next;
                started += 1;
            }
            if due <= Instant::now() {
                tokio::task::yield_now().await;
            } else if let Err(error) = timer.until(self.run.nap(due.min(deadline)).max(now + NAP_MIN)).await {
                self.run.fail(timer_error(error));
            }
        }
        self.run.leave_out(due, arrivals);
        while self.in_flight.get() > 0 {
            self.one_ended().await;
        }
    }

    /// Waits until an operation of the open loop ends.
    async fn one_ended(&self) {
        self.waiting.set(true);
        self.ended.notified().await;
    }

    /// An operation of the open loop has ended.
    fn served(&self, kind: OpKind, intended: Instant, started: Instant, found: Result<Found>) {
        match found {
            Ok(found) => {
                let times = Times { intended, started, ended: Instant::now() };
                self.recorder.borrow_mut().record(kind, times, found);
            }
            Err(error) => self.run.fail(error),
        }
        self.in_flight.update(|in_flight| in_flight - 1);
        if self.waiting.replace(false) {
            self.ended.notify_one();
        }
    }

    /// Runs a plain thread's open loop: one operation at a time, each as soon after its intended start as the thread
    /// is free. `sleep` blocks the thread until then.
    pub(crate) async fn paced(
        &self,
        mut operations: Generator,
        mut schedule: Schedule,
        sleep: impl Fn(Instant),
    ) {
        let begin = self.run.begin;
        let mut arrivals = std::iter::from_fn(|| Some(begin + schedule.next()?));
        while let Some(intended) = arrivals.next() {
            while Instant::now() < intended.min(self.run.window.deadline) && !self.run.aborted() {
                sleep(self.run.nap(intended.min(self.run.window.deadline)));
            }
            let started = Instant::now();
            if intended >= self.run.window.deadline || self.run.past_grace(started) {
                return self.run.leave_out(intended, arrivals);
            }
            let Some(op) = operations.next() else { return };
            match self.perform(op).await {
                Ok(found) => {
                    let times = Times { intended, started, ended: Instant::now() };
                    self.recorder.borrow_mut().record(op.kind, times, found);
                }
                Err(error) => return self.run.fail(error),
            }
        }
    }

    fn directory(&self, op: &Op) -> &Directory {
        &self.run.directories[usize::from(op.shard)][op.directory as usize]
    }

    async fn perform(&self, op: Op) -> Result<Found> {
        let directory = self.directory(&op);
        match op.kind {
            OpKind::Put => self.put(directory, op.slot).await,
            OpKind::Batch => self.batch(directory, op).await,
            OpKind::Insert => self.insert(directory, op).await,
            OpKind::Get => self.get(directory, op.slot).await,
            OpKind::Absent => self.absent(directory, op.slot).await,
            OpKind::Scan => self.scan(directory, op).await,
            OpKind::Newest => self.newest(directory, op).await,
            OpKind::ReadModifyWrite => {
                let mut found = self.get(directory, op.slot).await?;
                found.puts = self.put(directory, op.slot).await?.puts;
                Ok(found)
            }
            OpKind::AsOf => self.as_of(directory, op).await,
        }
    }

    async fn put(&self, directory: &Directory, slot: u32) -> Result<Found> {
        self.end_put(self.begin_put(directory, slot)).await
    }

    fn begin_put(&self, directory: &Directory, slot: u32) -> Putting<T::Put> {
        let dataset = self.dataset();
        let version = dataset.begin(slot);
        let mut value = self.value.borrow_mut();
        dataset.shape.fill(slot, version, &mut value);
        let put = self.target.put(directory, dataset.key(slot).as_ref(), &value);
        Putting { slot, version, put }
    }

    async fn end_put(&self, Putting { slot, version, put }: Putting<T::Put>) -> Result<Found> {
        match put.await {
            Ok(commit) => self.dataset().acknowledge(slot, version, commit),
            Err(error) => {
                self.dataset().doubt(slot, version);
                return Err(error);
            }
        }
        Ok(Found { puts: 1, ..Found::default() })
    }

    async fn batch(&self, directory: &Directory, op: Op) -> Result<Found> {
        let dataset = self.dataset();
        let mut batch = Batch::new();
        let mut puts = Vec::with_capacity(op.count as usize);
        {
            let mut value = self.value.borrow_mut();
            for slot in dataset.batch(&op) {
                let version = dataset.begin(slot);
                dataset.shape.fill(slot, version, &mut value);
                batch.put(directory, dataset.key(slot), &value[..]);
                puts.push((slot, version));
            }
        }
        let outcome = self.target.commit(batch).await;
        for &(slot, version) in &puts {
            match outcome {
                Ok(commit) => dataset.acknowledge(slot, version, commit),
                Err(_) => dataset.doubt(slot, version),
            }
        }
        outcome.map(|_| Found { puts: puts.len() as u64, ..Found::default() })
    }

    /// Puts a new key; where the room for them is used up, an old one.
    async fn insert(&self, directory: &Directory, op: Op) -> Result<Found> {
        match self.dataset().insert(op.shard, op.directory) {
            Some(slot) => {
                let found = self.put(directory, slot).await?;
                self.dataset().inserted(op.shard, slot);
                Ok(found)
            }
            None => self.put(directory, op.slot).await,
        }
    }

    async fn get(&self, directory: &Directory, slot: u32) -> Result<Found> {
        let dataset = self.dataset();
        let expected = dataset.expect(slot);
        let value = self.target.get(directory, dataset.key(slot).as_ref()).await?;
        if !dataset.agrees(slot, expected, value.as_deref()) {
            self.run.wrong_read();
        }
        Ok(Found { values: u64::from(value.is_some()), ..Found::default() })
    }

    async fn absent(&self, directory: &Directory, slot: u32) -> Result<Found> {
        let value = self.target.get(directory, self.dataset().shape.absent_key(slot).as_ref()).await?;
        if value.is_some() {
            self.run.wrong_read();
        }
        Ok(Found::default())
    }

    async fn scan(&self, directory: &Directory, op: Op) -> Result<Found> {
        let (dataset, limit) = (self.dataset(), op.count as usize);
        let written = dataset.written(op.slot);
        let key = dataset.key(op.slot);
        let key = key.as_ref();
        let entries = self.target.scan(directory, key, limit).await?;
        let in_order = entries.is_sorted_by(|(one, _), (next, _)| one < next);
        let from_key = entries.first().is_none_or(|(first, _)| first[..] >= *key);
        let has_key = entries.first().is_some_and(|(first, _)| first[..] == *key);
        if !in_order || !from_key || entries.len() > limit || (written && !has_key) {
            self.run.wrong_read();
        }
        Ok(Found { entries: entries.len() as u64, ..Found::default() })
    }

    async fn newest(&self, directory: &Directory, op: Op) -> Result<Found> {
        let (dataset, limit) = (self.dataset(), op.count as usize);
        let written = dataset.written(op.slot);
        let entries = self.target.newest(directory, PREFIX, limit).await?;
        let in_order = entries.is_sorted_by(|(one, _), (next, _)| one > next);
        // The newest can be no older than one that was there.
        let new = entries.first().map_or(!written, |(first, value)| {
            let named =
                dataset.shape.header(value).is_some_and(|(slot, _)| dataset.key(slot).as_ref() == first);
            named && first.starts_with(PREFIX) && (!written || first[..] >= *dataset.key(op.slot).as_ref())
        });
        if !in_order || !new || entries.len() > limit {
            self.run.wrong_read();
        }
        Ok(Found { entries: entries.len() as u64, ..Found::default() })
    }

    async fn as_of(&self, directory: &Directory, op: Op) -> Result<Found> {
        let dataset = self.dataset();
        let key = dataset.key(op.slot);
        let (shard, mut fresh) = (usize::from(op.shard), false);
        let value = loop {
            let known =
                self.retained.borrow_mut()[shard].as_mut().filter(|(_, uses)| *uses > 0).map(|known| {
                    known.1 -= 1;
                    known.0.clone()
                });
            let retained = match known {
                Some(retained) => retained,
                None => {
                    let retained = self.target.retained(directory).await?;
                    self.retained.borrow_mut()[shard] = Some((retained.clone(), RETAINED_USES));
                    fresh = true;
                    retained
                }
            };
            let (oldest, newest) = (retained.oldest().0, retained.newest().0);
            let span = u128::from(newest.saturating_sub(oldest)) + 1;
            let back = ((u128::from(op.draw) * span) >> 32) as u64;
            let commit = retained.nearest(Commit(newest.saturating_sub(back)));
            match self.target.get_as_of(directory, commit, key.as_ref()).await {
                Ok(value) => break value,
                // What was retained has gone since it was looked at: look again, once.
                Err(Error::NotRetained { .. }) if !fresh => self.retained.borrow_mut()[shard] = None,
                Err(error) => return Err(error),
            }
        };
        if value.as_ref().is_some_and(|value| dataset.shape.version(op.slot, value).is_none()) {
            self.run.wrong_read();
        }
        Ok(Found { values: u64::from(value.is_some()), ..Found::default() })
    }
}

/// The failure of a timer, as an engine's error: those are what ends a phase.
fn timer_error(error: std::io::Error) -> Error {
    Error::Io { operation: "wait for a timer", file: "the load generator".into(), source: Arc::new(error) }
}
