//! Scans that take long: they leave their shard to others, keep their place between pages, and see one state
//! whatever is committed, merged, renamed or dropped meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::limits::{SCAN_ENTRIES_PER_TURN, WALKS_KEPT_MAX};
use quipu::simulation::{Left, SimulatedShard};
use quipu::{Batch, Bytes, Directory, LocalScan, Options, Retention, Scan};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a scan has yet to give.
type Expected = VecDeque<(Vec<u8>, Bytes)>;

enum Scanning {
    Local(LocalScan),
    Remote(Scan),
}

type Step<'a> = Pin<Box<dyn Future<Output = quipu::Result<Option<(Bytes, Bytes)>>> + 'a>>;

impl Scanning {
    fn step(&mut self, back: bool) -> Step<'_> {
        match (self, back) {
            (Scanning::Local(scan), false) => Box::pin(scan.next()),
            (Scanning::Local(scan), true) => Box::pin(scan.next_back()),
            (Scanning::Remote(scan), false) => Box::pin(scan.next()),
            (Scanning::Remote(scan), true) => Box::pin(scan.next_back()),
        }
    }
}

/// A scan of a directory's newest state: from here or through the mailbox, with a snapshot or without.
fn scan(shard: &mut SimulatedShard, directory: &Directory, kind: u64) -> Scanning {
    match kind % 4 {
        0 => Scanning::Local(shard.local().iter(directory).unwrap()),
        1 => Scanning::Local(shard.local().snapshot().iter(directory).unwrap()),
        2 => Scanning::Remote(directory.iter()),
        _ => {
            let engine = shard.engine().clone();
            let snapshot = shard.run(engine.snapshot(directory)).unwrap();
            Scanning::Remote(snapshot.iter(directory).unwrap())
        }
    }
}

const DELETED: usize = 200_000;

/// A directory with very many deletes between two entries.
fn desert(random: &mut SplitMix64) -> (SimulatedShard, Directory, SimulatedFolder) {
    let options = Options::new()
        .shards(1)
        .flush_bytes(1 << 20)
        .log_file_bytes(4 << 20)
        .retention(Retention::Forever)
        .cache_bytes(if random.chance(50) { 0 } else { 64 << 20 });
    let folder = SimulatedFolder::new();
    let disk = SimulatedOptions { complete_percent: 90, ..disk(random) };
    let mut shard = SimulatedShard::open(&folder, disk, &options).unwrap();
    let directory = shard.engine().directory("desert").unwrap();
    shard.run(directory.put("a", "first")).unwrap();
    shard.run(directory.put("z", "last")).unwrap();
    (shard, directory, folder)
}

/// Puts what is to be deleted, and deletes it. All history is retained, so the deletes stay.
fn put_and_delete(shard: &mut SimulatedShard, directory: &Directory) {
    for delete in [false, true] {
        for from in (0..DELETED).step_by(4000) {
            let mut batch = Batch::new();
            for number in from..from + 4000 {
                let key = format!("m{number:06}");
                if delete {
                    batch.delete(directory, key)
                } else {
                    batch.put(directory, key, "")
                };
            }
            let engine = shard.engine().clone();
            shard.run(engine.commit(batch)).unwrap();
        }
    }
}

/// However much lies between two entries of a scan, deleted or too new for it, a turn looks at a bounded number;
/// and commits go on meanwhile.
#[test]
fn scans_leave_the_shard_to_others() {
    let mut random = SplitMix64::new(7);
    let (mut shard, directory, _folder) = desert(&mut random);
    let engine = shard.engine().clone();
    let mut scans: Vec<(Scanning, bool, usize)> = Vec::new();
    for kind in [1, 3] {
        // All below is too new for these; of most files and tables they see that at once.
        scans.push((scan(&mut shard, &directory, kind), kind == 3, 0));
    }
    put_and_delete(&mut shard, &directory);
    for kind in 0..4 {
        scans.push((scan(&mut shard, &directory, kind), kind >= 2, DELETED));
    }
    for (mut scan, back, between) in scans {
        shard.settle();
        let got: Rc<RefCell<Vec<Bytes>>> = Rc::default();
        let over: Rc<RefCell<Option<u64>>> = Rc::default();
        let (all, end) = (got.clone(), over.clone());
        shard.spawn(async move {
            while let Some((key, _)) = scan.step(back).await.unwrap() {
                all.borrow_mut().push(key);
            }
            *end.borrow_mut() = Some(0);
        });
        let commits: Rc<RefCell<u64>> = Rc::default();
        let (done, beside) = (commits.clone(), engine.directory("beside").unwrap());
        let (local, over_too) = (shard.local(), over.clone());
        shard.spawn(async move {
            while over_too.borrow().is_none() {
                local.put(&beside, "key", "value").await.unwrap();
                *done.borrow_mut() += 1;
            }
        });
        let mut turns = 0;
        let began = shard.entries_scanned();
        while over.borrow().is_none() {
            let before = shard.entries_scanned();
            let left = shard.turn();
            let examined = shard.entries_scanned() - before;
            assert!(examined <= SCAN_ENTRIES_PER_TURN as u64, "{examined} entries in one turn");
            turns += u64::from(examined > 0);
            assert_ne!(left, Left::Nothing, "the scan waits, and nobody wakes it");
        }
        let examined = shard.entries_scanned() - began;
        assert!(examined >= between as u64, "the entries in between count: {examined}");
        assert!(turns >= examined / SCAN_ENTRIES_PER_TURN as u64);
        assert!(between == 0 || *commits.borrow() > 5, "commits go on: {commits:?}");
        let mut keys = got.take();
        if back {
            keys.reverse();
        }
        assert_eq!(keys, ["a", "z"]);
    }
}

