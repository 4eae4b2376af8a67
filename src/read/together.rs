//! Reads of several keys that are in memory: source by source, and in each step by step, for all of them.
//!
//! See [`Memtable::get_each`](crate::memtable::Memtable::get_each) and [`get_each_now`].

use crate::cache::BlockCache;
use crate::segment::{Answered, Segment, VALUE_SHARED_BYTES_MIN, Wanted, get_each_now};
use crate::table::Table;
use crate::view::{Frame, Source};
use bytes::Bytes;
use smallvec::SmallVec;

/// The most keys that are looked for together: as many as a [`KeySet`] has room for.
pub(crate) const KEYS_TOGETHER_MAX: usize = KeySet::BITS as usize;

/// Some of the keys, by their numbers.
type KeySet = u64;

/// Values of keys that are looked for together, in the order of the keys.
#[derive(Default)]
pub(crate) struct Values {
    all: Vec<Option<Bytes>>,
    /// Short values share memory, and keep that of each other.
    shares: bool,
    /// Those of the keys at hand that do, one behind another, and of each its place among all values and where it ends.
    short: Vec<u8>,
    ends: SmallVec<[(usize, usize); KEYS_TOGETHER_MAX]>,
}

impl Values {
    /// For whoever gets all of them: what is short shares memory with up to [`KEYS_TOGETHER_MAX`] neighbours, which takes less time
    /// than memory for each.
    pub(crate) fn of_one_reader(keys: usize) -> Self {
        Values { all: Vec::with_capacity(keys), shares: true, ..Values::default() }
    }

    /// In the keys' order.
    pub(crate) fn into_vec(self) -> Vec<Option<Bytes>> {
        self.all
    }

    /// Takes them out, in the keys' order; the memory of the list stays.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Option<Bytes>> {
        self.all.drain(..)
    }

    /// A value that is copied.
    #[inline]
    fn copy(&mut self, place: usize, value: &[u8]) {
        if !self.shares || value.len() >= VALUE_SHARED_BYTES_MIN {
            self.all[place] = Some(Bytes::copy_from_slice(value));
            return;
        }
        if self.short.capacity() == 0 {
            // Mostly they are about as long.
            self.short.reserve(value.len() * (self.all.len() - place).min(KEYS_TOGETHER_MAX));
        }
        self.short.extend_from_slice(value);
        self.ends.push((place, self.short.len()));
    }

    /// The keys at hand have been looked for.
    fn settle(&mut self) {
        let mut short = std::mem::take(&mut self.short);
        if short.len() < short.capacity() / 2 {
            short.shrink_to_fit();
        }
        let short = Bytes::from(short);
        let mut start = 0;
        for (place, end) in self.ends.drain(..) {
            self.all[place] = Some(short.slice(std::mem::replace(&mut start, end)..end));
        }
    }
}

/// Keys that are looked for, and what is known of them.
struct Search<'a, 'k> {
    frame: &'a Frame,
    cache: &'a BlockCache,
    /// The keys that no source has answered so far, and their places among all values.
    open: SmallVec<[Wanted<'k>; KEYS_TOGETHER_MAX]>,
    places: SmallVec<[usize; KEYS_TOGETHER_MAX]>,
    values: &'a mut Values,
    unknown: &'a mut Vec<usize>,
}

/// Appends the values of keys, in their order; with it, to `unknown`, the places of values that have to be read. There are at most
/// [`KEYS_TOGETHER_MAX`] keys.
pub(crate) fn get_now<'k>(
    frame: &Frame,
    cache: &BlockCache,
    wanted: impl ExactSizeIterator<Item = Wanted<'k>>,
    values: &mut Values,
    unknown: &mut Vec<usize>,
) {
    debug_assert!(wanted.len() <= KEYS_TOGETHER_MAX);
    let first = values.all.len();
    values.all.resize(first + wanted.len(), None);
    let (places, open) = ((first..first + wanted.len()).collect(), wanted.collect());
    Search { frame, cache, open, places, values, unknown }.all();
    values.settle();
}

impl<'a, 'k> Search<'a, 'k> {
    /// Asks one source after another, until all keys are answered.
    fn all(&mut self) {
        let frame = self.frame;
        self.table(&frame.active);
        for source in &frame.view.sources {
            if self.open.is_empty() {
                return;
            }
            match source {
                _ if source.span().after >= frame.commit => {}
                Source::Table(table) => self.table(table),
                Source::Segment(segment) => self.segments(|_| Some(segment)),
            }
        }
        self.segments(|wanted| frame.view.part_of(wanted.directory, wanted.key).map(|part| &*part.segment));
    }

    fn table(&mut self, table: &Table) {
        let mut answered = KeySet::default();
        let key_of = |wanted: &Wanted<'k>| (wanted.directory, wanted.key);
        table.with(|memtable| {
            memtable.get_each(&self.open, key_of, self.frame.commit, |number, entry| {
                answered |= 1 << number;
                if let Some(value) = entry.value {
                    self.values.copy(self.places[number], value);
                }
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
            let place = self.places[number];
            match answer {
                Answered::Found(block, at) => match block.entry(at) {
                    entry if !entry.is_put => {}
                    entry if entry.value.len() < VALUE_SHARED_BYTES_MIN => {
                        self.values.copy(place, entry.value)
                    }
                    _ => self.values.all[place] = Some(block.value_shared(at)),
                },
                Answered::Unknown => self.unknown.push(place),
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
