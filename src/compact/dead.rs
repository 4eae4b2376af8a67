//! Dropped directories: which entries of a merge nobody can reach any more.
//!
//! A drop leaves two things: a delete in the catalog, so that the path leads nowhere, and an entry in
//! [`DirectoryId::DROPS`] with the directory's number. A merge looks up the drops among its inputs, and goes down from
//! each through the catalog to the directories below it, as the inputs have them. What it does not find (a
//! child whose catalog entry lies in an older segment) is found by a later merge that takes both; at the
//! bottom nothing is missing.
//!
//! So the drops, and the catalog entries of dropped directories, must stay until the bottom, deletes among them: what
//! was moved out of a directory before that was dropped is alive, and what was moved into it may have entries
//! that are older than all of the merge. [`super::sift`] sees to that.

use super::Throttle;
use crate::entry::DirectoryId;
use crate::error::Result;
use crate::levels::{Commit, KeepRule};
use crate::memtable::Place;
use crate::read::merge::Merge;
use std::collections::BTreeMap;

/// The dead directories of a merge, and the commits that dropped them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Dead {
    drops: BTreeMap<DirectoryId, Drop>,
}

/// A drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Drop {
    commit: Commit,
    /// This merge is the first that may let go of entries because of it.
    fresh: bool,
}

/// What a fold knows of the one before it.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    /// The commit up to which it folded.
    pub(crate) from: Commit,
    /// Its rule, and that of the present one.
    pub(crate) before: KeepRule,
    pub(crate) now: KeepRule,
}

impl Earlier {
    /// Whether a drop kills something that it did not kill in the fold before: because it is new, or because
    /// nothing from before it can be read as of any more.
    fn is_fresh(&self, drop: Commit) -> bool {
        let kept = |rule: &KeepRule| rule.keeps(Commit::ZERO, Some(drop));
        drop > self.from || (kept(&self.before) && !kept(&self.now))
    }
}

impl Dead {
    /// Finds them in the inputs, which `merge` walks.
    pub(crate) async fn find(
        merge: &mut Merge,
        earlier: Option<&Earlier>,
        throttle: &Throttle,
    ) -> Result<Self> {
        let mut dead = Dead::default();
        merge.seek(Place::DirectoryStart(DirectoryId::DROPS)).await?;
        let mut below = Vec::new();
        while let Some(entry) = merge.entry().filter(|entry| entry.directory == DirectoryId::DROPS) {
            if let Ok(number) = <[u8; 8]>::try_from(entry.key) {
                let id = DirectoryId(u64::from_be_bytes(number));
                below.push((id, entry.commit));
            }
            merge.advance().await?;
            throttle.look().await;
        }
        while let Some((id, commit)) = below.pop() {
            if dead.drops.contains_key(&id) {
                continue;
            }
            let fresh = earlier.is_none_or(|earlier| earlier.is_fresh(commit));
            dead.drops.insert(id, Drop { commit, fresh });
            // Its children at the time of the drop: of each name the newest version that is not newer.
            let parent = id.0.to_be_bytes();
            throttle.look().await;
            merge.seek(Place::Before(DirectoryId::CATALOG, &parent)).await?;
            let mut last = Vec::new();
            while let Some(entry) = merge.entry() {
                if entry.directory != DirectoryId::CATALOG || !entry.key.starts_with(&parent) {
                    break;
                }
                if entry.commit <= commit && last != entry.key {
                    last = entry.key.to_vec();
                    if let Some(child) = entry.value.and_then(|value| value.try_into().ok()) {
                        below.push((DirectoryId(u64::from_be_bytes(child)), commit));
                    }
                }
                merge.advance().await?;
                throttle.look().await;
            }
        }
        Ok(dead)
    }

    /// The commit that dropped what an entry belongs to. A catalog entry belongs to its parent, a drop to
    /// itself.
    pub(crate) fn dropped(&self, directory: DirectoryId, key: &[u8]) -> Option<Commit> {
        if self.drops.is_empty() {
            return None;
        }
        let owner = match directory {
            DirectoryId::CATALOG => DirectoryId(u64::from_be_bytes(*key.first_chunk()?)),
            other => other,
        };
        self.drops.get(&owner).map(|drop| drop.commit)
    }

    /// Whether a range of entries (`high` excluded) has to be looked through because of a drop. Anything in the
    /// engine's own directories may be of any.
    pub(crate) fn touches(&self, low: DirectoryId, high: Option<(DirectoryId, &[u8])>) -> bool {
        let low = if low < DirectoryId::FIRST_FREE { DirectoryId(0) } else { low };
        let own = low < DirectoryId::FIRST_FREE;
        let mut fresh = self.drops.range(low..).filter(|(_, drop)| drop.fresh);
        fresh.next().is_some_and(|(id, _)| own || high.is_none_or(|high| *id <= high.0))
    }
}
