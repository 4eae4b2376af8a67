//! Cover, inputs, deadlines and pending carries while flush level, base level and retention change at random.

use crate::{Seeded, divisors};
use quipu::levels::{
    BaseStep, Budget, Carry, Commit, Divisor, Folded, Level, Measured, Piece, Shape, Span, next_base_level,
    next_flush_level,
};

/// What exists of a shard whose carries are installed at once.
struct Model {
    shape: Shape,
    pieces: Vec<(Piece, Carry)>,
    n: Commit,
    /// Logical bytes since the last boundary of the flush level, since the base's end, and in the base.
    flush_bytes: u64,
    window_bytes: u64,
    base_bytes: u64,
    base_bytes_max: u64,
    folded_last: Folded,
    /// All bytes committed, and all that folds have merged.
    committed: u64,
    folded: u64,
    /// What the last fold took in.
    taken_in: u64,
}

impl Model {
    fn new(divisor: Divisor, has_base: bool) -> Model {
        let shape = Shape::new(divisor, Level(2), has_base);
        Model {
            shape,
            pieces: Vec::new(),
            n: Commit(0),
            flush_bytes: 0,
            window_bytes: 0,
            base_bytes: 0,
            base_bytes_max: 0,
            folded_last: Folded::default(),
            committed: 0,
            folded: 0,
            taken_in: 0,
        }
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
        self.committed += bytes;
        let measured = Measured {
            flush_bytes: self.flush_bytes,
            window_bytes: self.window_bytes,
            folded: self.folded_last,
            base_bytes: self.base_bytes,
            base_bytes_max: self.base_bytes_max,
        };
        let step = before.step(n, &measured, budget);

        // Deadlines: what is taken now had its deadline now; what is not taken has it later, unless it lies beside a
        // base that is on a smaller boundary, or is that base.
        for &(piece, made_by) in &self.pieces {
            let deadline = before.deadline(made_by, newest);
            let taken = step.is_some_and(|(carry, _)| carry.inputs(&[piece]).next().is_some());
            let exact = before.base_end == Commit::ZERO && before.base_level.is_none();
            assert!(
                if taken { deadline == n } else { deadline > n || (!exact && deadline == n) },
                "{piece:?} at {n}: {deadline}"
            );
        }
        assert_eq!(step.is_some(), n.0.is_multiple_of(before.divisor.pow(before.flush_level)));
        let Some((carry, shape)) = step else { return };
        self.shape = shape;
        self.flush_bytes = 0;
        if let Carry::Fold { .. } = carry {
            // No fold costs more than so many times what has come since the last.
            assert!(u128::from(self.window_bytes) * u128::from(budget.base_ratio) >= self.base_bytes.into());
            self.folded_last = measured.fold();
            self.base_bytes_max = self.base_bytes + self.window_bytes;
            self.folded += self.base_bytes_max;
            self.base_bytes = self.base_bytes_max.min(live_bytes);
            self.taken_in = std::mem::take(&mut self.window_bytes);
        } else if before.base_level.is_some() && n >= before.base_rests {
            self.base_bytes_max = self.base_bytes;
        }
        self.check_levels(&before, carry);

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
    fn check_levels(&self, before: &Shape, carry: Carry) {
        let (shape, n) = (&self.shape, self.n);
        let (old, new) = (before.flush_level, shape.flush_level);
        assert!(shape.divisor.aligned(n, new), "the memtable begins on a boundary of the flush level");
        assert!(new <= old.above());
        if let (Some(was), Some(base)) = (before.base_level, shape.base_level) {
            assert!(base >= new, "the base's level is not below the flush level");
            let folds = matches!(carry, Carry::Fold { .. });
            assert_eq!(shape.base_end, if folds { n } else { before.base_end });
            if folds {
                assert!(base <= was.max(new).above() && base.above() >= was, "{before:?} {shape:?}");
                assert!(n >= before.base_rests && shape.divisor.aligned(n, before.grain().unwrap()));
                // It has some time, and no more than a window of the base's level.
                let rest = shape.base_rests.0 - n.0;
                assert!(rest > 0 && rest <= shape.divisor.pow(base), "{before:?} {shape:?}");
            } else if matches!(carry, Carry::Segment(window) if window.level() >= was) {
                assert!(base > was, "too little for a fold: {before:?} {shape:?}");
            } else {
                assert!(base <= was.max(new), "{before:?} {shape:?}");
                // What was reckoned once it had rested stays.
                assert!(n < before.base_rests || shape.base_rests == before.base_rests);
            }
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
        // No window could be larger: none that holds two of them fits between the base and the memtable.
        for window in &cover.windows {
            let parent = window.parent(self.shape.divisor).span();
            assert!(
                parent.after < cover.base_end || parent.last > cover.memtable.after,
                "{window} at {}",
                self.n
            );
        }
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
            let budget = Budget { flush_bytes: 100, base_ratio: 1 };
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
                // Sizes that leave the levels alone; some boundaries of the grain are worth a fold.
                let worth = divisor.aligned(n, Level(3)) || seeded.below(2) == 0;
                let base_bytes = if worth { 9 } else { 10 };
                let measured =
                    Measured { flush_bytes: 100, window_bytes: 9, base_bytes, ..Measured::default() };
                if let Some((carry, after)) = shape.step(n, &measured, &budget) {
                    in_flight.push(carry);
                    shape = after;
                }
                assert_eq!((shape.flush_level, shape.base_level.is_some()), (Level(1), base_level.is_some()));
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
fn the_base_is_folded_where_enough_has_come_together() {
    let ten = Divisor::new(10).unwrap();
    // A base of 800 bytes that ends at 4000 and rests until 4700, at level 3; levels from 2 up.
    let (base_end, base_rests) = (Commit(4000), Commit(4700));
    let shape =
        Shape { divisor: ten, flush_level: Level(2), base_end, base_rests, base_level: Some(Level(3)) };
    let step = |shape: &Shape, flush, n, flush_bytes, window_bytes, base_bytes| {
        // The fold before took as much into nothing, and kept nothing of it or (below) some.
        let measured = Measured {
            flush_bytes,
            window_bytes,
            base_bytes,
            base_bytes_max: base_bytes,
            ..Measured::default()
        };
        let BaseStep { folds, rests, level } =
            next_base_level(shape, Level(3), Level(flush), Commit(n), &measured, 8);
        (folds, rests.0, level.0)
    };
    let next = |flush, n, flush_bytes, window_bytes, base_bytes| {
        step(&shape, flush, n, flush_bytes, window_bytes, base_bytes)
    };
    assert_eq!(
        next(2, 4700, 10, 100, 800),
        (true, 5400, 3),
        "an eighth of the base, at a boundary of the grain: 700 commits until the next"
    );
    assert_eq!(next(2, 4700, 10, 99, 800), (false, 4700, 3), "too little");
    assert_eq!(next(2, 4600, 10, 100, 800), (false, 4700, 3), "the base rests");
    assert_eq!(next(2, 4800, 10, 99, 800), (false, 4700, 3), "too little still");
    assert_eq!(next(2, 5000, 10, 100, 800), (true, 6000, 3), "a window of its level at most");
    assert_eq!(
        next(2, 5000, 10, 99, 800),
        (false, 4700, 4),
        "a window of its level is too little: that grows"
    );
    assert_eq!(next(2, 5000, 10, 0, u64::MAX), (false, 4700, 4), "by one");
    assert_eq!(next(2, 5000, 10, 0, 0), (true, 5100, 2), "nothing at all goes into nothing");
    let would_not_do = "a window of the level below would not do after it";
    assert_eq!(next(2, 5000, 100, 1000, 0), (true, 5200, 3), "{would_not_do}");
    let eleven =
        "nor where eleven windows came together; until the next it takes more than one, so that grows";
    assert_eq!(next(2, 15_000, 100, 8000, 800), (true, 17_000, 4), "{eleven}");
    let small = Shape { base_end: Commit(4900), base_rests: Commit(4900), ..shape };
    let would_do = "here it would, and the level falls by one";
    assert_eq!(step(&small, 2, 5000, 9, 1000, 500), (true, 5100, 2), "{would_do}");
    assert_eq!(step(&small, 3, 5000, 9, 1000, 500), (true, 6000, 3), "not below the flush level");
    let takes = "which takes it along when it grows past it";
    assert_eq!(next(4, 50_000, 10, 100, 80), (true, 60_000, 4), "{takes}");
    // While it rests: twenty parts of the base have come, and a window of level 2 holds one.
    assert_eq!(next(2, 4600, 100, 1999, 800), (false, 4700, 3), "less than far too much");
    assert_eq!(next(2, 4600, 100, 2000, 800), (false, 4700, 2), "it falls without a fold");
    assert_eq!(
        next(0, 4600, 10_000, 20_000, 800),
        (false, 4601, 0),
        "as far as the sizes say, and rests less"
    );
    assert_eq!(next(0, 4600, 9999, 20_000, 800), (false, 4610, 1), "and no further");
    assert_eq!(next(2, 4600, 100, u64::MAX, 0), (false, 4700, 3), "there is no base to speak of");
}

#[test]
fn a_base_rests_for_longer_where_the_fold_before_let_it_grow() {
    let ten = Divisor::new(10).unwrap();
    let (base_end, base_rests) = (Commit(4000), Commit(4000));
    let shape =
        Shape { divisor: ten, flush_level: Level(1), base_end, base_rests, base_level: Some(Level(3)) };
    // Of 200 bytes that the fold before took in, the base of 800 kept as many as it has more.
    let rests = |base_before: u64| {
        let folded = Folded { base_bytes: base_before, window_bytes: 200, ..Folded::default() };
        let measured =
            Measured { flush_bytes: 5, window_bytes: 200, folded, base_bytes: 800, base_bytes_max: 800 };
        next_base_level(&shape, Level(3), Level(1), Commit(4400), &measured, 8).rests.0 - 4400
    };
    assert_eq!(rests(800), 200, "a base that did not grow, in 400 commits twice what a fold needs");
    assert_eq!(rests(900), 200, "nor one that shrank");
    assert_eq!(rests(700), 300, "half of it: 900 bytes, and a boundary of the grain");
    assert_eq!(rests(600), 300, "all of it: 1000 bytes");
    assert_eq!(rests(0), 300, "and no more");
}

#[test]
fn a_base_that_grows_is_being_folded_most_of_the_time() {
    for divisor in divisors() {
        for ratio in [2, 3, 8] {
            let mut model = Model::new(divisor, true);
            let budget = Budget { flush_bytes: 1_000, base_ratio: ratio };
            let (mut resting, mut counted) = (0u64, 0u64);
            for n in 0..if cfg!(debug_assertions) { 20_000 } else { 200_000 } {
                model.commit(100, &budget, u64::MAX);
                if n >= 2_000 {
                    counted += 1;
                    resting += u64::from(model.n < model.shape.base_rests);
                }
            }
            assert!(
                resting * 20 >= counted * 19,
                "divisor {}, ratio {ratio}: {resting} of {counted}",
                divisor.get()
            );
        }
    }
}

#[test]
fn a_fold_has_as_many_bytes_time_when_small_commits_follow_large_ones() {
    for divisor in divisors() {
        let mut model = Model::new(divisor, true);
        let budget = Budget { flush_bytes: 20_000, base_ratio: 3 };
        for _ in 0..if cfg!(debug_assertions) { 2_000 } else { 20_000 } {
            model.commit(5_000, &budget, u64::MAX);
        }
        // In the midst of its rest: as soon as commits turn out small, the rest is that of small ones.
        let (folded, needed) = (model.folded, model.folded_last.foreseen_bytes / 3);
        assert!(model.n < model.shape.base_rests);
        let window = model.shape.divisor.pow(model.shape.flush_level);
        for _ in 0..2 * window {
            model.commit(40, &budget, u64::MAX);
        }
        let left = model.shape.base_rests.0.saturating_sub(model.n.0);
        assert_eq!(model.folded, folded, "divisor {}", divisor.get());
        assert!(model.window_bytes + left * 40 >= needed / 2, "divisor {}: {left} left", divisor.get());
        // And large ones that follow do not wait for all that time.
        while model.folded == folded {
            model.commit(5_000, &budget, u64::MAX);
            assert!(
                model.window_bytes <= 4 * needed,
                "divisor {}: {} of {needed}",
                divisor.get(),
                model.window_bytes
            );
        }
    }
}

#[test]
fn small_commits_after_large_ones_cause_no_fold_before_it_is_worth_it() {
    for divisor in divisors() {
        let mut model = Model::new(divisor, true);
        let budget = Budget { flush_bytes: 20_000, base_ratio: 8 };
        let large = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
        for _ in 0..large {
            model.commit(5_000, &budget, u64::MAX);
        }
        let (folded, committed, base) = (model.folded, model.committed, model.base_bytes);
        while model.window_bytes * 8 < base && model.committed < committed + base {
            assert!(model.folded == folded || model.base_bytes > base, "nothing is folded yet");
            model.commit(40, &budget, u64::MAX);
            model.check_cover();
            if model.n.0 > 20 * large {
                break; // The levels have long grown.
            }
        }
        assert!(model.folded - folded <= 9 * (model.committed - committed) + 2 * base);
    }
}

#[test]
fn large_commits_after_small_ones_are_folded_in_time() {
    for divisor in divisors() {
        let ways = u64::from(divisor.get());
        let mut model = Model::new(divisor, true);
        let budget = Budget { flush_bytes: 5_000, base_ratio: 8 };
        let (small, live_bytes) = (100, 300_000);
        for _ in 0..if cfg!(debug_assertions) { 20_000 } else { 100_000 } {
            model.commit(small, &budget, live_bytes);
        }
        let large = 20_000;
        let flush_bytes_max = large * divisor.pow(model.shape.flush_level);
        for _ in 0..2_000 {
            model.commit(large, &budget, live_bytes);
            // Far too much, a window until the next boundary, and one of the flush level before it followed.
            let bound = (3 * ways + 1) * (live_bytes / 8 + flush_bytes_max) + flush_bytes_max;
            assert!(model.window_bytes <= bound, "divisor {ways}: {} of {bound}", model.window_bytes);
        }
    }
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
                // A fold takes in what it has to, and less than as much again.
                assert!((live_bytes / 8..live_bytes / 4).contains(&model.taken_in), "{}", model.taken_in);
            }
        }
    }
}
