//! fjall, with its documented defaults (workers, memtables of 64 MiB, filters of 10 bits, blocks of 4 KiB), the cache
//! budget, and a journal budget that lets the memtables fill.
//!
//! A durable commit is a batch with `PersistMode::SyncData`, which is what its documentation names for transactions.
//! Compression is off, since the values do not compress.

use super::{Client, Durability, Result, Seen, Settings, Setup, Store, View, settings};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest that settling waits.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// An open fjall.
pub(crate) struct Fjall {
    db: Database,
    keyspace: Keyspace,
    setup: Setup,
    flusher: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Fjall {
    /// Opens it.
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let held_back = matches!(setup.durability, Durability::Within(_));
        let db = Database::builder(&setup.path)
            .cache_size(setup.cache_bytes)
            .max_journaling_size(setup.memtable_bytes.max(512 << 20))
            .manual_journal_persist(held_back)
            .open()?;
        let keyspace = db.keyspace("data", || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .manual_journal_persist(held_back)
        })?;
        let flusher = match setup.durability {
            Durability::Within(within) => Some(persist_every(&db, within)?),
            _ => None,
        };
        Ok(Fjall { db, keyspace, setup: setup.clone(), flusher })
    }
}

fn persist_every(db: &Database, within: Duration) -> Result<(Arc<AtomicBool>, JoinHandle<()>)> {
    let over = Arc::new(AtomicBool::new(false));
    let (db, told) = (db.clone(), over.clone());
    let thread = std::thread::Builder::new().name("journal-flush".into()).spawn(move || {
        while !told.load(Ordering::Relaxed) {
            std::thread::sleep(within);
            // A failure shows in the next write.
            let _ = db.persist(PersistMode::SyncData);
        }
    })?;
    Ok((over, thread))
}

impl Store for Fjall {
    fn settings(&self) -> Settings {
        let writes = match self.setup.durability {
            Durability::Synced => "batches with PersistMode::SyncData".to_string(),
            Durability::Unsynced => "no persist: each write goes to the system".to_string(),
            Durability::Within(within) => {
                format!("manual_journal_persist, persist(SyncData) every {within:?}")
            }
        };
        settings([
            ("writes", writes),
            ("cache", format!("{} MiB", self.setup.cache_bytes >> 20)),
            ("memtables", "64 MiB each (default)".to_string()),
            ("journals", format!("{} MiB", self.setup.memtable_bytes.max(512 << 20) >> 20)),
            ("compression", "none".to_string()),
            ("filters, blocks, workers", "defaults".to_string()),
        ])
    }

    fn client(&self, _: View) -> Result<Box<dyn Client + '_>> {
        Ok(Box::new(FjallClient {
            db: &self.db,
            keyspace: &self.keyspace,
            synced: self.setup.durability == Durability::Synced,
        }))
    }

    fn persist(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        let began = Instant::now();
        // Quiet a few times in a row: one merge may call for the next.
        let mut quiet = 0;
        while quiet < 5 && began.elapsed() < SETTLE_MAX {
            std::thread::sleep(Duration::from_millis(20));
            let busy = self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<bool> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        Ok(true)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        if let Some((over, thread)) = self.flusher.take() {
            over.store(true, Ordering::Relaxed);
            thread.join().map_err(|_| "the thread that flushes the journal panicked")?;
        }
        self.persist()
    }
}

struct FjallClient<'a> {
    db: &'a Database,
    keyspace: &'a Keyspace,
    synced: bool,
}

impl FjallClient<'_> {
    fn mode(&self) -> Option<PersistMode> {
        self.synced.then_some(PersistMode::SyncData)
    }
}

impl Client for FjallClient<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if !self.synced {
            return Ok(self.keyspace.insert(key, value)?);
        }
        self.commit(&mut std::iter::once((key, value)))
    }

    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
        let mut batch = self.db.batch().durability(self.mode());
        pairs.for_each(|(key, value)| batch.insert(self.keyspace, key, value));
        Ok(batch.commit()?)
    }

    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        let mut batch = self.db.batch().durability(self.mode());
        keys.for_each(|key| batch.remove(self.keyspace, key));
        Ok(batch.commit()?)
    }

    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool> {
        let value = self.keyspace.get(key)?;
        Ok(value.map(|value| seen(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize> {
        let mut count = 0;
        for entry in self.keyspace.range(from..).take(limit) {
            let (_, value) = entry.into_inner()?;
            seen(&value);
            count += 1;
        }
        Ok(count)
    }
}
