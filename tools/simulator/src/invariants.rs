//! The invariants that a picture of a shard can be held against: alignment, cover and pace.
//!
//! Each check looks at one moment. What must be remembered from moment to moment is in a value of its own
//! ([`CoverCheck`]). A violation is a panic, as an assertion's.

use quipu::levels::{Commit, Level, Piece, Span, Window};
use quipu::simulation::{Picture, SimulatedShard};
use quipu::{CarryKind, SegmentKind};

/// Alignment: every segment of a window holds exactly one window of its level, and spills are private to a window whose
/// carry is not installed.
///
/// A manifest that has lost an edit (`damaged`) may know parts of a fold that it takes for not begun.
pub fn check_alignment(shard: &SimulatedShard, picture: &Picture, damaged: bool) {
    let divisor = picture.shape.divisor;
    let mut part_ends: Vec<Commit> = Vec::new();
    for info in shard.segments() {
        match info.kind {
            SegmentKind::Window => {
                let window = Window::ending_at(divisor, info.last, info.level);
                let span = window.map(|window| (window.span().first(), window.last()));
                assert_eq!(span, Some((info.first, info.last)), "{} is one window", info.file);
            }
            SegmentKind::Part => {
                assert_eq!(info.first, Commit(1), "{}", info.file);
                part_ends.push(info.last);
            }
            SegmentKind::Spill => {
                // Within the window that is open, or within one whose carry is in flight.
                let open = divisor.floor(picture.newest, picture.shape.flush_level);
                let carried = picture
                    .carries
                    .iter()
                    .any(|carry| carry.kind != CarryKind::Spill && info.last <= carry.due);
                assert!(info.first > open || carried, "{} is left behind: {picture:?}", info.file);
                let window = Window::containing(divisor, info.first, Level(picture.shape.flush_level.0));
                assert!(carried || info.last <= window.last(), "{} leaves its window", info.file);
            }
        }
    }
    // The base ends at its end; a fold in flight has parts that end where it will.
    part_ends.sort();
    part_ends.dedup();
    for end in &part_ends {
        let folds = picture.carries.iter().any(|carry| {
            carry.kind == CarryKind::Fold && (carry.due == *end || (damaged && carry.due > *end))
        });
        assert!(*end <= picture.base_end || folds, "a part ends at {end}: {picture:?}");
    }
    if let Some(level) = picture.shape.base_level {
        assert!(level >= picture.shape.flush_level);
    }
}

/// Once a shard is settled, no spill of a window that has closed is left.
pub fn check_settled_alignment(shard: &SimulatedShard, picture: &Picture) {
    check_alignment(shard, picture, false);
    let open = picture.shape.divisor.floor(picture.newest, picture.shape.flush_level);
    for info in shard.segments() {
        assert!(info.kind != SegmentKind::Spill || info.first > open, "{} after settling", info.file);
    }
}

/// What lies on disk and in memory follows upon each other, from the first commit to the newest.
pub fn check_contiguous(picture: &Picture) {
    let mut spans: Vec<Span> = picture.pieces.iter().map(|piece| piece.span()).collect();
    spans.extend(&picture.tables);
    spans.sort();
    let mut end = Commit::ZERO;
    for span in spans {
        assert_eq!(span.after, end, "a gap or an overlap: {picture:?}");
        end = span.last;
    }
    assert_eq!(end, picture.newest, "{picture:?}");
}

/// The most segments that digits can ask for up to the newest commit; where the base ends on a boundary of a level less
/// than its own, as many again for the levels on the way up.
fn bound(picture: &Picture, lowest: Level, highest: Option<Level>) -> usize {
    let divisor = picture.shape.divisor;
    let top = divisor.levels(picture.newest, Level(0)).last().unwrap_or(Level(0));
    let top = highest.map_or(top, |base| Level(base.0.saturating_sub(1)).min(top).max(lowest));
    let ends = [picture.base_end, picture.shape.base_end].into_iter().filter(|&end| end > Commit::ZERO);
    let rises = ends.map(|end| usize::from(top.above().0.saturating_sub(divisor.zeros(end).0))).max();
    let falls = usize::from(top.0 - lowest.0.min(top.0)) + 1;
    (divisor.get() as usize - 1) * (falls + rises.unwrap_or(0)) + 1
}

