//! Reads: whatever is committed, compacted or folded meanwhile, a read sees one commit's state, whole.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::levels::Commit;
use quipu::simulation::{SimulatedShard, Tuning};
use quipu::{Bytes, Directory, Error, Local, LocalScan, LocalSnapshot, Options, Retention, Scan, Snapshot};
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::ops::{Bound, ControlFlow};
use std::task::{Context, Waker};

/// A way to read.
enum View {
    Newest(Local),
    Snapshot(LocalSnapshot),
    RemoteNewest,
    RemoteSnapshot(Snapshot),
}

enum Scanning {
    Local(LocalScan),
    Remote(Scan),
}

impl Scanning {
    fn limit(self, entries: usize) -> Self {
        match self {
            Scanning::Local(scan) => Scanning::Local(scan.limit(entries)),
            Scanning::Remote(scan) => Scanning::Remote(scan.limit(entries)),
        }
    }

    fn reverse(self) -> Self {
        match self {
            Scanning::Local(scan) => Scanning::Local(scan.reverse()),
            Scanning::Remote(scan) => Scanning::Remote(scan.reverse()),
        }
    }

    /// The next entry, or, `borrowed`, a copy of it.
    async fn step(&mut self, back: bool, borrowed: bool) -> quipu::Result<Option<(Bytes, Bytes)>> {
        if borrowed {
            let entry = match (self, back) {
                (Scanning::Local(scan), false) => scan.next_ref().await?,
                (Scanning::Local(scan), true) => scan.next_back_ref().await?,
                (Scanning::Remote(scan), false) => scan.next_ref().await?,
                (Scanning::Remote(scan), true) => scan.next_back_ref().await?,
            };
            let copied = |(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            return Ok(entry.map(copied));
        }
        match (self, back) {
            (Scanning::Local(scan), false) => scan.next().await,
            (Scanning::Local(scan), true) => scan.next_back().await,
            (Scanning::Remote(scan), false) => scan.next().await,
            (Scanning::Remote(scan), true) => scan.next_back().await,
        }
    }
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl View {
    async fn get(&self, directory: &Directory, key: &[u8]) -> Option<Bytes> {
        match self {
            View::Newest(local) => local.get(directory, key).await,
            View::Snapshot(snapshot) => snapshot.get(directory, key).await,
            View::RemoteNewest => directory.get(key).await,
            View::RemoteSnapshot(snapshot) => snapshot.get(directory, key).await,
        }
        .unwrap()
    }

    async fn get_many(&self, directory: &Directory, keys: &[Vec<u8>]) -> Vec<Option<Bytes>> {
        match self {
            View::Newest(local) => local.get_many(directory, keys).await,
            View::Snapshot(snapshot) => snapshot.get_many(directory, keys).await,
            View::RemoteNewest => directory.get_many(keys).await,
            View::RemoteSnapshot(snapshot) => snapshot.get_many(directory, keys).await,
        }
        .unwrap()
    }

    async fn exists(&self, directory: &Directory) -> bool {
        match self {
            View::Newest(local) => local.exists(directory).await,
            View::Snapshot(snapshot) => snapshot.exists(directory).await,
            View::RemoteNewest => directory.exists().await,
            View::RemoteSnapshot(snapshot) => snapshot.exists(directory).await,
        }
        .unwrap()
    }

    fn range(&self, directory: &Directory, range: Range) -> quipu::Result<Scanning> {
        Ok(match self {
            View::Newest(local) => Scanning::Local(local.range(directory, range)?),
            View::Snapshot(snapshot) => Scanning::Local(snapshot.range(directory, range)?),
            View::RemoteNewest => Scanning::Remote(directory.range(range)),
            View::RemoteSnapshot(snapshot) => Scanning::Remote(snapshot.range(directory, range)?),
        })
    }

    fn prefix(&self, directory: &Directory, prefix: &[u8]) -> Scanning {
        match self {
            View::Newest(local) => Scanning::Local(local.prefix(directory, prefix).unwrap()),
            View::Snapshot(snapshot) => Scanning::Local(snapshot.prefix(directory, prefix).unwrap()),
            View::RemoteNewest => Scanning::Remote(directory.prefix(prefix)),
            View::RemoteSnapshot(snapshot) => Scanning::Remote(snapshot.prefix(directory, prefix).unwrap()),
        }
    }
}

fn bound(random: &mut SplitMix64, keys: u64) -> Bound<Vec<u8>> {
    let mut key = key(random, keys);
    if random.chance(20) {
        key.pop();
    }
    match random.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(key),
        _ => Bound::Included(key),
    }
}

fn is_reversed(range: &Range) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
            low > high
        }
    }
}

