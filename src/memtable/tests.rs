//! A memtable against a `BTreeMap`, and the tree's own rules.

use super::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

type Version = (u64, Vec<u8>, Reverse<u64>);
type Model = BTreeMap<Version, Option<Vec<u8>>>;

/// A small generator of numbers (SplitMix64): the same seed, the same test.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Kinds of keys, each hard on the heads in its own way.
#[derive(Clone, Copy, Debug)]
enum Keys {
    /// One to four bytes of 0, 1 and 255: padding ties, prefixes of one another, trailing zeros.
    Tiny,
    /// All begin with the same 20 bytes.
    Shared,
    /// The prefix that is shared ends anywhere.
    Nested,
    /// 24 random bytes.
    Random,
    /// Decimal digits after a word.
    Decimal,
}

const KINDS: [Keys; 5] = [Keys::Tiny, Keys::Shared, Keys::Nested, Keys::Random, Keys::Decimal];

impl Keys {
    fn make(self, seeded: &mut Seeded) -> Vec<u8> {
        let tiny = |seeded: &mut Seeded, most| -> Vec<u8> {
            (0..1 + seeded.below(most)).map(|_| [0, 1, 255][seeded.below(3) as usize]).collect()
        };
        match self {
            Keys::Tiny => tiny(seeded, 4),
            Keys::Shared => [&b"twenty bytes shared."[..], &tiny(seeded, 5)].concat(),
            Keys::Nested => [vec![7; seeded.below(40) as usize], tiny(seeded, 2)].concat(),
            Keys::Random => (0..3).flat_map(|_| seeded.next().to_be_bytes()).collect(),
            Keys::Decimal => format!("user:{:012}", seeded.below(3000)).into_bytes(),
        }
    }
}

const DIRECTORIES: [u64; 7] = [0, 1, 1 << 16, (1 << 16) + 1, 2 << 16, 0x0123_4567_89ab_cdef, u64::MAX];

fn directory(seeded: &mut Seeded) -> u64 {
    DIRECTORIES[seeded.below(DIRECTORIES.len() as u64) as usize]
}

type Put = fn(&mut Memtable, DirectoryId, &[u8], Commit, Option<&[u8]>);

/// Inserts late, and keeps all versions.
fn put_late(table: &mut Memtable, directory: DirectoryId, key: &[u8], commit: Commit, value: Option<&[u8]>) {
    table.insert_late(&Entry { directory, key, commit, value }, None);
}

/// A table and its model, filled alike.
struct Pair {
    table: Memtable,
    model: Model,
    seeded: Seeded,
    keys: Keys,
    commit: u64,
    /// How the table is filled: at once, staged, or late.
    put: Put,
    /// Or late, where nobody sees what is newer than this commit.
    unseen_after: Option<u64>,
}

impl Pair {
    fn new(seed: u64, keys: Keys) -> Self {
        Pair {
            table: Memtable::new(),
            model: Model::new(),
            seeded: Seeded(seed),
            keys,
            commit: 0,
            put: Memtable::insert,
            unseen_after: None,
        }
    }

    fn insert(&mut self, directory: u64, key: Vec<u8>, commit: u64, value: Option<Vec<u8>>) {
        let (id, commit_of) = (DirectoryId(directory), Commit(commit));
        match self.unseen_after {
            None => (self.put)(&mut self.table, id, &key, commit_of, value.as_deref()),
            Some(seen) => {
                let entry = Entry { directory: id, key: &key, commit: commit_of, value: value.as_deref() };
                self.table.insert_late(&entry, Some(Commit(seen)));
            }
        }
        self.model.insert((directory, key, Reverse(commit)), value);
    }

