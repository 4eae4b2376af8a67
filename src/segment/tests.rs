//! What segments promise, checked against a `BTreeMap` and against damage.

use super::block::{BlockKind, Stored, Target, block_checksum};
use super::test_disk::{SharedFiles, block_on, memory_disk};
use super::*;
use crate::Compression;
use crate::cache::BlockCache;
use crate::codec::Reader;
use crate::disk::io::Io;
use crate::entry::{DirectoryId, Entry};
use crate::error::{Error, Result};
use crate::levels::{Commit, Level};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// All entries of a segment, in their order: directory, key, newest first.
type Model = BTreeMap<(DirectoryId, Vec<u8>, Reverse<Commit>), Option<Vec<u8>>>;

pub(super) const IDENTITY: SegmentIdentity =
    SegmentIdentity { kind: 1, level: Level(3), shard: 2, first: Commit(1001), last: Commit(1100), part: 0 };

/// A small generator (splitmix64), so that every run sees the same cases.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        // Half of it repeats, so that LZ4 has something to find.
        let word = self.next().to_le_bytes();
        (0..count).map(|at| if at % 16 < 8 { word[at % 8] } else { self.next() as u8 }).collect()
    }

    fn commit(&mut self) -> Commit {
        Commit(IDENTITY.first.0 + self.below(100))
    }
}

fn entries(model: &Model) -> impl Iterator<Item = Entry<'_>> {
    model.iter().map(|((directory, key, Reverse(commit)), value)| Entry {
        directory: *directory,
        key,
        commit: *commit,
        value: value.as_deref(),
    })
}

/// Writes a segment, takes output after each `take_every` entries.
fn write(model: &Model, options: SegmentOptions, take_every: usize) -> (Vec<u8>, SegmentMeta) {
    let mut writer = SegmentWriter::new(options, IDENTITY);
    let mut bytes = Vec::new();
    for (at, entry) in entries(model).enumerate() {
        writer.add(&entry);
        assert!(bytes.len() as u64 <= writer.bytes_so_far());
        if at % take_every == 0 {
            while let Some(chunk) = writer.take_output() {
                assert_eq!(chunk.len(), CHUNK_BYTES, "chunks handed out early are full ones");
                bytes.extend_from_slice(&chunk);
                writer.recycle(chunk);
            }
        }
    }
    let Finished { chunks: rest, meta, .. } = writer.finish();
    rest.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    assert_eq!(bytes.len() as u64, meta.file_bytes);
    (bytes, meta)
}

pub(super) fn lz4() -> SegmentOptions {
    SegmentOptions { compression: Compression::Lz4, ..SegmentOptions::default() }
}

pub(super) struct Fixture {
    pub(super) io: Io,
    pub(super) files: SharedFiles,
    pub(super) cache: Rc<BlockCache>,
    pub(super) segment: Rc<Segment>,
}

pub(super) fn fixture(bytes: Vec<u8>, meta: SegmentMeta, cache_bytes: u64) -> Fixture {
    let (io, files) = memory_disk();
    files.borrow_mut().by_name.insert("s".into(), bytes);
    let cache = Rc::new(BlockCache::new(cache_bytes));
    let segment = Rc::new(Segment::new(io.clone(), "s".into(), meta, cache.segment_number()));
    Fixture { io, files, cache, segment }
}

impl Fixture {
    pub(super) fn get(&self, directory: DirectoryId, key: &[u8], at: Commit) -> Result<Option<Found>> {
        let hash = key_hash(directory, key);
        let got = block_on(&self.io, self.segment.get(&self.cache, directory, key, hash, at));
        // What is in memory by now is found without a wait, first through the cache and then without it.
        for _ in 0..2 {
            let now = self.segment.get_now(&self.cache, directory, key, hash, at);
            if let (Some(now), Ok(got)) = (now, &got) {
                assert_eq!(now, *got);
            }
        }
        got
    }
}

