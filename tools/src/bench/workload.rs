//! The workloads: for each, what its clients do. Pure.
//!
//! A [`Workload`] is a name; with what the command line sets it becomes a [`Recipe`]: shares of the kinds of operation,
//! distributions, batch and scan lengths. [`generator`](super::generator) draws operations from a recipe.

use super::draw::{DirectoryDistribution, KeyDistribution, YCSB_EXPONENT};
use super::op::OpKind;
use clap::ValueEnum;
use serde::Serialize;

/// What to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Durable commits of one put each
    Commits,
    /// Bulk load: batches of 100 puts, one directory after the other
    Ingest,
    /// Point reads of keys that are there
    Reads,
    /// Point reads of keys that are not there
    ReadsAbsent,
    /// Scans of 100 entries from a key on
    Scans,
    /// 40 % commits, 50 % point reads, 10 % scans of 20
    Mix,
    /// YCSB A: 50 % reads, 50 % updates, zipfian
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates, zipfian
    YcsbB,
    /// YCSB C: reads, zipfian
    YcsbC,
    /// YCSB D: 95 % reads of the latest, 5 % inserts
    YcsbD,
    /// YCSB E: 95 % scans of 1 to 100 from a zipfian key on, 5 % inserts
    YcsbE,
    /// YCSB F: 50 % reads, 50 % read-modify-writes, zipfian
    YcsbF,
    /// Many small directories: 20 % inserts, 80 % reads of a directory's newest 20 by prefix
    Tenants,
    /// Point reads as of a random retained commit
    AsOf,
}

impl Workload {
    /// Its name, as the command line has it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// Whether the keys must be there before it begins.
    pub(crate) fn needs_data(self) -> bool {
        !matches!(self, Workload::Commits | Workload::Ingest | Workload::Mix)
    }

    /// Whether keys must be ordered: inserted later, sorted later.
    pub(crate) fn needs_order(self) -> bool {
        self == Workload::Tenants
    }

    /// Whether history must be retained for it to mean anything.
    pub(crate) fn needs_history(self) -> bool {
        self == Workload::AsOf
    }
}

/// What the command line sets of a recipe; `None`: as the workload has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) keys: Option<KeyDistribution>,
    pub(crate) directories: Option<DirectoryDistribution>,
    pub(crate) batch: Option<u32>,
    pub(crate) scan_entries: Option<u32>,
    pub(crate) writes_percent: Option<f64>,
}

/// What the clients of a phase do.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Recipe {
    pub(crate) mix: Mix,
    pub(crate) keys: KeyDistribution,
    pub(crate) directories: DirectoryDistribution,
    /// Puts of a batch.
    pub(crate) batch: u32,
    /// Entries that scans ask for: the least and the most, each length as often.
    pub(crate) scan_entries: (u32, u32),
    /// Whether a sequential sweep over the keys ends after one pass.
    pub(crate) once: bool,
}

impl Recipe {
    /// The recipe of a workload.
    pub(crate) fn new(workload: Workload, changes: &Changes) -> Self {
        use OpKind::{Absent, AsOf, Batch, Get, Insert, Newest, Put, ReadModifyWrite, Scan};
        let zipfian = KeyDistribution::Zipfian(YCSB_EXPONENT);
        let uniform = KeyDistribution::Uniform;
        let (shares, keys): (&[(OpKind, u32)], _) = match workload {
            Workload::Commits => (&[(Put, 100)], uniform),
            Workload::Ingest => (&[(Batch, 100)], KeyDistribution::Sequential),
            Workload::Reads => (&[(Get, 100)], uniform),
            Workload::ReadsAbsent => (&[(Absent, 100)], uniform),
            Workload::Scans => (&[(Scan, 100)], uniform),
            Workload::Mix => (&[(Put, 40), (Get, 50), (Scan, 10)], uniform),
            Workload::YcsbA => (&[(Put, 50), (Get, 50)], zipfian),
            Workload::YcsbB => (&[(Put, 5), (Get, 95)], zipfian),
            Workload::YcsbC => (&[(Get, 100)], zipfian),
            Workload::YcsbD => (&[(Insert, 5), (Get, 95)], KeyDistribution::Latest(YCSB_EXPONENT)),
            Workload::YcsbE => (&[(Insert, 5), (Scan, 95)], zipfian),
            Workload::YcsbF => (&[(ReadModifyWrite, 50), (Get, 50)], zipfian),
            Workload::Tenants => (&[(Insert, 20), (Newest, 80)], uniform),
            Workload::AsOf => (&[(AsOf, 100)], uniform),
        };
        let mut shares: Vec<(OpKind, f64)> =
            shares.iter().map(|&(kind, percent)| (kind, f64::from(percent))).collect();
        if let Some(percent) = changes.writes_percent {
            shares = with_writes(&shares, percent);
        }
        let batch = changes.batch.unwrap_or(if workload == Workload::Ingest { 100 } else { 1 });
        for (kind, _) in &mut shares {
            match *kind {
                Put if batch > 1 => *kind = Batch,
                Batch if batch == 1 => *kind = Put,
                _ => {}
            }
        }
        let scan_entries = match (workload, changes.scan_entries) {
            (Workload::YcsbE, entries) => (1, entries.unwrap_or(100)),
            (_, Some(entries)) => (entries, entries),
            (Workload::Mix | Workload::Tenants, None) => (20, 20),
            (_, None) => (100, 100),
        };
        Recipe {
            mix: Mix::new(&shares),
            keys: changes.keys.unwrap_or(keys),
            directories: changes.directories.unwrap_or(DirectoryDistribution::Uniform),
            batch,
            scan_entries,
            once: false,
        }
    }

