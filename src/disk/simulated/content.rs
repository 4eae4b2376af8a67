//! One simulated file: what reads see, what a crash leaves for certain, and the changes in between.

use super::effects::{self, Effects};
use super::{SECTOR_BYTES, SplitMix64};

use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;

/// A change of a file that is not durable yet.
#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Grow(usize),
    Cut(usize),
}

impl Change {
    pub(super) fn apply(&self, file: &mut Rc<Vec<u8>>) {
        let file = Rc::make_mut(file);
        match self {
            Change::Write { offset, bytes } => put(file, *offset, bytes),
            Change::Grow(bytes) => file.resize(file.len().max(*bytes), 0),
            Change::Cut(bytes) => file.resize(*bytes, 0),
        }
    }
}

/// Writes into a file, which grows as needed.
fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    file.resize(file.len().max(end), 0);
    file[offset..end].copy_from_slice(bytes);
}

/// A write of which a part arrives: what [`put_torn`] makes of it, on a file of its own.
pub(super) fn tear(file: &mut Rc<Vec<u8>>, offset: usize, bytes: &[u8], random: &mut SplitMix64) {
    put_torn(Rc::make_mut(file), offset, bytes, random, &mut Effects::default());
}

/// Writes any subset of the sectors, or the first few of them; perhaps one of them in part, with what was there before or
/// with garbage in its rest. A sector that the write would not change stays as it is.
fn put_torn(file: &mut Vec<u8>, offset: usize, bytes: &[u8], random: &mut SplitMix64, effects: &mut Effects) {
    let sectors = bytes.len().div_ceil(SECTOR_BYTES);
    let prefix = random.chance(50).then(|| random.below(sectors as u64) as usize);
    let in_part = random.chance(50).then(|| prefix.unwrap_or_else(|| random.below(sectors as u64) as usize));
    let mut whole = true;
    for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        let start = offset + at * SECTOR_BYTES;
        if in_part == Some(at) && file.get(start..start + sector.len()).is_none_or(|old| old != sector) {
            let cut = random.below(sector.len() as u64) as usize;
            put(file, start, &sector[..cut]);
            if random.chance(50) {
                let garbage: Vec<u8> = (cut..sector.len()).map(|_| random.next_u64() as u8).collect();
                put(file, start + cut, &garbage);
                effects.hit(effects::TEAR_GARBAGE);
            } else {
                effects.hit(effects::TEAR_WITHIN);
            }
            whole = false;
        } else if prefix.map_or_else(|| random.chance(50), |prefix| at < prefix) {
            put(file, start, sector);
        }
    }
    if whole {
        effects.hit(effects::TEAR_SECTOR);
    }
    // The length is written apart from the data, so it may be all there though the data is not.
    if random.chance(50) {
        file.resize(file.len().max(offset + bytes.len()), 0);
    }
}

/// A file's content.
///
/// Invariant: `volatile` is `durable` with all of `pending` applied in order; unless a flush forgot something. Both are
/// shared with whoever looks at them, and copied when they change.
#[derive(Default)]
pub(super) struct Content {
    volatile: Rc<Vec<u8>>,
    durable: Rc<Vec<u8>>,
    /// Changes since, numbered in the order in which they were made.
    pending: Vec<(u64, Change)>,
    changes: u64,
    /// A failed flush has let go of changes: what reads see is not all on its way to be durable.
    forgot: bool,
    /// How many handles are open on it.
    pub(super) handles: u32,
}

impl Content {
    /// What reads see.
    pub(super) fn volatile(&self) -> &[u8] {
        &self.volatile
    }

    /// What any crash leaves.
    pub(super) fn durable(&self) -> &Rc<Vec<u8>> {
        &self.durable
    }

    /// A content all of which is durable.
    pub(super) fn of(bytes: Rc<Vec<u8>>) -> Content {
        Content { volatile: bytes.clone(), durable: bytes, ..Content::default() }
    }

