//! The bytes of a log file: the header page, the mark of a clean close, and groups.
//!
//! Everything here is pure: bytes in, values out. Decoding is total: whatever the bytes, the answer is a value
//! or `None`, in time and memory proportional to what is passed in. `docs/format.md` draws the same tables.

use crate::codec::Reader;
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The first bytes of every log file.
const FILE_MAGIC: u64 = u64::from_le_bytes(*b"QUIPULOG");
/// The version of the format that this code writes and reads.
pub(super) const VERSION: u32 = 1;
/// Where the header's fields end and their checksum begins.
pub(super) const FILE_FIELDS_BYTES: usize = 56;
/// Where the mark stands in the header page: in a sector of its own, so that rewriting the page to set or
/// clear the mark leaves the header's sector with the bytes that it has, even if the write tears.
const MARK_AT: usize = 512;

/// The first bytes of every group, after its checksum.
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"QGRP");
/// The length of a group's header; the records follow it.
pub(super) const GROUP_HEADER_BYTES: usize = 56;
/// Where the checksum over the head stands: it covers the fields between the group's checksum and itself.
const GROUP_HEAD_CHECK_AT: usize = 52;

/// Whose log (or manifest) it is. Files carry it, so that a file of another shard or engine is never taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// The engine's random number, given when it was created.
    pub(crate) engine: u128,
    /// The shard's number.
    pub(crate) shard: u16,
}

impl Identity {
    /// The seed of the groups' checksums: makes the groups of different shards tell apart, and a group that a
    /// user forges inside a value worthless.
    pub(super) fn seed(&self) -> u64 {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.engine.to_le_bytes());
        bytes[16..].copy_from_slice(&self.shard.to_le_bytes());
        xxh3_64(&bytes)
    }
}

/// The header of a log file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileHeader {
    /// Of [`VERSION`], or another that this code cannot read.
    pub(super) version: u32,
    /// Whose file it is.
    pub(super) identity: Identity,
    /// Ever increasing over all files of the shard; 0 marks a file as free.
    pub(super) sequence: u64,
    /// The file's length when the header was written.
    pub(super) file_bytes: u64,
    /// Commits up to this one were durable, here or elsewhere, before the header was written.
    pub(super) durable: Commit,
    /// After a clean close: where the next group goes. 0 otherwise.
    pub(super) sealed_at: u64,
}

