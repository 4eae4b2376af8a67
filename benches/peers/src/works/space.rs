//! Bytes written and space (row 14), and the same share of ten times the data cached (row 15).

use super::commits::{SEED, VALUE_BYTES};
use crate::engines::quipu::Tuning;
use crate::engines::{Durability, Kind, Purpose, Result, Setup, Store};
use crate::measure::{Measured, Times, interrupted};
use crate::ops::{Data, Work};
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::units;
use crate::trial::{Bench, Clients, Place, calm_by, fill, load, say};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Puts in a batch of overwrites.
const BATCH: u32 = 100;
/// Batches in flight, or threads.
const IN_FLIGHT: u32 = 8;
/// Quipu with larger memtables, and a base that is folded seldom.
const FEW_WRITES: &str = "few writes";
/// Quipu with a base that is folded often.
const LITTLE_SPACE: &str = "little space";
/// Longer than any run of overwrites.
const ENDLESS: Times = Times { warmup: Duration::ZERO, measured: Duration::from_secs(7200) };

/// How many times as much data there is in row 15.
const TIMES: u64 = 10;
/// What a flush window holds by default.
const FLUSH_BYTES: u64 = 48 << 20;

/// What a folder takes on the disk, in bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Space {
    /// Everything.
    all: u64,
    /// Of it, logs.
    logs: u64,
}

fn space(folder: &Path) -> Space {
    let mut space = Space::default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let below = self::space(&entry.path());
            space.all += below.all;
            space.logs += below.logs;
            continue;
        }
        let bytes = metadata.blocks() * 512;
        space.all += bytes;
        if is_log(&entry.file_name().to_string_lossy()) {
            space.logs += bytes;
        }
    }
    space
}

/// What a folder takes on the disk, in bytes.
pub(crate) fn bytes_on_disk(folder: &Path) -> u64 {
    space(folder).all
}

/// Quipu's logs are "log-00", RocksDB's "000012.log", fjall's "0.jnl".
fn is_log(name: &str) -> bool {
    name.starts_with("log-") || name.ends_with(".log") || name.ends_with(".jnl")
}

/// Bytes that this process has caused to be written so far, as the kernel counts them.
fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    field("write_bytes:").saturating_sub(field("cancelled_write_bytes:"))
}

