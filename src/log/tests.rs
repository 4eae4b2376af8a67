//! Properties of the log: what comes back after a crash, and what is refused.

use super::guess::Records;
use super::testdisk::{FailOn, Fate, MemDisk, Random};
use super::*;
use std::collections::BTreeSet;
use std::io::ErrorKind;

const IDENTITY: Identity = Identity { engine: 0xfeed, shard: 3 };
const PAGE: u64 = PAGE_BYTES as u64;

/// Small files: a header and `pages - 1` pages of groups.
fn options(pages: u64) -> LogOptions {
    LogOptions { file_bytes: pages * PAGE, files_max: 4, depth: 4, group_bytes_max: PAGE_BYTES * 2 }
}

struct Opened {
    io: Io,
    log: Log,
    records: Vec<(u64, Vec<u8>)>,
}

/// Opens the log; `None` where the disk crashed first.
fn open(disk: &MemDisk, options: LogOptions, floor: u64) -> Option<Result<Opened>> {
    let io = disk.io();
    let floor = Commit(floor);
    let mut records = Records::behind(floor);
    let log = disk.run(&io, Log::recover(&io, options, IDENTITY, floor, Commit(0), &mut records))?;
    Some(log.map(|log| Opened { io, log, records: records.seen }))
}

fn must_open(disk: &MemDisk, options: LogOptions, floor: u64) -> Opened {
    open(disk, options, floor).expect("no crash").expect("an intact log")
}

/// The record of a commit; `era` tells apart what was written under one number before and after a cut.
fn record(commit: u64, era: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(commit << 16 | era);
    std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(bytes).collect()
}

impl Opened {
    /// Pumps until everything that was staged is durable and a spare is ready.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.log.start_writes();
            self.io.pump();
            self.log.poll().expect("no failure");
            let settled = self.log.in_flight() == 0 && self.log.staged().0 == 0;
            if settled && (self.log.spare.is_some() || self.log.preparing.is_none()) {
                return;
            }
        }
        panic!("the log does not settle");
    }

    /// Stages one commit of `bytes` bytes and starts its write.
    fn commit(&mut self, era: u64, bytes: usize) -> u64 {
        let commit = self.log.last().0 + 1;
        assert!(self.log.room_for(bytes));
        self.log.stage(Commit(commit), &record(commit, era, bytes));
        self.log.start_writes();
        commit
    }
}

#[test]
fn what_is_acknowledged_survives_any_history_of_crashes() {
    for seed in 0..40 {
        history(seed);
    }
}

/// Opens, commits, releases and crashes at random; the model is the list of commits.
fn history(seed: u64) {
    let mut random = Random(seed);
    let options = LogOptions {
        file_bytes: [4, 6, 16][random.below(3) as usize] * PAGE,
        files_max: 2 + random.below(4) as usize,
        depth: 1 + random.below(5) as usize,
        group_bytes_max: PAGE_BYTES * (1 + random.below(3) as usize),
    };
    let mut disk = MemDisk::new(seed);
    let mut model: Vec<Vec<u8>> = Vec::new();
    let (mut floor, mut acknowledged) = (0, 0);
    for era in 0..12 {
        if random.below(2) == 0 {
            disk.crash_after(random.below(120));
        }
        let Some(opened) = open(&disk, options, floor) else {
            disk = disk.crash(Fate::Drawn(&mut random));
            continue;
        };
        let mut opened = opened.unwrap_or_else(|error| panic!("seed {seed}, era {era}: {error}"));
        let last = opened.log.last().0;
        assert!(last >= acknowledged.max(floor), "seed {seed}, era {era}: acknowledged commits are gone");
        assert!(last <= model.len() as u64, "seed {seed}: a phantom");
        assert_eq!(opened.records.len() as u64, last - floor, "seed {seed}, era {era}: a hole");
        for (index, (commit, bytes)) in opened.records.iter().enumerate() {
            assert_eq!(*commit, floor + 1 + index as u64);
            assert!(*bytes == model[*commit as usize - 1], "seed {seed}, era {era}: commit {commit} differs");
        }
        model.truncate(last as usize);
        acknowledged = last;
        for _ in 0..random.below(120) {
            let log = &mut opened.log;
            match random.below(8) {
                0..=2 => {
                    let bytes = [20, 700, 3000, 9000][random.below(4) as usize] as usize;
                    let bytes = bytes.min(log.record_bytes_max());
                    if log.room_for(bytes) {
                        let commit = log.last().0 + 1;
                        let record = record(commit, seed << 8 | era, bytes);
                        log.stage(Commit(commit), &record);
                        model.push(record);
                    }
                }
                3 => drop(log.start_writes()),
                4 | 5 => drop(opened.io.pump()),
                6 => {
                    if let Some(durable) = log.poll().expect("no failure") {
                        assert!(durable.0 > acknowledged && durable.0 <= model.len() as u64);
                        acknowledged = durable.0;
                    }
                }
                _ => {
                    if random.below(6) == 0 {
                        // Now and then segments hold more than the log has made durable.
                        let end = if random.below(4) == 0 { log.last().0 } else { log.durable().0 };
                        floor = floor.max(end.saturating_sub(random.below(5)));
                        log.release(Commit(floor));
                    }
                }
            }
            assert!(
                opened.log.staged().1
                    <= options.depth * options.group_bytes_max + options.file_bytes as usize
            );
        }
        if random.below(4) == 0 {
            match disk.run(&opened.io, opened.log.seal()) {
                Some(Ok(())) => acknowledged = opened.log.last().0,
                Some(Err(error)) => assert!(matches!(error, Error::NoSpace { .. }), "seed {seed}: {error}"),
                None => {}
            }
        }
        disk = match random.below(8) {
            0 => disk.crash(Fate::Lost),
            1 => disk.crash(Fate::Kept),
            _ => disk.crash(Fate::Drawn(&mut random)),
        };
    }
}

