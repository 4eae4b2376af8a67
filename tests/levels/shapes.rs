//! Cover, inputs, deadlines and pending carries while flush level, base level and retention change at random.

use crate::{Seeded, divisors};
use quipu::levels::{
    Budget, Carry, Commit, Divisor, Level, Measured, Piece, Shape, Span, next_base_level, next_flush_level,
};

/// What exists of a shard whose carries are installed at once.
struct Model {
    shape: Shape,
    pieces: Vec<(Piece, Carry)>,
    n: Commit,
    /// Logical bytes since the last boundary of the flush level, since that of the base's level, and in the base.
    flush_bytes: u64,
    window_bytes: u64,
    base_bytes: u64,
}

impl Model {
    fn new(divisor: Divisor, has_base: bool) -> Model {
        let shape = Shape::new(divisor, Level(2), has_base);
        Model { shape, pieces: Vec::new(), n: Commit(0), flush_bytes: 0, window_bytes: 0, base_bytes: 0 }
    }

    fn pieces(&self) -> Vec<Piece> {
        self.pieces.iter().map(|&(piece, _)| piece).collect()
    }

    fn commit(&mut self, bytes: u64, budget: &Budget, live_bytes: u64) {
        let (before, newest) = (self.shape, self.n);
        self.n = newest.next();
        let n = self.n;
        self.flush_bytes += bytes;
        self.window_bytes += bytes;
        let carry = before.carry_due(n);

        // Deadlines: what is taken now had its deadline now; what is not taken has it later.
        for &(piece, made_by) in &self.pieces {
            let deadline = before.deadline(made_by, newest);
            let taken = carry.is_some_and(|carry| carry.inputs(&[piece]).next().is_some());
            assert!(if taken { deadline == n } else { deadline > n }, "{piece:?} at {n}: {deadline}");
        }
        let measured = Measured {
            flush_bytes: self.flush_bytes,
            window_bytes: self.window_bytes,
            base_bytes: self.base_bytes,
        };
        self.shape = before.after(n, &measured, budget);
        let Some(carry) = carry else {
            assert_eq!(self.shape, before);
            return;
        };
        self.flush_bytes = 0;
        if before.base_level.is_some_and(|level| n.0.is_multiple_of(before.divisor.pow(level))) {
            self.base_bytes = (self.base_bytes + self.window_bytes).min(live_bytes);
            self.window_bytes = 0;
        }
        self.check_levels(&before);

        // At a restart now, this carry is what is missing, and no other.
        assert_eq!(self.shape.pending(n, &self.pieces()), [carry]);
        // Its inputs follow one another from the start of its span to the memtable.
        assert_eq!(carry.due(), n);
        let mut at = carry.span().after;
        for piece in carry.inputs(&self.pieces()) {
            assert_eq!(piece.span().after, at);
            at = piece.span().last;
        }
        assert_eq!(at, before.flushed(newest));
        self.pieces.retain(|(piece, _)| !carry.span().covers(piece.span()));
        self.pieces.push((carry.output(), carry));
        if let Carry::Fold { from, .. } = carry {
            assert_eq!(from, before.base_end);
        }
        assert_eq!(carry.is_bottom(), carry.span().after == Commit::ZERO);
    }

    /// What must hold after every boundary.
    fn check_levels(&self, before: &Shape) {
        let (shape, n) = (&self.shape, self.n);
        let (old, new) = (before.flush_level, shape.flush_level);
        assert!(shape.divisor.aligned(n, new), "the memtable begins on a boundary of the flush level");
        assert!(new <= old.above());
        if let (Some(was), Some(base)) = (before.base_level, shape.base_level) {
            assert!(base >= new, "the base's level is not below the flush level");
            assert!(base <= was.above() && was <= base.above());
            assert!(shape.base_end != n || shape.divisor.aligned(n, base) || base == was);
        }
    }

