//! Latencies under load: against the floor (row 11), with and without carries (row 13), and the slowest second of a
//! long run (row 12).

use super::commits::{CACHE_BYTES, ON_CORE, keys};
use crate::drive::{self, Spec};
use crate::engines::floor::{Floor, PAGE};
use crate::engines::quipu::{Quipu, Tuning};
use crate::engines::{Durability, Kind, Result, Settings, Setup, View};
use crate::measure::{Measured, Times, median_by};
use crate::native;
use crate::ops::{Data, Work};
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::units;
use crate::trial::{Bench, Clients, ONE_INSERTS, calm, calm_below, say};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Log writes that a shard has in flight at most (`Options::log_depth`'s default).
const LOG_DEPTH: u32 = 4;
/// Clients of each shard that bring it to a commit.
const PAST_CLIENTS: u32 = 512;
/// Longer than that takes.
const ENDLESS: Times = Times { warmup: Duration::ZERO, measured: Duration::from_secs(7200) };
/// Rounds at full sizes at the least: see [`latency`].
const ROUNDS_MIN: u32 = 5;
/// The share of the processor time that may be stolen in a trial whose tail counts: more, and it was not calm.
const STOLEN_MOST: f64 = 0.005;
/// What a commit takes in the log, about, for sizing a log that never has to be cut.
const LOG_BYTES_A_COMMIT: f64 = 200.0;

/// An open loop of Quipu's, with what the engine did meanwhile.
struct Paced {
    measured: Measured,
    log_writes: u64,
    log_bytes: u64,
    carries: u64,
    took: Duration,
    /// Where time went in the engine.
    stages: String,
}

fn paced(quipu: &Quipu, rate: f64, times: Times) -> Result<Paced> {
    let spec = Spec { data: keys(), work: Work::Put, view: View::Newest, each: None };
    let before = quipu.engine.stats().wait()?;
    let began = std::time::Instant::now();
    let measured = native::on_core_open(quipu, &spec, rate, times)?;
    let took = began.elapsed();
    let after = quipu.engine.stats().wait()?;
    let grown = |figure: fn(&quipu::ShardStats) -> u64| after.total(figure) - before.total(figure);
    Ok(Paced {
        measured,
        log_writes: grown(|shard| shard.log_groups),
        log_bytes: grown(|shard| shard.log_bytes),
        carries: grown(|shard| shard.carries_done()),
        took,
        stages: stages(&before, &after),
    })
}

/// The stages of a commit between two looks at the engine, in words.
fn stages(before: &quipu::Stats, after: &quipu::Stats) -> String {
    type Stage = fn(&quipu::Stages) -> &hdrhistogram::Histogram<u64>;
    let all: [(&str, Stage); 5] = [
        ("to be sequenced", |stages| &stages.sequenced),
        ("log write", |stages| &stages.log_write),
        ("from there to the answer", |stages| &stages.acknowledged),
        ("slice of compaction", |stages| &stages.slice),
        ("turn of the loop", |stages| &stages.turn),
    ];
    let told = all.map(|(name, stage)| {
        let (mut sum, earlier) = (after.stage(stage), before.stage(stage));
        // They are of the same bounds, and counts only grow; else, all of them are told of.
        let _ = sum.subtract(earlier);
        let at = |quantile| units::latency(sum.value_at_quantile(quantile));
        format!("{name} {}, {}, {}, at most {}", at(0.5), at(0.99), at(0.999), at(1.0))
    });
    told.join("; ")
}

fn tell(name: &str, measured: &Measured) {
    say(&format!(
        "  {name:<28} {:>12}  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  stolen {:>2.0} %",
        units::rate(measured.rate),
        units::latency(measured.p50),
        units::latency(measured.p99),
        units::latency(measured.p999),
        measured.stolen * 100.0
    ));
}

/// A figure whose value is the p99.9 of the middle one of its rounds, in microseconds.
fn tail_of(side: Side, name: &str, clients: String, rounds: &[Measured]) -> Option<Figure> {
    let micros = |measured: &Measured| measured.p999 as f64 / 1e3;
    let middle = middle(rounds)?;
    let value = micros(&middle);
    let figure = Figure::rates(side, name, clients, vec![middle], 1.0)?;
    Some(Figure { value, rounds: rounds.iter().map(micros).collect(), ..figure })
}

/// The one with the middle p99.9.
fn middle(rounds: &[Measured]) -> Option<Measured> {
    median_by(rounds.to_vec(), |one, other| other.p999.cmp(&one.p999))
}

fn ratio(over: &[Measured], under: &[Measured]) -> Option<f64> {
    let (over, under) = (middle(over)?.p999, middle(under)?.p999);
    (under > 0).then(|| over as f64 / under as f64)
}

/// What the rounds of rows 11 and 13 came to.
#[derive(Default)]
struct Tails {
    with: Vec<Paced>,
    floor: Vec<Measured>,
    /// With its settings.
    without: Vec<(Paced, Settings)>,
}

impl Tails {
    fn with(&self) -> Vec<Measured> {
        self.with.iter().map(|paced| paced.measured.clone()).collect()
    }
}

/// Rows 11 and 13.
///
/// A p99.9 over ten seconds is that of the worst hundredth of a second of each shard: one hiccup of the disk, or of the
/// hypervisor, decides it. So what is compared takes turns, and the middle one of several rounds counts.
pub(crate) fn latency(bench: &Bench, wanted: &BTreeSet<u32>) -> Result<Vec<Row>> {
    // The highest rate is one that the engine holds for long, and with carries of every level under way: an engine that is
    // empty has none for seconds.
    let warmup = bench.scale.times.warmup * 5;
    let times = Times { warmup, ..bench.scale.times };
    let place = bench.place("tail");
    let setup = bench.setup(place.path(), CACHE_BYTES, Durability::Synced);
    let store = Kind::Quipu.open(&setup)?;
    let quipu = store.quipu().ok_or("Quipu is Quipu")?;
    let longer = Times { warmup, ..bench.scale.longer(2) };
    let highest = calm(bench, || ON_CORE.run(&*store, &keys(), Work::Put, longer))?;
    tell("Quipu's highest rate", &highest);
    let rate = highest.rate / 2.0;
    let settings = vec![(Kind::Quipu.to_string(), store.settings())];
    let shards = quipu.directories.len() as u32;
    let mut tails = Tails::default();
    let mut load = None;
    for _ in 0..bench.scale.rounds.max(bench.scale.pick(ROUNDS_MIN, 1)) {
        let stolen = |paced: &Paced| paced.measured.stolen;
        let with = calm_below(bench, STOLEN_MOST, stolen, || paced(quipu, rate, times))?;
        tell("Quipu at 50 %", &with.measured);
        say(&format!("    {}", with.stages));
        if wanted.contains(&11) {
            // In all rounds the load is that of the first.
            let load = load.get_or_insert_with(|| Load::of(&with, shards));
            let floor = load.run(bench, times)?;
            tell("floor at the same writes", &floor);
            tails.floor.push(floor);
        }
        if wanted.contains(&13) {
            let without = without_carries(bench, rate, bench.scale.times)?;
            tell("Quipu without carries", &without.0.measured);
            say(&format!("    {}", without.0.stages));
            tails.without.push(without);
        }
        tails.with.push(with);
    }
    store.close()?;
    drop(place);

    let mut rows = Vec::new();
    if let Some(load) = load {
        let mut row = against_floor(bench, &tails, &load, highest.rate, times)?;
        row.settings = [settings.clone(), row.settings].concat();
        rows.push(row);
    }
    if wanted.contains(&13) {
        rows.push(with_and_without(&tails, rate, settings));
    }
    Ok(rows)
}

/// Log writes as the engine made them.
struct Load {
    /// A second.
    writes: f64,
    /// Of each, in bytes.
    size: usize,
    shards: u32,
}

impl Load {
    fn of(with: &Paced, shards: u32) -> Self {
        let writes = with.log_writes as f64 / with.took.as_secs_f64();
        let size = (with.log_bytes / with.log_writes.max(1)).next_multiple_of(PAGE as u64) as usize;
        Load { writes, size, shards }
    }

    fn run(&self, bench: &Bench, times: Times) -> Result<Measured> {
        let place = bench.place("floor");
        std::fs::create_dir_all(place.path())?;
        let floor = Floor::create(&place.path().join("floor"), 256 << 20)?;
        let Load { writes, size, shards } = *self;
        calm_below(
            bench,
            STOLEN_MOST,
            |measured: &Measured| measured.stolen,
            || floor.writes_at(size, writes, LOG_DEPTH, shards, times),
        )
    }
}

fn against_floor(bench: &Bench, tails: &Tails, load: &Load, highest: f64, times: Times) -> Result<Row> {
    let Load { writes, size, shards } = *load;
    let rate = highest / 2.0;
    let what = format!(
        "Durable commits of one put at 50 % of Quipu's highest rate ({} on-core, 512 in flight on each shard), evenly spaced, on-core; \
         latency from when a commit was to start. The floor: as many O_DSYNC writes a second as the engine made log writes \
         ({writes:.0}/s), of their mean size ({} KiB), evenly spaced, {LOG_DEPTH} in flight at most on each of {shards} rings. In turns; \
         the middle one of the rounds counts. RocksDB, for comparison, at 50 % of its own highest rate from 64 threads.",
        units::rate(highest),
        size >> 10
    );
    let mut row = Row::new(11, "p99.9 of durable commits at 50 % of the highest rate", what, "us (p99.9)");
    let with = tails.with();
    row.figures.extend(tail_of(Side::Ours, "Quipu", format!("on-core at {}", units::rate(rate)), &with));
    row.figures.extend(tail_of(Side::Floor, "raw floor", format!("{writes:.0} writes/s"), &tails.floor));
    let compared = "Quipu over the raw floor";
    row.goals.push(Goal::at_most("3 x the raw floor's p99.9", 3.0, ratio(&with, &tails.floor), compared));
    row.notes
        .push("All that was to start within the time counts, whenever it started and ended.".to_string());
    if bench.has(Kind::Rocksdb) {
        let place = bench.place("tail");
        // Set up in the way in which it is fastest.
        let name = format!("{}, {ONE_INSERTS}", Kind::Rocksdb);
        let setup = Setup { one_inserts: true, ..bench.setup(place.path(), CACHE_BYTES, Durability::Synced) };
        let store = Kind::Rocksdb.open(&setup)?;
        let threads = 64;
        let highest = Clients::threads(threads).run(&*store, &keys(), Work::Put, bench.scale.times)?;
        let spec = Spec { data: keys(), work: Work::Put, view: View::Newest, each: None };
        let half = || drive::open(&*store, &spec, threads, highest.rate / 2.0, times);
        let measured = calm(bench, half)?;
        tell("RocksDB at 50 %", &measured);
        let clients = format!("{threads} threads at {}", units::rate(highest.rate / 2.0));
        row.figures.extend(tail_of(Side::Peer, &name, clients, &[measured]));
        row.settings.push((name, store.settings()));
        store.close()?;
    }
    Ok(row)
}

/// The engine has no switch that leaves compaction out; a run within one window comes to the same.
///
/// With a flush window that is never full, the level of windows grows with each boundary, and boundaries fall at powers of
/// the divisor: after commit 4^k of a shard, the next is 4^(k+1). So the engine is brought just past such a
/// commit, with as many to the next as the run can need. The log files of the window before are recycled in the run, as
/// they are in the run with carries: fresh ones are written twice.
fn without_carries(bench: &Bench, rate: f64, times: Times) -> Result<(Paced, Settings)> {
    const FILE: u64 = 128 << 20;
    // Of each of two shards.
    let commits = (rate * (times.warmup + times.measured).as_secs_f64() / 2.0).ceil() as u64;
    let past = boundary_before(commits);
    // Each shard's log holds the run, and the window before it.
    let files = ((commits.max(past) as f64 * LOG_BYTES_A_COMMIT) as u64).div_ceil(FILE) * 2 + 4;
    let place = bench.place("tail-without");
    let trial = || {
        let setup = Setup {
            memtable_bytes: 8 << 30,
            quipu: Tuning {
                base_ratio: None,
                flush_bytes: Some(1 << 40),
                log_file_bytes: Some(FILE),
                log_files_max: Some(files.clamp(12, 100) as usize),
                one_directory: false,
            },
            ..bench.setup(place.path(), CACHE_BYTES, Durability::Synced)
        };
        let store = Kind::Quipu.open(&setup)?;
        let quipu = store.quipu().ok_or("Quipu is Quipu")?;
        let each = past / u64::from(PAST_CLIENTS) + 1;
        Clients::OnCore(PAST_CLIENTS).run_each(&*store, &keys(), Work::Put, Some(each), ENDLESS)?;
        store.settle()?;
        nix::unistd::sync();
        let without = paced(quipu, rate, times)?;
        let settings = store.settings();
        store.close()?;
        std::fs::remove_dir_all(place.path())?;
        Ok((without, settings))
    };
    calm_below(bench, STOLEN_MOST, |(paced, _): &(Paced, _)| paced.measured.stolen, trial)
}

fn with_and_without(tails: &Tails, rate: f64, settings: Vec<(String, Settings)>) -> Row {
    let what = format!(
        "Durable commits of one put at {}, on-core, evenly spaced: with carries as usual, and without, in turns; the middle one of the \
         rounds counts. The engine has no switch for that; without them its windows are so large that the whole run lies within one.",
        units::rate(rate)
    );
    let mut row = Row::new(13, "p99.9 with compaction against without", what, "us (p99.9)");
    row.settings = settings;
    let (paced, mut own): (Vec<&Paced>, Vec<_>) =
        tails.without.iter().map(|(paced, own)| (paced, own)).unzip();
    row.settings.extend(own.pop().map(|own| ("Quipu, without carries".to_string(), own.clone())));
    let carries = |paced: &[&Paced]| paced.iter().map(|paced| paced.carries).collect::<Vec<_>>();
    let with_carries = carries(&tails.with.iter().collect::<Vec<_>>());
    let without_carries = carries(&paced);
    let valid = with_carries.iter().all(|&carries| carries > 0)
        && without_carries.iter().all(|&carries| carries == 0);
    row.notes.push(format!(
        "Carries installed during the rounds: {with_carries:?} with, {without_carries:?} without."
    ));
    let without: Vec<_> = paced.iter().map(|paced| paced.measured.clone()).collect();
    for (at, (with, without)) in tails.with.iter().zip(&paced).enumerate() {
        for (name, paced) in [("with", with), ("without", *without)] {
            row.notes.push(format!("Round {}, {name} carries: {}.", at + 1, paced.stages));
        }
    }
    row.notes.push("Times in the engine are p50, p99 and p99.9.".to_string());
    let with = tails.with();
    row.figures.extend(tail_of(Side::Ours, "Quipu", "with carries".to_string(), &with));
    row.figures.extend(tail_of(Side::Ours, "Quipu", "without carries".to_string(), &without));
    let ratio = ratio(&with, &without).filter(|_| valid);
    row.goals.push(Goal::at_most("1.2 x", 1.2, ratio, "with carries over without"));
    row
}

/// The smallest power of the divisor, from 4^8 on, with at least as many commits of a shard in the window before it (and so
/// in the one after it too).
fn boundary_before(commits: u64) -> u64 {
    let mut boundary = 4u64.pow(8);
    while boundary / 4 * 3 < commits {
        boundary *= 4;
    }
    boundary
}

/// Row 12: a run that spans at least three levels of carries.
pub(crate) fn slowest_second(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    // An empty engine's first windows are small, and carry often: that is over when it counts.
    let times = Times { warmup: bench.scale.times.warmup * 5, ..bench.scale.longer(bench.scale.pick(9, 8)) };
    let place = bench.place("long");
    let flush_bytes = bench.scale.pick(None, Some(1 << 20));
    // Most puts are new keys: so the base grows, and with it the number of levels below it.
    let data = Data { keys: 100_000_000, ..keys() };
    let setup = Setup {
        quipu: Tuning { flush_bytes, ..Tuning::default() },
        ..bench.setup(place.path(), CACHE_BYTES, Durability::Synced)
    };
    let store = Kind::Quipu.open(&setup)?;
    let quipu = store.quipu().ok_or("Quipu is Quipu")?;
    let over = AtomicBool::new(false);
    let (measured, levels) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_levels(quipu, &over));
        let measured = ON_CORE.run(&*store, &data, Work::Put, times);
        over.store(true, Ordering::Relaxed);
        (measured, watcher.join().unwrap_or_else(|_| Err("the watcher panicked".into())))
    });
    let (measured, levels) = (measured?, levels?);
    tell("Quipu", &measured);
    let what = format!(
        "Durable commits of one put, keys uniform of 100,000,000 (so most are new), the engine empty at first; on-core with 512 in \
         flight on each shard, for {:.0} s. The whole second with the fewest commits against the mean.",
        times.measured.as_secs_f64()
    );
    let mut row = Row::new(12, "the slowest second over three levels of carries", what, "commits/s");
    row.over_time = true;
    row.settings.push((Kind::Quipu.to_string(), store.settings()));
    store.close()?;
    drop(place);
    let enough = levels.len() >= 3;
    let slowest = measured.slowest().filter(|_| enough);
    row.figures.extend(Figure::rates(Side::Ours, "Quipu", ON_CORE.to_string(), vec![measured], 1.0));
    row.goals.push(Goal::at_least("80 % of the mean", 0.8, slowest, "the slowest second over the mean"));
    let levels: Vec<String> =
        levels.into_iter().map(|level| level.map_or("the base".into(), |level| level.to_string())).collect();
    row.notes.push(format!("Levels of carries in flight during the run: {}.", levels.join(", ")));
    if !enough {
        row.notes.push("Fewer than three levels: a longer run (`--seconds`) is needed.".to_string());
    }
    if bench.has(Kind::Rocksdb) {
        let place = bench.place("long");
        let store = Kind::Rocksdb.open(&bench.setup(place.path(), CACHE_BYTES, Durability::Synced))?;
        let clients = Clients::threads(256);
        let measured = clients.run(&*store, &data, Work::Put, times)?;
        tell("RocksDB", &measured);
        row.settings.push((Kind::Rocksdb.to_string(), store.settings()));
        row.figures.extend(Figure::rates(Side::Peer, "RocksDB", clients.to_string(), vec![measured], 1.0));
        store.close()?;
    }
    Ok(vec![row])
}

