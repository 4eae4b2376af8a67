//! The fuzz target of a whole shard: it is opened on a manifest and a log that a script made, and driven for a while.
//!
//! What must hold: nothing panics, and nothing turns for ever. Whatever the manifest and the log say, each for itself
//! behind right checksums, a shard opens and answers, or says that they are damaged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::install::{
    FACT_BASE, FACT_DURABLE, FACT_HISTORY, FACT_SCHEDULE, decode_base, decode_durable, decode_history,
    decode_role, encode_base, encode_durable, encode_history,
};
use super::schedule::Schedule;
use super::{Config, Core};
use crate::codec::put_varint;
use crate::fuzzing::Script;
use crate::levels::{Budget, Commit, Divisor, Level, Retention};
use crate::limits::PAGE_BYTES;
use crate::log::LogOptions;
use crate::log::testdisk::MemDisk;
use crate::options::{Durability, Fixed, Options};
use crate::segment::{SegmentMeta, SegmentOptions};
use crate::view::Kind;

const IDENTITY: crate::log::Identity = crate::log::fuzzing::IDENTITY;
const TURNS: usize = 60;

/// What a manifest says beside the segments' names.
pub(crate) fn facts(bytes: &[u8]) {
    for divisor in [2, 4, 10] {
        let divisor = Divisor::new(divisor).unwrap();
        if let Some(schedule) = Schedule::decode(bytes, divisor) {
            assert_eq!(Schedule::decode(&schedule.encode(), divisor), Some(schedule));
        }
    }
    if let Some((end, base)) = decode_base(bytes) {
        assert_eq!(decode_base(&encode_base(end, base)), Some((end, base)));
    }
    if let Some(commit) = decode_durable(bytes) {
        assert_eq!(decode_durable(&encode_durable(commit)), Some(commit));
    }
    if let Some(history) = decode_history(bytes) {
        assert_eq!(decode_history(&encode_history(&history)), Some(history.clone()));
        let divisor = Divisor::new(4).unwrap();
        for newest in [Commit(0), Commit(17), Commit::MAX] {
            let nearest = history.nearest(divisor, Commit(9), newest);
            let _ = (history.retained(divisor, nearest, newest), history.keep_rule(divisor, newest));
            let _ = history.change(Retention::Last(3), newest);
        }
    }
    if let Some(role) = decode_role(bytes) {
        assert_eq!(role.bounds.is_some(), role.kind == Kind::Part);
        assert_eq!(role.meta.identity.kind, role.kind.to_byte());
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let divisor = u32::from(how & 3) + 2;
    let disk = MemDisk::new(1);
    let manifest = if how & 4 == 0 { described(&mut script, &disk) } else { script.bytes(4000).to_vec() };
    disk.put("manifest-00000001", manifest_file(&manifest));
    let log = crate::log::fuzzing::files(&mut script, IDENTITY);
    for (slot, file) in log.into_iter().enumerate() {
        disk.put(&format!("log-{slot:02}"), file);
    }
    open(&disk, divisor, how & 8 != 0);
}

/// A manifest with one snapshot, whose payload is given.
fn manifest_file(payload: &[u8]) -> Vec<u8> {
    crate::manifest::fuzzing::snapshot_file(payload, IDENTITY)
}

/// A snapshot's payload: facts and segments as a script says, mostly such as go together.
fn described(script: &mut Script<'_>, disk: &MemDisk) -> Vec<u8> {
    let (mut segments, mut facts) = (Vec::new(), Vec::new());
    for number in [FACT_SCHEDULE, FACT_BASE, FACT_HISTORY, FACT_DURABLE] {
        if script.flag() {
            facts.push((number, script.bytes(60).to_vec()));
        }
    }
    for _ in 0..script.byte() % 5 {
        let how = script.byte();
        let kind = how % 3;
        let name = format!("{}-{}", ["segment", "spill", "base"][usize::from(kind)], script.byte() % 8);
        let mut bytes = vec![kind];
        if kind == 2 {
            bytes.push(how >> 4 & 3);
            for _ in 0..1 + (how >> 5 & 1) {
                put_varint(&mut bytes, script.number());
                let key = script.bytes(20);
                put_varint(&mut bytes, key.len() as u64);
                bytes.extend_from_slice(key);
            }
        }
        if how & 4 == 0 {
            meta_of(script, kind).encode(&mut bytes);
            disk.put(&name, vec![0; PAGE_BYTES * 4]);
        } else {
            bytes.extend_from_slice(script.bytes(200));
        }
        segments.push((name, bytes));
    }
    crate::manifest::fuzzing::state_payload(segments, facts)
}

/// The meta of a segment of four pages.
fn meta_of(script: &mut Script<'_>, kind: u8) -> SegmentMeta {
    let empty = script.flag();
    let first = Commit(script.number());
    let entries = if empty { 0 } else { script.number().max(1) };
    let block = crate::segment::fuzzing::pointer(if empty { 0 } else { 4096 });
    let filter = crate::segment::fuzzing::pointer(if empty { 0 } else { 8192 });
    let key = if empty { Vec::new() } else { [&(1u64 << 16).to_be_bytes()[..], script.bytes(9)].concat() };
    crate::segment::fuzzing::meta(
        kind,
        Level(script.byte()),
        (first, Commit(first.0.saturating_add(script.number()))),
        (entries, script.number()),
        (block, filter),
        &key,
    )
}

fn open(disk: &MemDisk, divisor: u32, change: bool) {
    let file_bytes = (PAGE_BYTES * crate::log::fuzzing::FILE_PAGES) as u64;
    let mut fixed = Fixed::create(&Options::new().divisor(divisor), IDENTITY.engine, 1);
    fixed.log_file_bytes = file_bytes;
    let config = Config {
        shard: IDENTITY.shard,
        divisor: Divisor::new(divisor).unwrap(),
        budget: Budget { flush_bytes: 4096, base_ratio: fixed.base_ratio },
        segments: SegmentOptions::default(),
        durability: Durability::Sync,
        memtable_bytes: 1 << 20,
        group_bytes: 4 * PAGE_BYTES,
        manifest_bytes: 8 * PAGE_BYTES as u64,
        fixed,
    };
    let log = LogOptions { file_bytes, files_max: 3, depth: 2, group_bytes_max: 4 * PAGE_BYTES };
    let io = disk.io();
    let retention = change.then_some(Retention::Last(5));
    let opened = disk.run(&io, Core::open(io.clone(), config, log, 1 << 20, retention));
    let Ok((core, _)) = opened.expect("the disk does not crash") else { return };
    for _ in 0..TURNS {
        let _ = core.turn();
        io.wait();
    }
    let _ = (core.last(), core.frame(), core.retained(), core.segments());
    let _ = core.frame_as_of(Commit(3));
    // What waits for the disk holds the shard, and the shard it.
    core.let_go();
}

#[cfg(test)]
pub(crate) fn fact_seeds() -> Vec<Vec<u8>> {
    use crate::levels::History;
    let mut seeds = vec![encode_base(Commit(64), 1000), encode_durable(Commit(99))];
    for retention in [Retention::None, Retention::Forever, Retention::LastAndLevel(9, Level(2))] {
        let history = History::new(retention);
        seeds.push(encode_history(&history));
        seeds.push(encode_history(&history.change(Retention::Level(Level(3)), Commit(77))));
    }
    let mut schedule = Schedule::new(Divisor::new(4).unwrap(), true);
    for _ in 0..100 {
        schedule.step(500, 0, &Budget { flush_bytes: 4096, base_ratio: 8 });
    }
    seeds.push(schedule.encode());
    seeds
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let facts = fact_seeds();
    let schedule = facts.last().unwrap();
    let mut seeds = Vec::new();
    let log = [3, 0, 2, 0, 2, 3, 0, 0, 0, 3, 0, 0, 0, 0, 1, 2, 0, 0];
    for how in [0u8, 1, 2, 8, 10] {
        // Nothing but a log.
        seeds.push([&[how, 0, 0, 0, 0, 0][..], &log].concat());
        // A schedule, a history.
        let history = &facts[2 + usize::from(how) % 5];
        let mut seed = vec![how, 1, schedule.len() as u8];
        seed.extend_from_slice(schedule);
        seed.extend([0, 1, history.len() as u8]);
        seed.extend_from_slice(history);
        seed.extend([0, 0]);
        seed.extend_from_slice(&log);
        seeds.push(seed);
        // A schedule at commit 4, a window up to it, a spill behind.
        let mut seed = vec![how, 1, 6, 4, 1, 0, 0, 0, 0, 0, 0, 0];
        seed.extend([2, 0, 0, 0, 1, 3, 2, b'k', b'k', 1, 3, 9, 1, 1, 0, 5, 0, 1, b'k', 0, 0, 9]);
        seed.extend_from_slice(&log);
        seeds.push(seed);
    }
    seeds
}
