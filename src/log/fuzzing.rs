//! The log's fuzz target: headers, groups, records, and whole folders of log files.
//!
//! What must hold: nothing panics; what decodes encodes to the same bytes; whatever the files hold, replay gives the
//! commits above the floor one by one, without a gap; and opening the log a second time gives the same commits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::format::{FILE_FIELDS_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHead, Identity, VERSION};
use super::guess::Records;
use super::testdisk::MemDisk;
use super::{Log, LogOptions};
use crate::codec::put_prefixed;
use crate::fuzzing::Script;
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use crate::shard::record;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) const IDENTITY: Identity = Identity { engine: 0x51, shard: 3 };
/// Files of 16 pages: room for what a small input can say.
pub(crate) const FILE_PAGES: usize = 16;
const FILES_MAX: usize = 4;
const GROUPS_MAX: usize = 10;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 5 {
        0 => header(script.rest()),
        1 => group(script.rest()),
        2 => records(script.rest()),
        3 => {
            // A file as it is.
            let floor = script.number();
            recover(&[script.rest().to_vec()], Commit(floor));
        }
        _ => {
            let floor = Commit(script.number());
            recover(&files(&mut script, IDENTITY), floor);
        }
    }
}

fn header(bytes: &[u8]) {
    let _ = FileHeader::decode(bytes);
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    page[..8].copy_from_slice(b"QUIPULOG");
    // Not read, and written as zeros.
    page[14..16].fill(0);
    let checksum = xxh3_64(&page[..FILE_FIELDS_BYTES]);
    page[FILE_FIELDS_BYTES..FILE_FIELDS_BYTES + 8].copy_from_slice(&checksum.to_le_bytes());
    let mark = xxh3_64(&page[512..528]);
    page[528..536].copy_from_slice(&mark.to_le_bytes());
    let read = FileHeader::decode(&page).expect("a sealed header reads");
    let mut again = vec![0; PAGE_BYTES];
    read.encode(&mut again);
    assert_eq!(FileHeader::decode(&again), Some(read));
    assert_eq!(again[16..64], page[16..64], "all fields are kept");
}

/// Puts the magic and both checksums of a group where they belong.
fn seal(group: &mut [u8], seed: u64) {
    group[8..12].copy_from_slice(b"QGRP");
    let check = xxh3_64_with_seed(&group[8..52], seed) as u32;
    group[52..56].copy_from_slice(&check.to_le_bytes());
    let checksum = xxh3_64_with_seed(&group[8..], seed);
    group[..8].copy_from_slice(&checksum.to_le_bytes());
}

fn group(bytes: &[u8]) {
    let seed = IDENTITY.seed();
    let _ = (GroupHead::peek(bytes, seed), GroupHead::decode(bytes, seed));
    let mut sealed = bytes.to_vec();
    sealed.resize(sealed.len().max(1).next_multiple_of(PAGE_BYTES), 0);
    seal(&mut sealed, seed);
    let Some((head, checksum)) = GroupHead::decode(&sealed, seed) else { return };
    assert_eq!(GroupHead::peek(&sealed, seed), Some(head));
    let mut again = sealed.clone();
    assert_eq!(head.encode(&mut again, seed), checksum);
    assert_eq!(again, sealed);
    let mut records = head.records(&sealed).expect("a group holds its payload");
    while let Some(bytes) = records.prefixed() {
        self::records(bytes);
    }
}

fn records(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut count = 0;
    let read = record::each_op(bytes, |directory, key, value| {
        record::put_op(&mut again, directory, key, value);
        count += 1;
    });
    if read.is_some() {
        let mut third = Vec::new();
        record::each_op(&again, |directory, key, value| {
            record::put_op(&mut third, directory, key, value);
            count -= 1;
        });
        assert!(count == 0 && third == again && again.len() <= bytes.len());
    }
}

