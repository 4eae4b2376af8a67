//! The engines behind one small trait, for blocking use from any number of threads.
//!
//! 1. [`Kind::open`] opens an engine in a folder, set up for the work as its own documentation recommends.
//! 2. Each client thread takes a [`Client`] of it, on that thread.
//! 3. [`Store::settings`] says in words how it is set up; the report prints it.
//!
//! Promise: the same durability, cache budget and memtable budget for every engine that has such a thing (fjall's memtables are as large
//! as it recommends at most); what it has not is said in its settings. Quipu's own clients (on its cores, async tasks) are in [`quipu`].

pub(crate) mod fjall;
pub(crate) mod floor;
pub(crate) mod lmdb;
pub(crate) mod quipu;
pub(crate) mod redb;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
#[cfg(test)]
mod tests;

use crate::shared::key::Key;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Anything that fails under way: engines have an error type each.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A result with any failure.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// An engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// This project's.
    Quipu,
    /// RocksDB, through crate `rocksdb`.
    Rocksdb,
    /// fjall.
    Fjall,
    /// redb.
    Redb,
    /// LMDB, through crate `heed`.
    Lmdb,
}

impl Kind {
    /// Every engine that this program was built with, Quipu first.
    pub(crate) const ALL: &[Kind] = &[
        Kind::Quipu,
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb,
        Kind::Fjall,
        Kind::Redb,
        Kind::Lmdb,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Quipu => "Quipu",
            Kind::Rocksdb => "RocksDB",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::Lmdb => "LMDB",
        }
    }

    /// Opens it.
    pub(crate) fn open(self, setup: &Setup) -> Result<Box<dyn Store>> {
        std::fs::create_dir_all(&setup.path)?;
        Ok(match self {
            Kind::Quipu => Box::new(quipu::Quipu::open(setup)?),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => Box::new(rocksdb::Rocks::open(setup)?),
            #[cfg(not(feature = "rocksdb"))]
            Kind::Rocksdb => return Err("this program was built without RocksDB".into()),
            Kind::Fjall => Box::new(fjall::Fjall::open(setup)?),
            Kind::Redb => Box::new(redb::Redb::open(setup)?),
            Kind::Lmdb => Box::new(lmdb::Lmdb::open(setup)?),
        })
    }

    /// Whether it serves one writer at a time, so that more of them cannot make it faster.
    pub(crate) fn one_writer(self) -> bool {
        matches!(self, Kind::Redb | Kind::Lmdb)
    }

    /// The most puts of one commit that it is given: Quipu's batches are bounded, RocksDB and fjall gather them in memory.
    pub(crate) fn batch_max(self) -> usize {
        match self {
            Kind::Quipu => 10_000,
            Kind::Rocksdb | Kind::Fjall => 100_000,
            Kind::Redb | Kind::Lmdb => usize::MAX,
        }
    }

    /// Whether it can keep commits back in its own memory for a bounded time before the system gets them.
    pub(crate) fn can_hold_back(self) -> bool {
        matches!(self, Kind::Rocksdb | Kind::Fjall)
    }

    /// Whether [`Purpose::FewWrites`] is a setting of its own, for a peer; [`Purpose::CachedUpdates`] is for none.
    pub(crate) fn has_choice_of_writes(self) -> bool {
        self == Kind::Rocksdb
    }

    /// Whether [`Setup::one_inserts`] is a setting of its own.
    pub(crate) fn has_choice_of_inserts(self) -> bool {
        self == Kind::Rocksdb
    }

    /// Whether it reads several keys in one call faster than one after another, for a peer's client.
    pub(crate) fn can_read_together(self) -> bool {
        self == Kind::Rocksdb
    }

    /// Whether a client may keep one read transaction open over many reads, and gains by it.
    pub(crate) fn can_hold_view(self) -> bool {
        self.one_writer()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// When a commit returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durability {
    /// When it is on stable storage.
    Synced,
    /// Before that, as the engine does it by default where it is told not to sync.
    Unsynced,
    /// Before that; within this time it is on stable storage all the same.
    Within(Duration),
}

/// What the engine is set up for, where its documentation makes a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Reads and writes of small values.
    Mixed,
    /// Bulk load, with the engine's own mode for that where it has one; whatever that mode leaves to be done before
    /// reads are good belongs to [`Store::settle`].
    BulkLoad,
    /// Reads of data that is larger than the cache, past the system's page cache where that can be had.
    ColdReads,
    /// Mostly writes: few bytes written rather than little space, where there is a choice.
    FewWrites,
    /// Reads and updates of data in memory: updates gathered for longer, where there is a choice.
    CachedUpdates,
    /// Mostly reads, of data in memory: few places to look for a key rather than few bytes written, where there is a choice.
    CachedReads,
}

/// How an engine is opened.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// Bytes that it may cache.
    pub(crate) cache_bytes: u64,
    /// Bytes of its memtables.
    pub(crate) memtable_bytes: u64,
    /// When commits return.
    pub(crate) durability: Durability,
    /// What for.
    pub(crate) purpose: Purpose,
    /// For RocksDB only: of threads that commit together, one puts everything into the memtable, instead of each its own part. Then the
    /// others need not be woken for that.
    #[cfg_attr(not(feature = "rocksdb"), expect(dead_code))]
    pub(crate) one_inserts: bool,
    /// For Quipu only, where a row needs other than the defaults.
    pub(crate) quipu: quipu::Tuning,
}

/// What a client's reads see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// The newest commit, at each read.
    Newest,
    /// The newest commit when the client began: one read transaction for all reads.
    Held,
}

/// How an engine is set up: names and values, for people.
pub(crate) type Settings = Vec<(String, String)>;

/// An open engine.
pub(crate) trait Store: Send + Sync {
    /// How it is set up.
    fn settings(&self) -> Settings;
    /// A client for one thread, made on that thread.
    fn client(&self, view: View) -> Result<Box<dyn Client + '_>>;
    /// Makes everything durable.
    fn persist(&self) -> Result<()>;
    /// Ends what goes on in the background (flushes, merges), where it can be asked to.
    fn settle(&self) -> Result<()>;
    /// Gives back what space can be given back; `false` where there is no such operation.
    fn compact(&mut self) -> Result<bool>;
    /// Quipu itself, for its own clients.
    fn quipu(&self) -> Option<&quipu::Quipu> {
        None
    }
    /// Closes it.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Looks at a value that was read.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(&[u8]);

/// One client of an engine, on its thread.
pub(crate) trait Client {
    /// Commits one put.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Commits puts as one.
    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()>;
    /// Commits deletes as one.
    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()>;
    /// Reads a key; whether it was there.
    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool>;
    /// Reads several keys together; `seen` is told of those that are there, in their order. How many those are.
    fn get_many(&mut self, keys: &[Key], seen: Seen<'_>) -> Result<usize> {
        let mut found = 0;
        for key in keys {
            found += usize::from(self.get(key.as_ref(), seen)?);
        }
        Ok(found)
    }
    /// Reads the first `limit` values from a key on; how many there were.
    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize>;
    /// Waits for whatever this client has sent and not waited for.
    fn drain(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Names and values as settings.
pub(crate) fn settings<const N: usize>(settings: [(&str, String); N]) -> Settings {
    settings.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
