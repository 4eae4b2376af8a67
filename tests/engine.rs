//! The engine as its users see it, with real threads: clients of all kinds, durability, the end, snapshots.
//!
//! Full disks are in `full_disk.rs`, tasks on the shards' own cores in `oncore.rs`, kills in `crash.rs`.

#![allow(clippy::unwrap_used)]

mod procs;

use futures_util::FutureExt;
use procs::{Seeded, eventually, folder, within_minutes};
use quipu::{Batch, Commit, Directory, Durability, Engine, Error, Options, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Small enough that flushes, carries and folds run all the time.
fn small() -> Options {
    Options::new()
        .log_file_bytes(256 << 10)
        .flush_bytes(32 << 10)
        .part_bytes(64 << 10)
        .memtable_bytes(16 << 20)
        .cache_bytes(8 << 20)
}

const FOR_EVER: Durability = Durability::Buffered { within: Duration::from_secs(60) };

fn durable_of(engine: &Engine, directory: &Directory) -> Commit {
    engine.stats().wait().unwrap().shards[usize::from(directory.shard())].durable
}

fn content(directory: &Directory) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = directory.iter().blocking().map(|entry| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    });
    entries.collect()
}

/// What readers have in the cache stays there when a fold writes it to new files.
#[test]
fn folds_do_not_empty_the_cache() {
    a_fold_does_not_empty_the_cache(64 << 20, 256 << 10);
}

/// Nor where it has no room for both the new and the old: a megabyte each, beside the window.
#[test]
fn folds_do_not_empty_a_cache_that_is_full() {
    a_fold_does_not_empty_the_cache(2_000_000, 1 << 20);
}

fn a_fold_does_not_empty_the_cache(cache_bytes: usize, part_bytes: u64) {
    const KEYS: u32 = 5_000;
    let folder = folder();
    let options = || small().shards(1).part_bytes(part_bytes).cache_bytes(cache_bytes).durability(FOR_EVER);
    let key = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes();
    let put = |directory: &Directory, number| directory.put(key(number), [number as u8; 200]).wait().unwrap();
    let stats = |engine: &Engine| engine.stats().wait().unwrap().shards[0].clone();
    let folded = |engine: &Engine| stats(engine).base.map_or(Commit(0), |base| base.end);
    // With no puts meanwhile: they make new carries due.
    let settle = |engine: &Engine| eventually("carries are installed", || stats(engine).carries.is_empty());

    let engine = options().open(folder.path()).unwrap();
    let directory = engine.directory("data").unwrap();
    let mut loaded = Commit(0);
    for number in 0..KEYS {
        loaded = put(&directory, number).number;
    }
    // Until all of that lies in the base.
    let mut number = 0;
    while folded(&engine) < loaded {
        put(&directory, number % KEYS);
        number += 1;
    }
    settle(&engine);
    drop(directory);
    engine.close().unwrap();

    let engine = options().open(folder.path()).unwrap();
    let directory = engine.directory("data").unwrap();
    // All but those that are overwritten below.
    let read = || {
        let before = stats(&engine).cache_misses;
        for number in (0..KEYS).filter(|number| number % 40 > 0) {
            assert_eq!(directory.get(key(number)).wait().unwrap().unwrap()[..], [number as u8; 200]);
        }
        stats(&engine).cache_misses - before
    };
    let cold = read();
    assert!(cold > 200, "{cold} blocks hold {KEYS} keys");
    let warm = read();
    assert!(warm * 10 < cold, "{warm} blocks of {cold} were read again with no fold between");
    let newest = put(&directory, 0).number;
    while folded(&engine) <= newest {
        for number in (0..KEYS).step_by(40) {
            put(&directory, number);
        }
    }
    settle(&engine);
    let after = read();
    assert!(after * 4 < cold, "{after} blocks of {cold} had to be read again after a fold");
    drop(directory);
    engine.close().unwrap();
}

