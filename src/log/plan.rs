//! What to make of the log files found at open: a pure decision, apart from the I/O that carries it out.
//!
//! 1. Each file has a *run*: the groups from its first page on that carry its sequence number, follow each
//!    other without a gap, and chain (each `prev` is the checksum of the one before).
//! 2. Replay starts with the newest file whose run starts at or below the commit that is wanted first.
//! 3. After each group it looks for a newer file whose first group continues exactly there (same checksum, same
//!    commit) and goes on in the newest such; without one, it goes on in the run; at the run's end, it is done.
//!    So a group that reaches the disk behind a cut, even after the recovery that made the cut, is never
//!    taken: the file that was started at the cut comes first.
//! 4. Every intact group of the shard, wherever it lies, tells a commit up to which the log was durable, and so does
//!    every header. That stays true for ever. If replay ended below such a claim, the log is damaged, and is refused. (The
//!    header of a file that is used again tells it of what was in that file, should the floor be lost by which it was let go.)
//!
//! The rules as a lettered table: `docs/format.md`.

use super::format::{FileHeader, GroupHead};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use std::collections::BTreeMap;
use std::ops::Range;

/// An intact group and where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupAt {
    pub(super) offset: u64,
    pub(super) checksum: u64,
    pub(super) head: GroupHead,
}

impl GroupAt {
    /// Reads and checks the group that stands at `offset`, of exactly its padded length.
    pub(super) fn decode(offset: u64, bytes: &[u8], seed: u64) -> Option<GroupAt> {
        GroupHead::decode(bytes, seed).map(|(head, checksum)| GroupAt { offset, checksum, head })
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.head.padded_bytes()
    }
}

/// What a scan found in one file.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub(super) name: String,
    /// `None` where the first page holds no intact header.
    pub(super) header: Option<FileHeader>,
    /// Every intact group at a page boundary, of whatever sequence number, by offset.
    pub(super) groups: Vec<GroupAt>,
}

impl Scanned {
    /// The sequence number the file counts under; 0 where it holds nothing. A file whose header is damaged
    /// counts under its first group's: should replay need it, the damage comes to light.
    fn sequence(&self) -> u64 {
        let first = self.groups.first().filter(|group| group.offset == PAGE_BYTES as u64);
        self.header.map_or(first.map_or(0, |group| group.head.sequence), |header| header.sequence)
    }

    /// The groups that were written one after the other under the file's sequence number.
    fn run(&self) -> &[GroupAt] {
        let sequence = self.sequence();
        let mut end = PAGE_BYTES as u64;
        let mut before: Option<&GroupAt> = None;
        let count = self
            .groups
            .iter()
            .take_while(|group| {
                let chained = before.is_none_or(|before| {
                    group.head.prev == before.checksum && group.head.first == before.head.next()
                });
                let follows =
                    sequence != 0 && group.head.sequence == sequence && group.offset == end && chained;
                end = group.end();
                before = Some(group);
                follows
            })
            .count();
        &self.groups[..count]
    }
}

/// Groups of one file that are to be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Portion {
    /// The file's index in what was passed in.
    pub(super) file: usize,
    /// The groups' indexes in [`Scanned::groups`].
    pub(super) groups: Range<usize>,
}

/// What recovery is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// The groups to replay, in order. They may begin below the floor.
    pub(super) replay: Vec<Portion>,
    /// The last commit that there is: of the log, or the floor if that is higher.
    pub(super) last: Commit,
    /// The checksum that the next group's `prev` must carry; 0 to begin a new chain.
    pub(super) chain: u64,
    /// What the last group of the chain says is durable.
    pub(super) claimed: Commit,
    /// The sequence number for the next file.
    pub(super) sequence_next: u64,
    /// Files that hold commits above the floor, oldest first, each with its last commit.
    pub(super) keep: Vec<(usize, Commit)>,
    /// The file and offset to go on at, where the log was closed cleanly there.
    pub(super) resume: Option<(usize, u64)>,
}

