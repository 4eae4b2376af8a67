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

use crate::entry::DirectoryId;
use crate::error::Result;
use crate::levels::Commit;
use crate::memtable::Place;
use crate::read::merge::Merge;
use std::collections::BTreeMap;

/// The dead directories of a merge, and the commits that dropped them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Dead {
    drops: BTreeMap<DirectoryId, Commit>,
}

impl Dead {
    /// Finds them in the inputs, which `merge` walks.
    pub(crate) async fn find(merge: &mut Merge) -> Result<Self> {
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
            dead.drops.insert(id, commit);
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
        self.drops.get(&owner).copied()
    }

    /// Whether a directory between two numbers (`high` excluded) is dead; the catalog's keys count as their
    /// parents'.
    pub(crate) fn touches(&self, low: (DirectoryId, &[u8]), high: Option<(DirectoryId, &[u8])>) -> bool {
        if self.drops.is_empty() {
            return false;
        }
        // What lies in the engine's own directories may belong to any.
        if low.0 < DirectoryId::FIRST_FREE {
            return true;
        }
        self.drops.range(low.0..).next().is_some_and(|(id, _)| high.is_none_or(|high| *id <= high.0))
    }
}
