//! The data of a run: which keys and values there are, and what was acknowledged of them.
//!
//! The data is a fixed number of *slots*. A slot is one key in one directory of one shard; all three follow from
//! its number. It is written by one client at a time, one put in flight at a time, and each put writes the next
//! *version*. The value follows from seed, slot and version: a header that names the latter two, and
//! pseudo-random bytes. So what the engine must hold for a slot is told by one number, its last acknowledged
//! version, and any value read back can be checked to the last byte.
//!
//! Where a put failed, its version may or may not be there: the slot is *doubted*, and either is accepted.

use super::workload::mix64;
use quipu::{Directory, Engine};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a key: 16 hexadecimal digits that scatter the slots, then 8 that tell them apart.
pub(crate) const KEY_BYTES: usize = 24;

/// Bytes of a value's header: slot, version, and a check of both with the seed.
pub(crate) const VALUE_HEADER_BYTES: usize = 16;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// The slots, and what was acknowledged of each.
pub(crate) struct Dataset {
    seed: u64,
    value_bytes: usize,
    /// The slots of shard `s` are `starts[s]..starts[s + 1]`.
    starts: Vec<u32>,
    /// How many directories each shard has.
    directories: Vec<u32>,
    /// The last acknowledged version of each slot; 0: none. One writer each, and a reader that synchronises by
    /// other means (the answer of the put, the end of the phase), so that relaxed order does.
    acknowledged: Vec<AtomicU32>,
    /// Slots with a failed put, and the version that it had.
    doubts: Mutex<BTreeMap<u32, u32>>,
}

impl Dataset {
    /// `keys` slots, spread over shards with so many directories each, in proportion to those.
    pub(crate) fn new(seed: u64, value_bytes: usize, keys: u32, directories: Vec<u32>) -> Self {
        debug_assert!(value_bytes >= VALUE_HEADER_BYTES);
        let total: u64 = directories.iter().copied().map(u64::from).sum();
        let mut starts = vec![0];
        let mut before = 0u64;
        for &count in &directories {
            before += u64::from(count);
            starts.push((u64::from(keys) * before / total.max(1)) as u32);
        }
        let acknowledged = (0..keys).map(|_| AtomicU32::new(0)).collect();
        Dataset { seed, value_bytes, starts, directories, acknowledged, doubts: Mutex::default() }
    }

    /// The seed of keys, values and operations.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u32 {
        self.acknowledged.len() as u32
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u16 {
        self.directories.len() as u16
    }

    /// The slots of a shard; none where it has no directory.
    pub(crate) fn slots_of(&self, shard: u16) -> Range<u32> {
        let shard = usize::from(shard);
        self.starts[shard]..self.starts[shard + 1]
    }

    /// The shard of a slot, and which of the shard's directories it is in.
    pub(crate) fn place(&self, slot: u32) -> (usize, usize) {
        let shard = self.starts.partition_point(|&start| start <= slot) - 1;
        (shard, ((slot - self.starts[shard]) % self.directories[shard]) as usize)
    }

    /// The slots of one directory.
    pub(crate) fn slots_in(&self, shard: u16, directory: usize) -> impl Iterator<Item = u32> + use<> {
        let slots = self.slots_of(shard);
        (slots.start.saturating_add(directory as u32)..slots.end)
            .step_by(self.directories[usize::from(shard)] as usize)
    }

    /// The key of a slot.
    pub(crate) fn key(&self, slot: u32) -> Key {
        let mut key = [0; KEY_BYTES];
        hexadecimal(mix64(self.seed ^ u64::from(slot)), &mut key[..16]);
        hexadecimal(u64::from(slot), &mut key[16..]);
        key
    }

    /// Writes the value of a version of a slot. No word depends on the one before, so that the core overlaps them.
    pub(crate) fn fill(&self, slot: u32, version: u32, value: &mut Vec<u8>) {
        let check = self.check(slot, version);
        value.resize(self.value_bytes, 0);
        let (header, rest) = value.split_at_mut(VALUE_HEADER_BYTES);
        header[..4].copy_from_slice(&slot.to_le_bytes());
        header[4..8].copy_from_slice(&version.to_le_bytes());
        header[8..].copy_from_slice(&check.to_le_bytes());
        for (word, at) in rest.chunks_mut(8).zip(1u64..) {
            let random = mix64(check.wrapping_add(at)).to_le_bytes();
            word.copy_from_slice(&random[..word.len()]);
        }
    }

    fn check(&self, slot: u32, version: u32) -> u64 {
        mix64(mix64(self.seed) ^ (u64::from(slot) << 32 | u64::from(version)))
    }

