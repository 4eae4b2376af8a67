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
//!
//! And inserting a few at once, for a table that is read between: [`Memtable::insert_late`] keeps up to [`TOGETHER_MAX`] entries
//! aside, and [`Memtable::catch_up`] puts them in. All of them go down the tree a level at a time, so that the core fetches
//! the nodes of many while it would wait for those of one. So do the keys of [`Memtable::get_each`].
//!
//! A key that is written again and again would fill the table with versions that nobody can read any more. So an entry that
//! comes late may take the place of the version before it, and mostly its memory, where the caller knows that nobody sees that.

use super::Memtable;
use super::arena::{Arena, Locator};
use super::node::{NodeId, eight_bytes};
use crate::entry::{DirectoryId, Entry};
use crate::levels::Commit;

/// Runs up to this long are sorted by comparing entries.
const RUN_SHORT: usize = 24;
/// The most records that are kept aside, or keys that are searched for together: enough to keep the core's line fill
/// buffers busy.
const TOGETHER_MAX: usize = 16;
/// The longest key and value that are kept aside: they are copied twice.
const ASIDE_BYTES_MAX: usize = 4096;
/// The part of a key that a pass sorts by.
const PART_BYTES: usize = 8;

/// A record that is not in the tree yet.
pub(super) struct Staged {
    directory: DirectoryId,
    /// The bytes of the key that this pass sorts by, big endian; zeros stand for missing ones.
    part: u64,
    record: Locator,
}

/// An entry that is kept aside.
pub(super) struct Late {
    directory: DirectoryId,
    commit: Commit,
    /// Versions of the key made after this commit are seen by nobody once this one is there.
    unseen_after: Option<Commit>,
    /// Where the key begins; the value follows.
    at: usize,
    key_len: usize,
    value_len: Option<usize>,
}

impl Late {
    #[inline]
    fn entry<'a>(&self, aside: &'a [u8]) -> Entry<'a> {
        let (key, rest) = aside[self.at..].split_at(self.key_len);
        let value = self.value_len.map(|len| &rest[..len]);
        Entry { directory: self.directory, key, commit: self.commit, value }
    }
}

impl Memtable {
    /// Adds a version of a key, as [`Memtable::insert`] does; it is to be seen only after [`Memtable::catch_up`], or
    /// after so many others that it goes in with them.
    ///
    /// The newest version of the key that the table has is *superseded* by it, and may go, if it was made after the commit
    /// `unseen_after`. The caller promises that nobody reads, now or later, as of a commit from that version's to the one before
    /// this.
    pub fn insert_late(&mut self, entry: &Entry<'_>, unseen_after: Option<Commit>) {
        let &Entry { directory, key, commit, value } = entry;
        let value_bytes = value.unwrap_or_default();
        if key.len() + value_bytes.len() > ASIDE_BYTES_MAX {
            self.catch_up();
            self.insert(directory, key, commit, value);
            return;
        }
        if self.late.is_empty() && self.is_behind_all(entry) {
            let record = self.arena.push(entry);
            return self.place(record);
        }
        let (at, key_len, value_len) = (self.aside.len(), key.len(), value.map(<[u8]>::len));
        self.aside.extend_from_slice(key);
        self.aside.extend_from_slice(value_bytes);
        self.late.push(Late { directory, commit, unseen_after, at, key_len, value_len });
        if self.late.len() == TOGETHER_MAX {
            self.catch_up();
        }
    }

    /// As [`Memtable::get`], for several keys: tells what it finds, with the key's place among them.
    pub fn get_each<'a, 'k, K: 'k>(
        &'a self,
        keys: &'k [K],
        key_of: impl Fn(&'k K) -> (DirectoryId, &'k [u8]),
        at: Commit,
        mut tell: impl FnMut(usize, Entry<'a>),
    ) {
        for (chunk, keys) in keys.chunks(TOGETHER_MAX).enumerate() {
            let probe = |key| {
                let (directory, key) = key_of(key);
                Entry { directory, key, commit: at, value: None }
            };
            let mut leaves = [self.root; TOGETHER_MAX];
            let leaves = &mut leaves[..keys.len()];
            for _ in 0..self.depth {
                for (node, key) in leaves.iter_mut().zip(keys) {
                    *node = self.child_of(*node, &probe(key));
                }
            }
            self.touch_leaves(leaves);
            for (number, (&leaf, key)) in leaves.iter().zip(keys).enumerate() {
                if let Some(entry) = self.get_in(leaf, &probe(key)) {
                    tell(chunk * TOGETHER_MAX + number, entry);
                }
            }
        }
    }

