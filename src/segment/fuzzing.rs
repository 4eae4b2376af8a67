//! The segment's fuzz targets: one block; and whole files, with header, footer, filters and index.
//!
//! What must hold: nothing panics, and no walk is endless; in a block whose entries ascend, every search agrees with a
//! look at one entry after the other; a file that passes verification reads the same forwards and backwards,
//! streamed and through the cache, and every entry is found where it stands; a file that was not touched holds
//! what was written.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::block::{
    BLOCK_HEADER_BYTES, Block, BlockKind, BlockPtr, Stored, Target, block_checksum, open_filter,
};
use super::filter::{Filter, key_hash};
use super::meta::{
    Child, Compression, TRAILER_BYTES, check_header, footer_bytes_of, footer_checksum, read_footer,
};
use super::test_disk::{block_on, memory_disk};
use super::{
    Finished, MAGIC_FOOTER, MAGIC_HEADER, Segment, SegmentCursor, SegmentIdentity, SegmentMeta,
    SegmentOptions, SegmentWriter, VERSION,
};
use crate::cache::BlockCache;
use crate::codec::{Reader, put_varint};
use crate::disk::io::Io;
use crate::entry::{DirectoryId, Entry};
use crate::error::Result;
use crate::fuzzing::Script;
use crate::levels::{Commit, Level};
use crate::limits::{KEY_BYTES_MAX, PAGE_BYTES};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

const FIRST: u64 = 1001;
const ENTRIES_MAX: usize = 60;
/// No file that is built here has more entries, whatever is patched in it.
const STEPS_MAX: usize = 100_000;
/// A block this long is searched for its own entries; beyond, for the first of them only.
const TARGETS_MAX: usize = 12;
/// Where the content hash stands in a meta's bytes.
const CONTENT_HASH_AT: usize = 34;

fn identity(window: u64) -> SegmentIdentity {
    let last = Commit(FIRST.saturating_add(window));
    SegmentIdentity { kind: 0, level: Level(3), shard: 2, first: Commit(FIRST), last, part: 0 }
}

// One block.

pub(crate) fn block(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = [BlockKind::Data, BlockKind::Leaf, BlockKind::Node][usize::from(script.byte() % 3)];
    let how = script.byte();
    let offset = script.number() % (1 << 40);
    let meta = bounds(script.number());
    let wide = how & 64 != 0;
    let (payload, count, raw_bytes, encoding) = match how % 4 {
        0 => {
            let bytes = script.rest();
            let ptr = BlockPtr { offset, bytes: bytes.len() as u32 };
            let shared = Stored::Shared(bytes::Bytes::copy_from_slice(bytes));
            assert!(Block::decode(&shared, ptr, kind, 0, &meta.identity).is_err(), "a checksum was guessed");
            let _ = open_filter(&Stored::Borrowed(bytes), ptr, BlockKind::KeyFilter, 0);
            if let Some(filter) = Filter::from_bytes(bytes) {
                filter.may_contain(offset);
            }
            return;
        }
        1 => {
            let count = script.number() as u32;
            let payload = script.rest().to_vec();
            let raw_bytes = payload.len() as u32;
            (payload, count, raw_bytes, 0)
        }
        2 => {
            let (count, raw_bytes) = (script.number() as u32, script.number() as u32);
            (script.rest().to_vec(), count, raw_bytes, 1)
        }
        _ => {
            let (payload, count) = built(&mut script, kind, wide);
            let raw_bytes = payload.len() as u32;
            (payload, count, raw_bytes, 0)
        }
    };
    let seed = meta.identity.seed();
    let mut stored = vec![0; 8];
    stored.extend_from_slice(&((BLOCK_HEADER_BYTES + payload.len()) as u32).to_le_bytes());
    stored.extend_from_slice(&raw_bytes.to_le_bytes());
    stored.extend_from_slice(&count.to_le_bytes());
    stored.extend_from_slice(&[kind as u8, encoding, if wide { 4 } else { 2 }, 0]);
    stored.extend_from_slice(&payload);
    let checksum = block_checksum(&stored, seed, offset);
    stored[..8].copy_from_slice(&checksum.to_le_bytes());
    let ptr = BlockPtr { offset, bytes: stored.len() as u32 };
    if let Ok(block) = Block::decode(&Stored::Borrowed(&stored), ptr, kind, seed, &meta.identity) {
        let shared = Stored::Shared(bytes::Bytes::from(stored));
        assert!(Block::decode(&shared, ptr, kind, seed, &meta.identity).is_ok());
        search(&block, ptr, &meta);
    }
}