/// Reads every so many'th entry through a cache.
fn read_one_of(many: usize, fixture: &Fixture, cache: &BlockCache, model: &Model) {
    for Entry { directory, key, commit, .. } in entries(model).step_by(many) {
        let get = fixture.segment.get(cache, directory, key, key_hash(directory, key), commit);
        assert!(block_on(&fixture.io, get).unwrap().is_some());
    }
}

/// What the model says about a point read.
fn model_get(model: &Model, directory: DirectoryId, key: &[u8], at: Commit) -> Option<Found> {
    let from = (directory, key.to_vec(), Reverse(at));
    let ((found_directory, found_key, Reverse(commit)), value) = model.range(from..).next()?;
    (*found_directory == directory && found_key == key)
        .then(|| Found { commit: *commit, value: value.clone().map(bytes::Bytes::from) })
}

/// Many directories, shared prefixes, "a" beside "a\0", many versions, a few large values.
fn random_model(random: &mut Random, count: usize, value_bytes_max: u64) -> Model {
    let mut model = Model::new();
    let directories: Vec<_> =
        (0..1 + random.below(40)).map(|_| DirectoryId(random.next() >> (16 + random.below(40)))).collect();
    while model.len() < count {
        let directory = directories[random.below(directories.len() as u64) as usize];
        let mut key = match random.below(6) {
            0 => Vec::new(),
            1 => b"a".to_vec(),
            2 => b"acme/users/emails/and/a/prefix/that/is/rather/long/for/a/key/".to_vec(),
            3 => b"acme/users/".to_vec(),
            _ => format!("k{:06}", random.below(500)).into_bytes(),
        };
        for _ in 0..random.below(4) {
            key.push([0, b'a', b'b', 0xff][random.below(4) as usize]);
        }
        if random.below(400) == 0 {
            key.resize(1 + random.below(crate::limits::KEY_BYTES_MAX as u64) as usize, b'x');
        }
        let versions = if random.below(20) == 0 { 60 } else { 1 };
        for _ in 0..versions {
            let bytes = match random.below(200) {
                0 => random.below(value_bytes_max),
                1..20 => random.below(value_bytes_max.min(3000)),
                _ => random.below(value_bytes_max.min(150)),
            };
            let value = (random.below(8) > 0).then(|| random.bytes(bytes as usize));
            model.insert((directory, key.clone(), Reverse(random.commit())), value);
        }
    }
    model
}

