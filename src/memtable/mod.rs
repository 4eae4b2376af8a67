//! The memtable: one flush window's entries in memory, in the one order of entries.
//!
//! Each commit's operations are inserted as they are sequenced; reads and scans look here first; when the
//! window closes, the carry reads the table from start to end and the table is dropped as a whole. It lives on
//! its shard's thread and is shared there (`Rc<RefCell<Memtable>>`), so nothing here locks.
//!
//! How it works:
//!
//! 1. An insert copies the entry to an append-only arena (`arena`): a record never moves or goes away. But one that nobody reads any
//!    more may become that of the next version of its key ([`Memtable::insert_late`]), so that a key that is written again and
//!    again takes the memory of one, and the carry finds it once.
//! 2. A B+tree (`node`) keeps the records' locators in order. It is insert-only, so its nodes live in a pool,
//!    refer to each other by number, and are never freed or merged; leaves are linked both ways.
//! 3. Beside each locator a node holds the record's directory and the part of its key that tells the node's
//!    keys apart, so that most comparisons never touch the arena.
//! 4. A [`Position`] names a slot *and* the record in it. Inserts move slots, never records: a position whose
//!    slot no longer holds its record is found again by the record's key. So a scan may be left for as long
//!    as the table lives, borrows nothing, and pays for a search only where its leaf has changed.
//! 5. The replay of a log, of which nobody reads before its end, stages entries and sorts them once (`bulk`).
//!
//! Promises: an insert costs a search and moves at most one node's slots, a split now and then more, and never
//! anything in proportion to the table. Runs of neighbouring inserts (a bulk load, a log's keys, a hot
//! key's versions) leave full leaves behind. The shape, like [`Memtable::memory`], depends on nothing but the
//! inserts, what they were told of readers, and when the table caught up.

mod arena;
mod bulk;
mod node;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

pub use crate::entry::{DirectoryId, Entry};
use crate::levels::Commit;
use arena::{Arena, Locator};
use bulk::{Late, Staged};
use node::{Inner, Leaf, NO_NODE, NodeId, Pool, SLOTS, Slots};
use std::fmt;

/// A leaf's `latest` when nothing was inserted since it was split off: next to no slot.
const NO_LATEST: u32 = u32::MAX - 1;

/// Above the depth of any tree: below the root an inner node has at least [`SLOTS`] / 2 children (save those
/// at the right edge), so a tree of this depth would have more leaves than there are numbers for them.
const DEPTH_MAX: usize = 12;

/// An ordered map of versions, insert-only: none goes but one that is superseded.
pub struct Memtable {
    arena: Arena,
    leaves: Pool<Leaf>,
    inners: Pool<Inner>,
    /// A leaf if `depth` is 0, else an inner node.
    root: NodeId,
    /// How many inner nodes are above each leaf.
    depth: usize,
    /// The last leaf; the first is number 0, since a split makes the right half the new node.
    last: NodeId,
    entries: usize,
    /// The sum of their weights.
    weight: u64,
    /// Records that are not in the tree yet.
    staged: Vec<Staged>,
    /// Entries that go into it together.
    late: Vec<Late>,
    /// Their keys and values.
    aside: Vec<u8>,
}

/// Where an entry is in the table that gave out the position; stays good whatever is inserted later. (The record of a version that
/// nobody is shown may by then be a newer one's.)
#[derive(Clone, Copy, Debug)]
pub struct Position {
    leaf: NodeId,
    slot: u32,
    record: Locator,
}