    /// Commits a batch of one to three operations, which may well name a key twice.
    fn commit(&mut self) {
        self.commit += 1;
        let (directory, key) = (directory(&mut self.seeded), self.keys.make(&mut self.seeded));
        for operation in 0..1 + self.seeded.below(3) {
            let key = if self.seeded.below(2) == 0 { key.clone() } else { self.keys.make(&mut self.seeded) };
            let value =
                (self.seeded.below(4) > 0).then(|| format!("{}.{operation}", self.commit).into_bytes());
            self.insert(directory, key, self.commit, value);
        }
    }

    fn some_key(&mut self) -> (u64, Vec<u8>) {
        (directory(&mut self.seeded), self.keys.make(&mut self.seeded))
    }

    /// The table read forwards and backwards is the model.
    fn check(&self) {
        check_tree(&self.table);
        assert_eq!(self.table.entries(), self.model.len());
        let value_bytes = self.model.values().flatten().map(Vec::len).sum::<usize>();
        let key_bytes = self.model.keys().map(|version| version.1.len()).sum::<usize>();
        let overhead = self.model.len() * crate::limits::OPERATION_BYTES_OVERHEAD;
        assert_eq!(self.table.weight(), (key_bytes + value_bytes + overhead) as u64);
        assert_eq!(self.table.is_empty(), self.model.is_empty());
        let (mut at, mut back) = (self.table.first_from(Place::Start), self.table.last_before(Place::End));
        for (forwards, backwards) in self.model.iter().zip(self.model.iter().rev()) {
            assert_eq!(at.map(|at| owned(self.table.entry(at))), Some(clone(forwards)));
            assert_eq!(back.map(|at| owned(self.table.entry(at))), Some(clone(backwards)));
            at = self.table.next(at.unwrap());
            back = self.table.prev(back.unwrap());
        }
        assert!(at.is_none() && back.is_none());
    }
}

fn owned(entry: Entry<'_>) -> (Version, Option<Vec<u8>>) {
    ((entry.directory.0, entry.key.to_vec(), Reverse(entry.commit.0)), entry.value.map(<[u8]>::to_vec))
}

fn clone((version, value): (&Version, &Option<Vec<u8>>)) -> (Version, Option<Vec<u8>>) {
    (version.clone(), value.clone())
}

/// Every leaf is linked to its neighbours, none is empty, and the tree leads to them in that order.
fn check_tree(table: &Memtable) {
    let mut level = vec![table.root];
    for _ in 0..table.depth {
        level.iter().for_each(|&id| table.inners[id].slots.check(&table.arena));
        let inners = level.iter().map(|&id| &table.inners[id]);
        level = inners.flat_map(|inner| inner.children[..=inner.slots.len()].iter().copied()).collect();
    }
    let (mut id, mut prev) = (0, NO_NODE);
    for &leaf in &level {
        table.leaves[leaf].slots.check(&table.arena);
        assert_eq!((leaf, table.leaves[leaf].prev), (id, prev));
        assert!(table.leaves[leaf].slots.len() > 0 || table.is_empty());
        (prev, id) = (leaf, table.leaves[leaf].next);
    }
    assert_eq!((id, prev), (NO_NODE, table.last));
}

/// How full the leaves are, from 0 to 1.
fn fill(table: &Memtable) -> f64 {
    let (mut leaves, mut id) = (0, 0);
    while id != NO_NODE {
        leaves += 1;
        id = table.leaves[id].next;
    }
    table.entries() as f64 / (leaves * SLOTS) as f64
}

#[test]
fn an_empty_table_has_nothing_anywhere() {
    let table = Memtable::new();
    assert!(table.is_empty());
    assert!(table.get(DirectoryId(1), b"a", Commit(9)).is_none());
    assert!(!table.has_directory(DirectoryId(1)));
    for place in
        [Place::Start, Place::End, Place::Before(DirectoryId(1), b"a"), Place::DirectoryEnd(DirectoryId(1))]
    {
        assert!(table.first_from(place).is_none());
        assert!(table.last_before(place).is_none());
    }
}

