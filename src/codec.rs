//! Reading and writing integers in the engine's files: little endian, LEB128 varints, every read checked.
//!
//! A [`Reader`] never panics: each take answers `None` where the bytes have ended or make no sense, and the
//! caller turns that into an error that names the file and the offset.

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
    #[inline]
    pub(crate) fn set(&mut self, at: usize, tail: &[u8]) {
        debug_assert!(at <= self.len);
        self.len = at + tail.len();
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len.next_power_of_two(), 0);
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

    /// The memory it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Whether two keys are equal. Neighbours in order mostly differ in their last bytes.
#[inline]
pub(crate) fn same_key(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.last_chunk::<8>() == other.last_chunk::<8>() && one == other
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
}
