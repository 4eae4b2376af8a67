//! One closed-loop client: the next operation starts when the last one has ended.
//!
//! The same loop drives clients on the shards' cores and clients on other threads; what differs is the [`Target`],
//! the way to the engine. One reading of the clock an operation: its end is the start of the next, so that a
//! latency includes what the client itself needs (choosing, making key and value: about 100 ns).
//!
//! A read checks what it can for nothing: the value is of that key, and no older than what was acknowledged when
//! the read began. Every byte is checked at the end, by [`verify`](super::verify).

use super::dataset::Key;
use super::record::{Found, Recorder};
use super::run::Run;
use super::workload::{Generator, Op, OpKind, SCAN_ENTRIES};
use quipu::{Bytes, CommitId, Directory, Result};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

/// A way to the engine.
pub(crate) trait Target {
    /// The answer to a put, which owns what it needs of key and value.
    type Put: Future<Output = Result<CommitId>>;

    /// Commits one put.
    fn put(&self, directory: &Directory, key: &Key, value: &[u8]) -> Self::Put;
    /// Reads one key.
    async fn get(&self, directory: &Directory, key: &Key) -> Result<Option<Bytes>>;
    /// Reads the first `limit` entries from a key on.
    async fn scan(&self, directory: &Directory, from: Key, limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
}

/// What the clients of one thread share.
pub(crate) struct Thread<T> {
    run: Arc<Run>,
    target: T,
    recorder: RefCell<Recorder>,
    /// Where values are made, one after the other: stays in the core's nearest cache.
    value: RefCell<Vec<u8>>,
}

impl<T: Target> Thread<T> {
    /// A thread of clients that reach the engine through `target`.
    pub(crate) fn new(run: Arc<Run>, target: T) -> Self {
        let recorder = RefCell::new(run.recorder());
        Thread { run, target, recorder, value: RefCell::default() }
    }

    /// Runs one client until the phase is over.
    pub(crate) async fn client(&self, mut operations: Generator) {
        let mut start = Instant::now();
        let mut next = operations.next();
        while !self.run.over(start) {
            let op = next;
            next = operations.next();
            // The table of versions is larger than a core's cache. Asked for one operation ahead, a miss (a quarter
            // of all that a client needs) overlaps with the work for this one.
            std::hint::black_box(self.run.dataset.acknowledged(next.slot));
            match self.perform(op).await {
                Ok(found) => {
                    let end = Instant::now();
                    self.recorder.borrow_mut().record(op.kind, start, end, found);
                    start = end;
                }
                Err(error) => return self.run.fail(error),
            }
        }
    }

    async fn perform(&self, op: Op) -> Result<Found> {
        let dataset = &*self.run.dataset;
        let (shard, directory) = dataset.place(op.slot);
        let directory = &self.run.directories[shard][directory];
        let key = dataset.key(op.slot);
        let mut found = Found::default();
        match op.kind {
            OpKind::Put => {
                let version = dataset.next_version(op.slot);
                let put = {
                    let mut value = self.value.borrow_mut();
                    dataset.fill(op.slot, version, &mut value);
                    self.target.put(directory, &key, &value)
                };
                match put.await {
                    Ok(_) => dataset.acknowledge(op.slot, version),
                    Err(error) => {
                        dataset.doubt(op.slot, version);
                        return Err(error);
                    }
                }
            }
            OpKind::Get => {
                let acknowledged = dataset.acknowledged(op.slot);
                let value = self.target.get(directory, &key).await?;
                let version = value.as_ref().map_or(Some(0), |value| dataset.version(op.slot, value));
                if version.is_none_or(|version| version < acknowledged) {
                    self.run.wrong_read();
                }
                found.values = u64::from(value.is_some());
            }
            OpKind::Scan => {
                let acknowledged = dataset.acknowledged(op.slot);
                let entries = self.target.scan(directory, key, SCAN_ENTRIES).await?;
                let in_order = entries.is_sorted_by(|(one, _), (next, _)| one < next);
                let from_key = entries.first().is_none_or(|(first, _)| first[..] >= key[..]);
                let has_key = entries.first().is_some_and(|(first, _)| first[..] == key[..]);
                if !in_order || !from_key || entries.len() > SCAN_ENTRIES || (acknowledged > 0 && !has_key) {
                    self.run.wrong_read();
                }
                found.entries = entries.len() as u64;
            }
        }
        Ok(found)
    }
}