/// What bounds a block: the window.
fn bounds(window: u64) -> SegmentMeta {
    SegmentMeta {
        identity: identity(window),
        compression: Compression::None,
        entries: 0,
        tombstones: 0,
        directories: 0,
        raw_bytes: 0,
        file_bytes: 1 << 41,
        content_hash: 0,
        root: Child::default(),
        depth: 0,
        directory_filter: BlockPtr::default(),
        min_full_key: Box::default(),
        max_full_key: Box::default(),
    }
}

/// A payload laid out from entries that the script gives, in order or not.
fn built(script: &mut Script<'_>, kind: BlockKind, wide: bool) -> (Vec<u8>, u32) {
    let sorted = script.flag();
    let prefix = script.bytes(300);
    let mut entries = Vec::new();
    let mut child_at = 0u64;
    while !script.is_empty() && entries.len() < ENTRIES_MAX {
        let suffix = script.bytes(200);
        let (distance, put) = (script.number(), script.flag());
        let value = if kind == BlockKind::Data {
            script.bytes(100).to_vec()
        } else {
            let bytes = (BLOCK_HEADER_BYTES as u64).wrapping_add(script.number());
            let mut value = Vec::new();
            put_varint(&mut value, child_at);
            put_varint(&mut value, bytes);
            if kind == BlockKind::Node {
                put_varint(&mut value, script.number());
                put_varint(&mut value, script.number());
            }
            child_at = child_at.wrapping_add(bytes).wrapping_add(u64::from(script.byte()));
            value
        };
        entries.push((suffix, distance, put, value));
    }
    if sorted {
        // The values of an index keep their order: its children ascend with its separators.
        let values: Vec<Vec<u8>> = entries.iter_mut().map(|entry| std::mem::take(&mut entry.3)).collect();
        entries.sort();
        entries.dedup_by_key(|entry| (entry.0, entry.1));
        entries.iter_mut().zip(values).for_each(|(entry, value)| entry.3 = value);
    }
    let mut payload = (prefix.len() as u16).to_le_bytes().to_vec();
    payload.extend_from_slice(prefix);
    let mut offsets = Vec::new();
    for (suffix, distance, put, value) in &entries {
        match wide {
            true => offsets.extend_from_slice(&(payload.len() as u32).to_le_bytes()),
            false => offsets.extend_from_slice(&(payload.len() as u16).to_le_bytes()),
        }
        let put = *put || kind != BlockKind::Data;
        put_varint(&mut payload, (suffix.len() as u64) << 1 | u64::from(put));
        payload.extend_from_slice(suffix);
        put_varint(&mut payload, *distance);
        if put {
            payload.extend_from_slice(value);
        }
    }
    payload.extend_from_slice(&offsets);
    (payload, entries.len() as u32)
}

