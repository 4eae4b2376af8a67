//! What is measured: how many operations ended within a window, how long each took, and how many in each second.
//!
//! Each thread has a [`Recorder`]; their histograms are merged, never averaged. In a closed loop what ends within the window counts,
//! in an open loop what was to start within it, whenever it ended: else what takes long would be missing at the end.

use crate::engines::Result;
use crate::shared::system::MachineTime;
use hdrhistogram::Histogram;
use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicBool};
use std::time::{Duration, Instant};

/// Whether Ctrl-C was pressed: everything ends early then, and cleans up.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(atomic::Ordering::Relaxed)
}

/// How long a trial takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Before anything counts.
    pub(crate) warmup: Duration,
    /// What counts.
    pub(crate) measured: Duration,
}

/// When operations count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// From here.
    pub(crate) from: Instant,
    /// To here.
    pub(crate) until: Instant,
    /// Operations have times at which they are to start, and count by those.
    pub(crate) open: bool,
    /// The machine's processor time when it was begun, its warm-up before it.
    pub(crate) machine_time: MachineTime,
}

impl Window {
    /// Begins now.
    pub(crate) fn now(times: Times) -> Self {
        let from = Instant::now() + times.warmup;
        Window { from, until: from + times.measured, open: false, machine_time: MachineTime::now() }
    }

    /// The same, for an open loop.
    pub(crate) fn open(times: Times) -> Self {
        Window { open: true, ..Window::now(times) }
    }

    /// Whether nothing more is to be started: in a closed loop now, in an open one what is due then.
    pub(crate) fn over(&self, then: Instant) -> bool {
        then >= self.until || interrupted()
    }
}

/// The longest latency that a histogram tells apart, in nanoseconds.
const LATENCY_MAX: u64 = 100_000_000_000;

fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MAX, 3) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("the bounds are constants: at least 1, twice that, at most 5 digits"),
    }
}

/// What one thread notes.
pub(crate) struct Recorder {
    window: Window,
    latencies: Histogram<u64>,
    seconds: Vec<u64>,
}

impl Recorder {
    /// For this window.
    pub(crate) fn new(window: Window) -> Self {
        Recorder { window, latencies: histogram(), seconds: Vec::new() }
    }

    /// When operations count.
    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Notes an operation that was to start then and has ended.
    pub(crate) fn record(&mut self, intended: Instant, ended: Instant) {
        let counted = if self.window.open { intended } else { ended };
        if counted < self.window.from || counted >= self.window.until {
            return;
        }
        let latency = ended.saturating_duration_since(intended).as_nanos().min(u128::from(LATENCY_MAX));
        self.latencies.saturating_record((latency as u64).max(1));
        let second = (counted - self.window.from).as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
    }

    /// Adds what another thread noted in the same window.
    pub(crate) fn add(&mut self, other: &Recorder) {
        if let Err(error) = self.latencies.add(&other.latencies) {
            unreachable!("histograms of the same bounds: {error}");
        }
        self.seconds.resize(self.seconds.len().max(other.seconds.len()), 0);
        self.seconds.iter_mut().zip(&other.seconds).for_each(|(sum, &count)| *sum += count);
    }

    /// What was measured.
    pub(crate) fn measured(self) -> Measured {
        let took = self.window.until - self.window.from;
        let latencies = self.latencies;
        Measured {
            rate: latencies.len() as f64 / took.as_secs_f64(),
            p50: latencies.value_at_quantile(0.5),
            p99: latencies.value_at_quantile(0.99),
            p999: latencies.value_at_quantile(0.999),
            max: latencies.max(),
            // A last second that is not whole is none.
            seconds: whole_seconds(self.seconds, took),
            stolen: MachineTime::now().stolen_since(self.window.machine_time),
        }
    }
}

fn whole_seconds(mut seconds: Vec<u64>, took: Duration) -> Vec<u64> {
    // A second in which nothing ended is one too.
    seconds.resize(took.as_secs() as usize, 0);
    seconds
}

/// A measurement. Latencies are in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Operations that count, a second.
    pub(crate) rate: f64,
    /// Half of all took at most this.
    pub(crate) p50: u64,
    /// 99 % did.
    pub(crate) p99: u64,
    /// 99.9 % did.
    pub(crate) p999: u64,
    /// All did.
    pub(crate) max: u64,
    /// Operations that count in each whole second.
    pub(crate) seconds: Vec<u64>,
    /// The share of the machine's processor time that the hypervisor took meanwhile, the warm-up counted.
    pub(crate) stolen: f64,
}

