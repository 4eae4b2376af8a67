//! Looking for news for a while before sleeping, where that has paid.
//!
//! A core that has nothing to do halts, and to wake it takes longer than most of what it is woken for: some 25 us in a virtual
//! machine, twice for an operation of a thread that waits for its answer, and again for each log write that completes. So who
//! waits, a shard or a thread, first looks for what it waits for, giving way to whatever else wants the core between two
//! looks, and sleeps only where nothing has come within a [limit](crate::Options::linger).
//!
//! Whether it looks at all is decided by what came of it before ([`Linger`]): where nothing came in time, it is left out the next
//! time, then twice, four times, … [`SKIPPED_MAX`] times in a row; so an engine that is seldom asked, or whose disk is slow, sleeps
//! as if there were no looking. Where others wanted the core meanwhile, it is left out for as long at once: they come first, and
//! a sleeper that is woken gets the core back sooner than one who gave way.
//!
//! The same is done by kernels (`haltpoll`, the guest's and KVM's) and by Seastar (`idle-poll-time-us`).

use std::thread;
use std::time::{Duration, Instant};

/// The most times in a row that looking is left out.
const SKIPPED_MAX: u32 = 64;

/// Giving way took at least so long: others had work for the core.
const SHARED: Duration = Duration::from_micros(10);

/// Giving way took so long that sleeping would have been better: a sleeper that is woken need not wait for a whole slice of
/// another's.
const OUSTED: Duration = Duration::from_micros(500);

/// What came of looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// News.
    News,
    /// None within the limit.
    Nothing,
    /// Others wanted the core.
    GaveWay,
}

/// What is known of one kind of waiting.
#[derive(Clone, Copy, Default)]
pub(crate) struct Linger {
    /// So many times it is to be left out.
    skip: u32,
    /// So many times it was left out after it last was in vain.
    skipped: u32,
}

impl Linger {
    /// Looks for news for as long as `limit`, if that is likely to pay. Answers whether there is some.
    pub(crate) fn look(&mut self, limit: Duration, mut news: impl FnMut() -> bool) -> bool {
        if limit.is_zero() || !self.is_worth_it() {
            return false;
        }
        let mut search = Search::default();
        let mut before = Instant::now();
        loop {
            thread::yield_now();
            let found = news();
            let now = Instant::now();
            if let Some(outcome) = search.looked(found, now - before, limit) {
                self.note(outcome);
                return found;
            }
            before = now;
        }
    }

    /// Whether it is worth looking this time.
    fn is_worth_it(&mut self) -> bool {
        let worth = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        worth
    }

    fn note(&mut self, outcome: Outcome) {
        self.skipped = match outcome {
            Outcome::News => 0,
            Outcome::Nothing => (self.skipped * 2).clamp(1, SKIPPED_MAX),
            Outcome::GaveWay => SKIPPED_MAX,
        };
        self.skip = self.skipped;
    }
}

/// How far one search has come.
#[derive(Default)]
struct Search {
    /// Time for which no one else wanted the core.
    alone: Duration,
    all: Duration,
}

impl Search {
    /// What to make of a look that took so long, giving way included; `None` where it is to be looked again.
    fn looked(&mut self, found: bool, took: Duration, limit: Duration) -> Option<Outcome> {
        self.all += took;
        if took < SHARED {
            self.alone += took;
        }
        if took > OUSTED {
            Some(Outcome::GaveWay)
        } else if found {
            Some(Outcome::News)
        } else if self.alone > limit || self.all > OUSTED {
            Some(Outcome::Nothing)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// How often in a row it is left out after an outcome.
    fn left_out(linger: &mut Linger) -> u32 {
        let mut times = 0;
        while !linger.is_worth_it() {
            times += 1;
        }
        times
    }

    #[test]
    fn what_was_in_vain_is_left_out_for_longer_and_longer() {
        let mut linger = Linger::default();
        assert_eq!(left_out(&mut linger), 0);
        for times in [1, 2, 4, 8, 16, 32, SKIPPED_MAX, SKIPPED_MAX] {
            linger.note(Outcome::Nothing);
            assert_eq!(left_out(&mut linger), times);
        }
        linger.note(Outcome::News);
        assert_eq!(left_out(&mut linger), 0);
        linger.note(Outcome::Nothing);
        assert_eq!(left_out(&mut linger), 1);
        linger.note(Outcome::GaveWay);
        assert_eq!(left_out(&mut linger), SKIPPED_MAX);
    }

    #[test]
    fn a_search_ends_with_news_or_with_its_time_alone() {
        let mut search = Search::default();
        // What others had of the core is not counted against it …
        for _ in 0..4 {
            assert_eq!(search.looked(false, micros(1), LIMIT), None);
            assert_eq!(search.looked(false, micros(90), LIMIT), None);
        }
        assert_eq!(search.looked(true, micros(90), LIMIT), Some(Outcome::News));
        // … but has an end.
        assert_eq!(search.looked(false, micros(90), LIMIT), Some(Outcome::Nothing));
        let mut search = Search::default();
        for _ in 0..20 {
            assert_eq!(search.looked(false, micros(5), LIMIT), None);
        }
        assert_eq!(search.looked(false, micros(5), LIMIT), Some(Outcome::Nothing));
    }

    #[test]
    fn who_was_kept_from_the_core_for_long_is_rather_woken() {
        for found in [false, true] {
            let outcome = Search::default().looked(found, micros(2000), LIMIT);
            assert_eq!(outcome, Some(Outcome::GaveWay));
        }
    }

    #[test]
    fn news_are_found_and_without_a_limit_not_looked_for() {
        let mut looks = 0;
        let mut third = || {
            looks += 1;
            looks == 3
        };
        // However slow this machine: what takes too long is left out 64 times, then tried again.
        let mut linger = Linger::default();
        while !linger.look(Duration::from_secs(1), &mut third) {}
        assert_eq!(looks, 3);
        assert!(!Linger::default().look(Duration::ZERO, || panic!("looked")));
        // News come after all, or do not.
        assert!(!Linger::default().look(micros(1), || false));
    }
}