/// The levels of carries that are seen in flight until it is over, from the flush level at its end upwards: what an
/// empty engine carries at first, while its windows are small, is not what is asked for. The base is the last of the levels.
fn watch_levels(quipu: &Quipu, over: &AtomicBool) -> Result<Vec<Option<u8>>> {
    let mut levels = BTreeSet::new();
    let (mut flush_level, mut folds) = (0, false);
    while !over.load(Ordering::Relaxed) {
        let stats = quipu.engine.stats().wait()?;
        for carry in stats.shards.iter().flat_map(|shard| &shard.carries) {
            match carry.kind {
                quipu::CarryKind::Segment => drop(levels.insert(carry.level.0)),
                quipu::CarryKind::Fold => folds = true,
                _ => {}
            }
        }
        flush_level = stats.shards.iter().map(|shard| shard.flush_level.0).min().unwrap_or(0);
        std::thread::sleep(Duration::from_millis(20));
    }
    let windows = levels.into_iter().filter(|&level| level >= flush_level).map(Some);
    Ok(windows.chain(folds.then_some(None)).collect())
}

#[cfg(test)]
mod tests {
    use super::boundary_before;

    #[test]
    fn a_run_fits_between_two_boundaries() {
        for commits in [1, 100_000, 1_000_000, 6_000_000, 100_000_000] {
            let boundary = boundary_before(commits);
            assert!(boundary + commits + 1024 < 4 * boundary, "{commits}");
            assert!(boundary - boundary / 4 >= commits, "{commits}");
        }
        assert_eq!(boundary_before(196_608), 4u64.pow(9));
        assert_eq!(boundary_before(196_609), 4u64.pow(10));
    }
}