#[test]
fn gets_see_the_newest_version_not_newer_than_asked() {
    for keys in KINDS {
        let mut pair = Pair::new(1, keys);
        let mut written = Vec::new();
        for _ in 0..1500 {
            pair.commit();
            written.push(pair.some_key());
        }
        written.extend(pair.model.keys().map(|(directory, key, _)| (*directory, key.clone())));
        for (directory, key) in &written {
            for at in [0, 1, pair.seeded.below(1500), pair.seeded.below(1500), 1500, u64::MAX] {
                let from = (*directory, key.clone(), Reverse(at));
                let expected =
                    pair.model.range(from..=(*directory, key.clone(), Reverse(0))).next().map(clone);
                let got = pair.table.get(DirectoryId(*directory), key, Commit(at)).map(owned);
                assert_eq!(got, expected, "{keys:?}");
            }
        }
        pair.check();
    }
}

#[test]
fn every_place_has_the_models_neighbours() {
    for keys in KINDS {
        let mut pair = Pair::new(2, keys);
        for round in 0..900 {
            if round % 3 == 0 {
                pair.commit();
            }
            let (directory, key) = pair.some_key();
            if round % 9 == 0 {
                pair.insert(directory, key.clone(), 0, None);
            }
            let at = pair.seeded.below(400);
            let id = DirectoryId(directory);
            // A place is between what is before a bound of the model and what is not.
            let next = directory.checked_add(1).map(|next| (next, vec![], Reverse(u64::MAX)));
            let places = [
                (Place::Start, Bound::Unbounded, false),
                (Place::DirectoryStart(id), Bound::Included((directory, vec![], Reverse(u64::MAX))), false),
                (
                    Place::Before(id, &key),
                    Bound::Included((directory, key.clone(), Reverse(u64::MAX))),
                    false,
                ),
                (
                    Place::AsOf(id, &key, Commit(at)),
                    Bound::Included((directory, key.clone(), Reverse(at))),
                    false,
                ),
                (Place::Behind(id, &key), Bound::Excluded((directory, key.clone(), Reverse(0))), false),
                (
                    Place::DirectoryEnd(id),
                    next.clone().map_or(Bound::Unbounded, Bound::Included),
                    next.is_none(),
                ),
                (Place::End, Bound::Unbounded, true),
            ];
            for (place, bound, end) in places {
                let (first, last) = match &bound {
                    Bound::Unbounded if end => (None, pair.model.last_key_value()),
                    Bound::Unbounded => (pair.model.first_key_value(), None),
                    Bound::Included(at) => {
                        (pair.model.range(at..).next(), pair.model.range(..at).next_back())
                    }
                    Bound::Excluded(at) => {
                        let after = (Bound::Excluded(at), Bound::Unbounded);
                        (pair.model.range::<Version, _>(after).next(), pair.model.range(..=at).next_back())
                    }
                };
                let entry = |position: Option<Position>| position.map(|at| owned(pair.table.entry(at)));
                assert_eq!(entry(pair.table.first_from(place)), first.map(clone), "{place:?}");
                assert_eq!(entry(pair.table.last_before(place)), last.map(clone), "{place:?}");
            }
            let has = pair.model.keys().any(|version| version.0 == directory);
            assert_eq!(pair.table.has_directory(id), has);
        }
    }
}

