//! How the flush level and the base's level follow the sizes of the commits.
//!
//! Both rules read only the commits' numbers and logical bytes (never a clock, nor how far a merge got), and act
//! only at boundaries at which every digit that the change would disturb is zero:
//!
//! 1. At a boundary `n` of the flush level the memtable is empty and all digits below are zero. Any lower level
//!    can take over there; the next higher one can where its digit is zero too, so the memtable would be empty.
//! 2. At a fold the base ends at `n`, a boundary of the base's level. The level below can take over there; the
//!    next higher one can where `n` is its boundary too, since the base must end on one.
//! 3. The flush level grows past the base's level only from equality, so its boundary `n` is also a fold,
//!    and the base's level follows it at that same `n`.
//!
//! Promises: after every change `flush_level <= base_level`, the base ends on a boundary of its level, and the
//! memtable begins on one of the flush level.

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
    /// Of the window of the base's level that just closed (read only at its boundaries).
    pub window_bytes: u64,
    /// Of the base as the fold *before* this one left it (and of segments older than the window that closed, as there
    /// are when a base is first made of a long history). The fold that falls due now is not done yet, and the
    /// levels must not depend on when it will be; the one before is always installed by now.
    pub base_bytes: u64,
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

/// The base's level from fold `n` on: the smallest, from the (new) flush level up, whose window is estimated to
/// hold at least `base_bytes / ratio`. It moves by one at a time, and grows only where `n` is a boundary of the level
/// above. (Falling by more would leave the fold due at `n`, sized for the old level, too little time.)
///
/// `window_bytes` are those of the window of the current level that `n` closes, `base_bytes` as in [`Measured`].
pub fn next_base_level(
    divisor: Divisor,
    current: Level,
    flush_level: Level,
    n: Commit,
    window_bytes: u64,
    base_bytes: u64,
    ratio: u32,
) -> Level {
    debug_assert!(divisor.aligned(n, current) && divisor.aligned(n, flush_level));
    let ratio_of_window = u128::from(window_bytes.max(1)) * u128::from(ratio.max(1));
    let holds = |level: &Level| {
        let apart = u128::from(divisor.pow(Level(level.0.abs_diff(current.0))));
        if *level >= current {
            ratio_of_window.saturating_mul(apart) >= u128::from(base_bytes)
        } else {
            ratio_of_window >= u128::from(base_bytes).saturating_mul(apart)
        }
    };
    let max = divisor.level_max().max(flush_level);
    let wanted = (flush_level.0..=max.0).map(Level).find(holds).unwrap_or(max);
    match wanted {
        _ if wanted < current => Level(current.0 - 1),
        _ if wanted == current => current,
        _ if divisor.aligned(n, current.above()) => current.above(),
        _ => {
            debug_assert!(
                flush_level <= current,
                "the flush level grows only at boundaries of its new level"
            );
            current
        }
    }
}

impl Shape {
    /// The shape after commit `n`, given the shape before it: unchanged save at boundaries of the flush level.
    ///
    /// Call it for every commit in turn, after [`Shape::carry_due`], when `n` is sequenced (not when the
    /// carry is done).
    #[must_use]
    pub fn after(&self, n: Commit, measured: &Measured, budget: &Budget) -> Shape {
        let Some(carry) = self.carry_due(n) else { return *self };
        let divisor = self.divisor;
        let flush_level =
            next_flush_level(divisor, self.flush_level, n, measured.flush_bytes, budget.flush_bytes);
        let base_level = self.base_level.map(|level| {
            if !divisor.aligned(n, level) {
                return level;
            }
            let Measured { window_bytes, base_bytes, .. } = *measured;
            next_base_level(divisor, level, flush_level, n, window_bytes, base_bytes, budget.base_ratio)
        });
        debug_assert!(base_level.is_none_or(|level| level >= flush_level));
        let base_end = if let Carry::Fold { to, .. } = carry { to } else { self.base_end };
        Shape { divisor, flush_level, base_end, base_level }
    }
}