    /// The changes that are not durable yet, in the order in which they were made.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Change> {
        self.pending.iter().map(|(_, change)| change)
    }

    /// Fills a buffer, or fails where the file ends before it does.
    pub(super) fn read(&self, offset: usize, buf: &mut [u8]) -> Result<()> {
        match offset.checked_add(buf.len()).and_then(|end| self.volatile.get(offset..end)) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!("the file ends at byte {}, before {}", self.volatile.len(), offset + buf.len()),
            )),
        }
    }

    /// A change that becomes durable with a later sync, or by chance.
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.volatile);
        self.pending.push((self.changes, change));
        self.changes += 1;
    }

    /// A write that becomes durable with a later sync, or by chance.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    /// A write of which any subset of the sectors arrives.
    pub(super) fn write_torn(&mut self, offset: usize, bytes: &[u8], random: &mut SplitMix64) {
        for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if random.chance(50) {
                self.write(offset + at * SECTOR_BYTES, sector);
            }
        }
    }

    /// A write that is durable now, and with it a length that includes it.
    pub(super) fn write_durable(&mut self, offset: usize, bytes: &[u8]) {
        put(Rc::make_mut(&mut self.volatile), offset, bytes);
        // Earlier changes must not come after it in a crash. Those of the length are made durable, with
        // what was before them; of the writes after that, what it covers is dropped.
        if let Some(last) =
            self.pending.iter().rposition(|(_, change)| !matches!(change, Change::Write { .. }))
        {
            self.pending.drain(..=last).for_each(|(_, change)| change.apply(&mut self.durable));
        }
        let end = offset + bytes.len();
        let mut kept = Vec::with_capacity(self.pending.len());
        for (number, change) in self.pending.drain(..) {
            let Change::Write { offset: at, bytes: older } = &change else { continue };
            if at + older.len() <= offset || *at >= end {
                kept.push((number, change));
                continue;
            }
            if *at < offset {
                let before = older[..offset - at].to_vec();
                kept.push((number, Change::Write { offset: *at, bytes: before }));
            }
            if at + older.len() > end {
                let after = older[end - at..].to_vec();
                kept.push((number, Change::Write { offset: end, bytes: after }));
            }
        }
        self.pending = kept;
        put(Rc::make_mut(&mut self.durable), offset, bytes);
    }

    /// Grows the file to at least `bytes`.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.change(Change::Grow(bytes));
    }

    /// Cuts (or grows) the file to `bytes`.
    pub(super) fn cut(&mut self, bytes: usize) {
        self.change(Change::Cut(bytes));
    }

    /// The number of the next change: a sync started now covers those below it.
    pub(super) fn mark(&self) -> u64 {
        self.changes
    }

    /// Makes the changes below a mark durable.
    pub(super) fn sync(&mut self, mark: u64) {
        let covered = self.pending.partition_point(|(number, _)| *number < mark);
        self.pending.drain(..covered).for_each(|(_, change)| change.apply(&mut self.durable));
    }

    /// The power fails: each pending change is kept, lost, or (a write) torn.
    pub(super) fn crash(&mut self, random: &mut SplitMix64, effects: &mut Effects) {
        let changed = !self.pending.is_empty() || self.forgot;
        self.decide(random, effects);
        if changed {
            self.volatile = self.durable.clone();
        }
        self.forgot = false;
        self.handles = 0;
    }

    /// A flush failed, and the pending changes look clean: what reads see stays as it is, and what of it is durable is
    /// decided now.
    pub(super) fn forget(&mut self, random: &mut SplitMix64, effects: &mut Effects) -> bool {
        let any = !self.pending.is_empty();
        self.decide(random, effects);
        self.forgot |= any;
        any
    }

    /// Whether a flush would have something to do.
    pub(super) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What becomes of the pending changes: each is kept, lost or torn.
    fn decide(&mut self, random: &mut SplitMix64, effects: &mut Effects) {
        for (_, change) in self.pending.drain(..) {
            match (random.below(3), change) {
                (0, Change::Write { offset, bytes }) => {
                    let there = self.durable.get(offset..offset + bytes.len());
                    if there.is_none_or(|there| there != bytes) {
                        effects.hit(effects::CRASH_LOST);
                    }
                }
                (0, Change::Grow(bytes) | Change::Cut(bytes)) => {
                    if self.durable.len() != bytes {
                        effects.hit(effects::FILES_LENGTH);
                    }
                }
                (1, Change::Write { offset, bytes }) => {
                    effects.hit(effects::CRASH_TORN);
                    put_torn(Rc::make_mut(&mut self.durable), offset, &bytes, random, effects);
                }
                (_, change) => {
                    if matches!(change, Change::Write { .. }) {
                        effects.hit(effects::CRASH_KEPT);
                    }
                    change.apply(&mut self.durable);
                }
            }
        }
    }

    /// Flips bits of one byte, wherever it is kept. False where the file has no such byte.
    pub(super) fn corrupt(&mut self, offset: usize, xor: u8) -> bool {
        let pending = self.pending.iter_mut().filter_map(|(_, change)| match change {
            Change::Write { offset: at, bytes } => bytes.get_mut(offset.checked_sub(*at)?),
            _ => None,
        });
        pending.chain(Rc::make_mut(&mut self.durable).get_mut(offset)).for_each(|byte| *byte ^= xor);
        Rc::make_mut(&mut self.volatile).get_mut(offset).map(|byte| *byte ^= xor).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::effects::{self, Effects};
    use super::{Change, Content, SECTOR_BYTES};
    use crate::disk::simulated::SplitMix64;

    /// Random changes of every kind against the invariant, and against a model of which bytes must be there:
    /// after any crash, each durably written byte that nothing touched since has its value.
    #[test]
    fn durable_bytes_survive_and_the_invariant_holds() {
        for seed in 0..300 {
            let mut random = SplitMix64::new(seed);
            let mut content = Content::default();
            let mut certain: Vec<Option<u8>> = vec![None; 64];
            for step in 1..=40u8 {
                let (at, len) = (random.below(56) as usize, 1 + random.below(8) as usize);
                match random.below(6) {
                    0 | 1 => {
                        content.write(at, &vec![step; len]);
                        certain[at..at + len].fill(None);
                    }
                    2 | 3 => {
                        content.write_durable(at, &vec![step; len]);
                        certain[at..at + len].fill(Some(step));
                    }
                    4 => {
                        content.cut(at);
                        certain[at..].fill(None);
                    }
                    _ => {
                        content.sync(content.mark());
                        let durable = content.durable();
                        assert_eq!(durable[..], *content.volatile());
                        (0..64).for_each(|i| certain[i] = durable.get(i).copied());
                    }
                }
                let mut replayed = content.durable.clone();
                content.pending.iter().for_each(|(_, change)| change.apply(&mut replayed));
                assert_eq!(replayed, content.volatile, "seed {seed}, step {step}");
            }
            content.crash(&mut random, &mut Effects::default());
            for (i, byte) in certain.iter().enumerate() {
                assert!(
                    byte.is_none() || content.volatile().get(i).copied() == *byte,
                    "seed {seed}, byte {i}"
                );
            }
            assert_eq!(content.volatile, content.durable);
        }
    }

    /// Over many seeds, a pending write of several sectors is seen lost, whole, torn between sectors, within one, and
    /// with garbage; and what it would not have changed stays.
    #[test]
    fn a_crash_tears_at_sectors_and_within_them() {
        let mut effects = Effects::default();
        let (mut lost, mut whole, mut torn) = (0, 0, 0);
        for seed in 0..400 {
            let mut random = SplitMix64::new(seed);
            let mut content = Content::default();
            content.write_durable(0, &[1; 8 * SECTOR_BYTES]);
            let mut bytes = vec![2; 8 * SECTOR_BYTES];
            bytes[3 * SECTOR_BYTES..4 * SECTOR_BYTES].fill(1);
            content.write(0, &bytes);
            content.crash(&mut random, &mut effects);
            let sectors: Vec<&[u8]> = content.volatile().chunks(SECTOR_BYTES).collect();
            assert!(sectors[3].iter().all(|byte| *byte == 1), "seed {seed}: changed for nothing");
            let mixed = sectors.iter().filter(|sector| sector.iter().any(|byte| *byte != sector[0])).count();
            assert!(mixed <= 1, "seed {seed}: {mixed} sectors in part");
            match sectors.iter().filter(|sector| sector.iter().all(|byte| *byte == 2)).count() {
                0 if mixed == 0 => lost += 1,
                7 => whole += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 40 && whole > 40 && torn > 40, "{lost} lost, {whole} whole, {torn} torn");
        for kind in [effects::TEAR_SECTOR, effects::TEAR_WITHIN, effects::TEAR_GARBAGE] {
            assert!(effects.counts()[kind] > 10, "{kind}");
        }
    }

    /// What a failed flush forgot can be read, no later flush makes it durable, and a crash may take it.
    #[test]
    fn a_forgotten_change_is_read_and_may_be_lost_after_a_flush() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut random = SplitMix64::new(seed);
            let mut content = Content::default();
            content.write_durable(0, &[1; 8]);
            content.write(0, &[2; 8]);
            assert!(content.forget(&mut random, &mut Effects::default()));
            assert_eq!(content.volatile(), [2; 8]);
            content.sync(content.mark());
            content.write_durable(8, &[3; 8]);
            assert_eq!(content.volatile(), [[2; 8], [3; 8]].concat());
            content.crash(&mut random, &mut Effects::default());
            assert_eq!(content.volatile()[8..], [3; 8]);
            lost += u32::from(content.volatile()[..8] == [1; 8]);
        }
        assert!(lost > 10, "{lost} of 100 lost");
    }

    #[test]
    fn a_sync_covers_only_what_came_before_it() {
        let mut content = Content::default();
        content.write(0, b"a");
        let mark = content.mark();
        content.write(1, b"b");
        content.sync(mark);
        assert_eq!((&content.durable()[..], content.volatile()), (&b"a"[..], &b"ab"[..]));
        assert!(matches!(content.pending[..], [(1, Change::Write { offset: 1, .. })]));
    }
}
