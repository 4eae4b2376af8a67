//! Quipu's own clients: tasks on the shards' cores, and async tasks on other threads.
//!
//! On a core there are either many clients, a task each, or one task that serves them all or keeps many commits in flight. They
//! draw from their shard's slots; async tasks draw from all. A client that never has to wait
//! (what it reads is in memory, its commits are buffered) lets others have a turn after every fourth operation; those that a task
//! serves commit durably, so they wait.

use crate::drive::Spec;
use crate::engines::quipu::Quipu;
use crate::engines::{Failure, Result};
use crate::measure::{Measured, Recorder, Times, Window, interrupted};
use crate::ops::{Data, Op, Ops, Slots, look_at, lost};
use crate::shared::timer::Timer;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use quipu::{Batch, Directory, Engine, Local, LocalCommit, Result as Quipus};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

/// Operations without waiting before others get a turn.
const TURNS: u32 = 4;
/// Commits of an open loop that are started before others get a turn.
const BURST: u32 = 64;
/// The shortest that the source of an open loop sleeps: what falls due meanwhile starts together.
const NAP_MIN: Duration = Duration::from_micros(50);
/// Commits of an open loop in flight at most, on each shard.
const OPEN_MAX: usize = 20_000;
/// Batches of a load in flight on each shard.
const LOAD_IN_FLIGHT: u32 = 16;

/// A way to the engine.
trait Way: 'static {
    async fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Quipus<()>;
    async fn commit(&self, batch: Batch) -> Quipus<()>;
    /// Reads a value and looks at it.
    async fn get(&self, directory: &Directory, key: &[u8], seen: impl FnOnce(&[u8]) -> bool) -> Quipus<bool>;
    /// Reads values from a key on and looks at each; how many there are.
    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Quipus<usize>;
}

/// From the shard's own core.
struct OnCore(Local);

impl Way for OnCore {
    async fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Quipus<()> {
        self.0.put(directory, key, value).await.map(drop)
    }

    async fn commit(&self, batch: Batch) -> Quipus<()> {
        self.0.commit(&batch).await.map(drop)
    }

    async fn get(&self, directory: &Directory, key: &[u8], seen: impl FnOnce(&[u8]) -> bool) -> Quipus<bool> {
        Ok(self.0.get(directory, key).await?.is_some_and(|value| seen(&value)))
    }

    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Quipus<usize> {
        let mut scan = self.0.range(directory, from..)?.limit(limit);
        let mut found = 0;
        scan.for_each(|_, value| {
            look_at(value);
            found += 1;
            ControlFlow::Continue(())
        })
        .await?;
        Ok(found)
    }
}

/// From any other thread.
struct Remote(Engine);

impl Way for Remote {
    async fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Quipus<()> {
        directory.put(key, value).await.map(drop)
    }

    async fn commit(&self, batch: Batch) -> Quipus<()> {
        self.0.commit(batch).await.map(drop)
    }

    async fn get(&self, directory: &Directory, key: &[u8], seen: impl FnOnce(&[u8]) -> bool) -> Quipus<bool> {
        Ok(directory.get(key).await?.is_some_and(|value| seen(&value)))
    }

    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Quipus<usize> {
        let mut scan = directory.range(from..).limit(limit);
        let mut found = 0;
        while let Some((_, value)) = scan.next_ref().await? {
            look_at(value);
            found += 1;
        }
        Ok(found)
    }
}

/// One operation, and its answer.
async fn perform(way: &impl Way, directories: &[Directory], ops: &mut Ops) -> Result<()> {
    let of = |slot: u32| &directories[slot as usize % directories.len()];
    match ops.next() {
        Op::Put(slot) => way.put(of(slot), ops.key(slot).as_ref(), ops.value()).await?,
        Op::Batch => {
            let mut batch = Batch::new();
            for (slot, key, value) in ops.pairs() {
                batch.put(of(*slot), key, value);
            }
            way.commit(batch).await?;
        }
        Op::Get(slot) => {
            let key = ops.key(slot);
            if !way.get(of(slot), key.as_ref(), |value| ops.right(slot, value)).await? {
                return Err(lost(slot));
            }
        }
        Op::Scan(slot, limit) => {
            if way.scan(of(slot), ops.key(slot).as_ref(), limit as usize).await? == 0 {
                return Err(lost(slot));
            }
        }
    }
    Ok(())
}

