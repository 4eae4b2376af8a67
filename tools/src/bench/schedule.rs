//! When operations are to start, in an open loop: at a constant rate, or as a Poisson process. Pure.
//!
//! A schedule knows nothing of the operations: an arrival falls due whether or not those before it have been served.
//! That is what keeps a stall from hiding in the figures (coordinated omission).

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution, Exp1};
use serde::Serialize;
use std::time::Duration;

/// How arrivals are spaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    /// Evenly
    Constant,
    /// At random, each independent of the others (a Poisson process): what many independent clients amount to
    Poisson,
}

/// The arrivals of one source, as times since its start; endless.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    /// Mean time between two, in seconds.
    interval: f64,
    /// Of constant arrivals: how many were given, so that rounding does not add up.
    given: u64,
    /// Of constant arrivals: where the first falls within the first interval, so that several sources interleave.
    offset: f64,
    /// Of a Poisson process: the last arrival, in seconds.
    last: f64,
    rng: Xoshiro256PlusPlus,
}

impl Schedule {
    /// Source `source` of `sources`, which have `rate` arrivals a second each. The seed decides a Poisson process.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, (source, sources): (u32, u32), seed: u64) -> Self {
        debug_assert!(rate > 0.0);
        Schedule {
            arrivals,
            interval: 1.0 / rate,
            given: 0,
            offset: f64::from(source) / f64::from(sources.max(1)),
            last: 0.0,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match self.arrivals {
            Arrivals::Constant => (self.given as f64 + self.offset) * self.interval,
            Arrivals::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.rng);
                self.last += gap * self.interval;
                self.last
            }
        };
        self.given += 1;
        // Beyond what a duration holds (never within a run), the last moment there is.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(schedule: Schedule, end: f64) -> Vec<f64> {
        schedule.map(|at| at.as_secs_f64()).take_while(|&at| at < end).collect()
    }

    #[test]
    fn a_poisson_process_has_its_rate_and_its_spread() {
        let rate = 1000.0;
        let at = within(Schedule::new(Arrivals::Poisson, rate, (0, 1), 42), 100.0);
        assert!(at.is_sorted());
        // 100,000 expected; the standard deviation of a Poisson count is its root, 316.
        assert!((at.len() as f64 - 100_000.0).abs() < 5.0 * 316.0, "{}", at.len());
        let gaps: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]) * rate).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        // Memoryless: e^-1 of the gaps are longer than the mean.
        let long = gaps.iter().filter(|&&gap| gap > 1.0).count() as f64 / gaps.len() as f64;
        assert!((long - (-1.0f64).exp()).abs() < 0.01, "{long}");
    }

    #[test]
    fn constant_arrivals_are_even_and_sources_interleave() {
        let mut all = Vec::new();
        for source in 0..4 {
            let at = within(Schedule::new(Arrivals::Constant, 250.0, (source, 4), 1), 10.0);
            assert_eq!(at.len(), 2500);
            all.extend(at);
        }
        all.sort_by(f64::total_cmp);
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0] - 0.001).abs() < 1e-7));
    }

    #[test]
    fn the_seed_decides() {
        let first = |seed| Schedule::new(Arrivals::Poisson, 10.0, (0, 1), seed).take(10).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
