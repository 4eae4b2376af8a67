//! redb's published benchmark (row 17): its phases, sizes, and key and value shapes, so that the figures can be laid
//! beside those that others publish. In a quick run a tenth of everything.
//!
//! As it is there: 24-byte keys and 150-byte values, both random; each phase in turn on the same data; one client
//! except where threads are named; readers hold one read transaction; a cache of 4 GiB.
//!
//! What differs: an engine whose commits have a bound gets the bulk load and the removals in several commits (there,
//! RocksDB does); `len()`, `retain`, `extract_if` and `pop` are left out, which most of the engines do not have.

use super::commits::SEED;
use crate::engines::quipu::Tuning;
use crate::engines::{Client, Durability, Kind, Result, Setup, Store, View};
use crate::measure::interrupted;
use crate::row::{Figure, Row, Side};
use crate::trial::{Bench, say};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 150;
const CACHE_BYTES: u64 = 4 << 30;
const SCAN: usize = 10;
const ITERATIONS: u32 = 2;
const THREADS: [usize; 4] = [4, 8, 16, 32];

/// How much of each there is.
struct Sizes {
    bulk: usize,
    individual: usize,
    batches: usize,
    batch: usize,
    nosync: usize,
    reads: usize,
    scans: usize,
}

impl Sizes {
    fn elements(&self) -> usize {
        self.bulk + self.individual + self.batches * self.batch + self.nosync
    }
}

type Pair = ([u8; KEY_BYTES], [u8; VALUE_BYTES]);

/// The pairs, one after the other; the same for every engine.
struct Pairs(Xoshiro256PlusPlus);

impl Pairs {
    fn new() -> Self {
        Pairs(Xoshiro256PlusPlus::seed_from_u64(SEED))
    }

    /// After the first so many.
    fn after(pairs: usize) -> Self {
        let mut all = Pairs::new();
        for _ in 0..pairs {
            all.next();
        }
        all
    }

    fn next(&mut self) -> Pair {
        let mut pair = ([0; KEY_BYTES], [0; VALUE_BYTES]);
        self.0.fill_bytes(&mut pair.0);
        self.0.fill_bytes(&mut pair.1);
        pair
    }
}

/// The phases of one engine, as far as they are done.
struct Phases {
    kind: Kind,
    seconds: Vec<(String, f64)>,
}

impl Phases {
    fn note(&mut self, phase: impl Into<String>, value: f64) {
        let phase = phase.into();
        say(&format!("  {:<10} {phase:<28} {value:>10.3}", self.kind.to_string()));
        self.seconds.push((phase, value));
    }

    fn time<T>(&mut self, phase: impl Into<String>, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if interrupted() {
            return Err("interrupted".into());
        }
        let began = Instant::now();
        let result = work()?;
        self.note(phase, began.elapsed().as_secs_f64());
        Ok(result)
    }
}

/// Row 17.
pub(crate) fn phases(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let share = bench.scale.pick(1, 10);
    let sizes = Sizes {
        bulk: 5_000_000 / share,
        individual: 1_000 / share,
        batches: 100 / share,
        batch: 1_000,
        nosync: 50_000 / share,
        reads: 1_000_000 / share,
        scans: 500_000 / share,
    };
    let what = format!(
        "redb's published benchmark{}: {} pairs in bulk, {} durable single puts, {} durable batches of {}, {} puts that are not synced, {} \
         random reads, {} range reads of {SCAN}, {} reads by 4 to 32 threads, removal of half, sizes. 24-byte keys, 150-byte \
         values, all random; cache 4 GiB. Quipu in one directory, from plain threads. Seconds; less is better.",
        if share == 1 { "" } else { ", a tenth of everything" },
        sizes.bulk,
        sizes.individual,
        sizes.batches,
        sizes.batch,
        sizes.nosync,
        sizes.reads,
        sizes.scans,
        sizes.elements()
    );
    let mut row = Row::new(17, "redb's published benchmark", what, "s");
    row.matrix = true;
    for &kind in &bench.engines {
        let place = bench.place("redb-bench");
        let (phases, settings) = run(bench, kind, &sizes, place.path())?;
        row.settings.push((kind.to_string(), settings));
        let side = if kind == Kind::Quipu { Side::Ours } else { Side::Peer };
        let figures =
            phases.seconds.into_iter().map(|(phase, value)| Figure::value(side, kind.name(), phase, value));
        row.figures.extend(figures);
    }
    row.notes.push(
        "This row has no goal. Quipu's on-core clients, its fast path, are in the rows above.".to_string(),
    );
    row.notes.push(
        "LMDB compacts by copying to another file, Quipu by its schedule alone; both are left out there."
            .to_string(),
    );
    Ok(vec![row])
}