#[test]
fn each_subset_of_the_writes_in_flight_leaves_the_prefix_without_a_gap() {
    // Files of three groups: four writes in flight always cross from one file to the next.
    let options = LogOptions { files_max: 8, ..options(4) };
    for before in 0..3u64 {
        let disk = MemDisk::new(before);
        let mut opened = must_open(&disk, options, 0);
        for _ in 0..before {
            opened.commit(0, 100);
        }
        opened.settle();
        for _ in 0..4 {
            opened.commit(0, 100);
        }
        assert_eq!(disk.writes_queued(), 4);
        for subset in 0..16u32 {
            let mut disk = disk.crash(Fate::Chosen(&|index| subset >> index & 1 == 1));
            let kept = before + u64::from(subset.trailing_ones());
            // The second life writes other records under the lost numbers, and crashes the same way.
            let mut second = must_open(&disk, options, 0);
            assert_eq!(second.log.last().0, kept, "subset {subset:04b}");
            second.settle();
            for _ in 0..3 {
                second.commit(1, 100);
            }
            for again in 0..8u32 {
                let mut disk = disk.crash(Fate::Chosen(&|index| again >> index & 1 == 1));
                for _ in 0..2 {
                    let third = must_open(&disk, options, 0);
                    let end = kept + u64::from(again.trailing_ones());
                    let expected = (1..=end).map(|n| (n, record(n, u64::from(n > kept), 100)));
                    assert_eq!(third.records, expected.collect::<Vec<_>>(), "{subset:04b}, {again:03b}");
                    disk = disk.crash(Fate::Kept);
                }
            }
            disk = disk.crash(Fate::Lost);
            assert_eq!(must_open(&disk, options, 0).log.last().0, kept);
        }
    }
}

#[test]
fn a_crash_at_any_completion_of_recovery_changes_nothing() {
    let options = options(4);
    let disk = MemDisk::new(5);
    let mut opened = must_open(&disk, options, 0);
    for _ in 0..5 {
        opened.commit(0, 2000);
        opened.settle();
    }
    for _ in 0..3 {
        opened.commit(0, 2000);
    }
    let image = disk.crash(Fate::Chosen(&|index| index != 1));
    let expected: Vec<_> = (1..=6).map(|n| (n, record(n, 0, 2000))).collect();
    let mut points = 0;
    for after in 0.. {
        let disk = image.copy();
        disk.crash_after(after);
        let done = open(&disk, options, 0).is_some();
        for fate in [Fate::Lost, Fate::Kept, Fate::Drawn(&mut Random(after))] {
            let disk = disk.crash(fate);
            assert_eq!(must_open(&disk, options, 0).records, expected, "after {after}");
        }
        if done {
            break;
        }
        points = after;
    }
    assert!(points > 10, "recovery has more steps than {points}");
}

/// A log of `commits` commits, each durable before the next, over several files.
fn durable_log(commits: u64, seal: bool) -> MemDisk {
    let disk = MemDisk::new(commits);
    let mut opened = must_open(&disk, options(6), 0);
    opened.settle();
    for _ in 0..commits {
        opened.commit(0, 3000);
        opened.settle();
    }
    if seal {
        disk.run(&opened.io, opened.log.seal()).expect("no crash").expect("sealed");
    }
    disk.copy()
}

