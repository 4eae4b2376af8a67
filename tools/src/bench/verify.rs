//! Reads everything back after the reopening, and compares it with what was acknowledged.
//!
//! Each shard's own core reads its directories, several at a time, with batched gets. Every slot is read, those
//! never written too: they must be absent.

use super::dataset::Dataset;
use quipu::{Directory, Engine, Local, Result};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Directories that a shard reads at the same time.
const DIRECTORIES_AT_ONCE: usize = 16;

/// Keys in one batched get.
const KEYS_AT_ONCE: usize = 512;

/// How many of what is wrong are told in full.
const EXAMPLES_MAX: usize = 5;

/// What verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verification {
    /// Keys read.
    pub(crate) keys: u64,
    /// Those of them with at least one acknowledged version, which must be there.
    pub(crate) acknowledged: u64,
    /// Keys that do not hold what was acknowledged.
    pub(crate) wrong: u64,
    /// Some of them, in words.
    pub(crate) examples: Vec<String>,
    /// What ended a shard's verification early.
    pub(crate) error: Option<String>,
    /// Whether Ctrl-C ended it early.
    pub(crate) interrupted: bool,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
}

impl Verification {
    /// Whether all that was read is right.
    pub(crate) fn passed(&self) -> bool {
        self.wrong == 0 && self.error.is_none()
    }

    fn wrong(&mut self, why: String) {
        self.wrong += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(why);
        }
    }

    fn add(&mut self, other: Verification) {
        self.keys += other.keys;
        self.acknowledged += other.acknowledged;
        self.wrong += other.wrong;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        self.error = self.error.take().or(other.error);
        self.interrupted |= other.interrupted;
    }
}

/// What one verification shares.
struct Task {
    dataset: Arc<Dataset>,
    directories: Arc<Vec<Vec<Directory>>>,
    doubts: BTreeMap<u32, Vec<u32>>,
    /// By shard, the slots that were inserted, sorted by directory.
    inserted: Vec<Vec<(u32, u32)>>,
    interrupted: Arc<AtomicBool>,
}

/// Verifies all that was acknowledged.
pub(crate) fn verify(
    engine: &Engine,
    dataset: Arc<Dataset>,
    directories: Arc<Vec<Vec<Directory>>>,
    interrupted: Arc<AtomicBool>,
) -> Verification {
    let start = Instant::now();
    let doubts = dataset.doubts();
    let inserted = (0..dataset.shards()).map(|shard| dataset.inserted_by_directory(shard)).collect();
    let task = Arc::new(Task { dataset, directories, doubts, inserted, interrupted });
    let answers: Vec<_> = (0..task.dataset.shards())
        .map(|shard| {
            let task = task.clone();
            engine.run_on_shard(shard, move |local| verify_shard(local, task))
        })
        .collect();
    let mut verification = Verification::default();
    for answer in answers {
        let shard = answer.wait().unwrap_or_else(|error| Verification {
            error: Some(error.to_string()),
            ..Verification::default()
        });
        verification.add(shard);
    }
    verification.seconds = Duration::as_secs_f64(&start.elapsed());
    verification
}

async fn verify_shard(local: Local, task: Arc<Task>) -> Verification {
    let found = Rc::new(RefCell::new(Verification::default()));
    let next = Rc::new(Cell::new(0));
    // The channel closes when the last reader has dropped its end, by whatever way it ended.
    let (ended, mut all_ended) = mpsc::channel::<()>(1);
    for _ in 0..DIRECTORIES_AT_ONCE {
        let (local, task, found, next) = (local.clone(), task.clone(), found.clone(), next.clone());
        let (reader, ended) = (local.clone(), ended.clone());
        local.spawn(async move {
            if let Err(error) = read_directories(&reader, &task, &next, &found).await {
                found.borrow_mut().error.get_or_insert(error.to_string());
            }
            drop(ended);
        });
    }
    drop(ended);
    all_ended.recv().await;
    found.take()
}

/// Takes one directory after the other until there are no more.
async fn read_directories(
    local: &Local,
    task: &Task,
    next: &Cell<usize>,
    found: &RefCell<Verification>,
) -> Result<()> {
    let shard = local.shard();
    let directories = &task.directories[usize::from(shard)];
    loop {
        let at = next.get();
        let Some(directory) = directories.get(at).filter(|_| found.borrow().error.is_none()) else {
            return Ok(());
        };
        next.set(at + 1);
        let slots = task.dataset.slots_in(shard, at as u32, &task.inserted[usize::from(shard)]);
        for slots in slots.chunks(KEYS_AT_ONCE) {
            if task.interrupted.load(Ordering::Relaxed) {
                found.borrow_mut().interrupted = true;
                return Ok(());
            }
            let keys: Vec<_> = slots.iter().map(|&slot| task.dataset.key(slot)).collect();
            let values = local.get_many(directory, &keys).await?;
            let mut found = found.borrow_mut();
            if values.len() != keys.len() {
                found.wrong(format!("{}: {} keys, {} answers", directory.path(), keys.len(), values.len()));
            }
            for (&slot, value) in slots.iter().zip(&values) {
                found.keys += 1;
                found.acknowledged += u64::from(task.dataset.written(slot));
                let doubted = task.doubts.get(&slot).map_or(&[][..], Vec::as_slice);
                if let Err(why) = task.dataset.verify(slot, doubted, value.as_deref()) {
                    found.wrong(format!("{}: {why}", directory.path()));
                }
            }
        }
    }
}
