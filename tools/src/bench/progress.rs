//! Waits for a phase to end, and prints a line every second of it.

use super::engine_stats::Totals;
use super::record::{Collector, Second};
use super::run::Run;
use super::workload::OpKind;
use crate::out::say;
use crate::units;
use quipu::Engine;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// How often the end of the phase is looked for.
const STEP: Duration = Duration::from_millis(20);

/// How long after a second's end its line is printed: the recorders have handed over by then.
const GRACE: Duration = Duration::from_millis(60);

/// What the engine looked like at the end of a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Glance {
    /// Seconds since the start of the phase, whole.
    pub(crate) second: u64,
    /// Live segments by level, as text.
    pub(crate) segments: String,
    /// Bytes that compaction had still to do.
    pub(crate) backlog_bytes: u64,
}

/// Watches a phase until its clients are to stop. Returns what it saw.
pub(crate) fn watch(engine: &Engine, run: &Run, name: &str, collector: &mut Collector) -> Vec<Glance> {
    let mut glances = Vec::new();
    let mut second = 0;
    loop {
        let end = run.epoch + Duration::from_secs(second + 1);
        if end > run.deadline {
            sleep_until(run.deadline, run);
            return glances;
        }
        // The line of the last whole second is waited for too, though its clients stop already.
        if !sleep_until(end + GRACE, run) {
            return glances;
        }
        collector.drain(&run.outbox, second + 1);
        let totals = match engine.stats().wait() {
            Ok(stats) => Totals::from(&stats),
            Err(error) => {
                run.fail(error);
                return glances;
            }
        };
        // Where the engine took its time to answer, several seconds have passed: none is left out.
        let passed = Instant::now().min(run.deadline).saturating_duration_since(run.epoch).as_secs();
        collector.drain(&run.outbox, passed);
        while second < passed {
            let nothing = Second::default();
            let done = collector.seconds.get(&second).unwrap_or(&nothing);
            second += 1;
            say(line(name, second as f64, done, 1.0, &totals));
        }
        glances.push(Glance { second, segments: totals.levels(), backlog_bytes: totals.backlog_bytes });
    }
}

/// Sleeps until then. False: a failure or Ctrl-C ended the phase before.
fn sleep_until(then: Instant, run: &Run) -> bool {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if run.aborted() {
            return false;
        }
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(STEP));
    }
}

/// One line of progress: what was done in the `seconds` seconds until `at` seconds after the phase's start.
pub(crate) fn line(name: &str, at: f64, done: &Second, seconds: f64, totals: &Totals) -> String {
    let kinds: Vec<OpKind> = OpKind::ALL.into_iter().filter(|&kind| done.counts[kind as usize] > 0).collect();
    let p99: Vec<String> = kinds
        .iter()
        .map(|&kind| {
            let latency = units::latency(done.p99_ns[kind as usize]);
            if kinds.len() == 1 { latency } else { format!("{} {latency}", kind.name()) }
        })
        .collect();
    let p99 = if p99.is_empty() { "-".to_string() } else { p99.join(", ") };
    let rate = units::rate(done.operations() as f64 / seconds);
    let trouble = totals.trouble.as_ref().map_or(String::new(), |trouble| format!("  {trouble}"));
    format!(
        "{name:<13} {at:>5.1} s {rate:>12}  p99 {p99}  {}  backlog {}{trouble}",
        totals.levels(),
        units::bytes(totals.backlog_bytes)
    )
}