/// Every way to read the segment agrees with the model.
fn check_reads(model: &Model, fixture: &Fixture, random: &mut Random) {
    let keys: BTreeSet<_> = model.keys().map(|(directory, key, _)| (*directory, key.clone())).collect();
    for (directory, key) in &keys {
        let mut commits = vec![Commit(0), Commit(1000), Commit(1001), Commit(1100), Commit(u64::MAX)];
        commits.extend((0..4).map(|_| random.commit()));
        for at in commits {
            let found = fixture.get(*directory, key, at).unwrap();
            assert_eq!(found, model_get(model, *directory, key, at), "{directory:?} {key:?} at {at}");
        }
        let mut absent = key.clone();
        absent.push(random.next() as u8);
        let found = fixture.get(*directory, &absent, Commit(1100)).unwrap();
        assert_eq!(found, model_get(model, *directory, &absent, Commit(1100)));
        let elsewhere = DirectoryId(directory.0 ^ (1 << random.below(20)));
        let found = fixture.get(elsewhere, key, Commit(1100)).unwrap();
        assert_eq!(found, model_get(model, elsewhere, key, Commit(1100)));
        let has = block_on(&fixture.io, fixture.segment.may_have_directory(&fixture.cache, *directory));
        assert!(has.unwrap());
    }
    let whole: Vec<_> = entries(model).collect();
    let partly = Rc::new(BlockCache::new(64 << 20));
    read_one_of(3, fixture, &partly, model);
    for mut cursor in [
        SegmentCursor::stream(fixture.segment.clone()),
        SegmentCursor::stream(fixture.segment.clone()).beside(partly),
        SegmentCursor::stream(fixture.segment.clone()).beside(fixture.cache.clone()),
        SegmentCursor::scan(fixture.segment.clone(), fixture.cache.clone()),
    ] {
        block_on(&fixture.io, async {
            let mut more = cursor.seek_first().await.unwrap();
            for entry in &whole {
                assert_eq!(cursor.entry().as_ref(), Some(entry));
                assert!(more);
                more = cursor.next().await.unwrap();
            }
            assert!(!more && cursor.entry().is_none());
            let mut more = cursor.seek_last().await.unwrap();
            for entry in whole.iter().rev() {
                assert_eq!(cursor.entry().as_ref(), Some(entry));
                assert!(more);
                more = cursor.prev().await.unwrap();
            }
            assert!(!more && cursor.entry().is_none());
            for _ in 0..60 {
                let mut bound = whole[random.below(whole.len() as u64) as usize];
                let mut key = bound.key.to_vec();
                match random.below(4) {
                    0 => key.push(0),
                    1 => drop(key.pop()),
                    _ => {}
                }
                bound.key = &key;
                match random.below(4) {
                    0 => bound.commit = Commit(0),
                    1 => bound.commit = Commit(u64::MAX),
                    2 => bound.commit = random.commit(),
                    _ => {}
                }
                let rank = whole.partition_point(|entry| entry.order(&bound).is_lt());
                let found = cursor.seek(bound.directory, bound.key, bound.commit).await.unwrap();
                assert_eq!((found, cursor.entry().as_ref()), (rank < whole.len(), whole.get(rank)));
                // A walk that turns.
                let mut at = rank;
                for _ in 0..random.below(40) {
                    if random.below(3) > 0 && at + 1 < whole.len() {
                        at += 1;
                        assert!(cursor.next().await.unwrap());
                    } else if at > 0 && at < whole.len() {
                        at -= 1;
                        assert!(cursor.prev().await.unwrap());
                    }
                    assert_eq!(cursor.entry().as_ref(), whole.get(at));
                }
                let found = cursor.seek_before(bound.directory, bound.key, bound.commit).await.unwrap();
                let before = rank.checked_sub(1).map(|rank| &whole[rank]);
                assert_eq!((found, cursor.entry().as_ref()), (before.is_some(), before));
            }
        });
    }
}

#[test]
fn reads_agree_with_the_model() {
    for (seed, count, value_bytes_max) in
        [(1, 1, 10), (2, 2, 100), (3, 40, 5_000), (4, 1500, 100), (5, 2000, 100_000), (6, 3000, 3_000)]
    {
        for options in [SegmentOptions::default(), lz4()] {
            let mut random = Random(seed);
            let model = random_model(&mut random, count, value_bytes_max);
            let (bytes, meta) = write(&model, options, 3);
            assert_eq!(meta.entries, model.len() as u64);
            assert_eq!(meta.tombstones, model.values().filter(|value| value.is_none()).count() as u64);
            let fixture = fixture(bytes, meta, [0, 64 << 20, 200_000][seed as usize % 3]);
            check_reads(&model, &fixture, &mut random);
            block_on(&fixture.io, fixture.segment.verify()).unwrap();
        }
    }
}

#[test]
fn the_index_grows_levels_and_versions_of_one_key_span_blocks_and_partitions() {
    let mut random = Random(77);
    let mut model = Model::new();
    // Groups of keys that differ late, one entry a block: separators of 8.5 KB that have little in common.
    for at in 0..100u64 {
        let mut key = vec![(at / 4) as u8; 8500];
        key.extend_from_slice(&at.to_be_bytes());
        model.insert((DirectoryId(1 << 16), key, Reverse(random.commit())), Some(random.bytes(40_000)));
    }
    for commit in 1001..=1100 {
        let key = vec![b'v'; 9000];
        model.insert((DirectoryId(1 << 17), key, Reverse(Commit(commit))), Some(random.bytes(3000)));
    }
    for options in [SegmentOptions::default(), lz4()] {
        let (bytes, meta) = write(&model, options, 1);
        assert!(meta.depth >= 3, "depth {}", meta.depth);
        let fixture = fixture(bytes, meta, 64 << 20);
        check_reads(&model, &fixture, &mut random);
        for at in 1000..=1101 {
            let key = vec![b'v'; 9000];
            let found = fixture.get(DirectoryId(1 << 17), &key, Commit(at)).unwrap();
            assert_eq!(found, model_get(&model, DirectoryId(1 << 17), &key, Commit(at)));
        }
        block_on(&fixture.io, fixture.segment.verify()).unwrap();
    }
}