/// Builds log files as a script says: most of it as a log would, some of it not.
pub(crate) fn files(script: &mut Script<'_>, identity: Identity) -> Vec<Vec<u8>> {
    let seed = identity.seed();
    let mut checksums = vec![0u64];
    let mut next = 1u64;
    let mut files = Vec::new();
    while !script.is_empty() && files.len() < FILES_MAX {
        let mut file = vec![0; PAGE_BYTES * FILE_PAGES];
        let sequence = u64::from(script.byte());
        let how = script.byte();
        let mut at = PAGE_BYTES;
        for _ in 0..usize::from(script.byte()).min(GROUPS_MAX) {
            let flags = script.byte();
            let mut payload = Vec::new();
            let mut count = u64::from(script.byte() % 8);
            for _ in 0..count {
                put_prefixed(&mut payload, script.bytes(300));
            }
            if flags & 1 != 0 {
                // Records that may make no sense.
                payload = script.bytes(5000).to_vec();
                count = script.number();
            }
            let prev = if flags & 2 == 0 {
                checksums[checksums.len() - 1]
            } else {
                checksums[usize::from(script.byte()) % checksums.len()]
            };
            let first = if flags & 4 == 0 { next } else { script.number() };
            let durable =
                first.wrapping_sub(1 + u64::from(flags >> 6)).wrapping_add(u64::from(flags >> 5 & 1) * 2);
            let of = if flags & 8 == 0 { sequence } else { u64::from(script.byte()) };
            at += if flags & 16 == 0 { 0 } else { PAGE_BYTES };
            let end = at + (GROUP_HEADER_BYTES + payload.len()).next_multiple_of(PAGE_BYTES);
            if end > file.len() {
                break;
            }
            let group = &mut file[at..end];
            group[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            group[16..24].copy_from_slice(&of.to_le_bytes());
            group[24..32].copy_from_slice(&prev.to_le_bytes());
            group[32..40].copy_from_slice(&first.to_le_bytes());
            group[40..48].copy_from_slice(&durable.to_le_bytes());
            group[48..52].copy_from_slice(&(count as u32).to_le_bytes());
            group[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + payload.len()].copy_from_slice(&payload);
            seal(group, seed);
            checksums.push(u64::from_le_bytes(*group.first_chunk().unwrap()));
            next = first.wrapping_add(count);
            at = end;
        }
        if how & 1 == 0 {
            let file_bytes = if how & 2 == 0 { file.len() as u64 } else { script.number() };
            let sealed_at = if how & 4 == 0 { 0 } else { at as u64 };
            let version = if how & 8 == 0 { VERSION } else { u32::from(script.byte()) };
            let durable = Commit(if how & 64 == 0 { 0 } else { script.number() });
            let header = FileHeader { version, identity, sequence, file_bytes, durable, sealed_at };
            header.encode(&mut file[..PAGE_BYTES]);
        }
        if how & 16 != 0 {
            let at = script.number() as usize % file.len();
            file[at] ^= script.byte();
        }
        if how & 32 != 0 {
            file.truncate(script.number() as usize % file.len());
        }
        files.push(file);
    }
    files
}

fn options() -> LogOptions {
    let file_bytes = (PAGE_BYTES * FILE_PAGES) as u64;
    LogOptions { file_bytes, files_max: 3, depth: 2, group_bytes_max: 4 * PAGE_BYTES }
}

/// Opens the log; the records it gave, if it opened.
fn open(disk: &MemDisk, floor: Commit) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut records = Records::behind(floor);
    let io = disk.io();
    let opened = disk.run(&io, Log::recover(&io, options(), IDENTITY, floor, floor, &mut records));
    opened.expect("the disk does not crash").ok().map(|_| records.seen)
}

fn recover(files: &[Vec<u8>], floor: Commit) {
    let disk = MemDisk::new(1);
    for (slot, bytes) in files.iter().enumerate() {
        disk.put(&super::files::slot_name(slot as u32), bytes.clone());
    }
    let Some(seen) = open(&disk, floor) else { return };
    let again = open(&disk.copy(), floor);
    assert_eq!(again.as_ref(), Some(&seen), "the next opening decides the same");
}

/// Real headers, groups and records, and scripts that make logs as they are.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    use crate::entry::DirectoryId;
    let mut page = vec![0; PAGE_BYTES];
    let header = FileHeader {
        version: VERSION,
        identity: IDENTITY,
        sequence: 9,
        file_bytes: 65536,
        durable: Commit(7),
        sealed_at: 8192,
    };
    header.encode(&mut page);
    let mut record = Vec::new();
    record::put_op(&mut record, DirectoryId(7 << 16), b"key", Some(b"value"));
    record::put_op(&mut record, DirectoryId(0), b"gone", None);
    let mut payload = Vec::new();
    put_prefixed(&mut payload, &record);
    put_prefixed(&mut payload, &record);
    let mut group = vec![0; PAGE_BYTES];
    group[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + payload.len()].copy_from_slice(&payload);
    let head = GroupHead {
        sequence: 9,
        prev: 0,
        first: Commit(1),
        count: 2,
        durable: Commit(0),
        payload_bytes: payload.len() as u32,
    };
    head.encode(&mut group, IDENTITY.seed());
    let tagged = |tag: u8, bytes: &[u8]| [&[tag][..], bytes].concat();
    let mut whole = page.clone();
    whole.extend_from_slice(&group);
    let mut seeds = vec![
        tagged(0, &page[..540]),
        tagged(1, &group[..GROUP_HEADER_BYTES + payload.len()]),
        tagged(2, &record),
        [&[3, 0][..], &whole].concat(),
        [&[3, 1][..], &group].concat(),
    ];
    // Floor; per file: sequence, how, groups; per group: flags, count, records.
    for how in [0, 1, 4, 16, 32] {
        for flags in [0, 1, 2, 4, 8, 16, 32, 64] {
            let mut script = vec![4, how % 3];
            for sequence in [3, 5] {
                script.extend([
                    sequence, how, 2, 0, 2, 3, b'a', b'b', b'c', 1, b'd', flags, 1, 2, b'x', b'y', 0, 0,
                ]);
            }
            seeds.push(script);
        }
    }
    seeds
}