/// Scans of both directions, each of the state at the commit when it began, while commits go on.
#[test]
fn a_scan_sees_its_own_commit_whatever_is_inserted_between_its_steps() {
    for (seed, keys) in KINDS.into_iter().enumerate() {
        let mut pair = Pair::new(seed as u64, keys);
        for _ in 0..12 {
            for _ in 0..60 {
                pair.commit();
            }
            let (at, reverse) = (pair.commit, pair.seeded.below(2) == 0);
            let (from, to) = (pair.some_key(), pair.some_key());
            let (from, to) = (from.clone().min(to.clone()), from.max(to));
            let bounds = (from.0, from.1.clone(), Reverse(u64::MAX))..=(to.0, to.1.clone(), Reverse(0));
            let mut expected: Vec<_> = pair.model.range(bounds).map(clone).collect();
            let mut seen = Vec::new();
            let mut position = if reverse {
                expected.reverse();
                pair.table.last_before(Place::Behind(DirectoryId(to.0), &to.1))
            } else {
                pair.table.first_from(Place::Before(DirectoryId(from.0), &from.1))
            };
            while let Some(here) = position {
                let entry = pair.table.entry(here);
                let key = (entry.directory.0, entry.key.to_vec());
                if key < from || key > to {
                    break;
                }
                if entry.commit.0 <= at {
                    seen.push(owned(entry));
                }
                // Not for ever, or new versions of the keys ahead could outrun the scan.
                for _ in 0..pair.seeded.below(4).min(at + 600 - pair.commit) {
                    pair.commit();
                }
                // Whatever became of the leaf meanwhile.
                pair.table.touch_ahead(here, reverse, 8);
                position = if reverse { pair.table.prev(here) } else { pair.table.next(here) };
            }
            assert!(seen == expected, "{keys:?}");
        }
        pair.check();
    }
}

/// The same where versions that the scan is not shown are superseded under it, some of them twice in a commit.
#[test]
fn a_scan_sees_its_own_commit_whatever_is_superseded_between_its_steps() {
    for (seed, keys) in (0..).zip(KINDS.repeat(10)) {
        let mut pair = Pair::new(seed, keys);
        (0..60).for_each(|_| pair.commit());
        let (at, reverse) = (pair.commit, pair.seeded.below(2) == 0);
        let mut expected: Vec<_> = pair.model.iter().map(clone).collect();
        let some: Vec<_> = (0..20).map(|_| pair.some_key()).collect();
        if reverse {
            expected.reverse();
        }
        pair.unseen_after = Some(at);
        let mut seen = Vec::new();
        let place = if reverse { Place::End } else { Place::Start };
        let mut position = if reverse { pair.table.last_before(place) } else { pair.table.first_from(place) };
        while let Some(here) = position {
            let entry = pair.table.entry(here);
            if entry.commit.0 <= at {
                seen.push(owned(entry));
            }
            for _ in 0..pair.seeded.below(6).min(at + 900 - pair.commit) {
                pair.commit += 1;
                // Mostly of the key that the scan stands on.
                let (directory, key) = match pair.seeded.below(3) {
                    0 => some[pair.seeded.below(20) as usize].clone(),
                    _ => (pair.table.entry(here).directory.0, pair.table.entry(here).key.to_vec()),
                };
                for _ in 0..1 + pair.seeded.below(3) {
                    let value = vec![7; [0, 3, 3, 40, 5000][pair.seeded.below(5) as usize]];
                    let value = (pair.seeded.below(4) > 0).then_some(value);
                    pair.insert(directory, key.clone(), pair.commit, value);
                }
            }
            pair.table.catch_up();
            pair.table.touch_ahead(here, reverse, 8);
            position = if reverse { pair.table.prev(here) } else { pair.table.next(here) };
        }
        assert!(seen == expected, "{keys:?}, reverse: {reverse}: {} of {}", seen.len(), expected.len());
        check_tree(&pair.table);
    }
}

#[test]
fn of_two_inserts_of_one_version_the_later_counts() {
    let mut pair = Pair::new(3, Keys::Tiny);
    for round in 0..2000u64 {
        let key = pair.keys.make(&mut pair.seeded);
        let value = (round % 5 > 0).then(|| round.to_string().into_bytes());
        let commit = pair.seeded.below(5);
        pair.insert(7, key, commit, value);
    }
    pair.check();

    // A position keeps its place when its version is replaced under it.
    let at = pair.table.first_from(Place::Start).unwrap();
    let next = pair.table.next(at).unwrap();
    let (first, second) = (owned(pair.table.entry(at)).0, owned(pair.table.entry(next)).0);
    pair.insert(first.0, first.1, first.2.0, Some(b"replaced".to_vec()));
    let next = pair.table.next(at).unwrap();
    assert_eq!(owned(pair.table.entry(next)).0, second);
    let at = pair.table.prev(next).unwrap();
    assert_eq!(pair.table.entry(at).value, Some(&b"replaced"[..]));
    pair.check();
}

