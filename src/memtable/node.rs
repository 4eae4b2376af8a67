//! The nodes of a memtable's tree, and the pool that they live in.
//!
//! A node is a sorted row of slots. A slot is a record's locator and its *head*, 16 bytes: the directory, and
//! the part of the key that tells the keys of this node apart. Heads are compared first; only where they are
//! equal is the record itself looked at.
//!
//! Which part of the key that is, each node chooses for itself: it has a `prefix`, and a head holds the bytes
//! that follow it. A key without that prefix may come later: two bits of the head say whether the key is before
//! all keys with the prefix, has it, or is behind them, so heads are in order whatever the prefix. At a split,
//! a half whose heads are not all different takes what its keys have in common ([`Slots::sharpen`]). Thus it
//! does not matter whether keys differ at their start or at their end, nor how many directories a node spans.

use super::arena::{Arena, Locator};
use crate::codec::behind_prefix;
use crate::entry::Entry;
use std::cmp::Ordering;
use std::ops::{Index, IndexMut};

/// Slots of a node. A larger number makes inserts move more, a smaller one makes the tree deeper.
pub(super) const SLOTS: usize = 32;

/// Slots that are searched as one: the heads at the groups' ends are fetched independently of each other,
/// so that a search waits for memory twice, not once for each step of a binary search.
const GROUP: usize = 8;

/// The longest prefix of a node. It lies in the node, so that finding a probe's head costs no other fetch.
const PREFIX_BYTES_MAX: usize = 30;

type Head = u128;

/// Pads the row of heads: above the head of any entry.
const NO_HEAD: Head = Head::MAX;

/// The sorted slots that leaves and inner nodes have in common.
pub(super) struct Slots {
    heads: [Head; SLOTS],
    records: [Locator; SLOTS],
    prefix: [u8; PREFIX_BYTES_MAX],
    prefix_len: u8,
    len: u8,
}

impl Slots {
    pub(super) fn new() -> Self {
        Slots {
            heads: [NO_HEAD; SLOTS],
            records: [Locator::default(); SLOTS],
            prefix: [0; PREFIX_BYTES_MAX],
            prefix_len: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
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
    pub(super) fn find(&self, arena: &Arena, probe: &Entry<'_>) -> (usize, bool) {
        let head = self.head(probe);
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

    /// Fetches what a search and an insert look at into the core's cache.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        let heads = self.heads.iter().step_by(GROUP / 2).fold(0, |sum, &head| sum ^ head as u64);
        let records = self.records.iter().step_by(GROUP).fold(0, |sum, record| sum ^ record.touch());
        heads ^ records ^ u64::from(self.len) ^ u64::from(self.prefix[0])
    }

    /// Whether a slot certainly holds another key than the probe's. Never so of a slot behind the last.
    #[inline]
    pub(super) fn is_of_other_key(&self, slot: usize, probe: &Entry<'_>) -> bool {
        slot < self.len() && self.heads[slot] != self.head(probe)
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
        self.heads.copy_within(at..len, at + 1);
        self.records.copy_within(at..len, at + 1);
        self.heads[at] = self.head(&entry);
        self.records[at] = record;
        self.len += 1;
    }

    /// Keeps the slots below `at`; gives those from `from` on to a new row.
    pub(super) fn split(&mut self, at: usize, from: usize) -> Slots {
        let mut right = Slots { prefix: self.prefix, prefix_len: self.prefix_len, ..Slots::new() };
        let moved = self.len() - from;
        right.heads[..moved].copy_from_slice(&self.heads[from..self.len()]);
        right.records[..moved].copy_from_slice(&self.records[from..self.len()]);
        right.len = moved as u8;
        self.heads[at..].fill(NO_HEAD);
        self.len = at as u8;
        right
    }

    /// Chooses the prefix anew, if the heads do not tell all records apart.
    pub(super) fn sharpen(&mut self, arena: &Arena) {
        let len = self.len();
        if self.ties() > 0 {
            // Within a directory, what the first and the last key share, all share.
            let one_directory = self.heads[0] >> 64 == self.heads[len - 1] >> 64;
            let others = &self.records[if one_directory { len - 1 } else { 1 }..len];
            let first = arena.entry(self.records[0]).key;
            let shared = |&record: &Locator| shared_bytes(first, arena.entry(record).key);
            let prefix_len = others.iter().map(shared).min().unwrap_or(0);
            self.set_prefix(arena, &first[..prefix_len]);
        }
    }

    /// How many records have the head of the one before.
    pub(super) fn ties(&self) -> usize {
        self.heads[..self.len()].windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    /// Every slot has its record's head, in order, and the row is padded.
    #[cfg(test)]
    pub(super) fn check(&self, arena: &Arena) {
        assert!(self.heads.is_sorted());
        assert!(self.heads[self.len()..].iter().all(|&head| head == NO_HEAD));
        for (&head, &record) in self.heads.iter().zip(self.records()) {
            assert_eq!(head, self.head(&arena.entry(record)));
        }
    }

    /// Makes the heads start behind what two entries' keys have in common.
    pub(super) fn expect_between(&mut self, arena: &Arena, a: Locator, b: Locator) {
        let (a, b) = (arena.entry(a).key, arena.entry(b).key);
        self.set_prefix(arena, &a[..shared_bytes(a, b)]);
    }

    fn set_prefix(&mut self, arena: &Arena, prefix: &[u8]) {
        let len = prefix.len().min(PREFIX_BYTES_MAX);
        if self.prefix[..usize::from(self.prefix_len)] == prefix[..len] {
            // The ties are versions of a key; spare the look at each record.
            return;
        }
        self.prefix[..len].copy_from_slice(&prefix[..len]);
        self.prefix_len = len as u8;
        for at in 0..self.len() {
            self.heads[at] = self.head(&arena.entry(self.records[at]));
        }
    }

    /// An entry's head in this node. Where heads differ, entries differ the same way; where they are equal,
    /// anything goes, since zeros stand for missing bytes ("a" and "a\0").
    #[inline]
    fn head(&self, entry: &Entry<'_>) -> Head {
        let (prefix, key) = (&self.prefix[..usize::from(self.prefix_len)], entry.key);
        let (class, part) = match behind_prefix(key, prefix) {
            Some(rest) => (1, rest),
            None => (if key < prefix { 0 } else { 2 }, key),
        };
        Head::from(entry.directory.0) << 64 | Head::from(class << 62 | eight_bytes(part) >> 2)
    }
}

/// The first eight bytes of a key, big endian, padded with zeros.
#[inline]
pub(super) fn eight_bytes(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(&bytes) => u64::from_be_bytes(bytes),
        None => key.iter().enumerate().fold(0, |sum, (i, &byte)| sum | u64::from(byte) << (56 - 8 * i)),
    }
}

/// How many bytes two keys have in common at their start; a prefix's length is enough.
fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take(PREFIX_BYTES_MAX).take_while(|(a, b)| a == b).count()
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
        Inner { slots: Slots::new(), children }
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

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * POOL_CHUNK + last.len())
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
