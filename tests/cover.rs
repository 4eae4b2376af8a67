//! Cover: once what is due is installed, the live files are the digits of the newest commit's number; while carries
//! are in flight they stay below twice the digits' bound, and always join without a gap or an overlap.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::{Commit, Level, Piece, Span};
use quipu::simulation::Picture;

/// What lies on disk and in memory follows upon each other, from the first commit to the newest.
fn check_contiguous(picture: &Picture) {
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

/// The most segments that digits can ask for up to the newest commit.
fn bound(picture: &Picture, lowest: Level, highest: Option<Level>) -> usize {
    let divisor = picture.shape.divisor;
    let top = divisor.levels(picture.newest, Level(0)).last().unwrap_or(Level(0));
    let top = highest.map_or(top, |base| Level(base.0.saturating_sub(1)).min(top).max(lowest));
    (divisor.get() as usize - 1) * (usize::from(top.0 - lowest.0.min(top.0)) + 1) + 1
}

#[test]
fn live_files_are_the_digits_of_the_newest_commit() {
    for_seeds(16, |seed| {
        let mut random = SplitMix64::new(seed);
        let commits = 300 + random.below(1200) as usize;
        let history = History::new(seed, Profile { commits, ..Profile::default() });
        let options = fixed_options(&mut random).retention(retention(&mut random));
        let options = free_options(&mut random, options);
        let folder = SimulatedFolder::new();
        let mut runner = Runner::open(&folder, disk(&mut random), &options, &history);
        // The flush level may have been lower when the windows that still live were begun.
        let mut lowest = Level(0);
        let mut highest = None; // A fold in flight may be of the level that the base had.
        while !runner.is_over() {
            runner.advance_with(1 + random.below(200), |runner| {
                let picture = runner.shard.picture();
                check_contiguous(&picture);
                if picture.shape.flush_level < lowest {
                    lowest = picture.shape.flush_level;
                }
                let live = picture.pieces.iter().filter(|piece| !matches!(piece, Piece::Spill(_))).count();
                highest = highest.max(picture.shape.base_level);
                let bound = bound(&picture, lowest, highest);
                assert!(live < 2 * bound, "{live} live files, where digits ask for {bound}: {picture:?}");
            });
            if random.chance(60) {
                runner.settle();
                let picture = runner.shard.picture();
                check_contiguous(&picture);
                let cover = picture.shape.cover(picture.newest);
                let base = (cover.base_end > Commit::ZERO).then_some(Piece::Base(cover.base_end));
                let expected: Vec<Piece> =
                    base.into_iter().chain(cover.windows.iter().copied().map(Piece::Segment)).collect();
                let spills = |piece: &&Piece| !matches!(piece, Piece::Spill(_));
                let live: Vec<Piece> = picture.pieces.iter().filter(spills).copied().collect();
                assert_eq!(live, expected, "at commit {}", picture.newest);
                assert_eq!(picture.base_end, cover.base_end);
                highest = picture.shape.base_level;
                if picture.shape.flush_level > lowest && cover.windows.iter().all(|w| w.level() > lowest) {
                    lowest = picture.shape.flush_level;
                }
            }
        }
    });
}
