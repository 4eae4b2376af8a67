//! The same commits give the same files, byte for byte, whatever the disk: io_uring, plain system calls, and the simulated
//! one. How commits are grouped into log writes differs; segments and parts of the base must not.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{eventually, files, folder};
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::simulation::SimulatedShard;
use quipu::{Batch, Engine, Error, IoChoice, Options, Result, Retention};
use quipu_simulator::choices::{self, Profile};
use quipu_simulator::model::{Model, Step};
use std::collections::BTreeMap;

/// The files that hold windows and parts of the base, by name.
type Files = BTreeMap<String, Vec<u8>>;

const COMMITS: usize = 700;

/// A fixed history: batches, and renames and drops of what there is.
fn history(seed: u64) -> Vec<Step> {
    let mut random = SplitMix64::new(seed);
    let profile = Profile { commits: COMMITS, keys: 60, moves: 0, large: 3, ..Profile::default() };
    let mut model = Model::default();
    let mut steps = Vec::new();
    while steps.len() < COMMITS {
        let moved = match steps.len() % 50 {
            20 => Some(Step::Rename("r/a", "r/c/d")),
            30 => Some(Step::Rename("r/c/d", "r/a")),
            40 => Some(Step::Remove("r/b")),
            _ => None,
        };
        let step = moved.filter(|step| model.refusal(step).is_none());
        let step = step.unwrap_or_else(|| choices::batch(&mut random, profile, steps.len()));
        model.apply(&step);
        steps.push(step);
    }
    steps
}

fn options(retention: Retention) -> Options {
    Options::new()
        .shards(1)
        .divisor(3)
        .flush_bytes(4 << 10)
        .log_file_bytes(64 << 10)
        .log_files_max(6)
        .part_bytes(64 << 10)
        .memtable_bytes(4 << 20)
        .base_ratio(4)
        .retention(retention)
        .pin(false)
}

fn batch(engine: &Engine, step: &Step) -> Option<Batch> {
    let Step::Batch(changes) = step else { return None };
    let mut batch = Batch::new();
    for (path, key, value) in changes {
        let directory = engine.directory(path).unwrap();
        match value {
            Some(value) => batch.put(&directory, key, value),
            None => batch.delete(&directory, key),
        };
    }
    Some(batch)
}

fn is_lasting(name: &str) -> bool {
    name.starts_with("segment-") || name.starts_with("base-")
}

/// On a real folder.
fn real(retention: Retention, io: IoChoice, steps: &[Step]) -> Result<Files> {
    let folder = folder();
    let engine = options(retention).io(io).open(folder.path())?;
    // Several at once, so that they share log writes; as many as differ from time to time.
    for steps in steps.chunks(7) {
        let mut answers = Vec::new();
        for step in steps {
            answers.push(match step {
                Step::Batch(_) => engine.commit(batch(&engine, step).unwrap()),
                Step::Rename(from, to) => {
                    engine.directory(from).unwrap().rename(&engine.directory(to).unwrap())
                }
                Step::Remove(path) => engine.directory(path).unwrap().remove(),
            });
        }
        answers.into_iter().for_each(|answer| assert!(answer.wait().is_ok()));
    }
    eventually("carries are installed", || engine.stats().wait().unwrap().shards[0].carries.is_empty());
    engine.close()?;
    let named = files(folder.path())
        .into_iter()
        .map(|(path, bytes)| (path.file_name().unwrap().to_str().unwrap().to_string(), bytes));
    Ok(named.filter(|(name, _)| is_lasting(name)).collect())
}

/// On the simulated disk.
fn simulated(retention: Retention, steps: &[Step], seed: u64) -> Files {
    let folder = SimulatedFolder::new();
    let disk = SimulatedOptions { seed, ..SimulatedOptions::default() };
    let mut shard = SimulatedShard::open(&folder, disk, &options(retention)).unwrap();
    let engine = shard.engine().clone();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Batch(_) => drop(shard.local().commit(&batch(&engine, step).unwrap())),
            Step::Rename(from, to) => {
                drop(shard.rename(&engine.directory(from).unwrap(), &engine.directory(to).unwrap()));
            }
            Step::Remove(path) => drop(shard.remove(&engine.directory(path).unwrap())),
        }
        while shard.newest().0 <= at as u64 {
            shard.turn();
        }
    }
    shard.settle();
    drop(engine);
    shard.close().unwrap();
    folder.files().into_iter().filter(|(name, _)| is_lasting(name)).collect()
}

fn compare(retention: Retention) {
    let steps = history(17);
    let expected = simulated(retention, &steps, 1);
    assert!(expected.len() > 2, "{:?}", expected.keys());
    let check = |found: Files, on: &str| {
        assert!(found.keys().eq(expected.keys()), "{on}: {:?}, not {:?}", found.keys(), expected.keys());
        for (name, bytes) in &found {
            assert!(*bytes == expected[name], "{name} differs on {on}");
        }
    };
    check(simulated(retention, &steps, 2), "the simulated disk with another seed");
    check(real(retention, IoChoice::Plain, &steps).unwrap(), "plain system calls");
    match real(retention, IoChoice::Require, &steps) {
        Ok(found) => check(found, "io_uring"),
        Err(Error::NoIoUring { why }) => println!("io_uring is left out: {why}"),
        Err(error) => panic!("{error}"),
    }
    println!("{retention:?}: the same {} files", expected.len());
}

#[test]
fn windows_are_the_same_on_every_disk() {
    compare(Retention::Forever);
}

#[test]
fn parts_of_the_base_are_the_same_on_every_disk() {
    compare(Retention::None);
}
