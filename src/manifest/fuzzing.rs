//! The manifest's fuzz target: payloads, what a shard keeps in them, and whole files.
//!
//! What must hold: nothing panics; what decodes encodes to what decodes to the same; a file that opens takes an edit, and
//! opens again as that edit left it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::format::{self, Kind, RecordHead, VERSION};
use super::{Edit, Manifest, State, decode, file_name};
use crate::fuzzing::Script;
use crate::limits::PAGE_BYTES;
use crate::log::Identity;
use crate::log::testdisk::MemDisk;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const IDENTITY: Identity = Identity { engine: 0xbeef, shard: 1 };
const GENERATION: u64 = 7;
const RECORDS_MAX: usize = 8;
const FILE_PAGES: usize = 16;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 6 {
        0 => state(script.rest()),
        1 => edit(script.rest()),
        2 => crate::shard::fuzzing::facts(script.rest()),
        3 => record(script.rest()),
        4 => open(script.rest().to_vec()),
        _ => open(file(&mut script, IDENTITY, GENERATION)),
    }
}

fn state(bytes: &[u8]) {
    if let Some(state) = format::decode_state(bytes) {
        let again = format::encode_state(&state);
        assert!(again.len() <= bytes.len(), "nothing is made of nothing");
        assert_eq!(format::decode_state(&again), Some(state));
    }
}

fn edit(bytes: &[u8]) {
    if let Some(edit) = format::decode_edit(bytes) {
        let again = format::encode_edit(&edit);
        assert!(again.len() <= bytes.len());
        assert_eq!(format::decode_edit(&again), Some(edit.clone()));
        let mut state = State::default();
        if state.check(&edit).is_ok() {
            state.make(edit);
            self::state(&format::encode_state(&state));
        }
    }
}

fn record(bytes: &[u8]) {
    let _ = RecordHead::decode(bytes);
    let mut pages = bytes.to_vec();
    pages.resize(pages.len().max(1).next_multiple_of(PAGE_BYTES), 0);
    pages[8..12].copy_from_slice(b"QMAN");
    seal(&mut pages);
    if let Some((head, checksum, payload)) = RecordHead::decode(&pages) {
        let mut again = pages.clone();
        let length = head.padded_bytes().unwrap() as usize;
        assert_eq!(head.encode(payload, &mut again[..length]), checksum);
        assert_eq!(again, pages);
    }
}