fn run(bench: &Bench, kind: Kind, sizes: &Sizes, path: &Path) -> Result<(Phases, crate::engines::Settings)> {
    let setup = Setup {
        quipu: Tuning { one_directory: true, ..Tuning::default() },
        ..bench.setup(path, CACHE_BYTES, Durability::Synced)
    };
    let mut phases = Phases { kind, seconds: Vec::new() };
    let mut pairs = Pairs::new();
    let store = kind.open(&setup)?;
    let settings = store.settings();
    {
        let mut client = store.client(View::Newest)?;
        phases.time("bulk load", || put_all(&mut *client, &mut pairs, sizes.bulk, kind.batch_max()))?;
        phases.time("individual writes", || put_each(&mut *client, &mut pairs, sizes.individual))?;
        phases.time("batch writes", || {
            (0..sizes.batches).try_for_each(|_| put_all(&mut *client, &mut pairs, sizes.batch, sizes.batch))
        })?;
    }
    store.close()?;
    let store = kind.open(&Setup { durability: Durability::Unsynced, ..setup.clone() })?;
    {
        let mut client = store.client(View::Newest)?;
        phases.time("nosync writes", || put_each(&mut *client, &mut pairs, sizes.nosync))?;
    }
    store.persist()?;
    store.close()?;
    let mut store = kind.open(&setup)?;
    read_phases(&mut phases, &*store, sizes)?;
    {
        let mut client = store.client(View::Newest)?;
        phases.time("removals", || remove(&mut *client, sizes.elements() / 2, kind.batch_max()))?;
    }
    phases.note("size, MiB", size(path));
    let began = Instant::now();
    if store.compact()? {
        phases.note("compaction", began.elapsed().as_secs_f64());
        phases.note("size after it, MiB", size(path));
    }
    store.close()?;
    Ok((phases, settings))
}

fn read_phases(phases: &mut Phases, store: &dyn Store, sizes: &Sizes) -> Result<()> {
    {
        let mut client = store.client(View::Held)?;
        for _ in 0..ITERATIONS {
            phases.time("random reads", || read(&mut *client, Pairs::new(), sizes.reads))?;
        }
        for _ in 0..ITERATIONS {
            phases.time("random range reads", || scan(&mut *client, sizes.scans))?;
        }
    }
    for threads in THREADS {
        let each = sizes.elements() / threads;
        let barrier = Barrier::new(threads + 1);
        let took = std::thread::scope(|scope| -> Result<Duration> {
            let handles: Vec<_> = (0..threads)
                .map(|thread| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let pairs = Pairs::after(thread * each);
                        let client = store.client(View::Held);
                        barrier.wait();
                        read(&mut *client?, pairs, each)
                    })
                })
                .collect();
            barrier.wait();
            let began = Instant::now();
            for handle in handles {
                handle.join().unwrap_or_else(|_| Err("a reader panicked".into()))?;
            }
            Ok(began.elapsed())
        })?;
        phases.note(format!("random reads ({threads} threads)"), took.as_secs_f64());
    }
    Ok(())
}

fn put_each(client: &mut dyn Client, pairs: &mut Pairs, count: usize) -> Result<()> {
    for _ in 0..count {
        let (key, value) = pairs.next();
        client.put(&key, &value)?;
    }
    client.drain()
}

/// Puts of one commit, or of as many as they need.
fn put_all(client: &mut dyn Client, pairs: &mut Pairs, count: usize, batch_max: usize) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let now = left.min(batch_max);
        left -= now;
        let held: Vec<Pair> = (0..now).map(|_| pairs.next()).collect();
        client.commit(&mut held.iter().map(|(key, value)| (&key[..], &value[..])))?;
    }
    client.drain()
}

fn remove(client: &mut dyn Client, count: usize, batch_max: usize) -> Result<()> {
    let mut pairs = Pairs::new();
    let mut left = count;
    while left > 0 {
        let now = left.min(batch_max);
        left -= now;
        let held: Vec<[u8; KEY_BYTES]> = (0..now).map(|_| pairs.next().0).collect();
        client.remove(&mut held.iter().map(|key| &key[..]))?;
    }
    client.drain()
}

fn read(client: &mut dyn Client, mut pairs: Pairs, count: usize) -> Result<()> {
    let (mut sum, mut expected) = (0u64, 0u64);
    for _ in 0..count {
        let (key, value) = pairs.next();
        expected += u64::from(value[0]);
        if !client.get(&key, &mut |value| sum += value.first().map_or(0, |&byte| u64::from(byte)))? {
            return Err("a key that was put is not there".into());
        }
    }
    if sum == expected { Ok(()) } else { Err("values are not those that were put".into()) }
}

fn scan(client: &mut dyn Client, count: usize) -> Result<()> {
    let mut pairs = Pairs::new();
    let mut bytes = 0;
    for _ in 0..count {
        client.scan(&pairs.next().0, SCAN, &mut |value| bytes += value.len())?;
    }
    if bytes > 0 { Ok(()) } else { Err("ranges were empty".into()) }
}

/// What a folder takes, in MiB.
fn size(folder: &Path) -> f64 {
    super::space::bytes_on_disk(folder) as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_read_on_where_others_ended() {
        let mut all = Pairs::new();
        let pairs: Vec<Pair> = (0..10).map(|_| all.next()).collect();
        assert_eq!(Pairs::after(7).next(), pairs[7]);
        assert_ne!(pairs[0], pairs[1]);
    }
}
