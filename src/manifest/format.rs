//! The bytes of a manifest: records in whole pages, each chained to the one before; state and edits inside.
//!
//! Pure and total, as the log's format: whatever the bytes, the answer is a value or `None`, and nothing is
//! allocated beyond what the bytes passed in can hold.

use super::{Edit, State};
use crate::codec::{Reader, put_prefixed, put_varint};
use crate::limits::PAGE_BYTES;
use crate::log::Identity;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: u32 = u32::from_le_bytes(*b"QMAN");
/// The version of the format that this code writes and reads.
pub(super) const VERSION: u32 = 1;
/// The length of a record's header; the payload follows it.
pub(super) const RECORD_HEADER_BYTES: usize = 72;

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The whole state; the first record of a generation, and no other.
    Snapshot,
    /// A change to it.
    Edit,
}

/// The header of a record, less its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHead {
    pub(super) version: u32,
    pub(super) kind: Kind,
    pub(super) identity: Identity,
    /// The generation of the file that it was written to.
    pub(super) generation: u64,
    /// 0 for the snapshot, then 1, 2, 3 …
    pub(super) number: u64,
    /// The checksum of the record before; 0 for the snapshot.
    pub(super) prev: u64,
    pub(super) payload_bytes: u64,
}

impl RecordHead {
    /// The record's length on disk, in whole pages; `None` if that is no number.
    pub(super) fn padded_bytes(&self) -> Option<u64> {
        self.payload_bytes
            .checked_add(RECORD_HEADER_BYTES as u64)?
            .checked_next_multiple_of(PAGE_BYTES as u64)
    }

    /// Writes header and payload into `page`s, zeroed and of the padded length. Answers the checksum.
    pub(super) fn encode(&self, payload: &[u8], pages: &mut [u8]) -> u64 {
        debug_assert!(Some(pages.len() as u64) == self.padded_bytes());
        debug_assert!(self.payload_bytes == payload.len() as u64);
        debug_assert!((self.kind == Kind::Snapshot) == (self.number == 0));
        pages[8..12].copy_from_slice(&MAGIC.to_le_bytes());
        pages[12..16].copy_from_slice(&self.version.to_le_bytes());
        pages[16..18].copy_from_slice(&self.identity.shard.to_le_bytes());
        pages[18] = match self.kind {
            Kind::Snapshot => 1,
            Kind::Edit => 2,
        };
        pages[24..40].copy_from_slice(&self.identity.engine.to_le_bytes());
        pages[40..48].copy_from_slice(&self.generation.to_le_bytes());
        pages[48..56].copy_from_slice(&self.number.to_le_bytes());
        pages[56..64].copy_from_slice(&self.prev.to_le_bytes());
        pages[64..72].copy_from_slice(&self.payload_bytes.to_le_bytes());
        pages[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let checksum = xxh3_64(&pages[8..]);
        pages[..8].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads and checks the record at the start of `bytes`, which may go on behind it. Answers the head, the
    /// checksum and the payload.
    pub(super) fn decode(bytes: &[u8]) -> Option<(RecordHead, u64, &[u8])> {
        let mut reader = Reader::new(bytes);
        let checksum = reader.u64()?;
        if reader.u32()? != MAGIC {
            return None;
        }
        let version = reader.u32()?;
        let shard = reader.u16()?;
        let kind = match reader.u8()? {
            1 => Kind::Snapshot,
            2 => Kind::Edit,
            _ => return None,
        };
        reader.bytes(5)?;
        let identity = Identity { engine: reader.u128()?, shard };
        let (generation, number) = (reader.u64()?, reader.u64()?);
        let (prev, payload_bytes) = (reader.u64()?, reader.u64()?);
        let head = RecordHead { version, kind, identity, generation, number, prev, payload_bytes };
        let record = bytes.get(..usize::try_from(head.padded_bytes()?).ok()?)?;
        let payload = reader.bytes(usize::try_from(payload_bytes).ok()?)?;
        let sound = checksum == xxh3_64(record.get(8..)?) && (kind == Kind::Snapshot) == (number == 0);
        sound.then_some((head, checksum, payload))
    }
}

/// The payload of a snapshot.
pub(super) fn encode_state(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, state.segments.len() as u64);
    for (name, meta) in &state.segments {
        put_prefixed(&mut out, name.as_bytes());
        put_prefixed(&mut out, meta);
    }
    put_varint(&mut out, state.facts.len() as u64);
    for (key, value) in &state.facts {
        put_varint(&mut out, u64::from(*key));
        put_prefixed(&mut out, value);
    }
    out
}

/// Reads a snapshot's payload.
pub(super) fn decode_state(payload: &[u8]) -> Option<State> {
    let mut reader = Reader::new(payload);
    let mut segments = BTreeMap::new();
    for _ in 0..reader.varint()? {
        let name = take_name(&mut reader)?;
        segments.insert(name, reader.prefixed()?.to_vec());
    }
    let mut facts = BTreeMap::new();
    for _ in 0..reader.varint()? {
        let key = u16::try_from(reader.varint()?).ok()?;
        facts.insert(key, reader.prefixed()?.to_vec());
    }
    reader.is_empty().then_some(State { segments, facts })
}

/// The payload of an edit.
pub(super) fn encode_edit(edit: &Edit) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, edit.remove.len() as u64);
    for name in &edit.remove {
        put_prefixed(&mut out, name.as_bytes());
    }
    put_varint(&mut out, edit.add.len() as u64);
    for (name, meta) in &edit.add {
        put_prefixed(&mut out, name.as_bytes());
        put_prefixed(&mut out, meta);
    }
    put_varint(&mut out, edit.facts.len() as u64);
    for (key, value) in &edit.facts {
        put_varint(&mut out, u64::from(*key));
        put_prefixed(&mut out, value);
    }
    out
}