    /// Fetches what a search in leaves looks at into the core's cache.
    fn touch_leaves(&self, leaves: &[NodeId]) {
        let touched = leaves.iter().fold(0, |sum, &leaf| sum ^ self.leaves[leaf].slots.touch());
        std::hint::black_box(touched);
    }

    /// Whether entries are kept aside.
    #[inline]
    pub fn lags(&self) -> bool {
        !self.late.is_empty()
    }

    /// Puts in what was kept aside.
    pub fn catch_up(&mut self) {
        let (mut late, mut aside) = (std::mem::take(&mut self.late), std::mem::take(&mut self.aside));
        let mut leaves = [self.root; TOGETHER_MAX];
        let leaves = &mut leaves[..late.len().min(TOGETHER_MAX)];
        for _ in 0..self.depth {
            for (node, late) in leaves.iter_mut().zip(&late) {
                *node = self.child_of(*node, &late.entry(&aside));
            }
        }
        self.touch_leaves(leaves);
        // A split changes what lies where: those behind it are looked for anew.
        let before = self.leaves.len();
        for (&leaf, late) in leaves.iter().zip(&late) {
            let entry = late.entry(&aside);
            let leaf = if self.leaves.len() == before { leaf } else { self.descend(&entry, |_, _| {}) };
            self.place_in(leaf, &entry, late.unseen_after);
        }
        late.clear();
        aside.clear();
        (self.late, self.aside) = (late, aside);
    }

    /// Puts an entry in the leaf that it belongs to.
    #[inline]
    fn place_in(&mut self, leaf: NodeId, entry: &Entry<'_>, unseen_after: Option<Commit>) {
        let slots = &mut self.leaves[leaf].slots;
        let (at, present) = slots.find(&self.arena, entry);
        if let Some(seen) = unseen_after.filter(|_| !present)
            && let Some(&older) = slots.records().get(at)
            && !slots.is_of_other_key(at, entry)
        {
            // Whoever has a position in it passes over it, whether it says the older commit or the newer one.
            let old = self.arena.entry(older);
            let weight = old.weight();
            if old.commit > seen
                && (old.directory, old.key) == (entry.directory, entry.key)
                && self.arena.overwrite(older, entry.commit, entry.value)
            {
                self.weight = self.weight - weight + entry.weight();
                return;
            }
        }
        let record = self.arena.push(entry);
        if present {
            self.replace(leaf, at, record);
        } else if slots.is_full() {
            self.place(record);
        } else {
            slots.insert(&self.arena, at, record);
            self.leaves[leaf].latest = at as u32;
            self.entries += 1;
            self.weight += entry.weight();
        }
    }

    /// Takes up a version of a key, as [`Memtable::insert`] does; it is to be seen only after
    /// [`Memtable::settle`].
    pub fn stage(&mut self, directory: DirectoryId, key: &[u8], commit: Commit, value: Option<&[u8]>) {
        let record = self.arena.push(&Entry { directory, key, commit, value });
        self.staged.push(Staged { directory, part: eight_bytes(key), record });
    }

    /// Puts in all that was staged or kept aside, and gives back the memory that both took.
    pub fn settle(&mut self) {
        self.catch_up();
        (self.late, self.aside) = (Vec::new(), Vec::new());
        let mut staged = std::mem::take(&mut self.staged);
        staged.sort_by_key(|staged| (staged.directory, staged.part));
        for run in staged.chunk_by_mut(|a, b| (a.directory, a.part) == (b.directory, b.part)) {
            sort_run(&self.arena, run, PART_BYTES);
        }
        // Neighbours in order lie wherever they were staged: fetched together, they cost about as much as one.
        for some in staged.chunks(TOGETHER_MAX) {
            let touched = some.iter().fold(0, |sum, staged| sum ^ self.arena.touch(staged.record));
            std::hint::black_box(touched);
            some.iter().for_each(|staged| self.place(staged.record));
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