/// Inserting late is inserting, however much is kept aside by then.
#[test]
fn what_was_inserted_late_is_there_once_the_table_has_caught_up() {
    for (seed, keys) in (0..).zip(KINDS.repeat(4)) {
        let mut pair = Pair { put: put_late, ..Pair::new(seed, keys) };
        for round in 0..60 {
            for _ in 0..pair.seeded.below(if round % 2 == 0 { 8 } else { 80 }) {
                pair.commit();
            }
            assert_eq!(pair.table.is_empty(), pair.model.is_empty());
            pair.table.catch_up();
            assert!(!pair.table.lags());
            if round % 6 == 0 {
                pair.check();
            }
        }
        // In order, and a key with many versions.
        let directory = directory(&mut pair.seeded);
        for number in 0..500u64 {
            pair.commit += 1;
            let key = if number < 300 { [0xff; 8].map(|_| number as u8).to_vec() } else { vec![1] };
            pair.insert(directory, key, pair.commit, None);
        }
        // A settled table lacks nothing either.
        pair.table.settle();
        pair.check();
    }
}

/// Late inserts may supersede versions: whoever began to read before, as of any commit, sees nothing of it.
#[test]
fn what_readers_see_is_never_superseded() {
    for (seed, keys) in (0..).zip(KINDS.repeat(4)) {
        let mut pair = Pair::new(seed, keys);
        let some: Vec<_> = (0..12).map(|_| pair.some_key()).collect();
        let (mut readers, mut seen) = (Vec::new(), 0);
        for round in 1..1500 {
            let (directory, key) = some[pair.seeded.below(12) as usize].clone();
            let value = vec![round as u8; [0, 3, 3, 40, 5000][pair.seeded.below(5) as usize]];
            let value = (pair.seeded.below(5) > 0).then_some(value);
            let entry = Entry {
                directory: DirectoryId(directory),
                key: &key,
                commit: Commit(round),
                value: value.as_deref(),
            };
            pair.table.insert_late(&entry, Some(Commit(seen)));
            pair.model.insert((directory, key, Reverse(round)), value);
            // Somebody begins to read as of the newest commit; or nobody reads any more.
            match pair.seeded.below(300) {
                0 => (readers, seen) = (Vec::new(), 0),
                1..20 => {
                    readers.push(round);
                    seen = round;
                }
                _ => {}
            }
        }
        readers.push(1499);
        pair.table.catch_up();
        check_tree(&pair.table);
        assert!(pair.table.entries() < pair.model.len() * 2 / 3, "{keys:?}: {:?}", pair.table);
        let all: BTreeSet<_> = some.into_iter().collect();
        for at in readers {
            let newest = |(id, key): &(u64, Vec<u8>)| {
                let versions = (*id, key.clone(), Reverse(at))..=(*id, key.clone(), Reverse(0));
                pair.model.range(versions).next().map(clone)
            };
            let expected: Vec<_> = all.iter().filter_map(newest).collect();
            let got =
                |(id, key): &(u64, Vec<u8>)| pair.table.get(DirectoryId(*id), key, Commit(at)).map(owned);
            assert!(all.iter().filter_map(got).eq(expected.iter().cloned()), "{keys:?}, as of {at}");
            // A scan finds the same: of each key the first that is not newer.
            let mut scanned: Vec<(Version, _)> = Vec::new();
            let mut position = pair.table.first_from(Place::Start);
            while let Some(here) = position {
                let (version, value) = owned(pair.table.entry(here));
                let same =
                    scanned.last().is_some_and(|(last, _)| (last.0, &last.1) == (version.0, &version.1));
                if version.2.0 <= at && !same {
                    scanned.push((version, value));
                }
                position = pair.table.next(here);
            }
            assert!(scanned == expected, "{keys:?}, as of {at}");
        }
    }
}

