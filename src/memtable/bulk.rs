//! Loading many entries at once, as the replay of a log does: taken up as they come, sorted once, then appended.
//!
//! An insert into a large tree waits for memory at every level. A sort by the first bytes of keys mostly works on
//! a dense array instead:
//!
//! 1. Each staged record has its directory and eight bytes of its key beside it; a stable sort orders by those.
//! 2. A long run that they do not tell apart is sorted by its keys' next eight bytes, and so on (a multikey
//!    quicksort that caches eight bytes: Ng and Kakehi, "Cache Efficient Radix Sort for String Sorting", 2007).
//! 3. A short run is sorted by comparing entries. Since each sort is stable, of two that are equal the one
//!    that was staged later comes later, and that is the one that counts.

use super::Memtable;
use super::arena::{Arena, Locator};
use super::node::eight_bytes;
use crate::entry::{DirectoryId, Entry};
use crate::levels::Commit;

/// Runs up to this long are sorted by comparing entries.
const RUN_SHORT: usize = 24;
/// The part of a key that a pass sorts by.
const PART_BYTES: usize = 8;

/// A record that is not in the tree yet.
pub(super) struct Staged {
    directory: DirectoryId,
    /// The bytes of the key that this pass sorts by, big endian; zeros stand for missing ones.
    part: u64,
    record: Locator,
}

impl Memtable {
    /// Takes up a version of a key, as [`Memtable::insert`] does; it is to be seen only after
    /// [`Memtable::settle`].
    pub fn stage(&mut self, directory: DirectoryId, key: &[u8], commit: Commit, value: Option<&[u8]>) {
        let record = self.arena.push(&Entry { directory, key, commit, value });
        self.staged.push(Staged { directory, part: eight_bytes(key), record });
    }

    /// Puts in all that was staged.
    pub fn settle(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        staged.sort_by_key(|staged| (staged.directory, staged.part));
        for run in staged.chunk_by_mut(|a, b| (a.directory, a.part) == (b.directory, b.part)) {
            sort_run(&self.arena, run, PART_BYTES);
        }
        for staged in staged {
            self.place(staged.record);
        }
    }
}

/// Sorts entries of one directory whose keys share their first `depth` bytes, missing ones counted as zeros.
fn sort_run(arena: &Arena, run: &mut [Staged], depth: usize) {
    if run.len() <= RUN_SHORT || run.iter().all(|staged| arena.entry(staged.record).key.len() <= depth) {
        run.sort_by(|a, b| arena.entry(a.record).order(&arena.entry(b.record)));
        return;
    }
    for staged in run.iter_mut() {
        let key = arena.entry(staged.record).key;
        staged.part = eight_bytes(key.get(depth..).unwrap_or_default());
    }
    run.sort_by_key(|staged| staged.part);
    for run in run.chunk_by_mut(|a, b| a.part == b.part) {
        sort_run(arena, run, depth + PART_BYTES);
    }
}