impl Measured {
    /// From the threads' notes.
    pub(crate) fn of(notes: Vec<Result<Recorder>>) -> Result<Measured> {
        let mut all: Option<Recorder> = None;
        for recorder in notes {
            let recorder = recorder?;
            match &mut all {
                None => all = Some(recorder),
                Some(all) => all.add(&recorder),
            }
        }
        if interrupted() {
            return Err("interrupted".into());
        }
        Ok(all.map(Recorder::measured).unwrap_or_default())
    }

    /// Something that was done once and took so long.
    pub(crate) fn once(operations: u64, took: Duration) -> Measured {
        Measured { rate: operations as f64 / took.as_secs_f64().max(1e-9), ..Measured::default() }
    }

    /// The slowest whole second, as a share of the mean.
    pub(crate) fn slowest(&self) -> Option<f64> {
        let least = *self.seconds.iter().min()?;
        Some(least as f64 / self.rate.max(f64::MIN_POSITIVE))
    }
}

/// The middle of several measurements by rate: the lower of the two middle ones where their number is even.
pub(crate) fn median(rounds: Vec<Measured>) -> Option<Measured> {
    median_by(rounds, |one, other| one.rate.total_cmp(&other.rate))
}

/// As [`median`], by an order in which the worse come first.
pub(crate) fn median_by(
    mut rounds: Vec<Measured>,
    order: impl FnMut(&Measured, &Measured) -> Ordering,
) -> Option<Measured> {
    rounds.sort_by(order);
    let middle = rounds.len().checked_sub(1)? / 2;
    rounds.into_iter().nth(middle)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn window() -> Window {
        let from = Instant::now() + Duration::from_secs(1);
        Window {
            from,
            until: from + Duration::from_millis(3500),
            open: false,
            machine_time: MachineTime::now(),
        }
    }

    #[test]
    fn in_an_open_loop_what_was_to_start_within_the_window_counts() {
        let window = Window { open: true, ..window() };
        let mut recorder = Recorder::new(window);
        let ms = Duration::from_millis;
        recorder.record(window.from - ms(1), window.from + ms(1));
        recorder.record(window.from, window.from + ms(1));
        recorder.record(window.until - ms(1), window.until + ms(2000));
        recorder.record(window.until, window.until + ms(1));
        let measured = recorder.measured();
        assert!((measured.rate - 2.0 / 3.5).abs() < 1e-9);
        assert!((1_990_000_000..2_010_000_000).contains(&measured.max), "{measured:?}");
    }

    #[test]
    fn only_what_ends_within_the_window_counts() {
        let window = window();
        let mut recorder = Recorder::new(window);
        let ms = Duration::from_millis;
        recorder.record(window.from - ms(10), window.from - ms(1));
        recorder.record(window.from - ms(10), window.from);
        recorder.record(window.from, window.from + ms(1500));
        recorder.record(window.from, window.until - ms(1));
        recorder.record(window.from, window.until);
        let mut other = Recorder::new(window);
        other.record(window.from, window.from + ms(1600));
        recorder.add(&other);
        let measured = recorder.measured();
        assert_eq!(measured.seconds, [1, 2, 0], "the half second at the end is none");
        assert_eq!(measured.slowest(), Some(0.0));
        assert!((measured.rate - 4.0 / 3.5).abs() < 1e-9);
        assert!((9_900_000..10_100_000).contains(&measured.p50) || measured.p50 > 1_000_000_000);
    }

    #[test]
    fn the_median_is_one_of_the_rounds() {
        let rounds = |rates: &[f64]| {
            median(rates.iter().map(|&rate| Measured { rate, ..Measured::default() }).collect())
                .map(|round| round.rate)
        };
        assert_eq!(rounds(&[]), None);
        assert_eq!(rounds(&[3.0]), Some(3.0));
        assert_eq!(rounds(&[3.0, 1.0]), Some(1.0));
        assert_eq!(rounds(&[3.0, 9.0, 1.0]), Some(3.0));
    }
}
