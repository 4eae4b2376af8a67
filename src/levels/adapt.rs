//! How the flush level and the base's level follow the sizes of the commits, and when the base is folded.
//!
//! The rules read only the commits' numbers and logical bytes (never a clock, nor how far a merge got), and act only
//! at boundaries of the flush level:
//!
//! 1. At a boundary `n` of the flush level the memtable is empty and all digits below are zero. Any lower level
//!    can take over there; the next higher one can where its digit is zero too, so the memtable would be empty.
//! 2. At a boundary of the level below the base's, the *grain*, all that was committed since the base's end is folded
//!    into it, where that is at least one part in `base_ratio` of the base and the fold before has had its time. That is
//!    as many commits as it takes until the next one is worth it, if commits stay as large and the base grows by as much
//!    of what it takes in as it did before.
//! 3. Where it is less, a fold would cost more than it is worth: a segment is made as at any other boundary. Where that
//!    is of the base's own level, this grows by one. So small commits that come after large ones cause no fold before
//!    they have come to as much as the large ones, and a base that grows moves its level up without one. (Where that is
//!    known at a fold already, the level grows there: the next fold is then on a boundary that it would be on anyway.)
//! 4. The base's level falls by one at a fold where windows of the level below would hold enough even of all that
//!    the base may have after it. Between folds it falls to what the sizes ask for once far more has come
//!    together than a fold needs: large commits after small ones.
//! 5. Where commits turn out less than half as large as those that the rest was reckoned with, it is made longer, so that the fold
//!    has as many bytes' time as ever: small commits after large ones do not wait for it. Where enough has come and the base
//!    still rests, its rest is cut to half of what it would be with such commits.
//! 6. The flush level grows past the base's level only from equality, so its boundary is one of the base's too,
//!    and the base's level follows it at that same `n`.
//!
//! Promises: after every change `flush_level <= base_level`, and the memtable begins on a boundary of the flush
//! level. Windows are of levels below the base's. With steady sizes a fold takes in less than twice what it has to, and
//! mostly about a quarter more.

use super::cover::{Carry, Shape};
use super::number::{Commit, Divisor, Level};

/// The most commits in a window of the flush level: memtables count their commits in 32 bits.
const FLUSH_COMMITS_MAX: u64 = 1 << 32;

/// What the levels aim at; part of the options fixed at creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// The most logical bytes that a window of the flush level should hold.
    pub flush_bytes: u64,
    /// The base is folded once a window holds at least one part in `base_ratio` of its bytes.
    pub base_ratio: u32,
}

/// What was counted up to a boundary, all in logical bytes: sums over commits, so the same on every run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Measured {
    /// Of the window of the flush level that just closed.
    pub flush_bytes: u64,
    /// Of all commits since the base's end.
    pub window_bytes: u64,
    /// The fold before.
    pub folded: Folded,
    /// Of the base as the fold before left it; read only at boundaries at which the base does not rest any more: by then
    /// that fold is always installed. (The fold that falls due now is not done yet, and the levels must not depend on when it
    /// will be.)
    pub base_bytes: u64,
    /// The most that the base can have once every due fold is done. Known at any commit.
    pub base_bytes_max: u64,
}

/// A fold that fell due, in logical bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Folded {
    /// What it takes of the base, as the fold before it left it.
    pub base_bytes: u64,
    /// What it takes of all commits since that base's end.
    pub window_bytes: u64,
    /// What the base should have after it.
    pub foreseen_bytes: u64,
}

impl Measured {
    /// A fold now. The base should keep as much of each byte that it takes in as it did at the fold before. (One that is new will
    /// have about what it takes in.)
    pub fn fold(&self) -> Folded {
        let Measured {
            window_bytes,
            base_bytes,
            folded: Folded { base_bytes: before, window_bytes: taken, .. },
            ..
        } = *self;
        let kept = u128::from(base_bytes.saturating_sub(before).min(taken));
        let grows = kept * u128::from(window_bytes) / u128::from(taken.max(1));
        let grows = grows as u64; // At most `window_bytes`, as `kept` is at most `taken`.
        let foreseen_bytes = base_bytes.saturating_add(grows).max(window_bytes);
        Folded { base_bytes, window_bytes, foreseen_bytes }
    }
}

/// The flush level from boundary `n` of the current one on, given the logical bytes of the window just closed.
///
/// Over the budget it falls until the window, divided evenly, fits; it grows by one where `divisor` such windows fit
/// and `n` is a boundary of the level above. Between the two lies a factor of `divisor`, so steady sizes cannot
/// make it swing.
pub fn next_flush_level(
    divisor: Divisor,
    current: Level,
    n: Commit,
    window_bytes: u64,
    budget_bytes: u64,
) -> Level {
    debug_assert!(divisor.aligned(n, current));
    let ways = u64::from(divisor.get());
    let (mut level, mut bytes) = (current, window_bytes);
    while bytes > budget_bytes && level > Level(0) {
        level = Level(level.0 - 1);
        bytes = bytes.div_ceil(ways);
    }
    let grows = level == current
        && window_bytes.saturating_mul(ways) <= budget_bytes
        && divisor.aligned(n, current.above())
        && divisor.pow(current.above()) <= FLUSH_COMMITS_MAX;
    if grows { current.above() } else { level }
}

/// What becomes of the base at a boundary of the flush level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseStep {
    /// Whether all that was committed up to it is folded.
    pub folds: bool,
    /// Until when it rests.
    pub rests: Commit,
    /// The base's level from it on.
    pub level: Level,
}