/// Row 14.
pub(crate) fn amplification(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let data = Data { keys: bench.scale.pick(4_000_000, 400_000), value_bytes: VALUE_BYTES, seed: SEED };
    // The same share of the data in memtables in both sizes.
    let memtable_bytes = bench.scale.pick(bench.memtable_bytes, bench.memtable_bytes / 8);
    let tuning = bench.scale.pick(
        Tuning::default(),
        Tuning { flush_bytes: Some(6 << 20), log_file_bytes: Some(4 << 20), ..Tuning::default() },
    );
    let what = format!(
        "{} keys are loaded (100-byte values, {} MiB of keys and values), then overwritten uniformly, 10 times as many puts in durable \
         batches of {BATCH}, {IN_FLIGHT} in flight. Bytes written are the kernel's count for the process (write_bytes of /proc/self/io), \
         from the first overwrite until background work has ended, for each byte of keys and values committed. Space is what the \
         folder takes on the disk after the last overwrite, its logs left out, over the live keys and values.",
        units::thousands(data.keys.into()),
        data.bytes() >> 20
    );
    let mut row = Row::new(14, "bytes written, and space", what, "bytes written for each byte committed");
    let usual = [
        (Kind::Quipu, ""),
        (Kind::Quipu, FEW_WRITES),
        (Kind::Quipu, LITTLE_SPACE),
        (Kind::Rocksdb, "leveled"),
        (Kind::Rocksdb, "universal"),
        (Kind::Fjall, ""),
    ];
    let trees: &[(Kind, &str)] = bench.scale.pick(&[(Kind::Redb, ""), (Kind::Lmdb, "")], &[]);
    let mut spaces = Vec::new();
    for &(kind, variant) in usual.iter().chain(trees).filter(|(kind, _)| bench.has(*kind)) {
        let place = bench.place("space");
        let setup = Setup {
            memtable_bytes,
            purpose: if matches!(variant, FEW_WRITES | "universal") {
                Purpose::FewWrites
            } else {
                Purpose::Mixed
            },
            quipu: match variant {
                FEW_WRITES => Tuning { flush_bytes: tuning.flush_bytes.map(|bytes| bytes / 3 * 4), ..tuning },
                LITTLE_SPACE => Tuning { base_ratio: Some(16), ..tuning },
                _ => tuning,
            },
            ..bench.setup(place.path(), data.bytes() / 4, Durability::Synced)
        };
        let name = if variant.is_empty() { kind.to_string() } else { format!("{kind}, {variant}") };
        {
            let store = kind.open(&Setup { durability: Durability::Unsynced, ..setup.clone() })?;
            fill(kind, &*store, &data)?;
            store.settle()?;
            store.close()?;
        }
        let store = kind.open(&setup)?;
        row.settings.push((name.clone(), store.settings()));
        let (side, clients) = match kind {
            Kind::Quipu => (Side::Ours, Clients::OnCore(IN_FLIGHT / 2)),
            _ => (Side::Peer, Clients::threads(IN_FLIGHT)),
        };
        let each = u64::from(data.keys) * 10 / u64::from(BATCH) / u64::from(IN_FLIGHT);
        let (before, began) = (written(), Instant::now());
        clients.run_each(&*store, &data, Work::Batch(BATCH), Some(each), ENDLESS)?;
        let took = began.elapsed();
        let after = space(place.path());
        store.persist()?;
        store.settle()?;
        let settled = space(place.path());
        let committed = each * u64::from(IN_FLIGHT * BATCH) * data.entry_bytes();
        let amplification = (written() - before) as f64 / committed as f64;
        store.close()?;
        let over_live = |space: Space| (space.all - space.logs) as f64 / data.bytes() as f64;
        let note = format!(
            "{name}: {amplification:.2} bytes written for each byte committed; space {:.2} x the live data right after, {:.2} x when \
             background work had ended; logs {} MiB beside; {} puts/s.",
            over_live(after),
            over_live(settled),
            after.logs >> 20,
            units::thousands((each * u64::from(IN_FLIGHT * BATCH)) / (took.as_secs().max(1)))
        );
        say(&format!("  {note}"));
        row.notes.push(note);
        row.figures.push(Figure::value(side, name, clients.to_string(), amplification));
        if side == Side::Ours {
            spaces.push(over_live(after));
        }
        if interrupted() {
            return Err("interrupted".into());
        }
    }
    let least = |figures: Vec<Figure>| figures.iter().map(|figure| figure.value).reduce(f64::min);
    let (ours, rocks) = (least(row.of(Side::Ours)), least(row.of_kind(Kind::Rocksdb)));
    let ratio = ours.zip(rocks).map(|(ours, rocks)| ours / rocks);
    let compared = "Quipu's bytes written over those of RocksDB's best setting";
    row.goals.push(Goal::at_most("no more bytes written than RocksDB's best setting", 1.0, ratio, compared));
    let space = spaces.iter().copied().reduce(f64::min);
    row.goals.push(Goal::at_most(
        "space 1.3 x the live data",
        1.3,
        space,
        "the files of Quipu's best setting but its log over the live data",
    ));
    row.notes.push(
        "What is overwritten goes when it is merged with all of the data. Seldom: fewer bytes are written. Often: less space is taken. \
         Each goal is held against the setting of Quipu's that is best at it, as the first is against RocksDB's."
            .to_string(),
    );
    Ok(vec![row])
}

/// A size of row 15's data.
struct Size {
    data: Data,
    tuning: Tuning,
    place: Place,
    /// What the memtables hold when the engine is opened, from the log.
    memtable_bytes: u64,
    /// What was measured of each work.
    measured: [Vec<Measured>; 2],
}