    /// The version that a value's header names, where it is of this slot: cheap enough for every read.
    pub(crate) fn version(&self, slot: u32, value: &[u8]) -> Option<u32> {
        let word = |at: usize| -> Option<[u8; 4]> { value.get(at..at + 4)?.try_into().ok() };
        let version = u32::from_le_bytes(word(4)?);
        let check = self.check(slot, version).to_le_bytes();
        (value.len() == self.value_bytes
            && u32::from_le_bytes(word(0)?) == slot
            && value.get(8..VALUE_HEADER_BYTES)? == check)
            .then_some(version)
    }

    /// The version that the next put of a slot writes.
    pub(crate) fn next_version(&self, slot: u32) -> u32 {
        self.acknowledged(slot) + 1
    }

    /// The last acknowledged version of a slot; 0: none.
    pub(crate) fn acknowledged(&self, slot: u32) -> u32 {
        self.acknowledged[slot as usize].load(Ordering::Relaxed)
    }

    /// Notes that a put of this version was acknowledged.
    pub(crate) fn acknowledge(&self, slot: u32, version: u32) {
        debug_assert_eq!(self.next_version(slot), version);
        self.acknowledged[slot as usize].store(version, Ordering::Relaxed);
    }

    /// Notes that a put of this version failed, and so may or may not be there.
    pub(crate) fn doubt(&self, slot: u32, version: u32) {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, version);
    }

    /// The failed puts: slot and version.
    pub(crate) fn doubts(&self) -> BTreeMap<u32, u32> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks what was read of a slot, to the last byte, against what was acknowledged; says what is wrong.
    pub(crate) fn verify(&self, slot: u32, doubted: Option<u32>, read: Option<&[u8]>) -> Result<(), String> {
        let acknowledged = self.acknowledged(slot);
        let key = self.key(slot);
        let key = String::from_utf8_lossy(&key);
        let Some(value) = read else {
            return match acknowledged {
                0 => Ok(()),
                version => Err(format!("key {key}: version {version} was acknowledged, nothing is there")),
            };
        };
        let Some(version) = self.version(slot, value) else {
            return Err(format!("key {key}: holds {} bytes that were never written to it", value.len()));
        };
        if version != acknowledged && Some(version) != doubted {
            return Err(format!("key {key}: version {acknowledged} was acknowledged, {version} is there"));
        }
        let mut expected = Vec::with_capacity(self.value_bytes);
        self.fill(slot, version, &mut expected);
        match value == expected {
            true => Ok(()),
            false => Err(format!("key {key}: the bytes of version {version} are not those written")),
        }
    }
}

/// Writes the low digits of a number in hexadecimal.
fn hexadecimal(number: u64, digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
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

    fn dataset() -> Dataset {
        Dataset::new(42, 100, 1000, vec![3, 0, 7])
    }

    #[test]
    fn slots_are_placed_once_and_in_proportion() {
        let dataset = dataset();
        assert_eq!(
            (0..3).map(|shard| dataset.slots_of(shard)).collect::<Vec<_>>(),
            [0..300, 300..300, 300..1000]
        );
        let mut seen = 0;
        for (shard, directories) in [(0u16, 3), (2, 7)] {
            for directory in 0..directories {
                for slot in dataset.slots_in(shard, directory) {
                    assert_eq!(dataset.place(slot), (usize::from(shard), directory));
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 1000);
    }

    #[test]
    fn keys_differ() {
        let dataset = dataset();
        let keys: std::collections::BTreeSet<_> = (0..1000).map(|slot| dataset.key(slot)).collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn a_value_tells_slot_and_version_and_nothing_else_passes() {
        let dataset = dataset();
        let mut value = Vec::new();
        dataset.fill(5, 1, &mut value);
        assert_eq!(value.len(), 100);
        assert_eq!(dataset.version(5, &value), Some(1));
        assert_eq!(dataset.version(6, &value), None);
        assert_eq!(dataset.version(5, &value[..99]), None);
        assert_eq!(dataset.version(5, b""), None);

        assert!(dataset.verify(5, None, None).is_ok());
        assert!(dataset.verify(5, None, Some(&value)).is_err(), "a phantom");
        dataset.acknowledge(5, 1);
        assert!(dataset.verify(5, None, Some(&value)).is_ok());
        assert!(dataset.verify(5, None, None).is_err(), "lost");
        for at in 0..value.len() {
            value[at] ^= 1;
            assert!(dataset.verify(5, None, Some(&value)).is_err(), "byte {at}");
            value[at] ^= 1;
        }
        dataset.fill(5, 2, &mut value);
        assert!(dataset.verify(5, None, Some(&value)).is_err(), "a version never acknowledged");
        assert!(dataset.verify(5, Some(2), Some(&value)).is_ok(), "a failed put may be there");
        dataset.acknowledge(5, 2);
        dataset.fill(5, 1, &mut value);
        assert!(dataset.verify(5, None, Some(&value)).is_err(), "an older version");
    }
}
