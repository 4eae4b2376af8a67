//! The search for the highest rate that a server sustains: which rate to try next. Pure; [`sweep`](super::sweep)
//! tries it.
//!
//! 1. From the hint upwards by [`GROWTH`] while rates are sustained, or downwards while they are not, until one of each
//!    is known.
//! 2. Then the middle of the two (as a ratio), until they are within [`PRECISION`] or the tries are used up.
//!
//! A real server is noisy: one verdict near the edge may be wrong either way. So the found rate is one that was
//! sustained once, and the runs at shares of it show what it is worth.

/// Factor from one rate to the next while the edge is not bracketed.
const GROWTH: f64 = 1.4;

/// Ratio of the lowest rate refused to the highest sustained at which the search ends.
const PRECISION: f64 = 1.05;

/// The lowest rate that is tried, in operations a second.
const RATE_MIN: f64 = 1.0;

/// A search in progress.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    hint: f64,
    /// The highest rate sustained.
    sustained: Option<f64>,
    /// The lowest rate refused above it.
    refused: Option<f64>,
    tries_left: u32,
}

impl Search {
    /// A search that begins at `hint` operations a second and tries at most so often.
    pub(crate) fn new(hint: f64, tries: u32) -> Self {
        Search { hint: hint.max(RATE_MIN), sustained: None, refused: None, tries_left: tries }
    }

    /// The rate to try; `None`: the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        if self.tries_left == 0 {
            return None;
        }
        match (self.sustained, self.refused) {
            (None, None) => Some(self.hint),
            (Some(sustained), None) => Some(sustained * GROWTH),
            (None, Some(refused)) => (refused / GROWTH >= RATE_MIN).then_some(refused / GROWTH),
            (Some(sustained), Some(refused)) => {
                (refused / sustained > PRECISION).then_some((refused * sustained).sqrt())
            }
        }
    }

    /// Takes in how the rate that [`next`](Search::next) gave went.
    pub(crate) fn tell(&mut self, rate: f64, sustained: bool) {
        self.tries_left = self.tries_left.saturating_sub(1);
        if sustained {
            self.sustained = Some(self.sustained.map_or(rate, |best| best.max(rate)));
        } else {
            self.refused = Some(self.refused.map_or(rate, |least| least.min(rate)));
        }
    }

    /// The highest rate sustained so far.
    pub(crate) fn found(&self) -> Option<f64> {
        self.sustained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that sustains up to `capacity`; returns what was found, and the tries it took.
    fn search(hint: f64, capacity: f64, tries: u32) -> (Option<f64>, u32) {
        let mut search = Search::new(hint, tries);
        let mut tried = 0;
        while let Some(rate) = search.next() {
            tried += 1;
            search.tell(rate, rate <= capacity);
        }
        (search.found(), tried)
    }

    #[test]
    fn it_finds_the_capacity_from_either_side() {
        for hint in [10.0, 9_000.0, 100_000.0, 101_000.0, 5e6] {
            let (found, tried) = search(hint, 100_000.0, 100);
            let found = found.unwrap_or(0.0);
            assert!((100_000.0 / PRECISION..=100_000.0).contains(&found), "from {hint}: {found}");
            assert!(tried < 40, "from {hint}: {tried}");
        }
        let (_, tried) = search(95_000.0, 100_000.0, 100);
        assert!(tried <= 6, "a good hint takes few tries: {tried}");
    }

    /// A server whose p99 follows an M/M/1 queue: e.g. at 4 us a service, 1 ms is kept up to 98 % of capacity.
    #[test]
    fn it_finds_where_a_latency_crosses_its_bound() {
        let (capacity, bound) = (250_000.0, 1e-3);
        let p99 = |rate: f64| {
            if rate >= capacity { f64::INFINITY } else { 100.0f64.ln() / (capacity - rate) }
        };
        let edge = capacity - 100.0f64.ln() / bound;
        let mut search = Search::new(capacity / 2.0, 100);
        while let Some(rate) = search.next() {
            search.tell(rate, p99(rate) <= bound);
        }
        let found = search.found().unwrap_or(0.0);
        assert!((edge / PRECISION..=edge).contains(&found), "{found} {edge}");
    }

    #[test]
    fn it_ends_where_nothing_is_sustained_or_tries_run_out() {
        let (found, tried) = search(1000.0, 0.0, 1000);
        assert_eq!(found, None);
        assert!(tried < 30);
        assert_eq!(search(1.0, 1e9, 5).1, 5);
    }
}