#[test]
fn an_empty_segment_is_a_segment() {
    let (bytes, meta) = write(&Model::new(), SegmentOptions::default(), 1);
    let fixture = fixture(bytes, meta, 1 << 20);
    assert_eq!(fixture.get(DirectoryId(7), b"k", Commit(1100)).unwrap(), None);
    let mut cursor = SegmentCursor::stream(fixture.segment.clone());
    assert!(!block_on(&fixture.io, cursor.seek_first()).unwrap());
    assert!(!block_on(&fixture.io, cursor.seek_last()).unwrap());
    assert!(!block_on(&fixture.io, cursor.seek(DirectoryId(0), b"", Commit(1100))).unwrap());
    block_on(&fixture.io, fixture.segment.verify()).unwrap();
}

#[test]
fn bytes_depend_on_entries_options_and_identity_only() {
    for options in [SegmentOptions::default(), lz4()] {
        let model = random_model(&mut Random(9), 4000, 60_000);
        let (once, meta) = write(&model, options, 1);
        assert_eq!(write(&model, options, 1), (once.clone(), meta.clone()));
        assert_eq!(write(&model, options, 37), (once.clone(), meta.clone()), "however output is taken");
        assert_eq!(write(&model, options, usize::MAX).0, once);
        let mut other = model.clone();
        let (_, value) = other.iter_mut().next().unwrap();
        *value = Some(b"changed".to_vec());
        assert_ne!(write(&other, options, 1).1.content_hash, meta.content_hash);
    }
}

#[test]
fn metas_read_back_and_garbage_is_refused() {
    let (bytes, meta) = write(&random_model(&mut Random(3), 500, 1000), SegmentOptions::default(), 1);
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    let mut reader = Reader::new(&encoded);
    assert_eq!(SegmentMeta::decode(&mut reader).as_ref(), Some(&meta));
    assert!(reader.is_empty());
    for cut in 0..encoded.len() {
        assert_eq!(SegmentMeta::decode(&mut Reader::new(&encoded[..cut])), None);
    }
    let fixture = fixture(bytes, meta.clone(), 0);
    // Header and footer say the same.
    block_on(&fixture.io, fixture.segment.verify()).unwrap();
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { file, .. } if file == "s")
}

/// Reads all, in every way, and lets pass only right answers and honest errors. Answers whether verification
/// found the damage.
fn check_damaged(model: &Model, meta: &SegmentMeta, bytes: Vec<u8>) -> bool {
    let fixture = fixture(bytes, meta.clone(), 1 << 20);
    for entry in entries(model) {
        match fixture.get(entry.directory, entry.key, entry.commit) {
            Ok(found) => {
                let found = found.expect("a key that is there is found, or an error says why not");
                assert_eq!((found.commit, found.value.as_deref()), (entry.commit, entry.value));
            }
            Err(error) => assert!(is_damage(&error), "{error}"),
        }
    }
    let mut cursor = SegmentCursor::stream(fixture.segment.clone());
    let walked: Result<()> = block_on(&fixture.io, async {
        let mut expected = entries(model);
        let mut more = cursor.seek_first().await?;
        while more {
            assert_eq!(cursor.entry(), expected.next());
            more = cursor.next().await?;
        }
        assert_eq!(expected.next(), None);
        Ok(())
    });
    assert!(walked.is_ok() || walked.is_err_and(|error| is_damage(&error)));
    let verified = block_on(&fixture.io, fixture.segment.verify());
    assert!(verified.as_ref().err().is_none_or(is_damage), "{verified:?}");
    verified.is_err()
}