/// Decides; see the module. `floor`: the commits up to it are not wanted, they are in segments.
pub(super) fn plan(files: &[Scanned], floor: Commit) -> Result<Plan> {
    let runs: Vec<&[GroupAt]> = files.iter().map(Scanned::run).collect();
    let mut order: Vec<usize> = (0..files.len()).filter(|&file| !runs[file].is_empty()).collect();
    order.sort_by_key(|&file| files[file].sequence());

    // Where a file's first group continues another group. Of several the newest is inserted last, and stays.
    let starts: BTreeMap<(u64, Commit), usize> =
        order.iter().map(|&file| ((runs[file][0].head.prev, runs[file][0].head.first), file)).collect();

    let mut replay: Vec<Portion> = Vec::new();
    let mut at =
        order.iter().rev().copied().find(|&file| runs[file][0].head.first.0 <= floor.0.saturating_add(1));
    while let Some(file) = at.take() {
        let mut taken = 0;
        for group in runs[file] {
            taken += 1;
            let newer = starts.get(&(group.checksum, group.head.next())).copied();
            at = newer.filter(|&newer| files[newer].sequence() > files[file].sequence());
            if at.is_some() {
                break;
            }
        }
        replay.push(Portion { file, groups: 0..taken });
    }

    let mut end: Option<(usize, &GroupAt)> = None;
    let mut keep = Vec::new();
    for portion in &replay {
        let Some(group) = runs[portion.file][portion.groups.clone()].last() else { continue };
        end = Some((portion.file, group));
        let last = Commit(group.head.next().0.saturating_sub(1));
        if last > floor {
            if files[portion.file].header.is_none() {
                return Err(Error::damaged(&files[portion.file].name, 0, "the header of a log file in use"));
            }
            keep.push((portion.file, last));
        }
    }

    let log_last = end.map_or(Commit(0), |(_, group)| Commit(group.head.next().0.saturating_sub(1)));
    let last = log_last.max(floor);
    refuse_if_more_was_durable(files, &runs, end, last)?;

    let sequences = files
        .iter()
        .flat_map(|file| file.groups.iter().map(|group| group.head.sequence).chain([file.sequence()]));
    let sequence_max = sequences.max().unwrap_or(0);
    // A log that ends below the floor has a gap behind it: nothing in it can be continued.
    let end = end.filter(|_| log_last >= floor);
    let resume = end.and_then(|(file, group)| {
        let header = files[file].header?;
        (group.head.count == 0 && header.sealed_at == group.end()).then_some((file, group.end()))
    });
    Ok(Plan {
        replay,
        last,
        chain: end.map_or(0, |(_, group)| group.checksum),
        claimed: end.map_or(floor, |(_, group)| group.head.durable),
        // Two up, not one: a header that was being written when the process died may reach the disk yet.
        sequence_next: sequence_max.saturating_add(2),
        keep,
        resume,
    })
}

