//! What clients do: operations drawn from a seed, the same for every engine.
//!
//! Keys are slots, `0..keys`; slot s lives in Quipu's directory s mod shards, and everywhere else in the one map
//! there is. A client that stands on a shard's core draws from that shard's slots only.

use crate::engines::{Client, Failure, Result};
use crate::shared::draw::{KeyDistribution, KeyDraw};
use crate::shared::key::{Key, Shape, ValueBytes};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::hint::black_box;

/// So many slots of a zipfian distribution each client draws before its first operation: a draw takes a power, which on a core that
/// is shared with an engine would be time of the engine's. More than a client comes to in ten seconds and the warm-up.
const DRAWN_AHEAD: usize = 1 << 18;

/// Bytes of every key.
pub(crate) const KEY_BYTES: u32 = 24;

/// The data of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data {
    /// Keys there are.
    pub(crate) keys: u32,
    /// Bytes of a value; they do not compress.
    pub(crate) value_bytes: u32,
    /// Decides keys and values.
    pub(crate) seed: u64,
}

impl Data {
    /// How keys and values look.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            seed: self.seed,
            key_bytes: KEY_BYTES as usize,
            ordered: false,
            value_bytes: ValueBytes { min: self.value_bytes, max: self.value_bytes },
        }
    }

    /// Bytes of a key and its value.
    pub(crate) fn entry_bytes(&self) -> u64 {
        u64::from(KEY_BYTES + self.value_bytes)
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.keys) * self.entry_bytes()
    }
}

/// What clients do, over and over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Work {
    /// Commits of one put.
    Put,
    /// Commits of so many puts.
    Batch(u32),
    /// Point reads of keys that are there.
    Get,
    /// Reads of so many entries from a key on.
    Scan(u32),
    /// YCSB A: as many reads as updates, the keys zipfian.
    YcsbA,
}

impl Work {
    fn distribution(self) -> KeyDistribution {
        match self {
            Work::YcsbA => KeyDistribution::Zipfian(crate::shared::draw::YCSB_EXPONENT),
            _ => KeyDistribution::Uniform,
        }
    }
}

/// Slots that a client draws from: `first`, `first + step`, and so on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    /// The first.
    pub(crate) first: u32,
    /// From one to the next.
    pub(crate) step: u32,
}

impl Slots {
    /// All of them.
    pub(crate) const ALL: Slots = Slots { first: 0, step: 1 };
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Op {
    /// Commit one put.
    Put(u32),
    /// Commit puts; [`Ops::pairs`] has them.
    Batch,
    /// Read a slot's value.
    Get(u32),
    /// Read so many entries from a slot's key on.
    Scan(u32, u32),
}

/// The operations of one client.
pub(crate) struct Ops {
    shape: Shape,
    work: Work,
    slots: Slots,
    count: u32,
    /// Operations left, where their number is limited.
    left: Option<u64>,
    draw: KeyDraw,
    /// Slots drawn ahead, and the place of the next; the client goes round them.
    drawn: Vec<u32>,
    next_drawn: usize,
    rng: Xoshiro256PlusPlus,
    value: Vec<u8>,
    batch: Vec<(u32, Key, Vec<u8>)>,
}

impl Ops {
    /// The operations of the client with this number. No two numbers of a seed draw the same.
    pub(crate) fn new(data: &Data, work: Work, slots: Slots, client: u32) -> Self {
        let mut ops = Ops {
            shape: data.shape(),
            work,
            slots,
            count: (data.keys.saturating_sub(slots.first)).div_ceil(slots.step).max(1),
            left: None,
            draw: KeyDraw::new(work.distribution()),
            drawn: Vec::new(),
            next_drawn: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(data.seed ^ u64::from(client) << 32),
            value: Vec::new(),
            batch: Vec::new(),
        };
        if work == Work::YcsbA {
            ops.drawn = (0..DRAWN_AHEAD).map(|_| ops.slot()).collect();
        }
        ops
    }

    /// The first so many of them.
    pub(crate) fn limited(self, operations: Option<u64>) -> Self {
        Ops { left: operations, ..self }
    }

