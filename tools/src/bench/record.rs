//! From single latencies to what a phase reports.
//!
//! 1. Each thread of clients owns a [`Recorder`]: a histogram a kind of operation, no lock, no sharing.
//! 2. The first operation that ends in a new second hands the histograms of the seconds before over to the
//!    [`Outbox`] (one lock a second, not one an operation), labelled with their second. So an operation is counted
//!    in the second it ended in, exactly, however late the hand-over.
//! 3. The main thread drains the outbox into a [`Collector`], which merges the histograms (merged, never
//!    averaged) by second and in total.
//!
//! Latencies are in nanoseconds, to three significant digits.

use super::workload::OpKind;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The highest latency that is told apart, 1000 s; higher ones are counted as this.
const LATENCY_NS_MAX: u64 = 1_000_000_000_000;

/// Seconds whose histograms the collector keeps, for hand-overs that come late; older ones are summed up.
const SECONDS_KEPT: u64 = 4;

/// An empty histogram of latencies in nanoseconds.
#[expect(clippy::expect_used, reason = "1 to LATENCY_NS_MAX at 3 digits are bounds that hdrhistogram takes")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds")
}

/// Adds a histogram made by [`histogram`] to another.
fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    let merged = into.add(from);
    debug_assert!(merged.is_ok(), "both have the same bounds");
}

/// One histogram a kind of operation, made when first used.
#[derive(Default)]
pub(crate) struct Histograms([Option<Histogram<u64>>; OpKind::COUNT]);

impl Histograms {
    fn record(&mut self, kind: OpKind, nanoseconds: u64) {
        self.0[kind as usize].get_or_insert_with(histogram).saturating_record(nanoseconds);
    }

    fn add(&mut self, other: &Histograms) {
        for (into, from) in self.0.iter_mut().zip(&other.0) {
            if let Some(from) = from {
                merge(into.get_or_insert_with(histogram), from);
            }
        }
    }

    /// The histogram of a kind, where there was an operation of it.
    pub(crate) fn of(&self, kind: OpKind) -> Option<&Histogram<u64>> {
        self.0[kind as usize].as_ref()
    }

    /// How many operations of each kind.
    fn counts(&self) -> [u64; OpKind::COUNT] {
        self.0.each_ref().map(|histogram| histogram.as_ref().map_or(0, Histogram::len))
    }
}

/// What reads and scans found.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize)]
pub(crate) struct Found {
    /// Point reads that found a value.
    pub(crate) values: u64,
    /// Entries that scans returned.
    pub(crate) entries: u64,
}

/// What one thread of clients did within one second.
struct Interval {
    second: u64,
    histograms: Histograms,
    found: Found,
}

/// Where recorders hand their intervals over.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<Vec<Interval>>);

/// Records the operations of one thread of clients.
pub(crate) struct Recorder {
    outbox: Arc<Outbox>,
    epoch: Instant,
    deadline: Instant,
    current: Interval,
    /// When the current second ends.
    turn: Instant,
}

impl Recorder {
    /// Counts what ends from `epoch` until before `deadline`.
    pub(crate) fn new(outbox: Arc<Outbox>, epoch: Instant, deadline: Instant) -> Self {
        let current = Interval { second: 0, histograms: Histograms::default(), found: Found::default() };
        Recorder { outbox, epoch, deadline, current, turn: epoch + Duration::from_secs(1) }
    }

    /// Counts one operation. What ends at the deadline or later does not count.
    pub(crate) fn record(&mut self, kind: OpKind, start: Instant, end: Instant, found: Found) {
        if end >= self.turn {
            self.hand_over();
            self.current.second = (end - self.epoch).as_secs();
            self.turn = self.epoch + Duration::from_secs(self.current.second + 1);
        }
        if end >= self.deadline {
            return;
        }
        // Below 2^64: that many nanoseconds are 584 years.
        self.current.histograms.record(kind, (end - start).as_nanos() as u64);
        self.current.found.values += found.values;
        self.current.found.entries += found.entries;
    }

