//! Folding a window into the base, part by part.
//!
//! The base's key space is cut into *tiles*: its parts, and the gaps between and around them. In key order:
//!
//! 1. A tile that the window has nothing for, and in which no directory was dropped, stays as it is.
//! 2. Any other tile is merged with the window's entries for it. The merge ends a part when it has grown to its
//!    size, at a key's end, and installs it at once: the new part takes the place of the tile up to there, the
//!    rest of the tile becomes a tile of its own (one that is always rewritten).
//! 3. At a tile's end a part that is still small takes in the next tile too, so parts do not crumble.
//!
//! The engine's own directories, catalog and drops, come last, in tiles of their own, and are installed by the
//! change that ends the fold: they say which other entries are dead, so for as long as the fold may be resumed they
//! must stay as they are.
//!
//! Every decision depends on the parts, the window and the options only, and each installed part is a point
//! from which the fold can be resumed: parts that end at the fold's commit are done. So an interrupted fold
//! leaves the same files as one that was not.
//!
//! The window's sources stay in the cover until the last part is installed. Reads do not mind: what a new part
//! took in from the window, they find in the window first.

use super::carry::merge_of;
use super::dead::{Dead, Earlier};
use super::output::Output;
use super::sift::Sift;
use super::{Change, Context, NewParts, part_name};
use crate::entry::DirectoryId;
use crate::error::Result;
use crate::levels::{Commit, KeepRule, Level};
use crate::memtable::Place;
use crate::read::merge::Merge;
use crate::segment::SegmentIdentity;
use crate::view::{FullKey, Kind, Part, Source, work_bytes};

/// A new part smaller than this share of a part's size takes in the next tile.
const SMALL_SHARE: u64 = 4;

/// A range of the base's keys: a part, or a gap.
struct Tile {
    low: FullKey,
    high: Option<FullKey>,
    part: Option<Part>,
}

impl Tile {
    /// Whether it is of the engine's own directories.
    fn is_engines(&self) -> bool {
        self.low.directory < DirectoryId::FIRST_FREE
    }

    /// Whether a key lies below the tile's end.
    fn ends_above(&self, directory: DirectoryId, key: &[u8]) -> bool {
        self.high.as_ref().is_none_or(|high| high.compare(directory, key).is_gt())
    }
}

/// Folds a window's sources and the base's parts into the base as of `to`.
pub(crate) async fn fold(
    context: Context,
    from: Commit,
    to: Commit,
    inputs: Vec<Source>,
    parts: Vec<Part>,
) -> Result<()> {
    let done = |part: &Part| part.segment.meta().identity.last == to;
    let number = parts.iter().filter(|part| done(part)).count();
    let mut tiles = tiles_of(&parts);
    let rule_at = |commit| context.history.keep_rule(context.divisor, commit);
    let rule = rule_at(to);
    let earlier = Earlier { from, before: rule_at(from), now: rule.clone() };
    let dead = Dead::find(
        &mut merge_of(&engines_own(&inputs, &parts), &context.cache),
        Some(&earlier),
        &context.throttle,
    )
    .await?;
    // From here on a part is held by its tile only, and its file goes when it is replaced.
    drop(parts);
    let mut window = merge_of(&inputs, &context.cache);
    let mut folding =
        Folding { context: &context, to, inputs: &inputs, dead: &dead, rule, number, together: None };
    let engines = tiles.partition_point(Tile::is_engines);
    let (own, users) = tiles.split_at_mut(engines);
    let mut at = 0;
    while let Some(tile) = users.get(at) {
        match &tile.part {
            Some(part) if done(part) => at += 1,
            part if touched(&context, &mut window, &dead, tile).await? => {
                // An interrupted fold may have left it trimmed; that is the same work.
                debug_assert!(part.as_ref().is_none_or(|part| part.low == tile.low));
                at = folding.rewrite(users, at).await?;
            }
            _ => {
                at += 1;
                folding.pass_over(tile);
            }
        }
    }
    let mut rewrite = false;
    for tile in own.iter() {
        rewrite |= touched(&context, &mut window, &dead, tile).await?;
    }
    let own = match own.last() {
        Some(last) if rewrite => {
            let high = last.high.clone();
            folding.together = Some(Vec::new());
            folding.rewrite(own, 0).await?;
            let parts = folding.together.take().unwrap_or_default();
            Some(NewParts { low: FullKey::least(), high, parts })
        }
        _ => {
            own.iter().for_each(|tile| folding.pass_over(tile));
            None
        }
    };
    context.outbox.borrow_mut().push_back(Change::Folded { to, own });
    Ok(())
}

/// The key space as tiles, in order.
fn tiles_of(parts: &[Part]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let users = FullKey { directory: DirectoryId::FIRST_FREE, key: Box::default() };
    let gap = |tiles: &mut Vec<Tile>, mut low: FullKey, high: Option<FullKey>| {
        if low < users && high.as_ref().is_none_or(|high| *high > users) {
            let own = std::mem::replace(&mut low, users.clone());
            tiles.push(Tile { low: own, high: Some(users.clone()), part: None });
        }
        tiles.push(Tile { low, high, part: None });
    };
    let mut low = Some(FullKey::least());
    for part in parts {
        if let Some(low) = low.filter(|low| *low < part.low) {
            gap(&mut tiles, low, Some(part.low.clone()));
        }
        tiles.push(Tile { low: part.low.clone(), high: part.high.clone(), part: Some(part.clone()) });
        low = part.high.clone();
    }
    if let Some(low) = low {
        gap(&mut tiles, low, None);
    }
    tiles
}