/// While the cache has room, what flushes and merges write is in it, whether it is read or not: what they read does not come from the
/// disk; and what they have replaced is not in it.
#[test]
fn a_cache_with_room_holds_what_carries_write() {
    const KEYS: u32 = 2_000;
    let folder = folder();
    let options = small().shards(1).part_bytes(256 << 10).cache_bytes(64 << 20).durability(FOR_EVER);
    let engine = options.open(folder.path()).unwrap();
    let directory = engine.directory("data").unwrap();
    let key = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes();
    let stats = || engine.stats().wait().unwrap().shards[0].clone();
    let mut folds = BTreeSet::new();
    for round in 0..6u8 {
        for number in 0..KEYS {
            directory.put(key(number), [number as u8 ^ round; 200]).wait().unwrap();
            if number % 100 == 0 {
                folds.extend(stats().base.map(|base| base.end));
            }
        }
    }
    let mut idle = 0;
    // Until no carry is under way, and what they left is forgotten: a turn with nothing else to do does that.
    while idle < 100 {
        idle = if stats().carries.is_empty() { idle + 1 } else { 0 };
    }
    assert!(folds.len() > 3, "the base was folded {} times", folds.len());
    let live = u64::from(KEYS) * 204;
    let read_bytes = stats().read_bytes;
    assert!(read_bytes < live / 10, "merges read {read_bytes} bytes that the cache has");
    for number in 0..KEYS {
        let value = directory.get(key(number)).wait().unwrap();
        assert_eq!(value.as_deref(), Some(&[number as u8 ^ 5; 200][..]));
    }
    let stats = stats();
    assert!(stats.cache_misses <= 2, "{} blocks were read from the disk", stats.cache_misses);
    assert!(stats.cache_bytes < 3 * live, "{} bytes of cache for {live} of data", stats.cache_bytes);
    drop(directory);
    engine.close().unwrap();
}

/// What a client does at a step: its key, and what becomes of it.
fn step(client: u64, number: u64) -> (String, Option<String>) {
    let mut random = Seeded::of(&[client, number]);
    let key = format!("key{:03}", random.below(150));
    (
        key,
        (random.below(5) > 0)
            .then(|| format!("{client} {number} {}", "x".repeat(random.below(200) as usize))),
    )
}

fn model(client: u64, steps: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    for number in 0..steps {
        match step(client, number) {
            (key, Some(value)) => drop(model.insert(key.into_bytes(), value.into_bytes())),
            (key, None) => drop(model.remove(key.as_bytes())),
        }
    }
    model
}

fn batch_of(directory: &Directory, client: u64, number: u64) -> Batch {
    let mut batch = Batch::new();
    match step(client, number) {
        (key, Some(value)) => batch.put(directory, key, value),
        (key, None) => batch.delete(directory, key),
    };
    batch
}

/// Clients of every kind, each in a directory of its own, on more shards than there are cores, or on nine: each shard
/// has files open, of which a process may have only so many.
#[test]
fn many_clients_on_more_shards_than_cores() {
    const STEPS: u64 = 150;
    let folder = folder();
    let cores = thread::available_parallelism().map_or(2, |cores| cores.get());
    let shards = (cores * 2 + 1).min(9) as u16;
    let options = small().shards(shards);
    let engine = options.open(folder.path()).unwrap();
    let directory = |engine: &Engine, client: u64| engine.directory(format!("client{client}/data")).unwrap();
    let mut threads = Vec::new();
    for client in 0..6 {
        let (engine, directory) = (engine.clone(), directory(&engine, client));
        threads.push(thread::spawn(move || {
            for number in 0..STEPS {
                engine.commit(batch_of(&directory, client, number)).wait().unwrap();
                let (key, value) = step(client, number);
                let got = directory.get(&key).wait().unwrap();
                assert_eq!(got.as_deref(), value.as_deref().map(str::as_bytes), "a client reads its writes");
            }
        }));
    }
    let handle = engine.clone();
    threads.push(thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for client in 6..30 {
                let (engine, directory) = (handle.clone(), directory(&handle, client));
                tasks.spawn(async move {
                    for number in 0..STEPS {
                        engine.commit(batch_of(&directory, client, number)).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
        });
    }));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for reopened in [false, true] {
        let engine = if reopened { options.open(folder.path()).unwrap() } else { engine.clone() };
        assert_eq!(engine.shards(), shards);
        for client in 0..30 {
            assert_eq!(content(&directory(&engine, client)), model(client, STEPS), "client {client}");
        }
        let stats = engine.stats().wait().unwrap();
        assert_eq!(stats.shards.iter().map(|shard| shard.last.0).sum::<u64>(), 30 * STEPS);
        engine.close().unwrap();
    }
}

