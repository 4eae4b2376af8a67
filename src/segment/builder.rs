//! Building blocks: gathers sorted entries, knows how large the block would become, and lays it out.

use super::block::{BLOCK_HEADER_BYTES, Block, BlockKind, Slot, block_checksum, head_of};
use super::{COMPRESSION_GAIN_DIVISOR, FULL_KEY_BYTES_MAX};
use crate::codec::{behind_prefix, put_varint, varint_len};
use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::ops::Range;

/// How a block's payload is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Encoding {
    /// As it is.
    Raw = 0,
    /// As an LZ4 block.
    Lz4 = 1,
}

/// One gathered entry: where its key and value end in the builder's buffers, and the rest.
struct Item {
    key_end: usize,
    value_end: usize,
    distance: u64,
    is_put: bool,
}

/// How many leading bytes two keys share.
#[inline]
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let ((left_words, _), (right_words, _)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    for (at, (left, right)) in left_words.iter().zip(right_words).enumerate() {
        let differ = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differ != 0 {
            return at * 8 + differ.trailing_zeros() as usize / 8;
        }
    }
    let words = left_words.len().min(right_words.len()) * 8;
    words + left[words..].iter().zip(&right[words..]).take_while(|(left, right)| left == right).count()
}

/// What is known of a payload that was encoded.
struct Encoded {
    /// Its offsets are wide.
    wide: bool,
    /// Where its entries lie.
    entries: Range<usize>,
    /// Of each, where they were asked for.
    slots: Box<[Slot]>,
}

/// Gathers the entries of one block. Its memory is reused from block to block.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    keys: Vec<u8>,
    values: Vec<u8>,
    items: Vec<Item>,
    /// How many bytes all keys so far have in common.
    prefix: usize,
    /// The sum of the framing (lengths, distances) of the entries, from above.
    framing: usize,
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.items.len()
    }

    /// The first key; empty where there is none.
    pub(crate) fn first_key(&self) -> &[u8] {
        &self.keys[..self.items.first().map_or(0, |item| item.key_end)]
    }

    /// The distance of the first entry.
    pub(crate) fn first_distance(&self) -> u64 {
        self.items.first().map_or(0, |item| item.distance)
    }

    /// How many bytes one more key would have in common with all others.
    #[inline]
    fn prefix_with(&self, key: &[u8]) -> usize {
        let prefix = &self.keys[..self.prefix];
        if self.items.is_empty() {
            key.len()
        } else if behind_prefix(key, prefix).is_some() {
            self.prefix
        } else {
            common_prefix(prefix, key)
        }
    }

    /// The framing of one entry, from above: its suffix is at most its key.
    #[inline]
    fn framing_of(key_bytes: usize, distance: u64) -> usize {
        varint_len((key_bytes as u64) << 1) + varint_len(distance)
    }

    /// The stored size without compression, header included, from above.
    #[inline]
    fn size_of(count: usize, key_bytes: usize, value_bytes: usize, framing: usize, prefix: usize) -> usize {
        let payload = 2 + prefix + (key_bytes - count * prefix) + value_bytes + framing;
        BLOCK_HEADER_BYTES + payload + count * offset_width(payload + 2 * count)
    }

    /// The stored size so far; see [`BlockBuilder::bytes_with`].
    pub(crate) fn bytes(&self) -> usize {
        Self::size_of(self.items.len(), self.keys.len(), self.values.len(), self.framing, self.prefix)
    }

    /// The stored size with one more entry. A bound from above: it takes each length as that of the whole
    /// key, so it is exact for keys below 64 bytes.
    #[inline]
    pub(crate) fn bytes_with(&self, key: &[u8], distance: u64, value_bytes: usize) -> usize {
        Self::size_of(
            self.items.len() + 1,
            self.keys.len() + key.len(),
            self.values.len() + value_bytes,
            self.framing + Self::framing_of(key.len(), distance),
            self.prefix_with(key),
        )
    }

    /// Adds an entry; entries come in order.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], distance: u64, value: Option<&[u8]>) {
        debug_assert!(key.len() <= FULL_KEY_BYTES_MAX);
        self.prefix = self.prefix_with(key);
        self.framing += Self::framing_of(key.len(), distance);
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value.unwrap_or_default());
        self.items.push(Item {
            key_end: self.keys.len(),
            value_end: self.values.len(),
            distance,
            is_put: value.is_some(),
        });
    }

    /// Appends the payload to `out` and starts over. With `keep` what a reader notes of the entries is noted as well.
    fn encode(&mut self, out: &mut Vec<u8>, keep: bool) -> Encoded {
        let start = out.len();
        let bytes_max = self.bytes() - BLOCK_HEADER_BYTES;
        out.reserve(bytes_max);
        out.extend_from_slice(&(self.prefix as u16).to_le_bytes());
        out.extend_from_slice(&self.keys[..self.prefix]);
        let entries_start = out.len() - start;
        let mut slots = Vec::with_capacity(if keep { self.items.len() } else { 0 });
        let (mut key_start, mut value_start) = (0, 0);
        for item in &mut self.items {
            let offset = out.len() - start;
            let suffix = &self.keys[key_start + self.prefix..item.key_end];
            if keep {
                // Payloads are shorter than 4 GiB by far.
                slots.push(Slot { head: head_of(&[], suffix), start: offset as u32 });
            }
            put_varint(out, (suffix.len() as u64) << 1 | u64::from(item.is_put));
            out.extend_from_slice(suffix);
            put_varint(out, item.distance);
            out.extend_from_slice(&self.values[value_start..item.value_end]);
            key_start = std::mem::replace(&mut item.key_end, offset);
            value_start = item.value_end;
        }
        let entries_end = out.len() - start;
        let wide = offset_width(entries_end + 2 * self.items.len()) == 4;
        for Item { key_end: offset, .. } in &self.items {
            if wide {
                out.extend_from_slice(&(*offset as u32).to_le_bytes());
            } else {
                out.extend_from_slice(&(*offset as u16).to_le_bytes());
            }
        }
        debug_assert!(out.len() - start <= bytes_max, "the size was foretold from above");
        self.clear();
        Encoded { wide, entries: entries_start..entries_end, slots: slots.into() }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.items.clear();
        self.prefix = 0;
        self.framing = 0;
    }

    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.capacity() + self.values.capacity() + self.items.capacity() * size_of::<Item>()
    }
}

