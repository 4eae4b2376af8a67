//! Pace: the compaction of one turn is bounded, a carry is installed before the commit that is its deadline, and
//! commits wait rather than pass it, however slow the disk is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::CarryKind;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};

/// What a turn may merge beyond its slice: an entry may be as large as the largest value, and a part of the base that
/// a fold passes over is counted whole.
const SLICE_BYTES: u64 = 64 << 10;
const BEYOND_BYTES: u64 = 192 << 10;

fn pace(seed: u64, disk: impl Fn(&mut SplitMix64) -> SimulatedOptions) {
    let mut random = SplitMix64::new(seed);
    let commits = 400 + random.below(800) as usize;
    let large = *pick(&mut random, &[2, 20]);
    let history = History::new(seed, Profile { commits, large, keys: 300, ..Profile::default() });
    let options = fixed_options(&mut random).retention(retention(&mut random));
    let options = free_options(&mut random, options);
    let folder = SimulatedFolder::new();
    let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
    let (mut merged, mut most) = (0, 0);
    runner.advance_with(u64::MAX / 2, |runner| {
        let picture = runner.shard.picture();
        for carry in picture.carries.iter().filter(|carry| carry.kind != CarryKind::Spill) {
            assert!(picture.newest < carry.deadline, "{carry:?} at commit {}", picture.newest);
        }
        let bytes = picture.merged_bytes - merged;
        merged = picture.merged_bytes;
        most = most.max(bytes);
        // Two turns at most between two looks, each with its slice.
        assert!(bytes <= 2 * (SLICE_BYTES + BEYOND_BYTES), "{bytes} bytes merged in a turn");
    });
    runner.settle();
    runner.check();
    assert!(most > 0);
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