/// One client of a closed loop.
async fn client(
    way: &impl Way,
    directories: &[Directory],
    mut ops: Ops,
    recorder: &RefCell<Recorder>,
) -> Result<()> {
    let window = recorder.borrow().window();
    let mut turns = 0;
    let mut started = Instant::now();
    while !window.over(started) && ops.more() {
        let mut waited = false;
        {
            let mut operation = pin!(perform(way, directories, &mut ops));
            poll_fn(|context| {
                let polled = operation.as_mut().poll(context);
                waited |= polled.is_pending();
                polled
            })
            .await?;
        }
        let ended = Instant::now();
        recorder.borrow_mut().record(started, ended);
        started = ended;
        turns = if waited { 0 } else { turns + 1 };
        if turns == TURNS {
            turns = 0;
            tokio::task::yield_now().await;
            started = Instant::now();
        }
    }
    Ok(())
}

/// Runs so many tasks of this thread to their ends; the first failure, if there was one.
async fn all<F>(
    tasks: impl Iterator<Item = F>,
    spawn: impl Fn(std::pin::Pin<Box<dyn Future<Output = ()>>>),
) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    let (ended, mut results) = mpsc::unbounded_channel();
    for task in tasks {
        let ended = ended.clone();
        spawn(Box::pin(async move {
            let _ = ended.send(task.await);
        }));
    }
    drop(ended);
    let mut first: Result<()> = Ok(());
    while let Some(result) = results.recv().await {
        first = first.and(result);
    }
    first
}

fn done(recorder: Rc<RefCell<Recorder>>) -> Result<Recorder> {
    Rc::into_inner(recorder).map(RefCell::into_inner).ok_or_else(|| "a client is still there".into())
}

/// A closed loop on the cores: so many clients on each of the first `shards`.
pub(crate) fn on_core(
    quipu: &Quipu,
    spec: &Spec,
    clients: u32,
    shard: Option<u32>,
    times: Times,
) -> Result<Measured> {
    let all_directories = quipu.directories.clone();
    on_each_place(quipu, spec, shard, Window::now(times), async move |place: Place| {
        let directories: Rc<[Directory]> = all_directories.clone().into();
        let way = Rc::new(OnCore(place.local.clone()));
        let tasks = (0..clients).map(|number| {
            let ops = place.ops(number);
            let (way, directories, recorder) = (way.clone(), directories.clone(), place.recorder.clone());
            async move { client(&*way, &directories, ops, &recorder).await }
        });
        all(tasks, |task| place.local.spawn(task)).await
    })
}

/// A closed loop of async tasks on so many other threads; so many tasks in all.
pub(crate) fn async_tasks(
    quipu: &Quipu,
    spec: &Spec,
    in_flight: u32,
    threads: u32,
    times: Times,
) -> Result<Measured> {
    let window = Window::now(times);
    let notes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || -> Result<Recorder> {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
                    let recorder = Rc::new(RefCell::new(Recorder::new(window)));
                    let directories: Rc<[Directory]> = quipu.directories.clone().into();
                    let way = Rc::new(Remote(quipu.engine.clone()));
                    let tasks = (thread..in_flight).step_by(threads as usize).map(|number| {
                        let ops = Ops::new(&spec.data, spec.work, Slots::ALL, number).limited(spec.each);
                        let (way, directories, recorder) =
                            (way.clone(), directories.clone(), recorder.clone());
                        async move { client(&*way, &directories, ops, &recorder).await }
                    });
                    let spawn = |task| drop(tokio::task::spawn_local(task));
                    LocalSet::new().block_on(&runtime, all(tasks, spawn))?;
                    done(recorder)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
            .collect()
    });
    Measured::of(notes)
}

/// A closed loop of commits on the cores: one task on each shard keeps so many in flight, as a service does that takes its
/// requests from one queue. It awaits them in the order in which it made them, which is that in which they become durable.
pub(crate) fn on_core_pipelined(
    quipu: &Quipu,
    spec: &Spec,
    in_flight: u32,
    times: Times,
) -> Result<Measured> {
    let window = Window::now(times);
    on_each_place(quipu, spec, None, window, async move |place: Place| {
        let mut ops = place.ops(0);
        let mut flights = VecDeque::with_capacity(in_flight as usize);
        let mut started = Instant::now();
        loop {
            while flights.len() < in_flight as usize && ops.more() && !window.over(started) {
                flights.push_back((started, put(&place.local, &place.directory, &mut ops)?));
            }
            let Some((intended, commit)) = flights.pop_front() else { return Ok(()) };
            commit.await?;
            // The next one is started at once: one look at the clock for both.
            started = Instant::now();
            place.recorder.borrow_mut().record(intended, started);
        }
    })
}