/// Bytes of each offset in a payload of that size with narrow offsets.
#[inline]
fn offset_width(payload_bytes_narrow: usize) -> usize {
    if payload_bytes_narrow <= usize::from(u16::MAX) { 2 } else { 4 }
}

/// Puts headers in front of payloads. Its memory is reused from block to block.
pub(crate) struct Framer {
    seed: u64,
    stored: Vec<u8>,
    compressed: Vec<u8>,
    table: CompressTable,
}

impl Framer {
    /// For the file whose identity has that seed.
    pub(crate) fn new(seed: u64) -> Self {
        // The large table for all blocks: which table is used shows in the bytes.
        Framer { seed, stored: Vec::new(), compressed: Vec::new(), table: CompressTable::large() }
    }

    /// The whole block of the builder's entries, to be stored at `offset`; and, with `keep`, as a reader would have it. The builder
    /// starts over.
    pub(crate) fn entries(
        &mut self,
        builder: &mut BlockBuilder,
        kind: BlockKind,
        compress: bool,
        offset: u64,
        keep: bool,
    ) -> (&[u8], Option<Block>) {
        let count = builder.count();
        self.stored.clear();
        self.stored.resize(BLOCK_HEADER_BYTES, 0);
        let Encoded { wide, entries, slots } = builder.encode(&mut self.stored, keep);
        let payload = &self.stored[BLOCK_HEADER_BYTES..];
        let block = keep.then(|| Block::built(kind, Bytes::copy_from_slice(payload), slots, entries));
        let raw_bytes = payload.len();
        let encoding = if compress { self.compress(raw_bytes) } else { Encoding::Raw };
        (self.seal(kind, encoding, raw_bytes, count, wide, offset), block)
    }

    /// The whole block of a filter, to be stored at `offset`.
    pub(crate) fn filter(&mut self, bits: &[u8], kind: BlockKind, offset: u64) -> &[u8] {
        self.stored.clear();
        self.stored.resize(BLOCK_HEADER_BYTES, 0);
        self.stored.extend_from_slice(bits);
        self.seal(kind, Encoding::Raw, bits.len(), 0, false, offset)
    }

    /// Compresses the payload in place, if that gains enough.
    fn compress(&mut self, raw_bytes: usize) -> Encoding {
        self.compressed.resize(get_maximum_output_size(raw_bytes), 0);
        let payload = &self.stored[BLOCK_HEADER_BYTES..];
        match compress_into_with_table(payload, &mut self.compressed, &mut self.table) {
            Ok(bytes) if bytes <= raw_bytes - raw_bytes / COMPRESSION_GAIN_DIVISOR => {
                self.stored.truncate(BLOCK_HEADER_BYTES);
                self.stored.extend_from_slice(&self.compressed[..bytes]);
                Encoding::Lz4
            }
            _ => Encoding::Raw,
        }
    }

    fn seal(
        &mut self,
        kind: BlockKind,
        encoding: Encoding,
        raw_bytes: usize,
        count: usize,
        wide: bool,
        offset: u64,
    ) -> &[u8] {
        let stored = &mut self.stored;
        let stored_bytes = stored.len() as u32;
        stored[8..12].copy_from_slice(&stored_bytes.to_le_bytes());
        stored[12..16].copy_from_slice(&(raw_bytes as u32).to_le_bytes());
        stored[16..20].copy_from_slice(&(count as u32).to_le_bytes());
        stored[20] = kind as u8;
        stored[21] = encoding as u8;
        stored[22] = if wide { 4 } else { 2 };
        let checksum = block_checksum(stored, self.seed, offset);
        stored[..8].copy_from_slice(&checksum.to_le_bytes());
        stored
    }

    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.stored.capacity() + self.compressed.capacity()
    }
}
