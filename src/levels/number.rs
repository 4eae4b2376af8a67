//! Commits, levels and the divisor: positional notation.
//!
//! A commit's number written in base `divisor` is the whole schedule: its trailing zeros say how far it carries,
//! its digits say how many segments of each level are live. Promises: nothing here overflows for any commit up
//! to [`Commit::MAX`]; beyond the largest power that fits, [`Divisor::pow`] saturates.

use crate::limits::{DIVISOR_MAX, DIVISOR_MIN};
use std::fmt;

/// The number of a commit within its shard: 1, 2, 3 …; 0 stands for the empty state before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Commit(pub u64);

impl Commit {
    /// The empty state before the first commit.
    pub const ZERO: Commit = Commit(0);
    /// The last commit there can be: directory numbers hold a commit in 48 bits (nine years at a million a second).
    pub const MAX: Commit = Commit((1 << 48) - 1);

    /// The commit after this one.
    #[must_use]
    pub fn next(self) -> Commit {
        Commit(self.0.saturating_add(1))
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The level of a window: a window of level L spans `divisor^L` commits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Level(pub u8);

impl Level {
    /// The level above.
    #[must_use]
    pub fn above(self) -> Level {
        Level(self.0.saturating_add(1))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The base of the notation, checked to lie in [`DIVISOR_MIN`]`..=`[`DIVISOR_MAX`]; fixed at creation.
///
/// ```
/// use quipu::levels::{Commit, Divisor, Level};
/// let ten = Divisor::new(10).unwrap();
/// assert_eq!(ten.zeros(Commit(4200)), Level(2)); // commit 4200 closes a window of level 2
/// assert_eq!(ten.digit_sum(Commit(4203)), 9); // 4 windows of level 3, 2 of level 2, 3 of level 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Divisor(u32);

impl Divisor {
    /// `None` where the number is out of bounds.
    pub fn new(divisor: u32) -> Option<Divisor> {
        (DIVISOR_MIN..=DIVISOR_MAX).contains(&divisor).then_some(Divisor(divisor))
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The commits that a window of the level spans; `u64::MAX` where that does not fit.
    pub fn pow(self, level: Level) -> u64 {
        u64::from(self.0).saturating_pow(u32::from(level.0))
    }

    /// The highest level that a window can have: the first could still close at or before [`Commit::MAX`].
    pub fn level_max(self) -> Level {
        Level(Commit::MAX.0.ilog(u64::from(self.0)) as u8) // At most 47, at divisor 2.
    }

    /// The level of the largest window that ends at `n` (`n >= 1`): how many zero digits `n` ends in.
    pub fn zeros(self, n: Commit) -> Level {
        debug_assert!(n > Commit::ZERO, "commit 0 closes nothing");
        let divisor = u64::from(self.0);
        let (mut rest, mut zeros) = (n.0, 0);
        while rest != 0 && rest.is_multiple_of(divisor) {
            rest /= divisor;
            zeros += 1;
        }
        Level(zeros)
    }

    /// Whether `n` is a boundary of the level, that is a multiple of [`Divisor::pow`]; 0 is one of every level.
    pub fn aligned(self, n: Commit, level: Level) -> bool {
        n.0.is_multiple_of(self.pow(level))
    }

    /// The last boundary of the level at or before `n`.
    pub fn floor(self, n: Commit, level: Level) -> Commit {
        Commit(n.0 - n.0 % self.pow(level))
    }

    /// The first boundary of the level after `n` (not `n` itself).
    pub fn next_boundary(self, n: Commit, level: Level) -> Commit {
        Commit(self.floor(n, level).0.saturating_add(self.pow(level)))
    }

    /// The digit of `n` at the level.
    pub fn digit(self, n: Commit, level: Level) -> u32 {
        let power = u64::from(self.0).checked_pow(u32::from(level.0));
        power.map_or(0, |power| (n.0 / power % u64::from(self.0)) as u32) // Less than the divisor: fits.
    }

    /// The levels from `lowest` up to that of the first digit of `n`; none where `n` is smaller than their windows.
    pub fn levels(self, n: Commit, lowest: Level) -> impl DoubleEndedIterator<Item = Level> {
        let count = n.0.checked_ilog(u64::from(self.0)).map_or(0, |highest| highest as u8 + 1); // At most 64.
        (lowest.0..count).map(Level)
    }

    /// The digits of `n`, those of level 0 first, without leading zeros (none for 0).
    pub fn digits(self, n: Commit) -> impl Iterator<Item = u32> {
        let divisor = u64::from(self.0);
        let mut rest = n.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let digit = (rest % divisor) as u32; // Less than the divisor: fits.
                rest /= divisor;
                digit
            })
        })
    }

    /// The sum of the digits: how many windows of all levels add up to (0, `n`].
    pub fn digit_sum(self, n: Commit) -> u32 {
        self.digits(n).sum()
    }
}