/// A closed loop of reads and commits on the cores: one task on each shard serves so many clients, as the event loop of a server
/// does those who are connected. Each client has its answer before its next operation starts. What those want to read who are
/// ready at the same time is read in a call.
pub(crate) fn on_core_served(quipu: &Quipu, spec: &Spec, clients: u32, times: Times) -> Result<Measured> {
    on_each_place(quipu, spec, None, Window::now(times), async move |place: Place| {
        let clients: Vec<Ops> = (0..clients).map(|number| place.ops(number)).collect();
        let ready = (0..clients.len()).collect();
        let commits = VecDeque::with_capacity(clients.len());
        let mut served = Served {
            place: &place,
            clients,
            ready,
            now: Instant::now(),
            commits,
            reads: FuturesUnordered::new(),
        };
        while served.serve()? {
            poll_fn(|context| served.answer(context)).await?;
        }
        Ok(())
    })
}

/// The clients of a shard.
struct Served<'a> {
    place: &'a Place,
    clients: Vec<Ops>,
    /// Those who have their answer.
    ready: Vec<usize>,
    /// When they got it.
    now: Instant,
    /// Who waits for a commit, and since when; in the order in which they become durable.
    commits: VecDeque<(usize, Instant, LocalCommit)>,
    /// Those whose reads take a look at the disk.
    reads: FuturesUnordered<Reads<'a>>,
}

/// Reads in a call.
type Reads<'a> = Pin<Box<dyn Future<Output = Result<Read>> + 'a>>;

/// Who has read which slots, and what was found.
struct Read {
    started: Instant,
    readers: Vec<(usize, u32)>,
    values: Vec<Option<Bytes>>,
}

impl Served<'_> {
    /// Starts operations until everyone waits. Answers whether anyone does.
    fn serve(&mut self) -> Result<bool> {
        let window = self.place.recorder.borrow().window();
        let Place { local, directory, .. } = self.place;
        while !self.ready.is_empty() {
            let started = self.now;
            let (mut readers, mut keys) = (Vec::with_capacity(self.ready.len()), Vec::new());
            for client in self.ready.drain(..) {
                let ops = &mut self.clients[client];
                if window.over(started) || !ops.more() {
                    continue;
                }
                match ops.next() {
                    Op::Get(slot) => {
                        readers.push((client, slot));
                        keys.push(ops.key(slot));
                    }
                    Op::Put(slot) => {
                        let commit = local.put(directory, ops.key(slot), ops.value());
                        self.commits.push_back((client, started, commit));
                    }
                    _ => return Err("these clients read and put single keys only".into()),
                }
            }
            if readers.is_empty() {
                break;
            }
            let mut reads: Reads<'_> = Box::pin(async move {
                let values = local.get_many(directory, &keys).await?;
                Ok(Read { started, readers, values })
            });
            // Mostly all is in memory, and those clients are ready again.
            match reads.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(read) => self.read(read?)?,
                Poll::Pending => self.reads.push(reads),
            }
        }
        Ok(!(self.commits.is_empty() && self.reads.is_empty()))
    }

    /// Waits for answers, and takes all that are there.
    fn answer(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while let Poll::Ready(Some(read)) = self.reads.poll_next_unpin(context) {
            self.read(read?)?;
        }
        let mut answered = 0;
        while let Some((_, _, commit)) = self.commits.get_mut(answered)
            && let Poll::Ready(durable) = commit.poll_unpin(context)
        {
            durable?;
            answered += 1;
        }
        if answered > 0 {
            self.now = Instant::now();
        }
        for (client, started, _) in self.commits.drain(..answered) {
            self.place.recorder.borrow_mut().record(started, self.now);
            self.ready.push(client);
        }
        if self.ready.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Gives clients what they have read.
    fn read(&mut self, Read { started, readers, values }: Read) -> Result<()> {
        for (&(client, slot), value) in readers.iter().zip(values) {
            if !value.is_some_and(|value| self.clients[client].right(slot, &value)) {
                return Err(lost(slot));
            }
        }
        self.now = Instant::now();
        for (client, _) in readers {
            self.place.recorder.borrow_mut().record(started, self.now);
            self.ready.push(client);
        }
        Ok(())
    }
}