impl FileHeader {
    /// Writes the header, and the mark where `sealed_at` is set, into a zeroed page.
    pub(super) fn encode(&self, page: &mut [u8]) {
        debug_assert!(page.len() == PAGE_BYTES && page.iter().all(|&byte| byte == 0));
        page[0..8].copy_from_slice(&FILE_MAGIC.to_le_bytes());
        page[8..12].copy_from_slice(&self.version.to_le_bytes());
        page[12..14].copy_from_slice(&self.identity.shard.to_le_bytes());
        page[16..32].copy_from_slice(&self.identity.engine.to_le_bytes());
        page[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        page[40..48].copy_from_slice(&self.file_bytes.to_le_bytes());
        page[48..56].copy_from_slice(&self.durable.0.to_le_bytes());
        let checksum = xxh3_64(&page[..FILE_FIELDS_BYTES]);
        page[56..64].copy_from_slice(&checksum.to_le_bytes());
        if self.sealed_at != 0 {
            let mark = &mut page[MARK_AT..MARK_AT + 24];
            mark[0..8].copy_from_slice(&self.sequence.to_le_bytes());
            mark[8..16].copy_from_slice(&self.sealed_at.to_le_bytes());
            let checksum = xxh3_64(&mark[..16]);
            mark[16..24].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Reads a header page; `None` where it holds no header. A torn or foreign mark counts as none.
    pub(super) fn decode(page: &[u8]) -> Option<FileHeader> {
        let fields = page.get(..FILE_FIELDS_BYTES)?;
        let mut reader = Reader::new(page);
        if reader.u64()? != FILE_MAGIC {
            return None;
        }
        let version = reader.u32()?;
        let shard = reader.u16()?;
        reader.u16()?;
        let identity = Identity { engine: reader.u128()?, shard };
        let (sequence, file_bytes, durable) = (reader.u64()?, reader.u64()?, Commit(reader.u64()?));
        if reader.u64()? != xxh3_64(fields) {
            return None;
        }
        let sealed_at = Self::decode_mark(page, sequence).unwrap_or(0);
        Some(FileHeader { version, identity, sequence, file_bytes, durable, sealed_at })
    }

    fn decode_mark(page: &[u8], sequence: u64) -> Option<u64> {
        let mark = page.get(MARK_AT..)?;
        let mut reader = Reader::new(mark);
        let (of, sealed_at) = (reader.u64()?, reader.u64()?);
        (reader.u64()? == xxh3_64(mark.get(..16)?) && of == sequence).then_some(sealed_at)
    }
}

/// The header of a group, less its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GroupHead {
    /// The sequence number of the file it was written to.
    pub(super) sequence: u64,
    /// The checksum of the group before it, in this file or an earlier one; 0 for the first of a chain.
    pub(super) prev: u64,
    /// The commit of its first record.
    pub(super) first: Commit,
    /// How many records it holds; 0 for a seal.
    pub(super) count: u32,
    /// The highest commit known to be durable when it was written: below `first`.
    pub(super) durable: Commit,
    /// The length of its records in bytes.
    pub(super) payload_bytes: u32,
}

impl GroupHead {
    /// The commit after its last record.
    pub(super) fn next(&self) -> Commit {
        Commit(self.first.0 + u64::from(self.count))
    }

    /// Its length on disk: header and records, in whole pages.
    pub(super) fn padded_bytes(&self) -> u64 {
        (GROUP_HEADER_BYTES as u64 + u64::from(self.payload_bytes)).next_multiple_of(PAGE_BYTES as u64)
    }

    /// Writes the header before the records that stand in `group` (whole pages, zeroed behind the records)
    /// and answers the checksum.
    pub(super) fn encode(&self, group: &mut [u8], seed: u64) -> u64 {
        debug_assert!(group.len() as u64 == self.padded_bytes());
        debug_assert!(self.durable < self.first, "a group cannot be durable before it is written");
        group[8..12].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        group[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        group[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        group[24..32].copy_from_slice(&self.prev.to_le_bytes());
        group[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        group[40..48].copy_from_slice(&self.durable.0.to_le_bytes());
        group[48..52].copy_from_slice(&self.count.to_le_bytes());
        let check = head_check(&group[8..GROUP_HEAD_CHECK_AT], seed);
        group[GROUP_HEAD_CHECK_AT..GROUP_HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
        let checksum = xxh3_64_with_seed(&group[8..], seed);
        group[..8].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads the head at the start of a page, so that its length can be trusted before the rest is read.
    pub(super) fn peek(page: &[u8], seed: u64) -> Option<GroupHead> {
        let mut reader = Reader::new(page.get(8..GROUP_HEADER_BYTES)?);
        if reader.u32()? != GROUP_MAGIC {
            return None;
        }
        let payload_bytes = reader.u32()?;
        let (sequence, prev) = (reader.u64()?, reader.u64()?);
        let (first, durable) = (Commit(reader.u64()?), Commit(reader.u64()?));
        let count = reader.u32()?;
        if reader.u32()? != head_check(page.get(8..GROUP_HEAD_CHECK_AT)?, seed) {
            return None;
        }
        first.0.checked_add(u64::from(count))?;
        (durable < first).then_some(GroupHead { sequence, prev, first, count, durable, payload_bytes })
    }

    /// Reads and checks a whole group of exactly its padded length. Answers the head and the checksum.
    pub(super) fn decode(group: &[u8], seed: u64) -> Option<(GroupHead, u64)> {
        let head = GroupHead::peek(group, seed)?;
        if group.len() as u64 != head.padded_bytes() {
            return None;
        }
        let checksum = Reader::new(group).u64()?;
        (checksum == xxh3_64_with_seed(group.get(8..)?, seed)).then_some((head, checksum))
    }

    /// The records of a group: each a varint length and that many bytes.
    pub(super) fn records<'a>(&self, group: &'a [u8]) -> Option<Reader<'a>> {
        let mut reader = Reader::new(group.get(GROUP_HEADER_BYTES..)?);
        reader.bytes(self.payload_bytes as usize).map(Reader::new)
    }
}

/// A check over the head alone. 32 bits do: it only keeps a scan from following nonsense lengths.
fn head_check(fields: &[u8], seed: u64) -> u32 {
    xxh3_64_with_seed(fields, seed) as u32
}

/// Writes an LEB128 number into a slice that is long enough; answers its length.
#[inline]
pub(super) fn write_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity { engine: 0x1234_5678, shard: 7 };

    fn header(sealed_at: u64) -> FileHeader {
        let durable = Commit(3);
        FileHeader {
            version: VERSION,
            identity: IDENTITY,
            sequence: 9,
            file_bytes: 65536,
            durable,
            sealed_at,
        }
    }

    fn group() -> (Vec<u8>, GroupHead, u64) {
        let mut bytes = vec![0; 2 * PAGE_BYTES];
        for (at, byte) in bytes[GROUP_HEADER_BYTES..5000].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let head = GroupHead {
            sequence: 9,
            prev: 77,
            first: Commit(5),
            count: 3,
            durable: Commit(4),
            payload_bytes: (5000 - GROUP_HEADER_BYTES) as u32,
        };
        let checksum = head.encode(&mut bytes, IDENTITY.seed());
        (bytes, head, checksum)
    }

    #[test]
    fn a_header_reads_back_and_a_flipped_bit_is_found() {
        for sealed_at in [0, 8192] {
            let mut page = vec![0; PAGE_BYTES];
            header(sealed_at).encode(&mut page);
            assert_eq!(FileHeader::decode(&page), Some(header(sealed_at)));
            for bit in 0..64 * 8 {
                page[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(FileHeader::decode(&page), None, "bit {bit}");
                page[bit / 8] ^= 1 << (bit % 8);
            }
            for bit in MARK_AT * 8..(MARK_AT + 24) * 8 {
                page[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(FileHeader::decode(&page), Some(header(0)), "a damaged mark counts as none");
                page[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_group_reads_back_and_a_flipped_bit_anywhere_is_found() {
        let (mut bytes, head, checksum) = group();
        let seed = IDENTITY.seed();
        assert_eq!(GroupHead::decode(&bytes, seed), Some((head, checksum)));
        assert_eq!(GroupHead::decode(&bytes, seed ^ 1), None, "another shard's group is none of ours");
        // Every bit of the header, and of the rest each in some byte.
        for bit in (0..GROUP_HEADER_BYTES * 8).chain((GROUP_HEADER_BYTES * 8..bytes.len() * 8).step_by(37)) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHead::decode(&bytes, seed), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..9000) {
            FileHeader::decode(&bytes);
            GroupHead::decode(&bytes, 1);
            let (group, head, _) = group();
            prop_assert_eq!(GroupHead::decode(&group[..cut.min(group.len())], IDENTITY.seed()).is_some(),
                cut >= group.len());
            if let Some(mut records) = head.records(&bytes) {
                while records.prefixed().is_some() {}
            }
        }
    }
}