impl Size {
    fn new(bench: &Bench, keys: u32, flush_bytes: Option<u64>) -> Self {
        let data = Data { keys, value_bytes: VALUE_BYTES, seed: SEED };
        let tuning = Tuning { flush_bytes, ..Tuning::default() };
        let place = bench.place(&format!("{keys}-{}", flush_bytes.unwrap_or_default()));
        Size { data, tuning, place, memtable_bytes: 0, measured: Default::default() }
    }

    fn setup(&self, bench: &Bench, durability: Durability) -> Setup {
        // Together with the memtables, half of the data.
        let cache_bytes = (self.data.bytes() / 2).saturating_sub(self.memtable_bytes);
        Setup { quipu: self.tuning, ..bench.setup(self.place.path(), cache_bytes, durability) }
    }

    /// Loads the data, and sees how much of it the memtables have after opening: where in a window the load ended is chance, and
    /// what is read from there never comes to the cache.
    fn load(&mut self, bench: &Bench) -> Result<()> {
        let took = load(Kind::Quipu, &self.setup(bench, Durability::Unsynced), &self.data)?;
        let store = Kind::Quipu.open(&self.setup(bench, Durability::Synced))?;
        self.memtable_bytes = figures(&*store)?.memtable_bytes;
        store.close()?;
        say(&format!(
            "  loaded {} in {took:.1?}, {} MiB in memtables",
            self.name(),
            self.memtable_bytes >> 20
        ));
        Ok(())
    }

