//! Reading and writing integers in the engine's files: little endian, LEB128 varints, every read checked.
//!
//! A [`Reader`] never panics: each take answers `None` where the bytes have ended or make no sense, and the
//! caller turns that into an error that names the file and the offset. Beside it stands what handles short keys quickly.

use std::cmp::Ordering;

/// Takes values off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// An LEB128 number of at most ten bytes; longer or overflowing encodings are refused.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        let mut shift = 0;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Some(value);
            }
            shift += 7;
        }
        None
    }

    /// A varint length, then that many bytes.
    #[inline]
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.varint()?).ok()?;
        self.bytes(count)
    }
}

/// Appends an LEB128 number.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
#[inline]
pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// How many bytes [`put_varint`] appends.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// What a buffer for keys begins with: most fit, so that it grows once.
const KEY_BUFFER_BYTES_MIN: usize = 64;

/// A key that changes often. Short pieces are copied without a call.
#[derive(Default)]
pub(crate) struct KeyBuffer {
    /// What lies from `len` on means nothing.
    bytes: Vec<u8>,
    len: usize,
}

impl KeyBuffer {
    #[inline]
    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Keeps the bytes in front of `at`, and puts others behind them; `at` must be within what it has.
    #[inline(always)]
    pub(crate) fn set(&mut self, at: usize, tail: &[u8]) {
        debug_assert!(at <= self.len);
        self.len = at + tail.len();
        if self.bytes.len() < self.len {
            self.grow();
        }
        let to = &mut self.bytes[at..self.len];
        // Two pieces of one size, which overlap where the tail is shorter than both.
        if let (Some(first), Some(last)) = (tail.first_chunk::<16>(), tail.last_chunk::<16>())
            && tail.len() <= 32
        {
            to[..16].copy_from_slice(first);
            to[tail.len() - 16..].copy_from_slice(last);
        } else if let (Some(first), Some(last)) = (tail.first_chunk::<8>(), tail.last_chunk::<8>())
            && tail.len() <= 16
        {
            to[..8].copy_from_slice(first);
            to[tail.len() - 8..].copy_from_slice(last);
        } else {
            to.copy_from_slice(tail);
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(self.len.next_power_of_two().max(KEY_BUFFER_BYTES_MIN), 0);
    }

    /// The memory it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Whether two keys are equal. Neighbours in order mostly differ in their last bytes. Up to 32 bytes are compared without a
/// call.
#[inline]
pub(crate) fn same_key(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // Two pieces of one size, which overlap in what is shorter than both.
    match one.len() {
        16..=32 => {
            one.last_chunk::<16>() == other.last_chunk::<16>()
                && one.first_chunk::<16>() == other.first_chunk::<16>()
        }
        8..16 => {
            one.last_chunk::<8>() == other.last_chunk::<8>()
                && one.first_chunk::<8>() == other.first_chunk::<8>()
        }
        0..8 => one.iter().eq(other),
        _ => one.last_chunk::<8>() == other.last_chunk::<8>() && one == other,
    }
}

/// What follows a prefix in a key that has it; see [`same_key`].
#[inline]
pub(crate) fn behind_prefix<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = key.split_at_checked(prefix.len())?;
    same_key(front, prefix).then_some(rest)
}

/// As `one.cmp(other)`. Keys mostly differ in their first bytes: then it takes no call.
#[inline]
pub(crate) fn compare_keys(one: &[u8], other: &[u8]) -> Ordering {
    match (one.split_first_chunk::<8>(), other.split_first_chunk::<8>()) {
        (Some((front, back)), Some((other_front, other_back))) => {
            let order = u64::from_be_bytes(*front).cmp(&u64::from_be_bytes(*other_front));
            if order.is_eq() { back.cmp(other_back) } else { order }
        }
        _ => compare_short(one, other),
    }
}

/// As `one.cmp(other)` where they are mostly a few bytes long.
#[inline]
pub(crate) fn compare_short(one: &[u8], other: &[u8]) -> Ordering {
    if one.len().min(other.len()) > 8 {
        return one.cmp(other);
    }
    let unequal = one.iter().zip(other).find(|(byte, other)| byte != other);
    unequal.map_or_else(|| one.len().cmp(&other.len()), |(byte, other)| byte.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back_and_know_their_length() {
        for value in [0, 1, 127, 128, 300, 1 << 20, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Some(value));
            assert!(reader.is_empty());
            for cut in 0..out.len() {
                assert_eq!(Reader::new(&out[..cut]).varint(), None);
            }
        }
        assert_eq!(Reader::new(&[0xff; 10]).varint(), None, "an overflowing varint is refused");
        assert_eq!(Reader::new(&[0x80; 11]).varint(), None, "an endless varint is refused");
    }

    #[test]
    fn keys_are_compared_as_slices_are() {
        // Of all lengths around the pieces that are compared at once; alike but for one byte, or not at all.
        let keys: Vec<Vec<u8>> = (0..40usize)
            .flat_map(|len| {
                let key = vec![b'k'; len];
                let other = |at: usize, byte: u8| {
                    let mut other = key.clone();
                    other[at] = byte;
                    other
                };
                let others = (0..len).flat_map(|at| [other(at, 0), other(at, 255)]).collect::<Vec<_>>();
                std::iter::once(key.clone()).chain(others)
            })
            .collect();
        for one in &keys {
            for other in &keys {
                assert_eq!(same_key(one, other), one == other, "{one:?} {other:?}");
                assert_eq!(behind_prefix(one, other), one.strip_prefix(&other[..]), "{one:?} {other:?}");
                assert_eq!(compare_keys(one, other), one.cmp(other), "{one:?} {other:?}");
                assert_eq!(compare_short(one, other), one.cmp(other), "{one:?} {other:?}");
            }
        }
    }
}
