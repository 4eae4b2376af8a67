//! Opening a shard: manifest, then log, then what was interrupted.
//!
//! 1. Read the manifest: the live segments, and the facts (the schedule at the floor, the base, the history).
//! 2. See that each live file is there, and which files belong to nothing: what interrupted carries had begun.
//! 3. Replay the log from the floor, through the same function that applies live commits. Commits that a segment
//!    holds already only move the schedule; the others fill tables, which freeze where they did before.
//! 4. Remove what belongs to nothing.
//! 5. Compare what exists with what the arithmetic says must: each missing window is a carry to be done
//!    ([`crate::levels::Shape::pending`]). Its inputs are there, so it gives the same bytes.
//!
//! No segment is read: opening takes time in proportion to the log.

use super::compaction::Compaction;
use super::gather::Gathering;
use super::install::{
    FACT_BASE, FACT_DURABLE, FACT_HISTORY, FACT_SCHEDULE, Installer, decode_base, decode_durable,
    decode_history, decode_role, encode_history, encode_role,
};
use super::schedule::Schedule;
use super::tip::{Apply, Tip};
use super::waiters::Waiters;
use super::{Config, Core, State};
use crate::cache::BlockCache;
use crate::compact::{self, Change, Context, Throttle};
use crate::disk::Op;
use crate::disk::io::Io;
use crate::engine::ShardRecovery;
use crate::error::{Error, Result};
use crate::levels::{Budget, Commit, History, Level, Retention, Span};
use crate::log::{Identity, Log, LogOptions, Replay};
use crate::manifest::{Edit, Manifest};
use crate::read::Allowance;
use crate::segment::Segment;
use crate::stats::Stages;
use crate::table::Table;
use crate::view::{Kind, Part, Source, View};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const MANIFEST: &str = "manifest";

