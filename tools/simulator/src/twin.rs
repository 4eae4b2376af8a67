//! The twin: the same commits on a shard that ran without faults, crashes or reordering. Its files must be the same.

use crate::model::Step;
use crate::sessions::calm_disk;
use quipu::disk::SimulatedFolder;
use quipu::simulation::{SimulatedShard, Tuning};
use quipu::{Batch, Options, SegmentInfo, SegmentKind};

/// The files that the arithmetic asks for.
pub(crate) fn lasting(shard: &SimulatedShard) -> Vec<SegmentInfo> {
    shard.segments().into_iter().filter(|info| info.kind != SegmentKind::Spill).collect()
}

fn open(folder: &SimulatedFolder, options: &Options, tuning: Tuning) -> SimulatedShard {
    let opened = SimulatedShard::begin_tuned(folder, calm_disk(), options, tuning).and_then(|mut opening| {
        loop {
            if let Some(opened) = opening.step() {
                return opened;
            }
        }
    });
    opened.unwrap_or_else(|error| panic!("the twin does not open: {error}"))
}

/// Compares the files of a settled shard with those of its twin.
pub(crate) fn compare(options: &Options, steps: &[Step], tuning: Tuning, shard: &SimulatedShard) {
    let (ours, theirs) = (lasting(shard), files(options, steps, tuning));
    assert_eq!(ours, theirs, "the files after {} commits, and the twin's", steps.len());
}

/// The files after some commits, on a shard that runs undisturbed.
pub(crate) fn files(options: &Options, steps: &[Step], tuning: Tuning) -> Vec<SegmentInfo> {
    let folder = SimulatedFolder::new();
    let mut twin = open(&folder, options, tuning);
    for (at, step) in steps.iter().enumerate() {
        let engine = twin.engine().clone();
        let directory = |path: &str| match engine.directory(path) {
            Ok(directory) => directory,
            Err(error) => panic!("{path} is a good path: {error}"),
        };
        // Not waited for: what it is told is of no interest.
        match step {
            Step::Batch(operations) => {
                let mut batch = Batch::new();
                for (path, key, value) in operations {
                    match value {
                        Some(value) => batch.put(&directory(path), key, value),
                        None => batch.delete(&directory(path), key),
                    };
                }
                drop(twin.local().commit(&batch));
            }
            Step::Rename(from, to) => drop(twin.rename(&directory(from), &directory(to))),
            Step::Remove(path) => drop(twin.remove(&directory(path))),
        }
        let sequenced = |twin: &SimulatedShard| twin.newest().0 > at as u64;
        for turns in 0.. {
            if turns > 0 && sequenced(&twin) {
                break;
            }
            assert!(turns < 100_000, "the twin does not take {step:?}");
            twin.turn();
        }
    }
    twin.settle();
    let files = lasting(&twin);
    twin.kill();
    files
}
