//! Alignment: every segment of a window holds exactly one window of its level, the base ends on a boundary of its
//! level, and spills are private to a window whose carry is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::{Commit, Level, Window};
use quipu::simulation::SimulatedShard;
use quipu::{CarryKind, SegmentKind};

fn check(shard: &SimulatedShard) {
    let picture = shard.picture();
    let divisor = picture.shape.divisor;
    let mut part_ends: Vec<Commit> = Vec::new();
    for info in shard.segments() {
        match info.kind {
            SegmentKind::Window => {
                let window = Window::ending_at(divisor, info.last, info.level);
                let span = window.map(|window| (window.span().first(), window.last()));
                assert_eq!(span, Some((info.first, info.last)), "{} is one window", info.file);
            }
            SegmentKind::Part => {
                assert_eq!(info.first, Commit(1), "{}", info.file);
                part_ends.push(info.last);
            }
            SegmentKind::Spill => {
                // Within the window that is open, or within one whose carry is in flight.
                let open = divisor.floor(picture.newest, picture.shape.flush_level);
                let carried = picture
                    .carries
                    .iter()
                    .any(|carry| carry.kind != CarryKind::Spill && info.last <= carry.due);
                assert!(info.first > open || carried, "{} is left behind: {picture:?}", info.file);
                let window = Window::containing(divisor, info.first, Level(picture.shape.flush_level.0));
                assert!(carried || info.last <= window.last(), "{} leaves its window", info.file);
            }
        }
    }
    // The base ends at its end; a fold in flight has parts that end where it will.
    part_ends.sort();
    part_ends.dedup();
    for end in &part_ends {
        let folds = picture.carries.iter().any(|carry| carry.kind == CarryKind::Fold && carry.due == *end);
        assert!(*end <= picture.base_end || folds, "a part ends at {end}: {picture:?}");
    }
    if let Some(level) = picture.shape.base_level {
        assert!(level >= picture.shape.flush_level);
        assert!(divisor.aligned(picture.shape.base_end, level), "the base ends off its level: {picture:?}");
    }
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
            check(&runner.shard);
            let picture = runner.shard.picture();
            let open = picture.shape.divisor.floor(picture.newest, picture.shape.flush_level);
            for info in runner.shard.segments() {
                assert!(info.kind != SegmentKind::Spill || info.first > open, "{} after settling", info.file);
            }
            break;
        }
    });
}