#[test]
fn a_flipped_byte_before_the_last_acknowledged_commit_is_refused_not_cut() {
    for seal in [true, false] {
        let commits = 12;
        let image = durable_log(commits, seal);
        // Where each commit's group lies: one page each, five to a file.
        for commit in 1..=commits {
            let (name, page) = (slot_name(((commit - 1) / 5) as u32), 1 + (commit - 1) % 5);
            for byte in (0..PAGE).step_by(509).chain((0..GROUP_HEADER_BYTES as u64).step_by(3)) {
                let disk = image.copy();
                disk.edit(&name, |data| data[(page * PAGE + byte) as usize] ^= 0x10);
                let told = seal || commit < commits;
                match open(&disk, options(6), 0).expect("no crash") {
                    Err(Error::Damaged { file, offset, .. }) => {
                        assert!(told && file == name && offset == page * PAGE, "{commit}: {file} at {offset}")
                    }
                    Err(error) => panic!("{error}"),
                    Ok(opened) => {
                        assert!(!told, "commit {commit}, byte {byte} was cut");
                        assert_eq!(opened.log.last().0, commits - 1);
                    }
                }
                // Commits that are in segments are not missed.
                assert_eq!(must_open(&disk, options(6), commits).log.last().0, commits);
            }
        }
    }
}

#[test]
fn a_file_that_is_gone_or_has_lost_its_header_is_refused() {
    let image = durable_log(12, true);
    for name in ["log-00", "log-01", "log-02"] {
        let disk = image.copy();
        disk.remove(name);
        let result = open(&disk, options(6), 0).expect("no crash");
        match name {
            // Nobody is left to tell of what only the newest file held, beyond what the others claim.
            "log-02" => assert!(result.is_err() || result.is_ok_and(|opened| opened.log.last().0 == 10)),
            _ => assert!(matches!(result, Err(Error::Damaged { .. })), "{name}"),
        }
        for byte in [0, 8, 12, 20, 33, 41, 50] {
            let disk = image.copy();
            disk.edit(name, |data| data[byte] ^= 1);
            let result = open(&disk, options(6), 0).expect("no crash");
            let Err(Error::Damaged { file, offset, .. }) = result else { panic!("{name}, byte {byte}") };
            assert_eq!((file.as_str(), offset), (name, 0));
        }
        let disk = image.copy();
        disk.edit(name, |data| data.truncate(PAGE_BYTES));
        assert!(name == "log-02" || matches!(open(&disk, options(6), 0), Some(Err(Error::Damaged { .. }))));
    }
    // The floor says that commits up to 20 are elsewhere: losing the whole log loses nothing.
    let disk = image.copy();
    disk.names().iter().for_each(|name| disk.remove(name));
    assert_eq!(must_open(&disk, options(6), 20).log.last().0, 20);
}

#[test]
fn another_shards_file_is_refused() {
    let disk = durable_log(3, true);
    let io = disk.io();
    let other = Identity { shard: 4, ..IDENTITY };
    let mut records = Records::behind(Commit(0));
    let result = disk.run(&io, Log::recover(&io, options(6), other, Commit(0), Commit(0), &mut records));
    assert!(matches!(result, Some(Err(Error::Damaged { .. }))));
    assert_eq!(records.seen, []);
}

#[test]
fn a_write_that_lands_after_the_recovery_that_missed_it_is_not_revived() {
    let options = options(6);
    let disk = MemDisk::new(1);
    let mut opened = must_open(&disk, options, 0);
    for _ in 0..2 {
        opened.commit(0, 100);
        opened.settle();
    }
    opened.commit(0, 100);
    let late = disk.crash(Fate::Kept).edit("log-00", |data| data.clone());
    let disk = disk.crash(Fate::Lost);
    let mut opened = must_open(&disk, options, 0);
    assert_eq!(opened.log.last().0, 2);
    opened.settle();
    for _ in 0..2 {
        opened.commit(1, 100);
        opened.settle();
    }
    let disk = disk.copy();
    disk.edit("log-00", |data| data.copy_from_slice(&late));
    for _ in 0..2 {
        let opened = must_open(&disk, options, 0);
        let expected = (1..=4).map(|n| (n, record(n, u64::from(n > 2), 100)));
        assert_eq!(opened.records, expected.collect::<Vec<_>>());
    }
}