/// Cover: once what is due is installed, the live files are the digits of the newest commit's number; while
/// carries are in flight they stay below twice the digits' bound, and always join without a gap or an overlap.
#[derive(Clone, Debug, Default)]
pub struct CoverCheck {
    /// The flush level may have been lower when the windows that still live were begun.
    lowest: Level,
    /// A fold in flight may be of the level that the base had.
    highest: Option<Level>,
    /// Not all that lives was begun with a base: the retention was changed.
    without_base: bool,
}

impl CoverCheck {
    /// At any moment.
    ///
    /// `times`: below so many times the digits' bound. Twice, where the disk keeps up with the pace; where its
    /// operations take long, carries may be late by the length of their own schedules.
    pub fn check(&mut self, picture: &Picture, times: usize) {
        check_contiguous(picture);
        // Between two looks it may have been lower, too.
        let windows = picture.pieces.iter().filter_map(|piece| match piece {
            Piece::Segment(window) => Some(window.level()),
            _ => None,
        });
        let windows: Vec<Level> = windows.collect();
        // And the base's level higher than any window.
        let base_level = picture.shape.base_level.max(windows.iter().map(|level| level.above()).max());
        let lowest = windows.into_iter().chain([picture.shape.flush_level]).min();
        self.lowest = lowest.map_or(self.lowest, |lowest| lowest.min(self.lowest));
        let live = picture.pieces.iter().filter(|piece| !matches!(piece, Piece::Spill(_))).count();
        self.highest = self.highest.max(base_level);
        self.without_base |= picture.shape.base_level.is_none();
        let highest = self.highest.filter(|_| !self.without_base);
        let bound = bound(picture, self.lowest, highest);
        assert!(live < times * bound, "{live} live files, where digits ask for {bound}: {picture:?}");
    }

    /// Once nothing is left to do.
    pub fn check_settled(&mut self, picture: &Picture) {
        check_contiguous(picture);
        let cover = picture.shape.cover(picture.newest);
        let base = (cover.base_end > Commit::ZERO).then_some(Piece::Base(cover.base_end));
        let expected: Vec<Piece> =
            base.into_iter().chain(cover.windows.iter().copied().map(Piece::Segment)).collect();
        let spills = |piece: &&Piece| !matches!(piece, Piece::Spill(_));
        let live: Vec<Piece> = picture.pieces.iter().filter(spills).copied().collect();
        assert_eq!(live, expected, "at commit {}", picture.newest);
        assert_eq!(picture.base_end, cover.base_end);
        self.highest = picture.shape.base_level;
        self.without_base = self.highest.is_none();
        if picture.shape.flush_level > self.lowest && cover.windows.iter().all(|w| w.level() > self.lowest) {
            self.lowest = picture.shape.flush_level;
        }
    }
}

/// What compaction is granted in a turn.
const SLICE_BYTES: u64 = 32 << 10;
/// What a turn may merge beyond that: the entry that a slice ends with, and what other pieces of work look at.
const BEYOND_BYTES: u64 = (10 << 10) + (4 << 10);
/// The most bytes that a turn may merge, with entries as large as [`value`](crate::choices::value) makes them.
pub const TURN_BYTES_MAX: u64 = SLICE_BYTES + BEYOND_BYTES;

/// Pace: the compaction of one turn is bounded, and a carry is installed before the commit that is its deadline.
pub fn check_pace(picture: &Picture) {
    for carry in picture.carries.iter().filter(|carry| carry.kind != CarryKind::Spill) {
        assert!(picture.newest < carry.deadline, "{carry:?} at commit {}", picture.newest);
    }
    let most = picture.slice_bytes_max;
    assert!(most <= TURN_BYTES_MAX, "{most} bytes in one turn");
}
