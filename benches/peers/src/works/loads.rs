//! Bulk load (row 6): every key once, in batches of 100, everything durable at the end.

use super::commits::{CACHE_BYTES, SEED, VALUE_BYTES};
use crate::drive;
use crate::engines::{Durability, Kind, Purpose, Result, Setup};
use crate::measure::Measured;
use crate::native;
use crate::ops::Data;
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::units;
use crate::trial::{Bench, say};
use std::collections::BTreeSet;
use std::time::Instant;

/// Puts in a batch.
const BATCH: u32 = 100;

/// One engine loading in one way.
struct Loader {
    kind: Kind,
    variant: &'static str,
    purpose: Purpose,
    /// Client threads; `None`: Quipu's cores.
    threads: Option<u32>,
    rounds: Vec<Measured>,
}

/// Row 6.
pub(crate) fn bulk(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let data = Data { keys: bench.scale.pick(5_000_000, 400_000), value_bytes: VALUE_BYTES, seed: SEED };
    let what = format!(
        "{} keys in scattered order, 100-byte values, in batches of 100 that need not be durable one by one; the time runs \
         until all are. RocksDB both with its log and settings as usual and in its bulk load mode (no log, no compaction, \
         then the compaction that its documentation asks for, which counts).",
        units::thousands(data.keys.into())
    );
    let mut row = Row::new(6, "bulk load, batches of 100", what, "keys/s");
    let mut loaders = loaders(bench);
    for round in 0..bench.scale.rounds {
        for loader in &mut loaders {
            let place = bench.place("load");
            let setup = Setup {
                purpose: loader.purpose,
                ..bench.setup(place.path(), CACHE_BYTES, Durability::Unsynced)
            };
            let store = loader.kind.open(&setup)?;
            if round == 0 && row.settings.iter().all(|(name, _)| *name != loader.name()) {
                row.settings.push((loader.name(), store.settings()));
            }
            let began = Instant::now();
            match (store.quipu(), loader.threads) {
                (Some(quipu), None) => native::load(quipu, &data, BATCH)?,
                (_, threads) => drive::load(&*store, &data, BATCH, threads.unwrap_or(1))?,
            };
            if loader.purpose == Purpose::BulkLoad {
                store.settle()?;
            }
            let measured = Measured::once(data.keys.into(), began.elapsed());
            say(&format!(
                "  {:<28} {:<44} {:>12}",
                loader.name(),
                loader.clients(),
                units::rate(measured.rate)
            ));
            loader.rounds.push(measured);
            store.close()?;
        }
    }
    for loader in loaders {
        let side = if loader.kind == Kind::Quipu { Side::Ours } else { Side::Peer };
        let (name, clients) = (loader.name(), loader.clients());
        row.figures.extend(Figure::rates(side, name, clients, loader.rounds, 1.0));
    }
    row.goals.push(Goal::over("2 x the best peer", 2.0, &row.of(Side::Ours), &row.of(Side::Peer)));
    Ok(vec![row])
}

fn loaders(bench: &Bench) -> Vec<Loader> {
    let loader =
        |kind, threads| Loader { kind, variant: "", purpose: Purpose::Mixed, threads, rounds: Vec::new() };
    let mut loaders = Vec::new();
    if bench.has(Kind::Quipu) {
        loaders.extend([loader(Kind::Quipu, None), loader(Kind::Quipu, Some(2))]);
    }
    for kind in bench.peers() {
        let threads: &[u32] = if kind.one_writer() { &[1] } else { &[1, 2, 8] };
        loaders.extend(threads.iter().map(|&threads| loader(kind, Some(threads))));
        if kind == Kind::Rocksdb {
            loaders.extend(threads.iter().map(|&threads| Loader {
                variant: "bulk load mode",
                purpose: Purpose::BulkLoad,
                ..loader(kind, Some(threads))
            }));
        }
    }
    loaders
}

impl Loader {
    fn name(&self) -> String {
        match self.variant {
            "" => self.kind.to_string(),
            variant => format!("{}, {variant}", self.kind),
        }
    }

    fn clients(&self) -> String {
        match self.threads {
            None => "on-core, 16 batches in flight on each shard".to_string(),
            Some(1) => "1 thread".to_string(),
            Some(threads) => format!("{threads} threads"),
        }
    }
}