/// A scan looks no further than its bound, whatever lies behind.
#[test]
fn scans_stop_at_their_bounds() {
    let mut random = SplitMix64::new(8);
    let (mut shard, directory, _folder) = desert(&mut random);
    put_and_delete(&mut shard, &directory);
    shard.settle();
    for kind in 0..4u64 {
        let began = shard.entries_scanned();
        let (low, high, keys) = match kind % 2 {
            0 => (Bound::Unbounded, Bound::Excluded("m000003"), ["a"]),
            _ => (Bound::Excluded("m199996"), Bound::Unbounded, ["z"]),
        };
        let range = (low.map(str::as_bytes), high.map(str::as_bytes));
        let got = if kind < 2 {
            let scan = shard.local().range::<&[u8]>(&directory, range).unwrap();
            let scan = if kind % 2 == 1 { scan.reverse() } else { scan };
            shard.run(scan.collect()).unwrap()
        } else {
            let scan = directory.range::<&[u8]>(range);
            let scan = if kind % 2 == 1 { scan.reverse() } else { scan };
            shard.run(scan.collect()).unwrap()
        };
        let got: Vec<Bytes> = got.into_iter().map(|(key, _)| key).collect();
        assert_eq!(got, keys);
        let examined = shard.entries_scanned() - began;
        assert!(examined <= 12, "{examined} entries looked at for one, and three deletes of something");
    }
}

