//! Dropped directories: which entries of a merge nobody can reach any more.
//!
//! A drop leaves two things: a delete in the catalog, so that the path leads nowhere, and an entry in
//! [`DirectoryId::DROPS`] with the directory's number. A merge looks up the drops among its inputs, and goes down from
//! each through the catalog to the directories below it, as the inputs have them. What it does not find (a
//! child whose catalog entry lies in an older segment) is found by a later merge that takes both; at the
//! bottom nothing is missing.
//!
//! That walk needs the catalog entries under a dropped directory and the drop itself, in every merge until the fold
//! that takes the drop in is over, and again when it is resumed. So these entries outlive the data: a drop is
//! *spent* once a fold before the present one has taken it in and no retained commit is older, and only then they go.

use crate::entry::DirectoryId;
use crate::error::Result;
use crate::levels::{Commit, KeepRule};
use crate::memtable::Place;
use crate::read::merge::Merge;
use std::collections::BTreeMap;

/// The dead directories of a merge.
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
    /// All that it killed is gone.
    spent: bool,
}

/// What a fold knows of those before it.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    /// The commit up to which the base was folded before.
    pub(crate) from: Commit,
    /// The rule of that fold, and of this one.
    pub(crate) before: KeepRule,
    pub(crate) now: KeepRule,
}

impl Earlier {
    fn drop_at(&self, commit: Commit) -> Drop {
        // What was dropped may be read as of before while a retained commit is older than the drop.
        let kept = |rule: &KeepRule| rule.keeps(Commit::ZERO, Some(commit));
        let taken = commit <= self.from;
        let (kept_before, kept_now) = (kept(&self.before), kept(&self.now));
        Drop {
            commit,
            fresh: !taken || (kept_before && !kept_now),
            spent: taken && !kept_before && !kept_now,
        }
    }
}

impl Dead {
    /// Finds them in the inputs, which `merge` walks.
    pub(crate) async fn find(merge: &mut Merge, earlier: Option<&Earlier>) -> Result<Self> {
        let mut dead = Dead::default();
        merge.seek(Place::DirectoryStart(DirectoryId::DROPS)).await?;
        let mut below = Vec::new();
        while let Some(entry) = merge.entry().filter(|entry| entry.directory == DirectoryId::DROPS) {
            if let Ok(number) = <[u8; 8]>::try_from(entry.key) {
                let id = DirectoryId(u64::from_be_bytes(number));
                below.push((id, entry.commit));
            }
            merge.advance().await?;
        }
        while let Some((id, commit)) = below.pop() {
            if dead.drops.contains_key(&id) {
                continue;
            }
            let window = Drop { commit, fresh: true, spent: false };
            dead.drops.insert(id, earlier.map_or(window, |earlier| earlier.drop_at(commit)));
            // Its children at the time of the drop: of each name the newest version that is not newer.
            let parent = id.0.to_be_bytes();
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
            }
        }
        Ok(dead)
    }

    /// The commit that dropped the directory of an entry.
    #[inline]
    pub(crate) fn dropped(&self, directory: DirectoryId) -> Option<Commit> {
        if self.drops.is_empty() {
            return None;
        }
        self.drops.get(&directory).map(|drop| drop.commit)
    }

    /// Whether an entry of the catalog (which belongs to the parent that its key begins with) or of the drops (which
    /// is named by its key) is of a directory whose drop is spent.
    pub(crate) fn is_spent(&self, key: &[u8]) -> bool {
        let Some(id) = key.first_chunk().map(|id| DirectoryId(u64::from_be_bytes(*id))) else { return false };
        self.drops.get(&id).is_some_and(|drop| drop.spent)
    }

    /// Whether a range of entries (`high` excluded) has to be looked through because of a drop.
    pub(crate) fn touches(&self, low: DirectoryId, high: Option<(DirectoryId, &[u8])>) -> bool {
        let mut fresh = self.drops.range(low..).filter(|(_, drop)| drop.fresh);
        fresh.next().is_some_and(|(id, _)| high.is_none_or(|high| *id <= high.0))
    }
}
