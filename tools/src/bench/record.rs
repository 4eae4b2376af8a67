//! From single latencies to what a phase reports.
//!
//! 1. Each thread of clients owns a [`Recorder`]: a histogram a kind of operation, no lock, no sharing.
//! 2. The first operation that ends in a new second hands the histograms of the seconds before over to the
//!    [`Outbox`] (one lock a second, not one an operation), labelled with their second. So an operation is counted
//!    in the second it ended in, exactly, however late the hand-over.
//! 3. The main thread drains the outbox into a [`Collector`], which merges the histograms (merged, never
//!    averaged) by second and in total.
//!
//! Latencies are in nanoseconds, to three significant digits. Nothing is counted before the warm-up is over.

use super::op::OpKind;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
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

/// Histograms by kind of operation, each made when first used.
#[derive(Default)]
pub(crate) struct Histograms {
    /// From when an operation was to start to its end.
    pub(crate) response: [Option<Histogram<u64>>; OpKind::COUNT],
    /// From when it did start to its end; in an open loop only, as the two are one in a closed loop.
    pub(crate) service: [Option<Histogram<u64>>; OpKind::COUNT],
    /// From when an operation was to start to when it did; in an open loop only.
    pub(crate) lag: Option<Histogram<u64>>,
}

impl Histograms {
    fn add(&mut self, other: &Histograms) {
        let pairs = self.response.iter_mut().zip(&other.response);
        let pairs = pairs.chain(self.service.iter_mut().zip(&other.service));
        for (into, from) in pairs.chain(std::iter::once((&mut self.lag, &other.lag))) {
            if let Some(from) = from {
                merge(into.get_or_insert_with(histogram), from);
            }
        }
    }

    /// The response times of a kind, where there was an operation of it.
    pub(crate) fn of(&self, kind: OpKind) -> Option<&Histogram<u64>> {
        self.response[kind as usize].as_ref()
    }

    /// The response times of all kinds together.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut all = histogram();
        self.response.iter().flatten().for_each(|response| merge(&mut all, response));
        all
    }

    fn is_empty(&self) -> bool {
        self.response.iter().all(Option::is_none)
    }
}

/// What operations found and wrote.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize)]
pub(crate) struct Found {
    /// Point reads that found a value.
    pub(crate) values: u64,
    /// Entries that scans returned.
    pub(crate) entries: u64,
    /// Keys put, those of batches one by one.
    pub(crate) puts: u64,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.values += other.values;
        self.entries += other.entries;
        self.puts += other.puts;
    }
}

/// When a phase measures, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The end of the warm-up.
    pub(crate) epoch: Instant,
    /// When nothing more is started.
    pub(crate) deadline: Instant,
    /// Whether operations start by a schedule. Then a latency counts where the operation was *to start* within the
    /// window, whenever it ended: those that took long at the end are not left out. In a closed loop it counts where
    /// the operation ended within the window.
    pub(crate) open: bool,
}

impl Window {
    fn contains(&self, at: Instant) -> bool {
        self.epoch <= at && at < self.deadline
    }
}

/// The times of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When it was to start; in a closed loop, when it did.
    pub(crate) intended: Instant,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
}

/// What one thread of clients did within one second.
#[derive(Default)]
struct Interval {
    second: u64,
    histograms: Histograms,
    /// Operations that ended within the window.
    ended: [u64; OpKind::COUNT],
    found: Found,
}

/// Where recorders hand their intervals over.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<Vec<Interval>>);

/// Records the operations of one thread of clients.
pub(crate) struct Recorder {
    outbox: Arc<Outbox>,
    window: Window,
    current: Interval,
    /// When the current second ends.
    turn: Instant,
}

impl Recorder {
    /// Counts what falls into the window.
    pub(crate) fn new(outbox: Arc<Outbox>, window: Window) -> Self {
        let turn = window.epoch + Duration::from_secs(1);
        Recorder { outbox, window, current: Interval::default(), turn }
    }

    /// Counts one operation, where the window says so.
    pub(crate) fn record(&mut self, kind: OpKind, times: Times, found: Found) {
        let Times { intended, started, ended } = times;
        if ended >= self.turn {
            self.hand_over();
            self.current.second = (ended - self.window.epoch).as_secs();
            self.turn = self.window.epoch + Duration::from_secs(self.current.second + 1);
        }
        let ended_within = self.window.contains(ended);
        if ended_within {
            self.current.ended[kind as usize] += 1;
            self.current.found.add(found);
        }
        let counts = if self.window.open { self.window.contains(intended) } else { ended_within };
        if !counts {
            return;
        }
        // Below 2^64: that many nanoseconds are 584 years.
        let nanoseconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let record = |histogram: &mut Option<Histogram<u64>>, value: u64| {
            histogram.get_or_insert_with(self::histogram).saturating_record(value);
        };
        let histograms = &mut self.current.histograms;
        record(&mut histograms.response[kind as usize], nanoseconds(intended, ended));
        if self.window.open {
            record(&mut histograms.service[kind as usize], nanoseconds(started, ended));
            record(&mut histograms.lag, nanoseconds(intended, started));
        }
    }

