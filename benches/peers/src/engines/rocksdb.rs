//! RocksDB, set up as its wiki's "Setup Options and Basic Tuning" and the comments of its options recommend: bloom
//! filter of 10 bits, index and filters in the block cache, those of level 0 pinned, dynamic level sizes, its helper
//! for heavy workloads with the memtable budget, and the cache that its comments prefer (HyperClockCache). For durable commits
//! pipelined writes and recycled log files.
//!
//! Beside that, [`Setup::one_inserts`]: no part of its documentation recommends that, but with many threads on two cores it is much
//! faster, so it is tried wherever threads commit.
//!
//! Not used: unordered writes (scans and snapshots would not see one commit's state whole any more), and compression,
//! since the values do not compress.

use super::{Client, Durability, Purpose, Result, Seen, Settings, Setup, Store, View, settings};
use crate::shared::key::Key;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME, FlushOptions, Options,
    ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LEVELS: usize = 7;

/// An open RocksDB.
pub(crate) struct Rocks {
    db: Arc<DB>,
    setup: Setup,
    /// Makes what was held back durable, now and then.
    flusher: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Rocks {
    /// Opens it.
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options
            .increase_parallelism(std::thread::available_parallelism().map_or(2, |cores| cores.get() as i32));
        let memtables = setup.memtable_bytes as usize;
        match setup.purpose {
            Purpose::FewWrites => options.optimize_universal_style_compaction(memtables),
            _ => options.optimize_level_style_compaction(memtables),
        }
        options.set_level_compaction_dynamic_level_bytes(setup.purpose != Purpose::FewWrites);
        options.set_compression_type(DBCompressionType::None);
        options.set_compression_per_level(&[DBCompressionType::None; LEVELS]);
        options.set_bytes_per_sync(1 << 20);
        options.set_enable_pipelined_write(true);
        if setup.one_inserts {
            options.set_allow_concurrent_memtable_write(false);
            options.set_enable_write_thread_adaptive_yield(false);
        }
        if setup.purpose != Purpose::BulkLoad {
            // Refused where the log is off.
            options.set_recycle_log_file_num(4);
        }
        options.set_manual_wal_flush(matches!(setup.durability, Durability::Within(_)));
        if setup.purpose == Purpose::BulkLoad {
            options.prepare_for_bulk_load();
        }
        if setup.purpose == Purpose::ColdReads {
            options.set_use_direct_reads(true);
        }
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_hyper_clock_cache(setup.cache_bytes as usize, 0));
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&table);
        // By its name, since only then the column family can be named in a call.
        let families = [(DEFAULT_COLUMN_FAMILY_NAME, options.clone())];
        let db = Arc::new(DB::open_cf_with_opts(&options, &setup.path, families)?);
        let flusher = match setup.durability {
            Durability::Within(within) => Some(flush_every(&db, within)?),
            _ => None,
        };
        Ok(Rocks { db, setup: setup.clone(), flusher })
    }

    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.setup.durability == Durability::Synced);
        options.disable_wal(self.setup.purpose == Purpose::BulkLoad);
        options
    }
}

fn flush_every(db: &Arc<DB>, within: Duration) -> Result<(Arc<AtomicBool>, JoinHandle<()>)> {
    let over = Arc::new(AtomicBool::new(false));
    let (db, told) = (db.clone(), over.clone());
    let thread = std::thread::Builder::new().name("wal-flush".into()).spawn(move || {
        while !told.load(Ordering::Relaxed) {
            std::thread::sleep(within);
            // A failure shows in the next write.
            let _ = db.flush_wal(true);
        }
    })?;
    Ok((over, thread))
}