    /// The cover is contiguous and disjoint, and is what exists.
    fn check_cover(&self) {
        let cover = self.shape.cover(self.n);
        let base = (cover.base_end > Commit::ZERO).then_some(Piece::Base(cover.base_end));
        let ideal: Vec<Piece> =
            base.into_iter().chain(cover.windows.iter().copied().map(Piece::Segment)).collect();
        assert_eq!(ideal, self.pieces());
        let mut at = Commit::ZERO;
        for span in ideal.iter().map(|piece| piece.span()).chain([cover.memtable]) {
            assert_eq!(span.after, at);
            at = span.last;
        }
        assert_eq!(at, self.n);
        assert!(self.shape.pending(self.n, &ideal).is_empty());
    }
}

#[test]
fn levels_follow_sizes_and_retention_and_the_cover_stays_whole() {
    let commits = if cfg!(debug_assertions) { 6_000 } else { 70_000 };
    for divisor in divisors() {
        let (mut lowest, mut highest) = (Level(255), Level(0));
        for (seed, has_base, changes) in
            [(1, false, false), (2, true, false), (3, true, true), (4, false, true)]
        {
            let mut seeded = Seeded(seed * 100 + u64::from(divisor.get()));
            let mut model = Model::new(divisor, has_base);
            let budget = Budget { flush_bytes: 20_000, base_ratio: 8 };
            let (mut size, mut live_bytes) = (100, 1_000_000);
            for _ in 0..commits {
                if seeded.below(2000) == 0 {
                    size = [3, 40, 500, 6000, 70_000][seeded.below(5) as usize];
                    live_bytes = [1_000, 1_000_000, u64::MAX][seeded.below(3) as usize];
                }
                if changes && seeded.below(1500) == 0 {
                    let has_base = seeded.below(2) == 0;
                    model.shape = model.shape.change(model.n, has_base, budget.base_ratio);
                    assert_eq!(model.shape.base_level.is_some(), has_base);
                    assert!(model.shape.base_level.is_none_or(|level| level >= model.shape.flush_level));
                    model.check_cover();
                }
                model.commit(seeded.below(2 * size), &budget, live_bytes);
                lowest = lowest.min(model.shape.flush_level);
                highest = highest.max(model.shape.flush_level);
                if model.n.0 < 500
                    || model.n.0.is_multiple_of(17)
                    || divisor.zeros(model.n) > model.shape.flush_level
                {
                    model.check_cover();
                }
                assert!(has_base || changes || model.shape.base_end == Commit::ZERO);
            }
        }
        assert!(lowest < highest, "the flush level moved");
    }
}

#[test]
fn a_restart_finds_every_carry_that_was_interrupted() {
    for divisor in divisors() {
        for base_level in [None, Some(Level(3))] {
            let mut seeded = Seeded(u64::from(divisor.get()));
            let mut shape = Shape { base_level, ..Shape::new(divisor, Level(1), base_level.is_some()) };
            let budget = Budget { flush_bytes: 100, base_ratio: 8 };
            let mut existing: Vec<Piece> = Vec::new();
            let mut in_flight: Vec<Carry> = Vec::new();
            let commits = if cfg!(debug_assertions) { 1500 } else { 6000 };
            for n in (1..=commits).map(Commit) {
                // Installed at random times, all inputs first; but by the deadline.
                let mut waiting = Vec::new();
                for carry in std::mem::take(&mut in_flight) {
                    let last = shape.deadline(carry, Commit(n.0 - 1)) == n;
                    if last || seeded.below(divisor.pow(Level(2))) == 0 {
                        existing.retain(|piece| !carry.span().covers(piece.span()));
                        existing.push(carry.output());
                    } else {
                        waiting.push(carry);
                    }
                }
                in_flight = waiting;
                if let Some(carry) = shape.carry_due(n) {
                    in_flight.push(carry);
                }
                // Sizes that leave the levels alone.
                let measured = Measured { flush_bytes: 100, window_bytes: 1, base_bytes: 8 };
                shape = shape.after(n, &measured, &budget);
                assert_eq!((shape.flush_level, shape.base_level), (Level(1), base_level));
                existing.push(Piece::Spill(Span::new(Commit(n.0 - 1), n)));

                let pending = shape.pending(n, &existing);
                let mut expected = in_flight.clone();
                expected.sort_by_key(|carry| carry.span());
                assert_eq!(pending, expected);
                for carry in pending {
                    // All that it needs exists: each commit of its span lies in exactly one input.
                    let mut inputs: Vec<Span> = carry.inputs(&existing).map(Piece::span).collect();
                    inputs.sort();
                    let mut at = carry.span().after;
                    for span in inputs {
                        assert_eq!(span.after, at);
                        at = span.last;
                    }
                    assert_eq!(at, carry.due());
                }
            }
        }
    }
}