#[test]
fn a_key_written_again_and_again_takes_the_memory_of_one_where_nobody_reads_it() {
    let mut table = Memtable::new();
    let mut put = |key: &[u8], commit, value: Option<&[u8]>, unseen_after| {
        let entry = Entry { directory: DirectoryId(1), key, commit: Commit(commit), value };
        table.insert_late(&entry, unseen_after);
        table.catch_up();
        (table.entries(), table.memory(), table.weight())
    };
    for number in 0..1000u64 {
        put(&number.to_be_bytes(), 1, Some(&[1; 200]), None);
    }
    put(&[1; 8], 2, Some(&[1; 200]), None);
    let (entries, memory, weight) = put(&[1; 8], 3, Some(&[1; 200]), Some(Commit(1)));
    for commit in 4..100_000 {
        // A delete and a shorter value leave the room for a longer one.
        let value = [&[2; 200][..], &[2; 70]][commit as usize % 2];
        put(&[1; 8], commit, (commit % 3 > 0).then_some(value), Some(Commit(1)));
    }
    assert_eq!(put(&[1; 8], 100_000, Some(&[3; 200]), Some(Commit(1))), (entries, memory, weight));
    // With somebody who sees the newest version, one more is kept; a longer value is one more, too.
    assert_eq!(put(&[1; 8], 100_001, Some(&[4; 200]), Some(Commit(100_000))).0, entries + 1);
    assert_eq!(put(&[1; 8], 100_002, Some(&[5; 201]), Some(Commit(100_000))).0, entries + 2);
    let at =
        |commit| table.get(DirectoryId(1), &[1; 8], Commit(commit)).and_then(|entry| Some(entry.value?[0]));
    assert_eq!([at(2), at(100_000), at(100_001), at(100_002)], [None, Some(3), Some(4), Some(5)]);
}

/// Staging is inserting, however much is staged at once and whatever the table holds by then.
#[test]
fn what_was_staged_is_there_once_it_is_settled() {
    for (seed, keys) in (0..).zip(KINDS.repeat(4)) {
        let mut inserted = Pair::new(seed, keys);
        for _ in 0..1500 {
            inserted.commit();
        }
        let mut staged = Pair { put: Memtable::stage, ..Pair::new(seed, keys) };
        for round in 0..3 {
            for _ in 0..500 {
                staged.commit();
            }
            staged.table.settle();
            staged.check();
            // In order, each goes behind the last one.
            assert!(round > 0 || fill(&staged.table) > 0.9, "{keys:?} {}", fill(&staged.table));
        }
        assert_eq!(staged.model, inserted.model);
        // A key with many versions, as hot ones have.
        let (directory, key) = staged.some_key();
        for _ in 0..100 {
            staged.commit += 1;
            staged.insert(directory, key.clone(), staged.commit, Some(vec![1]));
        }
        staged.table.settle();
        staged.check();
    }
}

#[test]
fn keys_and_values_of_every_allowed_size_come_back() {
    use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    let mut pair = Pair::new(4, Keys::Tiny);
    let mut commit = 0;
    for size in [1, 2, 7, 8, 9, 15, 16, 17, 100, 4000, 5000, KEY_BYTES_MAX - 1, KEY_BYTES_MAX] {
        for last in [0, 1, 255] {
            for value in [0, 1, 4096, 130_000, 200_000] {
                let mut key = vec![0; size];
                key[size - 1] = last;
                commit += 1;
                pair.insert(commit % 2, key, commit, Some(vec![size as u8; value]));
            }
        }
    }
    pair.insert(0, vec![1; KEY_BYTES_MAX], 1, Some(vec![1; VALUE_BYTES_MAX]));
    pair.insert(0, vec![], 1, None);
    pair.insert(u64::MAX, vec![255; 16], u64::MAX, Some(vec![]));
    pair.insert(u64::MAX, vec![255; 17], 1, None);
    pair.check();
}

