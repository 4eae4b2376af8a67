//! redb: one table, `Durability::Immediate` for durable commits and `Durability::None` for others, the cache budget.
//!
//! It serves one write transaction at a time. An unsynced commit is made durable by an empty durable one after it.

use super::{Client, Durability, Result, Seen, Settings, Setup, Store, View, settings};
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");

/// An open redb.
pub(crate) struct Redb {
    db: Database,
    setup: Setup,
}

impl Redb {
    /// Opens it.
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(setup.cache_bytes as usize)
            .create(setup.path.join("data.redb"))?;
        let transaction = db.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Redb { db, setup: setup.clone() })
    }
}

impl Store for Redb {
    fn settings(&self) -> Settings {
        let writes = match self.setup.durability {
            Durability::Synced => "Durability::Immediate",
            _ => "Durability::None",
        };
        settings([
            ("writes", writes.to_string()),
            ("cache", format!("{} MiB", self.setup.cache_bytes >> 20)),
            ("memtables", "none: it is a B-tree".to_string()),
        ])
    }

    fn client(&self, view: View) -> Result<Box<dyn Client + '_>> {
        let held = match view {
            View::Newest => None,
            View::Held => Some(self.db.begin_read()?.open_table(TABLE)?),
        };
        let synced = self.setup.durability == Durability::Synced;
        Ok(Box::new(RedbClient { db: &self.db, held, synced }))
    }

    fn persist(&self) -> Result<()> {
        Ok(self.db.begin_write()?.commit()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&mut self) -> Result<bool> {
        // Once frees what the last one could not move; its own benchmark does so too.
        self.db.compact()?;
        Ok(true)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.persist()
    }
}

struct RedbClient<'a> {
    db: &'a Database,
    held: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    synced: bool,
}

impl RedbClient<'_> {
    fn write(&self) -> Result<WriteTransaction> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(match self.synced {
            true => redb::Durability::Immediate,
            false => redb::Durability::None,
        })?;
        Ok(transaction)
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T>,
    ) -> Result<T> {
        match &self.held {
            Some(table) => read(table),
            None => read(&self.db.begin_read()?.open_table(TABLE)?),
        }
    }
}

impl Client for RedbClient<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(&mut std::iter::once((key, value)))
    }

    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
        let transaction = self.write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in pairs {
                table.insert(key, value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        let transaction = self.write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for key in keys {
                table.remove(key)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool> {
        self.with(|table| {
            let value = table.get(key)?;
            Ok(value.map(|value| seen(value.value())).is_some())
        })
    }

    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize> {
        self.with(|table| {
            let mut count = 0;
            for entry in table.range(from..)?.take(limit) {
                seen(entry?.1.value());
                count += 1;
            }
            Ok(count)
        })
    }
}
