//! Pace: the compaction of one turn is bounded, a carry is installed before the commit that is its deadline, and
//! commits wait rather than pass it, however slow the disk is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu_simulator::invariants::PaceCheck;

fn pace(seed: u64, disk: impl Fn(&mut SplitMix64) -> SimulatedOptions) {
    let mut random = SplitMix64::new(seed);
    let commits = 400 + random.below(800) as usize;
    let large = *pick(&mut random, &[2, 20]);
    let history = History::new(seed, Profile { commits, large, keys: 300, ..Profile::default() });
    let options = fixed_options(&mut random).retention(retention(&mut random));
    let options = free_options(&mut random, options);
    let folder = SimulatedFolder::new();
    let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
    let mut pace = PaceCheck::default();
    runner.advance_with(u64::MAX / 2, |runner| pace.check(&runner.shard.picture()));
    runner.settle();
    runner.check();
    assert!(pace.most > 0);
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
