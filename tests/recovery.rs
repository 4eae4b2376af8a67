//! Recovery: after a crash at any moment, the recovery itself included, a prefix with all that was acknowledged is
//! there, interrupted carries finish, nothing is left over; a clean close keeps everything; what a failing disk
//! refuses is refused to whoever asked.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::Durability;
use quipu::disk::simulated::{Fault, FaultSite, OpKind, SplitMix64};
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::levels::Commit;
use quipu::simulation::{Left, SimulatedShard};
use quipu::{Error, Options};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Opens, with the power failing several times on the way.
fn open_through_crashes(
    folder: &SimulatedFolder,
    random: &mut SplitMix64,
    options: &Options,
    mut crashes: u64,
) -> SimulatedShard {
    loop {
        let mut opening = SimulatedShard::begin(folder, disk(random), options).unwrap();
        let mut steps = if crashes == 0 { u64::MAX } else { random.below(120) };
        while steps > 0 {
            if let Some(opened) = opening.step() {
                let mut shard = opened.unwrap_or_else(|error| panic!("the shard does not open: {error}"));
                if crashes == 0 {
                    return shard;
                }
                for _ in 0..random.below(40) {
                    shard.turn();
                }
                shard.crash(random);
                break;
            }
            steps -= 1;
        }
        if steps == 0 {
            match random.chance(70) {
                true => folder.crash(random),
                false => drop(opening), // Only the process ends.
            }
        }
        crashes -= 1;
    }
}

/// The names of segments that the folder holds, and that it should.
fn check_no_orphans(shard: &SimulatedShard, folder: &SimulatedFolder) {
    let ours = |name: &String| ["segment-", "spill-", "base-"].iter().any(|kind| name.starts_with(kind));
    let there: BTreeSet<String> = folder.files().into_keys().filter(ours).collect();
    let live: BTreeSet<String> = shard.segments().into_iter().map(|info| info.file).collect();
    assert_eq!(there, live, "files of segments, there and live");
}

#[test]
fn a_shard_recovers_from_crashes_of_its_recovery() {
    for_seeds(24, |seed| {
        let mut random = SplitMix64::new(seed);
        let commits = 200 + random.below(500) as usize;
        let history = History::new(seed, Profile { commits, moves: 10, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let mut ended = Ended { acknowledged: 0, submitted: 0 };
        loop {
            let options = free_options(&mut random, options.clone());
            let crashes = random.below(4);
            let shard = open_through_crashes(&folder, &mut random, &options, crashes);
            let newest = shard.newest().0;
            assert!(newest >= ended.acknowledged, "{ended:?}, and {newest} is there");
            assert!(newest <= ended.submitted, "{ended:?}, and {newest} is there");
            let mut runner = Runner::on(shard, &history);
            runner.check();
            if random.chance(30) {
                runner.settle();
                check_no_orphans(&runner.shard, &folder);
            }
            runner.advance(1 + random.below(150));
            if runner.is_over() {
                runner.settle();
                check_no_orphans(&runner.shard, &folder);
                runner.check();
                break;
            }
            for _ in 0..random.below(60) {
                runner.shard.turn();
            }
            ended = runner.crash(&mut random);
        }
    });
}

#[test]
fn a_closed_shard_is_as_it_was() {
    for_seeds(16, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 400, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let mut closed_at = 0;
        loop {
            let options = free_options(&mut random, options.clone());
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
            assert_eq!(runner.began, Commit(closed_at));
            runner.check();
            if runner.is_over() {
                break;
            }
            if random.chance(50) {
                runner.durability = Some(BUFFERED);
            }
            runner.advance(1 + random.below(150));
            // What is still on its way when the shard closes is finished, buffered or not.
            closed_at = runner.submitted;
            if runner.route == Route::Local && random.chance(50) {
                runner.catch_up();
            }
            runner.shard.close().unwrap();
            assert!(runner.failed.borrow().iter().all(|error| matches!(error, Error::Closed)));
            if random.chance(50) {
                // Sealed: the power may fail now.
                folder.crash(&mut random);
            }
        }
    });
}

/// Buffered commits: a prefix survives, with all but the last moments in it; a barrier makes all durable.
#[test]
fn a_crash_takes_only_the_last_buffered_commits() {
    let within = Duration::from_millis(5);
    // What the disk may need for the writes then in flight, with all else that it has to do.
    let slack = Duration::from_millis(30);
    for_seeds(20, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 600, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let (mut least, mut submitted) = (0, 0);
        loop {
            let options = free_options(&mut random, options.clone());
            let disk = SimulatedOptions { complete_percent: 60, ..disk(&mut random) };
            let mut runner = Runner::open(&folder, disk, &options, &history);
            assert!(runner.began.0 >= least && runner.began.0 <= submitted, "{:?} {least}", runner.began);
            runner.check();
            if runner.is_over() {
                break;
            }
            runner.durability = Some(Durability::Buffered { within });
            let clock = folder.clock();
            let mut acknowledged: Vec<u64> = Vec::new(); // When, by commit of this run.
            runner.advance_with(1 + random.below(200), |runner| {
                acknowledged.resize(runner.acknowledged.borrow().len(), clock.now());
            });
            if random.chance(30) {
                let all = runner.submitted;
                runner.catch_up();
                let barrier = runner.shard.engine().barrier();
                let local = runner.shard.local();
                match random.chance(50) {
                    true => runner.shard.run(barrier).unwrap(),
                    false => runner.shard.run(local.barrier()).unwrap(),
                }
                assert!(runner.shard.durable().0 >= all, "durable after a barrier");
                least = all;
            } else {
                for _ in 0..random.below(100) {
                    runner.shard.turn();
                }
                let limit = clock.now().saturating_sub((within + slack).as_nanos() as u64);
                let old = acknowledged.iter().filter(|&&at| at < limit).count();
                least = runner.began.0 + old as u64;
            }
            submitted = runner.crash(&mut random).submitted;
        }
    });
}