    fn name(&self) -> String {
        let keys = units::thousands(self.data.keys.into());
        match self.tuning.flush_bytes {
            Some(bytes) => format!("{keys} keys, windows of {:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            None => format!("{keys} keys"),
        }
    }
}

/// Row 15.
pub(crate) fn growth(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let keys = bench.scale.pick(1_000_000, 200_000);
    let works = [(Work::Get, Clients::OnCore(64)), (Work::Put, Clients::OnCore(512))];
    // A memtable is a cache, too: with the defaults, it would hold most of the smaller data. So that is measured beside.
    let [tenth, whole] = [Some(FLUSH_BYTES / TIMES), Some(FLUSH_BYTES)];
    let mut sizes = [(keys, tenth), (keys * TIMES as u32, whole), (keys, whole)]
        .map(|(keys, flush_bytes)| Size::new(bench, keys, flush_bytes));
    for size in &mut sizes {
        size.load(bench)?;
    }
    let (mut settings, mut notes) = (Vec::new(), Vec::new());
    for round in 0..bench.scale.rounds {
        for size in &mut sizes {
            let store = Kind::Quipu.open(&size.setup(bench, Durability::Synced))?;
            if round == 0 {
                settings.push((format!("Quipu, {}", size.name()), store.settings()));
            }
            for (at, (work, clients)) in works.iter().enumerate() {
                // Half of the larger data does not come into the cache within the usual warm-up.
                let times = bench.scale.times;
                let times =
                    if *work == Work::Get { Times { warmup: times.measured * 2, ..times } } else { times };
                let stolen = |(got, ..): &(Measured, Figures, Figures)| got.stolen;
                let (got, before, after) = calm_by(bench, stolen, || {
                    let before = figures(&*store)?;
                    let got = clients.run(&*store, &size.data, *work, times)?;
                    Ok((got, before, figures(&*store)?))
                })?;
                let note = format!(
                    "{}, {work:?}: {}; {} MiB in memtables, {} MiB cached. Warm-up included: {} hits and {} misses of the cache, \
                     {} reads of {} MiB from the disk, {} carries installed, {} MiB written to segments, flush level {} to {}, base \
                     level {} to {}.",
                    size.name(),
                    units::rate(got.rate),
                    after.memtable_bytes >> 20,
                    after.cache_bytes >> 20,
                    units::thousands(after.hits - before.hits),
                    units::thousands(after.misses - before.misses),
                    units::thousands(after.reads - before.reads),
                    (after.read_bytes - before.read_bytes) >> 20,
                    after.carries - before.carries,
                    (after.segment_bytes - before.segment_bytes) >> 20,
                    before.flush_level,
                    after.flush_level,
                    before.base_level,
                    after.base_level
                );
                say(&format!("  {note}"));
                notes.push(note);
                size.measured[at].push(got);
            }
            store.close()?;
        }
    }
    let what = format!(
        "Quipu's rates with {} keys and with ten times as many, and ten times the memory: cache and memtables (as they are after opening) \
         half of the data, the flush windows the default's with the larger data, a tenth of it with the smaller (and, beside, the \
         default's there, too). Point reads (on-core, \
         64 in flight on each shard, after reading for twice as long so that the cache is full) and durable commits (512), keys uniform.",
        units::thousands(keys.into())
    );
    let mut row = Row::new(15, "ten times the data", what, "operations/s");
    row.settings = settings;
    row.notes = notes;
    for size in &sizes {
        for ((work, clients), rounds) in works.iter().zip(&size.measured) {
            let name = if *work == Work::Get { "reads" } else { "commits" };
            let clients = format!("{name}, {}, {clients}", size.name());
            row.figures.extend(Figure::rates(Side::Ours, "Quipu", clients, rounds.clone(), 1.0));
        }
    }
    let ratio = |work: usize, small: usize| {
        let of = |size: usize| row.figures.get(size * works.len() + work);
        of(small).zip(of(1)).map(|(small, large)| large.value / small.value)
    };
    let goals: Vec<_> = (["reads", "commits"].into_iter().enumerate())
        .map(|(work, name)| {
            let compared = format!(
                "ten times the data over one; with the default's windows for both, {}",
                ratio(work, 2).map_or("nothing".to_string(), |ratio| format!("{ratio:.2}"))
            );
            Goal::at_least(&format!("{name} within 10 %"), 0.9, ratio(work, 0), &compared)
        })
        .collect();
    row.goals = goals;
    Ok(vec![row])
}

/// What a Quipu has compacted and read so far; of the levels the highest of all shards.
#[derive(Default)]
struct Figures {
    carries: u64,
    segment_bytes: u64,
    memtable_bytes: u64,
    cache_bytes: u64,
    flush_level: u8,
    base_level: u8,
    hits: u64,
    misses: u64,
    reads: u64,
    read_bytes: u64,
}

fn figures(store: &dyn Store) -> Result<Figures> {
    let stats = store.quipu().ok_or("Quipu is Quipu")?.engine.stats().wait()?;
    let highest = |level: fn(&quipu::ShardStats) -> u8| stats.shards.iter().map(level).max().unwrap_or(0);
    Ok(Figures {
        carries: stats.total(|shard| shard.carries_done()),
        segment_bytes: stats.total(|shard| shard.segment_bytes),
        memtable_bytes: stats.total(|shard| shard.memtable_bytes as u64),
        cache_bytes: stats.total(|shard| shard.cache_bytes),
        flush_level: highest(|shard| shard.flush_level.0),
        base_level: highest(|shard| shard.base_level.map_or(0, |level| level.0)),
        hits: stats.total(|shard| shard.cache_hits),
        misses: stats.total(|shard| shard.cache_misses),
        reads: stats.total(|shard| shard.reads),
        read_bytes: stats.total(|shard| shard.read_bytes),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn space_is_of_all_files_and_logs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/log-00"), vec![1; 100_000]).unwrap();
        fs::write(folder.path().join("data.sst"), vec![1; 50_000]).unwrap();
        let Space { all, logs } = space(folder.path());
        assert!((100_000..110_000).contains(&logs), "{logs}");
        assert!((150_000..170_000).contains(&all), "{all}");
        assert_eq!(space(Path::new("/nowhere")), Space::default());
        assert!(is_log("000012.log") && is_log("3.jnl") && !is_log("catalog-1") && !is_log("000013.sst"));
    }

    #[test]
    fn what_this_process_writes_is_counted() {
        let before = written();
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!(written() >= before + (1 << 20));
    }
}
