//! Keys and values: pure functions of seed, slot and version, so that whatever is read back can be checked.
//!
//! A key is *hashed* (its first 16 digits scatter the slots, as YCSB's do) or *ordered* (a fixed prefix, then a number
//! that grows with the slot: what is inserted later sorts later). A value begins with a header that names slot and
//! version, with a check of both; pseudo-random bytes follow, which compress no better than random ones.

use super::draw::{below, mix64};
use serde::Serialize;

/// The least and the most bytes of a key. Sixteen hold the hash, which alone tells the slots apart.
pub(crate) const KEY_BYTES_MIN: usize = 16;
pub(crate) const KEY_BYTES_MAX: usize = 64;

/// Bytes of a value's header: slot, version, and a check of both with the seed.
pub(crate) const VALUE_HEADER_BYTES: usize = 16;

/// What ordered keys begin with: the prefix of reads of the newest.
pub(crate) const PREFIX: &[u8] = b"event";

/// A key.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// How many bytes values have: from the least to the most, each as often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ValueBytes {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl std::fmt::Display for ValueBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.max),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

/// What keys and values look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) key_bytes: usize,
    pub(crate) ordered: bool,
    pub(crate) value_bytes: ValueBytes,
}

impl Shape {
    /// The key of a slot.
    pub(crate) fn key(&self, slot: u32) -> Key {
        self.make_key(u64::from(slot), 0)
    }

    /// A key like that of the slot, which no slot has.
    pub(crate) fn absent_key(&self, slot: u32) -> Key {
        self.make_key(u64::from(slot), 1)
    }

    fn make_key(&self, slot: u64, absent: u64) -> Key {
        let mut key = Key { bytes: [b'.'; KEY_BYTES_MAX], length: self.key_bytes as u8 };
        let (head, tail) = key.bytes[..self.key_bytes].split_at_mut(KEY_BYTES_MIN);
        if self.ordered {
            head[..PREFIX.len()].copy_from_slice(PREFIX);
            // Absent keys lie between the others.
            hexadecimal(slot << 1 | absent, &mut head[PREFIX.len()..]);
        } else {
            // One to one, and slots are below 2^32: no two of them, nor one of them and an absent one, are alike.
            hexadecimal(mix64(self.seed ^ slot ^ absent << 63), head);
        }
        let digits = tail.len().min(8);
        hexadecimal(slot, &mut tail[..digits]);
        key
    }

    /// Writes the value of a version of a slot. No word depends on the one before, so that the core overlaps them.
    pub(crate) fn fill(&self, slot: u32, version: u32, value: &mut Vec<u8>) {
        let check = self.check(slot, version);
        value.resize(self.length(check), 0);
        let (header, rest) = value.split_at_mut(VALUE_HEADER_BYTES);
        header[..4].copy_from_slice(&slot.to_le_bytes());
        header[4..8].copy_from_slice(&version.to_le_bytes());
        header[8..].copy_from_slice(&check.to_le_bytes());
        let random = |at: u64| mix64(check.wrapping_add(at)).to_le_bytes();
        let (words, end) = rest.as_chunks_mut();
        let behind = words.len() as u64 + 1;
        for (word, at) in words.iter_mut().zip(1..) {
            *word = random(at);
        }
        end.copy_from_slice(&random(behind)[..end.len()]);
    }

    fn check(&self, slot: u32, version: u32) -> u64 {
        mix64(mix64(self.seed) ^ (u64::from(slot) << 32 | u64::from(version)))
    }

    fn length(&self, check: u64) -> usize {
        let ValueBytes { min, max } = self.value_bytes;
        // `max` is far below 2^32.
        (min + below((check >> 32) as u32, max - min + 1)) as usize
    }

    /// The version that a value's header names, where it is of this slot: cheap enough for every read.
    pub(crate) fn version(&self, slot: u32, value: &[u8]) -> Option<u32> {
        let (of, version) = self.header(value)?;
        (of == slot).then_some(version)
    }

    /// Slot and version that a value's header names, where its check and its length are right.
    pub(crate) fn header(&self, value: &[u8]) -> Option<(u32, u32)> {
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?)) };
        let (slot, version) = (word(0)?, word(4)?);
        let check = self.check(slot, version);
        (value.get(8..16)? == check.to_le_bytes() && value.len() == self.length(check))
            .then_some((slot, version))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn shape(key_bytes: usize, ordered: bool) -> Shape {
        Shape { seed: 42, key_bytes, ordered, value_bytes: ValueBytes { min: 40, max: 60 } }
    }

    #[test]
    fn keys_differ_and_absent_ones_are_not_among_them() {
        for key_bytes in [KEY_BYTES_MIN, 20, 24, KEY_BYTES_MAX] {
            for ordered in [false, true] {
                let shape = shape(key_bytes, ordered);
                let mut keys = BTreeSet::new();
                for slot in 0..1000 {
                    assert_eq!(shape.key(slot).as_ref().len(), key_bytes);
                    assert!(keys.insert(shape.key(slot).as_ref().to_vec()));
                    assert!(keys.insert(shape.absent_key(slot).as_ref().to_vec()));
                }
            }
        }
    }

    #[test]
    fn ordered_keys_grow_with_their_slots() {
        let shape = shape(24, true);
        assert!((0..5000).is_sorted_by_key(|slot| shape.key(slot).as_ref().to_vec()));
        assert!(shape.key(u32::MAX).as_ref().starts_with(PREFIX));
        assert!(shape.key(u32::MAX).as_ref() > shape.key(7).as_ref());
    }

    #[test]
    fn a_value_tells_slot_and_version_and_sizes_spread() {
        let shape = shape(24, false);
        let mut sizes = BTreeSet::new();
        let mut value = Vec::new();
        for version in 1..500 {
            shape.fill(5, version, &mut value);
            sizes.insert(value.len());
            assert_eq!(shape.version(5, &value), Some(version));
            assert_eq!(shape.version(6, &value), None);
            assert_eq!(shape.version(5, &value[..value.len() - 1]), None);
        }
        assert_eq!(sizes, (40..=60).collect());
        assert_eq!(shape.version(5, b""), None);
    }
}
