//! Clients on other threads, through the shards' mailboxes: async tasks that await the engine's answers, or plain
//! threads that wait for them.

use super::client::{Entries, Target, Thread};
use super::generator::Client;
use super::pace::Pace;
use super::run::{Member, Run};
use crate::failure::Failure;
use quipu::{Answer, Batch, Bytes, Commit, CommitId, Directory, Engine, Result, Retained};
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::task::{JoinSet, LocalSet};

/// The engine from anywhere: the directory's handle knows the way.
struct Remote(Engine);

impl Target for Remote {
    type Put = Answer<CommitId>;

    fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Answer<CommitId> {
        directory.put(key, value)
    }

    async fn commit(&self, batch: Batch) -> Result<CommitId> {
        self.0.commit(batch).await
    }

    async fn get(&self, directory: &Directory, key: &[u8]) -> Result<Option<Bytes>> {
        directory.get(key).await
    }

    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Result<Entries> {
        directory.range(from..).limit(limit).collect().await
    }

    async fn newest(&self, directory: &Directory, prefix: &[u8], limit: usize) -> Result<Entries> {
        directory.prefix(prefix).reverse().limit(limit).collect().await
    }

    async fn retained(&self, directory: &Directory) -> Result<Retained> {
        self.0.retained(directory).await
    }

    async fn get_as_of(&self, directory: &Directory, commit: Commit, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.as_of(directory, commit).await?.get(directory, key).await
    }
}

/// The engine for a thread that waits, as such a thread does, within each call: the futures are done when they are made.
struct Waiting(Engine);

impl Target for Waiting {
    type Put = Ready<Result<CommitId>>;

    fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> Self::Put {
        ready(directory.put(key, value).wait())
    }

    async fn commit(&self, batch: Batch) -> Result<CommitId> {
        self.0.commit(batch).wait()
    }

    async fn get(&self, directory: &Directory, key: &[u8]) -> Result<Option<Bytes>> {
        directory.get(key).wait()
    }

    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Result<Entries> {
        directory.range(from..).limit(limit).blocking().collect()
    }

    async fn newest(&self, directory: &Directory, prefix: &[u8], limit: usize) -> Result<Entries> {
        directory.prefix(prefix).reverse().limit(limit).blocking().collect()
    }

    async fn retained(&self, directory: &Directory) -> Result<Retained> {
        self.0.retained(directory).wait()
    }

    async fn get_as_of(&self, directory: &Directory, commit: Commit, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.as_of(directory, commit).wait()?.get(directory, key).wait()
    }
}

/// Threads that end when their clients have.
pub(crate) type Threads = Result<Vec<JoinHandle<()>>, Failure>;

/// Starts async clients, dealt out to so many threads. Every client goes to all shards.
pub(crate) fn start_async(engine: &Engine, run: &Arc<Run>, pace: &Pace, threads: u32) -> Threads {
    let threads = pace.threads(threads);
    let start = |thread: u32| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|error| Failure::run(format!("a runtime for clients: {error}")))?;
        let (run, engine, pace) = (run.clone(), engine.clone(), pace.clone());
        let member = run.join();
        spawn(format!("client-{thread}"), move || {
            LocalSet::new().block_on(&runtime, async_clients(member, run, engine, pace, thread, threads));
        })
    };
    (0..threads).map(start).collect()
}

async fn async_clients(member: Member, run: Arc<Run>, engine: Engine, pace: Pace, thread: u32, threads: u32) {
    let shared = Rc::new(Thread::new(member, run.clone(), Remote(engine)));
    let shards = 0..run.dataset.shards();
    match pace {
        Pace::Closed { in_flight } => {
            let clients: u32 = in_flight.iter().sum();
            let mut tasks = JoinSet::new();
            for number in (thread..clients).step_by(threads as usize) {
                let client = Client { stream: number, number, of: clients };
                let operations = run.operations(client, shards.clone());
                let shared = shared.clone();
                tasks.spawn_local(async move { shared.closed(operations).await });
            }
            while tasks.join_next().await.is_some() {}
        }
        Pace::Open { arrivals, rates, cap } => {
            let rate = rates.iter().sum::<f64>() / f64::from(threads);
            let client = Client { stream: thread, number: thread, of: threads };
            let schedule = run.schedule(arrivals, rate, (thread, threads));
            let cap = cap.saturating_mul(rates.len() as u32) / threads;
            let spawn = |task| drop(tokio::task::spawn_local(task));
            shared.open(run.operations(client, shards), schedule, cap.max(1), spawn).await;
        }
    }
}

/// Starts plain threads, each with one operation at a time, on all shards.
pub(crate) fn start_blocking(engine: &Engine, run: &Arc<Run>, pace: &Pace, threads: u32) -> Threads {
    let start = |thread: u32| {
        let (run, engine, pace) = (run.clone(), engine.clone(), pace.clone());
        let member = run.join();
        spawn(format!("client-{thread}"), move || {
            let client = Client { stream: thread, number: thread, of: threads };
            let operations = run.operations(client, 0..run.dataset.shards());
            let shared = Thread::new(member, run.clone(), Waiting(engine));
            match pace {
                Pace::Closed { .. } => pollster::block_on(shared.closed(operations)),
                Pace::Open { arrivals, rates, .. } => {
                    let rate = rates.iter().sum::<f64>() / f64::from(threads);
                    let schedule = run.schedule(arrivals, rate, (thread, threads));
                    // Without this, the kernel may wake the thread up to 50 us late. Where it refuses, it does.
                    let _ = nix::sys::prctl::set_timerslack(1);
                    pollster::block_on(shared.paced(operations, schedule, sleep_until));
                }
            }
        })
    };
    (0..threads).map(start).collect()
}

fn sleep_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

fn spawn(name: String, clients: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let spawned = std::thread::Builder::new().name(name).spawn(clients);
    spawned.map_err(|error| Failure::run(format!("a thread for clients: {error}")))
}
