//! Figures of a running engine.

use crate::error::Error;
use crate::levels::{Commit, Level};
use hdrhistogram::Histogram;

/// Figures of an engine: one set a shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Each shard's, by number.
    pub shards: Vec<ShardStats>,
}

/// Figures of one shard. Counters count since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardStats {
    /// Its number.
    pub shard: u16,
    /// The newest sequenced commit.
    pub last: Commit,
    /// The newest durable commit.
    pub durable: Commit,
    /// Commits sequenced.
    pub commits: u64,
    /// Bytes of keys and values committed.
    pub bytes_in: u64,
    /// Bytes written to the log, padding included.
    pub log_bytes: u64,
    /// Log writes.
    pub log_groups: u64,
    /// Log files there are.
    pub log_files: usize,
    /// Bytes of log that recovery would have to read now.
    pub log_used: u64,
    /// Bytes written to segments, spills and parts of the base.
    pub segment_bytes: u64,
    /// The level of the window that the memtable holds.
    pub flush_level: Level,
    /// The level whose windows are folded into the base; none where history is retained.
    pub base_level: Option<Level>,
    /// The live segments by level, lowest first.
    pub levels: Vec<LevelStats>,
    /// The base, if there is one.
    pub base: Option<BaseStats>,
    /// Live spills.
    pub spills: usize,
    /// Memtables: the active one and those whose carry is in flight.
    pub memtables: usize,
    /// Their memory, in bytes.
    pub memtable_bytes: usize,
    /// The carries in flight.
    pub carries: Vec<CarryStats>,
    /// Carries installed since the shard was opened, by kind and level.
    pub carries_installed: Vec<CarriesInstalled>,
    /// Bytes of input that the carries in flight have yet to merge.
    pub backlog_bytes: u64,
    /// Lookups of the block cache that found their block.
    pub cache_hits: u64,
    /// Lookups that did not.
    pub cache_misses: u64,
    /// Bytes cached.
    pub cache_bytes: u64,
    /// Wakes that clients sent to the shard.
    pub wakes_sent: u64,
    /// Wakes saved because the shard was awake.
    pub wakes_saved: u64,
    /// Point reads of on-core tasks that were kept for the next turn, to be done together.
    pub reads_together: u64,
    /// Reads from the disk.
    pub reads: u64,
    /// Bytes read from the disk.
    pub read_bytes: u64,
    /// How the files are reached: "io_uring", "plain system calls".
    pub io_kind: &'static str,
    /// Open snapshots and scans.
    pub snapshots: usize,
    /// Scans from other threads whose place is kept for their next page; at most two of each, one an end.
    pub walks_kept: usize,
    /// Entries that scans looked at, handed out or not.
    pub entries_scanned: u64,
    /// Directories whose numbers are cached.
    pub directories_cached: usize,
    /// Where time goes.
    pub stages: Stages,
    /// Why compaction stands still, if it does: no space, or damage.
    pub stalled: Option<Error>,
    /// Why the shard acknowledges nothing, if so.
    pub poisoned: Option<Error>,
}

/// Live segments of a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LevelStats {
    /// The level.
    pub level: Level,
    /// How many.
    pub segments: usize,
    /// Their files' bytes.
    pub bytes: u64,
}

/// The base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseStats {
    /// Its parts.
    pub parts: usize,
    /// Their files' bytes.
    pub bytes: u64,
    /// The last commit folded into it.
    pub end: Commit,
}

/// What a live file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SegmentKind {
    /// Exactly one window of a level.
    Window,
    /// Some commits of a window whose carry is still to come, written early.
    Spill,
    /// A range of keys of the base.
    Part,
}

