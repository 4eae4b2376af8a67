//! The data of a run: which slots there are, and what was acknowledged of them.
//!
//! A *slot* is one key in one directory of one shard. The slots that there are from the beginning are dealt out to
//! the directories in turn, so that a slot's number tells its directory; behind them each shard has room for slots that
//! are inserted, which note theirs. Each put of a slot writes the next *version*; the value follows from slot
//! and version ([`Shape`]).
//!
//! Several puts of one slot may be in flight at a time. Which of them the engine sequenced last is told by their
//! commits' numbers: a slot keeps the version with the highest acknowledged one. So what the engine must hold in the
//! end is known exactly, whatever the distribution of keys. What a read must see is known exactly where no put of the
//! slot was in flight when it began, which a slot's counts of puts begun and ended tell.
//!
//! Where a put failed, its version may or may not be there: it is *doubted*, and either is accepted.

use super::key::{Key, Shape};
use super::op::Op;
use bytemuck::Zeroable;
use quipu::{CommitId, Directory, Engine};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bits of a version kept beside the commit that wrote it; commits have the other 40, enough for 10^12.
const VERSION_BITS: u32 = 24;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;

/// What is known of a slot; all zero for one never written.
#[derive(Zeroable)]
#[repr(C)]
struct Slot {
    /// The highest acknowledged commit of the slot, and in the low bits the version that it wrote.
    acked: AtomicU64,
    /// Puts begun: the newest version given out.
    begun: AtomicU32,
    /// Puts acknowledged.
    ended: AtomicU32,
}

/// Bytes of memory that a slot takes once it is used.
pub(crate) const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<AtomicU32>();

/// One shard's share of the slots.
struct Part {
    /// Its slots are `first..first + capacity`, of which so many are there from the beginning.
    first: u32,
    loaded: u32,
    capacity: u32,
    directories: u32,
    /// How many slots were given out, those from the beginning included.
    given: AtomicU32,
    /// How many of them clients may choose: up to the newest whose insert was acknowledged.
    visible: AtomicU32,
}

/// The slots, and what was acknowledged of each.
pub(crate) struct Dataset {
    pub(crate) shape: Shape,
    parts: Vec<Part>,
    slots: Box<[Slot]>,
    /// Of inserted slots, the directory plus 1.
    homes: Box<[AtomicU32]>,
    /// Slots with failed puts, and the versions that they had.
    doubts: Mutex<BTreeMap<u32, Vec<u32>>>,
}

/// What a read that begins now must find.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    acked: u64,
    /// Puts begun, where all of them have ended.
    settled: Option<u32>,
}