impl Core {
    /// Opens the shard in its disk's folder, or begins it there.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Io`], [`Error::NoSpace`], [`Error::Options`].
    pub(crate) async fn open(
        io: Io,
        config: Config,
        log: LogOptions,
        cache_bytes: usize,
        retention: Option<Retention>,
    ) -> Result<(Rc<Core>, ShardRecovery)> {
        let started = io.now();
        let identity = Identity { engine: config.fixed.engine, shard: config.shard };
        let mut manifest = Manifest::open(&io, identity, config.manifest_bytes).await?;
        let cache = Rc::new(BlockCache::new(cache_bytes as u64));

        // 1. What the manifest holds.
        let stored = manifest.state().clone();
        let fact = |number: u16| stored.facts.get(&number);
        let unreadable = |what: &str| Error::damaged(MANIFEST, 0, format!("{what} does not read back"));
        let mut history = match fact(FACT_HISTORY) {
            Some(bytes) => decode_history(bytes).ok_or_else(|| unreadable("the history"))?,
            None => History::new(retention.unwrap_or_default()),
        };
        let schedule = match fact(FACT_SCHEDULE) {
            Some(bytes) => {
                Schedule::decode(bytes, config.divisor).ok_or_else(|| unreadable("the schedule"))?
            }
            None => Schedule::new(config.divisor, history.retention.has_base()),
        };
        let (base_end, base_bytes) = match fact(FACT_BASE) {
            Some(bytes) => decode_base(bytes).ok_or_else(|| unreadable("the base"))?,
            None => (Commit::ZERO, 0),
        };
        if base_end > schedule.shape.base_end {
            let why = format!("its base ends at commit {base_end}, where none was due");
            return Err(Error::damaged(MANIFEST, 0, why));
        }
        let claimed = match fact(FACT_DURABLE) {
            Some(bytes) => decode_durable(bytes).ok_or_else(|| unreadable("what was durable"))?,
            None => Commit::ZERO,
        };
        let view = view_of(&io, &cache, &stored.segments, base_end)?;

        // 2. What is there.
        let orphans = find_orphans(&io, &stored.segments).await?;

        // 3. The log.
        let floor = schedule.at;
        // Parts of a fold that was interrupted end above the base.
        let parts = view.parts.iter().map(|part| part.segment.meta().identity.last);
        let held = view.sources.iter().map(|source| source.span().last).chain(parts).max();
        let reach = claimed.max(held.unwrap_or(base_end));
        let covered: Vec<Span> =
            view.sources.iter().map(Source::span).filter(|span| span.last > floor).collect();
        let start = || Tip::new(schedule, view.clone(), base_bytes);
        let mut replay =
            TipReplay { start: &start, tip: start(), replayed: 0, covered, budget: &config.budget };
        let mut log = Log::recover(&io, log, identity, floor, reach, &mut replay).await?;
        let TipReplay { mut tip, replayed, .. } = replay;
        tip.settle();
        check_contiguous(&tip)?;

        // 4. What belongs to nothing. Not before all else is known to be sound: a folder that is refused stays as it is.
        for name in &orphans {
            let removed = io.run(Op::Remove { name: name.clone() }).await;
            removed.map_err(|error| Error::io("remove", name, error))?;
        }
        let orphans = orphans.len();
        let log_bytes = log.usage().bytes_used;

        if let Some(to) = retention.filter(|to| *to != history.retention) {
            change_retention(&io, &cache, &config, &mut tip, &mut history, to, &mut manifest).await?;
            log.release(tip.schedule.at);
        } else if fact(FACT_HISTORY).is_none() {
            let facts = vec![(FACT_HISTORY, encode_history(&history))];
            manifest.apply(Edit { facts, ..Edit::default() }).await?;
        }

        let durable = tip.schedule.at;
        let bytes_replayed = tip.bytes_in;
        let state = State {
            tip,
            history,
            catalog: Default::default(),
            log,
            queue: VecDeque::new(),
            barriers: Vec::new(),
            waiters: Waiters::new(durable),
            urgent: durable,
            write_by: None,
            shortage_tried: false,
            staged_before: 0,
            held: 0,
            compaction: Compaction::new(),
            installer: Installer::new(manifest),
            leftovers: VecDeque::new(),
            poisoned: None,
            closing: None,
            closed: false,
            stages: Stages::new(),
            commits: 0,
            bytes_replayed,
            log_starts: VecDeque::new(),
            record: Vec::new(),
            ids: Vec::new(),
        };
        let now = io.now();
        let has_ring = io.event_fd().is_some();
        let core = Rc::new(Core {
            config,
            io,
            cache,
            state: RefCell::new(state),
            tasks: Default::default(),
            snapshots: Default::default(),
            gathering: Gathering::default(),
            allowance: Allowance::new(),
            driver: RefCell::default(),
            bells: OnceCell::new(),
            has_ring,
            spawner: RefCell::default(),
            kicked: Cell::new(true),
            seen: Cell::new(0),
            hosted: Rc::default(),
            now: Cell::new(now),
        });

        // 5. What was interrupted.
        let carries = core.resume();
        let took = Duration::from_nanos(core.io.now().saturating_sub(started));
        let newest = core.last();
        Ok((core, ShardRecovery { took, replayed, log_bytes, newest, carries, orphans }))
    }

    /// Queues the carries that must still be done.
    fn resume(&self) -> usize {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let newest = state.tip.schedule.at;
        let shape = state.tip.schedule.shape;
        let pending = shape.pending(newest, &state.tip.view.pieces(self.config.divisor));
        for &carry in &pending {
            let work = state.work_of(carry);
            state.compaction.due(carry, &shape, newest, work);
        }
        pending.len()
    }
}

/// Replays the log to a tip.
struct TipReplay<'a> {
    /// What the tip begins as.
    start: &'a dyn Fn() -> Tip,
    tip: Tip,
    /// Commits that no segment holds.
    replayed: u64,
    /// The commits that segments hold.
    covered: Vec<Span>,
    budget: &'a Budget,
}

impl Replay for TipReplay<'_> {
    fn apply(&mut self, commit: Commit, record: &[u8]) -> Result<()> {
        let held = self.covered.iter().any(|span| span.contains(commit));
        self.replayed += u64::from(!held);
        let how = if held { Apply::Held } else { Apply::Replayed };
        let applied = self.tip.apply(record, self.budget, how).map(drop);
        let why = || format!("the record of commit {commit} does not read back");
        applied.ok_or_else(|| Error::damaged("log", 0, why()))
    }

    fn restart(&mut self) {
        (self.tip, self.replayed) = ((self.start)(), 0);
    }
}