/// Several scans are under way at once, read from both ends a few entries at a time, now and then given up in the
/// middle of a step or for good, while commits, carries, renames and drops go on.
#[test]
fn scans_keep_their_place_and_their_state() {
    for_seeds(24, |seed| {
        let mut random = SplitMix64::new(seed);
        let keys = *pick(&mut random, &[200, 1500]);
        let moves = *pick(&mut random, &[0, 2, 10]);
        let commits = 900 + random.below(900) as usize;
        let large = *pick(&mut random, &[0, 10]);
        let history = History::new(seed, Profile { commits, keys, moves, large, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        let mut scans: Vec<(Scanning, Expected)> = Vec::new();
        let mut kept_most = 0;
        while !runner.is_over() {
            runner.advance(1 + random.below(25));
            if scans.len() < 5 && random.chance(60) {
                // What is read at the first step must be what is newest now.
                runner.catch_up();
                let path = *pick(&mut random, &PATHS);
                let directory = runner.shard.engine().directory(path).unwrap();
                let model = runner.history.state(runner.shard.newest()).map(path);
                let mut scanning = scan(&mut runner.shard, &directory, random.next_u64());
                let mut expected: Expected =
                    model.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect();
                let got = runner.shard.run(scanning.step(false)).unwrap();
                let got = got.map(|(key, value)| (key.to_vec(), value));
                assert_eq!(got, expected.pop_front());
                scans.push((scanning, expected));
            }
            if scans.is_empty() {
                continue;
            }
            let which = random.below(scans.len() as u64) as usize;
            let (scanning, expected) = &mut scans[which];
            let mut over = false;
            for _ in 0..random.below(120) {
                let back = random.chance(40);
                if random.chance(40) {
                    // Given up where it has to wait, and asked again.
                    let mut step = scanning.step(back);
                    for _ in 0..1 + random.below(3) {
                        let polled = step.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        if let Poll::Ready(got) = polled {
                            let got = got.unwrap().map(|(key, value)| (key.to_vec(), value));
                            let wanted = if back { expected.pop_back() } else { expected.pop_front() };
                            assert_eq!(got, wanted);
                            break;
                        }
                        for _ in 0..random.below(6) {
                            runner.shard.turn();
                        }
                    }
                    continue;
                }
                let wanted = if back { expected.pop_back() } else { expected.pop_front() };
                let got = runner.shard.run(scanning.step(back)).unwrap();
                over = got.is_none();
                assert_eq!(got.map(|(key, value)| (key.to_vec(), value)), wanted);
                if over {
                    break;
                }
            }
            if over || random.chance(5) {
                scans.swap_remove(which);
            }
            let stats = runner.shard.engine().stats();
            kept_most = kept_most.max(runner.shard.run(stats).unwrap().shards[0].walks_kept);
        }
        runner.settle();
        assert!(kept_most <= 10, "two for each scan");
        for (scanning, expected) in &mut scans {
            while let Some(wanted) = expected.pop_front() {
                let (key, value) = runner.shard.run(scanning.step(false)).unwrap().unwrap();
                assert_eq!((key.to_vec(), value), wanted);
            }
            assert!(runner.shard.run(scanning.step(false)).unwrap().is_none());
        }
        drop(scans);
        runner.settle();
        let stats = runner.shard.engine().stats();
        let stats = &runner.shard.run(stats).unwrap().shards[0];
        assert_eq!((stats.walks_kept, stats.snapshots), (0, 0), "left by scans that were dropped");
        runner.check();
    });
}

/// A step that is given up half way, whatever became of its page, loses nothing.
#[test]
fn steps_may_be_given_up() {
    for_seeds(8, |seed| {
        let mut random = SplitMix64::new(seed);
        let options = fixed_options(&mut random).flush_bytes(64 << 10).log_file_bytes(1 << 20);
        let options = options.cache_bytes(*pick(&mut random, &[0, 1 << 20])).memtable_bytes(1 << 20);
        let folder = SimulatedFolder::new();
        let mut shard = SimulatedShard::open(&folder, disk(&mut random), &options).unwrap();
        let directory = shard.engine().directory("d").unwrap();
        const KEYS: u32 = 5000;
        for from in (0..KEYS).step_by(500) {
            let mut batch = Batch::new();
            for number in from..from + 500 {
                batch.put(&directory, format!("{number:04}"), [7; 20]);
            }
            let engine = shard.engine().clone();
            shard.run(engine.commit(batch)).unwrap();
        }
        let mut scanning = scan(&mut shard, &directory, seed);
        let mut expected: VecDeque<String> = (0..KEYS).map(|number| format!("{number:04}")).collect();
        let other_percent = *pick(&mut random, &[0, 50]);
        while !expected.is_empty() {
            let back = random.chance(other_percent);
            let mut got = None;
            for _ in 0..random.below(3) {
                let mut step = scanning.step(back);
                if let Poll::Ready(done) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    got = Some(done);
                    break;
                }
                for _ in 0..random.below(8) {
                    shard.turn();
                }
            }
            let got = got.unwrap_or_else(|| shard.run(scanning.step(back))).unwrap();
            let wanted = if back { expected.pop_back() } else { expected.pop_front() };
            let (key, _) = got.expect("as many as were put");
            assert_eq!(Some(&key[..]), wanted.as_ref().map(|key| key.as_bytes()));
        }
        assert!(shard.run(scanning.step(false)).unwrap().is_none());
    });
}

/// More scans than are kept: all come to their end, and what is kept is bounded and goes with them.
#[test]
fn few_walks_are_kept() {
    let mut random = SplitMix64::new(3);
    let options = fixed_options(&mut random);
    let options = free_options(&mut random, options);
    let mut shard = SimulatedShard::open(&SimulatedFolder::new(), disk(&mut random), &options).unwrap();
    let directory = shard.engine().directory("d").unwrap();
    const KEYS: u64 = 300;
    for number in 0..KEYS {
        shard.run(directory.put(format!("{number:03}"), number.to_be_bytes())).unwrap();
    }
    let mut scans: Vec<Scan> = (0..WALKS_KEPT_MAX + 20).map(|_| directory.iter()).collect();
    let kept = |shard: &mut SimulatedShard| {
        let stats = shard.engine().stats();
        shard.run(stats).unwrap().shards[0].walks_kept
    };
    for scan in &mut scans {
        shard.run(scan.next()).unwrap().unwrap();
    }
    assert_eq!(kept(&mut shard), WALKS_KEPT_MAX);
    for scan in &mut scans {
        for number in 1..KEYS - random.below(10) {
            let (key, value) = shard.run(scan.next()).unwrap().unwrap();
            assert_eq!(
                (&key[..], &value[..]),
                (format!("{number:03}").as_bytes(), &number.to_be_bytes()[..])
            );
        }
    }
    drop(scans);
    assert_eq!(kept(&mut shard), 0);
}