#[test]
fn no_flipped_byte_goes_unnoticed() {
    for options in [SegmentOptions::default(), lz4()] {
        let model = random_model(&mut Random(21), 25, 40);
        let (bytes, meta) = write(&model, options, 1);
        let used = bytes.iter().filter(|&&byte| byte != 0).count();
        assert!(used > 800 && bytes.len() <= 4 * 4096, "{used} of {}", bytes.len());
        assert!(!check_damaged(&model, &meta, bytes.clone()));
        for at in 0..bytes.len() {
            // Within long padding, one byte in 32 will do.
            if at % 32 != 0 && bytes[at.saturating_sub(16)..bytes.len().min(at + 16)].iter().all(|&b| b == 0)
            {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(check_damaged(&model, &meta, damaged), "the flip at {at} went unnoticed");
        }
    }
}

#[test]
fn truncation_is_damage() {
    let model = random_model(&mut Random(22), 300, 5000);
    let (bytes, meta) = write(&model, SegmentOptions::default(), 1);
    for pages in 0..bytes.len() / 4096 {
        assert!(check_damaged(&model, &meta, bytes[..pages * 4096].to_vec()));
    }
}

#[test]
fn blocks_of_another_place_or_segment_are_refused() {
    let mut model = Model::new();
    for at in 0..200u64 {
        model.insert(
            (DirectoryId(1 << 16), at.to_be_bytes().to_vec(), Reverse(Commit(1100))),
            Some(vec![7; 100]),
        );
    }
    let (bytes, meta) = write(&model, SegmentOptions::default(), 1);
    let mut swapped = bytes.clone();
    swapped.copy_within(4096..8192, 8192);
    assert!(check_damaged(&model, &meta, swapped), "a page written to the wrong place");
    let mut writer = SegmentWriter::new(SegmentOptions::default(), SegmentIdentity { shard: 3, ..IDENTITY });
    entries(&model).for_each(|entry| writer.add(&entry));
    let Finished { chunks, .. } = writer.finish();
    let mut foreign = bytes;
    foreign[4096..8192].copy_from_slice(&chunks[0][4096..8192]);
    assert!(check_damaged(&model, &meta, foreign), "a page of another shard's segment");
}

#[test]
fn the_writer_holds_little_however_much_it_writes() {
    for options in [SegmentOptions::default(), lz4()] {
        let mut writer = SegmentWriter::new(options, IDENTITY);
        let mut random = Random(5);
        let mut memory_max = 0;
        let mut directory = 1u64 << 16;
        for at in 0..300_000u64 {
            if at % 2 == 0 {
                directory += 1; // 150,000 directories: beyond those that are counted exactly
            }
            let key = at.to_be_bytes();
            let value = random.next().to_le_bytes();
            let entry = Entry {
                directory: DirectoryId(directory),
                key: &key,
                commit: Commit(1050),
                value: Some(&value),
            };
            writer.add(&entry);
            while let Some(chunk) = writer.take_output() {
                writer.recycle(chunk);
            }
            if at % 1000 == 0 {
                memory_max = memory_max.max(writer.memory_bytes());
            }
        }
        let value = vec![1; crate::limits::VALUE_BYTES_MAX];
        for commit in (1001..=1020).rev() {
            let directory = DirectoryId(directory + 1);
            writer.add(&Entry { directory, key: b"large", commit: Commit(commit), value: Some(&value) });
            while let Some(chunk) = writer.take_output() {
                writer.recycle(chunk);
            }
            memory_max = memory_max.max(writer.memory_bytes());
        }
        assert!(memory_max < 8 << 20, "{memory_max}");
        assert!(writer.bytes_so_far() > if options == lz4() { 4 << 20 } else { 24 << 20 });
        writer.finish();
    }
}

#[test]
fn blocks_waste_little() {
    for (value_bytes, waste_max) in
        [(20, 0.08), (100, 0.08), (700, 0.09), (1500, 0.09), (5000, 0.09), (70_000, 0.06)]
    {
        let mut writer = SegmentWriter::new(SegmentOptions::default(), IDENTITY);
        let mut random = Random(value_bytes);
        let count = 40_000_000 / (value_bytes + 50) / 10;
        for at in 0..count {
            let bytes = value_bytes / 2 + random.below(value_bytes);
            let value = random.bytes(bytes as usize);
            let key = format!("user/{at:012}");
            let directory = DirectoryId(1 << 16);
            writer.add(&Entry { directory, key: key.as_bytes(), commit: Commit(1050), value: Some(&value) });
        }
        let Finished { meta, .. } = writer.finish();
        let waste = meta.file_bytes as f64 / (meta.raw_bytes + 8 * meta.entries) as f64 - 1.0;
        assert!(waste < waste_max, "values of {value_bytes}: {waste}");
    }
}

#[test]
fn a_file_is_opened_once_closed_at_the_end_and_removed_if_obsolete() {
    let model = random_model(&mut Random(31), 2000, 500);
    let (bytes, meta) = write(&model, SegmentOptions::default(), 1);
    let Fixture { io, files, cache, segment } = fixture(bytes, meta, 1 << 20);
    assert_eq!(files.borrow().opened_total, 0, "opened when first read");
    let (directory, key, _) = model.keys().nth(700).unwrap();
    let hash = key_hash(*directory, key);
    let get = || segment.get(&cache, *directory, key, hash, Commit(u64::MAX));
    {
        // One that is given up half way, and two that wait for the same open.
        let mut given_up = Box::pin(get());
        let waker = std::task::Waker::noop();
        assert!(given_up.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        let both = futures_util::future::join(get(), async {
            drop(given_up);
            get().await
        });
        let (one, other) = block_on(&io, both);
        assert_eq!(one.unwrap(), other.unwrap());
    }
    assert_eq!(files.borrow().opened_total, 1);
    assert_eq!(files.borrow().open.len(), 1);
    segment.mark_obsolete();
    let second = segment.clone();
    drop(segment);
    io.pump();
    assert_eq!(files.borrow().by_name.len(), 1, "removed by the last one only");
    drop(second);
    io.pump();
    assert!(files.borrow().open.is_empty());
    assert_eq!(files.borrow().by_name.len(), 1, "removed once it is closed, not before");
    io.pump();
    assert!(files.borrow().by_name.is_empty());
}

#[test]
fn streams_leave_the_cache_alone_and_cached_reads_read_nothing() {
    let model = random_model(&mut Random(41), 20_000, 300);
    let (bytes, meta) = write(&model, SegmentOptions::default(), 1);
    let file_bytes = bytes.len() as u64;
    let fixture = fixture(bytes, meta, 256 << 20);
    let walk = |mut cursor: SegmentCursor| {
        block_on(&fixture.io, async {
            let mut more = cursor.seek_first().await.unwrap();
            while more {
                more = cursor.next().await.unwrap();
            }
        });
    };
    walk(SegmentCursor::stream(fixture.segment.clone()));
    assert_eq!(fixture.cache.bytes(), 0);
    let stats = fixture.io.stats();
    assert!(stats.read_bytes < file_bytes + file_bytes / 10, "{} of {file_bytes}", stats.read_bytes);
    assert!(stats.reads < file_bytes / 100_000 + 10, "{} reads", stats.reads);

    walk(SegmentCursor::scan(fixture.segment.clone(), fixture.cache.clone()));
    let reads = fixture.io.stats().reads;
    walk(SegmentCursor::scan(fixture.segment.clone(), fixture.cache.clone()));
    assert_eq!(fixture.io.stats().reads, reads, "everything is cached now");
    assert!(fixture.cache.bytes() <= 256 << 20 && fixture.cache.hits() > 0);
}

#[test]
fn streams_read_what_readers_do_not_have() {
    let model = random_model(&mut Random(43), 20_000, 300);
    let stream = |fixture: &Fixture, cache: &Rc<BlockCache>| {
        let before = fixture.io.stats();
        let mut cursor = SegmentCursor::stream(fixture.segment.clone()).beside(cache.clone());
        let (mut warm, mut all) = (0, 0);
        block_on(&fixture.io, async {
            let mut more = cursor.seek_first().await.unwrap();
            while more {
                (warm, all) = (warm + usize::from(cursor.is_warm()), all + 1);
                more = cursor.next().await.unwrap();
            }
        });
        let after = fixture.io.stats();
        (after.reads - before.reads, after.read_bytes - before.read_bytes, warm, all)
    };
    for options in [SegmentOptions::default(), lz4()] {
        let (bytes, meta) = write(&model, options, 1);
        let fixture = fixture(bytes, meta, 0);
        let empty = Rc::new(BlockCache::new(64 << 20));
        let (reads, read_bytes, warm, all) = stream(&fixture, &empty);
        assert_eq!((warm, all), (0, model.len()));
        for many in [1, 100] {
            let cache = Rc::new(BlockCache::new(64 << 20));
            read_one_of(many, &fixture, &cache, &model);
            let (hits, misses, cached) = (cache.hits(), cache.misses(), cache.bytes());
            let (few_reads, few_bytes, warm, _) = stream(&fixture, &cache);
            assert!(few_reads <= reads && few_bytes <= read_bytes, "{few_bytes} bytes in {few_reads} reads");
            assert!(warm > 0 && (many > 1) == (few_reads > 0), "{warm} of {all}, {few_reads} reads");
            assert_eq!((cache.hits(), cache.misses(), cache.bytes()), (hits, misses, cached), "no use of it");
        }
        // A run of what is cached between what is not is not read.
        let cache = Rc::new(BlockCache::new(64 << 20));
        let middle: Model = model.clone().into_iter().skip(all / 10).take(all / 10 * 8).collect();
        read_one_of(1, &fixture, &cache, &middle);
        let (_, few_bytes, ..) = stream(&fixture, &cache);
        assert!(few_bytes < read_bytes / 4, "{few_bytes} of {read_bytes} bytes");
    }
}

/// What a stream found in the cache when it planned a run may be gone when it comes there, and the other way round.
#[test]
fn streams_go_on_when_the_cache_beside_them_changes() {
    let mut random = Random(44);
    let model = random_model(&mut random, 20_000, 300);
    let whole: Vec<_> = entries(&model).collect();
    for options in [SegmentOptions::default(), lz4()] {
        let (bytes, meta) = write(&model, options, 1);
        let fixture = fixture(bytes, meta, 0);
        // Of a few megabytes, so much at a time.
        for (cache_bytes, every) in [(200_000, 7), (800_000, 50), (2_000_000, 300)] {
            let cache = Rc::new(BlockCache::new(cache_bytes));
            let mut cursor = SegmentCursor::stream(fixture.segment.clone()).beside(cache.clone());
            let (mut warm, mut more) = (0, block_on(&fixture.io, cursor.seek_first()).unwrap());
            for (number, entry) in whole.iter().enumerate() {
                assert_eq!(cursor.entry().as_ref(), Some(entry));
                warm += usize::from(cursor.is_warm());
                if number % every == 0 {
                    // Mostly of what comes next, so that much of the way changes.
                    let ahead = random.below(2000) as usize;
                    let Entry { directory, key, commit, .. } = whole[(number + ahead) % whole.len()];
                    let hash = key_hash(directory, key);
                    let get = fixture.segment.get(&cache, directory, key, hash, commit);
                    assert!(block_on(&fixture.io, get).unwrap().is_some());
                }
                assert!(more);
                more = block_on(&fixture.io, cursor.next()).unwrap();
            }
            assert!(!more && warm > 0 && warm < whole.len(), "{warm} of {}", whole.len());
        }
    }
}

#[test]
fn the_cache_keeps_to_its_budget() {
    let model = random_model(&mut Random(42), 20_000, 3000);
    let (bytes, meta) = write(&model, SegmentOptions::default(), 1);
    let fixture = fixture(bytes, meta, 300_000);
    for (directory, key, Reverse(commit)) in model.keys() {
        assert!(fixture.get(*directory, key, *commit).unwrap().is_some());
        assert!(fixture.cache.bytes() <= 300_000);
    }
    assert!(fixture.cache.bytes() > 200_000, "and makes use of it");

    let large: Model =
        [((DirectoryId(1 << 16), vec![1], Reverse(Commit(1050))), Some(vec![7; 90_000]))].into();
    let (bytes, meta) = write(&large, SegmentOptions::default(), 1);
    let fixture = self::fixture(bytes, meta, 300_000);
    for _ in 0..2 {
        assert!(fixture.get(DirectoryId(1 << 16), &[1], Commit(1100)).unwrap().is_some());
    }
    assert!(fixture.cache.bytes() < 5000, "a block above its share is read, not kept");
}

/// Changes bytes of a block and seals it again, as a fuzzer that knows the checksum would.
#[test]
fn well_sealed_garbage_breaks_nothing() {
    let mut random = Random(51);
    let model = random_model(&mut random, 3000, 400);
    for options in [SegmentOptions::default(), lz4()] {
        let (bytes, meta) = write(&model, options, 1);
        let seed = meta.identity.seed();
        let fixture = fixture(bytes.clone(), meta.clone(), 1 << 20);
        let mut cursor = SegmentCursor::stream(fixture.segment.clone());
        assert!(block_on(&fixture.io, cursor.seek_first()).unwrap());
        let data = cursor.block_ptr();
        let mut survived = 0;
        for (ptr, kind) in [(data, BlockKind::Data), (meta.root.block, BlockKind::Leaf)] {
            let kind = if kind == BlockKind::Leaf && meta.depth > 1 { BlockKind::Node } else { kind };
            let sound = &bytes[ptr.offset as usize..ptr.end() as usize];
            assert!(Block::decode(&Stored::Borrowed(sound), ptr, kind, seed, &meta.identity).is_ok());
            for _ in 0..2000 {
                let mut stored = sound.to_vec();
                for _ in 0..1 + random.below(4) {
                    // Mostly where the structure is: header, prefix, first entries, offsets.
                    let at = match random.below(3) {
                        0 => 8 + random.below(100),
                        1 => stored.len() as u64 - 1 - random.below(100),
                        _ => 8 + random.below(stored.len() as u64 - 8),
                    };
                    let at = (at as usize).min(stored.len() - 1);
                    stored[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6) as usize];
                }
                let checksum = block_checksum(&stored, seed, ptr.offset);
                stored[..8].copy_from_slice(&checksum.to_le_bytes());
                let Ok(block) = Block::decode(&Stored::Borrowed(&stored), ptr, kind, seed, &meta.identity)
                else {
                    continue;
                };
                survived += 1;
                let key = random.bytes(9);
                let target = Target::new(DirectoryId(random.next() >> 40), &key, 5);
                assert!(block.rank(&target, true) <= block.count());
                assert!(block.find(&target).is_none_or(|at| at < block.count()));
                for at in 0..block.count() {
                    let (entry, range) = block.entry_and_range(at);
                    assert_eq!(entry.value, block.slice(range));
                    if kind != BlockKind::Data {
                        assert!(block.child(at).block.end() <= ptr.offset);
                    }
                }
            }
        }
        assert!(survived > 300, "{survived}: most of it never got past the checks");
        let mut encoded = Vec::new();
        meta.encode(&mut encoded);
        for _ in 0..2000 {
            let mut garbage = encoded.clone();
            let at = random.below(garbage.len() as u64) as usize;
            garbage[at] = random.next() as u8;
            if let Some(meta) = SegmentMeta::decode(&mut Reader::new(&garbage)) {
                assert!(meta.root.block.end() <= meta.file_bytes && meta.min() <= meta.max());
            }
        }
    }
}
