//! Digits, windows and carries against a counter that is rolled over by hand.

use crate::divisors;
use quipu::levels::{Budget, Carry, Commit, Divisor, Level, Measured, Piece, Shape, Span, Window};

/// A positional counter, and the segments that merging by hand leaves.
struct Odometer {
    ways: u32,
    digits: Vec<u32>,
    n: u64,
    /// (after, last, level), oldest first.
    segments: Vec<(u64, u64, u8)>,
    base_end: u64,
}

impl Odometer {
    fn new(ways: u32) -> Odometer {
        Odometer { ways, digits: vec![0], n: 0, segments: Vec::new(), base_end: 0 }
    }

    /// Counts one commit; merges when it rolls over to the flush level or above. Gives how far it rolled.
    fn step(&mut self, flush: u8, base: Option<u8>) -> u8 {
        self.n += 1;
        let (mut level, mut size) = (0, 1);
        self.digits[0] += 1;
        while self.digits[level] == self.ways {
            self.digits[level] = 0;
            level += 1;
            size *= u64::from(self.ways);
            if level == self.digits.len() {
                self.digits.push(0);
            }
            self.digits[level] += 1;
        }
        let level = level as u8;
        if base.is_some_and(|base| level >= base) {
            self.segments.clear();
            self.base_end = self.n;
        } else if level >= flush {
            let after = self.n - size;
            while self.segments.last().is_some_and(|&(begin, ..)| begin >= after) {
                self.segments.pop();
            }
            self.segments.push((after, self.n, level));
        }
        level
    }
}

fn run(divisor: Divisor, commits: u64, flush: u8, base: Option<u8>) {
    let mut odometer = Odometer::new(divisor.get());
    let base_level = base.map(Level);
    let mut shape = Shape { base_level, ..Shape::new(divisor, Level(flush), base.is_some()) };
    for number in 1..=commits {
        let n = Commit(number);
        let level = odometer.step(flush, base);
        assert_eq!(divisor.zeros(n), Level(level));
        assert!(divisor.aligned(n, Level(level)) && !divisor.aligned(n, Level(level + 1)));
        assert_eq!(divisor.digit(n, Level(level)), odometer.digits[level as usize]);

        // Sizes that leave the levels alone, and are worth a fold where a window of the base's level ends.
        let budget = Budget { flush_bytes: 100, base_ratio: 1 };
        let base_bytes = if base.is_some_and(|base| level >= base) { 9 } else { 10 };
        let measured = Measured { flush_bytes: 100, window_bytes: 9, base_bytes, ..Measured::default() };
        let step = shape.step(n, &measured, &budget);
        match step.map(|(carry, _)| carry) {
            None => assert!(level < flush),
            Some(Carry::Fold { from, to }) => {
                assert!(base.is_some_and(|base| level >= base));
                assert_eq!((from, to.0), (shape.base_end, odometer.base_end));
            }
            Some(Carry::Segment(window)) => {
                let &(after, last, level) = odometer.segments.last().unwrap();
                assert_eq!((window.after().0, window.last().0, window.level().0), (after, last, level));
            }
        }

        let levels = (shape.flush_level, shape.base_level);
        shape = step.map_or(shape, |(_, after)| after);
        assert_eq!((shape.flush_level, shape.base_level), levels);
        // The rest costs more: all small numbers, all carries, and some others.
        if number > 3000 && level < 3 && number % 61 != 0 {
            continue;
        }
        assert!(divisor.digits(n).eq(odometer.digits.iter().copied()));
        assert_eq!(divisor.digit_sum(n), odometer.digits.iter().sum::<u32>());
        let cover = shape.cover(n);
        assert_eq!(cover.base_end.0, odometer.base_end);
        let windows: Vec<_> = cover
            .windows
            .iter()
            .map(|window| (window.after().0, window.last().0, window.level().0))
            .collect();
        assert_eq!(windows, odometer.segments);
        assert_eq!(cover.memtable, Span::new(shape.flushed(n), n));
        let in_segments = |(place, &digit): (usize, &u32)| {
            let place = place as u8;
            if place >= flush && base.is_none_or(|base| place < base) { digit as usize } else { 0 }
        };
        let digits: usize = odometer.digits.iter().enumerate().map(in_segments).sum();
        assert_eq!(cover.segments(), digits + usize::from(odometer.base_end > 0));
    }
}

