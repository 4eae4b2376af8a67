//! Micro-benchmarks of one shard, through the local handle: what the engine itself costs, without a mailbox between.
//!
//! `cargo bench --bench engine`; with `-- reads`, or some of `gets`, `scans`, `memory` and `files`, it loads quickly and
//! measures reads only, of those kinds and of data that lies there. Data lies in a temporary folder on the disk of the
//! build, and is removed.
//!
//! Beside the time that passes stands the time that the shard's thread had a core: on a machine that does other things
//! too, that is the figure to compare.

#![allow(clippy::unwrap_used)]

use quipu::{Directory, Durability, Engine, Local, Options};
use std::time::{Duration, Instant};

const KEYS: u32 = 200_000;
const VALUE: [u8; 100] = [7; 100];

fn key(number: u32) -> [u8; 24] {
    let mut key = *b"key.....................";
    // Scattered over the key space, and the same on every run.
    key[4..12].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// When something began: by the clock, and by the time that this thread has had a core.
struct Began {
    wall: Instant,
    core: Duration,
}

/// How long this thread has had a core.
fn core_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn begin() -> Began {
    Began { core: core_time(), wall: Instant::now() }
}

fn report(what: &str, count: u32, began: Began) {
    let (took, core) = (began.wall.elapsed(), core_time().saturating_sub(began.core));
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(count);
    println!(
        "{what:<44} {:>9.0} ns each  {:>11.0}/s  {:>9.0} ns of a core",
        each(took),
        f64::from(count) / took.as_secs_f64(),
        each(core),
    );
}

async fn commits(local: &Local, directory: &Directory, at_once: u32) {
    let began = begin();
    for from in (0..KEYS).step_by(at_once as usize) {
        let commits: Vec<_> =
            (from..from + at_once).map(|number| local.put(directory, key(number), VALUE)).collect();
        for commit in commits {
            commit.await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    report(&format!("commits, {at_once} in flight"), KEYS, began);
}

async fn gets(local: &Local, directory: &Directory) {
    for round in ["first", "again"] {
        let began = begin();
        for number in 0..KEYS {
            assert!(local.get(directory, key(number)).await.unwrap().is_some());
        }
        report(&format!("point reads, one after another, {round}"), KEYS, began);
    }
    let began = begin();
    for number in 0..KEYS {
        assert!(local.get(directory, [&key(number)[..], b"!"].concat()).await.unwrap().is_none());
    }
    report("point reads of absent keys", KEYS, began);
}

async fn scans(local: &Local, directory: &Directory) {
    // What is to be cached is.
    std::hint::black_box(local.iter(directory).unwrap().collect().await.unwrap());
    for (length, scans) in [(1, 10_000), (10, 10_000), (100, 10_000), (2000, 500)] {
        for back in [false, true] {
            let began = begin();
            for number in 0..scans {
                let at = key(number * 17 % KEYS);
                let scan = if back {
                    local.range(directory, ..at).unwrap().reverse()
                } else {
                    local.range(directory, at..).unwrap()
                };
                std::hint::black_box(scan.limit(length).collect().await.unwrap());
            }
            report(&format!("scans of {length}{}", if back { ", backwards" } else { "" }), scans, began);
        }
    }
}

fn run(name: &str, options: &Options, only: &[String]) {
    let wants = |what: &str| only.is_empty() || only.iter().any(|kind| kind == what || kind == "reads");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine: Engine = options.clone().shards(1).open(folder.path()).unwrap();
    println!("{name}: {KEYS} keys of 24 bytes, values of 100 bytes, {}", engine.io_kind());
    let directory = engine.directory("bench").unwrap();
    let copy = directory.clone();
    let at_once = if only.is_empty() { 64 } else { 1000 };
    engine
        .run_on(&directory, async move |local: Local| {
            commits(&local, &copy, at_once).await;
            commits(&local, &copy, 1000).await;
            local.barrier().await.unwrap();
        })
        .wait()
        .unwrap();
    loop {
        let stats = engine.stats().wait().unwrap();
        let shard = &stats.shards[0];
        if shard.carries.is_empty() {
            let parts = shard.base.map_or(0, |base| base.parts);
            let segments: usize = shard.levels.iter().map(|level| level.segments).sum();
            println!("{parts} parts, {segments} segments, {} bytes in memory", shard.memtable_bytes);
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if wants("gets") || !wants("scans") {
        let copy = directory.clone();
        engine.run_on(&directory, async move |local: Local| gets(&local, &copy).await).wait().unwrap();
    }
    if wants("scans") || !wants("gets") {
        let copy = directory.clone();
        engine.run_on(&directory, async move |local: Local| scans(&local, &copy).await).wait().unwrap();
    }
    engine.close().unwrap();
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut options = Options::new();
    if !only.is_empty() {
        options = options.durability(Durability::Buffered { within: Duration::from_millis(10) });
    }
    let named = |what: &str| only.iter().any(|kind| kind == what);
    if named("memory") || !named("files") {
        run("half of it in memory", &options, &only);
    }
    if named("files") || (!only.is_empty() && !named("memory")) {
        run("nearly all in files", &options.flush_bytes(1 << 20), &only);
    }
}
