//! What the clients of one phase share: the clock that starts and ends it, its data, and how it went.

use super::dataset::Dataset;
use super::record::{Outbox, Recorder};
use super::workload::{Generator, Mix, Slots};
use quipu::Directory;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Clients of one phase, from its start to its end.
pub(crate) struct Run {
    /// The data.
    pub(crate) dataset: Arc<Dataset>,
    /// Handles of its directories, by shard.
    pub(crate) directories: Arc<Vec<Vec<Directory>>>,
    /// Which phase of the run this is; part of the seed of its operations.
    pub(crate) phase: u32,
    /// What the clients do.
    pub(crate) mix: Mix,
    /// The start.
    pub(crate) epoch: Instant,
    /// When clients start nothing more, and what ends no longer counts.
    pub(crate) deadline: Instant,
    /// Where recorders hand over.
    pub(crate) outbox: Arc<Outbox>,
    /// Set by Ctrl-C.
    pub(crate) interrupted: Arc<AtomicBool>,
    /// Set by the first failure.
    failed: AtomicBool,
    /// The first failure.
    failure: Mutex<Option<quipu::Error>>,
    /// Reads that did not return what was acknowledged.
    wrong_reads: AtomicU64,
}

impl Run {
    /// A phase; the seed of its operations is the data's.
    pub(crate) fn new(
        dataset: Arc<Dataset>,
        directories: Arc<Vec<Vec<Directory>>>,
        (phase, mix): (u32, Mix),
        (epoch, deadline): (Instant, Instant),
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        Run {
            dataset,
            directories,
            phase,
            mix,
            epoch,
            deadline,
            outbox: Arc::default(),
            interrupted,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            wrong_reads: AtomicU64::new(0),
        }
    }

    /// Whether clients stop now: by the clock, Ctrl-C or a failure of one of them.
    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.deadline || self.aborted()
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

    /// A recorder for one thread of clients.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(self.outbox.clone(), self.epoch, self.deadline)
    }

    /// How many clients there are over these slots: never more than slots, as each writes slots of its own.
    pub(crate) fn clients(slots: &Range<u32>, in_flight: u32) -> u32 {
        in_flight.min(slots.end - slots.start)
    }

    /// The operations of client `client` of `clients` over these slots. `stream` tells it from every other client
    /// of the phase.
    pub(crate) fn operations(&self, slots: &Range<u32>, client: u32, clients: u32, stream: u32) -> Generator {
        let own = Slots::of_client(slots, client, clients);
        Generator::new(self.dataset.seed(), self.phase, stream, self.mix, own, slots.clone())
    }
}