#[test]
fn files_are_recycled_and_their_old_groups_never_come_back() {
    let options = options(6);
    let mut disk = MemDisk::new(2);
    let mut opened = must_open(&disk, options, 0);
    opened.settle();
    for round in 1..=40 {
        let commit = opened.commit(0, 3000);
        opened.settle();
        opened.log.release(Commit(commit.saturating_sub(4)));
        assert!(opened.log.usage().files <= 4);
        if round % 7 == 0 {
            disk = disk.crash(Fate::Lost);
            let floor = commit.saturating_sub(4);
            opened = must_open(&disk, options, floor);
            assert_eq!(opened.log.last().0, commit);
            assert_eq!(
                opened.records,
                (floor + 1..=commit).map(|n| (n, record(n, 0, 3000))).collect::<Vec<_>>()
            );
            opened.settle();
        }
    }
    assert!(disk.names().len() <= 4);
}

#[test]
fn clean_closes_use_one_file() {
    let disk = MemDisk::new(3);
    let mut disk = disk;
    for cycle in 0..20u64 {
        let mut opened = must_open(&disk, options(64), 0);
        assert_eq!(opened.log.last().0, cycle.div_ceil(2), "cycle {cycle}");
        if cycle % 2 == 0 {
            opened.commit(0, 10);
        }
        disk.run(&opened.io, opened.log.seal()).expect("no crash").expect("sealed");
        assert_eq!(opened.log.full.len(), 0);
        disk = disk.crash(Fate::Lost);
    }
}

#[test]
fn a_full_disk_holds_back_and_goes_on() {
    let disk = MemDisk::new(4);
    disk.set_space(Some(options(6).file_bytes as usize + 100));
    let mut opened = must_open(&disk, options(6), 0);
    opened.settle();
    let mut commits = 0;
    while opened.log.room_for(3000) {
        commits = opened.commit(0, 3000);
        opened.settle();
    }
    assert_eq!((commits, opened.log.durable().0), (5, 5), "the one file is used to its end");
    assert!(matches!(opened.log.shortage(), Some(Error::NoSpace { .. })));
    assert_eq!(disk.names(), ["log-00"], "the half made file is gone");
    opened.log.retry();
    opened.settle();
    assert!(opened.log.shortage().is_some() && !opened.log.room_for(3000));
    disk.set_space(None);
    opened.log.retry();
    opened.settle();
    assert!(opened.log.shortage().is_none() && opened.log.room_for(3000));
    opened.commit(0, 3000);
    opened.settle();
    assert_eq!(must_open(&disk.crash(Fate::Lost), options(6), 0).log.last().0, 6);

    // No space even for the first file: the log opens, and waits.
    let disk = MemDisk::new(4);
    disk.set_space(Some(100));
    let mut opened = must_open(&disk, options(6), 9);
    assert!(opened.log.shortage().is_some() && !opened.log.room_for(1));
    disk.set_space(None);
    opened.log.retry();
    opened.settle();
    assert_eq!(opened.commit(0, 10), 10);
}

#[test]
fn a_failed_write_is_reported_for_good_and_the_prefix_before_it_survives() {
    let disk = MemDisk::new(5);
    let mut opened = must_open(&disk, options(6), 0);
    opened.settle();
    opened.commit(0, 100);
    opened.settle();
    disk.fail(Some((FailOn::Write, ErrorKind::Other)));
    opened.commit(0, 100);
    let error = loop {
        opened.io.pump();
        if let Err(error) = opened.log.poll() {
            break error;
        }
    };
    assert!(matches!(error, Error::Io { operation: "write", .. }), "{error}");
    disk.fail(None);
    assert!(opened.log.poll().is_err() && !opened.log.room_for(1) && opened.log.start_writes() == 0);
    assert_eq!(opened.log.durable().0, 1);
    assert_eq!(must_open(&disk.crash(Fate::Lost), options(6), 0).log.last().0, 1);
}

#[test]
fn an_unreadable_page_is_an_error() {
    let disk = durable_log(3, false);
    disk.fail(Some((FailOn::Read, ErrorKind::Other)));
    assert!(matches!(open(&disk, options(6), 0), Some(Err(Error::Io { operation: "read", .. }))));
}