/// A place between entries, to scan from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<'a> {
    /// Before everything.
    Start,
    /// Before all entries of a directory.
    DirectoryStart(DirectoryId),
    /// Before all versions of a key.
    Before(DirectoryId, &'a [u8]),
    /// Before the newest version of a key that is not newer than the commit.
    AsOf(DirectoryId, &'a [u8], Commit),
    /// Behind all versions of a key.
    Behind(DirectoryId, &'a [u8]),
    /// Behind all entries of a directory.
    DirectoryEnd(DirectoryId),
    /// Behind everything.
    End,
}

/// The way from the root down to a leaf: inner nodes and which child was taken.
struct Path {
    steps: [(NodeId, usize); DEPTH_MAX],
    depth: usize,
}

impl Memtable {
    /// An empty table; it takes a few KiB once something is inserted.
    pub fn new() -> Self {
        let mut leaves = Pool::new();
        let root = leaves.push(Leaf { slots: Slots::new(), prev: NO_NODE, next: NO_NODE, latest: NO_LATEST });
        Memtable {
            arena: Arena::new(),
            leaves,
            inners: Pool::new(),
            root,
            depth: 0,
            last: root,
            entries: 0,
            weight: 0,
            staged: Vec::new(),
            late: Vec::new(),
            aside: Vec::new(),
        }
    }

    /// Adds a version of a key: a put, or with no value a delete. If the table has that version already (a
    /// batch that names a key twice), the later insert replaces the earlier.
    ///
    /// The key and value must be within the limits of `limits`; they are copied.
    pub fn insert(&mut self, directory: DirectoryId, key: &[u8], commit: Commit, value: Option<&[u8]>) {
        let record = self.arena.push(&Entry { directory, key, commit, value });
        self.place(record);
    }

    /// Puts a record in the tree.
    #[inline]
    fn place(&mut self, record: Locator) {
        if self.append(record) {
            return;
        }
        let entry = self.arena.entry(record);
        let mut path = Path { steps: [(NO_NODE, 0); DEPTH_MAX], depth: self.depth };
        let id = self.descend(&entry, |level, step| path.steps[level] = step);
        let leaf = &mut self.leaves[id];
        let (at, present) = leaf.slots.find(&self.arena, &entry);
        if present {
            return self.replace(id, at, record);
        }
        self.entries += 1;
        self.weight += entry.weight();
        if leaf.slots.is_full() {
            self.split_leaf(id, &path, at, record);
        } else {
            leaf.slots.insert(&self.arena, at, record);
            leaf.latest = at as u32;
        }
    }

    /// Puts a record in the place of another one of its version.
    fn replace(&mut self, leaf: NodeId, at: usize, record: Locator) {
        let slots = &mut self.leaves[leaf].slots;
        self.weight += self.arena.entry(record).weight();
        self.weight -= self.arena.entry(slots.records()[at]).weight();
        slots.replace(at, record);
    }

    /// Puts a record at the end of the table without a search, if it belongs there and there is room.
    #[inline]
    fn append(&mut self, record: Locator) -> bool {
        if self.leaves[self.last].slots.is_full() || !self.is_behind_all(&self.arena.entry(record)) {
            return false;
        }
        let leaf = &mut self.leaves[self.last];
        leaf.latest = leaf.slots.len() as u32;
        leaf.slots.insert(&self.arena, leaf.slots.len(), record);
        self.entries += 1;
        self.weight += self.arena.entry(record).weight();
        true
    }

    /// Whether an entry belongs behind all that are in the tree.
    #[inline]
    fn is_behind_all(&self, entry: &Entry<'_>) -> bool {
        let last = self.leaves[self.last].slots.records().last();
        last.is_none_or(|&last| self.arena.entry(last).order(entry).is_lt())
    }

    /// The newest version of a key that is not newer than a commit; of a deleted key, the delete.
    pub fn get(&self, directory: DirectoryId, key: &[u8], at: Commit) -> Option<Entry<'_>> {
        let probe = Entry { directory, key, commit: at, value: None };
        self.get_in(self.descend(&probe, |_, _| {}), &probe)
    }

    /// What [`Memtable::get`] is to find, in the leaf whose fences the probe is between.
    #[inline]
    fn get_in(&self, leaf: NodeId, probe: &Entry<'_>) -> Option<Entry<'_>> {
        let slots = &self.leaves[leaf].slots;
        let (slot, _) = slots.find(&self.arena, probe);
        // Mostly that is known without a look at the record.
        if slots.is_of_other_key(slot, probe) {
            return None;
        }
        let entry = self.entry(self.position(leaf, slot)?);
        (entry.directory == probe.directory && entry.key == probe.key).then_some(entry)
    }

    /// Whether the table holds any entry of a directory. Costs a search.
    pub fn has_directory(&self, directory: DirectoryId) -> bool {
        self.first_from(Place::DirectoryStart(directory))
            .is_some_and(|position| self.entry(position).directory == directory)
    }

    /// How many entries (versions, deletes among them) it holds.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The sum of the entries' [weights](Entry::weight), but of those that are kept aside or staged.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.entries == 0 && !self.lags()
    }

    /// The bytes allocated: records, nodes and room for more of both.
    pub fn memory(&self) -> usize {
        self.arena.memory()
            + self.leaves.memory()
            + self.inners.memory()
            + self.staged.capacity() * size_of::<Staged>()
            + self.late.capacity() * size_of::<Late>()
            + self.aside.capacity()
    }

    /// The first entry behind a place.
    pub fn first_from(&self, place: Place<'_>) -> Option<Position> {
        let (leaf, slot) = self.seek(place);
        self.position(leaf, slot)
    }

    /// The last entry before a place.
    pub fn last_before(&self, place: Place<'_>) -> Option<Position> {
        let (leaf, slot) = self.seek(place);
        self.position_before(leaf, slot)
    }

    /// The entry at a position. If that version was inserted again since, the earlier insert is still seen; if it was superseded, the
    /// newer one may be.
    #[inline]
    pub fn entry(&self, position: Position) -> Entry<'_> {
        self.arena.entry(position.record)
    }

    /// The entry that follows, among those that are in the table by now.
    #[inline]
    pub fn next(&self, position: Position) -> Option<Position> {
        let (leaf, slot, present) = self.slot_of(position);
        self.position(leaf, slot + usize::from(present))
    }

    /// The entry that precedes, among those that are in the table by now.
    #[inline]
    pub fn prev(&self, position: Position) -> Option<Position> {
        let (leaf, slot, _) = self.slot_of(position);
        self.position_before(leaf, slot)
    }

    /// Fetches the records that come next, at most `records` of them, into the core's cache. They lie wherever they were
    /// inserted; fetched together, they cost about as much as one.
    pub fn touch_ahead(&self, position: Position, back: bool, records: usize) {
        let leaf = &self.leaves[position.leaf];
        let here = leaf.slots.records();
        // A split may have left the leaf shorter than the slot: then it touches what it may, and no more.
        let range = if back {
            let end = (position.slot as usize).min(here.len());
            end.saturating_sub(records)..end
        } else {
            let start = (position.slot as usize + 1).min(here.len());
            start..(start + records).min(here.len())
        };
        let missing = records - range.len();
        let mut touched = here[range].iter().fold(0, |sum, &record| sum ^ self.arena.touch(record));
        let neighbour = if back { leaf.prev } else { leaf.next };
        if missing > 0 && neighbour != NO_NODE {
            let there = self.leaves[neighbour].slots.records();
            let missing = missing.min(there.len());
            let range = if back { there.len() - missing..there.len() } else { 0..missing };
            touched ^= there[range].iter().fold(0, |sum, &record| sum ^ self.arena.touch(record));
        }
        std::hint::black_box(touched);
    }

    /// The slot that a position's version is in now; or, with false, where it would be: of a version that was superseded first and
    /// inserted again then, the record is no longer in the tree.
    #[inline]
    fn slot_of(&self, position: Position) -> (NodeId, usize, bool) {
        let Position { leaf, slot, record } = position;
        if self.leaves[leaf].slots.records().get(slot as usize) == Some(&record) {
            return (leaf, slot as usize, true);
        }
        let probe = self.arena.entry(record);
        let leaf = self.descend(&probe, |_, _| {});
        let (slot, present) = self.leaves[leaf].slots.find(&self.arena, &probe);
        (leaf, slot, present)
    }

    /// The position of a slot, or if it is behind its leaf's last, of the next leaf's first.
    #[inline]
    fn position(&self, leaf: NodeId, slot: usize) -> Option<Position> {
        let node = &self.leaves[leaf];
        if let Some(&record) = node.slots.records().get(slot) {
            return Some(Position { leaf, slot: slot as u32, record });
        }
        if node.next == NO_NODE {
            return None;
        }
        let &record = self.leaves[node.next].slots.records().first()?;
        Some(Position { leaf: node.next, slot: 0, record })
    }

    /// The position before a slot (which may be the one behind its leaf's last).
    #[inline]
    fn position_before(&self, leaf: NodeId, slot: usize) -> Option<Position> {
        let (leaf, slot) = match slot {
            0 if self.leaves[leaf].prev == NO_NODE => return None,
            0 => (self.leaves[leaf].prev, self.leaves[self.leaves[leaf].prev].slots.len()),
            _ => (leaf, slot),
        };
        let slot = slot - 1;
        Some(Position { leaf, slot: slot as u32, record: self.leaves[leaf].slots.records()[slot] })
    }

    /// The leaf and the slot in it (or the one behind its last) that a place is just before.
    fn seek(&self, place: Place<'_>) -> (NodeId, usize) {
        let end = (self.last, self.leaves[self.last].slots.len());
        let newest = Commit(u64::MAX);
        let (directory, key, commit, behind) = match place {
            Place::Start => return (0, 0),
            Place::End => return end,
            Place::DirectoryStart(directory) => (directory, &[][..], newest, false),
            Place::Before(directory, key) => (directory, key, newest, false),
            Place::AsOf(directory, key, commit) => (directory, key, commit, false),
            Place::Behind(directory, key) => (directory, key, Commit(0), true),
            Place::DirectoryEnd(directory) => match directory.0.checked_add(1) {
                Some(next) => (DirectoryId(next), &[][..], newest, false),
                None => return end,
            },
        };
        let probe = Entry { directory, key, commit, value: None };
        let leaf = self.descend(&probe, |_, _| {});
        let (slot, present) = self.leaves[leaf].slots.find(&self.arena, &probe);
        (leaf, slot + usize::from(behind && present))
    }

    /// The leaf whose fences the probe is between; tells each step on the way, from the root down.
    #[inline]
    fn descend(&self, probe: &Entry<'_>, mut step: impl FnMut(usize, (NodeId, usize))) -> NodeId {
        let mut id = self.root;
        for level in 0..self.depth {
            let inner = &self.inners[id];
            let (before, present) = inner.slots.find(&self.arena, probe);
            let child = before + usize::from(present);
            step(level, (id, child));
            id = inner.children[child];
        }
        id
    }

    /// The child of an inner node that leads to the probe.
    #[inline]
    fn child_of(&self, inner: NodeId, probe: &Entry<'_>) -> NodeId {
        let inner = &self.inners[inner];
        let (before, present) = inner.slots.find(&self.arena, probe);
        inner.children[before + usize::from(present)]
    }

    /// Splits a full leaf and puts a record in, whose place in the full leaf was `at`.
    #[cold]
    fn split_leaf(&mut self, id: NodeId, path: &Path, at: usize, record: Locator) {
        let leaf = &mut self.leaves[id];
        let records = leaf.slots.records();
        let farthest = records[if at == 0 { SLOTS - 1 } else { 0 }];
        // Next to the latest insert, or at the end of the table: likely a run. Split there, so that the run
        // goes on filling the left half, or if that is full, a leaf of its own.
        let run = at == leaf.latest as usize || at == leaf.latest as usize + 1;
        let middle = if run || (id == self.last && at == SLOTS) { at } else { SLOTS / 2 };
        let mut right =
            Leaf { slots: leaf.slots.split(middle, middle), prev: id, next: leaf.next, latest: NO_LATEST };
        leaf.latest = NO_LATEST;
        let (target, at) =
            if at < SLOTS && at <= middle { (&mut *leaf, at) } else { (&mut right, at - middle) };
        if target.slots.len() == 0 {
            // A run's next leaf will span about what this one does.
            target.slots.expect_between(&self.arena, farthest, record);
        }
        target.slots.insert(&self.arena, at, record);
        target.latest = at as u32;

        let separator = right.slots.records()[0];
        leaf.slots.sharpen(&self.arena);
        right.slots.sharpen(&self.arena);
        let next = right.next;
        let right = self.leaves.push(right);
        self.leaves[id].next = right;
        match next {
            NO_NODE => self.last = right,
            next => self.leaves[next].prev = right,
        }
        self.insert_separator(path, separator, right);
    }

    /// Tells the inner nodes on the path that a new node stands to the right of the one it led to.
    fn insert_separator(&mut self, path: &Path, mut separator: Locator, mut right: NodeId) {
        let right_edge = right == self.last;
        for &(id, at) in path.steps[..path.depth].iter().rev() {
            let inner = &mut self.inners[id];
            if !inner.slots.is_full() {
                inner.insert(&self.arena, at, separator, right);
                return;
            }
            let new = if right_edge && at == SLOTS {
                // Growing at the right edge: leave a full node behind.
                inner.slots.sharpen(&self.arena);
                Inner::new(right)
            } else {
                let (up, mut new) = inner.split();
                match at.checked_sub(SLOTS / 2 + 1) {
                    Some(at) => new.insert(&self.arena, at, separator, right),
                    None => inner.insert(&self.arena, at, separator, right),
                }
                inner.slots.sharpen(&self.arena);
                new.slots.sharpen(&self.arena);
                separator = up;
                new
            };
            right = self.inners.push(new);
        }
        let mut root = Inner::new(self.root);
        root.insert(&self.arena, 0, separator, right);
        self.root = self.inners.push(root);
        self.depth += 1;
    }
}

impl Default for Memtable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable").field("entries", &self.entries).field("memory", &self.memory()).finish()
    }
}