    /// Hands over what is there; a recorder that is dropped does so too.
    fn hand_over(&mut self) {
        let interval = std::mem::take(&mut self.current);
        if !interval.histograms.is_empty() || interval.ended != [0; OpKind::COUNT] {
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
    /// Operations of each kind that ended in it.
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

    fn add(&mut self, histograms: &Histograms, ended: [u64; OpKind::COUNT], keep: bool) {
        for (count, more) in self.counts.iter_mut().zip(ended) {
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
                .response
                .each_ref()
                .map(|histogram| histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(0.99)));
        }
    }
}

/// The response times of one kind within one second, packed (V2, deflated): a few KiB instead of 256.
pub(crate) struct Packed {
    pub(crate) second: u64,
    pub(crate) kind: OpKind,
    pub(crate) bytes: Vec<u8>,
}

/// Merges what the recorders handed over.
#[derive(Default)]
pub(crate) struct Collector {
    /// All seconds together.
    pub(crate) total: Histograms,
    /// By second from the start of the phase.
    pub(crate) seconds: BTreeMap<u64, Second>,
    /// What operations found and wrote.
    pub(crate) found: Found,
    /// The histograms of each second, where they are to be kept.
    pub(crate) packed: Option<Vec<Packed>>,
}

impl Collector {
    /// A collector that keeps the histograms of each second, or not.
    pub(crate) fn new(keep_seconds: bool) -> Self {
        Collector { packed: keep_seconds.then(Vec::new), ..Collector::default() }
    }

    /// Takes in all that was handed over, in the current second `now`.
    pub(crate) fn drain(&mut self, outbox: &Outbox, now: u64) {
        let intervals = std::mem::take(&mut *outbox.0.lock().unwrap_or_else(PoisonError::into_inner));
        for Interval { second, histograms, ended, found } in intervals {
            self.total.add(&histograms);
            self.found.add(found);
            let keep = second + SECONDS_KEPT > now;
            if !keep {
                self.pack(second, &histograms);
            }
            self.seconds.entry(second).or_default().add(&histograms, ended, keep);
        }
        self.sum_up(now.saturating_sub(SECONDS_KEPT));
    }

    /// Takes in the last of it.
    pub(crate) fn finish(&mut self, outbox: &Outbox) {
        self.drain(outbox, self.seconds.keys().next_back().map_or(0, |&last| last));
        self.sum_up(u64::MAX);
    }

    /// Lets go of the histograms of the seconds before `end`.
    fn sum_up(&mut self, end: u64) {
        let done: Vec<(u64, Histograms)> = self
            .seconds
            .range_mut(..end)
            .filter_map(|(&at, second)| Some((at, second.histograms.take()?)))
            .collect();
        for (second, histograms) in done {
            self.pack(second, &histograms);
        }
    }