impl Store for Rocks {
    fn settings(&self) -> Settings {
        let writes = match self.setup.durability {
            Durability::Synced => "WriteOptions::sync".to_string(),
            Durability::Unsynced => "no sync".to_string(),
            Durability::Within(within) => format!("manual_wal_flush, flush_wal(sync) every {within:?}"),
        };
        let compaction = match self.setup.purpose {
            Purpose::FewWrites => "optimize_universal_style_compaction",
            Purpose::BulkLoad => {
                "prepare_for_bulk_load over optimize_level_style_compaction; then compact_range, which counts"
            }
            _ => "optimize_level_style_compaction, dynamic level sizes",
        };
        let wal = match self.setup.purpose {
            Purpose::BulkLoad => "off; a flush of the memtables makes the load durable".to_string(),
            _ if self.setup.one_inserts => {
                "pipelined writes, 4 recycled files, no concurrent memtable writes, no adaptive yield"
                    .to_string()
            }
            _ => "pipelined writes, 4 recycled files".to_string(),
        };
        settings([
            ("writes", writes),
            ("log", wal),
            ("block cache", format!("{} MiB, HyperClockCache", self.setup.cache_bytes >> 20)),
            ("memtables", format!("{} MiB", self.setup.memtable_bytes >> 20)),
            ("filter", "bloom, 10 bits; index and filters in the cache, those of level 0 pinned".to_string()),
            ("compaction", compaction.to_string()),
            ("compression", "none".to_string()),
            (
                "reads",
                if self.setup.purpose == Purpose::ColdReads { "direct" } else { "page cache below" }
                    .to_string(),
            ),
            ("threads", "increase_parallelism(cores)".to_string()),
        ])
    }

    fn client(&self, _: View) -> Result<Box<dyn Client + '_>> {
        Ok(Box::new(RocksClient { db: &self.db, options: self.write_options() }))
    }

    fn persist(&self) -> Result<()> {
        if self.setup.purpose == Purpose::BulkLoad {
            let mut wait = FlushOptions::default();
            wait.set_wait(true);
            return Ok(self.db.flush_opt(&wait)?);
        }
        Ok(self.db.flush_wal(true)?)
    }

    fn settle(&self) -> Result<()> {
        if self.setup.purpose == Purpose::BulkLoad {
            self.db.compact_range::<&[u8], &[u8]>(None, None);
        }
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        Ok(self.db.wait_for_compact(&wait)?)
    }

    fn compact(&mut self) -> Result<bool> {
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        Ok(true)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        if let Some((over, thread)) = self.flusher.take() {
            over.store(true, Ordering::Relaxed);
            thread.join().map_err(|_| "the thread that flushes the log panicked")?;
        }
        self.persist()
    }
}

struct RocksClient<'a> {
    db: &'a DB,
    options: WriteOptions,
}

impl Client for RocksClient<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.options)?)
    }

    fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
        let mut batch = WriteBatch::default();
        pairs.for_each(|(key, value)| batch.put(key, value));
        Ok(self.db.write_opt(batch, &self.options)?)
    }

    fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        let mut batch = WriteBatch::default();
        keys.for_each(|key| batch.delete(key));
        Ok(self.db.write_opt(batch, &self.options)?)
    }

    fn get(&mut self, key: &[u8], seen: Seen<'_>) -> Result<bool> {
        let value = self.db.get_pinned(key)?;
        Ok(value.map(|value| seen(&value)).is_some())
    }

    fn get_many(&mut self, keys: &[Key], seen: Seen<'_>) -> Result<usize> {
        let mut found = 0;
        let default = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).ok_or("every RocksDB has it")?;
        for value in self.db.batched_multi_get_cf(&default, keys, false) {
            if let Some(value) = value? {
                seen(&value);
                found += 1;
            }
        }
        Ok(found)
    }

    fn scan(&mut self, from: &[u8], limit: usize, seen: Seen<'_>) -> Result<usize> {
        let mut entries = self.db.raw_iterator_opt(ReadOptions::default());
        entries.seek(from);
        let mut count = 0;
        while count < limit
            && let Some(value) = entries.value()
        {
            seen(value);
            count += 1;
            if count < limit {
                entries.next();
            }
        }
        entries.status()?;
        Ok(count)
    }
}