/// Looks at every entry of a block in every way.
fn search(block: &Block, ptr: BlockPtr, meta: &SegmentMeta) {
    let mut entries: Vec<(Vec<u8>, u64)> = Vec::new();
    let mut child_end = 0;
    for at in 0..block.count() {
        let (entry, range) = block.entry_and_range(at);
        assert_eq!(block.slice(range), entry.value);
        assert_eq!(block.value_shared(at), entry.value);
        let full_key = [block.prefix(), entry.suffix].concat();
        assert!(full_key.len() <= 8 + KEY_BYTES_MAX);
        if block.kind() == BlockKind::Data {
            assert!(full_key.len() >= 8 && entry.distance <= meta.identity.last.0 - meta.identity.first.0);
            assert!(entry.is_put || entry.value.is_empty());
        } else {
            let child = block.child(at);
            assert!(!child.block.is_absent() && child.block.offset >= child_end);
            child_end = child.block.end();
            assert!(child_end <= ptr.offset, "children lie before their parent");
        }
        entries.push((full_key, entry.distance));
    }
    let ascend = entries.is_sorted_by(|one, other| one < other);
    for at in 0..entries.len().min(TARGETS_MAX) {
        let (key, distance) = entries[at].clone();
        let mut keys =
            vec![key.clone(), [&key[..], &[0]].concat(), key[..key.len().saturating_sub(1)].to_vec()];
        if let Some(last) = keys[0].clone().last_mut() {
            *last = last.wrapping_add(1);
            let mut other = key.clone();
            *other.last_mut().unwrap() = *last;
            keys.push(other);
        }
        for key in keys {
            for distance in [distance, distance.saturating_sub(1), distance.saturating_add(1)] {
                let Some((directory, rest)) = super::meta::split_full_key(&key) else { continue };
                let target = Target::new(directory, rest, distance);
                let (below, upto) = (block.rank(&target, false), block.rank(&target, true));
                let (found, child) = (block.find(&target), block.child_of(&target));
                assert!(below <= entries.len() && upto <= entries.len());
                if !ascend {
                    continue;
                }
                let place = (key.clone(), distance);
                let linear = entries.iter().take_while(|entry| **entry < place).count();
                assert_eq!(below, linear);
                let linear_upto = entries.iter().take_while(|entry| **entry <= place).count();
                assert_eq!(upto, linear_upto);
                assert_eq!(child, linear_upto.checked_sub(1));
                let at = entries.get(linear).filter(|entry| entry.0 == key).map(|_| linear);
                assert_eq!(found, at);
            }
        }
    }
}

// Whole files.

pub(crate) fn segment(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    match how % 4 {
        0 => ends(&mut script),
        1 => sealed_meta(script.rest()),
        _ => file(&mut script, how),
    }
}

/// Header and footer as they are.
fn ends(script: &mut Script<'_>) {
    let file_bytes = script.number();
    let bytes = script.rest();
    let _ = check_header(bytes, &identity(99));
    let _ = footer_bytes_of(bytes);
    let _ = read_footer(bytes, file_bytes);
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    seal_header(&mut page);
    let _ = check_header(&page, &identity(99));
}

/// A meta behind a right checksum.
fn sealed_meta(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let direct = SegmentMeta::decode(&mut reader).filter(|_| reader.is_empty());
    let total = (bytes.len() + TRAILER_BYTES).next_multiple_of(PAGE_BYTES);
    let mut footer = bytes.to_vec();
    footer.resize(total - TRAILER_BYTES + 8, 0);
    footer.extend_from_slice(&(total as u32).to_le_bytes());
    footer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&[0; 4]);
    footer.extend_from_slice(&MAGIC_FOOTER.to_le_bytes());
    seal_footer(&mut footer);
    let file_bytes = direct.as_ref().map_or(0, |meta| meta.file_bytes);
    let read = read_footer(&footer, file_bytes).ok();
    assert_eq!(read, direct.filter(|_| total <= super::meta::FOOTER_BYTES_MAX));
    if let Some(meta) = read {
        let mut again = Vec::new();
        meta.encode(&mut again);
        let mut reader = Reader::new(&again);
        assert_eq!(SegmentMeta::decode(&mut reader).as_ref(), Some(&meta));
        assert!(reader.is_empty() && again.len() <= bytes.len());
        assert!(meta.min() <= meta.max());
    }
}

fn seal_header(page: &mut [u8]) {
    page[..8].copy_from_slice(&MAGIC_HEADER.to_le_bytes());
    let checksum = xxh3_64_with_seed(&page[16..], MAGIC_HEADER);
    page[8..16].copy_from_slice(&checksum.to_le_bytes());
}

fn seal_footer(footer: &mut [u8]) {
    let at = footer.len() - TRAILER_BYTES;
    let checksum = footer_checksum(footer);
    footer[at..at + 8].copy_from_slice(&checksum.to_le_bytes());
}

type Model = BTreeMap<(DirectoryId, Vec<u8>, Reverse<Commit>), Option<Vec<u8>>>;

