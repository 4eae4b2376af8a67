//! LMDB, through heed: durable commits by default, `NO_SYNC` for others, a map large enough for any row.
//!
//! It serves one write transaction at a time, and has no cache of its own: the system's page cache holds its data,
//! without bound. For data larger than that, its documentation recommends `NO_READ_AHEAD`.

use super::{Client, Durability, Purpose, Result, Seen, Settings, Setup, Store, View, settings};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::ops::Bound;

/// Address space, not disk: more than any row needs.
const MAP_BYTES: usize = 64 << 30;
/// More than there are client threads.
const READERS_MAX: u32 = 1024;

type Data = Database<'static, Bytes, Bytes>;

/// An open LMDB.
pub(crate) struct Lmdb {
    env: Env<WithTls>,
    data: Data,
    setup: Setup,
}

impl Lmdb {
    /// Opens it.
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let mut flags = EnvFlags::empty();
        flags.set(EnvFlags::NO_SYNC, setup.durability != Durability::Synced);
        flags.set(EnvFlags::NO_READ_AHEAD, setup.purpose == Purpose::ColdReads);
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX);
        // SAFETY: the folder is this run's own, nobody else changes its files while they are mapped; of the flags, NO_SYNC
        // risks the data in a crash of the system, after which nobody looks at it.
        let env = unsafe { options.flags(flags).open(&setup.path)? };
        let made = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            opener.create_database::<Bytes, Bytes>(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        let data: Data = made.commit().ok_or("the table was not made")?;
        Ok(Lmdb { env, data, setup: setup.clone() })
    }
}

impl Store for Lmdb {
    fn settings(&self) -> Settings {
        let writes = match self.setup.durability {
            Durability::Synced => "synced (default)",
            _ => "MDB_NOSYNC",
        };
        settings([
            ("writes", writes.to_string()),
            ("map", format!("{} GiB", MAP_BYTES >> 30)),
            ("cache", "the system's page cache, not bounded".to_string()),
            ("memtables", "none: it is a B-tree".to_string()),
        ])
    }

    fn client(&self, view: View) -> Result<Box<dyn Client + '_>> {
        let held = match view {
            View::Newest => None,
            View::Held => Some(self.env.read_txn()?),
        };
        Ok(Box::new(LmdbClient { env: &self.env, data: self.data, held }))
    }

    fn persist(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&mut self) -> Result<bool> {
        // It compacts by copying into another file, which the other engines do not; see the row that asks.
        Ok(false)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.persist()?;
        let Lmdb { env, .. } = *self;
        env.prepare_for_closing().wait();
        Ok(())
    }
}

struct LmdbClient<'a> {
    env: &'a Env<WithTls>,
    data: Data,
    held: Option<RoTxn<'a, WithTls>>,
}

impl LmdbClient<'_> {
    fn with<T>(&self, read: impl FnOnce(&RoTxn<'_, WithTls>) -> Result<T>) -> Result<T> {
        match &self.held {
            Some(transaction) => read(transaction),
            None => read(&self.env.read_txn()?),
        }
    }
}

impl Client for LmdbClient<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(&mut std::iter::once((key, value)))
    }

    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in pairs {
            self.data.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for key in keys {
            self.data.delete(&mut transaction, key)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool> {
        self.with(|transaction| Ok(self.data.get(transaction, key)?.map(seen).is_some()))
    }

    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize> {
        self.with(|transaction| {
            let range = (Bound::Included(from), Bound::Unbounded);
            let mut count = 0;
            for entry in self.data.range(transaction, &range)?.take(limit) {
                seen(entry?.1);
                count += 1;
            }
            Ok(count)
        })
    }
}