fn within(range: &Range, key: &[u8]) -> bool {
    (match &range.0 {
        Bound::Included(low) => key >= &low[..],
        Bound::Excluded(low) => key > &low[..],
        Bound::Unbounded => true,
    }) && (match &range.1 {
        Bound::Included(high) => key <= &high[..],
        Bound::Excluded(high) => key < &high[..],
        Bound::Unbounded => true,
    })
}

/// One random read through a view, compared with the model's state at its commit.
fn read(runner: &mut Runner, random: &mut SplitMix64, view: &View, at: Commit, keys: u64) {
    let history = runner.history.clone();
    let model = history.state(at);
    let path = *pick(random, &PATHS);
    let directory = runner.shard.engine().directory(path).unwrap();
    let map = model.map(path);
    match random.below(6) {
        0 => {
            let key = key(random, keys);
            let got = runner.shard.run(view.get(&directory, &key));
            assert_eq!(got.as_ref(), map.get(&key[..]), "{key:?} of {path} at {at}");
        }
        1 => {
            let count = if random.chance(10) { 200 } else { 30 };
            let keys: Vec<Vec<u8>> = (0..random.below(count)).map(|_| key(random, keys)).collect();
            let got = runner.shard.run(view.get_many(&directory, &keys));
            let expected: Vec<Option<Bytes>> = keys.iter().map(|key| map.get(&key[..]).cloned()).collect();
            assert_eq!(got, expected, "{keys:?} of {path} at {at}");
        }
        2 => {
            let exists = runner.shard.run(view.exists(&directory));
            assert_eq!(exists, model.exists(path), "whether {path} is at {at}");
        }
        kind => {
            let (scan, range) = if kind == 3 {
                let mut prefix = key(random, keys);
                prefix.truncate(random.below(4) as usize);
                let scan = view.prefix(&directory, &prefix);
                (scan, Err(prefix))
            } else {
                let range = (bound(random, keys), bound(random, keys));
                let reversed = is_reversed(&range);
                let mut scan = match view.range(&directory, range.clone()) {
                    Ok(scan) => scan,
                    Err(Error::Invalid { .. }) if reversed => return,
                    Err(error) => panic!("{range:?}: {error}"),
                };
                if reversed {
                    let step = runner.shard.run(scan.step(false, false));
                    assert!(matches!(step, Err(Error::Invalid { .. })), "{range:?} gives {step:?}");
                    return;
                }
                (scan, Ok(range))
            };
            let inside = |key: &[u8]| match &range {
                Ok(range) => within(range, key),
                Err(prefix) => key.starts_with(prefix),
            };
            let mut expected: VecDeque<(&[u8], &Bytes)> =
                map.iter().map(|(key, value)| (&key[..], value)).filter(|(key, _)| inside(key)).collect();
            let mut scan = scan;
            let reversed = random.chance(40);
            if reversed {
                scan = scan.reverse();
            }
            let mut limit = usize::MAX;
            if random.chance(40) {
                limit = random.below(12) as usize;
                scan = scan.limit(limit);
            }
            let other_percent = *pick(random, &[0, 30]);
            let meanwhile = random.chance(30);
            loop {
                if let Scanning::Local(local) = &mut scan
                    && random.chance(15)
                {
                    // Several are shown, from the end that the scan begins at.
                    let most = 1 + random.below(8) as usize;
                    let mut shown = Vec::new();
                    let showing = local.for_each(|key, value| {
                        shown.push((key.to_vec(), Bytes::copy_from_slice(value)));
                        if shown.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    });
                    runner.shard.run(showing).unwrap();
                    for (key, value) in &shown {
                        let wanted = if reversed { expected.pop_back() } else { expected.pop_front() };
                        assert_eq!(Some((&key[..], value)), wanted, "{path} at {at}, range {range:?}, shown");
                    }
                    assert!(shown.len() <= limit, "{} shown of {limit}", shown.len());
                    limit -= if limit == usize::MAX { 0 } else { shown.len() };
                    if shown.len() < most {
                        assert!(limit == 0 || expected.is_empty(), "{} left of {range:?}", expected.len());
                        break;
                    }
                }
                let other = random.chance(other_percent);
                let back = other != reversed;
                let wanted = if limit == 0 {
                    None
                } else if back {
                    expected.pop_back()
                } else {
                    expected.pop_front()
                };
                limit -= usize::from(wanted.is_some() && limit != usize::MAX);
                let got = runner.shard.run(scan.step(other, random.chance(50))).unwrap();
                let got = got.as_ref().map(|(key, value)| (&key[..], value));
                assert_eq!(got, wanted, "{path} at {at}, range {range:?}, back {back}");
                if wanted.is_none() || random.chance(2) {
                    break;
                }
                if meanwhile && random.chance(20) {
                    runner.advance(1 + random.below(5));
                }
            }
        }
    }
}