/// Requests beyond what the mailbox holds wait, and all are answered.
#[test]
fn a_small_mailbox_only_slows_down() {
    let folder = folder();
    let engine = small().shards(1).mailbox(1).open(folder.path()).unwrap();
    let directory = engine.directory("a/b").unwrap();
    let threads: Vec<_> = (0..4)
        .map(|client: u64| {
            let directory = directory.clone();
            thread::spawn(move || {
                let key = |number: u64| format!("{client} {number}");
                let answers: Vec<_> =
                    (0..700).map(|number| directory.put(key(number), "v".repeat(100))).collect();
                // Those that found no room are sent when they are waited for: in any order.
                for answer in answers.into_iter().rev() {
                    answer.wait().unwrap();
                }
                let reads: Vec<_> = (0..700).map(|number| directory.get(key(number))).collect();
                assert!(reads.into_iter().all(|read| read.wait().unwrap().is_some()));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    engine.close().unwrap();
    // Batches that take all of the mailbox by themselves.
    let engine = Options::new().mailbox(1).open(folder.path()).unwrap();
    let directory = engine.directory("a/b").unwrap();
    assert_eq!(directory.iter().blocking().count(), 2800);
    engine.close().unwrap();
}

/// Whoever sleeps at once, or looks for news for as long as it may: none are lost, and none come late for good.
#[test]
fn threads_and_shards_find_each_other_however_long_they_linger() {
    for linger in [Duration::ZERO, Duration::from_micros(1), limits::LINGER_MAX] {
        let folder = folder();
        let engine = small().shards(2).linger(linger).open(folder.path()).unwrap();
        let directories: Vec<_> =
            (0..8).map(|number| engine.directory(format!("d{number}")).unwrap()).collect();
        thread::scope(|scope| {
            for directory in &directories {
                scope.spawn(move || {
                    for number in 0..200u32 {
                        let key = number.to_be_bytes();
                        directory.put(key, "value").wait().unwrap();
                        assert_eq!(directory.get(key).wait().unwrap().unwrap(), "value");
                        // Longer than any looking, now and then: both have gone to sleep.
                        if number % 50 == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                    assert_eq!(directory.iter().blocking().count(), 200);
                });
            }
        });
        engine.close().unwrap();
    }
}

/// A shard that is asked now and then sleeps between: however long it looks, it gives up.
#[test]
fn a_shard_that_is_seldom_asked_sleeps() {
    let folder = folder();
    let engine = small().shards(1).linger(limits::LINGER_MAX).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    directory.put("key", "value").wait().unwrap();
    let wakes = || engine.stats().wait().unwrap().shards[0].wakes_sent;
    let before = wakes();
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(5));
        directory.get("key").wait().unwrap();
    }
    assert!(wakes() >= before + 10, "woken {} times", wakes() - before);
    engine.close().unwrap();
}

#[test]
fn answers_that_nobody_waits_for_happen_all_the_same() {
    let folder = folder();
    let engine = small().shards(1).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    for number in 0..100u8 {
        drop(directory.put([1 + number], [number]));
    }
    // Whatever was sent before it, a barrier takes with it.
    engine.barrier().wait().unwrap();
    assert_eq!(directory.iter().blocking().count(), 100);
}

#[test]
fn buffered_commits_are_acknowledged_before_they_are_durable_and_a_barrier_makes_them_so() {
    let folder = folder();
    let engine = small().shards(2).durability(FOR_EVER).open(folder.path()).unwrap();
    let directories = ["a", "b", "c", "d"].map(|name| engine.directory(name).unwrap());
    for directory in &directories {
        let id = directory.put("key", "value").wait().unwrap();
        assert!(id.number >= Commit(1));
        assert!(directory.get("key").wait().unwrap().is_some(), "and visible");
    }
    engine.barrier().wait().unwrap();
    for directory in &directories {
        assert!(durable_of(&engine, directory) >= Commit(1));
        // On the shard's own core: within one poll there is no log write.
        let handle = directory.clone();
        let within_a_poll = engine.run_on(directory, async move |local: quipu::Local| {
            let mut batch = Batch::new();
            batch.put(&handle, "within", "a poll");
            // While a carry of the first few commits is under way, the next one may have to wait to be sequenced.
            for _ in 0..2000 {
                local.barrier().await.unwrap();
                let buffered = local.commit(&batch).now_or_never();
                let synced = local.commit_with(&batch, Durability::Sync).now_or_never();
                assert!(synced.is_none(), "acknowledged without a log write");
                if let Some(buffered) = buffered {
                    return buffered.is_ok();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            false
        });
        assert!(within_a_poll.wait().unwrap(), "buffered is acknowledged before it is durable");
    }
    // A batch may be stricter than its engine, and takes with it what came before.
    let [directory, ..] = &directories;
    directory.put("one", "1").wait().unwrap();
    let mut batch = Batch::new();
    batch.put(directory, "two", "2");
    let id = engine.commit_with(batch, Durability::Sync).wait().unwrap();
    assert!(durable_of(&engine, directory) >= id.number);
}

#[test]
fn buffered_commits_become_durable_by_themselves() {
    let folder = folder();
    let engine = small().shards(1).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    let mut batch = Batch::new();
    batch.put(&directory, "key", "value");
    let within = Durability::Buffered { within: Duration::from_millis(20) };
    let id = engine.commit_with(batch, within).wait().unwrap();
    eventually("the bound in time", || durable_of(&engine, &directory) >= id.number);
}

#[test]
fn dropping_without_closing_loses_nothing_acknowledged() {
    let folder = folder();
    for round in 0..4u8 {
        let options = if round % 2 == 0 { small().durability(FOR_EVER) } else { small() };
        let engine = options.open(folder.path()).unwrap();
        let directory = engine.directory("a/b").unwrap();
        for before in 0..round {
            assert_eq!(directory.get([before + 1]).wait().unwrap().as_deref(), Some(&[before][..]));
        }
        // The last handle is a directory's, a snapshot's, or a scan's.
        drop(engine);
        directory.put([round + 1], [round]).wait().unwrap();
        if round == 2 {
            let mut scan = directory.iter().blocking();
            drop(directory);
            assert!(scan.next().unwrap().is_ok());
        }
    }
}

/// Clients of a closed engine get an error or had their answer: nothing hangs, and what was acknowledged is there.
#[test]
fn closing_while_clients_send() {
    let folder = folder();
    for round in 0..3 {
        let path = folder.path().to_path_buf();
        within_minutes("a close with busy clients", move || close_under_load(&path, round));
    }
}

fn close_under_load(path: &Path, round: u64) {
    let options = small().shards(3).mailbox(1);
    let engine = options.open(path).unwrap();
    let begun = Arc::new(AtomicU64::new(0));
    let closed_only = |error: Error| assert!(matches!(error, Error::Closed), "{error}");
    let writers: Vec<_> = (0..6u64)
        .map(|client| {
            let (directory, begun) = (engine.directory(format!("root{client}")).unwrap(), begun.clone());
            thread::spawn(move || {
                for number in 0u64.. {
                    let answers: Vec<_> = (0..4)
                        .map(|part| directory.put(format!("{round} {number} {part}"), "x".repeat(500)))
                        .collect();
                    begun.fetch_add(1, Ordering::Relaxed);
                    let results: Vec<_> = answers.into_iter().map(|answer| answer.wait()).collect();
                    if results.iter().any(Result::is_err) {
                        let acknowledged: Vec<bool> = results.iter().map(Result::is_ok).collect();
                        results.into_iter().filter_map(Result::err).for_each(closed_only);
                        return (client, number, acknowledged);
                    }
                }
                unreachable!()
            })
        })
        .collect();
    let readers: Vec<_> = (0..3u64)
        .map(|client| {
            let directory = engine.directory(format!("root{client}")).unwrap();
            thread::spawn(move || {
                loop {
                    if let Some(error) = directory.iter().limit(20).blocking().find_map(Result::err) {
                        return closed_only(error);
                    }
                    if let Err(error) = directory.get("some").wait() {
                        return closed_only(error);
                    }
                }
            })
        })
        .collect();
    let directory = engine.directory("root0").unwrap();
    let endless = engine.run_on(&directory, async |_| std::future::pending::<()>().await);
    let snapshot = engine.snapshot(&directory).wait().unwrap();
    while begun.load(Ordering::Relaxed) < 20 + 10 * round {
        thread::yield_now();
    }
    engine.clone().close().unwrap();
    engine.clone().close().unwrap();
    closed_only(endless.wait().unwrap_err());
    closed_only(snapshot.get(&directory, "x").wait().unwrap_err());
    closed_only(engine.barrier().wait().unwrap_err());
    closed_only(engine.stats().wait().unwrap_err());
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let ends: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();

    let engine = options.open(path).unwrap();
    for (client, number, last) in ends {
        let directory = engine.directory(format!("root{client}")).unwrap();
        let is_there = |number: u64, part: usize| {
            directory.get(format!("{round} {number} {part}")).wait().unwrap().is_some()
        };
        for before in 0..number {
            assert!((0..4).all(|part| is_there(before, part)));
        }
        for (part, _) in last.iter().enumerate().filter(|(_, acknowledged)| **acknowledged) {
            assert!(is_there(number, part));
        }
    }
    engine.close().unwrap();
}

#[test]
fn snapshots_can_be_read_from_other_threads_while_all_changes() {
    let folder = folder();
    let engine = small().shards(2).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    let put_all = |value: u64| {
        let mut batch = Batch::new();
        for key in 0..150 {
            batch.put(&directory, format!("key{key:03}"), format!("{value} {}", "x".repeat(200)));
        }
        engine.commit(batch).wait().unwrap()
    };
    let mut readers = Vec::new();
    let done = Arc::new(AtomicBool::new(false));
    for round in 0..24 {
        let id = put_all(round);
        if round % 8 > 0 {
            continue;
        }
        let snapshot = engine.snapshot(&directory).wait().unwrap();
        assert_eq!((snapshot.commit(), snapshot.shard()), (id.number, directory.shard()));
        let (directory, done) = (directory.clone(), done.clone());
        readers.push(thread::spawn(move || {
            let begin = format!("{round} ");
            let mut times = 0;
            while !done.load(Ordering::Relaxed) || times == 0 {
                let of_round = |value: &[u8]| assert!(value.starts_with(begin.as_bytes()));
                of_round(&snapshot.get(&directory, "key007").wait().unwrap().unwrap());
                let mut scan = snapshot.iter(&directory).unwrap();
                if times % 2 == 1 {
                    scan = scan.reverse();
                }
                let entries: Vec<_> = scan.blocking().map(Result::unwrap).collect();
                assert_eq!(entries.len(), 150);
                entries.iter().for_each(|(_, value)| of_round(value));
                times += 1;
                // Leaves the shard time for the commits.
                thread::sleep(Duration::from_millis(2));
            }
        }));
    }
    done.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let other = (0..).map(|number| engine.directory(format!("other{number}")).unwrap());
    let other = other.into_iter().find(|other| other.shard() != directory.shard()).unwrap();
    let snapshot = engine.snapshot(&directory).wait().unwrap();
    assert!(matches!(snapshot.get(&other, "k").wait(), Err(Error::WrongShard { .. })));
    drop((snapshot, engine));
    drop(other);
}

fn open_snapshots(engine: &Engine) -> usize {
    engine.stats().wait().unwrap().total(|shard| shard.snapshots)
}

#[test]
fn abandoned_scans_and_snapshots_let_go_of_what_they_held() {
    let folder = folder();
    let engine = small().shards(1).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    for key in 0..1000 {
        drop(directory.put(format!("key{key:05}"), "x".repeat(200)));
    }
    directory.put("last", "x").wait().unwrap();
    let mut scans = Vec::new();
    for scan in 0..50 {
        let scan = if scan % 2 == 0 { directory.iter() } else { directory.iter().reverse() };
        let mut scan = scan.blocking();
        assert!((0..7).all(|_| scan.next().unwrap().is_ok()));
        assert!(scan.next_back().unwrap().is_ok());
        scans.push(scan);
    }
    assert_eq!(open_snapshots(&engine), 50);
    drop(scans);
    eventually("scans let go", || open_snapshots(&engine) == 0);

    // Answers that are there, and that nobody takes.
    let answers: Vec<_> = (0..50).map(|_| engine.snapshot(&directory)).collect();
    assert_eq!(open_snapshots(&engine), 50);
    drop(answers);
    eventually("untaken snapshots let go", || open_snapshots(&engine) == 0);

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _ in 0..50 {
            let mut scan = directory.iter();
            let mut next = Box::pin(scan.next());
            // Asked for, and given up before or after the page is there.
            let _ = (&mut next).now_or_never();
            engine.stats().await.unwrap();
        }
    });
    eventually("pages that nobody takes let go", || open_snapshots(&engine) == 0);
    engine.close().unwrap();
}

#[test]
fn snapshots_are_limited() {
    let folder = folder();
    let engine = small().shards(1).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    for key in 0..1500u32 {
        drop(directory.put(format!("key{key}"), "x".repeat(100)));
    }
    directory.put("last", "x").wait().unwrap();
    let answers: Vec<_> = (0..limits::SNAPSHOTS_MAX).map(|_| engine.snapshot(&directory)).collect();
    let mut held: Vec<_> = answers.into_iter().map(|answer| answer.wait().unwrap()).collect();
    let too_many = |error: Error| match error {
        Error::TooMany { limit, what } => {
            assert_eq!((limit, what.contains("snapshots")), (limits::SNAPSHOTS_MAX, true))
        }
        other => panic!("{other}"),
    };
    too_many(engine.snapshot(&directory).wait().unwrap_err());
    too_many(directory.iter().blocking().find_map(Result::err).unwrap());
    assert!(directory.get("key7").wait().unwrap().is_some(), "reads that hold nothing go on");
    assert!(held[0].get(&directory, "key7").wait().unwrap().is_some());
    held.pop();
    eventually("one place is free", || open_snapshots(&engine) < limits::SNAPSHOTS_MAX);
    held.push(engine.snapshot(&directory).wait().unwrap());
    too_many(engine.snapshot(&directory).wait().unwrap_err());
    drop(held);
    engine.close().unwrap();
}

/// A shard that always finds requests in its mailbox lets snapshots go all the same.
#[test]
fn scans_one_after_another_do_not_add_up() {
    let folder = folder();
    let engine = small().shards(1).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    for key in 0..140u32 {
        drop(directory.put(format!("key{key}"), "x"));
    }
    directory.put("last", "x").wait().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let directory = directory.clone();
            thread::spawn(move || {
                for _ in 0..700 {
                    // More than a page, so that it holds a snapshot.
                    directory.iter().blocking().next().unwrap().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually("scans let go", || open_snapshots(&engine) == 0);
}

/// Opens the folder, as soon as whoever has it open has gone.
fn open_when_free(options: &Options, path: &Path) -> Engine {
    let mut engine = None;
    eventually("the folder is free", || match options.open(path) {
        Ok(opened) => {
            engine = Some(opened);
            true
        }
        Err(Error::Locked { .. }) => false,
        Err(error) => panic!("{error}"),
    });
    engine.unwrap()
}

#[test]
fn the_last_handle_may_go_on_a_shards_own_thread() {
    let folder = folder();
    let options = small().shards(2);
    let path = folder.path().to_path_buf();
    within_minutes("the end of an engine from within", move || {
        for full in [false, true] {
            let engine = options.clone().mailbox(1).open(&path).unwrap();
            let directory = engine.directory("a").unwrap();
            let (go, wait) = mpsc::channel::<()>();
            let (ended, end) = mpsc::channel();
            let handle = directory.clone();
            let task = engine.run_on(&directory, async move |local| {
                local.put(&handle, "within", "1").await.unwrap();
                // Blocks the shard, so that what comes meanwhile stays in its mailbox.
                wait.recv().unwrap();
                drop(handle);
                ended.send(()).unwrap();
            });
            let mut batch = Batch::new();
            let mut sent = None;
            if full {
                for number in 0..3 {
                    batch.put(&directory, [number], vec![1; limits::VALUE_BYTES_MAX]);
                }
                let rest = limits::BATCH_BYTES_MAX - batch.bytes() - limits::OPERATION_BYTES_OVERHEAD - 1;
                batch.put(&directory, "rest", vec![1; rest - 3]);
                assert_eq!(batch.bytes(), limits::BATCH_BYTES_MAX, "all that the mailbox can take");
                sent = Some(engine.commit(batch));
            }
            drop((engine, directory));
            go.send(()).unwrap();
            end.recv().unwrap();
            // Whether it is answered depends on what comes first; it must not hang.
            let _ = task.wait();
            let _ = sent.map(|sent| sent.wait());
            let engine = open_when_free(&options, &path);
            let directory = engine.directory("a").unwrap();
            assert!(directory.get("within").wait().unwrap().is_some());
            engine.close().unwrap();
        }
    });
}
