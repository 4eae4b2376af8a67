//! Retention: which commits can be read later, and what becomes of that when the option changes.
//!
//! 1. [`Retention`] is the option. It speaks of commits relative to the newest one.
//! 2. [`History`] is what a shard can keep of it: the option, and since when each part of it holds. After
//!    a change, of the old commits only such are retained as both options retain; from the change on, the new one
//!    holds in full.
//! 3. A merge asks [`History::keep_rule`] which versions that needs; see [`KeepRule`].
//!
//! Promises: the newest commit is always retained; a commit that was let go is never retained again, whatever
//! commits and changes follow. All that merges rely on is that last promise.
//!
//! Commit 0, the empty state, is treated as any number: a boundary of every level, and among the last n
//! while fewer than n commits have been made.

use super::keep::KeepRule;
use super::number::{Commit, Divisor, Level};

/// What history stays readable after it has been overwritten.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Retention {
    /// Every commit, for ever.
    Forever,
    /// The newest state only.
    #[default]
    None,
    /// The boundaries of this level (so of those above too), for ever, and the newest commit.
    Level(Level),
    /// The last so many commits, each exactly: `newest - n + 1 ..= newest`. 0 and 1 are the same as [`Retention::None`].
    Last(u64),
    /// Both [`Retention::Last`] and [`Retention::Level`].
    LastAndLevel(u64, Level),
}

impl Retention {
    /// Whether the oldest part of a shard is folded into a base: where nothing is retained for ever.
    pub fn has_base(self) -> bool {
        matches!(self, Retention::None | Retention::Last(_))
    }

    /// How many of the last commits it retains; at least 1, the newest.
    fn last(self) -> u64 {
        match self {
            Retention::Last(count) | Retention::LastAndLevel(count, _) => count.max(1),
            Retention::Forever | Retention::None | Retention::Level(_) => 1,
        }
    }

    /// The level whose boundaries it retains for ever; that of everything is 0.
    fn level(self) -> Option<Level> {
        match self {
            Retention::Forever => Some(Level(0)),
            Retention::Level(level) | Retention::LastAndLevel(_, level) => Some(level),
            Retention::None | Retention::Last(_) => None,
        }
    }
}

/// The boundaries of a level, retained from a commit on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Aligned {
    /// The first commit from which they are.
    pub from: Commit,
    /// The level.
    pub level: Level,
}

/// What a shard can answer: the retention, and since when each part of it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The option in force.
    pub retention: Retention,
    /// Commits below it are not among the last ones, however many the option says.
    pub last_from: Commit,
    /// What is retained for ever. Sorted; a later one has a lower level, so there are no more than levels.
    pub aligned: Vec<Aligned>,
}

impl History {
    /// The history of an empty shard.
    pub fn new(retention: Retention) -> History {
        let aligned = retention.level().map(|level| Aligned { from: Commit::ZERO, level });
        History { retention, last_from: Commit::ZERO, aligned: aligned.into_iter().collect() }
    }

    /// The first commit from which all up to `newest` are retained as the last ones.
    pub(super) fn last_since(&self, newest: Commit) -> Commit {
        Commit(newest.0.saturating_sub(self.retention.last() - 1)).max(self.last_from).min(newest)
    }

    /// Whether only the newest commit can be read, whatever commits follow.
    pub fn newest_only(&self) -> bool {
        self.aligned.is_empty() && self.retention.last() == 1
    }

    /// Whether the commit can be read when `newest` is the newest.
    pub fn retained(&self, divisor: Divisor, asked: Commit, newest: Commit) -> bool {
        asked <= newest
            && (asked >= self.last_since(newest)
                || self.aligned.iter().any(|part| asked >= part.from && divisor.aligned(asked, part.level)))
    }

    /// The retained commit nearest to the one asked for: the last one up to it, else the first one after it.
    pub fn nearest(&self, divisor: Divisor, asked: Commit, newest: Commit) -> Commit {
        let asked = asked.min(newest);
        let last_since = self.last_since(newest);
        if asked >= last_since {
            return asked;
        }
        let below = self.aligned.iter().filter_map(|part| {
            let commit = divisor.floor(asked, part.level);
            (commit >= part.from).then_some(commit)
        });
        // None of a part is at or below `asked`, so its first is above.
        let above = self.aligned.iter().map(|part| match divisor.aligned(part.from, part.level) {
            true => part.from,
            false => divisor.next_boundary(part.from, part.level),
        });
        below.max().unwrap_or_else(|| above.min().map_or(last_since, |first| first.min(last_since)))
    }

    /// The history from `newest` on when the option changes. Every change is possible:
    ///
    /// - boundaries that both options retain for ever stay retained;
    /// - all else that the new option asks for is retained from `newest` on, or from further back where the old
    ///   one retained *every* commit from there to `newest`;
    /// - the rest is let go with later carries.
    #[must_use]
    pub fn change(&self, to: Retention, newest: Commit) -> History {
        if to == self.retention {
            return self.clone();
        }
        let every = self.aligned.iter().filter(|part| part.level == Level(0)).map(|part| part.from);
        let every_since =
            every.min().map_or(self.last_since(newest), |from| from.min(self.last_since(newest)));
        let mut aligned: Vec<Aligned> = Vec::new();
        if let Some(level) = to.level() {
            let old = self.aligned.iter().map(|part| Aligned { level: part.level.max(level), ..*part });
            let mut parts: Vec<Aligned> = old.chain([Aligned { from: every_since, level }]).collect();
            parts.sort();
            for part in parts {
                // An earlier part of the same or a lower level retains all that this one would.
                if aligned.last().is_none_or(|earlier| part.level < earlier.level) {
                    aligned.push(part);
                }
            }
        }
        History { retention: to, last_from: every_since, aligned }
    }

    /// Which versions a merge that ends at `window_end` keeps.
    pub fn keep_rule(&self, divisor: Divisor, window_end: Commit) -> KeepRule {
        KeepRule::new(self, divisor, window_end)
    }
}
