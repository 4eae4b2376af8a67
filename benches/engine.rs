//! Micro-benchmarks of one shard, through the local handle: what the engine itself costs, without a mailbox between.
//!
//! `cargo bench --bench engine`. Data lies in a temporary folder on the disk of the build, and is removed.

#![allow(clippy::unwrap_used)]

use quipu::{Directory, Engine, Local, Options};
use std::time::Instant;

const KEYS: u32 = 200_000;
const VALUE: [u8; 100] = [7; 100];

fn key(number: u32) -> [u8; 24] {
    let mut key = *b"key.....................";
    // Scattered over the key space, and the same on every run.
    key[4..12].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn report(what: &str, count: u32, began: Instant) {
    let took = began.elapsed();
    println!(
        "{what:<44} {:>9.0} ns each  {:>11.0}/s",
        took.as_nanos() as f64 / f64::from(count),
        f64::from(count) / took.as_secs_f64()
    );
}

async fn commits(local: &Local, directory: &Directory, at_once: u32) {
    let began = Instant::now();
    for from in (0..KEYS).step_by(at_once as usize) {
        let commits: Vec<_> =
            (from..from + at_once).map(|number| local.put(directory, key(number), VALUE)).collect();
        for commit in commits {
            commit.await.unwrap();
        }
    }
    report(&format!("durable commits, {at_once} in flight"), KEYS, began);
}

async fn reads(local: &Local, directory: &Directory) {
    for round in ["first", "again"] {
        let began = Instant::now();
        for number in 0..KEYS {
            assert!(local.get(directory, key(number)).await.unwrap().is_some());
        }
        report(&format!("point reads, one after another, {round}"), KEYS, began);
    }
    let began = Instant::now();
    for number in 0..KEYS {
        assert!(local.get(directory, [&key(number)[..], b"!"].concat()).await.unwrap().is_none());
    }
    report("point reads of absent keys", KEYS, began);
    let scans = KEYS / 100;
    let began = Instant::now();
    for number in 0..scans {
        let scan = local.range(directory, key(number)..).unwrap().limit(100);
        std::hint::black_box(scan.collect().await.unwrap());
    }
    report("scans of 100 entries", scans, began);
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine: Engine = Options::new().shards(1).open(folder.path()).unwrap();
    println!("{} keys of 24 bytes, values of 100 bytes, {}", KEYS, engine.io_kind());
    let directory = engine.directory("bench").unwrap();
    let copy = directory.clone();
    engine
        .run_on(&directory, async move |local: Local| {
            commits(&local, &copy, 64).await;
            commits(&local, &copy, 1000).await;
            reads(&local, &copy).await;
        })
        .wait()
        .unwrap();
    engine.close().unwrap();
}
