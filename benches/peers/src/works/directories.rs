//! A million directories (row 16): how long opening takes, and what one that is not in use costs in memory.
//!
//! Memory is that of a process of its own (this program again, with `--probe`), which opens the engine and looks at one
//! key: what loading left in the allocator of this process is not counted, and what replaying the log left in that one's is
//! given back first (one call of `malloc_trim`, which is unsafe code). An engine with the same data in few
//! directories is what it is compared with.

use super::commits::{CACHE_BYTES, SEED, VALUE_BYTES};
use crate::engines::{Durability, Kind, Result, Setup};
use crate::measure::interrupted;
use crate::ops::Data;
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::system;
use crate::shared::units;
use crate::trial::{Bench, say};
use quipu::{Batch, Durability as Durable, Engine, Local, Options};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keys in each directory.
const KEYS: u32 = 10;
/// Roots that the directories are under.
const ROOTS: u32 = 64;
/// Directories that one commit makes, with their keys.
const PER_BATCH: u32 = 50;
/// Directories of the engine that it is compared with.
const FEW: u32 = 64;

/// What a process of its own found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Probe {
    /// How long opening took.
    opened: Duration,
    /// Commits replayed.
    replayed: u64,
    /// Its memory then, in bytes, less memtables and block caches, which hold data whatever directories it is in.
    memory: u64,
}

/// Row 16.
pub(crate) fn many(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let directories = bench.scale.pick(1_000_000, 100_000);
    let data = Data { keys: directories * KEYS, value_bytes: VALUE_BYTES, seed: SEED };
    let mut probes = Vec::new();
    let mut settings = Vec::new();
    for count in [FEW, directories] {
        let place = bench.place("directories");
        let setup = bench.setup(place.path(), CACHE_BYTES, Durability::Synced);
        let took = make(&setup, &data, count)?;
        say(&format!("  {} directories made in {took:.1?}", units::thousands(count.into())));
        if settings.is_empty() {
            let store = Kind::Quipu.open(&setup)?;
            settings = store.settings();
            store.close()?;
        }
        let probe = probe_in_a_process(place.path(), &path_of(0, count))?;
        say(&format!(
            "  {} directories: opened in {:.3?}, {} commits replayed, {} of memory",
            units::thousands(count.into()),
            probe.opened,
            probe.replayed,
            units::bytes(probe.memory)
        ));
        probes.push((count, took, probe));
    }
    let what = format!(
        "{} directories under {ROOTS} roots, {KEYS} keys each, 100-byte values. Opening: in a process of its own, after a clean close. Memory: \
         that process's (VmRSS) after it opened and read one key, less its memtables and block caches, less the same with the same data in {FEW} directories, for each directory.",
        units::thousands(directories.into())
    );
    let mut row = Row::new(16, "a million directories", what, "s to open");
    row.settings.push((Kind::Quipu.to_string(), settings));
    for (count, took, probe) in &probes {
        let clients = format!("{} directories", units::thousands((*count).into()));
        row.figures.push(Figure::value(Side::Ours, "Quipu", &clients, probe.opened.as_secs_f64()));
        row.notes.push(format!(
            "{clients}: made and filled in {took:.1?}; opened in {:.3?} with {} commits replayed; {} of memory.",
            probe.opened,
            probe.replayed,
            units::bytes(probe.memory)
        ));
    }
    let (few, many) = (probes[0].2, probes[1].2);
    let each = (many.memory as f64 - few.memory as f64) / f64::from(directories - FEW);
    let opened = Some(many.opened.as_secs_f64());
    row.goals.push(Goal::at_most("opens in 2 s", 2.0, opened, "seconds"));
    row.goals.push(Goal::at_most(
        "under 100 bytes for each directory",
        100.0,
        Some(each),
        "bytes for each directory",
    ));
    Ok(vec![row])
}

/// The path of a directory, where there are so many.
fn path_of(directory: u32, count: u32) -> String {
    match count {
        FEW => format!("few{directory}"),
        _ => format!("root{}/directory{directory}", directory % ROOTS),
    }
}

