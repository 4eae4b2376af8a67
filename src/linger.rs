//! Looking for news for a while before sleeping, where that has paid.
//!
//! A core that has nothing to do halts, and to wake it takes longer than most of what it is woken for: some 25 us in a virtual
//! machine, twice for an operation of a thread that waits for its answer, and again for each log write that completes. So who
//! waits, a shard or a thread, first looks for what it waits for, giving way to whatever else wants the core between two
//! looks, and sleeps only where nothing has come within a [limit](crate::Options::linger).
//!
//! Whether it looks at all is decided by what came of it before ([`Linger`]): where nothing came in time, it is left out the next
//! time, then twice, four times, … [`SKIPPED_MAX`] times in a row; so an engine that is seldom asked, or whose disk is slow, sleeps
//! as if there were no looking. Where others had the core for long between two looks, it is left out for as many at once: a
//! sleeper that is woken gets the core back sooner than one who gave way.
//!
//! The same is done by kernels (`haltpoll`, the guest's and KVM's) and by Seastar (`idle-poll-time-us`).

use crate::limits::LINGER_MAX;
use std::thread;
use std::time::{Duration, Instant};

/// The most times in a row that looking is left out.
const SKIPPED_MAX: u32 = 64;

/// A shard looks for so long before its runtime's other tasks have a turn.
const STRETCH: Duration = Duration::from_micros(10);

/// A look took at least so long: others had work for the core.
const SHARED: Duration = Duration::from_micros(10);

/// Giving way took so long that sleeping would have been better: a sleeper that is woken need not wait for a whole slice of
/// another's.
const OUSTED: Duration = LINGER_MAX;

/// What came of looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// News.
    News,
    /// None within the limit.
    Nothing,
    /// Others wanted the core for long.
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
        let mut search = Search::new();
        loop {
            let found = search.look(&mut news);
            if let Some(outcome) = search.outcome(found, limit) {
                self.note(outcome);
                return found;
            }
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

/// What a shard waits for: each has a pace of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// Disk operations in flight.
    Disk,
    /// Requests.
    Mail,
}

/// What a shard is to do that had nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stay {
    /// There is news.
    News,
    /// Let its runtime's other tasks have their turn, and ask again.
    Looking,
    /// Sleep.
    Sleep,
}

/// The looking of a shard. Where its runtime has other tasks, they get a turn before the first look, and after each stretch of
/// [`STRETCH`]: then a search goes over many polls of the shard's loop, and ends where one finds something to do.
#[derive(Default)]
pub(crate) struct Lookout {
    disk: Linger,
    mail: Linger,
    search: Option<(Awaited, Search)>,
}

impl Lookout {
    /// The shard has nothing to do: looks for news, with `others` for a [`STRETCH`] at a time. Where it goes on looking, it is to be
    /// asked again once those had their turn, or [found](Lookout::found) be called.
    pub(crate) fn look(
        &mut self,
        awaited: Awaited,
        limit: Duration,
        others: bool,
        mut news: impl FnMut() -> bool,
    ) -> Stay {
        let begins = self.search.is_none();
        if begins && (limit.is_zero() || !self.known(awaited).is_worth_it()) {
            return Stay::Sleep;
        }
        let (awaited, search) = self.search.get_or_insert_with(|| (awaited, Search::new()));
        if begins && others {
            return Stay::Looking;
        }
        let (awaited, began) = (*awaited, search.all);
        let (found, outcome) = loop {
            let found = search.look(&mut news);
            match search.outcome(found, limit) {
                Some(outcome) => break (found, outcome),
                None if others && search.all - began >= STRETCH => return Stay::Looking,
                None => {}
            }
        };
        self.search = None;
        self.known(awaited).note(outcome);
        if found { Stay::News } else { Stay::Sleep }
    }

    /// The shard sleeps, for a reason of its own: nothing was learnt.
    pub(crate) fn give_up(&mut self) {
        self.search = None;
    }

    /// The shard has found something to do.
    pub(crate) fn found(&mut self) {
        if let Some((awaited, _)) = self.search.take() {
            self.known(awaited).note(Outcome::News);
        }
    }

