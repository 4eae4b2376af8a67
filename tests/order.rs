//! Order: commits are numbered 1, 2, 3 … as they come, acknowledged in that order and only when durable; and
//! after any crash the shard holds a prefix of them that includes all that was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::Commit;

/// Numbers are without gaps (the runner asserts it), acknowledgements in order and never ahead of the disk.
#[test]
fn commits_are_acknowledged_in_order_and_when_durable() {
    for_seeds(12, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 400, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        let mut looked = 0;
        runner.advance_with(u64::MAX / 2, |runner| {
            runner.shard.poll_tasks();
            let mut acknowledged = runner.acknowledged.borrow_mut();
            // Tasks that wake in one turn may be polled in any order.
            acknowledged[looked..].sort();
            for (at, commit) in acknowledged.iter().enumerate().skip(looked) {
                assert_eq!(*commit, Commit(at as u64 + 1), "acknowledged out of order");
                assert!(*commit <= runner.shard.durable(), "{commit} is acknowledged, and not durable");
            }
            looked = acknowledged.len();
        });
        runner.catch_up();
        assert_eq!(runner.acknowledged(), history.commits());
        runner.check();
    });
}

/// A crash at a random moment, again and again.
#[test]
fn a_crash_leaves_a_prefix_with_all_that_was_acknowledged() {
    for_seeds(20, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 500, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let mut ended: Option<Ended> = None;
        loop {
            let options = free_options(&mut random, options.clone());
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
            if let Some(Ended { acknowledged, submitted }) = ended {
                let newest = runner.shard.newest().0;
                assert!(newest >= acknowledged, "{acknowledged} was acknowledged, {newest} is there");
                assert!(newest <= submitted, "{submitted} was the last submitted, {newest} is there");
            }
            runner.check();
            if runner.is_over() {
                runner.settle();
                runner.check();
                break;
            }
            runner.advance(1 + random.below(120));
            for _ in 0..random.below(20) {
                runner.shard.turn();
            }
            ended = Some(runner.crash(&mut random));
        }
    });
}
