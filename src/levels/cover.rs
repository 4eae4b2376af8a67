//! Cover and carries: what exists after commit n, what falls due at it, and what a restart has to make up for.
//!
//! The cover of `n` is the base, then the windows above it, then the memtable. *The windows* are the largest that fit:
//! every aligned window between the base's end and the last boundary of the flush level that is not part of another
//! such. Without a base, or with one that ends on a boundary of its level, these are the digits of `n` from the flush
//! level up. A base that ends on a smaller boundary has windows that rise towards the next boundary of its level first, at
//! most `divisor - 1` of each level, and the digits after.
//!
//! So one rule with two parts says what falls due:
//!
//! 1. At a boundary `n` of the flush level, the largest window that ends at `n` and begins no earlier than the base
//!    ends becomes a segment, in one merge of all that lies within it.
//! 2. It is a *fold* into the base instead where `n` is a boundary of the fold's grain, one level below the base's, enough
//!    has come together since the base's end ([`next_base_level`](super::next_base_level)), and the fold before has had
//!    its time. A fold merges everything up to `n`.
//!
//! A shard without a base is one whose base is empty and has no level. When a shard with a base starts to keep
//! history, the base just loses its level: it stays the oldest part, and never moves. When a shard starts to keep no
//! history, its empty base gets a level, and the next boundary of that level folds everything older. Nothing needs to
//! be refused either way.
//!
//! Promises: the cover is contiguous, disjoint and oldest first; every window in it is aligned; a carry's inputs
//! are exactly the pieces of the cover before it within its span; nothing else depends on them.

use super::number::{Commit, Divisor, Level};
use super::window::{Span, Window};

/// What, besides the commit's number, the cover depends on. It changes only at boundaries ([`Shape::step`])
/// and when retention changes ([`Shape::change`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The base of the notation.
    pub divisor: Divisor,
    /// Segments exist from this level up; the commits since its last boundary are in the memtable.
    pub flush_level: Level,
    /// The last commit of the base, its due folds counted as done; 0 where there is no base.
    pub base_end: Commit,
    /// No fold falls due before this commit: until then the last one has time.
    pub base_rests: Commit,
    /// The level of the largest window that the base may wait for before it is folded; `None` where history is retained.
    /// Never below the flush level.
    pub base_level: Option<Level>,
}

/// The pieces that make the newest state, oldest first: the base, the windows, the memtable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// The last commit of the base, which begins at the first; 0 where there is none.
    pub base_end: Commit,
    /// Contiguous windows from the base's end on: levels rise up to a boundary of the base's level, and fall after it.
    pub windows: Vec<Window>,
    /// The rest, held in the memtable.
    pub memtable: Span,
}

impl Cover {
    /// How many immutable pieces it has: the windows, and one for the base where there is one.
    pub fn segments(&self) -> usize {
        self.windows.len() + usize::from(self.base_end > Commit::ZERO)
    }
}

/// Something that exists on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Piece {
    /// The base, from the first commit up to this one.
    Base(Commit),
    /// The segment of a window.
    Segment(Window),
    /// Some commits of a window that is not closed yet (or whose carry is in flight), written early for want of
    /// memory.
    Spill(Span),
}

impl Piece {
    /// Its commits.
    pub fn span(self) -> Span {
        match self {
            Piece::Base(end) => Span::new(Commit::ZERO, end),
            Piece::Segment(window) => window.span(),
            Piece::Spill(span) => span,
        }
    }
}

/// A merge that falls due at a commit: everything within its span becomes one piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carry {
    /// Into the segment of the window.
    Segment(Window),
    /// Into the base.
    Fold {
        /// Where the base ended before.
        from: Commit,
        /// Where it ends then.
        to: Commit,
    },
}

impl Carry {
    /// The commit at which it falls due: the last of its span.
    pub fn due(self) -> Commit {
        self.span().last
    }

    /// The commits whose entries it merges, those of the old base included.
    pub fn span(self) -> Span {
        self.output().span()
    }

    /// That of its window, or of the largest window that ends where a fold does.
    pub fn level(self, divisor: Divisor) -> Level {
        match self {
            Carry::Segment(window) => window.level(),
            Carry::Fold { to, .. } => divisor.zeros(to),
        }
    }

    /// That of a window which takes about as long: a fold may end where a far smaller window does, or a far larger one.
    pub fn level_of_work(self, shape: &Shape) -> Level {
        let level = self.level(shape.divisor);
        match (self, shape.base_level) {
            (Carry::Fold { .. }, Some(base)) => base,
            (_, Some(base)) => base.min(level),
            (_, None) => level,
        }
    }

    /// What it makes.
    pub fn output(self) -> Piece {
        match self {
            Carry::Segment(window) => Piece::Segment(window),
            Carry::Fold { to, .. } => Piece::Base(to),
        }
    }

    /// Whether nothing is older than what it merges, so that the oldest tombstones can go.
    pub fn is_bottom(self) -> bool {
        self.span().after == Commit::ZERO
    }

    /// The existing pieces that it takes, in the given order: those within its span. (Its own output is not among
    /// them: that is installed, and its inputs removed, in one step.)
    pub fn inputs(self, existing: &[Piece]) -> impl Iterator<Item = Piece> {
        let span = self.span();
        existing.iter().copied().filter(move |piece| span.covers(piece.span()))
    }
}

