//! Quipu, with its defaults but for the budgets. One directory on each shard, since a directory lives whole on one:
//! slot s is in the directory of shard s mod shards. For work on one ordered map there is a single directory.
//!
//! Here are its clients on plain threads. Those on its cores and the async tasks are in [`crate::native`].

use super::{Client, Durability, Purpose, Result, Seen, Settings, Setup, Store, View, settings};
use quipu::{Answer, Batch, CommitId, Directory, Engine, Options};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest that settling waits for carries.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Commits that a client has in flight where it need not wait for each.
const PIPELINE: usize = 16;

/// What a row needs other than the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tuning {
    /// Everything in one directory, on one shard.
    pub(crate) one_directory: bool,
    /// `Options::base_ratio`.
    pub(crate) base_ratio: Option<u32>,
    /// `Options::flush_bytes`.
    pub(crate) flush_bytes: Option<u64>,
    /// `Options::log_file_bytes`.
    pub(crate) log_file_bytes: Option<u64>,
    /// `Options::log_files_max`.
    pub(crate) log_files_max: Option<usize>,
}

/// An open Quipu.
pub(crate) struct Quipu {
    /// The engine.
    pub(crate) engine: Engine,
    /// Where the data is: one of each shard, in order, or only one.
    pub(crate) directories: Vec<Directory>,
    setup: Setup,
}

impl Quipu {
    /// Opens it.
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let mut options = Options::new()
            .cache_bytes(setup.cache_bytes as usize)
            .memtable_bytes(setup.memtable_bytes as usize)
            .durability(match setup.durability {
                Durability::Synced => quipu::Durability::Sync,
                Durability::Unsynced => quipu::Durability::Buffered { within: Duration::from_millis(100) },
                Durability::Within(within) => quipu::Durability::Buffered { within },
            });
        let mut setup = setup.clone();
        // As docs/benchmarking.md has it.
        let (flush, ratio) = match setup.purpose {
            // Nearly all entries in the base, few in windows, fewer in memtables.
            Purpose::CachedReads => (Some(4 << 20), Some(16)),
            // The base is folded seldom.
            Purpose::FewWrites => (Some(64 << 20), Some(1)),
            // The windows gather more, and the base is folded as often as usual: the cache has room for both.
            Purpose::CachedUpdates => (Some(64 << 20), None),
            _ => (None, None),
        };
        let tuning = &mut setup.quipu;
        (tuning.flush_bytes, tuning.base_ratio) = (tuning.flush_bytes.or(flush), tuning.base_ratio.or(ratio));
        let Tuning { one_directory, base_ratio, flush_bytes, log_file_bytes, log_files_max } = setup.quipu;
        if let Some(ratio) = base_ratio {
            options = options.base_ratio(ratio);
        }
        if let Some(bytes) = flush_bytes {
            options = options.flush_bytes(bytes);
        }
        if let Some(bytes) = log_file_bytes {
            options = options.log_file_bytes(bytes);
        }
        if let Some(files) = log_files_max {
            options = options.log_files_max(files);
        }
        let engine = options.open(&setup.path)?;
        let shards = if one_directory { 1 } else { engine.shards() };
        let directories = (0..shards).map(|shard| directory_on(&engine, shard)).collect::<Result<_>>()?;
        Ok(Quipu { engine, directories, setup })
    }

    /// Where a key is, among the directories.
    fn place(&self, key: &[u8]) -> usize {
        match self.directories.len() {
            1 => 0,
            places => slot_of(key) % places,
        }
    }

    fn directory_of(&self, key: &[u8]) -> &Directory {
        &self.directories[self.place(key)]
    }
}

/// The slot that a key names: its last eight digits.
fn slot_of(key: &[u8]) -> usize {
    let digits = &key[key.len().saturating_sub(8)..];
    digits
        .iter()
        .fold(0, |slot, &digit| slot << 4 | char::from(digit).to_digit(16).map_or(0, |digit| digit as usize))
}

/// The first of some root paths that lives on a shard.
fn directory_on(engine: &Engine, shard: u16) -> Result<Directory> {
    for number in 0u32.. {
        let path = format!("peers{number}");
        if engine.shard_of(&path)? == shard {
            return Ok(engine.directory(path)?);
        }
    }
    Err("no root lives on that shard".into())
}