#[test]
fn every_divisor_counts_like_an_odometer() {
    for divisor in divisors() {
        for (flush, base) in [(0, None), (2, None), (0, Some(0)), (1, Some(3)), (3, Some(3))] {
            run(divisor, 15_000, flush, base);
        }
    }
}

#[test]
fn a_million_commits_count_like_an_odometer() {
    let chosen: &[u32] = if cfg!(debug_assertions) { &[2, 10] } else { &[2, 3, 4, 7, 8, 10, 16] };
    for &divisor in chosen {
        run(Divisor::new(divisor).unwrap(), 1_100_000, 1, None);
    }
}

#[test]
fn windows_tile_and_nest() {
    for divisor in divisors() {
        for level in (0..4).map(Level) {
            let size = divisor.pow(level);
            let mut end = Commit::ZERO;
            for index in 1..=40 {
                let window = Window::new(divisor, level, index).unwrap();
                assert_eq!((window.after(), window.level(), window.index()), (end, level, index));
                assert_eq!(window.span().count(), size);
                end = window.last();
                assert_eq!(Window::ending_at(divisor, end, level), Some(window));
                assert_eq!(Window::ending_at(divisor, end.next(), level).is_some(), size == 1);
                for commit in
                    [window.span().first(), Commit(window.after().0 + size.div_ceil(2)), window.last()]
                {
                    assert!(window.contains(commit));
                    assert_eq!(Window::containing(divisor, commit, level), window);
                }
                assert!(!window.contains(window.after()) && !window.contains(end.next()));
                let parent = window.parent(divisor);
                assert_eq!(parent.children(divisor).filter(|&child| child == window).count(), 1);
                let mut at = window.after();
                for child in window.children(divisor) {
                    assert_eq!((child.after(), child.parent(divisor)), (at, window));
                    at = child.last();
                }
                assert_eq!(at, if level == Level(0) { window.after() } else { window.last() });
            }
        }
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    assert_eq!((Divisor::new(1), Divisor::new(17)), (None, None));
    for divisor in divisors() {
        let highest = divisor.level_max();
        assert!(divisor.pow(highest) <= Commit::MAX.0 && divisor.pow(highest.above()) > Commit::MAX.0);
        assert_eq!(divisor.pow(Level(255)), u64::MAX);
        assert_eq!(
            (divisor.digit(Commit::MAX, Level(255)), divisor.floor(Commit::MAX, Level(255))),
            (0, Commit::ZERO)
        );
        assert_eq!(divisor.digits(Commit::ZERO).count(), 0);
        let shape = Shape::new(divisor, Level(0), false);
        let top = divisor.floor(Commit::MAX, highest);
        for n in [Commit::MAX, top, Commit(top.0 - 1), Commit(top.0 + 1)] {
            assert_eq!(shape.cover(n).segments(), divisor.digit_sum(n) as usize);
            let carry = Carry::Segment(shape.closes(n).unwrap());
            assert!(shape.deadline(carry, n) > n);
        }
        assert_eq!(Window::new(divisor, highest, u64::MAX), None);
        assert!(Window::containing(divisor, Commit::MAX, highest).contains(Commit::MAX));
        assert_eq!(shape.closes(Commit::ZERO), None);
        assert_eq!(
            Piece::Segment(Window::new(divisor, Level(0), 1).unwrap()).span(),
            Span::new(Commit(0), Commit(1))
        );
    }
}
