//! The replay of what most likely is the log, while its files are still being read.
//!
//! What the log is can be decided only when every file was read to its end ([`super::plan`]). But mostly it is what the
//! heads of the files promise: the newest file that begins at or below the commit that is wanted first, as long as
//! its groups follow each other, then the next newer file. So the files are read in that order, and each group that
//! continues the one before is replayed as soon as it is read. If the plan then says the same, recovery has read and checked
//! everything once. If not, the replay begins anew and goes by the plan.

use super::format::GROUP_HEADER_BYTES;
use super::plan::{GroupAt, Portion};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;

/// What takes up the records of a log.
pub(crate) trait Replay {
    /// Takes up a commit's record. Commits come in order, without gaps, from the one behind the floor on.
    fn apply(&mut self, commit: Commit, record: &[u8]) -> Result<()>;

    /// Forgets all that was taken up; what comes next begins behind the floor again.
    fn restart(&mut self);
}

/// What a file promises at its start, before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// The header's sequence number.
    pub(super) sequence: u64,
    /// The first commit of its first group.
    pub(super) first: Commit,
}

/// The files in the order to read them: those that the log likely is in, then the others.
pub(super) fn reading_order(promises: &[Option<Promise>], floor: Commit) -> Vec<usize> {
    let mut order: Vec<usize> = (0..promises.len()).collect();
    order.sort_by_key(|&file| promises[file].map_or(0, |promise| promise.sequence));
    let begins =
        |&file: &usize| promises[file].is_some_and(|promise| promise.first.0 <= floor.0.saturating_add(1));
    let older = order.iter().rposition(begins).unwrap_or(0);
    order.rotate_left(older);
    order
}

/// Hands the records of an intact group above `floor` to `replay`.
pub(super) fn replay_group(
    name: &str,
    group: &GroupAt,
    bytes: &[u8],
    floor: Commit,
    replay: &mut dyn Replay,
) -> Result<()> {
    let payload_at = group.offset + GROUP_HEADER_BYTES as u64;
    let damaged = |at: u64, why: &str| Error::damaged(name, at, why);
    let mut records = group.head.records(bytes).ok_or_else(|| damaged(payload_at, "no records"))?;
    for index in 0..u64::from(group.head.count) {
        let at = payload_at + u64::from(group.head.payload_bytes) - records.remaining() as u64;
        let record = records.prefixed().ok_or_else(|| damaged(at, "a record that makes no sense"))?;
        let commit = Commit(group.head.first.0 + index);
        if commit > floor {
            replay.apply(commit, record)?;
        }
    }
    if !records.is_empty() {
        return Err(damaged(payload_at, "bytes behind the last record of a group"));
    }
    Ok(())
}

/// See the module.
pub(super) struct Guess<'a> {
    replay: &'a mut dyn Replay,
    floor: Commit,
    /// The last group that was replayed, and its file.
    end: Option<(usize, GroupAt)>,
    /// The groups replayed, as a plan lists them.
    replayed: Vec<Portion>,
    /// Whether some record made no sense. If the plan has it, its replay says so.
    failed: bool,
}

impl<'a> Guess<'a> {
    pub(super) fn new(replay: &'a mut dyn Replay, floor: Commit) -> Self {
        Guess { replay, floor, end: None, replayed: Vec::new(), failed: false }
    }

    /// Takes the next group of a file, whose header has that sequence number.
    pub(super) fn offer(&mut self, file: usize, sequence: u64, group: &GroupAt, bytes: &[u8]) {
        let starts_file = group.offset == PAGE_BYTES as u64;
        let continues = match &self.end {
            None => starts_file && group.head.first.0 <= self.floor.0.saturating_add(1),
            Some((before_file, before)) => {
                let lies_behind =
                    if *before_file == file { group.offset == before.end() } else { starts_file };
                lies_behind && group.head.prev == before.checksum && group.head.first == before.head.next()
            }
        };
        if self.failed || !continues || group.head.sequence != sequence {
            return;
        }
        match self.replayed.last_mut() {
            Some(portion) if portion.file == file => portion.groups.end += 1,
            _ => self.replayed.push(Portion { file, groups: 0..1 }),
        }
        self.end = Some((file, *group));
        self.failed = replay_group("", group, bytes, self.floor, self.replay).is_err();
    }

    /// Whether what was replayed is what the plan lists.
    pub(super) fn is(self, planned: &[Portion]) -> bool {
        !self.failed && self.replayed == planned
    }
}

/// The records of a replay, for tests.
#[cfg(any(fuzzing, test))]
#[derive(Default)]
pub(super) struct Records {
    floor: u64,
    pub(super) seen: Vec<(u64, Vec<u8>)>,
}

#[cfg(any(fuzzing, test))]
impl Records {
    pub(super) fn behind(floor: Commit) -> Records {
        Records { floor: floor.0, seen: Vec::new() }
    }
}

#[cfg(any(fuzzing, test))]
impl Replay for Records {
    fn apply(&mut self, commit: Commit, record: &[u8]) -> Result<()> {
        let before = self.seen.last().map_or(self.floor, |&(commit, _)| commit);
        assert_eq!(Some(commit.0), before.checked_add(1), "commits come one by one");
        self.seen.push((commit.0, record.to_vec()));
        Ok(())
    }

    fn restart(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_from_the_one_that_holds_the_first_commit_wanted() {
        let file = |sequence, first| Some(Promise { sequence, first: Commit(first) });
        let files = [file(7, 30), None, file(5, 10), file(9, 40), file(6, 20)];
        assert_eq!(reading_order(&files, Commit(0)), [1, 2, 4, 0, 3], "none does");
        assert_eq!(reading_order(&files, Commit(9)), [2, 4, 0, 3, 1]);
        assert_eq!(reading_order(&files, Commit(28)), [4, 0, 3, 1, 2]);
        assert_eq!(reading_order(&files, Commit(29)), [0, 3, 1, 2, 4]);
        assert_eq!(reading_order(&files, Commit(u64::MAX)), [3, 1, 2, 4, 0]);
        assert_eq!(reading_order(&[], Commit(3)), [0; 0]);
    }
}