    /// Whether there are more.
    pub(crate) fn more(&self) -> bool {
        self.left != Some(0)
    }

    fn slot(&mut self) -> u32 {
        if let Some(&slot) = self.drawn.get(self.next_drawn) {
            self.next_drawn = (self.next_drawn + 1) % self.drawn.len();
            return slot;
        }
        self.slots.first + self.slots.step * self.draw.index(&mut self.rng, self.count, self.count)
    }

    /// The next operation; its value or batch is made.
    pub(crate) fn next(&mut self) -> Op {
        self.left = self.left.map(|left| left.saturating_sub(1));
        match self.work {
            Work::Put => self.next_put(),
            Work::Get => Op::Get(self.slot()),
            Work::Scan(limit) => Op::Scan(self.slot(), limit),
            Work::YcsbA if self.rng.next_u32() & 1 == 0 => Op::Get(self.slot()),
            Work::YcsbA => self.next_put(),
            Work::Batch(keys) => {
                let mut batch = std::mem::take(&mut self.batch);
                batch.resize_with(keys as usize, || (0, self.shape.key(0), Vec::new()));
                for (slot, key, value) in &mut batch {
                    *slot = self.slot();
                    *key = self.shape.key(*slot);
                    let version = self.rng.next_u32();
                    self.shape.fill(*slot, version, value);
                }
                self.batch = batch;
                Op::Batch
            }
        }
    }

    /// The next so many reads: their slots and keys.
    pub(crate) fn next_gets(&mut self, count: u32) -> Result<(Vec<u32>, Vec<Key>)> {
        let mut slots = Vec::with_capacity(count as usize);
        while slots.len() < count as usize && self.more() {
            let Op::Get(slot) = self.next() else { return Err("these clients read single keys only".into()) };
            slots.push(slot);
        }
        let keys = slots.iter().map(|&slot| self.key(slot)).collect();
        Ok((slots, keys))
    }

    fn next_put(&mut self) -> Op {
        let slot = self.slot();
        let version = self.rng.next_u32();
        self.shape.fill(slot, version, &mut self.value);
        Op::Put(slot)
    }

    /// A slot's key.
    pub(crate) fn key(&self, slot: u32) -> Key {
        self.shape.key(slot)
    }

    /// The value of the last put.
    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// The last batch: slots, keys and values.
    pub(crate) fn pairs(&self) -> &[(u32, Key, Vec<u8>)] {
        &self.batch
    }

    /// Whether a value that was read is one of this slot.
    pub(crate) fn right(&self, slot: u32, value: &[u8]) -> bool {
        self.shape.version(slot, value).is_some()
    }