#[test]
fn long_keys_that_differ_only_at_their_end_stay_in_order() {
    let mut pair = Pair::new(5, Keys::Tiny);
    for round in 0..300 {
        let mut key = vec![b'x'; 16_000];
        key.extend(pair.seeded.below(200).to_string().bytes());
        pair.insert(1 + round % 2, key, round, None);
    }
    pair.check();
}

#[test]
fn runs_leave_full_leaves_and_scattered_inserts_leave_them_two_thirds_full() {
    let number = |n: u64| n.to_be_bytes().to_vec();
    let filled = |order: &mut dyn Iterator<Item = (u64, u64, u64)>| {
        let mut pair = Pair::new(6, Keys::Tiny);
        for (directory, key, commit) in order {
            pair.insert(directory, number(key), commit, None);
        }
        pair.check();
        fill(&pair.table)
    };
    let ascending = filled(&mut (0..5000).map(|n| (1, n, n)));
    assert!(ascending > 0.99, "{ascending}");
    let descending = filled(&mut (0..5000).rev().map(|n| (1, n, n)));
    assert!(descending > 0.9, "{descending}");
    let hot_key = filled(&mut [(1, 1, 1), (1, 3, 1)].into_iter().chain((1..5000).map(|n| (1, 2, n))));
    assert!(hot_key > 0.9, "{hot_key}");
    // Logs of twenty directories, written in turn.
    let logs = filled(&mut (0..10_000).map(|n| (n % 20, n / 20, n)));
    assert!(logs > 0.9, "{logs}");
    let mut seeded = Seeded(7);
    let scattered = filled(&mut (0..10_000).map(|n| (seeded.next(), 1, n)));
    assert!((0.6..0.8).contains(&scattered), "{scattered}");
}

#[test]
fn memory_is_small_when_little_is_held_and_near_the_data_when_much_is() {
    let mut table = Memtable::new();
    table.insert(DirectoryId(1), b"key", Commit(1), Some(b"value"));
    assert!(table.memory() < 16 << 10, "{}", table.memory());

    let mut seeded = Seeded(8);
    let (count, key_bytes, value_bytes) = (50_000, 24, 100);
    for commit in 0..count {
        let key = Keys::Random.make(&mut seeded);
        table.insert(DirectoryId(seeded.below(1000)), &key, Commit(commit), Some(&[7; 100]));
    }
    let overhead = table.memory() as u64 / count - (key_bytes + value_bytes);
    assert!((24..90).contains(&overhead), "{overhead} bytes an entry");

    let mut table = Memtable::new();
    for commit in 0..20 {
        table.insert(DirectoryId(1), b"key", Commit(commit), Some(&vec![7; 600_000]));
    }
    assert!(table.memory() < 20 * 601_000, "{}", table.memory());
}

#[test]
fn heads_tell_keys_apart_wherever_they_differ() {
    let mut seeded = Seeded(9);
    for directories in [1, 100, 2000] {
        for prefix in ["", "user:", "a prefix of thirty bytes less."] {
            let mut table = Memtable::new();
            for commit in 0..10_000 {
                let directory = DirectoryId(seeded.below(directories) << 16);
                let key = format!("{prefix}{:016}", seeded.next() >> 12);
                table.insert(directory, key.as_bytes(), Commit(commit), None);
            }
            check_tree(&table);
            let (mut ties, mut id) = (0, 0);
            while id != NO_NODE {
                ties += table.leaves[id].slots.ties();
                id = table.leaves[id].next;
            }
            assert!(ties < 100, "{ties} ties, {directories} directories, {prefix:?}");
        }
    }
}
