//! Gathering a shard's figures.

use super::Core;
use crate::levels::{Commit, Level};
use crate::stats::{BaseStats, LevelStats, SegmentInfo, SegmentKind, ShardStats};
use crate::view::{Kind, Source};
use std::collections::BTreeMap;

impl Core {
    /// The live files: the base's parts by key, then the others from the oldest to the newest.
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.state.borrow();
        let view = &state.tip.view;
        let sources = view.sources.iter().rev().filter_map(|source| match source {
            Source::Segment(segment) => Some(segment),
            Source::Table(_) => None,
        });
        let files = view.parts.iter().map(|part| &part.segment).chain(sources);
        files
            .map(|segment| {
                let (meta, identity) = (segment.meta(), &segment.meta().identity);
                SegmentInfo {
                    shard: identity.shard,
                    file: segment.name().to_string(),
                    kind: match Kind::from_byte(identity.kind) {
                        Some(Kind::Part) => SegmentKind::Part,
                        Some(Kind::Spill) => SegmentKind::Spill,
                        Some(Kind::Window) | None => SegmentKind::Window,
                    },
                    level: identity.level,
                    first: identity.first,
                    last: identity.last,
                    entries: meta.entries,
                    bytes: meta.file_bytes,
                    hash: meta.content_hash,
                }
            })
            .collect()
    }

    /// The shard's figures. The mailbox's are added by its host.
    pub(crate) fn stats(&self) -> ShardStats {
        let state = self.state.borrow();
        let (tip, log) = (&state.tip, state.log.stats());
        let mut levels: BTreeMap<Level, (usize, u64)> = BTreeMap::new();
        let mut spills = 0;
        for source in &tip.view.sources {
            let Source::Segment(segment) = source else { continue };
            let meta = segment.meta();
            if Kind::from_byte(meta.identity.kind) == Some(Kind::Spill) {
                spills += 1;
                continue;
            }
            let (segments, bytes) = levels.entry(meta.identity.level).or_default();
            *segments += 1;
            *bytes += meta.file_bytes;
        }
        let levels =
            levels.into_iter().map(|(level, (segments, bytes))| LevelStats { level, segments, bytes });
        let has_base = tip.view.base_end > Commit::ZERO || !tip.view.parts.is_empty();
        let base = has_base.then(|| BaseStats {
            parts: tip.view.parts.len(),
            bytes: tip.view.parts.iter().map(|part| part.segment.meta().file_bytes).sum(),
            end: tip.view.base_end,
        });
        let disk = self.io.stats();
        let usage = state.log.usage();
        ShardStats {
            shard: self.config.shard,
            last: tip.schedule.at,
            durable: state.waiters.durable_until(),
            commits: state.commits,
            bytes_in: state.tip.bytes_in - state.bytes_replayed,
            log_bytes: log.padded_bytes,
            log_groups: log.groups,
            log_files: usage.files,
            log_used: usage.bytes_used,
            segment_bytes: state.compaction.written.get(),
            flush_level: tip.schedule.shape.flush_level,
            base_level: tip.schedule.shape.base_level,
            levels: levels.collect(),
            base,
            spills,
            memtables: 1 + tip.view.tables().count(),
            memtable_bytes: tip.active.memory() + tip.frozen_bytes,
            carries: state.compaction.in_flight(&tip.schedule.shape),
            carries_installed: state.compaction.carries_installed(),
            backlog_bytes: state.compaction.backlog(),
            cache_hits: self.cache.hits(),
            cache_misses: self.cache.misses(),
            cache_bytes: self.cache.bytes(),
            wakes_sent: 0,
            wakes_saved: 0,
            reads_together: self.gathering.done(),
            reads: disk.reads,
            read_bytes: disk.read_bytes,
            io_kind: self.io.kind(),
            snapshots: self.snapshots.borrow().len(),
            walks_kept: self.snapshots.borrow().walks(),
            entries_scanned: self.allowance.examined(),
            directories_cached: state.catalog.len(),
            stages: state.stages.clone(),
            stalled: state.compaction.stalled().cloned(),
            poisoned: state.poisoned.clone(),
        }
    }
}