    fn known(&mut self, awaited: Awaited) -> &mut Linger {
        match awaited {
            Awaited::Disk => &mut self.disk,
            Awaited::Mail => &mut self.mail,
        }
    }
}

/// How far one search has come.
struct Search {
    /// Time for which no one else wanted the core.
    alone: Duration,
    all: Duration,
    before: Instant,
    /// What the last look took, with what came before it.
    took: Duration,
}

impl Search {
    fn new() -> Self {
        Search { alone: Duration::ZERO, all: Duration::ZERO, before: Instant::now(), took: Duration::ZERO }
    }

    /// Gives way to others, then looks.
    fn look(&mut self, news: &mut impl FnMut() -> bool) -> bool {
        thread::yield_now();
        let found = news();
        let now = Instant::now();
        self.took(now - self.before);
        self.before = now;
        found
    }

    fn took(&mut self, took: Duration) {
        self.took = took;
        self.all += took;
        if took < SHARED {
            self.alone += took;
        }
    }

    /// What to make of the last look; `None` where it is to be looked again.
    fn outcome(&self, found: bool, limit: Duration) -> Option<Outcome> {
        if self.took > OUSTED {
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

    /// What to make of a look that took so long.
    fn looked(search: &mut Search, found: bool, took: u64) -> Option<Outcome> {
        search.took(micros(took));
        search.outcome(found, LIMIT)
    }

    #[test]
    fn a_search_ends_with_news_or_with_its_time_alone() {
        let mut search = Search::new();
        // What others had of the core is not counted against it …
        for _ in 0..4 {
            assert_eq!(looked(&mut search, false, 1), None);
            assert_eq!(looked(&mut search, false, 90), None);
        }
        assert_eq!(looked(&mut search, true, 90), Some(Outcome::News));
        // … but has an end.
        assert_eq!(looked(&mut search, false, 90), Some(Outcome::Nothing));
        let mut search = Search::new();
        for _ in 0..20 {
            assert_eq!(looked(&mut search, false, 5), None);
        }
        assert_eq!(looked(&mut search, false, 5), Some(Outcome::Nothing));
    }

    #[test]
    fn who_was_kept_from_the_core_for_long_is_rather_woken() {
        for found in [false, true] {
            assert_eq!(looked(&mut Search::new(), found, 2000), Some(Outcome::GaveWay));
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
        while !linger.look(LINGER_MAX, &mut third) {}
        assert_eq!(looks, 3);
        assert!(!Linger::default().look(Duration::ZERO, || panic!("looked")));
        // What was in vain is not done the next time.
        let mut linger = Linger::default();
        assert!(!linger.look(micros(1), || false));
        assert!(!linger.look(micros(1), || panic!("looked")));
    }

    #[test]
    fn a_shard_gives_its_other_tasks_a_turn_before_it_looks_and_after_each_stretch() {
        let mut lookout = Lookout::default();
        let first =
            lookout.look(Awaited::Mail, LINGER_MAX, true, || panic!("looked before the others had a turn"));
        assert_eq!(first, Stay::Looking);
        let mut polls = 0;
        // However slow this machine, in one poll it looks for no longer than a stretch and one look.
        while lookout.look(Awaited::Mail, LINGER_MAX, true, || false) == Stay::Looking {
            polls += 1;
        }
        assert!(polls as u128 <= LINGER_MAX.as_micros() / STRETCH.as_micros(), "{polls} polls");
        // In vain: left out for mail, not for the disk; and what is found in another way counts as news.
        assert_eq!(lookout.look(Awaited::Mail, LINGER_MAX, true, || panic!("looked")), Stay::Sleep);
        for _ in 0..SKIPPED_MAX {
            assert_eq!(lookout.look(Awaited::Disk, LINGER_MAX, true, || panic!("looked")), Stay::Looking);
            lookout.found();
        }
        assert_eq!(lookout.look(Awaited::Mail, Duration::ZERO, true, || panic!("looked")), Stay::Sleep);
        // Without others it looks at once, to the end.
        let mut lookout = Lookout::default();
        assert_eq!(lookout.look(Awaited::Mail, micros(1), false, || false), Stay::Sleep);
        while lookout.look(Awaited::Mail, LINGER_MAX, false, || true) != Stay::News {}
    }
}
