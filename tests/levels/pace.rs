//! Carries in flight under a steady load: work a commit, deadlines, live segments.

use crate::divisors;
use quipu::levels::{
    Budget, Carry, Commit, Divisor, Folded, Level, Measured, Pace, Piece, Shape, work_bound,
};

#[derive(Default, Debug)]
struct Seen {
    added_max: u64,
    live_max: usize,
    in_flight_max: usize,
    base_level_max: Level,
    held_up: u64,
}

const SIZE: u64 = 100;
const RATIO: u32 = 8;

/// Commits of [`SIZE`] bytes; carries are worked on as owed, but only after every `every` commits. With a base, it
/// never holds more than `live_bytes`.
fn run(divisor: Divisor, flush: Level, commits: u64, every: u64, live_bytes: Option<u64>) -> Seen {
    let mut shape = Shape::new(divisor, flush, live_bytes.is_some());
    let budget = Budget { flush_bytes: SIZE * divisor.pow(flush), base_ratio: RATIO };
    let (mut pace, mut seen) = (Pace::new(), Seen::default());
    let mut pieces: Vec<Piece> = Vec::new();
    let mut flights: Vec<Carry> = Vec::new();
    let (mut base_bytes, mut base_bytes_max, mut window_bytes, mut scheduled_before) = (0, 0, 0, 0);
    let mut folded = Folded::default();
    for n in (1..=commits).map(Commit) {
        while !pace.admits(n) {
            assert!(every > 1, "never held up when paying after every commit");
            seen.held_up += 1;
            let owed = pace.owed_bytes(Commit(n.0 - 1));
            assert!(owed > 0, "what holds commits up is owed");
            pay(&mut pace, owed, &mut pieces, &mut flights);
        }
        for work in pace.in_flight() {
            assert!(n < work.deadline);
        }
        window_bytes += SIZE;
        let flush_bytes = budget.flush_bytes;
        let measured = Measured { flush_bytes, window_bytes, folded, base_bytes, base_bytes_max };
        if let Some((carry, after)) = shape.step(n, &measured, &budget) {
            for piece in &pieces {
                let span = piece.span();
                assert!(carry.span().covers(span) || span.last <= carry.span().after, "inputs are installed");
            }
            for &flight in &flights {
                assert!(!carry.span().covers(flight.span()), "what it takes is installed");
            }
            shape = after;
            assert_eq!(shape.flush_level, flush);
            let (total, fresh) = match carry {
                Carry::Segment(window) => (SIZE * window.span().count(), SIZE * window.span().count()),
                Carry::Fold { .. } => (base_bytes + window_bytes, window_bytes),
            };
            if let (Carry::Fold { .. }, Some(live_bytes)) = (carry, live_bytes) {
                folded = measured.fold();
                base_bytes = total.min(live_bytes);
                (base_bytes_max, window_bytes) = (total, 0);
            }
            pace.reshape(&shape, n);
            pace.begin(&shape, carry, n, total, fresh);
            pace.start(n, n);
            flights.push(carry);
        }
        // What this commit adds to the schedules: what is owed beyond what was owed.
        let owed = pace.owed_bytes(n);
        seen.added_max = seen.added_max.max(owed.saturating_sub(scheduled_before));
        if n.0 % every == 0 {
            pay(&mut pace, owed, &mut pieces, &mut flights);
            assert_eq!(pace.owed_bytes(n), 0);
        }
        scheduled_before = pace.owed_bytes(n);
        pace.settle(n);
        assert_eq!(pace.owed_bytes(n), scheduled_before, "what is settled owes nothing and lends nothing");
        seen.live_max = seen.live_max.max(pieces.len());
        seen.in_flight_max = seen.in_flight_max.max(pace.in_flight().count());
        if let Some(level) = shape.base_level {
            seen.base_level_max = seen.base_level_max.max(level);
        }
        if n.0 % 97 == 0 {
            let ahead = (1..=50).take_while(|ahead| pace.admits(Commit(n.0 + ahead))).count();
            assert_eq!(pace.commits_ahead(n, 50), ahead as u64);
        }
    }
    seen
}

/// Does that much work, first end first, and installs what is done.
fn pay(pace: &mut Pace, mut bytes: u64, pieces: &mut Vec<Piece>, flights: &mut Vec<Carry>) {
    while let (Some(due), true) = (pace.next(), bytes > 0) {
        let work = pace.in_flight().find(|work| work.due == due).unwrap();
        let left = work.total_bytes - work.done_bytes;
        pace.progress(due, bytes.min(left));
        if bytes >= left {
            pace.install(due);
            let at = flights.iter().position(|carry| carry.due() == due).unwrap();
            let carry = flights.remove(at);
            pieces.retain(|piece| !carry.span().covers(piece.span()));
            pieces.push(carry.output());
        }
        bytes -= bytes.min(left);
    }
}