/// Sets the checksum of the record at the start, over as much as its length says.
fn seal(pages: &mut [u8]) {
    let payload_bytes = u64::from_le_bytes(*pages[64..].first_chunk().unwrap());
    let padded =
        payload_bytes.checked_add(72).and_then(|bytes| bytes.checked_next_multiple_of(PAGE_BYTES as u64));
    let length = padded.map_or(pages.len(), |bytes| (bytes as usize).min(pages.len()));
    let checksum = xxh3_64(&pages[8..length]);
    pages[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Builds a file of records as a script says.
pub(crate) fn file(script: &mut Script<'_>, identity: Identity, generation: u64) -> Vec<u8> {
    let mut file = vec![0; PAGE_BYTES * FILE_PAGES];
    let (mut at, mut prev) = (0, 0);
    for number in 0..RECORDS_MAX as u64 {
        if script.is_empty() && number > 0 {
            break;
        }
        let how = script.byte();
        let payload = match how & 3 {
            0 => made(script, number == 0),
            1 => script.bytes(6000).to_vec(),
            _ => made(script, how & 4 != 0),
        };
        let other = |flag: u8, usual: u64, script: &mut Script<'_>| {
            if how & flag == 0 { usual } else { script.number() }
        };
        let kind = if (number == 0) == (how & 8 == 0) { Kind::Snapshot } else { Kind::Edit };
        let head = RecordHead {
            version: other(16, u64::from(VERSION), script) as u32,
            kind,
            identity,
            generation: other(32, generation, script),
            number: if how & 8 == 0 { number } else { script.number() },
            prev: other(64, prev, script),
            payload_bytes: payload.len() as u64,
        };
        let end = at + head.padded_bytes().unwrap() as usize;
        if end > file.len() || (kind == Kind::Snapshot) != (head.number == 0) {
            break;
        }
        prev = head.encode(&payload, &mut file[at..end]);
        if how & 128 != 0 {
            let here = at + script.number() as usize % (end - at);
            file[here] ^= script.byte();
        }
        at = end;
    }
    file
}

/// The payload of a snapshot or an edit with a few names and facts.
fn made(script: &mut Script<'_>, snapshot: bool) -> Vec<u8> {
    let name = |script: &mut Script<'_>| format!("segment-{}", script.byte() % 8);
    let mut edit = Edit::default();
    let count = script.byte();
    for _ in 0..count & 3 {
        edit.remove.push(name(script));
    }
    for _ in 0..count >> 2 & 3 {
        edit.add.push((name(script), script.bytes(200).to_vec()));
    }
    for _ in 0..count >> 4 & 7 {
        edit.facts.push((u16::from(script.byte() % 6), script.bytes(60).to_vec()));
    }
    if snapshot {
        format::encode_state(&State {
            segments: edit.add.into_iter().collect(),
            facts: edit.facts.into_iter().collect(),
        })
    } else {
        format::encode_edit(&edit)
    }
}

fn open(file: Vec<u8>) {
    let name = file_name(GENERATION);
    let pure = decode(&file, &name, IDENTITY, GENERATION).ok();
    // An edit is written where the intact records end. Where something intact lies behind that (a writer leaves nothing
    // there, but for what a torn edit held), it may come to lie right behind the edit, and is refused then.
    let behind = pure.as_ref().is_some_and(|(end, _)| {
        let offsets = (end.offset as usize..file.len()).step_by(PAGE_BYTES);
        offsets.into_iter().any(|offset| RecordHead::decode(&file[offset..]).is_some())
    });
    let pure = pure.map(|(_, state)| state);
    let disk = MemDisk::new(1);
    let whole = file.len().is_multiple_of(PAGE_BYTES);
    disk.put(&name, file);
    let state = {
        let io = disk.io();
        let opened = disk.run(&io, Manifest::open(&io, IDENTITY, 4 * PAGE_BYTES as u64)).unwrap();
        let Ok(mut manifest) = opened else { return };
        assert!(!whole || Some(manifest.state()) == pure.as_ref());
        if behind {
            return;
        }
        let remove = manifest.state().segments.keys().take(1).cloned().collect();
        let edit = Edit { add: vec![("new".into(), vec![1, 2])], remove, facts: vec![(9, vec![3])] };
        if disk.run(&io, manifest.apply(edit)).unwrap().is_err() {
            // There may be a segment of that name.
            return;
        }
        manifest.state().clone()
    };
    let disk = disk.copy();
    let io = disk.io();
    let again = disk.run(&io, Manifest::open(&io, IDENTITY, 4 * PAGE_BYTES as u64)).unwrap();
    assert_eq!(again.expect("an edited manifest opens").state(), &state);
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let state = State {
        segments: [("segment-01-000000000000004".to_string(), vec![7; 90])].into(),
        facts: [(1, vec![4, 1, 0, 1, 9, 9]), (2, vec![0, 0])].into(),
    };
    let edit = Edit {
        add: vec![("segment-02-000000000000016".to_string(), vec![8; 90])],
        remove: vec!["segment-01-000000000000004".to_string()],
        facts: vec![(4, vec![16])],
    };
    let mut file = vec![0; 2 * PAGE_BYTES];
    let mut prev = 0;
    for (number, kind, payload) in
        [(0, Kind::Snapshot, format::encode_state(&state)), (1, Kind::Edit, format::encode_edit(&edit))]
    {
        let head = RecordHead {
            version: VERSION,
            kind,
            identity: IDENTITY,
            generation: GENERATION,
            number,
            prev,
            payload_bytes: payload.len() as u64,
        };
        let at = number as usize * PAGE_BYTES;
        prev = head.encode(&payload, &mut file[at..at + PAGE_BYTES]);
    }
    let tagged = |tag: u8, bytes: &[u8]| [&[tag][..], bytes].concat();
    let mut seeds = vec![
        tagged(0, &format::encode_state(&state)),
        tagged(1, &format::encode_edit(&edit)),
        tagged(3, &file[..300]),
        tagged(4, &file),
    ];
    for how in [0u8, 1, 2, 4, 8, 16, 32, 64, 128] {
        let mut script = vec![5];
        for (at, how) in [0, how, 0].into_iter().enumerate() {
            script.extend([how, 0x24, at as u8, 3, 1, 2, 3, 1, 1, 5, 2, 2, 6, 7]);
        }
        seeds.push(script);
    }
    seeds.extend(crate::shard::fuzzing::fact_seeds().iter().map(|fact| tagged(2, fact)));
    seeds
}

/// The payload of a snapshot of these.
pub(crate) fn state_payload(segments: Vec<(String, Vec<u8>)>, facts: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    let (segments, facts) = (segments.into_iter().collect(), facts.into_iter().collect());
    format::encode_state(&State { segments, facts })
}

/// A first generation with nothing but a snapshot.
pub(crate) fn snapshot_file(payload: &[u8], identity: Identity) -> Vec<u8> {
    let mut file = vec![0; PAGE_BYTES * FILE_PAGES];
    let head = RecordHead {
        version: VERSION,
        kind: Kind::Snapshot,
        identity,
        generation: 1,
        number: 0,
        prev: 0,
        payload_bytes: payload.len() as u64,
    };
    let bytes = head.padded_bytes().unwrap() as usize;
    head.encode(payload, &mut file[..bytes]);
    file
}