const EIO: i32 = 5;

/// Operations that fail now and then: what is acknowledged is kept, what fails says so, and nothing else happens.
#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    for_seeds(30, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 300, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let mut ended = Ended { acknowledged: 0, submitted: 0 };
        let mut rounds = 0;
        loop {
            let options = free_options(&mut random, options.clone());
            let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
            let newest = runner.began.0;
            assert!(newest >= ended.acknowledged && newest <= ended.submitted, "{ended:?} {newest}");
            runner.check();
            rounds += 1;
            if rounds > 12 || runner.is_over() {
                runner.settle();
                check_no_orphans(&runner.shard, &folder);
                break;
            }
            let mut faults = SplitMix64::new(random.next_u64());
            let one_in = *pick(&mut random, &[30, 200, 1000]);
            folder.set_faults(move |_: &FaultSite| {
                let torn = faults.chance(30);
                (faults.below(one_in) == 0).then_some(if torn { Fault::Torn(EIO) } else { Fault::Fail(EIO) })
            });
            // One at a time, so that it is plain which commits have which numbers.
            let mut turns = 0u64;
            while runner.failed.borrow().is_empty() && !runner.is_over() && turns < 100_000 {
                runner.submit();
                while runner.failed.borrow().is_empty() && runner.acknowledged() < runner.submitted {
                    let left = runner.shard.turn();
                    assert!(
                        left != Left::Nothing
                            || runner.acknowledged() == runner.submitted
                            || !runner.failed.borrow().is_empty(),
                        "asleep: {:?}",
                        runner.shard
                    );
                    turns += 1;
                    assert!(turns < 1_000_000, "no end: {:?}", runner.shard);
                }
            }
            folder.clear_faults();
            runner.failed.borrow_mut().clear();
            ended = runner.crash(&mut random);
        }
    });
}

/// A full disk refuses commits and goes on when there is space: without a restart, nothing lost.
#[test]
fn a_full_disk_goes_on_when_there_is_space() {
    for_seeds(12, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 700, large: 10, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        runner.window = 1;
        let refusals = Rc::new(Cell::new(0));
        let mut turns = 0u64;
        while !runner.is_over() {
            let used: usize = folder.files().values().map(Vec::len).sum();
            let capacity = random.chance(30).then(|| used as u64 + random.below(100_000));
            folder.set_capacity(capacity);
            for _ in 0..random.below(80) {
                if runner.is_over() {
                    break;
                }
                runner.submit();
                while runner.failed.borrow().is_empty() && runner.acknowledged() < runner.submitted {
                    assert_ne!(runner.shard.turn(), Left::Closed);
                    turns += 1;
                    assert!(turns < 2_000_000, "no end, capacity {capacity:?}: {:?}", runner.shard);
                }
                let failed = runner.failed.borrow_mut().pop();
                if let Some(error) = failed {
                    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                    refusals.set(refusals.get() + 1);
                    assert_eq!(runner.shard.newest().0 + 1, runner.submitted, "refused, and not made");
                    runner.submitted -= 1;
                    assert!(capacity.is_some(), "there is space: {error}");
                    runner.check();
                    break;
                }
            }
            folder.set_capacity(None);
            // A second passes before what failed is tried again.
            folder.advance(2_000_000_000);
            if random.chance(30) {
                runner.shard.settle();
            }
        }
        runner.settle();
        runner.check();
        check_no_orphans(&runner.shard, &folder);
        runner.shard.close().unwrap();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        runner.settle();
        runner.check();
        check_no_orphans(&runner.shard, &folder);
    });
}

/// One bit of the log that is read wrongly, once: nothing acknowledged is cut off, whatever is told.
#[test]
fn a_bit_of_the_log_read_wrongly_once_cuts_nothing_off() {
    for_seeds(60, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 40, moves: 0, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        runner.advance(30);
        runner.catch_up();
        let ended = runner.crash(&mut random);
        // One of the bytes behind the header that mean something.
        let mut bytes: Vec<(String, u64)> = Vec::new();
        for (name, content) in folder.files().into_iter().filter(|(name, _)| name.starts_with("log-")) {
            let full = content.iter().enumerate().skip(4096).filter(|&(_, byte)| *byte != 0);
            bytes.extend(full.map(|(at, _)| (name.clone(), at as u64)));
        }
        let (name, at) = pick(&mut random, &bytes).clone();
        let xor = 1 << random.below(8);
        let mut struck = false;
        folder.set_faults(move |site: &FaultSite| {
            let covers = (site.offset..site.offset + site.bytes).contains(&at);
            let strikes = !struck && site.kind == OpKind::Read && site.name == name && covers;
            struck |= strikes;
            strikes.then(|| Fault::Flipped { offset: at - site.offset, xor })
        });
        match SimulatedShard::open(&folder, disk(&mut random), &options) {
            Ok(shard) => {
                assert!(shard.newest().0 >= ended.acknowledged, "{ended:?}: {:?}", shard.newest());
                shard.kill();
            }
            Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
        }
        folder.clear_faults();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        assert!(runner.began.0 >= ended.acknowledged);
        runner.check();
    });
}