#[test]
fn garbage_is_refused_or_cut_but_never_taken_for_records() {
    let image = durable_log(12, true);
    let mut outcomes = BTreeSet::new();
    for seed in 0..150 {
        let mut random = Random(seed);
        let disk = image.copy();
        for _ in 0..1 + random.below(3) {
            let name = slot_name(random.below(4) as u32);
            disk.edit(&name, |data| {
                let (from, to) = (random.below(6) as usize, random.below(6) as usize);
                match random.below(3) {
                    // A page of noise, a page from elsewhere, a shorter file.
                    0 => data[from * PAGE_BYTES..][..PAGE_BYTES].fill_with(|| random.next() as u8),
                    1 => data.copy_within(from * PAGE_BYTES..(from + 1) * PAGE_BYTES, to * PAGE_BYTES),
                    _ => data.truncate(random.below(7) as usize * PAGE_BYTES + random.below(2) as usize),
                }
                data.resize(options(6).file_bytes as usize, 0);
            });
        }
        match open(&disk, options(6), 0).expect("no crash") {
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. }), "seed {seed}: {error}");
                outcomes.insert("refused");
            }
            Ok(opened) => {
                for (commit, bytes) in opened.records {
                    assert_eq!(bytes, record(commit, 0, 3000), "seed {seed}");
                }
                outcomes.insert("opened");
            }
        }
    }
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn files_of_another_length_are_read_and_replaced() {
    let disk = durable_log(12, true);
    let mut opened = must_open(&disk, options(9), 0);
    assert_eq!(opened.log.last().0, 12);
    opened.settle();
    for _ in 0..30 {
        let commit = opened.commit(0, 3000);
        opened.settle();
        opened.log.release(Commit(commit - 1));
        opened.settle();
    }
    let lengths: BTreeSet<usize> =
        disk.names().iter().map(|name| disk.edit(name, |data| data.len())).collect();
    assert_eq!(lengths, BTreeSet::from([9 * PAGE_BYTES]));
    assert_eq!(must_open(&disk.crash(Fate::Lost), options(9), 41).records.len(), 1);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let good = options(6);
    assert!(good.check().is_ok() && LogOptions::default().check().is_ok());
    assert!(LogOptions::default().record_bytes_max() > crate::limits::BATCH_BYTES_MAX);
    for bad in [
        LogOptions { file_bytes: 6 * PAGE + 1, ..good },
        LogOptions { file_bytes: 3 * PAGE, ..good },
        LogOptions { file_bytes: FILE_BYTES_MAX + PAGE, ..good },
        LogOptions { files_max: 1, ..good },
        LogOptions { depth: 0, ..good },
        LogOptions { group_bytes_max: 6 * PAGE_BYTES, ..good },
        LogOptions { group_bytes_max: 100, ..good },
    ] {
        assert!(matches!(bad.check(), Err(Error::Options { .. })), "{bad:?}");
    }
}

#[test]
fn a_file_with_writes_in_flight_is_not_released() {
    // Segments may hold commits that the log has not made durable yet: the floor runs ahead.
    let disk = MemDisk::new(6);
    let mut opened = must_open(&disk, options(4), 0);
    opened.settle();
    for _ in 0..4 {
        opened.commit(0, 3000);
    }
    opened.log.release(Commit(4));
    assert_eq!((opened.log.full.len(), opened.log.free.len()), (1, 0));
    opened.settle();
    opened.log.release(Commit(4));
    assert_eq!((opened.log.full.len(), opened.log.free.len()), (0, 1));
}

#[test]
fn stale_groups_that_a_later_floor_reaches_are_not_taken() {
    let options = options(4);
    let disk = MemDisk::new(8);
    let mut opened = must_open(&disk, options, 0);
    opened.settle();
    for _ in 0..8 {
        opened.commit(0, 3000);
        opened.settle();
    }
    // Commit 9, at the end of the third file, is torn away; 10 to 12 are intact in the fourth, and stale.
    opened.log.release(Commit(6));
    for _ in 0..4 {
        opened.commit(0, 3000);
    }
    let disk = disk.crash(Fate::Chosen(&|index| index != 0));
    let mut opened = must_open(&disk, options, 6);
    assert_eq!(opened.log.last().0, 8);
    opened.settle();
    for _ in 0..3 {
        opened.commit(1, 3000);
        opened.settle();
    }
    // Commits up to 11 are in segments; the file that held the true 9 to 11 is used again, and empty.
    let disk = disk.crash(Fate::Lost);
    assert_eq!(must_open(&disk, options, 11).log.last().0, 11);
    let disk = disk.crash(Fate::Lost);
    let opened = must_open(&disk, options, 11);
    assert_eq!((opened.log.last().0, opened.records.len()), (11, 0), "the stale commit 12 is a phantom");
}
