//! Carries in flight under a steady load: work a commit, deadlines, live segments.

use crate::divisors;
use quipu::levels::{Carry, Commit, Divisor, Level, Pace, Piece, Shape, work_bound};

#[derive(Default, Debug)]
struct Seen {
    owed_max: u64,
    live_max: usize,
    in_flight_max: usize,
    late: u64,
}

/// Commits of 100 bytes, carries worked on as owed (only every `every` commits), nothing overwritten.
fn run(divisor: Divisor, flush: Level, commits: u64, every: u64) -> Seen {
    const SIZE: u64 = 100;
    let shape = Shape::new(divisor, flush, false);
    let (mut pace, mut seen) = (Pace::new(), Seen::default());
    let mut pieces: Vec<Piece> = Vec::new();
    let mut flights: Vec<Carry> = Vec::new();
    for n in (1..=commits).map(Commit) {
        while !pace.admits(n) {
            // Only where work was put off: pay now.
            assert!(every > 1, "never held up when paying after every commit");
            seen.late += 1;
            let owed = pace.owed_bytes(Commit(n.0 - 1));
            pay(&mut pace, owed, &mut pieces, &mut flights);
        }
        for work in pace.in_flight() {
            assert!(n < work.deadline);
        }
        if let Some(carry) = shape.carry_due(n) {
            for piece in &pieces {
                let span = piece.span();
                assert!(carry.span().covers(span) || span.last <= carry.span().after, "inputs are installed");
            }
            for &flight in &flights {
                assert!(!carry.span().covers(flight.span()), "what it takes is installed");
            }
            pace.begin(n, n, shape.deadline(carry, n), SIZE * carry.span().count());
            flights.push(carry);
        }
        let owed = pace.owed_bytes(n);
        seen.owed_max = seen.owed_max.max(owed);
        if n.0 % every == 0 {
            pay(&mut pace, owed, &mut pieces, &mut flights);
            assert_eq!(pace.owed_bytes(n), 0);
        }
        pace.settle(n);
        seen.live_max = seen.live_max.max(pieces.len());
        seen.in_flight_max = seen.in_flight_max.max(pace.in_flight().count());
        assert_eq!(pace.commits_ahead(n, 50) > 0, pace.admits(n.next()));
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

#[test]
fn work_a_commit_and_live_segments_are_bounded() {
    for divisor in divisors() {
        for flush in [Level(0), Level(1), Level(2)] {
            let commits: u64 = if cfg!(debug_assertions) { 20_000 } else { 300_000 };
            let seen = run(divisor, flush, commits, 1);
            let levels = divisor.levels(Commit(commits), flush).count();
            let bound = work_bound(divisor, 100, levels as u32, None) + seen.in_flight_max as u64;
            let digits = levels * (divisor.get() as usize - 1);
            println!("{} {flush} {seen:?} bound {bound} digits {digits}", divisor.get());
        }
    }
}