/// Entries that the script gives; some with long keys, so that the index gets deep.
fn entries(script: &mut Script<'_>, window: u64) -> Model {
    let mut model = Model::new();
    for _ in 0..usize::from(script.byte()).min(ENTRIES_MAX) {
        let how = script.byte();
        let directory = DirectoryId((1 << 16) + u64::from(how & 3));
        let mut key = script.bytes(40).to_vec();
        if how & 4 != 0 {
            key.resize(2000 + usize::from(script.byte()) * 32, how);
            key.extend_from_slice(script.bytes(4));
        }
        let commit = Commit(FIRST + script.number() % (window + 1));
        let mut value = script.bytes(40).to_vec();
        if how & 8 != 0 {
            value.resize(usize::from(script.byte()) * 256, how);
        }
        model.insert((directory, key, Reverse(commit)), (how & 16 == 0).then_some(value));
    }
    model
}

fn write(model: &Model, options: SegmentOptions, window: u64) -> (Vec<u8>, SegmentMeta) {
    let mut writer = SegmentWriter::new(options, identity(window));
    let mut bytes = Vec::new();
    for ((directory, key, Reverse(commit)), value) in model {
        writer.add(&Entry { directory: *directory, key, commit: *commit, value: value.as_deref() });
        while let Some(chunk) = writer.take_output() {
            bytes.extend_from_slice(&chunk);
        }
    }
    let Finished { chunks: rest, meta, .. } = writer.finish();
    rest.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    (bytes, meta)
}

/// Makes every checksum right again, from the footer down, as far as pointers lead.
fn seal(file: &mut [u8]) {
    seal_header(&mut file[..PAGE_BYTES]);
    let Ok(footer_bytes) = footer_bytes_of(file) else { return };
    let Some(footer_at) = file.len().checked_sub(footer_bytes) else { return };
    if let Some(meta) = SegmentMeta::decode(&mut Reader::new(&file[footer_at..])) {
        let mut queue = vec![
            (meta.directory_filter, None),
            (meta.root.filter, None),
            (meta.root.block, Some(meta.depth)),
        ];
        let mut sealed = 0;
        while let Some((ptr, depth)) = queue.pop() {
            sealed += 1;
            if ptr.is_absent() || !ptr.fits(footer_at as u64) || sealed > 1000 {
                continue;
            }
            let stored = &mut file[ptr.offset as usize..ptr.end() as usize];
            let checksum = block_checksum(stored, meta.identity.seed(), ptr.offset);
            stored[..8].copy_from_slice(&checksum.to_le_bytes());
            let (kind, below) = match depth {
                None | Some(0) => continue,
                Some(1) => (BlockKind::Leaf, 0),
                Some(depth) => (BlockKind::Node, depth - 1),
            };
            let stored = Stored::Borrowed(stored);
            if let Ok(block) = Block::decode(&stored, ptr, kind, meta.identity.seed(), &meta.identity) {
                for at in 0..block.count() {
                    let child = block.child(at);
                    queue.push((child.filter, None));
                    queue.push((child.block, Some(below)));
                }
            }
        }
        let hash = xxh3_128(&file[..footer_at]);
        file[footer_at + CONTENT_HASH_AT..footer_at + CONTENT_HASH_AT + 16]
            .copy_from_slice(&hash.to_le_bytes());
    }
    seal_footer(&mut file[footer_at..]);
}