/// Whether the base is folded at boundary `n` of the flush level, and its level from there on.
///
/// `shape` is the one before `n`, whose base has the level `current`; `flush_level` the one from `n` on.
pub fn next_base_level(
    shape: &Shape,
    current: Level,
    flush_level: Level,
    n: Commit,
    measured: &Measured,
    ratio: u32,
) -> BaseStep {
    let divisor = shape.divisor;
    debug_assert!(divisor.aligned(n, shape.flush_level) && divisor.aligned(n, flush_level));
    let Measured { flush_bytes, window_bytes, base_bytes, base_bytes_max, .. } = *measured;
    // Whether windows of `level` hold a part of `base` that is worth a fold, where `bytes` came in `commits`.
    let holds = |level: Level, bytes: u64, commits: u64, base: u64| {
        let of_window = u128::from(bytes.max(1)) * u128::from(ratio.max(1));
        of_window.saturating_mul(divisor.pow(level).into()) >= u128::from(base) * u128::from(commits)
    };
    let below = Level(current.0.saturating_sub(1));
    let rests = shape.base_rests;
    let rested = n >= rests && shape.grain().is_some_and(|grain| divisor.aligned(n, grain));
    if rested && holds(Level(0), window_bytes, 1, base_bytes) {
        let commits = n.0 - shape.base_end.0;
        let falls = holds(below, window_bytes, commits, base_bytes.saturating_add(window_bytes));
        // Where commits stay as large as these, the next fold is worth it after that many.
        let base = u128::from(measured.fold().foreseen_bytes);
        let next = u128::from(commits) * base / (u128::from(window_bytes.max(1)) * u128::from(ratio.max(1)));
        let next = u64::try_from(next).unwrap_or(u64::MAX).max(1);
        let level = if falls { below } else { current };
        // If windows of its level end before that, it would have grown by then: so much time is known of now.
        let grown = if next > divisor.pow(level) { level.above().min(divisor.level_max()) } else { level };
        let level = grown.max(flush_level);
        let after = Shape { flush_level, base_level: Some(level), ..*shape };
        let grain = divisor.pow(after.grain().unwrap_or(level));
        let rests = n.0.saturating_add(next.min(divisor.pow(level))).div_ceil(grain).saturating_mul(grain);
        let rests = rests.min(n.0.saturating_add(divisor.pow(level)));
        return BaseStep { folds: true, rests: Commit(rests), level };
    }
    let rests = if n < rests { rests_anew(shape, n, measured, ratio) } else { rests };
    // Windows below the base's level are all that there ever are.
    if let Some(closed) = shape.closes(n).map(|window| window.level()).filter(|&closed| closed >= current) {
        let level = closed.above().min(divisor.level_max().max(flush_level));
        return BaseStep { folds: false, rests, level: level.max(flush_level) };
    }
    // A window of the base's level that is as large as steady sizes make it holds less than `divisor` such parts.
    let ample = u128::from(base_bytes_max) * 2 * u128::from(divisor.get());
    let sooner = base_bytes_max > 0 && u128::from(window_bytes) * u128::from(ratio) >= ample;
    let commits = divisor.pow(shape.flush_level);
    let enough = |level: &Level| holds(*level, flush_bytes, commits, base_bytes_max);
    let levels = (flush_level.0..current.0).map(Level);
    match levels.filter(|_| sooner).find(enough) {
        Some(level) => BaseStep { folds: false, rests: rests.min(divisor.next_boundary(n, level)), level },
        None => BaseStep { folds: false, rests, level: current.max(flush_level) },
    }
}

/// Until when a base that rests at boundary `n` of the flush level does, now that it is known how large commits are.
fn rests_anew(shape: &Shape, n: Commit, measured: &Measured, ratio: u32) -> Commit {
    let (divisor, rests) = (shape.divisor, shape.base_rests);
    let Some(grain) = shape.grain() else { return rests };
    let needed = measured.folded.foreseen_bytes / u64::from(ratio.max(1));
    // How many commits take so many bytes, if they stay as large as those of the window that just closed.
    let commits = |bytes: u64| {
        let of = u128::from(bytes) * u128::from(divisor.pow(shape.flush_level))
            / u128::from(measured.flush_bytes.max(1));
        u64::try_from(of).unwrap_or(u64::MAX).min(divisor.pow(divisor.level_max()))
    };
    let until = |commits: u64| divisor.next_boundary(Commit(n.0.saturating_add(commits) - 1), grain);
    let missing = needed.saturating_sub(measured.window_bytes);
    if missing == 0 {
        return rests.min(until(commits(needed).div_ceil(2).max(1)));
    }
    let takes = commits(missing);
    if takes / 2 > rests.0 - n.0 { until(takes) } else { rests }
}

impl Shape {
    /// The next commit, `n`: what falls due at it, and the shape from it on; `None` where nothing does, and the shape
    /// stays. `self` is the shape before `n`.
    ///
    /// Call it for every commit in turn when it is sequenced (not when a carry is done).
    pub fn step(&self, n: Commit, measured: &Measured, budget: &Budget) -> Option<(Carry, Shape)> {
        let window = self.closes(n)?;
        let divisor = self.divisor;
        let flush_level =
            next_flush_level(divisor, self.flush_level, n, measured.flush_bytes, budget.flush_bytes);
        let base = self
            .base_level
            .map(|level| next_base_level(self, level, flush_level, n, measured, budget.base_ratio));
        let folds = base.is_some_and(|base| base.folds);
        let carry = if folds { Carry::Fold { from: self.base_end, to: n } } else { Carry::Segment(window) };
        let base_end = if folds { n } else { self.base_end };
        let base_rests = base.map_or(self.base_rests, |base| base.rests);
        let base_level = base.map(|base| base.level);
        Some((carry, Shape { divisor, flush_level, base_end, base_rests, base_level }))
    }
}
