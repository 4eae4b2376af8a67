//! The nodes of a memtable's tree, and the pool that they live in.
//!
//! A node is a sorted row of slots. A slot is a record's locator and its *head*: the 16 bytes of the record's
//! sort string (the directory, big endian, then the key) that follow the bytes that all sort strings of the
//! node share. Heads are compared first; only where they are equal is the record itself looked at.
//!
//! How many bytes are shared (`skip`) follows from the node's fences, the separators to its left and right
//! further up: what two strings begin with, all strings between them begin with, also those that come later.
//! Splits bring fences closer, and a half whose heads are not all different then gets new ones
//! ([`Slots::sharpen`]); thus the heads tell keys apart whether it is the directory that differs or the end of
//! a long key. At the edges of the tree, its first and last entries are the fences; an insert beyond them
//! makes the nodes along that edge share less ([`Slots::loosen`]). A probe beyond them must not be searched for.

use super::arena::{Arena, Locator};
use crate::entry::Entry;
use std::cmp::Ordering;
use std::ops::{Index, IndexMut};

/// Slots of a node. A larger number makes inserts move more, a smaller one makes the tree deeper.
pub(super) const SLOTS: usize = 32;

/// Slots that are searched as one: the heads at the groups' ends are fetched independently of each other,
/// so that a search waits for memory twice, not once for each step of a binary search.
const GROUP: usize = 8;

pub(super) type Head = u128;

/// Pads the row of heads: no head is above it.
const NO_HEAD: Head = Head::MAX;

/// The sorted slots that leaves and inner nodes have in common.
#[derive(Clone)]
pub(super) struct Slots {
    heads: [Head; SLOTS],
    records: [Locator; SLOTS],
    len: u32,
    /// How many bytes of the sort string the heads leave out.
    skip: u32,
}

impl Slots {
    pub(super) fn new(skip: u32) -> Self {
        Slots { heads: [NO_HEAD; SLOTS], records: [Locator::default(); SLOTS], len: 0, skip }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == SLOTS
    }

    /// The locators, in order.
    #[inline]
    pub(super) fn records(&self) -> &[Locator] {
        &self.records[..self.len()]
    }

    /// Points a slot at another record of the same directory, key and commit.
    pub(super) fn replace(&mut self, at: usize, record: Locator) {
        self.records[at] = record;
    }

    /// How many records are before the probe, and whether the next one equals it.
    #[inline]
    pub(super) fn find(&self, arena: &Arena, probe: &Probe<'_>) -> (usize, bool) {
        let head = probe.head(self.skip);
        let probe = &probe.entry;
        let before = self.count_below(head);
        let equal = self.heads[before..self.len()].iter().take_while(|&&other| other == head).count();
        if equal == 0 {
            return (before, false);
        }
        // Ties are mostly versions of one key, and the probe mostly is the newest: look at the first alone.
        let ties = &self.records[before..before + equal];
        match arena.entry(ties[0]).order(probe) {
            Ordering::Greater => return (before, false),
            Ordering::Equal => return (before, true),
            Ordering::Less => {}
        }
        match ties[1..].binary_search_by(|&record| arena.entry(record).order(probe)) {
            Ok(at) => (before + 1 + at, true),
            Err(at) => (before + 1 + at, false),
        }
    }

    #[inline]
    fn count_below(&self, head: Head) -> usize {
        let (groups, _) = self.heads.as_chunks::<GROUP>();
        let last = groups.len() - 1;
        let group: usize = groups[..last].iter().map(|group| usize::from(group[GROUP - 1] < head)).sum();
        group * GROUP + groups[group].iter().map(|&other| usize::from(other < head)).sum::<usize>()
    }

    /// Puts a record in; there must be room, and `at` must be its place.
    #[inline]
    pub(super) fn insert(&mut self, arena: &Arena, at: usize, record: Locator) {
        let (entry, len) = (arena.entry(record), self.len());
        debug_assert!(at == 0 || arena.entry(self.records[at - 1]).order(&entry).is_lt());
        debug_assert!(at == len || arena.entry(self.records[at]).order(&entry).is_gt());
        debug_assert!(len == 0 || shared_bytes(&arena.entry(self.records[0]), &entry) >= self.skip);
        self.heads.copy_within(at..len, at + 1);
        self.records.copy_within(at..len, at + 1);
        self.heads[at] = head(&entry, self.skip);
        self.records[at] = record;
        self.len += 1;
    }

