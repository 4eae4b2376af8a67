//! Pace: the compaction of one turn is bounded, a carry is installed before the commit that is its deadline, and
//! commits wait rather than pass it, however slow the disk is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::simulation::SimulatedShard;
use quipu_simulator::invariants::{TURN_BYTES_MAX, check_pace};

fn pace(seed: u64, disk: impl Fn(&mut SplitMix64) -> SimulatedOptions) {
    let mut random = SplitMix64::new(seed);
    let commits = 400 + random.below(800) as usize;
    let large = *pick(&mut random, &[2, 20]);
    let history = History::new(seed, Profile { commits, large, keys: 300, ..Profile::default() });
    let options = fixed_options(&mut random).retention(retention(&mut random));
    let options = free_options(&mut random, options);
    let folder = SimulatedFolder::new();
    let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
    runner.advance_with(u64::MAX / 2, |runner| check_pace(&runner.shard.picture()));
    runner.settle();
    runner.check();
    assert!(runner.shard.picture().merged_bytes > 2 * TURN_BYTES_MAX, "too little to tell");
}

#[test]
fn carries_meet_their_deadlines() {
    for_seeds(14, |seed| pace(seed, disk));
}

#[test]
fn carries_meet_their_deadlines_on_a_slow_disk() {
    for_seeds(10, |seed| {
        pace(seed, |random| SimulatedOptions {
            seed: random.next_u64(),
            complete_percent: 1,
            operation_nanos: 1_000_000..=50_000_000,
            ..SimulatedOptions::default()
        })
    });
}

/// A carry looks for what lies below dropped directories; however much that is, it does so in slices too.
#[test]
fn a_drop_of_many_directories_is_looked_through_in_slices() {
    let mut random = SplitMix64::new(1);
    let options = fixed_options(&mut random);
    let mut shard = SimulatedShard::open(&SimulatedFolder::new(), disk(&mut random), &options).unwrap();
    let (engine, local) = (shard.engine().clone(), shard.local());
    for number in 0..3000 {
        let child = engine.directory(format!("r/all/{number}")).unwrap();
        let commit = local.put(&child, "key", "value");
        shard.run(commit).unwrap();
    }
    let all = engine.directory("r/all").unwrap();
    let commit = shard.remove(&all);
    shard.run(commit).unwrap();
    let other = engine.directory("r/other").unwrap();
    for number in 0..5000u32 {
        let commit = local.put(&other, number.to_be_bytes(), "value");
        shard.run(commit).unwrap();
    }
    shard.settle();
    let most = shard.picture().slice_bytes_max;
    assert!(most <= TURN_BYTES_MAX, "{most} bytes in one turn");
}
