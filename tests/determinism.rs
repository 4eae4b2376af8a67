//! Determinism: the bytes of every file depend on the commits and on the options fixed at creation only: not on
//! timing, on how commits are grouped into log writes, on memory, on crashes and restarts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::simulation::SimulatedShard;
use quipu::{Options, SegmentInfo, SegmentKind};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Every file that was ever live in some run, by name and level (of a spill: its tier): its description, bytes and run.
#[derive(Default)]
struct Seen {
    files: BTreeMap<(String, u8), (SegmentInfo, Vec<u8>, u64)>,
    compared: usize,
}

impl Seen {
    /// Takes in what is live now; what was seen under the same name before must be the same.
    fn look(&mut self, shard: &SimulatedShard, folder: &SimulatedFolder, known: &mut Vec<String>, run: u64) {
        let live = shard.segments();
        if live.iter().all(|info| known.contains(&info.file)) {
            return;
        }
        let contents = folder.files();
        for info in live {
            if known.contains(&info.file) {
                continue;
            }
            known.push(info.file.clone());
            let bytes = contents[&info.file].clone();
            assert_eq!(bytes.len() as u64, info.bytes, "the length of {}", info.file);
            match self.files.get(&(info.file.clone(), info.level.0)) {
                None => drop(self.files.insert((info.file.clone(), info.level.0), (info, bytes, run))),
                Some((before, same, other)) => {
                    assert_eq!(before, &info, "run {run} against run {other}");
                    assert!(*same == bytes, "{} differs in its bytes, run {run} against {other}", info.file);
                    self.compared += 1;
                }
            }
        }
    }
}

/// The files that the arithmetic asks for.
fn lasting(shard: &SimulatedShard) -> Vec<SegmentInfo> {
    shard.segments().into_iter().filter(|info| info.kind != SegmentKind::Spill).collect()
}

/// One run of a history, in one go or with crashes, from one seed of timing.
fn run(
    history: &Rc<History>,
    fixed: &Options,
    timing: u64,
    crashes: u64,
    seen: &mut Seen,
) -> Vec<SegmentInfo> {
    let mut random = SplitMix64::new(timing);
    let folder = SimulatedFolder::new();
    let mut left = crashes;
    loop {
        let options = free_options(&mut random, fixed.clone());
        let mut runner = Runner::open(&folder, disk(&mut random), &options, history);
        let mut known = Vec::new();
        let commits =
            if left == 0 { u64::MAX / 2 } else { 1 + random.below(2 * history.commits() / (crashes + 1)) };
        runner.advance_with(commits, |runner| seen.look(&runner.shard, &folder, &mut known, timing));
        if left > 0 {
            left -= 1;
            for _ in 0..random.below(60) {
                runner.shard.turn();
                seen.look(&runner.shard, &folder, &mut known, timing);
            }
            match random.below(4) {
                0 => runner.shard.close().unwrap(),
                1 => runner.shard.kill(),
                _ => drop(runner.crash(&mut random)),
            }
            continue;
        }
        runner.settle();
        seen.look(&runner.shard, &folder, &mut known, timing);
        runner.check();
        return lasting(&runner.shard);
    }
}

#[test]
fn the_same_commits_give_the_same_files() {
    for_seeds(14, |seed| {
        let mut random = SplitMix64::new(seed);
        let commits = 200 + random.below(700) as usize;
        let moves = *pick(&mut random, &[2, 10, 25]);
        let history = History::new(seed, Profile { commits, moves, ..Profile::default() });
        let fixed = fixed_options(&mut random).retention(retention(&mut random));
        let mut seen = Seen::default();
        let first = run(&history, &fixed, 100, 0, &mut seen);
        for (timing, crashes) in [(101, 0), (102, 3), (103, 12)] {
            let again = run(&history, &fixed, timing, crashes, &mut seen);
            assert_eq!(first, again, "the files after {commits} commits, in run {timing}");
        }
        assert!(seen.compared > 0);
    });
}
