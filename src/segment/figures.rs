//! Figures: what a segment's operations cost, in CPU time of the thread. They state no property.

use super::test_disk::block_on;
use super::tests::{IDENTITY, Random, fixture, lz4};
use super::*;
use crate::entry::{DirectoryId, Entry};
use crate::levels::Commit;

/// How long this thread has been running: the machine may be shared.
fn cpu_time() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    std::time::Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// Figures for the report: `cargo test --release segment_figures -- --ignored --nocapture`.
#[test]
#[ignore = "measures; no property"]
fn segment_figures() {
    let count = 1_000_000u64;
    let mut random = Random(1);
    let key = |at: u64| format!("user{:020}", at * 7);
    let values: Vec<u8> = random.bytes(1 << 20);
    for options in [SegmentOptions::default(), lz4()] {
        let start = cpu_time();
        let mut writer = SegmentWriter::new(options, IDENTITY);
        let mut bytes = Vec::with_capacity(200 << 20);
        let mut copied = std::time::Duration::ZERO;
        let mut key_buffer = key(0).into_bytes();
        for at in 0..count {
            let mut number = at * 7;
            for digit in key_buffer.iter_mut().rev().take(20) {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
            let value = &values[(at * 64 % (1 << 19)) as usize..][..100];
            let directory = DirectoryId(1 << 16);
            writer.add(&Entry {
                directory,
                key: &key_buffer,
                commit: Commit(1001 + at % 100),
                value: Some(value),
            });
            if let Some(chunk) = writer.take_output() {
                let copy = cpu_time();
                bytes.extend_from_slice(&chunk);
                writer.recycle(chunk);
                copied += cpu_time() - copy;
            }
        }
        let Finished { chunks: rest, meta, .. } = writer.finish();
        rest.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        let took = cpu_time() - start - copied;
        println!(
            "{:?}: add {} ns, {} bytes/entry",
            options.compression,
            took.as_nanos() / u128::from(count),
            bytes.len() as u64 / count
        );

        let fixture = fixture(bytes, meta, 1 << 30);
        for name in ["stream", "scan, cold", "scan, cached"] {
            let mut cursor = match name {
                "stream" => SegmentCursor::stream(fixture.segment.clone()),
                _ => SegmentCursor::scan(fixture.segment.clone(), fixture.cache.clone()),
            };
            let start = cpu_time();
            let sum = block_on(&fixture.io, async {
                let mut sum = 0;
                let mut more = cursor.seek_first().await.unwrap();
                while more {
                    sum += cursor.entry().map_or(0, |entry| entry.size());
                    more = cursor.next().await.unwrap();
                }
                sum
            });
            println!("  {name}: {} ns/entry ({sum})", (cpu_time() - start).as_nanos() / u128::from(count));
        }
        let keys: Vec<String> = (0..200_000).map(|_| key(random.below(count))).collect();
        let small: Vec<String> = (0..200_000).map(|_| key(random.below(2000))).collect();
        let absent: Vec<String> = (0..200_000).map(|_| key(random.below(count)) + "x").collect();
        for (name, keys) in
            [("warm up", &keys), ("get, all cached", &keys), ("get, hot 2000", &small), ("absent", &absent)]
        {
            // The best of several rounds: the machine is shared.
            let mut best = std::time::Duration::MAX;
            let mut found = 0;
            for _ in 0..5 {
                let start = cpu_time();
                found = 0;
                for key in keys {
                    found += u32::from(
                        fixture.get(DirectoryId(1 << 16), key.as_bytes(), Commit(1100)).unwrap().is_some(),
                    );
                }
                best = best.min(cpu_time() - start);
            }
            println!("  {name}: {} ns ({found} found)", best.as_nanos() / keys.len() as u128);
        }
    }
}
