//! Which versions of a key a merge keeps.
//!
//! 1. A version made at commit c is what reads at c, c+1, … see, until the next newer version, at c', hides it.
//! 2. It is kept where one of those commits is retained *as of the merge's last commit*: some r with
//!    `c <= r < c'`. The newest version has no c' and is always kept: later commits read it.
//! 3. A directory's drop at commit d hides what it held from d on, as a newer version at d would.
//! 4. Where nothing is older than the merge, an oldest version that is a tombstone hides nothing, and goes.
//!
//! Promise: merging level by level keeps exactly what merging all raw versions at once keeps. It holds because
//! what is let go is never retained again ([`History`]): let c' be dropped before c meets it. Then no
//! commit retained later lies between c' and c'' (the next newer), so asking "c <= r < c''" of c
//! later is the same as asking "c <= r < c'". Likewise a tombstone dropped as the oldest has no put
//! older than it then, so none later.

use super::number::{Commit, Divisor};
use super::retention::History;

/// One version of a key, as far as keeping it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The commit that made it.
    pub commit: Commit,
    /// Whether it is a delete.
    pub tombstone: bool,
}

/// Which versions a merge keeps; made once a merge, asked once an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeepRule {
    /// The merge's last commit.
    window_end: u64,
    /// Every commit from here to the merge's end is retained.
    last_since: u64,
    /// From `.0` on, every multiple of `.1` is retained. Mostly none or one.
    multiples: Vec<(u64, u64)>,
}

impl KeepRule {
    pub(super) fn new(history: &History, divisor: Divisor, window_end: Commit) -> KeepRule {
        let parts = history.aligned.iter().filter(|part| part.from <= window_end);
        KeepRule {
            window_end: window_end.0,
            last_since: history.last_since(window_end).0,
            multiples: parts.map(|part| (part.from.0, divisor.pow(part.level))).collect(),
        }
    }

    /// Whether only the newest version of each key is kept.
    pub fn newest_only(&self) -> bool {
        self.last_since >= self.window_end && self.multiples.is_empty()
    }

    /// Whether to keep the version made at `commit`; `newer` made the next newer version of the key in the same
    /// merge (kept or not: by the promise above, both give the same answer).
    #[inline]
    pub fn keeps(&self, commit: Commit, newer: Option<Commit>) -> bool {
        let Some(Commit(newer)) = newer else { return true };
        if newer <= commit.0 {
            return false; // Dropped with its directory by the very commit that made it: never seen.
        }
        // The last commit that reads this version is `newer - 1`; look for the last retained one up to it.
        let last_read = newer - 1;
        last_read >= self.last_since
            || self.multiples.iter().any(|&(from, step)| last_read - last_read % step >= from.max(commit.0))
    }
}

/// Decides over all versions of one key that a merge brings together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFold {
    rule: KeepRule,
    bottom: bool,
}

impl KeyFold {
    /// `bottom`: nothing older than the merge exists ([`Carry::is_bottom`](super::Carry::is_bottom)).
    pub fn new(rule: KeepRule, bottom: bool) -> KeyFold {
        KeyFold { rule, bottom }
    }

    /// The versions to keep out of `versions` (newest first, one a commit): their positions, into `kept`,
    /// which is emptied first. `dropped` is the commit that dropped the key's directory, if the merge knows
    /// of one; a drop after the merge's last commit changes nothing.
    pub fn fold(&self, versions: &[Version], dropped: Option<Commit>, kept: &mut Vec<usize>) {
        debug_assert!(versions.is_sorted_by(|newer, older| newer.commit > older.commit));
        kept.clear();
        if let ([only], None) = (versions, dropped) {
            // Most keys have one version.
            if !(self.bottom && only.tombstone) {
                kept.push(0);
            }
            return;
        }
        let mut newer: Option<Commit> = None;
        for (position, version) in versions.iter().enumerate() {
            let drop = dropped.filter(|&drop| version.commit <= drop);
            let hidden_from = match (newer, drop) {
                (Some(newer), Some(drop)) => Some(newer.min(drop)),
                (newer, drop) => newer.or(drop),
            };
            if self.rule.keeps(version.commit, hidden_from) {
                kept.push(position);
            }
            newer = Some(version.commit);
        }
        if self.bottom {
            while kept.last().is_some_and(|&position| versions[position].tombstone) {
                kept.pop();
            }
        }
    }
}