/// Makes an engine with so many directories that hold the data together.
fn make(setup: &Setup, data: &Data, count: u32) -> Result<Duration> {
    let began = Instant::now();
    let engine = Options::new()
        .cache_bytes(setup.cache_bytes as usize)
        .memtable_bytes(setup.memtable_bytes as usize)
        .durability(Durable::Buffered { within: Duration::from_millis(100) })
        .open(&setup.path)?;
    let answers: Vec<_> = (0..engine.shards())
        .map(|shard| {
            let (engine, data) = (engine.clone(), *data);
            engine.clone().run_on_shard(shard, move |local| fill(local, engine, data, count))
        })
        .collect();
    for answer in answers {
        answer.wait()??;
    }
    engine.barrier().wait()?;
    // What is due is done before the close: so the opening shows what opening costs, not what loading left.
    settled(&engine)?;
    engine.close()?;
    if interrupted() {
        return Err("interrupted".into());
    }
    Ok(began.elapsed())
}

async fn fill(local: Local, engine: Engine, data: Data, count: u32) -> Result<()> {
    let shape = data.shape();
    let mut value = Vec::new();
    let groups = if count == FEW { FEW } else { ROOTS };
    for group in 0..groups {
        if engine.shard_of(path_of(group, count))? != local.shard() {
            continue;
        }
        // The slots of this group's directories, directory by directory.
        let mut batch = Batch::new();
        let mut in_batch = 0;
        for directory in (group..count).step_by(groups as usize) {
            let handle = local.directory(path_of(directory, count))?;
            for slot in (directory..data.keys).step_by(count as usize) {
                shape.fill(slot, 0, &mut value);
                batch.put(&handle, shape.key(slot), &value);
                in_batch += 1;
                if in_batch == PER_BATCH * KEYS {
                    local.commit(&batch).await?;
                    batch.clear();
                    in_batch = 0;
                    tokio::task::yield_now().await;
                    if interrupted() {
                        return Err("interrupted".into());
                    }
                }
            }
        }
        if !batch.is_empty() {
            local.commit(&batch).await?;
        }
    }
    Ok(())
}

/// Waits until no carry is in flight, up to two minutes.
fn settled(engine: &Engine) -> Result<()> {
    let began = Instant::now();
    while engine.stats().wait()?.shards.iter().any(|shard| !shard.carries.is_empty())
        && began.elapsed() < Duration::from_secs(120)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn probe_in_a_process(folder: &Path, directory: &str) -> Result<Probe> {
    let output = Command::new(std::env::current_exe()?).arg("--probe").arg(folder).arg(directory).output()?;
    if !output.status.success() {
        return Err(format!("the probe failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| "the probe said something else".into())
}

/// What the process of its own does: opens, reads one key, and says three numbers.
pub(crate) fn probe(folder: &Path, directory: &str) -> Result<()> {
    let engine = Options::new().cache_bytes(CACHE_BYTES as usize).create(false).open(folder)?;
    let recovery = engine.recovery();
    let handle = engine.directory(directory)?;
    if handle.iter().limit(1).blocking().next().transpose()?.is_none() {
        return Err(format!("{directory} is empty").into());
    }
    settled(&engine)?;
    // SAFETY: it touches nothing but the allocator's own free memory.
    unsafe { nix::libc::malloc_trim(0) };
    let memory = system::memory_now();
    let stats = engine.stats().wait()?;
    let data = stats.total(|shard| shard.memtable_bytes as u64) + stats.total(|shard| shard.cache_bytes);
    println!("{} {} {}", recovery.took.as_nanos(), recovery.replayed(), memory.saturating_sub(data));
    engine.close()?;
    Ok(())
}

fn parse(text: &str) -> Option<Probe> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Probe { opened: Duration::from_nanos(next()?), replayed: next()?, memory: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_back() {
        let probe = Probe { opened: Duration::from_nanos(5), replayed: 7, memory: 9 };
        assert_eq!(parse("5 7 9\n"), Some(probe));
        assert_eq!(parse("5 7"), None);
        assert_eq!(parse("a b c"), None);
    }

    #[test]
    fn few_directories_are_roots() {
        assert_eq!(path_of(3, FEW), "few3");
        assert_eq!(path_of(65, 1000), "root1/directory65");
    }
}