fn commits() -> u64 {
    if cfg!(debug_assertions) { 10_000 } else { 100_000 }
}

#[test]
fn work_a_commit_and_live_segments_are_bounded() {
    for divisor in divisors() {
        for flush in [Level(0), Level(1), Level(2)] {
            // As many commits as so many levels hold, or as time allows.
            let levels_max = match divisor.get() {
                ..=4 => 6,
                5..=8 => 5,
                _ => 4,
            };
            let commits = (divisor.pow(Level(flush.0 + levels_max)) - 1).min(commits());
            let levels = divisor.levels(Commit(commits), flush).count();
            assert!(levels <= levels_max.into());
            let seen = run(divisor, flush, commits, 1, None);
            let bound = work_bound(divisor, SIZE, levels as u32, None) + seen.in_flight_max as u64;
            assert!(
                seen.added_max <= bound,
                "divisor {}, flush level {flush}: {seen:?}, {bound}",
                divisor.get()
            );
            assert!(seen.live_max < 2 * levels * (divisor.get() as usize - 1), "{seen:?}");
        }
    }
}

#[test]
fn folds_are_paced_like_carries() {
    for divisor in divisors() {
        for live_bytes in [500 * SIZE, 20_000 * SIZE, u64::MAX] {
            let seen = run(divisor, Level(1), commits(), 1, Some(live_bytes));
            let levels = u32::from(seen.base_level_max.0 - 1);
            let bound = work_bound(divisor, SIZE, levels, Some(RATIO)) + seen.in_flight_max as u64;
            assert!(seen.added_max <= bound, "divisor {}: {seen:?}, {bound}", divisor.get());
            assert!(
                seen.live_max <= 1 + 3 * (levels as usize + 1) * (divisor.get() as usize - 1),
                "{seen:?}"
            );
        }
    }
}

#[test]
fn work_put_off_holds_commits_up_and_still_meets_every_deadline() {
    for divisor in divisors() {
        let seen = run(divisor, Level(2), commits(), 3 * divisor.pow(Level(2)) + 1, None);
        assert!(seen.held_up > 0);
    }
}

#[test]
fn a_schedule_rises_evenly_and_gates_commits() {
    let four = Divisor::new(4).unwrap();
    let shape = Shape::new(four, Level(1), false);
    let carry = Carry::Segment(shape.closes(Commit(64)).unwrap());
    let mut pace = Pace::new();
    pace.begin(&shape, carry, Commit(64), 1000, 1000);
    assert_eq!((pace.owed_bytes(Commit(79)), pace.next()), (0, None), "it has not started");
    pace.start(Commit(64), Commit(64));
    // 64 commits in its window: a schedule of 16, from 64 to 79.
    let owed: Vec<u64> = [64, 65, 71, 78, 79, 200].map(|n| pace.owed_bytes(Commit(n))).to_vec();
    assert_eq!(owed, [63, 125, 500, 938, 1000, 1000]);
    assert!(pace.admits(Commit(80)) && !pace.admits(Commit(81)));
    assert_eq!(pace.commits_ahead(Commit(64), 100), 16);
    pace.progress(Commit(64), 500);
    assert!(pace.admits(Commit(88)) && !pace.admits(Commit(89)));
    assert_eq!((pace.owed_bytes(Commit(70)), pace.owed_bytes(Commit(79))), (0, 500));
    pace.progress(Commit(64), 500);
    assert_eq!(pace.next(), None);
    assert!(pace.admits(Commit(255)) && !pace.admits(Commit(256)), "done, but not installed at its deadline");
    pace.install(Commit(64));
    assert!(pace.admits(Commit(256)));
    pace.settle(Commit(79));
    assert_eq!(pace, Pace::new());
    // Resumed late: half of what is left.
    pace.begin(&shape, carry, Commit(240), 1000, 1000);
    pace.start(Commit(64), Commit(250));
    pace.start(Commit(64), Commit(252));
    assert_eq!((pace.owed_bytes(Commit(250)), pace.owed_bytes(Commit(252))), (334, 1000));
}

/// A fold due at 64 that took in 20 commits of 40 bytes; windows of level 1 are made beside it. The base rests for 16 commits: a
/// schedule of 15, from 64 to 78, and a slack of 1.
fn fold_of(total: u64) -> (Pace, Shape) {
    let four = Divisor::new(4).unwrap();
    let (base_end, base_rests) = (Commit(64), Commit(80));
    let shape =
        Shape { base_end, base_rests, base_level: Some(Level(3)), ..Shape::new(four, Level(1), true) };
    let mut pace = Pace::new();
    pace.begin(&shape, Carry::Fold { from: Commit(44), to: Commit(64) }, Commit(64), total, 800);
    pace.start(Commit(64), Commit(64));
    (pace, shape)
}

