//! The memtable beside the `BTreeMap` that would do instead: nanoseconds an operation.
//!
//! `cargo bench --bench memtable [name]`. Each figure is the best of a few rounds, each on a table of its
//! own; both maps do the same operations in the same round, so compare the columns, not runs.

use quipu::levels::Commit;
use quipu::memtable::{DirectoryId, Entry, Memtable, Place};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

const ENTRIES: usize = 250_000;
const ROUNDS: usize = 5;
const VALUE: [u8; 100] = [7; 100];

type Key = (u64, Vec<u8>);
type Model = BTreeMap<(u64, Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is inserted, in this order; the n-th by commit n.
fn workload(name: &str) -> Vec<Key> {
    let mut state = 1;
    let mut next = |below: u64| random(&mut state) % below;
    // As the engine numbers directories: the commit that made it, then its place in that commit.
    let directory = |n: u64| (n + 1) << 16;
    let digits = |n: u64| format!("user:{n:019}").into_bytes();
    (0..ENTRIES as u64)
        .map(|n| match name {
            "10k directories, random keys" => {
                (directory(next(10_000)), (0..3).flat_map(|_| next(u64::MAX).to_be_bytes()).collect())
            }
            "10k directories, shared prefix" => (directory(next(10_000)), digits(next(1 << 40))),
            "1 directory, shared prefix" => (directory(1), digits(next(1 << 40))),
            "1 directory, ascending" => (directory(1), digits(n)),
            "1k directories, ascending each" => (directory(n % 1000), digits(n)),
            "1k keys, many versions" => (directory(1), digits(next(1000))),
            _ => unreachable!("no such workload"),
        })
        .collect()
}

const WORKLOADS: [&str; 6] = [
    "10k directories, random keys",
    "10k directories, shared prefix",
    "1 directory, shared prefix",
    "1 directory, ascending",
    "1k directories, ascending each",
    "1k keys, many versions",
];

const MEASURES: [&str; 7] = ["insert", "insert late", "get", "get absent", "scan", "scan back", "drop"];

/// Runs one operation per entry and gives nanoseconds for each.
fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / ENTRIES as f64
}

fn memtable(keys: &[Key], asked: &[Key]) -> ([f64; MEASURES.len()], usize) {
    let mut table = Memtable::new();
    let late = time(|| {
        for (n, (directory, key)) in keys.iter().enumerate() {
            let (directory, commit) = (DirectoryId(*directory), Commit(n as u64 + 1));
            table.insert_late(&Entry { directory, key, commit, value: Some(&VALUE) }, None);
        }
        table.catch_up();
    });
    let mut table = Memtable::new();
    let insert = time(|| {
        for (n, (directory, key)) in keys.iter().enumerate() {
            table.insert(DirectoryId(*directory), key, Commit(n as u64 + 1), Some(&VALUE));
        }
    });
    let get = time(|| {
        for (directory, key) in asked {
            black_box(
                table.get(DirectoryId(*directory), key, Commit(u64::MAX)).and_then(|entry| entry.value),
            );
        }
    });
    let absent = time(|| {
        for (directory, key) in asked {
            black_box(table.get(DirectoryId(*directory), &key[..23], Commit(u64::MAX)));
        }
    });
    let scan = time(|| {
        let mut at = table.first_from(Place::Start);
        while let Some(here) = at {
            black_box(table.entry(here));
            at = table.next(here);
        }
    });
    let back = time(|| {
        let mut at = table.last_before(Place::End);
        while let Some(here) = at {
            black_box(table.entry(here));
            at = table.prev(here);
        }
    });
    let memory = table.memory();
    ([insert, late, get, absent, scan, back, time(|| drop(table))], memory)
}

fn btreemap(keys: &[Key], asked: &[Key]) -> [f64; MEASURES.len()] {
    let mut model = Model::new();
    let insert = time(|| {
        for (n, (directory, key)) in keys.iter().enumerate() {
            model.insert((*directory, key.clone(), Reverse(n as u64 + 1)), Some(VALUE.to_vec()));
        }
    });
    let find = |directory: u64, key: &[u8]| {
        let from = (directory, key.to_vec(), Reverse(u64::MAX));
        model.range(from..).next().filter(|(found, _)| found.0 == directory && found.1 == key).map(|(_, v)| v)
    };
    let get = time(|| {
        for (directory, key) in asked {
            black_box(find(*directory, key));
        }
    });
    let absent = time(|| {
        for (directory, key) in asked {
            black_box(find(*directory, &key[..23]));
        }
    });
    // Touch the key as a merge would: the memtable's entry reads its record's header.
    let scan = time(|| model.iter().for_each(|(key, value)| _ = black_box((key.1.first(), value))));
    let back = time(|| model.iter().rev().for_each(|(key, value)| _ = black_box((key.1.first(), value))));
    [insert, insert, get, absent, scan, back, time(|| drop(model))]
}

fn main() {
    // Cargo passes flags such as `--bench`; a plain word chooses workloads.
    let chosen = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    println!(
        "{ENTRIES} entries, 24-byte keys, {}-byte values; ns an operation, best of {ROUNDS}\n",
        VALUE.len()
    );
    print!("{:32}", "memtable | BTreeMap");
    MEASURES.iter().for_each(|measure| print!("{measure:>14}"));
    println!("{:>16}", "bytes an entry");
    for name in WORKLOADS.into_iter().filter(|name| name.contains(&chosen)) {
        let keys = workload(name);
        let mut state = 2;
        let asked: Vec<_> =
            (0..ENTRIES).map(|_| keys[random(&mut state) as usize % ENTRIES].clone()).collect();
        let (mut ours, mut theirs) = ([f64::MAX; MEASURES.len()], [f64::MAX; MEASURES.len()]);
        let mut memory = 0;
        for _ in 0..ROUNDS {
            let (measured, bytes) = memtable(&keys, &asked);
            ours.iter_mut().zip(measured).for_each(|(best, new)| *best = best.min(new));
            theirs.iter_mut().zip(btreemap(&keys, &asked)).for_each(|(best, new)| *best = best.min(new));
            memory = bytes;
        }
        print!("{name:32}");
        ours.iter()
            .zip(theirs)
            .for_each(|(ours, theirs)| print!("{:>14}", format!("{ours:.0} | {theirs:.0}")));
        println!("{:>16}", memory / ENTRIES);
    }
}