/// The table of slots does not fit into memory.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl Dataset {
    /// `keys` slots and room for `room` more, spread over shards with so many directories each, in proportion to
    /// those.
    pub(crate) fn new(shape: Shape, keys: u32, room: u32, directories: &[u32]) -> Result<Self, TooLarge> {
        let total: u64 = directories.iter().copied().map(u64::from).sum();
        let share = |of: u32, before: u64| (u64::from(of) * before / total.max(1)) as u32;
        let mut parts = Vec::with_capacity(directories.len());
        let (mut before, mut first) = (0, 0u32);
        for &count in directories {
            let after = before + u64::from(count);
            let loaded = share(keys, after) - share(keys, before);
            let capacity = loaded.saturating_add(share(room, after) - share(room, before));
            let (given, visible) = (AtomicU32::new(loaded), AtomicU32::new(loaded));
            parts.push(Part { first, loaded, capacity, directories: count, given, visible });
            first = first.checked_add(capacity).ok_or(TooLarge)?;
            before = after;
        }
        // Zeroed memory of this size costs nothing until it is used.
        let slots = bytemuck::allocation::try_zeroed_slice_box(first as usize).map_err(|()| TooLarge)?;
        let homes = if room > 0 { first as usize } else { 0 };
        let homes = bytemuck::allocation::try_zeroed_slice_box(homes).map_err(|()| TooLarge)?;
        Ok(Dataset { shape, parts, slots, homes, doubts: Mutex::default() })
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u16 {
        self.parts.len() as u16
    }

    fn part(&self, shard: u16) -> &Part {
        &self.parts[usize::from(shard)]
    }

    /// How many slots a shard had from the beginning.
    pub(crate) fn loaded(&self, shard: u16) -> u32 {
        self.part(shard).loaded
    }

    /// How many slots of a shard clients may choose, inserted ones included.
    pub(crate) fn visible(&self, shard: u16) -> u32 {
        self.part(shard).visible.load(Ordering::Relaxed)
    }

    /// Directories of a shard that have slots from the beginning.
    pub(crate) fn directories(&self, shard: u16) -> u32 {
        let part = self.part(shard);
        part.directories.min(part.loaded)
    }

    /// How many slots a directory had from the beginning.
    pub(crate) fn rows(&self, shard: u16, directory: u32) -> u32 {
        let part = self.part(shard);
        part.loaded.saturating_sub(directory).div_ceil(part.directories.max(1))
    }

    /// The slot in a row of a directory.
    pub(crate) fn row(&self, shard: u16, directory: u32, row: u32) -> u32 {
        let part = self.part(shard);
        debug_assert!(directory < part.directories && row < self.rows(shard, directory));
        part.first + directory + row * part.directories
    }

    /// Directory of a shard's slot by its index, and the slot's number. An inserted slot may be so new that its
    /// directory is not noted yet; then another one is taken.
    pub(crate) fn at(&self, shard: u16, index: u32) -> (u32, u32) {
        let part = self.part(shard);
        let in_turn = |index: u32| (index % part.directories.max(1), part.first + index);
        if index < part.loaded {
            return in_turn(index);
        }
        let slot = part.first + index;
        match self.homes.get(slot as usize).map_or(0, |home| home.load(Ordering::Relaxed)) {
            0 => in_turn(index % part.loaded.max(1)),
            home => (home - 1, slot),
        }
    }

    /// The slots of a batch: from the operation's slot on, down its directory's rows. One that was inserted stands
    /// alone.
    pub(crate) fn batch(&self, op: &Op) -> impl Iterator<Item = u32> + use<> {
        let part = self.part(op.shard);
        let (first, step, end) = (op.slot, part.directories.max(1), part.first + part.loaded);
        (0..op.count)
            .map(move |at| u64::from(first) + u64::from(at) * u64::from(step))
            .enumerate()
            .take_while(move |&(at, slot)| at == 0 || slot < u64::from(end))
            .map(|(_, slot)| slot as u32)
    }

    /// Gives out a slot of a directory that was never written; `None`: the room is used up.
    pub(crate) fn insert(&self, shard: u16, directory: u32) -> Option<u32> {
        let part = self.part(shard);
        let take = |given: u32| (given < part.capacity).then_some(given + 1);
        let index = part.given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let slot = part.first + index;
        self.homes.get(slot as usize)?.store(directory + 1, Ordering::Relaxed);
        Some(slot)
    }

    /// Lets clients choose an inserted slot, which was acknowledged.
    pub(crate) fn inserted(&self, shard: u16, slot: u32) {
        let part = self.part(shard);
        part.visible.fetch_max(slot - part.first + 1, Ordering::Relaxed);
    }

    /// The slots of a shard with inserted ones, those of each directory together: first the rows of directory 0.
    pub(crate) fn inserted_by_directory(&self, shard: u16) -> Vec<(u32, u32)> {
        let part = self.part(shard);
        let given = part.first + part.given.load(Ordering::Relaxed);
        let mut inserted: Vec<(u32, u32)> = (part.first + part.loaded..given)
            .filter_map(|slot| {
                let home = self.homes.get(slot as usize)?.load(Ordering::Relaxed);
                Some((home.checked_sub(1)?, slot))
            })
            .collect();
        inserted.sort_unstable();
        inserted
    }

    /// The slots of a directory; `inserted` are those of [`inserted_by_directory`](Self::inserted_by_directory).
    pub(crate) fn slots_in(&self, shard: u16, directory: u32, inserted: &[(u32, u32)]) -> Vec<u32> {
        let rows = (0..self.rows(shard, directory)).map(|row| self.row(shard, directory, row));
        let range: Range<usize> = inserted.partition_point(|&(home, _)| home < directory)
            ..inserted.partition_point(|&(home, _)| home <= directory);
        rows.chain(inserted[range].iter().map(|&(_, slot)| slot)).collect()
    }

    /// The key of a slot.
    pub(crate) fn key(&self, slot: u32) -> Key {
        self.shape.key(slot)
    }

    /// The version that a put which begins now writes.
    pub(crate) fn begin(&self, slot: u32) -> u32 {
        self.slots[slot as usize].begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that the put of this version was acknowledged, as this commit.
    pub(crate) fn acknowledge(&self, slot: u32, version: u32, commit: CommitId) {
        let slot = &self.slots[slot as usize];
        let acked = commit.number.0 << VERSION_BITS | u64::from(version) & VERSION_MASK;
        slot.acked.fetch_max(acked, Ordering::Relaxed);
        // Pairs with the load in `expect`, which then sees the above.
        slot.ended.fetch_add(1, Ordering::Release);
    }

    /// Notes that a put of this version failed, and so may or may not be there, now or later.
    pub(crate) fn doubt(&self, slot: u32, version: u32) {
        self.lock_doubts().entry(slot).or_default().push(version);
    }

    /// The failed puts: slots and versions.
    pub(crate) fn doubts(&self) -> BTreeMap<u32, Vec<u32>> {
        self.lock_doubts().clone()
    }

    fn lock_doubts(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Vec<u32>>> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a put of the slot was acknowledged.
    pub(crate) fn written(&self, slot: u32) -> bool {
        self.slots[slot as usize].acked.load(Ordering::Relaxed) > 0
    }

    /// What a read of the slot that begins after this must find.
    pub(crate) fn expect(&self, slot: u32) -> Expected {
        let Slot { acked, begun, ended } = &self.slots[slot as usize];
        // In this order: puts that have ended by now are those that have begun by then only if none is in flight.
        let ended = ended.load(Ordering::Acquire);
        let begun = begun.load(Ordering::Relaxed);
        let acked = acked.load(Ordering::Relaxed);
        Expected { acked, settled: (begun == ended).then_some(begun) }
    }

    /// Whether what a read found is what it had to, as far as its header and the puts meanwhile tell.
    pub(crate) fn agrees(&self, slot: u32, expected: Expected, read: Option<&[u8]>) -> bool {
        let Some(value) = read else { return expected.acked == 0 };
        let Some(version) = self.shape.version(slot, value) else { return false };
        match expected.settled {
            Some(begun) if version <= begun => same_version(expected.acked, version),
            _ => true,
        }
    }

    /// Checks what was read of a slot in the end, to the last byte, against what was acknowledged; says what is
    /// wrong.
    pub(crate) fn verify(&self, slot: u32, doubted: &[u32], read: Option<&[u8]>) -> Result<(), String> {
        let acked = self.slots[slot as usize].acked.load(Ordering::Relaxed);
        let (commit, acknowledged) = (acked >> VERSION_BITS, acked & VERSION_MASK);
        let key = self.key(slot);
        let key = String::from_utf8_lossy(key.as_ref());
        let Some(value) = read else {
            return match acked {
                0 => Ok(()),
                _ => Err(format!(
                    "key {key}: version {acknowledged} was acknowledged as commit {commit}, nothing is there"
                )),
            };
        };
        let Some(version) = self.shape.version(slot, value) else {
            return Err(format!("key {key}: holds {} bytes that were never written to it", value.len()));
        };
        if (acked == 0 || !same_version(acked, version)) && !doubted.contains(&version) {
            return Err(format!(
                "key {key}: version {acknowledged} was acknowledged as commit {commit}, {version} is there"
            ));
        }
        let mut expected = Vec::new();
        self.shape.fill(slot, version, &mut expected);
        match value == expected {
            true => Ok(()),
            false => Err(format!("key {key}: the bytes of version {version} are not those written")),
        }
    }
}

fn same_version(acked: u64, version: u32) -> bool {
    acked & VERSION_MASK == u64::from(version) & VERSION_MASK
}

/// Handles of the directories of a run, by shard. The same names in the same order for every engine with so many
/// shards, so that slots stay in place when the engine is reopened.
pub(crate) fn directories(engine: &Engine, count: u32) -> quipu::Result<Vec<Vec<Directory>>> {
    let mut directories = vec![Vec::new(); usize::from(engine.shards())];
    for number in 0..count {
        let directory = engine.directory(format!("tenant-{number:06}"))?;
        directories[usize::from(directory.shard())].push(directory);
    }
    Ok(directories)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::key::ValueBytes;
    use quipu::Commit;

    fn dataset(keys: u32, room: u32) -> Dataset {
        let value_bytes = ValueBytes { min: 100, max: 100 };
        let shape = Shape { seed: 42, key_bytes: 24, ordered: false, value_bytes };
        Dataset::new(shape, keys, room, &[3, 0, 7]).unwrap()
    }

    fn commit(number: u64) -> CommitId {
        CommitId { shard: 0, number: Commit(number) }
    }

    fn value(dataset: &Dataset, slot: u32, version: u32) -> Vec<u8> {
        let mut value = Vec::new();
        dataset.shape.fill(slot, version, &mut value);
        value
    }

    #[test]
    fn slots_are_placed_once_and_in_proportion() {
        let dataset = dataset(1000, 0);
        assert_eq!((0..3).map(|shard| dataset.loaded(shard)).collect::<Vec<_>>(), [300, 0, 700]);
        let mut seen = Vec::new();
        for (shard, directories) in [(0, 3), (2, 7)] {
            for directory in 0..directories {
                for slot in dataset.slots_in(shard, directory, &[]) {
                    let index = if shard == 0 { slot } else { slot - 300 };
                    assert_eq!(dataset.at(shard, index), (directory, slot));
                    seen.push(slot);
                }
            }
        }
        seen.sort();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn few_keys_leave_directories_empty() {
        let dataset = dataset(4, 0);
        let rows: u32 = (0..3)
            .flat_map(|shard| (0..dataset.directories(shard)).map(move |directory| (shard, directory)))
            .map(|(shard, directory)| dataset.rows(shard, directory))
            .inspect(|&rows| assert!(rows > 0))
            .sum();
        assert_eq!(rows, 4);
        assert_eq!(dataset.rows(2, 6), 0);
    }

    #[test]
    fn inserted_slots_are_new_and_in_their_directory_until_the_room_is_used_up() {
        let dataset = dataset(100, 10);
        let mut inserted = Vec::new();
        while let Some(slot) = dataset.insert(2, 5) {
            assert_eq!(dataset.visible(2), 70 + inserted.len() as u32);
            dataset.inserted(2, slot);
            assert_eq!(dataset.at(2, dataset.visible(2) - 1), (5, slot));
            inserted.push(slot);
        }
        assert_eq!(inserted.len(), 7, "the shard's share of the room");
        let by_directory = dataset.inserted_by_directory(2);
        let mut slots: Vec<u32> =
            (0..7).flat_map(|directory| dataset.slots_in(2, directory, &by_directory)).collect();
        assert_eq!(dataset.slots_in(2, 5, &by_directory).len(), 17);
        slots.sort();
        slots.dedup();
        assert_eq!(slots.len(), 77);
    }

    #[test]
    fn the_highest_acknowledged_commit_decides_whatever_the_order_of_answers() {
        let dataset = dataset(100, 0);
        let (first, second) = (dataset.begin(5), dataset.begin(5));
        assert_eq!((first, second), (1, 2));
        // The engine sequenced the second before the first, and answered the first before the second.
        dataset.acknowledge(5, first, commit(9));
        dataset.acknowledge(5, second, commit(8));
        assert!(dataset.verify(5, &[], Some(&value(&dataset, 5, first))).is_ok());
        assert!(dataset.verify(5, &[], Some(&value(&dataset, 5, second))).is_err());
    }

    #[test]
    fn a_read_finds_what_was_acknowledged_or_what_came_since() {
        let dataset = dataset(100, 0);
        let [one, two] = [1, 2].map(|version| value(&dataset, 5, version));
        let before = dataset.expect(5);
        assert!(dataset.agrees(5, before, None));
        let version = dataset.begin(5);
        let during = dataset.expect(5);
        assert!(dataset.agrees(5, during, None) && dataset.agrees(5, during, Some(&one)));
        assert!(dataset.agrees(5, before, Some(&one)), "begun since");
        dataset.acknowledge(5, version, commit(1));
        let after = dataset.expect(5);
        assert!(!dataset.agrees(5, after, None), "lost");
        assert!(dataset.agrees(5, after, Some(&one)));
        let version = dataset.begin(5);
        dataset.acknowledge(5, version, commit(2));
        assert!(dataset.agrees(5, after, Some(&two)), "newer");
        assert!(!dataset.agrees(5, dataset.expect(5), Some(&one)), "stale");
        assert!(!dataset.agrees(6, dataset.expect(6), Some(&two)), "of another slot");
    }

    #[test]
    fn the_end_is_checked_to_the_last_byte() {
        let dataset = dataset(100, 0);
        let mut one = value(&dataset, 5, 1);
        assert!(dataset.verify(5, &[], None).is_ok());
        assert!(dataset.verify(5, &[], Some(&one)).is_err(), "a phantom");
        let version = dataset.begin(5);
        dataset.acknowledge(5, version, commit(1));
        assert!(dataset.verify(5, &[], Some(&one)).is_ok());
        assert!(dataset.verify(5, &[], None).is_err(), "lost");
        for at in 0..one.len() {
            one[at] ^= 1;
            assert!(dataset.verify(5, &[], Some(&one)).is_err(), "byte {at}");
            one[at] ^= 1;
        }
        let two = value(&dataset, 5, 2);
        assert!(dataset.verify(5, &[], Some(&two)).is_err(), "a version never acknowledged");
        assert!(dataset.verify(5, &[2], Some(&two)).is_ok(), "a failed put may be there");
    }
}