fn view(runner: &mut Runner, random: &mut SplitMix64) -> (View, Commit) {
    let newest = runner.shard.newest();
    match random.below(4) {
        0 => (View::Newest(runner.shard.local()), newest),
        1 => (View::Snapshot(runner.shard.local().snapshot()), newest),
        2 => (View::RemoteNewest, newest),
        _ => {
            let engine = runner.shard.engine().clone();
            let directory = engine.directory(*pick(random, &PATHS)).unwrap();
            let snapshot = runner.shard.run(engine.snapshot(&directory)).unwrap();
            let commit = snapshot.commit();
            assert!(commit >= newest);
            (View::RemoteSnapshot(snapshot), commit)
        }
    }
}

#[test]
fn reads_see_one_commit_whole() {
    for_seeds(16, |seed| {
        let mut random = SplitMix64::new(seed);
        let keys = *pick(&mut random, &[10, 60, 400]);
        let moves = *pick(&mut random, &[0, 4, 20]);
        let commits = 300 + random.below(500) as usize;
        let history = History::new(seed, Profile { commits, keys, moves, large: 4, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        let mut held: Vec<(View, Commit)> = Vec::new();
        while !runner.is_over() {
            runner.advance(1 + random.below(12));
            let (fresh, at) = view(&mut runner, &mut random);
            read(&mut runner, &mut random, &fresh, at, keys);
            if matches!(fresh, View::Snapshot(_) | View::RemoteSnapshot(_)) && random.chance(30) {
                held.push((fresh, at));
            }
            if !held.is_empty() && random.chance(60) {
                let which = random.below(held.len() as u64) as usize;
                let (view, at) = &held[which];
                read(&mut runner, &mut random, view, *at, keys);
            }
            if held.len() > 6 {
                held.swap_remove(random.below(7) as usize);
            }
        }
        runner.settle();
        for (view, at) in &held {
            for _ in 0..10 {
                read(&mut runner, &mut random, view, *at, keys);
            }
        }
        runner.check();
        let stats = runner.shard.engine().stats();
        let open = runner.shard.run(stats).unwrap().shards[0].snapshots;
        let remote = held.iter().filter(|(view, _)| matches!(view, View::RemoteSnapshot(_))).count();
        assert_eq!(open, remote, "snapshots that are held open");
    });
}

/// Entries that are shown come from blocks in runs, as far as nothing else lies between: whole ranges, of states of every age, while
/// windows are folded.
#[test]
fn what_is_shown_is_what_there_is() {
    for_seeds(24, |seed| {
        let mut random = SplitMix64::new(seed);
        let keys = *pick(&mut random, &[20, 200, 1000]);
        let profile = Profile { commits: 400, keys, moves: 4, large: 4, ..Profile::default() };
        let history = History::new(seed, profile);
        let options = tiny_options(&mut random).retention(retention(&mut random));
        let options = options.cache_bytes(4 << 20).memtable_bytes(64 << 10).mailbox(1);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        while !runner.is_over() {
            runner.advance(1 + random.below(10));
            for _ in 0..6 {
                let newest = runner.shard.newest();
                let asked = Commit(newest.0 - random.below(newest.0.min(300) + 1));
                let snapshot = match runner.shard.local().as_of(asked) {
                    Ok(snapshot) if random.chance(70) => snapshot,
                    _ => runner.shard.local().snapshot(),
                };
                let path = *pick(&mut random, &PATHS);
                let directory = runner.shard.engine().directory(path).unwrap();
                let range = (bound(&mut random, keys), bound(&mut random, keys));
                if is_reversed(&range) {
                    continue;
                }
                let mut shown = Vec::new();
                let mut scan = snapshot.range(&directory, range.clone()).unwrap();
                let showing = scan.for_each(|key, value| {
                    shown.push((key.to_vec(), Bytes::copy_from_slice(value)));
                    ControlFlow::Continue(())
                });
                runner.shard.run(showing).unwrap();
                let map = history.state(snapshot.commit()).map(path);
                let expected = map.iter().filter(|(key, _)| within(&range, key));
                let expected: Vec<_> = expected.map(|(key, value)| (key.to_vec(), value.clone())).collect();
                assert_eq!(shown, expected, "{path} at {}, range {range:?}", snapshot.commit());
            }
        }
    });
}

/// Where the cache is full, what is read while it is young is in there ever after, wherever carries put it; what nobody reads is not.
#[test]
fn a_full_cache_goes_along_with_what_is_read() {
    const KEYS: u32 = 1_000;
    const OTHERS: u32 = 6_000;
    let key = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes();
    let missed = [true, false].map(|read| {
        let options = Options::new().shards(1).log_file_bytes(256 << 10).flush_bytes(32 << 10);
        let options = options.part_bytes(256 << 10).memtable_bytes(16 << 20).cache_bytes(1 << 20);
        let (folder, disk) = (SimulatedFolder::new(), disk(&mut SplitMix64::new(1)));
        let mut shard = SimulatedShard::open(&folder, disk, &options).unwrap();
        let engine = shard.engine().clone();
        let (directory, others) = (engine.directory("data").unwrap(), engine.directory("others").unwrap());
        for number in 0..OTHERS {
            shard.run(others.put(key(number), [0; 200])).unwrap();
        }
        for number in 0..OTHERS {
            assert!(shard.run(others.get(key(number))).unwrap().is_some());
        }
        let mut folds = BTreeSet::new();
        for round in 0..6u8 {
            for number in 0..KEYS {
                shard.run(directory.put(key(number), [number as u8 ^ round; 200])).unwrap();
                if read && number % 4 == 0 {
                    assert!(shard.run(directory.get(key(number))).unwrap().is_some());
                }
                if number % 100 == 0 {
                    folds.extend(
                        shard.run(engine.stats()).unwrap().shards[0].base.as_ref().map(|base| base.end),
                    );
                }
            }
        }
        assert!(folds.len() > 2, "the base was folded {} times", folds.len());
        let before = shard.run(engine.stats()).unwrap().shards[0].cache_misses;
        for number in 0..KEYS {
            let value = shard.run(directory.get(key(number))).unwrap();
            assert_eq!(value.as_deref(), Some(&[number as u8 ^ 5; 200][..]));
        }
        shard.run(engine.stats()).unwrap().shards[0].cache_misses - before
    });
    assert!(missed[0] * 2 < missed[1], "blocks read from the disk, with reads and without: {missed:?}");
}

/// What nobody has read lies in the cache while there is room. What is read has its place all the same: read twice, it is there the
/// second time, and after merges.
#[test]
fn what_nobody_reads_makes_way_in_the_cache() {
    const KEYS: u32 = 12_000;
    const READ: u32 = 3_500;
    let options = Options::new().shards(1).log_file_bytes(2 << 20).flush_bytes(256 << 10);
    let options = options.part_bytes(2 << 20).memtable_bytes(64 << 20).cache_bytes(8 << 20);
    let (folder, disk) = (SimulatedFolder::new(), disk(&mut SplitMix64::new(1)));
    let mut shard = SimulatedShard::open(&folder, disk, &options).unwrap();
    let engine = shard.engine().clone();
    let directory = engine.directory("data").unwrap();
    for number in (0..KEYS).map(|number| number * 7_919 % KEYS) {
        shard.run(directory.put(number.to_be_bytes(), [7; 1600])).unwrap();
    }
    // Until all of that is in segments.
    for number in 0..1_000u32 {
        shard.run(directory.put((KEYS + number).to_be_bytes(), [7; 1600])).unwrap();
    }
    let cached = shard.run(engine.stats()).unwrap().shards[0].cache_bytes;
    assert!(cached > 4800 << 10, "{cached} bytes that nobody has read are cached");
    let mut read = || {
        let before = shard.run(engine.stats()).unwrap().shards[0].cache_misses;
        for number in 0..READ {
            assert!(shard.run(directory.get(number.to_be_bytes())).unwrap().is_some());
        }
        shard.run(engine.stats()).unwrap().shards[0].cache_misses - before
    };
    let (first, second, third) = (read(), read(), read());
    assert!(
        first > 50 && second * 10 < first && third * 10 < first,
        "{first}, {second}, {third} blocks missed"
    );
}

#[test]
fn listings_page_through_the_children() {
    for_seeds(10, |seed| {
        let mut random = SplitMix64::new(seed);
        let history = History::new(seed, Profile { commits: 300, moves: 20, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        while !runner.is_over() {
            runner.advance(1 + random.below(20));
            runner.catch_up();
            let history = runner.history.clone();
            let model = history.state(runner.shard.newest());
            let engine = runner.shard.engine().clone();
            let path = *pick(&mut random, &PATHS);
            let limit = 1 + random.below(3) as usize;
            for path in [None, Some(path)] {
                let mut names: Vec<String> = Vec::new();
                loop {
                    let after = names.last().cloned();
                    let page = match path {
                        None => engine.roots(after.as_deref(), limit),
                        Some(path) => engine.directory(path).unwrap().children(after.as_deref(), limit),
                    };
                    let page = runner.shard.run(page).unwrap();
                    let full = page.len() == limit;
                    assert!(page.len() <= limit);
                    names.extend(page);
                    if !full {
                        break;
                    }
                }
                assert_eq!(names, model.children(path), "under {path:?}");
            }
        }
    });
}

/// What is wrong with a rename or a drop is told, and changes nothing.
#[test]
fn wrong_renames_and_drops_are_refused() {
    let history = History::new(3, Profile { commits: 200, moves: 10, ..Profile::default() });
    let mut random = SplitMix64::new(3);
    let options = fixed_options(&mut random);
    let folder = SimulatedFolder::new();
    let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
    while !runner.is_over() {
        runner.advance(5);
        runner.catch_up();
        let model = history.state(runner.shard.newest());
        let (from, to) = (*pick(&mut random, &PATHS), *pick(&mut random, &PATHS));
        let engine = runner.shard.engine().clone();
        let (source, target) = (engine.directory(from).unwrap(), engine.directory(to).unwrap());
        if !model.exists(from) {
            let refused = runner.shard.run(source.remove());
            assert!(matches!(refused, Err(Error::NoDirectory { .. })), "{refused:?}");
        }
        let below = to.starts_with(from) && (to.len() == from.len() || to[from.len()..].starts_with('/'));
        let refused = match (source.root() == target.root(), model.exists(from), model.exists(to)) {
            (false, ..) => matches!(runner.shard.run(source.rename(&target)), Err(Error::TwoRoots { .. })),
            _ if !from.contains('/') || below => {
                matches!(runner.shard.run(source.rename(&target)), Err(Error::Invalid { .. }))
            }
            (_, false, _) => {
                matches!(runner.shard.run(source.rename(&target)), Err(Error::NoDirectory { .. }))
            }
            (_, true, true) => {
                matches!(runner.shard.run(source.rename(&target)), Err(Error::DirectoryExists { .. }))
            }
            (_, true, false) => true,
        };
        assert!(refused, "{from} to {to} at {}", runner.shard.newest());
        runner.check();
    }
}

/// Whether any live file holds the bytes.
fn on_disk(shard: &SimulatedShard, folder: &SimulatedFolder, marker: &[u8]) -> bool {
    let files = folder.files();
    shard.segments().iter().any(|info| files[&info.file].windows(marker.len()).any(|window| window == marker))
}

/// What is dropped goes: neither a directory made anew under its path, nor the disk after later folds, has it.
#[test]
fn dropped_data_goes_for_good() {
    for_seeds(70, |seed| {
        let mut random = SplitMix64::new(seed);
        let options = fixed_options(&mut random).compression(quipu::Compression::None).retention(
            if random.chance(50) { Retention::None } else { Retention::Last(1 + random.below(40)) },
        );
        let folder = SimulatedFolder::new();
        let mut disk_random = SplitMix64::new(seed + 1);
        let open = |random: &mut SplitMix64| {
            let options = free_options(random, options.clone());
            SimulatedShard::open(&folder, disk(random), &options).unwrap()
        };
        let mut shard = open(&mut disk_random);
        let fill = |shard: &mut SimulatedShard, random: &mut SplitMix64, most: u64| {
            for _ in 0..random.below(most) {
                let engine = shard.engine().clone();
                let other = engine.directory("r/other").unwrap();
                let value = vec![b'o'; random.below(300) as usize];
                shard.run(other.put(key(random, 50), value)).unwrap();
            }
        };
        let marker = b"<here lies what was dropped>";
        let engine = shard.engine().clone();
        // A directory that is made elsewhere, filled, moved under another, filled again, and dropped with that.
        let (a, b) = (engine.directory("r/a/deep").unwrap(), engine.directory("r/b/x/y").unwrap());
        let stays = engine.directory("r/b/stays").unwrap();
        let (left, top) = (engine.directory("r/kept").unwrap(), engine.directory("r/b").unwrap());
        for at in 0..1 + random.below(20) {
            shard.run(a.put(format!("{at}"), marker)).unwrap();
            fill(&mut shard, &mut random, 12);
        }
        shard.run(top.put("k", marker)).unwrap();
        shard.run(stays.put("alive", "alive")).unwrap();
        fill(&mut shard, &mut random, 60);
        shard.run(a.rename(&b)).unwrap();
        fill(&mut shard, &mut random, 60);
        shard.run(b.put("more", marker)).unwrap();
        fill(&mut shard, &mut random, 60);
        // What is moved out in time stays alive.
        shard.run(stays.rename(&left)).unwrap();
        fill(&mut shard, &mut random, 30);
        shard.run(top.remove()).unwrap();
        let dropped = shard.newest();
        drop((engine, a, b, stays, left, top));
        fill(&mut shard, &mut random, 40);
        let mut crashes = random.below(4);
        loop {
            let engine = shard.engine().clone();
            let directory = |path: &str| engine.directory(path).unwrap();
            // Anew, and empty.
            shard.run(directory("r/b/x/y").put("new", "new")).unwrap();
            for path in ["r/b", "r/b/x", "r/b/x/y", "r/a", "r/a/deep", "r/kept"] {
                let got = shard.run(directory(path).iter().collect()).unwrap();
                let got: Vec<&[u8]> = got.iter().map(|(key, _)| &key[..]).collect();
                let expected: &[&[u8]] = match path {
                    "r/b/x/y" => &[b"new"],
                    "r/kept" => &[b"alive"],
                    _ => &[],
                };
                assert_eq!(got, expected, "in {path}");
            }
            shard.run(directory("r/b").remove()).unwrap();
            let picture = shard.picture();
            let past = picture.base_end.0 > dropped.0 + 41;
            if past && picture.carries.is_empty() {
                assert!(!on_disk(&shard, &folder, marker), "dropped at {dropped}: {picture:?}");
                break;
            }
            assert!(shard.newest().0 < 60_000, "the base does not move: {picture:?}");
            drop(engine);
            fill(&mut shard, &mut random, 200);
            if crashes > 0 && random.chance(30) {
                crashes -= 1;
                shard.crash(&mut random);
                shard = open(&mut disk_random);
            } else if random.chance(30) {
                shard.settle();
            }
        }
    });
}

/// A read that is kept for the next turn goes where its name leads by then.
#[test]
fn a_rename_comes_before_a_read_that_was_kept() {
    let tuning = Tuning { reads_together_min: 1, ..Tuning::default() };
    let options = Options::new().shards(1);
    let mut opening =
        SimulatedShard::begin_tuned(&SimulatedFolder::new(), SimulatedOptions::default(), &options, tuning)
            .unwrap();
    let mut shard = loop {
        if let Some(opened) = opening.step() {
            break opened.unwrap();
        }
    };
    let from = shard.engine().directory("a/from").unwrap();
    let to = shard.engine().directory("a/to").unwrap();
    // Until commits are far from a carry, and several fit in a turn.
    for number in 0..250 {
        shard.run(from.put("other", vec![number; 4000])).unwrap();
    }
    shard.settle();
    shard.run(from.put("key", "before")).unwrap();
    assert!(!shard.run(shard.local().exists(&to)).unwrap());
    let local = shard.local();
    let (kept, alone) = (local.get(&from, "key"), local.get(&to, "key"));
    let mut kept = std::pin::pin!(kept);
    assert!(kept.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (renaming, putting) = (shard.rename(&from, &to), local.put(&to, "key", "after"));
    assert_eq!(shard.run(kept).unwrap(), None, "there is no such directory any more");
    shard.run(renaming).unwrap();
    // What the rename made void may have to be read from the disk first.
    shard.run(putting).unwrap();
    assert_eq!(shard.run(alone).unwrap().unwrap(), "after");
    assert!(shard.picture().reads_together >= 2);
}
