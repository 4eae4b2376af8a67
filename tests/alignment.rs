//! Alignment: every segment of a window holds exactly one window of its level, and spills are private to a window whose
//! carry is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::simulation::SimulatedShard;
use quipu_simulator::invariants::{check_alignment, check_settled_alignment};

fn check(shard: &SimulatedShard) {
    check_alignment(shard, &shard.picture(), false);
}

#[test]
fn files_hold_whole_windows() {
    for_seeds(16, |seed| {
        let mut random = SplitMix64::new(seed);
        let commits = 300 + random.below(600) as usize;
        let history = History::new(seed, Profile { commits, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        loop {
            let options = free_options(&mut random, options.clone());
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
            check(&runner.shard);
            runner.advance_with(1 + random.below(400), |runner| check(&runner.shard));
            if !runner.is_over() {
                runner.crash(&mut random);
                continue;
            }
            runner.settle();
            check_settled_alignment(&runner.shard, &runner.shard.picture());
            break;
        }
    });
}