/// A closed loop of reads on the cores: one task on each shard reads so many keys in a call, as a service does that takes its
/// requests from one queue.
pub(crate) fn on_core_together(quipu: &Quipu, spec: &Spec, together: u32, times: Times) -> Result<Measured> {
    let window = Window::now(times);
    on_each_place(quipu, spec, None, window, async move |place: Place| {
        let mut ops = place.ops(0);
        let mut started = Instant::now();
        while !window.over(started) && ops.more() {
            let (slots, keys) = ops.next_gets(together)?;
            let values = place.local.get_many(&place.directory, &keys).await?;
            for (&slot, value) in slots.iter().zip(&values) {
                if !value.as_ref().is_some_and(|value| ops.right(slot, value)) {
                    return Err(lost(slot));
                }
            }
            let ended = Instant::now();
            keys.iter().for_each(|_| place.recorder.borrow_mut().record(started, ended));
            tokio::task::yield_now().await;
            started = Instant::now();
        }
        Ok(())
    })
}

/// An open loop of commits on the cores, at so many a second in all, evenly spaced. Latency counts from when a commit
/// was to start. On each shard one task starts them, and another awaits them in their order.
pub(crate) fn on_core_open(quipu: &Quipu, spec: &Spec, rate: f64, times: Times) -> Result<Measured> {
    let window = Window::open(times);
    let begin = Instant::now();
    let rate = rate / quipu.directories.len() as f64;
    on_each_place(quipu, spec, None, window, async move |place: Place| {
        let flights = Rc::new(Flights::default());
        let lands: Pin<Box<dyn Future<Output = Result<()>>>> = Box::pin({
            let (flights, recorder) = (flights.clone(), place.recorder.clone());
            async move { flights.land(&recorder).await }
        });
        let local = place.local.clone();
        let starts = Box::pin(async move {
            let begun = flights.start(&place, begin, rate, window).await;
            // Whatever became of them, no more come.
            flights.over.set(true);
            flights.started.notify_one();
            begun
        });
        all([lands, starts].into_iter(), |task| local.spawn(task)).await
    })
}

fn put(local: &Local, directory: &Directory, ops: &mut Ops) -> Result<LocalCommit> {
    let Op::Put(slot) = ops.next() else { return Err("these clients commit puts only".into()) };
    Ok(local.put(directory, ops.key(slot), ops.value()))
}

/// The commits of an open loop that are in flight, oldest first.
#[derive(Default)]
struct Flights {
    flights: RefCell<VecDeque<(Instant, LocalCommit)>>,
    /// No more will be started.
    over: Cell<bool>,
    started: Notify,
    landed: Notify,
}

impl Flights {
    /// Starts commits when they fall due, all that do before the time is over.
    async fn start(&self, place: &Place, begin: Instant, rate: f64, window: Window) -> Result<()> {
        let mut ops = place.ops(0);
        let timer = Timer::new()?;
        let mut number = 0u64;
        let mut burst = 0;
        loop {
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            let now = Instant::now();
            if window.over(due) || self.over.get() {
                return Ok(());
            }
            let flying = self.flights.borrow().len();
            if due > now {
                burst = 0;
                timer.until(due.max(now + NAP_MIN)).await?;
            } else if flying >= OPEN_MAX {
                self.landed.notified().await;
            } else if burst == BURST {
                burst = 0;
                tokio::task::yield_now().await;
            } else {
                burst += 1;
                number += 1;
                let commit = put(&place.local, &place.directory, &mut ops)?;
                self.flights.borrow_mut().push_back((due, commit));
                if flying == 0 {
                    self.started.notify_one();
                }
            }
        }
    }

    /// Awaits them until no more come.
    async fn land(&self, recorder: &RefCell<Recorder>) -> Result<()> {
        loop {
            let oldest = self.flights.borrow_mut().pop_front();
            match oldest {
                Some((due, commit)) => {
                    if let Err(error) = commit.await {
                        self.over.set(true);
                        self.landed.notify_one();
                        return Err(error.into());
                    }
                    recorder.borrow_mut().record(due, Instant::now());
                    if self.flights.borrow().len() + 1 == OPEN_MAX {
                        self.landed.notify_one();
                    }
                }
                None if self.over.get() => return Ok(()),
                None => self.started.notified().await,
            }
        }
    }
}

