//! Reads: of data in the cache (rows 8 and 10), and of data four times the cache (row 9).

use super::commits::{SEED, VALUE_BYTES, take};
use crate::engines::floor::Floor;
use crate::engines::{Durability, Kind, Purpose, Result, View};
use crate::ops::{Data, Work};
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::units;
use crate::trial::{Before, Bench, Clients, Comparison, Entrant, calm, compare, say};
use std::collections::BTreeSet;

/// Entries of a scan.
const SCAN: u32 = 100;
/// Keys that are read in one call, where an engine has such a call.
const TOGETHER: u32 = 64;
/// Cold reads in flight on each thread or shard.
const COLD_IN_FLIGHT: u32 = 64;
/// Threads of the floor, a ring each: as many as Quipu has shards on two cores.
const FLOOR_THREADS: u32 = 2;

/// Rows 8 and 10: point reads and scans of data in the cache.
pub(crate) fn cached(bench: &Bench, wanted: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let data = Data { keys: bench.scale.pick(1_000_000, 200_000), value_bytes: VALUE_BYTES, seed: SEED };
    // Everything fits with room for what each engine needs beside the data.
    let cache_bytes = (data.bytes() * 4).max(256 << 20);
    let mut entrants = Vec::new();
    if bench.has(Kind::Quipu) {
        let clients = vec![
            Clients::OnCore(1),
            Clients::OnCore(8),
            Clients::OnCoreTogether(TOGETHER),
            Clients::Async(64, 1),
        ];
        let usual = Entrant::new(Kind::Quipu, Durability::Synced, clients);
        entrants.push(Entrant { variant: "for reads", purpose: Purpose::CachedReads, ..usual.clone() });
        entrants.push(usual);
    }
    for kind in bench.peers() {
        let mut clients = vec![Clients::threads(1), Clients::threads(2), Clients::threads(8)];
        if kind.can_hold_view() {
            let held: &[u32] = bench.scale.pick(&[1, 2, 8], &[2]);
            clients.extend(held.iter().map(|&threads| Clients::Threads(threads, View::Held)));
        }
        if kind.can_read_together() {
            clients.push(Clients::ThreadsTogether(2, TOGETHER));
        }
        entrants.push(Entrant::new(kind, Durability::Synced, clients));
    }
    let mut works = Vec::new();
    if wanted.contains(&8) {
        works.push((8, Work::Get));
    }
    if wanted.contains(&10) {
        works.push((10, Work::Scan(SCAN)));
    }
    let outcome = compare(
        bench,
        &Comparison {
            data,
            cache_bytes,
            works: &works.iter().map(|(_, work)| *work).collect::<Vec<_>>(),
            before: Before::Touched,
            entrants: &entrants,
            times: bench.scale.times,
            rounds: bench.scale.rounds,
        },
    )?;
    let size = format!(
        "{} keys, 100-byte values, {} MiB cache, every key read once before; keys uniform. Redb and LMDB also with one read \
         transaction for all reads of a thread, which sees no later commits.",
        units::thousands(data.keys.into()),
        cache_bytes >> 20
    );
    let mut rows = Vec::new();
    for (at, (number, _)) in works.iter().enumerate() {
        let (title, what, unit, text, factor) = match number {
            8 => (
                "point reads, data in the cache",
                "Reads of keys that are there.",
                "reads/s",
                "1.5 x LMDB",
                1.5,
            ),
            _ => (
                "scans of 100",
                "The first 100 entries from a random key on; each value is looked at.",
                "scans/s",
                "LMDB's rate",
                1.0,
            ),
        };
        let mut row = take(*number, title, format!("{what} {size}"), unit, &outcome, at);
        row.goals.push(Goal::over(text, factor, &row.of(Side::Ours), &row.of_kind(Kind::Lmdb)));
        rows.push(row);
    }
    Ok(rows)
}

/// Row 9: point reads of data that is four times the cache, none of it cached at first.
pub(crate) fn cold(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let data = Data { keys: bench.scale.pick(8_000_000, 1_000_000), value_bytes: VALUE_BYTES, seed: SEED };
    let cache_bytes = data.bytes() / 4;
    let mut entrants = Vec::new();
    if bench.has(Kind::Quipu) {
        let clients = vec![Clients::OnCore(COLD_IN_FLIGHT)];
        entrants.push(Entrant::new(Kind::Quipu, Durability::Synced, clients));
    }
    if bench.has(Kind::Rocksdb) {
        let clients = vec![Clients::threads(8), Clients::threads(2 * COLD_IN_FLIGHT)];
        let cold = Entrant::new(Kind::Rocksdb, Durability::Synced, clients);
        entrants.push(Entrant { purpose: Purpose::ColdReads, ..cold });
    }
    let outcome = compare(
        bench,
        &Comparison {
            data,
            cache_bytes,
            works: &[Work::Get],
            before: Before::Loaded,
            entrants: &entrants,
            times: bench.scale.times,
            rounds: bench.scale.rounds,
        },
    )?;
    let place = bench.place("floor");
    std::fs::create_dir_all(place.path())?;
    let floor = Floor::create(&place.path().join("floor"), data.bytes())?;
    let mut raw = Vec::new();
    for _ in 0..bench.scale.rounds {
        raw.push(calm(bench, || floor.reads(COLD_IN_FLIGHT, FLOOR_THREADS, bench.scale.times))?);
        say(&format!("  {:<28} {:>12}", "floor", units::rate(raw.last().map_or(0.0, |raw| raw.rate))));
    }
    let what = format!(
        "Reads of keys that are there, uniform of {}, 100-byte values, {} MiB in all; cache {} MiB, empty at first. The \
         floor: random 4 KiB reads with O_DIRECT of a file of that size, as many in flight (2 x {COLD_IN_FLIGHT}). Fjall, redb and \
         LMDB read through the system's page cache, which no budget bounds, and are left out.",
        units::thousands(data.keys.into()),
        data.bytes() >> 20,
        cache_bytes >> 20
    );
    let mut row = take(9, "point reads, data four times the cache, cold", what, "reads/s", &outcome, 0);
    row.figures.extend(Figure::rates(Side::Floor, "raw floor", "2 x 64 in flight, 4 KiB", raw, 1.0));
    row.goals.push(Goal::over("90 % of the raw floor", 0.9, &row.of(Side::Ours), &row.of(Side::Floor)));
    Ok(vec![row])
}
