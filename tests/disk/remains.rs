//! What a power failure may leave, chosen instead of drawn: the choices are the same as those of a power failure.

use crate::harness::*;
use quipu::disk::simulated::{Fate, Remains, SplitMix64, effects};
use quipu::disk::*;
use std::collections::BTreeSet;

/// A disk after some writes, renames and flushes, with more of them in flight.
fn scene(seed: u64) -> (SimulatedFolder, Simulated) {
    let mut random = SplitMix64::new(seed);
    let folder = SimulatedFolder::new();
    let mut disk = Simulated::new(&folder, SimulatedOptions { seed, in_order: true, ..Default::default() });
    let files = ["a", "b"].map(|name| create(&mut disk, name, false));
    for at in 0..8 {
        let file = files[random.below(2) as usize];
        // Of renames in flight at once the order would not be certain.
        let op = match random.below(if at > 5 { 2 } else { 7 } + 2) {
            0 => Op::Sync { file },
            1 => Op::SyncFolder,
            4 => Op::Rename { from: "a".into(), to: "c".into() },
            5 => Op::Rename { from: "c".into(), to: "a".into() },
            _ => write(file, random.below(3), &[at + 1]),
        };
        if at < 5 {
            // A rename of what is not there fails.
            drop(run_all(&mut disk, vec![op]));
        } else {
            let apart = match op {
                Op::Write { file, buf, .. } => Op::Write { file, buf, offset: (4 + u64::from(at)) << 12 },
                other => other,
            };
            disk.start(u64::from(at), apart);
        }
    }
    disk.submit();
    (folder, disk)
}

fn outcomes(remains: &Remains) -> BTreeSet<u128> {
    let fate = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
    let subsets = 0..1u32 << remains.changes();
    subsets
        .map(|mask| {
            let fates: Vec<Fate> = (0..remains.changes()).map(|at| fate(mask >> at & 1 == 1)).collect();
            remains.folder(&fates).digest()
        })
        .collect()
}

#[test]
fn all_subsets_are_what_a_power_failure_may_leave() {
    let (mut untorn, mut reached, mut possible) = (0, 0, 0);
    for seed in 0..40 {
        let (folder, _disk) = scene(seed);
        let before = folder.digest();
        let remains = folder.remains();
        let outcomes = outcomes(&remains);
        assert_eq!(folder.digest(), before, "seed {seed}: a look has changed something");
        let mut seen = BTreeSet::new();
        for crash in 0..150 {
            let (folder, _disk) = scene(seed);
            folder.crash(&mut SplitMix64::new(crash));
            if folder.effects().contains_key(effects::CRASH_TORN) {
                continue;
            }
            untorn += 1;
            assert!(outcomes.contains(&folder.digest()), "seed {seed}, crash {crash}");
            seen.insert(folder.digest());
        }
        (reached, possible) = (reached + seen.len(), possible + outcomes.len());
    }
    assert!(untorn > 500 && reached * 4 > possible, "{untorn} untorn, {reached} of {possible} reached");
}

/// Where only the process ends all can be read, and none of it is durable.
#[test]
fn the_end_of_a_process_leaves_all_of_it_to_be_lost_later() {
    let mut lost = 0;
    for seed in 0..40 {
        let (folder, _disk) = scene(seed);
        let remains = folder.remains();
        let all = remains.folder(&vec![Fate::Kept; remains.changes()]);
        let killed = remains.folder_of_killed();
        assert_eq!(killed.files(), all.files(), "seed {seed}");
        assert_eq!(killed.durable_files(), folder.durable_files(), "seed {seed}");
        assert_eq!(killed.remains().folder(&[]).files(), remains.folder(&[]).files(), "seed {seed}");
        lost += u32::from(killed.durable_files() != killed.files());
        let mut disk = Simulated::new(&killed, SimulatedOptions { seed, ..Default::default() });
        for name in killed.names() {
            let file = reopen(&mut disk, &name, false);
            must(&mut disk, Op::Sync { file });
        }
        must(&mut disk, Op::SyncFolder);
        assert_eq!(killed.durable_files(), all.files(), "seed {seed}");
    }
    assert!(lost > 10, "{lost}");
}

/// A torn write is what it writes over, in part.
#[test]
fn a_write_may_be_torn() {
    let mut between = 0;
    for seed in 0..40 {
        let (folder, _disk) = scene(seed);
        let remains = folder.remains();
        let outcomes = outcomes(&remains);
        for at in (0..remains.changes()).filter(|&at| remains.is_write(at)) {
            let mut fates = vec![Fate::Kept; remains.changes()];
            fates[at] = Fate::Torn(seed);
            between += u32::from(!outcomes.contains(&remains.folder(&fates).digest()));
        }
    }
    assert!(between > 20, "{between}");
}