/// What drives one shard.
struct Place {
    local: Local,
    directory: Directory,
    slots: Slots,
    spec: Spec,
    recorder: Rc<RefCell<Recorder>>,
}

impl Place {
    /// The operations of one of its clients.
    fn ops(&self, client: u32) -> Ops {
        let Spec { data, work, each, .. } = self.spec;
        Ops::new(&data, work, self.slots, self.slots.first << 20 | client).limited(each)
    }
}

/// Runs one driver on the core of each of the first `shards` directories, on that directory's slots.
fn on_each_place(
    quipu: &Quipu,
    spec: &Spec,
    only: Option<u32>,
    window: Window,
    drive: impl AsyncFn(Place) -> Result<()> + Clone + Send + 'static,
) -> Result<Measured> {
    let places = quipu.directories.len() as u32;
    let answers: Vec<_> = (0..places)
        .filter(|place| only.is_none_or(|only| only == *place))
        .map(|place| {
            let (spec, directory, drive) = (*spec, quipu.directories[place as usize].clone(), drive.clone());
            quipu.engine.run_on_shard(directory.shard(), async move |local: Local| {
                let recorder = Rc::new(RefCell::new(Recorder::new(window)));
                let slots = Slots { first: place, step: places };
                drive(Place { local, directory, slots, spec, recorder: recorder.clone() }).await?;
                done(recorder)
            })
        })
        .collect();
    Measured::of(answers.into_iter().map(|answer| answer.wait().map_err(Failure::from).flatten()).collect())
}

/// Puts every key once, in batches of so many from the cores, then waits until all are durable. Returns how long that
/// took.
pub(crate) fn load(quipu: &Quipu, data: &Data, batch: u32) -> Result<Duration> {
    let began = Instant::now();
    each_place(quipu, data, LOAD_IN_FLIGHT, async move |local, directory, shape, slots| {
        loop {
            let mut puts = Batch::new();
            let mut value = Vec::new();
            for slot in slots.borrow_mut().by_ref().take(batch as usize) {
                shape.fill(slot, 0, &mut value);
                puts.put(&directory, shape.key(slot), &value);
            }
            if puts.is_empty() || interrupted() {
                return Ok(());
            }
            local.commit(&puts).await?;
            // Buffered commits never wait.
            tokio::task::yield_now().await;
        }
    })?;
    quipu.engine.barrier().wait()?;
    if interrupted() {
        return Err("interrupted".into());
    }
    Ok(began.elapsed())
}

/// Reads every key once.
pub(crate) fn touch(quipu: &Quipu, data: &Data) -> Result<()> {
    each_place(quipu, data, 1, async move |local, directory, shape, slots| {
        let mut turn = 0u32;
        loop {
            let Some(slot) = slots.borrow_mut().next() else { return Ok(()) };
            if local.get(&directory, shape.key(slot)).await?.is_none() {
                return Err(lost(slot));
            }
            turn += 1;
            if turn.is_multiple_of(64) {
                tokio::task::yield_now().await;
                if interrupted() {
                    return Err("interrupted".into());
                }
            }
        }
    })
}

/// The slots of a place, handed out one after the other.
type SlotsLeft = Rc<RefCell<std::iter::StepBy<std::ops::Range<u32>>>>;

/// Runs so many tasks on the core of each directory, which share that directory's slots.
fn each_place(
    quipu: &Quipu,
    data: &Data,
    tasks: u32,
    task: impl AsyncFn(Local, Directory, crate::shared::key::Shape, SlotsLeft) -> Result<()>
    + Clone
    + Send
    + 'static,
) -> Result<()> {
    let places = quipu.directories.len() as u32;
    let answers: Vec<_> = (0..places)
        .map(|place| {
            let (data, directory, task) = (*data, quipu.directories[place as usize].clone(), task.clone());
            quipu.engine.run_on_shard(directory.shard(), async move |local: Local| {
                let slots = Rc::new(RefCell::new((place..data.keys).step_by(places as usize)));
                let tasks = (0..tasks).map(|_| {
                    let (task, local, directory, slots) =
                        (task.clone(), local.clone(), directory.clone(), slots.clone());
                    async move { task(local, directory, data.shape(), slots).await }
                });
                all(tasks, |task| local.spawn(task)).await
            })
        })
        .collect();
    answers.into_iter().try_for_each(|answer| answer.wait().map_err(Failure::from).flatten())
}