    /// Puts every key once, in batches.
    pub(crate) fn load(batch: u32) -> Self {
        let changes = Changes { batch: Some(batch), ..Changes::default() };
        Recipe { once: true, ..Recipe::new(Workload::Ingest, &changes) }
    }

    /// Whether it inserts.
    pub(crate) fn inserts(&self) -> bool {
        self.mix.0.iter().any(|&(kind, _)| kind == OpKind::Insert)
    }
}

/// Scales the shares so that writes have this percentage. What there is only one sort of gets the plainest of the
/// other: reads get commits, commits get point reads.
fn with_writes(shares: &[(OpKind, f64)], percent: f64) -> Vec<(OpKind, f64)> {
    let side = |writes: bool, plainest: OpKind, to: f64| {
        let mut side: Vec<_> = shares.iter().copied().filter(|(kind, _)| kind.writes() == writes).collect();
        if side.is_empty() {
            side.push((plainest, 1.0));
        }
        let sum: f64 = side.iter().map(|(_, share)| share).sum();
        side.into_iter().map(move |(kind, share)| (kind, share * to / sum))
    };
    side(true, OpKind::Put, percent)
        .chain(side(false, OpKind::Get, 100.0 - percent))
        .filter(|&(_, share)| share > 0.0)
        .collect()
}

/// Kinds of operation, each with the upper end of its range of a 32-bit draw.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mix(Vec<(OpKind, u32)>);

impl Mix {
    /// A mix by shares, which need not add up to anything in particular.
    fn new(shares: &[(OpKind, f64)]) -> Self {
        debug_assert!(!shares.is_empty());
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut before = 0.0;
        let ends = shares.iter().map(|&(kind, share)| {
            before += share;
            (kind, (before / sum * f64::from(u32::MAX)) as u32)
        });
        Mix(ends.collect())
    }

    /// The kind for a uniform draw.
    pub(crate) fn kind(&self, draw: u32) -> OpKind {
        let found = self.0.iter().find(|&&(_, end)| draw < end).or(self.0.last());
        found.map_or(OpKind::Put, |&(kind, _)| kind)
    }
}

impl Serialize for Mix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = 0;
        serializer.collect_map(self.0.iter().map(|&(kind, end)| {
            let share = f64::from(end - std::mem::replace(&mut before, end)) / f64::from(u32::MAX);
            (kind.name(), (share * 1e4).round() / 1e4)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(recipe: &Recipe) -> Vec<(&'static str, u32)> {
        let counts = |kind: OpKind| {
            let draws = 1000u32;
            let hits = (0..draws).filter(|draw| recipe.mix.kind(draw * (u32::MAX / draws)) == kind).count();
            (hits as f64 / 10.0).round() as u32
        };
        OpKind::ALL.map(|kind| (kind.name(), counts(kind))).into_iter().filter(|&(_, n)| n > 0).collect()
    }

    #[test]
    fn ycsb_is_as_published() {
        let of = |workload| Recipe::new(workload, &Changes::default());
        assert_eq!(shares(&of(Workload::YcsbA)), [("commit", 50), ("read", 50)]);
        assert_eq!(shares(&of(Workload::YcsbB)), [("commit", 5), ("read", 95)]);
        assert_eq!(shares(&of(Workload::YcsbC)), [("read", 100)]);
        assert_eq!(shares(&of(Workload::YcsbD)), [("insert", 5), ("read", 95)]);
        assert_eq!(shares(&of(Workload::YcsbE)), [("insert", 5), ("scan", 95)]);
        assert_eq!(shares(&of(Workload::YcsbF)), [("read", 50), ("rmw", 50)]);
        assert_eq!(of(Workload::YcsbD).keys, KeyDistribution::Latest(0.99));
        assert_eq!(of(Workload::YcsbE).scan_entries, (1, 100));
    }

    #[test]
    fn the_share_of_writes_can_be_set_for_any_workload() {
        let of = |workload, percent| {
            shares(&Recipe::new(workload, &Changes { writes_percent: Some(percent), ..Changes::default() }))
        };
        assert_eq!(of(Workload::Mix, 10.0), [("commit", 10), ("read", 75), ("scan", 15)]);
        assert_eq!(of(Workload::Reads, 30.0), [("commit", 30), ("read", 70)]);
        assert_eq!(of(Workload::Commits, 30.0), [("commit", 30), ("read", 70)]);
        assert_eq!(of(Workload::Mix, 0.0), [("read", 83), ("scan", 17)]);
        assert_eq!(of(Workload::Mix, 100.0), [("commit", 100)]);
    }

    #[test]
    fn batches_and_single_puts_are_told_apart() {
        let of = |workload, batch| Recipe::new(workload, &Changes { batch, ..Changes::default() });
        assert_eq!(shares(&of(Workload::Commits, Some(10))), [("batch", 100)]);
        assert_eq!(shares(&of(Workload::Ingest, Some(1))), [("commit", 100)]);
        assert_eq!(of(Workload::Ingest, None).batch, 100);
        assert!(Recipe::load(50).once);
        assert!(of(Workload::YcsbD, None).inserts() && !of(Workload::YcsbA, None).inserts());
    }
}