/// Reads an edit's payload.
pub(super) fn decode_edit(payload: &[u8]) -> Option<Edit> {
    let mut reader = Reader::new(payload);
    let mut edit = Edit::default();
    for _ in 0..reader.varint()? {
        edit.remove.push(take_name(&mut reader)?);
    }
    for _ in 0..reader.varint()? {
        let name = take_name(&mut reader)?;
        edit.add.push((name, reader.prefixed()?.to_vec()));
    }
    for _ in 0..reader.varint()? {
        let key = u16::try_from(reader.varint()?).ok()?;
        edit.facts.push((key, reader.prefixed()?.to_vec()));
    }
    reader.is_empty().then_some(edit)
}

fn take_name(reader: &mut Reader<'_>) -> Option<String> {
    Some(std::str::from_utf8(reader.prefixed()?).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = String> {
        "[a-z0-9-]{1,12}"
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn states_and_edits_read_back_and_cuts_are_refused(
            segments in prop::collection::btree_map(names(), bytes(), 0..8),
            facts in prop::collection::btree_map(any::<u16>(), bytes(), 0..8),
            remove in prop::collection::vec(names(), 0..4),
        ) {
            let edit = Edit {
                add: segments.clone().into_iter().collect(),
                remove,
                facts: facts.clone().into_iter().collect(),
            };
            let state = State { segments, facts };
            let encoded = encode_state(&state);
            for cut in 0..encoded.len() {
                prop_assert_eq!(decode_state(&encoded[..cut]), None);
            }
            prop_assert_eq!(decode_state(&encoded), Some(state));
            let encoded = encode_edit(&edit);
            for cut in 0..encoded.len() {
                prop_assert_eq!(decode_edit(&encoded[..cut]), None);
            }
            prop_assert_eq!(decode_edit(&encoded), Some(edit));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode_state(&bytes);
            decode_edit(&bytes);
            prop_assert!(RecordHead::decode(&bytes).is_none());
            let mut framed = vec![0; 8];
            framed.extend_from_slice(b"QMAN");
            framed.extend_from_slice(&bytes);
            prop_assert!(RecordHead::decode(&framed).is_none());
        }
    }
}