impl Store for Quipu {
    fn settings(&self) -> Settings {
        let writes = match self.setup.durability {
            Durability::Synced => "Durability::Sync".to_string(),
            Durability::Unsynced => "Durability::Buffered, within 100 ms".to_string(),
            Durability::Within(within) => format!("Durability::Buffered, within {within:?}"),
        };
        let mut all = settings([
            ("writes", writes),
            ("I/O", self.engine.io_kind().to_string()),
            ("shards", self.engine.shards().to_string()),
            ("directories", self.directories.len().to_string()),
            ("block cache", format!("{} MiB", self.setup.cache_bytes >> 20)),
            ("memtables", format!("{} MiB", self.setup.memtable_bytes >> 20)),
        ]);
        let tuning = &self.setup.quipu;
        let mut add = |name: &str, value: String| all.push((name.to_string(), value));
        if let Some(ratio) = tuning.base_ratio {
            add("base_ratio", ratio.to_string());
        }
        if let Some(bytes) = tuning.flush_bytes {
            add("flush_bytes", format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
        }
        if let Some(bytes) = tuning.log_file_bytes {
            add("log_file_bytes", format!("{} MiB", bytes >> 20));
        }
        if let Some(files) = tuning.log_files_max {
            add("log_files_max", files.to_string());
        }
        add("everything else", "defaults".to_string());
        all
    }

    fn client(&self, _: View) -> Result<Box<dyn Client + '_>> {
        let waits = self.setup.durability == Durability::Synced;
        Ok(Box::new(QuipuClient { quipu: self, waits, sent: VecDeque::new() }))
    }

    fn persist(&self) -> Result<()> {
        Ok(self.engine.barrier().wait()?)
    }

    fn settle(&self) -> Result<()> {
        let began = Instant::now();
        let mut quiet = 0;
        while quiet < 5 && began.elapsed() < SETTLE_MAX {
            std::thread::sleep(Duration::from_millis(20));
            let stats = self.engine.stats().wait()?;
            let idle = stats.shards.iter().all(|shard| shard.carries.is_empty());
            quiet = if idle { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<bool> {
        // Its schedule is arithmetic on commits; there is nothing to ask for.
        Ok(false)
    }

    fn quipu(&self) -> Option<&Quipu> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Quipu { engine, directories, .. } = *self;
        drop(directories);
        Ok(engine.close()?)
    }
}

struct QuipuClient<'a> {
    quipu: &'a Quipu,
    /// Whether each commit is waited for.
    waits: bool,
    /// Batches on their way: what is not to be durable at once need not be waited for one by one.
    sent: VecDeque<Answer<CommitId>>,
}

impl QuipuClient<'_> {
    /// Sends a batch for each directory.
    fn send(&mut self, batches: Vec<Batch>) -> Result<()> {
        for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
            self.sent.push_back(self.quipu.engine.commit(batch));
        }
        let stay = if self.waits { 0 } else { PIPELINE };
        while self.sent.len() > stay {
            self.sent.pop_front().map_or(Ok(()), |answer| answer.wait().map(drop))?;
        }
        Ok(())
    }

    fn batches(&self) -> Vec<Batch> {
        self.quipu.directories.iter().map(|_| Batch::new()).collect()
    }
}

impl Client for QuipuClient<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.quipu.directory_of(key).put(key, value).wait()?;
        Ok(())
    }

    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
        let mut batches = self.batches();
        for (key, value) in pairs {
            let place = self.quipu.place(key);
            batches[place].put(&self.quipu.directories[place], key, value);
        }
        self.send(batches)
    }

    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        let mut batches = self.batches();
        for key in keys {
            let place = self.quipu.place(key);
            batches[place].delete(&self.quipu.directories[place], key);
        }
        self.send(batches)
    }

    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool> {
        let value = self.quipu.directory_of(key).get(key).wait()?;
        Ok(value.map(|value| seen(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize> {
        let mut count = 0;
        for entry in self.quipu.directory_of(from).range(from..).limit(limit).blocking() {
            seen(&entry?.1);
            count += 1;
        }
        Ok(count)
    }

    fn drain(&mut self) -> Result<()> {
        self.sent.drain(..).try_for_each(|answer| answer.wait().map(drop))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::slot_of;
    use crate::ops::Data;

    #[test]
    fn a_key_names_its_slot() {
        let shape = Data { keys: 1, value_bytes: 16, seed: 9 }.shape();
        for slot in [0, 9, 10, 11, 255, 1_000_003, u32::MAX] {
            assert_eq!(slot_of(shape.key(slot).as_ref()), slot as usize);
        }
    }
}