/// The sources of a fold that can hold the engine's own directories: drops and catalog.
fn engines_own(inputs: &[Source], parts: &[Part]) -> Vec<Source> {
    let parts = parts.iter().take_while(|part| part.low.directory < DirectoryId::FIRST_FREE);
    let parts = parts.map(|part| Source::Segment(part.segment.clone()));
    inputs.iter().cloned().chain(parts).collect()
}

/// Whether a tile has to be rewritten.
async fn touched(context: &Context, window: &mut Merge, dead: &Dead, tile: &Tile) -> Result<bool> {
    context.throttle.look().await;
    let high = tile.high.as_ref().map(|high| (high.directory, &*high.key));
    if let Some(part) = &tile.part {
        // What a fold has begun, it finishes.
        if !part.whole || dead.touches(tile.low.directory, high) {
            return Ok(true);
        }
    }
    window.seek(Place::Before(tile.low.directory, &tile.low.key)).await?;
    Ok(window.entry().is_some_and(|entry| tile.ends_above(entry.directory, entry.key)))
}

/// A fold under way.
struct Folding<'a> {
    context: &'a Context,
    to: Commit,
    inputs: &'a [Source],
    dead: &'a Dead,
    rule: KeepRule,
    /// New parts so far: the number of the next.
    number: usize,
    /// Parts that are to be installed together.
    together: Option<Vec<Part>>,
}

impl Folding<'_> {
    /// Counts a tile that stays as it is.
    fn pass_over(&self, tile: &Tile) {
        self.context.throttle.skip(tile.part.as_ref().map_or(0, |part| work_bytes(&part.segment)));
    }

    /// Rewrites tiles from `at` on, until a part ends at a tile's end (where parts are installed together: to the
    /// last of them). Answers the next tile.
    async fn rewrite(&mut self, tiles: &mut [Tile], mut at: usize) -> Result<usize> {
        let mut sift = Sift::new(self.rule.clone(), true);
        let mut low = tiles[at].low.clone();
        let mut output = self.create().await?;
        loop {
            let part = tiles[at].part.take();
            let tile = &tiles[at];
            let replaced = part.is_some().then_some(self.inputs.len());
            let part = part.iter().map(|part| Source::Segment(part.segment.clone()));
            let sources: Vec<Source> = self.inputs.iter().cloned().chain(part).collect();
            let mut merge = merge_of(&sources, &self.context.cache);
            merge.seek(Place::Before(tile.low.directory, &tile.low.key)).await?;
            while let Some(entry) = merge.entry() {
                if !tile.ends_above(entry.directory, entry.key) {
                    break;
                }
                // A part ends between two keys.
                if output.bytes() >= self.context.part_bytes && !sift.is_at(&entry) {
                    let high = FullKey { directory: entry.directory, key: entry.key.into() };
                    self.install(output, low, Some(high.clone())).await?;
                    output = self.create().await?;
                    low = high;
                }
                if self.context.throttle.is_used_up() {
                    self.context.throttle.pause().await;
                }
                let (mut full, warm) = (false, merge.is_warm());
                sift.push(&entry, self.dead, |entry| full |= output.add(entry, warm));
                if warm && merge.source() == replaced {
                    output.take_over();
                }
                self.context.throttle.spend(entry.weight());
                if full {
                    output.flush().await?;
                }
                if !merge.step() {
                    merge.advance().await?;
                }
            }
            at += 1;
            let small = output.bytes() < self.context.part_bytes / SMALL_SHARE;
            if at == tiles.len() || !(small || self.together.is_some()) {
                self.install(output, low, tile.high.clone()).await?;
                return Ok(at);
            }
        }
    }

    async fn create(&self) -> Result<Output> {
        let identity = SegmentIdentity {
            kind: Kind::Part.to_byte(),
            level: Level(0),
            shard: self.context.shard,
            first: Commit(1),
            last: self.to,
            part: self.number as u32,
        };
        Output::create(self.context, part_name(self.to, self.number), identity).await
    }

    /// Ends a part, or what would have been one where nothing was kept.
    async fn install(&mut self, output: Output, low: FullKey, high: Option<FullKey>) -> Result<()> {
        let parts = if output.entries() == 0 {
            output.discard().await?;
            Vec::new()
        } else {
            self.number += 1;
            let segment = output.finish().await?;
            vec![Part { low: low.clone(), high: high.clone(), segment, whole: true }]
        };
        match &mut self.together {
            Some(together) => together.extend(parts),
            None => {
                let change = Change::Parts(NewParts { low, high, parts });
                self.context.outbox.borrow_mut().push_back(change);
            }
        }
        Ok(())
    }
}
