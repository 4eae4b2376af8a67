//! The cache of paths: which directory a path leads to, without a look at the catalog.
//!
//! The catalog itself is data like any other, in [`DirectoryId::CATALOG`]: (parent's number, name) → number.
//! The cache maps whole paths (and those of all directories above) to numbers, or to "there is none".
//!
//! What keeps it right: all of a shard's commits pass it. A commit that makes a directory binds its path; one
//! that renames or drops begins a new *epoch*, in which all older bindings are void. A binding read from the
//! catalog is added only where no commit was sequenced while it was read.

use crate::entry::DirectoryId;
use crate::levels::Commit;
use crate::path::{Name, hash_of};
use hashbrown::HashTable;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most paths cached on one shard; beyond, those not used lately go.
pub(crate) const PATHS_CACHED_MAX: usize = 128 * 1024;

struct Binding {
    hash: u64,
    path: Box<str>,
    id: Option<DirectoryId>,
    /// The path led there at this commit, and at each since.
    since: Commit,
    epoch: u64,
    used: bool,
}

/// What the cache knows of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// It leads to a directory.
    Is(DirectoryId),
    /// It leads nowhere.
    Absent,
    /// The catalog has to be asked.
    Unknown,
}

/// See the module's text.
pub(crate) struct Catalog {
    table: HashTable<Binding>,
    /// Never 0: a [`Name`] of which nothing was noted has that.
    epoch: u64,
}

/// An epoch that no catalog of this process has had, of whatever shard, engine or opening: names remember what
/// they led to by epoch, and may outlive an opening.
fn next_epoch() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog { table: HashTable::new(), epoch: next_epoch() }
    }
}

impl Catalog {
    /// The epoch: within one, a name that leads to a directory leads there.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is known of a path as of the newest commit.
    #[inline]
    pub(crate) fn look(&mut self, path: &str, hash: u64) -> Known {
        self.look_at(path, hash, Commit::MAX)
    }

    /// [`look`](Catalog::look) for a name. Where it leads to a directory, the name itself remembers that for the
    /// rest of the epoch: within one, a path once bound stays bound.
    #[inline]
    pub(crate) fn look_name(&mut self, name: &Name) -> Known {
        if let Some(id) = name.known(self.epoch) {
            return Known::Is(DirectoryId(id));
        }
        let known = self.look(name.path(), name.hash());
        if let Known::Is(id) = known {
            name.note(id.0, self.epoch);
        }
        known
    }

    /// What is known of a name as of a commit, where `newest` says that nothing was sequenced since.
    #[inline]
    pub(crate) fn look_name_at(&mut self, name: &Name, at: Commit, newest: bool) -> Known {
        if newest { self.look_name(name) } else { self.look_at(name.path(), name.hash(), at) }
    }

    /// What is known of a path as of a commit.
    pub(crate) fn look_at(&mut self, path: &str, hash: u64, at: Commit) -> Known {
        let epoch = self.epoch;
        let found = self.table.find_mut(hash, |binding| binding.hash == hash && *binding.path == *path);
        match found {
            Some(binding) if binding.epoch == epoch && binding.since <= at => {
                binding.used = true;
                binding.id.map_or(Known::Absent, Known::Is)
            }
            _ => Known::Unknown,
        }
    }

    /// Binds a path to a directory, or to none, from a commit on.
    pub(crate) fn bind(&mut self, path: &str, id: Option<DirectoryId>, since: Commit) {
        let hash = hash_of(path);
        let epoch = self.epoch;
        match self.table.find_mut(hash, |binding| binding.hash == hash && *binding.path == *path) {
            Some(binding) if binding.epoch == epoch && binding.id == id => {
                binding.since = binding.since.min(since)
            }
            Some(binding) => {
                (binding.id, binding.since, binding.epoch, binding.used) = (id, since, epoch, true)
            }
            None => {
                self.make_room();
                let binding = Binding { hash, path: path.into(), id, since, epoch, used: true };
                self.table.insert_unique(hash, binding, |binding| binding.hash);
            }
        }
    }

    /// A rename or a drop: nothing known holds any longer.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch = next_epoch();
    }

    /// How many paths are cached.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Drops what was not used since the last time; where that is not enough, everything.
    fn make_room(&mut self) {
        if self.table.len() < PATHS_CACHED_MAX {
            return;
        }
        let epoch = self.epoch;
        self.table.retain(|binding| binding.epoch == epoch && std::mem::take(&mut binding.used));
        if self.table.len() > PATHS_CACHED_MAX / 2 {
            self.table.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_hold_from_their_commit_to_the_end_of_their_epoch() {
        let mut catalog = Catalog::default();
        let look = |catalog: &mut Catalog, at| catalog.look_at("a/b", hash_of("a/b"), Commit(at));
        assert_eq!(look(&mut catalog, 9), Known::Unknown);
        catalog.bind("a/b", None, Commit(3));
        assert_eq!(look(&mut catalog, 9), Known::Absent);
        catalog.bind("a/b", Some(DirectoryId(77)), Commit(5));
        assert_eq!(look(&mut catalog, 5), Known::Is(DirectoryId(77)));
        assert_eq!(look(&mut catalog, 4), Known::Unknown);
        catalog.begin_epoch();
        assert_eq!(look(&mut catalog, 9), Known::Unknown);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut catalog = Catalog::default();
        for number in 0..PATHS_CACHED_MAX as u64 * 3 {
            catalog.bind(&format!("d{number}"), Some(DirectoryId(number)), Commit(1));
            assert!(catalog.len() <= PATHS_CACHED_MAX);
        }
    }
}
