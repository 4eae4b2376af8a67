//! Which operation comes next: pure, and the same for the same seed.
//!
//! A [`Generator`] belongs to one client. It draws from a mix of kinds, and from two ranges of slots (see
//! [`dataset`](super::dataset)): puts go to slots that this client alone writes, reads to any slot of the shard.
//! It knows nothing of the engine, of time or of other clients, so any driver (closed loop now) can use it.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// What kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpKind {
    /// One put, committed on its own.
    Put,
    /// One point read.
    Get,
    /// One scan of [`SCAN_ENTRIES`] entries from a key on.
    Scan,
}

/// How many entries a scan asks for.
pub(crate) const SCAN_ENTRIES: usize = 20;

impl OpKind {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = 3;
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [OpKind; OpKind::COUNT] = [OpKind::Put, OpKind::Get, OpKind::Scan];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OpKind::Put => "commit",
            OpKind::Get => "read",
            OpKind::Scan => "scan",
        }
    }
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    /// What to do.
    pub(crate) kind: OpKind,
    /// To which slot (a scan starts at its key).
    pub(crate) slot: u32,
}

/// Shares of the kinds, in percent; together 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mix {
    put: u32,
    get: u32,
}

impl Mix {
    /// Puts only.
    pub(crate) const PUTS: Mix = Mix { put: 100, get: 0 };
    /// 40 % puts, 50 % point reads, and scans.
    pub(crate) const MIXED: Mix = Mix { put: 40, get: 50 };

    /// The kind for a number below 100.
    fn kind(self, percent: u32) -> OpKind {
        debug_assert!(percent < 100 && self.put + self.get <= 100);
        if percent < self.put {
            OpKind::Put
        } else if percent < self.put + self.get {
            OpKind::Get
        } else {
            OpKind::Scan
        }
    }
}

/// Every `step`-th slot from `first` on, `count` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slots {
    first: u32,
    step: u32,
    count: u32,
}

impl Slots {
    /// What client `client` of `clients` has of these slots: every one belongs to exactly one client. There may
    /// not be more clients than slots.
    pub(crate) fn of_client(slots: &Range<u32>, client: u32, clients: u32) -> Self {
        debug_assert!(client < clients && clients <= slots.end - slots.start);
        let count = (slots.end - slots.start - client).div_ceil(clients);
        Slots { first: slots.start + client, step: clients, count }
    }
}

/// The operations of one client.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    rng: Xoshiro256PlusPlus,
    mix: Mix,
    own: Slots,
    readable: Range<u32>,
}

impl Generator {
    /// The operations of client `client` in phase `phase` of the run with this seed. Puts go to `own`, reads to
    /// `readable`; neither may be empty.
    pub(crate) fn new(
        seed: u64,
        phase: u32,
        client: u32,
        mix: Mix,
        own: Slots,
        readable: Range<u32>,
    ) -> Self {
        debug_assert!(own.count > 0 && !readable.is_empty());
        let stream = u64::from(phase) << 32 | u64::from(client);
        let rng = Xoshiro256PlusPlus::seed_from_u64(mix64(seed ^ mix64(stream)));
        Generator { rng, mix, own, readable }
    }

    /// The next operation. One draw gives both: the kind from its low half, the slot from its high half.
    pub(crate) fn next(&mut self) -> Op {
        let draw = self.rng.next_u64();
        let kind = self.mix.kind(below(draw as u32, 100));
        let high = (draw >> 32) as u32;
        let slot = match kind {
            OpKind::Put => self.own.first + self.own.step * below(high, self.own.count),
            OpKind::Get | OpKind::Scan => {
                self.readable.start + below(high, self.readable.end - self.readable.start)
            }
        };
        Op { kind, slot }
    }
}

/// Maps a uniform 32-bit draw to `0..bound`, by multiplication (Lemire 2019); biased by at most `bound / 2^32`.
fn below(draw: u32, bound: u32) -> u32 {
    ((u64::from(draw) * u64::from(bound)) >> 32) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads a number over all 64 bits.
pub(crate) fn mix64(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn operations(seed: u64, phase: u32, client: u32) -> Vec<Op> {
        let mut generator =
            Generator::new(seed, phase, client, Mix::MIXED, Slots::of_client(&(100..200), 3, 10), 0..1000);
        (0..10_000).map(|_| generator.next()).collect()
    }

    #[test]
    fn the_seed_decides_the_operations() {
        assert_eq!(operations(1, 2, 3), operations(1, 2, 3));
        assert_ne!(operations(1, 2, 3), operations(2, 2, 3));
        assert_ne!(operations(1, 2, 3), operations(1, 3, 3));
        assert_ne!(operations(1, 2, 3), operations(1, 2, 4));
    }

    /// Pinned, so that a run of today can be repeated by the command of tomorrow.
    #[test]
    fn the_operations_of_a_seed_stay_the_same() {
        let hash = operations(42, 1, 0)
            .iter()
            .fold(0, |hash, op| mix64(hash ^ u64::from(op.slot) ^ (op.kind as u64) << 32));
        assert_eq!(hash, PINNED);
    }

    const PINNED: u64 = 4_421_023_129_816_287_768;

    #[test]
    fn puts_keep_to_their_own_slots_and_shares_hold() {
        let operations = operations(7, 1, 1);
        for op in &operations {
            match op.kind {
                OpKind::Put => assert!((100..200).contains(&op.slot) && op.slot % 10 == 3, "{op:?}"),
                _ => assert!(op.slot < 1000, "{op:?}"),
            }
        }
        let share = |kind| operations.iter().filter(|op| op.kind == kind).count();
        assert!((3800..4200).contains(&share(OpKind::Put)));
        assert!((4800..5200).contains(&share(OpKind::Get)));
        assert!((900..1100).contains(&share(OpKind::Scan)));
        let mut slots: Vec<u32> =
            operations.iter().filter(|op| op.kind == OpKind::Get).map(|op| op.slot).collect();
        slots.sort();
        slots.dedup();
        assert!(slots.len() > 900, "reads go everywhere: {}", slots.len());
    }

    #[test]
    fn every_slot_belongs_to_one_client() {
        for (range, clients) in [(0..10, 3), (5..6, 1), (7..1007, 512), (0..512, 512)] {
            let mut slots: Vec<u32> = (0..clients)
                .map(|client| Slots::of_client(&range, client, clients))
                .inspect(|own| assert!(own.count > 0))
                .flat_map(|own| (0..own.count).map(move |at| own.first + own.step * at))
                .collect();
            slots.sort();
            assert_eq!(slots, range.collect::<Vec<_>>());
        }
    }
}
