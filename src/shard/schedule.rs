//! What falls due when: the arithmetic of [`crate::levels`] fed with a shard's commits, one by one.
//!
//! A schedule is a function of the commits' numbers and sizes alone. Each memtable remembers the schedule as it
//! stood where the table begins, and the manifest holds the one at the floor (the last commit of which nothing
//! is needed from the log), so that replaying the log from there takes the same decisions again.

use crate::codec::{Reader, put_varint};
use crate::levels::{Budget, Carry, Commit, Divisor, Folded, Level, Measured, Shape};

/// See the module's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Schedule {
    /// The commit after which it stands so.
    pub(crate) at: Commit,
    pub(crate) shape: Shape,
    /// Bytes committed since the last boundary of the flush level.
    flush_bytes: u64,
    /// Bytes committed since the base ended.
    window_bytes: u64,
    /// The most that the base can have once every due fold is done, in bytes.
    base_bytes_max: u64,
    /// What the last fold that fell due takes in.
    folded: Folded,
}

impl Schedule {
    /// Before the first commit. Small windows to begin with: the flush level grows as they turn out small.
    pub(crate) fn new(divisor: Divisor, has_base: bool) -> Self {
        Schedule {
            at: Commit::ZERO,
            shape: Shape::new(divisor, Level(0), has_base),
            flush_bytes: 0,
            window_bytes: 0,
            base_bytes_max: 0,
            folded: Folded::default(),
        }
    }

    /// Counts the next commit; answers what falls due at it. `base_bytes` are those of the base as the last
    /// finished fold left it.
    pub(crate) fn step(&mut self, bytes: u64, base_bytes: u64, budget: &Budget) -> Option<Carry> {
        self.at = self.at.next();
        self.flush_bytes = self.flush_bytes.saturating_add(bytes);
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        let Schedule { flush_bytes, window_bytes, base_bytes_max, folded, .. } = *self;
        let measured = Measured { flush_bytes, window_bytes, folded, base_bytes, base_bytes_max };
        let before = self.shape;
        let (carry, shape) = self.shape.step(self.at, &measured, budget)?;
        (self.shape, self.flush_bytes) = (shape, 0);
        if matches!(carry, Carry::Fold { .. }) {
            self.folded = measured.fold();
            self.base_bytes_max = base_bytes.saturating_add(window_bytes);
            self.window_bytes = 0;
        } else if before.base_level.is_some() && self.at >= before.base_rests {
            // Nothing is being folded any more, so this is what the base has.
            self.base_bytes_max = base_bytes;
        }
        Some(carry)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.at.0);
        put_varint(&mut out, u64::from(self.shape.flush_level.0));
        put_varint(&mut out, self.shape.base_end.0);
        put_varint(&mut out, self.shape.base_rests.0);
        put_varint(&mut out, self.shape.base_level.map_or(0, |level| u64::from(level.0) + 1));
        put_varint(&mut out, self.flush_bytes);
        put_varint(&mut out, self.window_bytes);
        put_varint(&mut out, self.base_bytes_max);
        put_varint(&mut out, self.folded.base_bytes);
        put_varint(&mut out, self.folded.window_bytes);
        put_varint(&mut out, self.folded.foreseen_bytes);
        out
    }

    pub(crate) fn decode(bytes: &[u8], divisor: Divisor) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let level =
            |number: u64| u8::try_from(number).ok().map(Level).filter(|&level| level <= divisor.level_max());
        let at = Commit(reader.varint()?);
        let flush_level = level(reader.varint()?)?;
        let base_end = Commit(reader.varint()?);
        let base_rests = Commit(reader.varint()?);
        let base_level = match reader.varint()? {
            0 => None,
            number => Some(level(number - 1)?),
        };
        let (flush_bytes, since_base_bytes) = (reader.varint()?, reader.varint()?);
        let base_bytes_max = reader.varint()?;
        let (base_bytes, window_bytes) = (reader.varint()?, reader.varint()?);
        let folded = Folded { base_bytes, window_bytes, foreseen_bytes: reader.varint()? };
        let shape = Shape { divisor, flush_level, base_end, base_rests, base_level };
        let sound = reader.is_empty() && at <= Commit::MAX && shape.is_sound(at);
        let window_bytes = since_base_bytes;
        sound.then_some(Schedule { at, shape, flush_bytes, window_bytes, base_bytes_max, folded })
    }
}
