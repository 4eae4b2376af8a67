//! Clients on the shards' own cores: tasks of the shard's thread, with no mailbox between them and the engine.

use super::client::{Entries, Target, Thread};
use super::generator::Client;
use super::pace::Pace;
use super::run::{Member, Run};
use quipu::{
    Answer, Batch, Bytes, Commit, CommitId, Directory, Engine, Local, LocalCommit, Result, Retained,
};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The engine from a shard's core.
struct OnCore {
    local: Local,
    /// For what a [`Local`] does not tell.
    engine: Engine,
}

impl Target for OnCore {
    type Put = LocalCommit;

    fn put(&self, directory: &Directory, key: &[u8], value: &[u8]) -> LocalCommit {
        self.local.put(directory, key, value)
    }

    async fn commit(&self, batch: Batch) -> Result<CommitId> {
        self.local.commit(&batch).await
    }

    async fn get(&self, directory: &Directory, key: &[u8]) -> Result<Option<Bytes>> {
        self.local.get(directory, key).await
    }

    async fn scan(&self, directory: &Directory, from: &[u8], limit: usize) -> Result<Entries> {
        self.local.range(directory, from..)?.limit(limit).collect().await
    }

    async fn newest(&self, directory: &Directory, prefix: &[u8], limit: usize) -> Result<Entries> {
        self.local.prefix(directory, prefix)?.reverse().limit(limit).collect().await
    }

    async fn retained(&self, directory: &Directory) -> Result<Retained> {
        self.engine.retained(directory).await
    }

    async fn get_as_of(&self, directory: &Directory, commit: Commit, key: &[u8]) -> Result<Option<Bytes>> {
        self.local.as_of(commit)?.get(directory, key).await
    }
}

/// Starts clients on each shard that has some; the answers come when they have all ended.
pub(crate) fn start(engine: &Engine, run: &Arc<Run>, pace: &Pace) -> Vec<Answer<()>> {
    (0..run.dataset.shards())
        .filter(|&shard| pace.on_shard(shard).is_some())
        .map(|shard| {
            let (run, pace, engine_too) = (run.clone(), pace.clone(), engine.clone());
            let member = run.join();
            engine
                .run_on_shard(shard, move |local| shard_clients(local, engine_too, member, run, shard, pace))
        })
        .collect()
}

async fn shard_clients(local: Local, engine: Engine, member: Member, run: Arc<Run>, shard: u16, pace: Pace) {
    let thread = Rc::new(Thread::new(member, run.clone(), OnCore { local: local.clone(), engine }));
    match pace.on_shard(shard) {
        None => {}
        Some(Pace::Closed { in_flight }) => {
            let clients = in_flight[0];
            // The channel closes when the last client has dropped its end, by whatever way it ended.
            let (ended, mut all_ended) = mpsc::channel::<()>(1);
            for number in 0..clients {
                let client = Client { stream: u32::from(shard) << 20 | number, number, of: clients };
                let operations = run.operations(client, [shard]);
                let (thread, ended) = (thread.clone(), ended.clone());
                local.spawn(async move {
                    thread.closed(operations).await;
                    drop(ended);
                });
            }
            drop(ended);
            all_ended.recv().await;
        }
        Some(Pace::Open { arrivals, rates, cap }) => {
            let source = u32::from(shard);
            let client = Client { stream: source, number: 0, of: 1 };
            let operations = run.operations(client, [shard]);
            let schedule = run.schedule(arrivals, rates[0], (source, u32::from(run.dataset.shards())));
            thread.open(operations, schedule, cap, |task| local.spawn(task)).await;
        }
    }
}