/// Rule 4: refuses a log of which some group says that more than `last` was durable.
fn refuse_if_more_was_durable(
    files: &[Scanned],
    runs: &[&[GroupAt]],
    end: Option<(usize, &GroupAt)>,
    last: Commit,
) -> Result<()> {
    let claims = files.iter().flat_map(|file| {
        let groups = file.groups.iter().map(move |group| (file, group.offset, group.head.durable));
        file.header.map(|header| (file, 0, header.durable)).into_iter().chain(groups)
    });
    let Some((claimant, claimed_at, claimed)) = claims.max_by_key(|&(_, _, durable)| durable) else {
        return Ok(());
    };
    if claimed <= last {
        return Ok(());
    }
    let page = PAGE_BYTES as u64;
    // The gap is behind the last group that replay reached; or at the start of the next file, if that file
    // was begun, has nothing to show, and nothing was written to the earlier one any more.
    let (file, offset) = match end {
        Some((file, group)) => {
            let sequence = files[file].sequence();
            let more =
                files[file].groups.iter().any(|at| at.offset > group.offset && at.head.sequence == sequence);
            let next = (0..files.len())
                .filter(|&next| files[next].sequence() > sequence)
                .min_by_key(|&next| files[next].sequence());
            match next {
                Some(next) if !more && runs[next].is_empty() => (next, page),
                _ => (file, group.end()),
            }
        }
        None => {
            let oldest = (0..files.len()).filter(|&file| files[file].sequence() > 0);
            let oldest = oldest.min_by_key(|&file| files[file].sequence());
            (oldest.unwrap_or(0), page)
        }
    };
    let why = format!(
        "the log breaks off after commit {last}, but {} says at byte {claimed_at} that commits up to {claimed} were \
         durable",
        claimant.name
    );
    Err(Error::Damaged {
        file: files[file].name.clone(),
        offset,
        why,
        window: Some((Commit(last.0.saturating_add(1)), claimed)),
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)] // a test that cannot go on says why
mod tests {
    use super::super::format::{Identity, VERSION};
    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    /// A file of one-page groups, each (prev, checksum, first commit, commits, durable).
    fn file(name: &str, sequence: u64, groups: &[(u64, u64, u64, u32, u64)]) -> Scanned {
        let identity = Identity { engine: 1, shard: 1 };
        let durable = Commit::ZERO;
        let header =
            FileHeader { version: VERSION, identity, sequence, file_bytes: 0, durable, sealed_at: 0 };
        let group =
            |(index, &(prev, checksum, first, count, durable)): (usize, &(u64, u64, u64, u32, u64))| {
                let (first, durable) = (Commit(first), Commit(durable));
                let head = GroupHead { sequence, prev, first, count, durable, payload_bytes: 9 };
                GroupAt { offset: PAGE * (1 + index as u64), checksum, head }
            };
        Scanned {
            name: name.into(),
            header: Some(header),
            groups: groups.iter().enumerate().map(group).collect(),
        }
    }

    fn last(files: &[Scanned], floor: u64) -> u64 {
        plan(files, Commit(floor)).expect("an intact log").last.0
    }

    #[test]
    fn a_run_ends_where_a_group_does_not_continue_the_one_before() {
        let good = file("a", 5, &[(0, 11, 1, 2, 0), (11, 12, 3, 2, 0), (12, 13, 5, 1, 0)]);
        assert_eq!(last(std::slice::from_ref(&good), 0), 5);
        let breaks: [fn(&mut GroupAt); 4] = [
            |group| group.head.prev = 99,
            |group| group.head.first = Commit(4),
            |group| group.head.sequence = 4,
            |group| group.offset += PAGE,
        ];
        for (index, breaks) in breaks.iter().enumerate() {
            let mut bad = good.clone();
            breaks(&mut bad.groups[1]);
            assert_eq!(last(&[bad], 0), 2, "break {index}");
        }
    }

    #[test]
    fn the_newest_file_that_continues_a_group_goes_first() {
        let old = file("a", 5, &[(0, 11, 1, 2, 0), (11, 12, 3, 2, 0), (12, 13, 5, 4, 0)]);
        let next = file("b", 6, &[(13, 14, 9, 9, 0)]);
        let cut = file("c", 8, &[(11, 21, 3, 1, 0)]);
        let again = file("d", 10, &[(11, 31, 3, 2, 0)]);
        let stale = file("e", 4, &[(31, 41, 5, 5, 0)]);
        assert_eq!(last(&[next.clone(), old.clone()], 0), 17);
        assert_eq!(last(&[next.clone(), cut.clone(), old.clone()], 0), 3);
        assert_eq!(last(&[again, next, cut, old, stale], 0), 4);
    }

    #[test]
    fn a_claim_above_the_end_refuses_wherever_it_lies() {
        let log = file("a", 5, &[(0, 11, 1, 2, 0), (11, 12, 3, 2, 2)]);
        let lost = file("b", 7, &[(77, 78, 9, 1, 5)]);
        let files = [log, lost];
        let refused = plan(&files, Commit(0));
        let Err(Error::Damaged { file, offset, window, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((file.as_str(), offset, window), ("a", 3 * PAGE, Some((Commit(5), Commit(5)))));
        assert_eq!(last(&files, 5), 5, "the claimed commit is in segments");
    }

    #[test]
    fn a_header_claims_what_was_in_the_file_before() {
        let mut again = file("b", 7, &[]);
        again.header = again.header.map(|header| FileHeader { durable: Commit(9), ..header });
        let files = [file("a", 5, &[(0, 11, 1, 2, 0)]), again];
        let refused = plan(&files, Commit(8));
        let Err(Error::Damaged { file, window, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((file.as_str(), window), ("b", Some((Commit(9), Commit(9)))));
        assert_eq!(last(&files, 9), 9, "the claimed commit is in segments");
    }

    #[test]
    fn a_log_below_the_floor_begins_a_new_chain() {
        let files = [file("a", 5, &[(0, 11, 1, 2, 0)])];
        let plan = plan(&files, Commit(7)).expect("an intact log");
        assert_eq!((plan.last, plan.chain, plan.keep.len()), (Commit(7), 0, 0));
        assert_eq!(plan.sequence_next, 7);
    }
}