    fn pack(&mut self, second: u64, histograms: &Histograms) {
        let Some(packed) = &mut self.packed else { return };
        for kind in OpKind::ALL {
            let Some(histogram) = histograms.of(kind) else { continue };
            let mut bytes = Vec::new();
            // Into memory, and of a histogram with these bounds, it cannot fail.
            if V2DeflateSerializer::new().serialize(histogram, &mut bytes).is_ok() {
                packed.push(Packed { second, kind, bytes });
            }
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
    use crate::bench::draw::mix64;

    fn at(epoch: Instant, microseconds: u64) -> Instant {
        epoch + Duration::from_micros(microseconds)
    }

    fn window(epoch: Instant, seconds: u64, open: bool) -> Window {
        Window { epoch, deadline: epoch + Duration::from_secs(seconds), open }
    }

    fn times(started: Instant, ended: Instant) -> Times {
        Times { intended: started, started, ended }
    }

    /// Percentiles of what several recorders saw are those of all samples together, sorted.
    #[test]
    fn merged_percentiles_are_those_of_all_samples() {
        let (epoch, outbox) = (Instant::now(), Arc::new(Outbox::default()));
        let mut collector = Collector::new(true);
        let mut all = Vec::new();
        for thread in 0..3u64 {
            let mut recorder = Recorder::new(outbox.clone(), window(epoch, 10, false));
            for sample in 0..20_000u64 {
                // Each thread has latencies of its own, so that an average of percentiles would be far off.
                let us = 1 + mix64(thread << 32 | sample) % 10u64.pow(2 + thread as u32);
                let end = at(epoch, 100_000 + sample * 400);
                recorder.record(OpKind::Put, times(end - Duration::from_micros(us), end), Found::default());
                all.push(us * 1000);
            }
            drop(recorder);
            collector.drain(&outbox, 8);
        }
        collector.finish(&outbox);
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

        // The packed seconds hold the same samples.
        use hdrhistogram::serialization::Deserializer;
        let mut again = histogram();
        for packed in collector.packed.unwrap() {
            let unpacked: Histogram<u64> = Deserializer::new().deserialize(&mut &packed.bytes[..]).unwrap();
            again.add(unpacked).unwrap();
        }
        assert_eq!(Latency::from(&again), latency);
    }

    #[test]
    fn an_operation_counts_in_the_second_it_ended_in() {
        let (epoch, outbox) = (Instant::now() + Duration::from_secs(9), Arc::new(Outbox::default()));
        let mut recorder = Recorder::new(outbox.clone(), window(epoch, 5, false));
        let mut put = |end: Instant| recorder.record(OpKind::Put, times(epoch, end), Found::default());
        put(epoch - Duration::from_micros(1)); // warm-up
        put(at(epoch, 10));
        put(at(epoch, 999_999));
        put(at(epoch, 3_000_000)); // a stall over two whole seconds
        put(at(epoch, 3_500_000));
        put(at(epoch, 4_999_999));
        put(at(epoch, 5_000_000)); // too late to count
        put(at(epoch, 7_000_000));
        drop(recorder);
        let mut collector = Collector::default();
        collector.drain(&outbox, 7);
        let counts: Vec<_> = collector.seconds.iter().map(|(second, s)| (*second, s.operations())).collect();
        assert_eq!(counts, [(0, 2), (3, 2), (4, 1)]);
        assert_eq!(collector.total.all().len(), 5);
        assert_eq!(collector.slowest(5), Some((1, 0)));
        assert_eq!(collector.slowest(1), Some((0, 2)));
        assert_eq!(collector.slowest(0), None);
    }

    /// A server that stalls for a second makes all who were to be served in it wait: response times show it, service
    /// times do not.
    #[test]
    fn an_open_loop_counts_from_the_intended_start() {
        let (epoch, outbox) = (Instant::now() + Duration::from_secs(9), Arc::new(Outbox::default()));
        let mut recorder = Recorder::new(outbox.clone(), window(epoch, 2, true));
        for arrival in 0..200u64 {
            let intended = at(epoch, arrival * 10_000);
            // The stall is from 0.5 s to 1.5 s; a service takes 1 ms otherwise.
            let started = if (50..150).contains(&arrival) { at(epoch, 1_500_000) } else { intended };
            let ended = started + Duration::from_millis(1);
            recorder.record(OpKind::Get, Times { intended, started, ended }, Found::default());
        }
        // To start in the warm-up: not counted, though it ends later. To start in time, but ending after: counted.
        let early = epoch - Duration::from_millis(1);
        for _ in 0..2 {
            let times = Times { intended: early, started: early, ended: epoch };
            recorder.record(OpKind::Get, times, Found::default());
        }
        let late = at(epoch, 1_999_999);
        let times = Times { intended: late, started: late, ended: at(epoch, 3_000_000) };
        recorder.record(OpKind::Get, times, Found::default());
        drop(recorder);
        let mut collector = Collector::default();
        collector.finish(&outbox);
        let response = collector.total.of(OpKind::Get).unwrap();
        let service = collector.total.service[OpKind::Get as usize].as_ref().unwrap();
        assert_eq!((response.len(), service.len()), (201, 201));
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) / 1_000_000;
        assert_eq!((ms(service, 0.9), ms(response, 0.25)), (1, 1));
        assert!((480..=520).contains(&ms(response, 0.75)), "{}", ms(response, 0.75));
        assert!(collector.total.lag.as_ref().unwrap().max() > 990_000_000);
        let ended: u64 = collector.seconds.values().map(Second::operations).sum();
        assert_eq!(ended, 202, "the rate counts what ended in the window");
    }

    #[test]
    fn what_comes_late_still_counts() {
        let (epoch, outbox) = (Instant::now(), Arc::new(Outbox::default()));
        let mut collector = Collector::default();
        let mut recorder = Recorder::new(outbox.clone(), window(epoch, 100, false));
        let found = Found { values: 1, ..Found::default() };
        recorder.record(OpKind::Get, times(epoch, at(epoch, 500)), found);
        collector.drain(&outbox, 60);
        assert!(collector.seconds.is_empty(), "nothing is handed over within a second");
        recorder.record(OpKind::Get, times(epoch, at(epoch, 60_000_000)), found);
        collector.drain(&outbox, 60);
        drop(recorder);
        collector.drain(&outbox, 60);
        assert_eq!(collector.seconds[&0].operations(), 1);
        assert_eq!(collector.seconds[&60].operations(), 1);
        assert_eq!(collector.found.values, 2);
    }
}
