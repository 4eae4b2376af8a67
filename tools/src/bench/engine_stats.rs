//! The engine's stats, reduced to what a run reports: the only place that knows their fields.

use super::record::Latency;
use hdrhistogram::Histogram;
use quipu::{CarryKind, Stats};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// All shards together.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Totals {
    /// Commits since the engine was opened.
    pub(crate) commits: u64,
    /// Bytes of keys and values committed.
    pub(crate) bytes_in: u64,
    /// Bytes written to the log.
    pub(crate) log_bytes: u64,
    /// Writes to the log.
    pub(crate) log_groups: u64,
    /// Bytes written to segments.
    pub(crate) segment_bytes: u64,
    /// Bytes read from the disk, and reads.
    pub(crate) read_bytes: u64,
    pub(crate) reads: u64,
    /// Carries installed, by name: "L9", "fold L9".
    pub(crate) carries_installed: BTreeMap<CarryName, u64>,
    /// Block cache hits and misses.
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    /// Wakes of shards sent and saved by their mailboxes.
    pub(crate) wakes_sent: u64,
    pub(crate) wakes_saved: u64,
    /// Now: live segments by level, parts of bases, spills, bytes that compaction has still to do.
    pub(crate) segments: BTreeMap<u8, usize>,
    /// Bytes of their files, the base's included.
    pub(crate) live_bytes: u64,
    pub(crate) base_parts: usize,
    pub(crate) spills: usize,
    pub(crate) backlog_bytes: u64,
    /// Now: the first shard that is stalled or poisoned, and why.
    pub(crate) trouble: Option<String>,
}

impl From<&Stats> for Totals {
    fn from(stats: &Stats) -> Self {
        let mut totals = Totals::default();
        for shard in &stats.shards {
            totals.commits += shard.commits;
            totals.bytes_in += shard.bytes_in;
            totals.log_bytes += shard.log_bytes;
            totals.log_groups += shard.log_groups;
            totals.segment_bytes += shard.segment_bytes;
            totals.read_bytes += shard.read_bytes;
            totals.reads += shard.reads;
            for carries in &shard.carries_installed {
                let name = CarryName::new(carries.kind, carries.level.0);
                *totals.carries_installed.entry(name).or_default() += carries.count;
            }
            totals.cache_hits += shard.cache_hits;
            totals.cache_misses += shard.cache_misses;
            totals.wakes_sent += shard.wakes_sent;
            totals.wakes_saved += shard.wakes_saved;
            totals.live_bytes += shard.levels.iter().map(|level| level.bytes).sum::<u64>();
            totals.live_bytes += shard.base.as_ref().map_or(0, |base| base.bytes);
            for level in shard.levels.iter().filter(|level| level.segments > 0) {
                *totals.segments.entry(level.level.0).or_default() += level.segments;
            }
            totals.base_parts += shard.base.as_ref().map_or(0, |base| base.parts);
            totals.spills += shard.spills;
            totals.backlog_bytes += shard.backlog_bytes;
            if let Some(error) = shard.poisoned.as_ref().or(shard.stalled.as_ref()) {
                totals.trouble.get_or_insert_with(|| format!("shard {}: {error}", shard.shard));
            }
        }
        totals
    }
}

impl Totals {
    /// The carries that were installed since then, by name.
    pub(crate) fn carries_since(&self, before: &Totals) -> BTreeMap<CarryName, u64> {
        let since = |(&name, count): (&CarryName, &u64)| {
            let count = count - before.carries_installed.get(&name).unwrap_or(&0);
            (count > 0).then_some((name, count))
        };
        self.carries_installed.iter().filter_map(since).collect()
    }

    /// Segments by level on one line: "L8:3 L9:1 base:12".
    pub(crate) fn levels(&self) -> String {
        let mut text = String::new();
        for (level, segments) in &self.segments {
            let _ = write!(text, "L{level}:{segments} ");
        }
        if self.base_parts > 0 {
            let _ = write!(text, "base:{} ", self.base_parts);
        }
        if self.spills > 0 {
            let _ = write!(text, "spills:{} ", self.spills);
        }
        if text.is_empty() { "no segments".to_string() } else { text.trim_end().to_string() }
    }
}

/// What carries of a kind and level are called: "L9", "fold L9", "spill". In the order of kinds, then levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct CarryName {
    pub(crate) kind: CarryKind,
    level: u8,
}

impl CarryName {
    pub(crate) fn new(kind: CarryKind, level: u8) -> Self {
        // The level of a spill is of no interest.
        CarryName { kind, level: if kind == CarryKind::Spill { 0 } else { level } }
    }
}

impl fmt::Display for CarryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            CarryKind::Segment => write!(f, "L{}", self.level),
            CarryKind::Spill => write!(f, "{}", self.kind),
            kind => write!(f, "{kind} L{}", self.level),
        }
    }
}

impl Serialize for CarryName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A carry in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Carry {
    pub(crate) shard: u16,
    /// "carry", "fold" or "spill".
    #[serde(serialize_with = "as_text")]
    pub(crate) kind: CarryKind,
    /// The level of its window.
    pub(crate) level: u8,
    /// Bytes of input merged, of so many.
    pub(crate) done: u64,
    pub(crate) total: u64,
}

fn as_text<S: serde::Serializer>(kind: &CarryKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(kind)
}

/// The carries in flight on all shards.
pub(crate) fn carries(stats: &Stats) -> Vec<Carry> {
    let of = |shard: &quipu::ShardStats| {
        let number = shard.shard;
        let carry = move |carry: &quipu::CarryStats| Carry {
            shard: number,
            kind: carry.kind,
            level: carry.level.0,
            done: carry.done,
            total: carry.total,
        };
        shard.carries.iter().map(carry).collect::<Vec<_>>()
    };
    stats.shards.iter().flat_map(of).collect()
}

/// A stage of a commit, or what else has a histogram.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// Its name.
    pub(crate) name: &'static str,
    /// All shards together; in nanoseconds, save the group sizes (in commits).
    pub(crate) values: Latency,
}

/// The name of the one stage that does not count nanoseconds.
pub(crate) const GROUP_SIZES: &str = "commits per log write";

/// The stages, each merged over the shards: since the engine was opened, or since `before`.
pub(crate) fn stages(stats: &Stats, before: Option<&Stats>) -> Vec<Stage> {
    let of = |name, histogram: fn(&quipu::Stages) -> &Histogram<u64>| {
        let mut merged = stats.stage(histogram);
        if let Some(before) = before {
            // Of the same engine, so that there is nothing in it that is not in the later one.
            let _ = merged.subtract(before.stage(histogram));
        }
        Stage { name, values: Latency::from(&merged) }
    };
    vec![
        of("mailbox", |stages| &stages.mailbox),
        of("sequenced", |stages| &stages.sequenced),
        of("log write", |stages| &stages.log_write),
        of("acknowledged", |stages| &stages.acknowledged),
        of("slice of compaction", |stages| &stages.slice),
        of("turn of the loop", |stages| &stages.turn),
        of(GROUP_SIZES, |stages| &stages.group),
    ]
}