/// A live file of a shard, as [`Engine::segments`](crate::Engine::segments) lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The shard.
    pub shard: u16,
    /// The file's name in the shard's folder.
    pub file: String,
    /// What it holds.
    pub kind: SegmentKind,
    /// The level of its window; 0 for spills and parts, which have none.
    pub level: Level,
    /// The first commit that it covers.
    pub first: Commit,
    /// The last commit that it covers.
    pub last: Commit,
    /// Its entries: versions of keys, deletes included.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
    /// A hash over its entries. Two windows or parts of the same name in copies of one engine hold the same where
    /// it is the same.
    pub hash: u128,
}

/// What kind of merge it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CarryKind {
    /// Into a segment of its window.
    Segment,
    /// Into the base.
    Fold,
    /// Of a memtable that has to leave memory, or the log, early.
    Spill,
}

impl std::fmt::Display for CarryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CarryKind::Segment => "carry",
            CarryKind::Fold => "fold",
            CarryKind::Spill => "spill",
        })
    }
}

/// A carry in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CarryStats {
    /// What kind.
    pub kind: CarryKind,
    /// The level of its window.
    pub level: Level,
    /// The commit at which it fell due.
    pub due: Commit,
    /// The commit before which it must be installed.
    pub deadline: Commit,
    /// Bytes of input merged.
    pub done: u64,
    /// Bytes of input in all.
    pub total: u64,
}

/// How many carries of one kind and level were installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CarriesInstalled {
    /// What kind; spills, which are no carries, are not counted.
    pub kind: CarryKind,
    /// The level of their windows.
    pub level: Level,
    /// How many.
    pub count: u64,
}

/// Histograms of where time goes, in nanoseconds, and of group sizes. Times are taken once a turn of the
/// shard's loop, so they are exact to a turn.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stages {
    /// From a request's posting to its being taken up.
    pub mailbox: Histogram<u64>,
    /// From a commit's being taken up to its being sequenced.
    pub sequenced: Histogram<u64>,
    /// From the start of a log write to its end.
    pub log_write: Histogram<u64>,
    /// From a commit's being sequenced to its being acknowledged as durable.
    pub acknowledged: Histogram<u64>,
    /// One slice of compaction.
    pub slice: Histogram<u64>,
    /// One turn of the shard's loop, on-core tasks not counted.
    pub turn: Histogram<u64>,
    /// Commits in a log write (not a time).
    pub group: Histogram<u64>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Stages {
            mailbox: histogram(),
            sequenced: histogram(),
            log_write: histogram(),
            acknowledged: histogram(),
            slice: histogram(),
            turn: histogram(),
            group: histogram(),
        }
    }
}

/// A histogram for 1 ns to a minute at two digits; what lies above counts as a minute.
fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 60_000_000_000, 2) {
        Ok(histogram) => histogram,
        // Not with these bounds: low is at least 1, high at least twice that, and digits at most 5.
        Err(_) => unreachable!("the bounds of a histogram are constants"),
    }
}

impl ShardStats {
    /// The carries installed since the shard was opened, of all kinds and levels.
    pub fn carries_done(&self) -> u64 {
        self.carries_installed.iter().map(|installed| installed.count).sum()
    }
}

impl Stats {
    /// Sums what can be summed over all shards.
    pub fn total<T: std::iter::Sum>(&self, figure: impl Fn(&ShardStats) -> T) -> T {
        self.shards.iter().map(figure).sum()
    }

    /// One stage's histogram over all shards.
    pub fn stage(&self, stage: impl Fn(&Stages) -> &Histogram<u64>) -> Histogram<u64> {
        let mut all = histogram();
        for shard in &self.shards {
            all += stage(&shard.stages);
        }
        all
    }
}

/// What [`Engine::verify`](crate::Engine::verify) has read.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their entries: versions of keys, deletes included.
    pub entries: u64,
    /// What is wrong, file by file: [`Error::Damaged`], or [`Error::Io`] where a file cannot be read.
    pub damaged: Vec<Error>,
}

impl Verified {
    pub(crate) fn add(&mut self, other: Verified) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.entries += other.entries;
        self.damaged.extend(other.damaged);
    }
}