    /// Keeps the slots below `at`; gives those from `from` on to a new row.
    pub(super) fn split(&mut self, at: usize, from: usize) -> Slots {
        let mut right = Slots::new(self.skip);
        let moved = self.len() - from;
        right.heads[..moved].copy_from_slice(&self.heads[from..self.len()]);
        right.records[..moved].copy_from_slice(&self.records[from..self.len()]);
        right.len = moved as u32;
        self.heads[at..].fill(NO_HEAD);
        self.len = at as u32;
        right
    }

    /// Makes the heads start later in the sort string, if they do not tell all records apart and the fences
    /// allow it.
    pub(super) fn sharpen(&mut self, arena: &Arena, low: Locator, high: Locator) {
        if self.heads[..self.len()].windows(2).any(|pair| pair[0] == pair[1]) {
            let skip = shared_bytes(&arena.entry(low), &arena.entry(high));
            debug_assert!(skip >= self.skip, "fences only come closer");
            self.set_skip(arena, skip);
        }
    }

    /// Lets an entry in that shares only so many bytes with what the node holds and may hold.
    #[inline]
    pub(super) fn loosen(&mut self, arena: &Arena, shared: u32) {
        if shared < self.skip {
            self.set_skip(arena, shared);
        }
    }

    fn set_skip(&mut self, arena: &Arena, skip: u32) {
        if skip != self.skip {
            self.skip = skip;
            for (slot, &record) in self.heads.iter_mut().zip(&self.records[..self.len as usize]) {
                *slot = head(&arena.entry(record), skip);
            }
        }
    }
}

/// The first 64 bytes of an entry's sort string as big-endian numbers, padded with zeros. Where fronts differ,
/// entries differ the same way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Front([u64; FRONT_WORDS]);

const FRONT_WORDS: usize = 8;

/// An entry that is searched for, with its front: each node on the way wants another part of it.
pub(super) struct Probe<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) front: Front,
}

impl<'a> Probe<'a> {
    #[inline]
    pub(super) fn new(entry: Entry<'a>) -> Self {
        let mut front = [0; FRONT_WORDS];
        front[0] = entry.directory.0;
        let (words, rest) = entry.key.as_chunks::<8>();
        for (word, &bytes) in front[1..].iter_mut().zip(words) {
            *word = u64::from_be_bytes(bytes);
        }
        if let Some(word) = front.get_mut(1 + words.len()) {
            *word = eight_bytes(rest, 0);
        }
        Probe { entry, front: Front(front) }
    }

    #[inline]
    fn head(&self, skip: u32) -> Head {
        let (word, bits) = (skip as usize / 8, skip % 8 * 8);
        match self.front.0.get(word..).and_then(|words| words.first_chunk::<3>()) {
            Some(&[first, second, third]) => {
                let two = Head::from(first) << 64 | Head::from(second);
                two << bits | Head::from(third >> (63 - bits) >> 1)
            }
            None => head(&self.entry, skip),
        }
    }
}

/// The 16 bytes of an entry's sort string from byte `skip` on, as a number; zeros stand for missing bytes.
/// Where heads differ, entries differ the same way; where heads are equal, anything goes ("a" and "a\0").
#[inline]
fn head(entry: &Entry<'_>, skip: u32) -> Head {
    let skip = skip as usize;
    let (first, second) = if skip >= 8 {
        (eight_bytes(entry.key, skip - 8), eight_bytes(entry.key, skip))
    } else {
        let (directory, key) = (entry.directory.0, eight_bytes(entry.key, 0));
        if skip == 0 {
            (directory, key)
        } else {
            let (left, right) = (skip * 8, 64 - skip * 8);
            let rest = eight_bytes(entry.key, 8);
            (directory << left | key >> right, key << left | rest >> right)
        }
    };
    Head::from(first) << 64 | Head::from(second)
}