#[test]
fn a_fold_gives_way_to_what_is_merged_beside_it() {
    let (mut pace, shape) = fold_of(2520);
    // Until 79 three windows of 4 commits close: 480 bytes beside it, so 200 a commit in all.
    let owed: Vec<u64> = [64, 65, 67].map(|n| pace.owed_bytes(Commit(n))).to_vec();
    assert_eq!(owed, [200, 400, 800]);
    let segment = Carry::Segment(shape.closes(Commit(68)).unwrap());
    pace.begin(&shape, segment, Commit(68), 160, 160);
    pace.start(Commit(68), Commit(68));
    pace.begin(&shape, Carry::Segment(shape.closes(Commit(72)).unwrap()), Commit(72), 160, 160);
    pace.start(Commit(72), Commit(72));
    // Both are in the account, and the sum rises as before. (The third never came: the fold is done before its end.)
    let owed: Vec<u64> = [68, 69, 71, 72, 75, 78].map(|n| pace.owed_bytes(Commit(n))).to_vec();
    assert_eq!(owed, [1000, 1200, 1600, 1800, 2400, 2520 + 320]);
    assert_eq!(pace.next(), Some(Commit(68)), "whose schedule ends first");
    pace.progress(Commit(68), 160);
    pace.install(Commit(68));
    pace.settle(Commit(68));
    assert_eq!(pace.owed_bytes(Commit(69)), 1040, "what is settled still counts");
}

#[test]
fn a_fold_is_scheduled_beside_exactly_what_will_be_merged() {
    for divisor in divisors().filter(|divisor| divisor.get() <= 8) {
        for (flush, grain, ends, rest) in [(1, 2, 3, 1), (1, 2, 5, 3), (0, 3, 7, 2), (2, 3, 1, 5)] {
            let (flush_level, grain) = (Level(flush), Level(grain));
            let base_end = Commit(ends * divisor.pow(grain));
            let base_rests = Commit(base_end.0 + rest * divisor.pow(grain));
            let base_level = Some(grain.above());
            let shape = Shape { divisor, flush_level, base_end, base_rests, base_level };
            let mut pace = Pace::new();
            pace.begin(
                &shape,
                Carry::Fold { from: Commit(base_end.0 - 1), to: base_end },
                base_end,
                1000,
                SIZE,
            );
            let fold = *pace.in_flight().next().unwrap();
            let windows =
                (base_end.0 + 1..=base_end.0 + fold.schedule).filter_map(|n| shape.closes(Commit(n)));
            let merged: u64 = windows.map(|window| SIZE * window.span().count()).sum();
            assert_eq!(fold.beside_bytes, merged, "divisor {}: {shape:?}", divisor.get());
        }
    }
}

#[test]
fn a_fold_starts_in_time_whatever_is_merged_beside_it() {
    let (mut pace, shape) = fold_of(2520);
    pace.begin(&shape, Carry::Segment(shape.closes(Commit(68)).unwrap()), Commit(68), 1 << 40, 1 << 40);
    pace.start(Commit(68), Commit(68));
    pace.progress(Commit(68), 1 << 40);
    // From the middle of its schedule on, at twice the even rate of 168.
    let owed: Vec<u64> = [70, 71, 72, 77, 78].map(|n| pace.owed_bytes(Commit(n))).to_vec();
    assert_eq!(owed, [0, 168, 504, 2184, 2520]);
}

#[test]
fn commits_wait_for_a_fold_within_the_rest() {
    let (mut pace, _) = fold_of(2520);
    // What is required is that, late by the slack.
    assert!(pace.admits(Commit(72)) && !pace.admits(Commit(73)));
    assert_eq!(pace.commits_ahead(Commit(64), 100), 8);
    pace.progress(Commit(64), 168);
    assert!(pace.admits(Commit(73)) && !pace.admits(Commit(74)));
    pace.progress(Commit(64), 2520);
    assert!(pace.admits(Commit(79)) && !pace.admits(Commit(80)), "done, but not installed at its deadline");
}

#[test]
fn a_fold_of_a_base_that_rests_longer_has_more_time_for_what_is_left() {
    let (mut pace, shape) = fold_of(2520);
    pace.progress(Commit(64), 1000);
    let longer = Shape { base_rests: Commit(1664), ..shape };
    pace.reshape(&longer, Commit(68));
    // 1596 commits are left, so a schedule of 1497: of 1520 bytes, and what of 480 beside it was to come until 79.
    let owed: Vec<u64> = [68, 69, 70].map(|n| pace.owed_bytes(Commit(n))).to_vec();
    assert_eq!(owed, [2, 3, 4], "nothing is to be made up for, nor was anything lent");
    assert!(pace.admits(Commit(900)), "it may start in the middle");
    assert_eq!(pace.owed_bytes(Commit(1564)), 1520);
    assert!(!pace.admits(Commit(1664)), "not installed at its deadline");
}