/// Changes the retention, from the newest commit on.
///
/// The schedule changes with it, and a replay must not have to know at which commit. So all tables are spilled first:
/// then the floor is the newest commit, and the log before it is never needed again. One edit of the manifest makes
/// the spills, the new schedule and the new history durable together.
async fn change_retention(
    io: &Io,
    cache: &Rc<BlockCache>,
    config: &Config,
    tip: &mut Tip,
    history: &mut History,
    to: Retention,
    manifest: &mut Manifest,
) -> Result<()> {
    tip.freeze_active();
    let throttle = Rc::new(Throttle::default());
    throttle.grant(u64::MAX);
    let context = Context {
        io: io.clone(),
        cache: cache.clone(),
        shard: config.shard,
        divisor: config.divisor,
        segments: config.segments,
        part_bytes: config.fixed.part_bytes,
        history: history.clone(),
        throttle,
        outbox: Rc::default(),
        written: Rc::default(),
        loose: Rc::default(),
    };
    let tables: Vec<Rc<Table>> = tip.view.tables().cloned().collect();
    for table in tables {
        let span = table.span();
        compact::carry::spill(context.clone(), span, Level(0), vec![Source::Table(table)]).await?;
    }
    let mut view = View::clone(&tip.view);
    let mut edit = Edit::default();
    for change in context.outbox.take() {
        let Change::Spill { segment, span } = change else { continue };
        view.take_within(span);
        edit.add.push((segment.name().to_string(), encode_role(Kind::Spill, None, &segment)));
        view.insert(Source::Segment(segment));
    }
    let mut schedule = tip.schedule;
    schedule.shape = schedule.shape.change(schedule.at, to.has_base(), config.fixed.base_ratio);
    let changed = history.change(to, schedule.at);
    edit.facts.push((FACT_SCHEDULE, schedule.encode()));
    edit.facts.push((FACT_HISTORY, encode_history(&changed)));
    manifest.apply(edit).await?;
    *history = changed;
    let bytes_in = tip.bytes_in;
    *tip = Tip { bytes_in, ..Tip::new(schedule, view, tip.base_bytes) };
    Ok(())
}

/// Checks that every commit is somewhere, and in one place only.
fn check_contiguous(tip: &Tip) -> Result<()> {
    let mut end = tip.view.base_end;
    for source in tip.view.sources.iter().rev() {
        let span = source.span();
        if span.after != end {
            let why = format!("what it lists goes from commit {end} to commits {span}");
            return Err(Error::damaged(MANIFEST, 0, why));
        }
        end = span.last;
    }
    let begins = tip.active.span().after;
    if end != begins {
        let why = format!("what it lists ends at commit {end}, and the log goes on behind commit {begins}");
        return Err(Error::damaged(MANIFEST, 0, why));
    }
    Ok(())
}

/// Builds the view that the manifest describes.
fn view_of(
    io: &Io,
    cache: &BlockCache,
    segments: &BTreeMap<String, Vec<u8>>,
    base_end: Commit,
) -> Result<View> {
    let mut view = View { base_end, ..View::default() };
    for (name, bytes) in segments {
        let role = decode_role(bytes)
            .ok_or_else(|| Error::damaged(MANIFEST, 0, format!("the entry of {name} does not read back")))?;
        let segment = Rc::new(Segment::new(io.clone(), name.clone(), role.meta, cache.segment_number()));
        match (role.kind, role.bounds) {
            (Kind::Part, Some((low, high, whole))) => view.parts.push(Part { low, high, segment, whole }),
            _ => view.insert(Source::Segment(segment)),
        }
    }
    view.parts.sort_by(|one, other| one.low.cmp(&other.low));
    Ok(view)
}

/// The files of segments that the manifest does not know; those that it knows must be there.
async fn find_orphans(io: &Io, segments: &BTreeMap<String, Vec<u8>>) -> Result<Vec<String>> {
    let listed = io.list().await.map_err(|error| Error::io("list", "the shard's folder", error))?;
    let ours = |name: &str| ["segment-", "spill-", "base-"].iter().any(|kind| name.starts_with(kind));
    let orphans: Vec<String> = listed
        .iter()
        .map(|(name, _)| name)
        .filter(|name| ours(name) && !segments.contains_key(*name))
        .cloned()
        .collect();
    // A file that the manifest knows must be there, and whole.
    let lengths: BTreeMap<&String, u64> = listed.iter().map(|(name, bytes)| (name, *bytes)).collect();
    for (name, bytes) in segments {
        let expected = decode_role(bytes).map_or(0, |role| role.meta.file_bytes);
        match lengths.get(name) {
            None => return Err(Error::damaged(name, 0, "the file is gone")),
            Some(&has) if has != expected => {
                return Err(Error::damaged(
                    name,
                    has.min(expected),
                    format!("{has} bytes long, not {expected}"),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(orphans)
}