#[test]
fn the_flush_level_follows_the_bytes() {
    let ten = Divisor::new(10).unwrap();
    let next = |level, n, bytes, budget| next_flush_level(ten, Level(level), Commit(n), bytes, budget).0;
    assert_eq!(next(3, 4000, 1000, 1000), 3, "at the budget it stays");
    assert_eq!(next(3, 4000, 1001, 1000), 2, "over it, it falls");
    assert_eq!(next(3, 4000, 100_001, 1000), 0, "as far as the sizes say");
    assert_eq!(next(3, 4000, 10_001, 1000), 1, "and no further");
    assert_eq!(next(0, 1, u64::MAX, 0), 0, "but not below 0");
    assert_eq!(next(3, 40_000, 100, 1000), 4, "it grows where ten such windows fit");
    assert_eq!(next(3, 40_000, 101, 1000), 3, "and only there");
    assert_eq!(next(3, 41_000, 100, 1000), 3, "at a boundary of the level above");
    assert_eq!(next(9, 10_u64.pow(10), 1, u64::MAX), 9, "up to its bound");
}

#[test]
fn the_base_level_follows_the_bytes() {
    let ten = Divisor::new(10).unwrap();
    let next = |current, flush, n, window, base| {
        next_base_level(ten, Level(current), Level(flush), Commit(n), window, base, 8).0
    };
    assert_eq!(next(3, 2, 5000, 100, 800), 3, "a window holds an eighth of the base");
    assert_eq!(next(3, 2, 5000, 100, 801), 3, "too little now, but no boundary of the level above");
    assert_eq!(next(3, 2, 50_000, 100, 801), 4, "so it grows");
    assert_eq!(next(3, 2, 1_000_000, 100, 1 << 60), 4, "by one");
    assert_eq!(next(3, 2, 5000, 100, 80), 2, "a window of the level below would do");
    assert_eq!(next(3, 0, 5000, 100, 0), 2, "it falls by one");
    assert_eq!(next(2, 2, 5000, 100, 0), 2, "not below the flush level");
    assert_eq!(next(3, 4, 50_000, 100, 0), 4, "which takes it along when it grows past it");
    assert_eq!(next(3, 2, 5000, 0, 0), 2, "no bytes at all");
    assert_eq!(next(3, 2, 50_000, 0, u64::MAX), 4, "or none in the window");
}

#[test]
fn the_levels_settle_under_steady_sizes() {
    for divisor in divisors() {
        let mut model = Model::new(divisor, true);
        let budget = Budget { flush_bytes: 5_000, base_ratio: 8 };
        let (size, live_bytes, ways) = (100, 300_000, u64::from(divisor.get()));
        let commits = if cfg!(debug_assertions) { 12_000 } else { 100_000 };
        let mut settled = None;
        for _ in 0..commits {
            model.commit(size, &budget, live_bytes);
            if model.n.0 > commits / 2 && divisor.aligned(model.n, model.shape.flush_level) {
                let flush_bytes = size * divisor.pow(model.shape.flush_level);
                assert!(flush_bytes <= budget.flush_bytes && flush_bytes * ways > budget.flush_bytes);
                let base_bytes = size * divisor.pow(model.shape.base_level.unwrap());
                assert!(base_bytes * 8 >= live_bytes, "divisor {ways}: {base_bytes}");
                assert!(base_bytes * 8 / ways < live_bytes.max(budget.flush_bytes * 8));
                assert_eq!(*settled.get_or_insert(model.shape.base_level), model.shape.base_level);
            }
        }
    }
}
