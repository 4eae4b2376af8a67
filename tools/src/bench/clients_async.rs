//! Clients on other threads: async tasks that await the engine's answers, through the shards' mailboxes.

use super::client::{Target, Thread};
use super::dataset::Key;
use super::run::Run;
use crate::failure::Failure;
use quipu::{Answer, Bytes, CommitId, Directory};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::task::{JoinSet, LocalSet};

/// The engine from anywhere: the directory's handle knows the way.
struct Remote;

impl Target for Remote {
    type Put = Answer<CommitId>;

    fn put(&self, directory: &Directory, key: &Key, value: &[u8]) -> Answer<CommitId> {
        directory.put(key, value)
    }

    async fn get(&self, directory: &Directory, key: &Key) -> quipu::Result<Option<Bytes>> {
        directory.get(key).await
    }

    async fn scan(
        &self,
        directory: &Directory,
        from: Key,
        limit: usize,
    ) -> quipu::Result<Vec<(Bytes, Bytes)>> {
        directory.range(from..).limit(limit).collect().await
    }
}

/// Starts `in_flight` clients, dealt out to so many threads; each thread ends when its clients have. Every client
/// goes to all shards.
pub(crate) fn start(run: &Arc<Run>, in_flight: u32, threads: u32) -> Result<Vec<JoinHandle<()>>, Failure> {
    let slots = 0..run.dataset.slots();
    let clients = Run::clients(&slots, in_flight);
    (0..threads.min(clients))
        .map(|thread| {
            let (run, slots) = (run.clone(), slots.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .map_err(|error| Failure::run(format!("a runtime for clients: {error}")))?;
            std::thread::Builder::new()
                .name(format!("client-{thread}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime, async move {
                        let shared = Rc::new(Thread::new(run.clone(), Remote));
                        let mut tasks = JoinSet::new();
                        for client in (thread..clients).step_by(threads as usize) {
                            let operations = run.operations(&slots, client, clients, client);
                            let shared = shared.clone();
                            tasks.spawn_local(async move { shared.client(operations).await });
                        }
                        while tasks.join_next().await.is_some() {}
                    });
                })
                .map_err(|error| Failure::run(format!("a thread for clients: {error}")))
        })
        .collect()
}
