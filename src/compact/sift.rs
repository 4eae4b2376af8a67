//! Which of the merged versions are kept: the rule of retention, applied entry by entry.
//!
//! Entries come newest first within a key, and whether a version is kept depends on it and the next newer one
//! only ([`KeepRule::keeps`]); so nothing is gathered. The one look ahead is at the bottom of a shard, where a
//! delete that hides nothing goes: kept deletes are held back, by their commits, until an older put is kept.
//! [`KeyFold`](crate::levels::KeyFold) says the same over all versions of a key at once, and the tests hold the
//! two against each other.

use super::dead::Dead;
use crate::codec::{KeyBuffer, same_key};
use crate::entry::{DirectoryId, Entry};
use crate::levels::{Commit, KeepRule};

/// See the module's text.
pub(crate) struct Sift {
    rule: KeepRule,
    bottom: bool,
    newest_only: bool,

    // The key at hand.
    directory: DirectoryId,
    key: KeyBuffer,
    /// The next newer version of it, kept or not; `None` before its first.
    newer: Option<Commit>,
    /// Its kept deletes that nothing older is known for, newest first; at the bottom only.
    held: Vec<Commit>,
}

impl Sift {
    /// A sift by a rule; `bottom` where nothing is older than what is merged.
    pub(crate) fn new(rule: KeepRule, bottom: bool) -> Self {
        Sift {
            newest_only: rule.newest_only(),
            rule,
            bottom,
            directory: DirectoryId(u64::MAX),
            key: KeyBuffer::default(),
            newer: None,
            held: Vec::new(),
        }
    }

    /// Takes the next entry of the merge; calls `keep` with what is decided to be kept by it, in order.
    #[inline]
    pub(crate) fn push(&mut self, entry: &Entry<'_>, dead: &Dead, mut keep: impl FnMut(&Entry<'_>)) {
        let same = self.is_at(entry);
        if same && self.newest_only {
            return;
        }
        if !same {
            self.held.clear();
            self.newer = None;
            self.directory = entry.directory;
            self.key.set(0, entry.key);
        }
        let newer = self.newer.replace(entry.commit);
        if !self.keeps(entry, newer, dead) {
            return;
        }
        if !self.bottom {
            return keep(entry);
        }
        if entry.value.is_none() {
            return self.held.push(entry.commit);
        }
        for commit in self.held.drain(..) {
            keep(&Entry { commit, value: None, ..*entry });
        }
        keep(entry);
    }

    /// Whether the entry is of the key that was pushed last.
    #[inline]
    pub(crate) fn is_at(&self, entry: &Entry<'_>) -> bool {
        self.newer.is_some() && self.directory == entry.directory && same_key(self.key.get(), entry.key)
    }

    #[inline]
    fn keeps(&self, entry: &Entry<'_>, newer: Option<Commit>, dead: &Dead) -> bool {
        let drop = match entry.directory {
            DirectoryId::DROPS => Some(entry.commit),
            directory => dead.dropped(directory, entry.key).filter(|&drop| entry.commit <= drop),
        };
        if entry.directory < DirectoryId::FIRST_FREE {
            // What tells of the dead goes with the last of them: at the bottom, when nothing from before the drop can
            // be read any more. Until then all of it is needed, as it was.
            let gone = |drop| self.bottom && !self.rule.keeps(Commit::ZERO, Some(drop));
            return !drop.is_some_and(gone)
                && (entry.directory == DirectoryId::DROPS || self.rule.keeps(entry.commit, newer));
        }
        let hidden_from = match (newer, drop) {
            (Some(newer), Some(drop)) => Some(newer.min(drop)),
            (newer, drop) => newer.or(drop),
        };
        self.rule.keeps(entry.commit, hidden_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::{Divisor, History, KeyFold, Level, Retention, Version};
    use proptest::prelude::*;

    proptest! {
        /// Entry by entry or all at once: the same versions are kept.
        #[test]
        fn it_keeps_what_the_fold_of_a_key_keeps(
            commits in proptest::collection::btree_map(1u64..64, any::<bool>(), 1..40),
            retention in prop_oneof![
                Just(Retention::None),
                Just(Retention::Forever),
                (1u64..40).prop_map(Retention::Last),
                (0u8..4).prop_map(|level| Retention::Level(Level(level))),
                ((1u64..40), (0u8..4)).prop_map(|(last, level)| Retention::LastAndLevel(last, Level(level))),
            ],
            bottom: bool,
        ) {
            let divisor = Divisor::new(4).unwrap();
            let rule = History::new(retention).keep_rule(divisor, Commit(64));
            let versions: Vec<Version> = commits
                .iter()
                .rev()
                .map(|(&commit, &tombstone)| Version { commit: Commit(commit), tombstone })
                .collect();
            let mut positions = Vec::new();
            KeyFold::new(rule.clone(), bottom).fold(&versions, None, &mut positions);
            let expected: Vec<Commit> = positions.iter().map(|&at| versions[at].commit).collect();

            let mut kept = Vec::new();
            let mut sift = Sift::new(rule, bottom);
            for version in &versions {
                let entry = Entry {
                    directory: DirectoryId::FIRST_FREE,
                    key: b"key",
                    commit: version.commit,
                    value: (!version.tombstone).then_some(b"value"),
                };
                sift.push(&entry, &Dead::default(), |entry| kept.push(entry.commit));
            }
            prop_assert_eq!(kept, expected);
        }
    }
}
