//! Reads of several keys that are in memory: source by source, and in each step by step, for all of them.
//!
//! See [`Memtable::get_each`](crate::memtable::Memtable::get_each) and [`get_each_now`].

use crate::cache::BlockCache;
use crate::segment::{Answered, Segment, Wanted, get_each_now};
use crate::table::Table;
use crate::view::{Frame, Source};
use bytes::Bytes;

/// Keys that are looked for, and what is known of them.
struct Search<'a> {
    frame: &'a Frame,
    cache: &'a BlockCache,
    /// The keys that no source has answered so far, and their places among all values.
    open: Vec<Wanted<'a>>,
    places: Vec<usize>,
    values: &'a mut Vec<Option<Bytes>>,
    unknown: &'a mut Vec<usize>,
}

/// Appends the values of keys, in their order; with it, to `unknown`, the places of values that have to be read.
pub(crate) fn get_now<'a>(
    frame: &Frame,
    cache: &BlockCache,
    wanted: impl ExactSizeIterator<Item = Wanted<'a>>,
    values: &mut Vec<Option<Bytes>>,
    unknown: &mut Vec<usize>,
) {
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

impl<'a> Search<'a> {
    fn table(&mut self, table: &Table) {
        let keys: Vec<_> = self.open.iter().map(|wanted| (wanted.directory, wanted.key)).collect();
        let mut answered = vec![false; keys.len()];
        table.with(|memtable| {
            memtable.get_each(&keys, self.frame.commit, |number, entry| {
                answered[number] = true;
                self.values[self.places[number]] = entry.value.map(Bytes::copy_from_slice);
            });
        });
        table.found(answered.iter().filter(|&&answered| answered).count() as u64);
        self.close(&answered);
    }

    /// Asks for each key the segment that can hold it, if there is one.
    fn segments(&mut self, segment_of: impl Fn(&Wanted<'a>) -> Option<&'a Segment>) {
        let answers = get_each_now(self.cache, &self.open, self.frame.commit, segment_of);
        let answered: Vec<bool> = answers.iter().map(|answer| *answer != Answered::Absent).collect();
        for (answer, &place) in answers.into_iter().zip(&self.places) {
            match answer {
                Answered::Absent => {}
                Answered::Found(found) => self.values[place] = found.value,
                Answered::Unknown => self.unknown.push(place),
            }
        }
        self.close(&answered);
    }

    /// Takes out the keys that were answered.
    fn close(&mut self, answered: &[bool]) {
        if answered.contains(&true) {
            let mut flags = answered.iter();
            self.open.retain(|_| !flags.next().is_some_and(|&answered| answered));
            let mut flags = answered.iter();
            self.places.retain(|_| !flags.next().is_some_and(|&answered| answered));
        }
    }
}
