//! Spans and windows: ranges of commits, free and aligned.
//!
//! A [`Span`] is any range of commits; a [`Window`] is one that fills exactly one place of the notation.
//! Both leave their first bound out, so that neighbours share a number: (0, 4] (4, 8]. Promises: a window is
//! made only aligned, and windows of one level tile the commits without a gap or an overlap.

use super::number::{Commit, Divisor, Level};
use std::fmt;

/// The commits after `after`, up to `last` and with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span {
    /// The commit just before the span.
    pub after: Commit,
    /// The last commit of the span.
    pub last: Commit,
}

impl Span {
    /// The commits after `after` up to `last`; empty where they are the same.
    pub fn new(after: Commit, last: Commit) -> Span {
        debug_assert!(after <= last);
        Span { after, last }
    }

    /// The first commit of the span.
    pub fn first(self) -> Commit {
        self.after.next()
    }

    /// How many commits it holds.
    pub fn count(self) -> u64 {
        self.last.0 - self.after.0
    }

    /// Whether it holds no commit.
    pub fn is_empty(self) -> bool {
        self.after == self.last
    }

    /// Whether the commit is one of it.
    pub fn contains(self, commit: Commit) -> bool {
        self.after < commit && commit <= self.last
    }

    /// Whether every commit of `other` is one of it.
    pub fn covers(self, other: Span) -> bool {
        self.after <= other.after && other.last <= self.last
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.last)
    }
}

/// Window k of level L: the commits ((k-1)·D^L, k·D^L].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Window {
    span: Span,
    level: Level,
}

impl Window {
    /// Window number `index` (from 1) of the level; `None` for index 0 and where it would end past [`Commit::MAX`].
    pub fn new(divisor: Divisor, level: Level, index: u64) -> Option<Window> {
        let last = divisor.pow(level).checked_mul(index).map(Commit).filter(|&last| last <= Commit::MAX)?;
        Window::ending_at(divisor, last, level)
    }

    /// The window of the level that ends at `last`; `None` where `last` is not a boundary of the level.
    pub fn ending_at(divisor: Divisor, last: Commit, level: Level) -> Option<Window> {
        (last > Commit::ZERO && divisor.aligned(last, level))
            .then(|| Window { span: Span::new(Commit(last.0 - divisor.pow(level)), last), level })
    }

    /// The window of the level that holds the commit (1 or later, of a level up to [`Divisor::level_max`]).
    pub fn containing(divisor: Divisor, commit: Commit, level: Level) -> Window {
        debug_assert!(commit > Commit::ZERO, "no window holds commit 0");
        debug_assert!(level <= divisor.level_max());
        let after = divisor.floor(Commit(commit.0.saturating_sub(1)), level);
        Window { span: Span::new(after, Commit(after.0.saturating_add(divisor.pow(level)))), level }
    }

    /// Its commits.
    pub fn span(self) -> Span {
        self.span
    }

    /// The commit just before it: the end of the window before.
    pub fn after(self) -> Commit {
        self.span.after
    }

    /// Its last commit, a boundary of its level.
    pub fn last(self) -> Commit {
        self.span.last
    }

    /// Its level.
    pub fn level(self) -> Level {
        self.level
    }

    /// Its number within its level, from 1.
    pub fn index(self) -> u64 {
        self.last().0 / self.span.count()
    }

    /// Whether the commit is one of it.
    pub fn contains(self, commit: Commit) -> bool {
        self.span.contains(commit)
    }

    /// The window one level up that it is a part of.
    #[must_use]
    pub fn parent(self, divisor: Divisor) -> Window {
        Window::containing(divisor, self.last(), self.level.above())
    }

    /// The windows one level down that make it up, oldest first; none at level 0.
    pub fn children(self, divisor: Divisor) -> impl Iterator<Item = Window> {
        let below = self.level.0.checked_sub(1).map(Level);
        below.into_iter().flat_map(move |level| {
            let step = divisor.pow(level);
            (0..u64::from(divisor.get())).map(move |k| {
                let after = Commit(self.after().0 + k * step);
                Window { span: Span::new(after, Commit(after.0 + step)), level }
            })
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of level {}", self.span, self.level)
    }
}