    /// Does the next operation on an engine, and waits for it.
    pub(crate) fn perform(&mut self, client: &mut dyn Client) -> Result<()> {
        match self.next() {
            Op::Put(slot) => client.put(self.key(slot).as_ref(), &self.value),
            Op::Batch => {
                let pairs = self.batch.iter().map(|(_, key, value)| (key.as_ref(), &value[..]));
                client.commit(&mut { pairs })
            }
            Op::Get(slot) => {
                let mut right = false;
                let found =
                    client.get(self.key(slot).as_ref(), &mut |value| right = self.right(slot, value))?;
                if found && right { Ok(()) } else { Err(lost(slot)) }
            }
            Op::Scan(slot, limit) => {
                let key = self.key(slot);
                let found = client.scan(key.as_ref(), limit as usize, &mut look_at)?;
                if found > 0 { Ok(()) } else { Err(lost(slot)) }
            }
        }
    }
}

/// Looks at a value that a scan has found, from its first byte to its last, as whoever wants it would.
pub(crate) fn look_at(value: &[u8]) {
    let (words, rest) = value.as_chunks();
    let sum = words.iter().fold(0, |sum, &word| sum ^ u64::from_ne_bytes(word));
    black_box(rest.iter().fold(sum, |sum, &byte| sum ^ u64::from(byte)));
}

/// What is said where a read does not find what was written.
pub(crate) fn lost(slot: u32) -> Failure {
    format!("a read of slot {slot} did not find what was written there").into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const DATA: Data = Data { keys: 101, value_bytes: 100, seed: 3 };

    #[test]
    fn a_client_of_a_shard_draws_all_of_its_slots_and_no_others() {
        for first in 0..2 {
            let mut ops = Ops::new(&DATA, Work::Get, Slots { first, step: 2 }, 7);
            let drawn: std::collections::BTreeSet<u32> = (0..10_000)
                .map(|_| match ops.next() {
                    Op::Get(slot) => slot,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(drawn, (first..101).step_by(2).collect());
        }
    }

    #[test]
    fn clients_differ_and_repeat_themselves() {
        let run = |client| {
            let mut ops = Ops::new(&DATA, Work::Put, Slots::ALL, client);
            (0..20).map(|_| (ops.next(), ops.value().to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_limit_ends_them() {
        let mut ops = Ops::new(&DATA, Work::Get, Slots::ALL, 1).limited(Some(3));
        let mut done = 0;
        while ops.more() {
            ops.next();
            done += 1;
        }
        assert_eq!(done, 3);
        assert!(Ops::new(&DATA, Work::Get, Slots::ALL, 1).limited(None).more());
    }

    #[test]
    fn half_of_ycsb_a_reads() {
        let mut ops = Ops::new(&DATA, Work::YcsbA, Slots::ALL, 1);
        let reads = (0..10_000).filter(|_| matches!(ops.next(), Op::Get(_))).count();
        assert!((4500..5500).contains(&reads), "{reads}");
    }

    #[test]
    fn what_is_drawn_ahead_is_drawn_as_ever_and_gone_round() {
        let mut ops = Ops::new(&DATA, Work::YcsbA, Slots { first: 1, step: 2 }, 1);
        let slots: Vec<u32> = (0..2 * DRAWN_AHEAD).map(|_| ops.slot()).collect();
        assert_eq!(slots[..DRAWN_AHEAD], slots[DRAWN_AHEAD..]);
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        slots.iter().for_each(|&slot| *counts.entry(slot).or_default() += 1);
        assert!(counts.keys().copied().eq((1..101).step_by(2)));
        let most = counts.values().max().unwrap();
        assert!(*most > 2 * slots.len() / counts.len(), "{counts:?}");
    }

    /// A map, as a client.
    struct Model(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Client for Model {
        fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
            self.0.insert(key.to_vec(), value.to_vec());
            Ok(())
        }
        fn commit(&mut self, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<()> {
            pairs.for_each(|(key, value)| drop(self.put(key, value)));
            Ok(())
        }
        fn remove(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
            keys.for_each(|key| drop(self.0.remove(key)));
            Ok(())
        }
        fn get(&mut self, key: &[u8], seen: crate::engines::Seen<'_>) -> Result<bool> {
            Ok(self.0.get(key).map(|value| seen(value)).is_some())
        }
        fn scan(&mut self, from: &[u8], limit: usize, seen: crate::engines::Seen<'_>) -> Result<usize> {
            let found = self.0.range(from.to_vec()..).take(limit);
            Ok(found.map(|(_, value)| seen(value)).count())
        }
    }

    #[test]
    fn a_read_that_finds_nothing_or_another_slots_value_is_told() {
        let mut model = Model(BTreeMap::new());
        let mut reads = Ops::new(&DATA, Work::Get, Slots::ALL, 1);
        assert!(reads.perform(&mut model).is_err());
        let shape = DATA.shape();
        let mut value = Vec::new();
        for slot in 0..DATA.keys {
            shape.fill(slot, 1, &mut value);
            model.put(shape.key(slot).as_ref(), &value).unwrap();
        }
        for work in [Work::Get, Work::Scan(10), Work::Put, Work::Batch(5), Work::YcsbA] {
            let mut ops = Ops::new(&DATA, work, Slots::ALL, 1);
            (0..50).for_each(|_| ops.perform(&mut model).unwrap());
        }
        shape.fill(0, 1, &mut value);
        for slot in 0..DATA.keys {
            model.put(shape.key(slot).as_ref(), &value).unwrap();
        }
        assert!((0..10).any(|_| reads.perform(&mut model).is_err()));
    }
}
