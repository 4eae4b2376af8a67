//! Random choices that runs are made of: options, retentions, disks, keys, values, batches.
//!
//! All from a [`SplitMix64`], so that a seed says all of it.

use crate::model::{Change, PATHS, Step, is_within};
use quipu::disk::SimulatedOptions;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::Level;
use quipu::{Bytes, Compression, Options, Retention};

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// How many commits it has.
    pub commits: usize,
    /// How many keys a directory has at most.
    pub keys: u64,
    /// How likely a commit is a rename or a drop, in percent.
    pub moves: u8,
    /// How likely a value is larger than a page, in percent.
    pub large: u8,
    /// It is all about one directory, and a few keys.
    pub narrow: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Profile { commits: 600, keys: 40, moves: 4, large: 2, narrow: false }
    }
}

/// One of several.
pub fn pick<'a, T>(random: &mut SplitMix64, items: &'a [T]) -> &'a T {
    &items[random.below(items.len() as u64) as usize]
}

/// How likely a batch names one of its keys once more, in percent.
const AGAIN_PERCENT: u8 = 15;
/// The same in narrow histories.
const NARROW_AGAIN_PERCENT: u8 = 60;

/// The directory of narrow histories.
pub const NARROW_PATH: &str = "r/a";
/// How many keys they have.
pub const NARROW_KEYS: u64 = 4;

/// A key: one of `keys`.
pub fn key(random: &mut SplitMix64, keys: u64) -> Vec<u8> {
    let number = random.below(keys);
    match number % 7 {
        0 => vec![0xff; 1 + number as usize / 7 % 3],
        1 => [&b"long-"[..], &[b'x'; 200], number.to_string().as_bytes()].concat(),
        2 => vec![number as u8, 0, 0],
        _ => format!("key{number:03}").into_bytes(),
    }
}

/// A value, begun with a number that tells it from others.
pub fn value(random: &mut SplitMix64, large: u8, number: usize) -> Bytes {
    let length = match random.below(100) as u8 {
        percent if percent < large => 4096 + random.below(5000),
        percent if percent < 15 => 300 + random.below(1200),
        percent if percent < 20 => 0,
        _ => random.below(100),
    };
    let mut bytes = format!("{number}:").into_bytes();
    let noisy = random.chance(50);
    while (bytes.len() as u64) < length {
        match noisy {
            true => bytes.extend_from_slice(&random.next_u64().to_le_bytes()),
            false => bytes.resize(length as usize, b'a' + (length % 26) as u8),
        }
    }
    bytes.truncate(length as usize);
    Bytes::from(bytes)
}

/// Puts and deletes over the directories of one root. `number` marks the values.
pub fn batch(random: &mut SplitMix64, profile: Profile, number: usize) -> Step {
    let root = if random.chance(75) { "r" } else { "s" };
    let paths: Vec<&'static str> = match profile.narrow {
        true => vec![NARROW_PATH],
        false => PATHS.into_iter().filter(|path| is_within(path, root)).collect(),
    };
    let count = if random.chance(60) { 1 } else { 1 + random.below(6) };
    let mut room = 24 << 10; // It must fit into the smallest log file, with what the record adds.
    let mut changes: Vec<Change> = Vec::new();
    for _ in 0..count {
        let path = *pick(random, &paths);
        let key = Bytes::from(key(random, profile.keys));
        let value = (!random.chance(25)).then(|| value(random, profile.large, number));
        let bytes = 300 + key.len() + value.as_ref().map_or(0, Bytes::len);
        if bytes < room {
            room -= bytes;
            changes.push((path, key, value));
        }
    }
    // Now and then a key is named once more. Drawn aside, so that the seeds of before mean what they meant.
    let aside = &mut SplitMix64::new(!random.clone().next_u64());
    if aside.chance(if profile.narrow { NARROW_AGAIN_PERCENT } else { AGAIN_PERCENT }) && !changes.is_empty()
    {
        let (path, key, _) = pick(aside, &changes).clone();
        let value = (!aside.chance(25)).then(|| value(aside, 0, number));
        if 300 + key.len() + value.as_ref().map_or(0, Bytes::len) < room {
            changes.push((path, key, value));
        }
    }
    Step::Batch(changes)
}

/// Options that are part of the data: any, but small.
pub fn fixed_options(random: &mut SplitMix64) -> Options {
    Options::new()
        .shards(1)
        .divisor(2 + random.below(7) as u32)
        .flush_bytes(2048 << random.below(4))
        .log_file_bytes(64 << 10)
        .part_bytes(64 << 10)
        .base_ratio(1 + random.below(8) as u32)
        .compression(if random.chance(30) { Compression::Lz4 } else { Compression::None })
}

/// Options of one opening.
pub fn free_options(random: &mut SplitMix64, options: Options) -> Options {
    options
        .cache_bytes(*pick(random, &[0, 64 << 10, 4 << 20]))
        .memtable_bytes(*pick(random, &[24 << 10, 64 << 10, 256 << 10, 4 << 20]))
        .log_files_max(4 + random.below(8) as usize)
        .log_depth(1 + random.below(4) as usize)
        .group_bytes(*pick(random, &[4 << 10, 16 << 10, 48 << 10]))
        .mailbox(1)
}

/// As [`fixed_options`], and smaller still: what is rare with them is common.
pub fn tiny_options(random: &mut SplitMix64) -> Options {
    fixed_options(random)
        .flush_bytes(1024 << random.below(4))
        .log_file_bytes(*pick(random, &[32 << 10, 64 << 10]))
}

/// What history stays.
pub fn retention(random: &mut SplitMix64) -> Retention {
    match random.below(5) {
        0 => Retention::None,
        1 => Retention::Forever,
        2 => Retention::Level(Level(1 + random.below(4) as u8)),
        3 => Retention::Last(1 + random.below(150)),
        _ => Retention::LastAndLevel(1 + random.below(60), Level(1 + random.below(4) as u8)),
    }
}

/// A disk with moods of its own.
pub fn disk(random: &mut SplitMix64) -> SimulatedOptions {
    SimulatedOptions {
        seed: random.next_u64(),
        in_order: random.chance(10),
        complete_percent: *pick(random, &[5, 30, 60, 90]),
        operation_nanos: 10_000..=200_000,
        ..SimulatedOptions::default()
    }
}