/// Eight bytes of the key from `at` on, big endian, padded with zeros.
#[inline]
fn eight_bytes(key: &[u8], at: usize) -> u64 {
    let rest = key.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(&bytes) => u64::from_be_bytes(bytes),
        None => rest.iter().enumerate().fold(0, |sum, (i, &byte)| sum | u64::from(byte) << (56 - 8 * i)),
    }
}

/// How many bytes two entries' sort strings have in common.
pub(super) fn shared_bytes(a: &Entry<'_>, b: &Entry<'_>) -> u32 {
    if a.directory != b.directory {
        return (a.directory.0 ^ b.directory.0).leading_zeros() / 8;
    }
    let (a_words, _) = a.key.as_chunks::<8>();
    let (b_words, _) = b.key.as_chunks::<8>();
    let words = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    let bytes = a.key[words..].iter().zip(&b.key[words..]).take_while(|(a, b)| a == b).count();
    (8 + words + bytes) as u32
}

/// The number of a node in its pool.
pub(super) type NodeId = u32;
/// No node: beyond the first or the last leaf.
pub(super) const NO_NODE: NodeId = NodeId::MAX;

/// Holds entries. Leaves are linked in order; none is empty but the only leaf of an empty table.
pub(super) struct Leaf {
    pub(super) slots: Slots,
    pub(super) prev: NodeId,
    pub(super) next: NodeId,
    /// Where the latest insert went: tells runs from scattered inserts at a split.
    pub(super) latest: u32,
}

/// Separators and the nodes between them: child `i` holds what is before separator `i`, child `i + 1` what
/// is not. A separator is the record that came first in its right-hand child when that was split off.
pub(super) struct Inner {
    pub(super) slots: Slots,
    pub(super) children: [NodeId; SLOTS + 1],
}

impl Inner {
    pub(super) fn new(first: NodeId) -> Self {
        let mut children = [NO_NODE; SLOTS + 1];
        children[0] = first;
        Inner { slots: Slots::new(0), children }
    }

    /// Puts in a separator at `at` and the child to its right.
    pub(super) fn insert(&mut self, arena: &Arena, at: usize, separator: Locator, right: NodeId) {
        let len = self.slots.len();
        self.children.copy_within(at + 1..len + 1, at + 2);
        self.children[at + 1] = right;
        self.slots.insert(arena, at, separator);
    }

    /// Takes the upper half off; the separator between the halves belongs to the parent.
    pub(super) fn split(&mut self) -> (Locator, Inner) {
        let (at, len) = (SLOTS / 2, self.slots.len());
        let separator = self.slots.records()[at];
        let mut right = Inner::new(NO_NODE);
        right.children[..len - at].copy_from_slice(&self.children[at + 1..len + 1]);
        right.slots = self.slots.split(at, at + 1);
        (separator, right)
    }
}

/// Nodes by number, in chunks: growing moves no more than the first chunk, so no insert stalls for it.
pub(super) struct Pool<T> {
    chunks: Vec<Vec<T>>,
    bytes: usize,
}

const POOL_CHUNK: usize = 64;

impl<T> Pool<T> {
    pub(super) fn new() -> Self {
        Pool { chunks: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, node: T) -> NodeId {
        match self.chunks.last() {
            None => self.chunks.push(Vec::new()),
            Some(last) if last.len() == POOL_CHUNK => self.chunks.push(Vec::with_capacity(POOL_CHUNK)),
            Some(_) => {}
        }
        let at = self.chunks.len() - 1;
        let chunk = &mut self.chunks[at];
        chunk.push(node);
        let (len, capacity) = (chunk.len(), chunk.capacity());
        self.bytes = (at * POOL_CHUNK + capacity) * size_of::<T>();
        (at * POOL_CHUNK + len - 1) as NodeId
    }

    /// The bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

impl<T> Index<NodeId> for Pool<T> {
    type Output = T;
    #[inline]
    fn index(&self, id: NodeId) -> &T {
        &self.chunks[id as usize / POOL_CHUNK][id as usize % POOL_CHUNK]
    }
}

impl<T> IndexMut<NodeId> for Pool<T> {
    #[inline]
    fn index_mut(&mut self, id: NodeId) -> &mut T {
        &mut self.chunks[id as usize / POOL_CHUNK][id as usize % POOL_CHUNK]
    }
}
