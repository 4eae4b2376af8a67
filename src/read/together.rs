//! Reads of several keys that are in memory: source by source, and in each step by step, for all of them.
//!
//! See [`Memtable::get_each`](crate::memtable::Memtable::get_each) and [`get_each_now`].

use crate::cache::BlockCache;
use crate::segment::{Answered, Segment, Wanted, get_each_now};
use crate::table::Table;
use crate::view::{Frame, Source};
use bytes::Bytes;
use smallvec::SmallVec;

/// The most keys that are looked for together: as many as a [`KeySet`] has room for.
pub(crate) const KEYS_TOGETHER_MAX: usize = KeySet::BITS as usize;

/// Some of the keys, by their numbers.
type KeySet = u64;

/// Keys that are looked for, and what is known of them.
struct Search<'a, 'k> {
    frame: &'a Frame,
    cache: &'a BlockCache,
    /// The keys that no source has answered so far, and their places among all values.
    open: SmallVec<[Wanted<'k>; KEYS_TOGETHER_MAX]>,
    places: SmallVec<[usize; KEYS_TOGETHER_MAX]>,
    values: &'a mut Vec<Option<Bytes>>,
    unknown: &'a mut Vec<usize>,
}

/// Appends the values of keys, in their order; with it, to `unknown`, the places of values that have to be read. There are at most
/// [`KEYS_TOGETHER_MAX`] keys.
pub(crate) fn get_now<'k>(
    frame: &Frame,
    cache: &BlockCache,
    wanted: impl ExactSizeIterator<Item = Wanted<'k>>,
    values: &mut Vec<Option<Bytes>>,
    unknown: &mut Vec<usize>,
) {
    debug_assert!(wanted.len() <= KEYS_TOGETHER_MAX);
    let first = values.len();
    values.resize(first + wanted.len(), None);
    let (places, open) = ((first..first + wanted.len()).collect(), wanted.collect());
    let mut search = Search { frame, cache, open, places, values, unknown };
    search.table(&frame.active);
    for source in &frame.view.sources {
        if search.open.is_empty() {
            return;
        }
        match source {
            _ if source.span().after >= frame.commit => {}
            Source::Table(table) => search.table(table),
            Source::Segment(segment) => search.segments(|_| Some(segment)),
        }
    }
    search.segments(|wanted| frame.view.part_of(wanted.directory, wanted.key).map(|part| &*part.segment));
}

impl<'a, 'k> Search<'a, 'k> {
    fn table(&mut self, table: &Table) {
        let mut answered = KeySet::default();
        let key_of = |wanted: &Wanted<'k>| (wanted.directory, wanted.key);
        table.with(|memtable| {
            memtable.get_each(&self.open, key_of, self.frame.commit, |number, entry| {
                answered |= 1 << number;
                self.values[self.places[number]] = entry.value.map(Bytes::copy_from_slice);
            });
        });
        table.found(answered.count_ones().into());
        self.close(answered);
    }

    /// Asks for each key the segment that can hold it, if there is one.
    fn segments(&mut self, segment_of: impl Fn(&Wanted<'k>) -> Option<&'a Segment>) {
        let mut answered = KeySet::default();
        get_each_now(self.cache, &self.open, self.frame.commit, segment_of, |number, answer| {
            answered |= 1 << number;
            match answer {
                Answered::Found(found) => self.values[self.places[number]] = found.value,
                Answered::Unknown => self.unknown.push(self.places[number]),
            }
        });
        self.close(answered);
    }

    /// Takes out the keys that were answered.
    fn close(&mut self, answered: KeySet) {
        if answered == 0 {
            return;
        }
        let mut left = 0;
        for number in (0..self.open.len()).filter(|number| answered >> number & 1 == 0) {
            (self.open[left], self.places[left]) = (self.open[number], self.places[number]);
            left += 1;
        }
        self.open.truncate(left);
        self.places.truncate(left);
    }
}