    /// Hands over what is there; a recorder that is dropped does so too.
    fn hand_over(&mut self) {
        let histograms = std::mem::take(&mut self.current.histograms);
        let found = std::mem::take(&mut self.current.found);
        if histograms.counts() != [0; OpKind::COUNT] {
            let interval = Interval { second: self.current.second, histograms, found };
            self.outbox.0.lock().unwrap_or_else(PoisonError::into_inner).push(interval);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// One second of a phase, all threads of clients together.
#[derive(Default)]
pub(crate) struct Second {
    /// Operations of each kind.
    pub(crate) counts: [u64; OpKind::COUNT],
    /// The 99th percentile of each kind, 0 where there was none; final once the second is summed up.
    pub(crate) p99_ns: [u64; OpKind::COUNT],
    /// The longest latency of each kind.
    pub(crate) max_ns: [u64; OpKind::COUNT],
    histograms: Option<Histograms>,
}

impl Second {
    /// Operations of all kinds.
    pub(crate) fn operations(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, histograms: &Histograms, keep: bool) {
        for (count, more) in self.counts.iter_mut().zip(histograms.counts()) {
            *count += more;
        }
        for kind in OpKind::ALL {
            let max = histograms.of(kind).map_or(0, Histogram::max);
            self.max_ns[kind as usize] = self.max_ns[kind as usize].max(max);
        }
        if keep {
            let kept = self.histograms.get_or_insert_default();
            kept.add(histograms);
            self.p99_ns = kept
                .0
                .each_ref()
                .map(|histogram| histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(0.99)));
        }
    }
}

/// Merges what the recorders handed over.
#[derive(Default)]
pub(crate) struct Collector {
    /// All seconds together.
    pub(crate) total: Histograms,
    /// By second from the start of the phase.
    pub(crate) seconds: BTreeMap<u64, Second>,
    /// What reads found.
    pub(crate) found: Found,
}

impl Collector {
    /// Takes in all that was handed over, in the current second `now`.
    pub(crate) fn drain(&mut self, outbox: &Outbox, now: u64) {
        let intervals = std::mem::take(&mut *outbox.0.lock().unwrap_or_else(PoisonError::into_inner));
        for Interval { second, histograms, found } in intervals {
            self.total.add(&histograms);
            self.found.values += found.values;
            self.found.entries += found.entries;
            let keep = second + SECONDS_KEPT > now;
            self.seconds.entry(second).or_default().add(&histograms, keep);
        }
        for (_, second) in self.seconds.range_mut(..now.saturating_sub(SECONDS_KEPT)) {
            second.histograms = None;
        }
    }

    /// The slowest of the first `seconds` seconds: which, and how many operations it had. A second in which
    /// nothing ended counts, as the slowest there can be.
    pub(crate) fn slowest(&self, seconds: u64) -> Option<(u64, u64)> {
        (0..seconds)
            .map(|second| (second, self.seconds.get(&second).map_or(0, Second::operations)))
            .min_by_key(|&(_, operations)| operations)
    }
}

/// A histogram in numbers, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) samples: u64,
    pub(crate) mean: f64,
    pub(crate) min: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: u64,
    #[serde(rename = "p99.99")]
    pub(crate) p99_99: u64,
    pub(crate) max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        Latency {
            samples: histogram.len(),
            mean: histogram.mean(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            p99_99: histogram.value_at_quantile(0.9999),
            max: histogram.max(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::workload::mix64;

    fn at(epoch: Instant, microseconds: u64) -> Instant {
        epoch + Duration::from_micros(microseconds)
    }

    /// Percentiles of what several recorders saw are those of all samples together, sorted.
    #[test]
    fn merged_percentiles_are_those_of_all_samples() {
        let (epoch, outbox) = (Instant::now(), Arc::new(Outbox::default()));
        let mut collector = Collector::default();
        let mut all = Vec::new();
        for thread in 0..3u64 {
            let mut recorder = Recorder::new(outbox.clone(), epoch, at(epoch, 10_000_000));
            for sample in 0..20_000u64 {
                // Each thread has latencies of its own, so that an average of percentiles would be far off.
                let us = 1 + mix64(thread << 32 | sample) % 10u64.pow(2 + thread as u32);
                let end = at(epoch, 100_000 + sample * 400);
                recorder.record(OpKind::Put, end - Duration::from_micros(us), end, Found::default());
                all.push(us * 1000);
            }
            drop(recorder);
            collector.drain(&outbox, 8);
        }
        all.sort();
        let latency = Latency::from(collector.total.of(OpKind::Put).unwrap());
        assert_eq!(latency.samples, all.len() as u64);
        for (got, quantile) in
            [(latency.p50, 0.5), (latency.p90, 0.9), (latency.p99, 0.99), (latency.p99_9, 0.999)]
        {
            let exact = all[(all.len() as f64 * quantile).ceil() as usize - 1] as f64;
            assert!((got as f64 - exact).abs() <= exact * 0.002, "{quantile}: {got} {exact}");
        }
        let max = *all.last().unwrap() as f64;
        assert!((latency.max as f64 - max).abs() <= max * 0.002);
        let by_second: u64 = collector.seconds.values().map(Second::operations).sum();
        assert_eq!(by_second, all.len() as u64);
        assert!(collector.total.of(OpKind::Get).is_none());
    }

    #[test]
    fn an_operation_counts_in_the_second_it_ended_in() {
        let (epoch, outbox) = (Instant::now(), Arc::new(Outbox::default()));
        let mut recorder = Recorder::new(outbox.clone(), epoch, at(epoch, 5_000_000));
        let mut put = |end: u64| recorder.record(OpKind::Put, epoch, at(epoch, end), Found::default());
        put(10);
        put(999_999);
        put(3_000_000); // a stall over two whole seconds
        put(3_500_000);
        put(4_999_999);
        put(5_000_000); // too late to count
        put(7_000_000);
        drop(recorder);
        let mut collector = Collector::default();
        collector.drain(&outbox, 7);
        let counts: Vec<_> = collector.seconds.iter().map(|(second, s)| (*second, s.operations())).collect();
        assert_eq!(counts, [(0, 2), (3, 2), (4, 1)]);
        assert_eq!(collector.slowest(5), Some((1, 0)));
        assert_eq!(collector.slowest(1), Some((0, 2)));
        assert_eq!(collector.slowest(0), None);
    }

    #[test]
    fn what_comes_late_still_counts() {
        let (epoch, outbox) = (Instant::now(), Arc::new(Outbox::default()));
        let mut collector = Collector::default();
        let mut recorder = Recorder::new(outbox.clone(), epoch, at(epoch, 100_000_000));
        recorder.record(OpKind::Get, epoch, at(epoch, 500), Found { values: 1, entries: 0 });
        collector.drain(&outbox, 60);
        assert!(collector.seconds.is_empty(), "nothing is handed over within a second");
        recorder.record(OpKind::Get, epoch, at(epoch, 60_000_000), Found { values: 1, entries: 0 });
        collector.drain(&outbox, 60);
        drop(recorder);
        collector.drain(&outbox, 60);
        assert_eq!(collector.seconds[&0].counts, [0, 1, 0]);
        assert_eq!(collector.seconds[&60].counts, [0, 1, 0]);
        assert_eq!(collector.found.values, 2);
    }
}
