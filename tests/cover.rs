//! Cover: once what is due is installed, the live files are the digits of the newest commit's number; while carries
//! are in flight they stay below twice the digits' bound, and always join without a gap or an overlap.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu_simulator::invariants::CoverCheck;

#[test]
fn live_files_are_the_digits_of_the_newest_commit() {
    for_seeds(16, |seed| {
        let mut random = SplitMix64::new(seed);
        let commits = 300 + random.below(1200) as usize;
        let history = History::new(seed, Profile { commits, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        let mut cover = CoverCheck::default();
        while !runner.is_over() {
            runner.advance_with(1 + random.below(200), |runner| cover.check(&runner.shard.picture(), 2));
            if random.chance(60) {
                runner.settle();
                cover.check_settled(&runner.shard.picture());
            }
        }
    });
}