fn file(script: &mut Script<'_>, how: u8) {
    let window = script.number() % 1000;
    let compression = if how & 4 == 0 { Compression::None } else { Compression::Lz4 };
    let filter_bits_per_key = 10;
    let model = entries(script, window);
    let (mut bytes, written) = write(&model, SegmentOptions { compression, filter_bits_per_key }, window);
    let mut touched = false;
    while !script.is_empty() {
        // Counted from the end, where the footer and the index are.
        let at = bytes.len() - 1 - script.number() as usize % bytes.len();
        let xor = script.byte();
        bytes[at] ^= xor;
        touched |= xor != 0;
    }
    if how & 8 == 0 {
        seal(&mut bytes);
    }
    let footer = footer_bytes_of(&bytes).ok().and_then(|footer| bytes.len().checked_sub(footer));
    let read = footer.and_then(|at| read_footer(&bytes[at..], bytes.len() as u64).ok());
    if !touched {
        assert_eq!(read.as_ref(), Some(&written));
    }
    let meta = read.unwrap_or(written);
    let (io, files) = memory_disk();
    files.borrow_mut().by_name.insert("s".into(), bytes);
    let cache = Rc::new(BlockCache::new(1 << 20));
    let segment = Rc::new(Segment::new(io.clone(), "s".into(), meta, cache.segment_number()));
    let sound = block_on(&io, segment.verify()).is_ok();
    assert!(touched || sound);

    let stream = walk(&io, SegmentCursor::stream(segment.clone()), false);
    let forwards = walk(&io, SegmentCursor::scan(segment.clone(), cache.clone()), false);
    let backwards = walk(&io, SegmentCursor::scan(segment.clone(), cache.clone()), true);
    let probes: Vec<Version> =
        model.iter().map(|((d, key, at), value)| (*d, key.clone(), at.0, value.clone())).collect();
    for (directory, key, commit, value) in probes.iter().take(TARGETS_MAX) {
        let hash = key_hash(*directory, key);
        let found = block_on(&io, segment.get(&cache, *directory, key, hash, *commit));
        if !touched {
            let found = found.unwrap().expect("what was written is found");
            assert!(found.commit == *commit && found.value.as_deref() == value.as_deref());
        }
        let mut cursor = SegmentCursor::scan(segment.clone(), cache.clone());
        let _ = block_on(&io, cursor.seek(*directory, key, *commit));
        let _ = block_on(&io, cursor.seek_before(*directory, key, *commit));
        let _ = (cursor.seek_now(*directory, key, *commit, false), cursor.entry());
        let _ = (cursor.seek_now(*directory, key, *commit, true), cursor.entry());
    }
    if !sound {
        return;
    }
    let (stream, forwards) = (stream.expect("sound"), forwards.expect("sound"));
    let mut backwards = backwards.expect("sound");
    backwards.reverse();
    assert!(stream == forwards && forwards == backwards);
    assert_eq!(stream.len() as u64, segment.meta().entries);
    assert!(touched || stream == probes);
    for (at, (directory, key, commit, value)) in stream.iter().enumerate().take(TARGETS_MAX) {
        let hash = key_hash(*directory, key);
        let found = block_on(&io, segment.get(&cache, *directory, key, hash, *commit));
        let found = found.unwrap().expect("what verification saw is found");
        assert!(found.commit == *commit && found.value.as_deref() == value.as_deref());
        let mut cursor = SegmentCursor::scan(segment.clone(), cache.clone());
        assert!(block_on(&io, cursor.seek(*directory, key, *commit)).unwrap());
        assert_eq!(cursor.entry().unwrap().key, key);
        assert_eq!(block_on(&io, cursor.seek_before(*directory, key, *commit)).unwrap(), at > 0);
    }
}

type Version = (DirectoryId, Vec<u8>, Commit, Option<Vec<u8>>);

/// All entries from one end to the other.
fn walk(io: &Io, mut cursor: SegmentCursor, back: bool) -> Result<Vec<Version>> {
    let mut seen = Vec::new();
    let start = async { if back { cursor.seek_last().await } else { cursor.seek_first().await } };
    let mut more = block_on(io, start)?;
    while more {
        let entry = cursor.entry().expect("on an entry");
        seen.push((entry.directory, entry.key.to_vec(), entry.commit, entry.value.map(<[u8]>::to_vec)));
        assert!(seen.len() < STEPS_MAX, "a walk without an end");
        more = block_on(io, async { if back { cursor.prev().await } else { cursor.next().await } })?;
    }
    Ok(seen)
}

