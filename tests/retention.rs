//! Retention: every commit that is to be readable reads exactly as it was, before and after carries, crashes and
//! changes of the option; any other is refused with the nearest that can be read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::{self, Commit, Divisor};
use quipu::{Error, Retention};

/// What the option says, counted by hand. Only where it never changed.
fn promised(retention: Retention, divisor: Divisor, asked: Commit, newest: Commit) -> bool {
    let aligned = |level| asked.0.is_multiple_of(divisor.pow(level));
    let last = |count: u64| asked.0 + count > newest.0;
    asked <= newest
        && (asked == newest
            || match retention {
                Retention::Forever => true,
                Retention::None => false,
                Retention::Level(level) => aligned(level),
                Retention::Last(count) => last(count),
                Retention::LastAndLevel(count, level) => last(count) || aligned(level),
            })
}

/// Asks for commits near boundaries and at random, and compares what comes with the model.
fn check(runner: &mut Runner, random: &mut SplitMix64, history: &levels::History) {
    // Carries may go on while it looks, commits must not.
    runner.catch_up();
    let newest = runner.shard.newest();
    let picture = runner.shard.picture();
    let divisor = picture.shape.divisor;
    assert_eq!(&picture.history, history);
    let mut commits = vec![Commit::ZERO, newest, newest.next(), Commit(newest.0.saturating_sub(1))];
    for _ in 0..8 {
        let commit = Commit(random.below(newest.0 + 2));
        commits.extend([commit, history.nearest(divisor, commit, newest)]);
    }
    for asked in commits {
        let retained = |commit| history.retained(divisor, commit, newest);
        match runner.shard.local().as_of(asked) {
            Ok(snapshot) => {
                assert!(retained(asked), "{asked} is answered, and not retained at {newest}");
                assert_eq!(snapshot.commit(), asked);
                let steps = runner.history.clone();
                check_state(&mut runner.shard, &snapshot, steps.state(asked));
            }
            Err(Error::NotRetained { asked: said, nearest, .. }) => {
                assert_eq!(said, asked);
                assert!(!retained(asked), "{asked} is retained at {newest}, and refused");
                let below = (0..=asked.0.min(newest.0)).rev().map(Commit).find(|&commit| retained(commit));
                let above = || (asked.0..=newest.0).map(Commit).find(|&commit| retained(commit));
                assert_eq!(nearest, below.or_else(above), "the nearest to {asked} at {newest}");
            }
            Err(error) => panic!("as of {asked}: {error}"),
        }
    }
    // And through the mailbox.
    let engine = runner.shard.engine().clone();
    let directory = engine.directory("r/a").unwrap();
    let told = runner.shard.run(engine.retained(&directory)).unwrap();
    assert_eq!((told.newest(), told.retention()), (newest, history.retention));
    for commit in (0..newest.0 + 2).map(Commit) {
        assert_eq!(told.contains(commit), history.retained(divisor, commit, newest), "{commit} at {newest}");
    }
    let asked = Commit(random.below(newest.0 + 1));
    let snapshot = runner.shard.run(engine.as_of(&directory, asked));
    assert_eq!(snapshot.is_ok(), history.retained(divisor, asked, newest), "{asked} at {newest}");
    if let Ok(snapshot) = snapshot {
        let scan = snapshot.iter(&directory).unwrap();
        let got = runner.shard.run(scan.collect()).unwrap();
        let expected = runner.history.state(asked).map("r/a");
        assert!(
            got.iter().map(|(key, value)| (&key[..], value)).eq(expected.iter().map(|(k, v)| (&k[..], v)))
        );
    }
}

fn profile(random: &mut SplitMix64) -> Profile {
    let commits = 250 + random.below(500) as usize;
    let moves = *pick(random, &[2, 10, 20]);
    Profile { commits, keys: 25, moves, large: 1, ..Profile::default() }
}

#[test]
fn retained_commits_read_as_they_were() {
    for_seeds(20, |seed| {
        let mut random = SplitMix64::new(seed);
        let profile = profile(&mut random);
        let steps = History::new(seed, profile);
        let retention = retention(&mut random);
        let history = levels::History::new(retention);
        let options = fixed_options(&mut random).retention(retention);
        let folder = SimulatedFolder::new();
        loop {
            let options = free_options(&mut random, options.clone());
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &steps);
            let divisor = runner.shard.picture().shape.divisor;
            check(&mut runner, &mut random, &history);
            for _ in 0..6 {
                runner.advance(1 + random.below(40));
                if random.chance(30) {
                    runner.settle();
                }
                check(&mut runner, &mut random, &history);
                let newest = runner.shard.newest();
                for commit in (0..=newest.0 + 1).map(Commit) {
                    let retained = history.retained(divisor, commit, newest);
                    assert_eq!(
                        retained,
                        promised(retention, divisor, commit, newest),
                        "{commit} at {newest}"
                    );
                }
            }
            if runner.is_over() {
                runner.settle();
                check(&mut runner, &mut random, &history);
                break;
            }
            match random.below(3) {
                0 => runner.shard.close().unwrap(),
                1 => runner.shard.kill(),
                _ => drop(runner.crash(&mut random)),
            }
        }
    });
}

#[test]
fn a_change_keeps_what_both_retain() {
    for_seeds(24, |seed| {
        let mut random = SplitMix64::new(seed);
        let profile = profile(&mut random);
        let steps = History::new(seed, profile);
        let mut now = retention(&mut random);
        let mut history = levels::History::new(now);
        let options = fixed_options(&mut random);
        let folder = SimulatedFolder::new();
        loop {
            // Left out, the option stays as it is.
            let mut options = free_options(&mut random, options.clone());
            let fresh = folder.files().is_empty();
            if fresh || history.retention != now || random.chance(50) {
                options = options.retention(now);
            }
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &steps);
            if !fresh {
                history = history.change(now, runner.began);
            }
            check(&mut runner, &mut random, &history);
            runner.advance(1 + random.below(200));
            check(&mut runner, &mut random, &history);
            if random.chance(50) {
                runner.settle();
                check(&mut runner, &mut random, &history);
            }
            if runner.is_over() {
                runner.settle();
                check(&mut runner, &mut random, &history);
                break;
            }
            match random.below(3) {
                0 => runner.shard.close().unwrap(),
                1 => runner.shard.kill(),
                _ => drop(runner.crash(&mut random)),
            }
            if random.chance(60) {
                now = retention(&mut random);
            }
        }
    });
}
