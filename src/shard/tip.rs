//! The tip of a shard: where the next commit goes, and all that came before it.
//!
//! A commit's record is applied here, live or replayed, by one function ([`Tip::apply`]): its operations go into
//! the live table, its number and size into the schedule. Where a window of the flush level closes, the table
//! freezes and the next one begins.

use super::record;
use super::schedule::Schedule;
use crate::entry::{DirectoryId, Entry};
use crate::levels::{Budget, Carry, Commit};
use crate::memtable::Memtable;
use crate::table::Table;
use crate::view::{Source, View};
use std::collections::VecDeque;
use std::rc::Rc;

/// What applying a record does with its operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Apply {
    /// They are to be read at once.
    Live {
        /// Of old commits none can be read as of, but by those who are reading already.
        newest_only: bool,
    },
    /// They are to be read when the replay is over, see [`Tip::settle`].
    Replayed,
    /// Nothing: a segment holds the commit. Only the schedule moves.
    Held,
}

/// See the module's text.
pub(crate) struct Tip {
    pub(crate) schedule: Schedule,
    /// The live table, which takes the next commit.
    pub(crate) active: Rc<Table>,
    /// Everything else.
    pub(crate) view: Rc<View>,
    /// The schedule where each table begins, oldest first.
    pub(crate) starts: VecDeque<Schedule>,
    /// Bytes of entries in the base, as the last finished fold left it.
    pub(crate) base_bytes: u64,
    /// Memory of the tables that are not live, in bytes.
    pub(crate) frozen_bytes: usize,
    /// Bytes of keys and values applied.
    pub(crate) bytes_in: u64,
}

impl Tip {
    /// A tip with nothing in memory, after the schedule's commit.
    pub(crate) fn new(schedule: Schedule, view: View, base_bytes: u64) -> Self {
        Tip {
            schedule,
            active: Table::new(schedule.at),
            view: Rc::new(view),
            starts: VecDeque::from([schedule]),
            base_bytes,
            frozen_bytes: 0,
            bytes_in: 0,
        }
    }

    /// The commit that comes next.
    pub(crate) fn next(&self) -> Commit {
        self.schedule.at.next()
    }

    /// Applies the next commit's record. Answers what falls due, and `None` where the bytes are no record.
    #[inline]
    pub(crate) fn apply(&mut self, record: &[u8], budget: &Budget, how: Apply) -> Option<Option<Carry>> {
        if how == Apply::Held {
            // Held by a segment, so it lies between the tables' spans.
            self.freeze_active();
        }
        let commit = self.next();
        let (mut weight, mut bytes) = (0, 0);
        let seen = self.active.seen();
        self.active.with_mut(|memtable| {
            record::each_op(record, |directory, key, value| {
                let entry = Entry { directory, key, commit, value };
                bytes += entry.size() as u64;
                weight += entry.weight();
                match how {
                    Apply::Live { newest_only } => {
                        // What merges look for in the engine's own directories may be an older version.
                        let supersede = newest_only && directory >= DirectoryId::FIRST_FREE;
                        memtable.insert_late(&entry, supersede.then_some(seen));
                    }
                    Apply::Replayed => memtable.stage(directory, key, commit, value),
                    Apply::Held => {}
                }
            })
        })?;
        self.bytes_in += bytes;
        if how != Apply::Held {
            self.active.extend(commit);
        }
        let carry = self.schedule.step(weight, self.base_bytes, budget);
        if carry.is_some() || how == Apply::Held {
            self.freeze_active();
        }
        Some(carry)
    }

    /// Ends a replay: all that it applied can be read.
    pub(crate) fn settle(&mut self) {
        self.active.with_mut(Memtable::settle);
    }

    /// Ends the live table, and begins the next one after the newest commit.
    pub(crate) fn freeze_active(&mut self) {
        let at = self.schedule.at;
        if self.active.span().is_empty() {
            // Nothing was in it: it just begins later.
            self.starts.pop_back();
        } else {
            let table = self.active.clone();
            table.freeze();
            self.frozen_bytes += table.memory();
            Rc::make_mut(&mut self.view).insert(Source::Table(table));
        }
        self.active = Table::new(at);
        self.starts.push_back(self.schedule);
    }

    /// The last commit of which nothing is needed from the log, given the tables of a view: where the oldest
    /// begins.
    pub(crate) fn floor_of(&self, view: &View) -> Commit {
        view.tables().next().unwrap_or(&self.active).span().after
    }

    /// The schedule as it stood at a floor. Were it not noted there, an older one would do: the log is replayed
    /// from the commit that it names.
    pub(crate) fn schedule_at(&self, floor: Commit) -> &Schedule {
        let start = self.starts.iter().rev().find(|start| start.at <= floor);
        debug_assert_eq!(
            start.map(|start| start.at),
            Some(floor),
            "a table begins where a schedule was noted"
        );
        start.or(self.starts.front()).unwrap_or(&self.schedule)
    }

    /// Replaces the view. Tables that froze since `view` was made are newer than all in it, and stay.
    pub(crate) fn show(&mut self, mut view: View, floor: Commit) {
        let newest = view.sources.first().map_or(view.base_end, |source| source.span().last);
        for source in self.view.sources.iter().rev().filter(|source| source.span().after >= newest) {
            view.insert(source.clone());
        }
        self.frozen_bytes = view.tables().map(|table| table.memory()).sum();
        self.view = Rc::new(view);
        while self.starts.len() > 1 && self.starts.front().is_some_and(|start| start.at < floor) {
            self.starts.pop_front();
        }
    }
}
