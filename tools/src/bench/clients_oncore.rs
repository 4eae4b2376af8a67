//! Clients on the shards' own cores: tasks of the shard's thread, with no mailbox between them and the engine.

use super::client::{Target, Thread};
use super::dataset::Key;
use super::run::Run;
use quipu::{Answer, Bytes, Directory, Engine, Local, LocalCommit, Result};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

impl Target for Local {
    type Put = LocalCommit;

    fn put(&self, directory: &Directory, key: &Key, value: &[u8]) -> LocalCommit {
        Local::put(self, directory, key, value)
    }

    async fn get(&self, directory: &Directory, key: &Key) -> Result<Option<Bytes>> {
        Local::get(self, directory, key).await
    }

    async fn scan(&self, directory: &Directory, from: Key, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.range(directory, from..)?.limit(limit).collect().await
    }
}

/// Starts `in_flight` clients on each shard that has data; the answers come when they have all ended.
pub(crate) fn start(engine: &Engine, run: &Arc<Run>, in_flight: u32) -> Vec<Answer<()>> {
    (0..run.dataset.shards())
        .filter(|&shard| !run.dataset.slots_of(shard).is_empty())
        .map(|shard| {
            let run = run.clone();
            engine.run_on_shard(shard, move |local| shard_clients(local, run, shard, in_flight))
        })
        .collect()
}

async fn shard_clients(local: Local, run: Arc<Run>, shard: u16, in_flight: u32) {
    let slots = run.dataset.slots_of(shard);
    let clients = Run::clients(&slots, in_flight);
    let thread = Rc::new(Thread::new(run.clone(), local.clone()));
    // The channel closes when the last client has dropped its end, by whatever way it ended.
    let (ended, mut all_ended) = mpsc::channel::<()>(1);
    for client in 0..clients {
        let operations = run.operations(&slots, client, clients, slots.start + client);
        let (thread, ended) = (thread.clone(), ended.clone());
        local.spawn(async move {
            thread.client(operations).await;
            drop(ended);
        });
    }
    drop(ended);
    all_ended.recv().await;
}