impl Shape {
    /// The shape of an empty shard. With a base, it is folded at every boundary of the flush level at first.
    pub fn new(divisor: Divisor, flush_level: Level, has_base: bool) -> Shape {
        let base_level = has_base.then_some(flush_level);
        Shape { divisor, flush_level, base_end: Commit::ZERO, base_rests: Commit::ZERO, base_level }
    }

    /// The grain of folds: the level at whose boundaries the base may be folded, one below its own. So a fold takes in about
    /// as much as it has to, and not up to `divisor` times that.
    pub fn grain(&self) -> Option<Level> {
        self.base_level.map(|base| Level(base.0.saturating_sub(1)).max(self.flush_level))
    }

    /// The last commit that is not in the memtable when `n` is the newest, due carries counted as done.
    pub fn flushed(&self, n: Commit) -> Commit {
        self.divisor.floor(n, self.flush_level)
    }

    /// Whether it can be the shape after `n`: the base ends at or before what is flushed. For a shape that was read
    /// from somewhere.
    pub fn is_sound(&self, n: Commit) -> bool {
        self.base_end <= self.flushed(n) && self.base_level.is_none_or(|base| base >= self.flush_level)
    }

    /// The largest windows that fit between the base's end and the last boundary of the flush level, oldest first.
    fn windows(&self, n: Commit) -> impl Iterator<Item = Window> {
        let (divisor, end) = (self.divisor, self.flushed(n));
        let mut at = self.base_end;
        let fits = move |at: Commit, level: Level| {
            divisor.aligned(at, level)
                && at.0.checked_add(divisor.pow(level)).is_some_and(|last| last <= end.0)
        };
        let next = move || {
            let level = (0..=divisor.level_max().0).rev().map(Level).find(|&level| fits(at, level))?;
            let window = Window::ending_at(divisor, Commit(at.0 + divisor.pow(level)), level)?;
            at = window.last();
            Some(window)
        };
        std::iter::from_fn(next)
    }

    /// The pieces of the newest state at `n` once every due carry is installed. `self` is the shape after `n`.
    pub fn cover(&self, n: Commit) -> Cover {
        let flushed = self.flushed(n);
        debug_assert!(self.is_sound(n), "the base ends above what is flushed: {self:?} at {n}");
        Cover { base_end: self.base_end, windows: self.windows(n).collect(), memtable: Span::new(flushed, n) }
    }

    /// The window that a boundary `n` of the flush level closes: the largest that begins no earlier than the base ends.
    /// `None` where `n` is no such boundary, or the base's end.
    pub fn closes(&self, n: Commit) -> Option<Window> {
        if n == Commit::ZERO || !self.divisor.aligned(n, self.flush_level) {
            return None;
        }
        let levels = (self.flush_level.0..=self.divisor.zeros(n).0).rev().map(Level);
        let mut windows = levels.filter_map(|level| Window::ending_at(self.divisor, n, level));
        windows.find(|window| window.after() >= self.base_end)
    }

    /// The commit before which a carry must be installed, the first after `now` at which another can take its output.
    /// `now` is the newest commit (the carry's own, unless the shape changed since), `self` the shape after it.
    ///
    /// A segment of level v is taken at a boundary of level v+1 or, like the base, at one of the grain. The base is let be
    /// while it rests, and then looked at at the next boundary. (What is taken at none of these boundaries is done by then all the same.)
    pub fn deadline(&self, carry: Carry, now: Commit) -> Commit {
        debug_assert!(carry.due() <= now);
        let above = carry.level(self.divisor).above();
        let taken = self.divisor.next_boundary(now, self.grain().map_or(above, |grain| grain.min(above)));
        match (carry, self.base_level) {
            (Carry::Fold { .. }, Some(_)) => {
                self.divisor.next_boundary(now, self.flush_level).max(self.base_rests)
            }
            _ => taken,
        }
    }

    /// The carries that must still be done when `n` is the newest commit and these pieces exist, oldest first:
    /// one for each piece of the cover that is missing. Each can be made from the pieces and logged commits
    /// within its span; carries nested in one of these are not needed any more.
    pub fn pending(&self, n: Commit, existing: &[Piece]) -> Vec<Carry> {
        let cover = self.cover(n);
        let base_end = existing.iter().filter_map(|piece| match piece {
            Piece::Base(end) => Some(*end),
            _ => None,
        });
        let base_end = base_end.max().unwrap_or(Commit::ZERO);
        let fold = (base_end < cover.base_end).then_some(Carry::Fold { from: base_end, to: cover.base_end });
        let missing = cover.windows.into_iter().filter(|&window| !existing.contains(&Piece::Segment(window)));
        fold.into_iter().chain(missing.map(Carry::Segment)).collect()
    }

    /// The shape from `n` on, the newest commit, when retention changes to one that has a base or has none.
    ///
    /// A base that is new gets the level at which one of `ratio` windows holds all commits so far, as if
    /// they were of one size: then its first fold costs a commit no more than later ones do.
    #[must_use]
    pub fn change(&self, n: Commit, has_base: bool, ratio: u32) -> Shape {
        let base_level = match (self.base_level, has_base) {
            (_, false) => None,
            (Some(level), true) => Some(level),
            (None, true) => {
                let holds =
                    |level: &Level| self.divisor.pow(*level).saturating_mul(u64::from(ratio.max(1))) >= n.0;
                let max = self.divisor.level_max().max(self.flush_level);
                (self.flush_level.0..=max.0).map(Level).find(holds).or(Some(max))
            }
        };
        Shape { base_level, ..*self }
    }
}