/// The payloads of a real file's blocks.
#[cfg(test)]
pub(crate) fn block_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, how) in [(0u8, 0u8), (1, 4), (2, 8)] {
        let mut script = vec![30];
        for entry in 0..30u8 {
            let long = if entry % 3 == 0 { 4 } else { 0 };
            script.extend([how | long | (entry & 16) | (entry & 3), 3, b'k', entry / 2, entry]);
            if long != 0 {
                script.extend([entry * 4, 1, entry]);
            }
            script.extend([entry, 3, b'v', b'v', entry]);
            if how & 8 != 0 {
                script.push(1);
            }
        }
        let model = entries(&mut Script::new(&script), 50);
        let compression = if at == 1 { Compression::Lz4 } else { Compression::None };
        let (bytes, meta) = write(&model, SegmentOptions { compression, filter_bits_per_key: 10 }, 50);
        let mut queue = vec![(meta.root.block, meta.depth)];
        while let Some((ptr, depth)) = queue.pop() {
            let (tag, kind) = match depth {
                0 => (0, BlockKind::Data),
                1 => (1, BlockKind::Leaf),
                _ => (2, BlockKind::Node),
            };
            let stored = &bytes[ptr.offset as usize..ptr.end() as usize];
            let block =
                Block::decode(&Stored::Borrowed(stored), ptr, kind, meta.identity.seed(), &meta.identity)
                    .unwrap();
            let how = if stored[21] == 0 { 1 } else { 2 };
            let mut seed = vec![tag, how | if stored[22] == 4 { 64 } else { 0 }];
            put_varint(&mut seed, ptr.offset);
            put_varint(&mut seed, 50);
            put_varint(&mut seed, block.count() as u64);
            if how == 2 {
                put_varint(&mut seed, u64::from(u32::from_le_bytes(*stored[12..].first_chunk().unwrap())));
            }
            seed.extend_from_slice(&stored[BLOCK_HEADER_BYTES..]);
            seeds.push(seed);
            if depth > 0 {
                queue.extend((0..block.count()).map(|at| (block.child(at).block, depth - 1)));
            }
        }
    }
    // Scripts of entries, for each kind.
    for kind in 0..3 {
        for wide in [0, 64] {
            let mut seed = vec![kind, 3 | wide, 0xff, 0xff, 0xff, 1, 50, 1, 9, 0, 0, 0, 0, 0, 1, 0, 0, b'p'];
            for entry in 0..6 {
                seed.extend([2, b'a' + entry, entry, entry, 1, 2, 7, 8]);
            }
            seeds.push(seed);
        }
    }
    seeds.retain(|seed| seed.len() < 8000);
    seeds
}

#[cfg(test)]
pub(crate) fn segment_seeds() -> Vec<Vec<u8>> {
    let model: Model =
        [((DirectoryId(1 << 16), b"key".to_vec(), Reverse(Commit(FIRST))), Some(b"value".to_vec()))].into();
    let (bytes, meta) = write(&model, SegmentOptions::default(), 99);
    let mut encoded = vec![1];
    meta.encode(&mut encoded);
    let mut seeds = vec![
        encoded,
        [&[0, 0][..], &bytes[..60]].concat(),
        [&[0, 0x80, 0x80, 1][..], &bytes[bytes.len() - PAGE_BYTES..]].concat(),
    ];
    for how in [2u8, 3, 6, 7, 10, 14] {
        for count in [0u8, 1, 9, 40] {
            for kind in [0u8, 4, 8] {
                let mut seed = vec![how, 50, count];
                for entry in 0..count {
                    seed.extend([kind | (entry & 3), 2, b'k', entry / 2]);
                    if kind == 4 {
                        seed.extend([200, 1, entry]);
                    }
                    seed.extend([entry, 2, b'v', entry]);
                    if kind == 8 {
                        seed.push(9);
                    }
                }
                if how & 1 == 1 {
                    seed.extend([0x80, 0x40, 1, 40, 2]);
                }
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// A pointer to a block of no consequence; none at 0.
pub(crate) fn pointer(offset: u64) -> BlockPtr {
    BlockPtr { offset, bytes: if offset == 0 { 0 } else { 100 } }
}

/// The meta of a file of four pages, as a manifest would hold it.
pub(crate) fn meta(
    kind: u8,
    level: Level,
    (first, last): (Commit, Commit),
    (entries, raw_bytes): (u64, u64),
    (block, filter): (BlockPtr, BlockPtr),
    full_key: &[u8],
) -> SegmentMeta {
    let any = u64::from(entries > 0);
    SegmentMeta {
        identity: SegmentIdentity { kind, level, shard: 3, first, last, part: 0 },
        entries,
        directories: any,
        raw_bytes,
        file_bytes: 4 * PAGE_BYTES as u64,
        root: Child { block, filter },
        depth: any as u8,
        min_full_key: full_key.into(),
        max_full_key: full_key.into(),
        ..bounds(0)
    }
}
