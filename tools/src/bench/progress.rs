//! Waits for a phase to end, and prints a line every second of it.

use super::engine_stats::{Carry, CarryName, Totals, carries};
use super::op::OpKind;
use super::record::{Collector, Second};
use super::run::Run;
use super::system::{Cpu, MachineTime};
use crate::out::say;
use crate::units;
use quipu::{Engine, Stats};
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// The carries in flight.
    pub(crate) carries: Vec<Carry>,
    /// How many were installed since the glance before, by name.
    pub(crate) installed: BTreeMap<CarryName, u64>,
    /// The share of the machine's processor time that the hypervisor took since the glance before.
    pub(crate) stolen: f64,
}

/// What was seen of a phase.
#[derive(Default)]
pub(crate) struct Watched {
    /// The engine's figures at the end of the warm-up; `None` where it does not answer.
    pub(crate) before: Option<Stats>,
    /// Processor time of the process until then.
    pub(crate) cpu: Cpu,
    /// That of the machine until then.
    pub(crate) machine_time: MachineTime,
    pub(crate) glances: Vec<Glance>,
}

/// Watches a phase until its clients are to stop, or have. `puts` is how many puts are to be made in all, where that is
/// known.
pub(crate) fn watch(
    engine: &Engine,
    run: &Run,
    name: &str,
    puts: Option<u64>,
    collector: &mut Collector,
) -> Watched {
    let mut watched = Watched::default();
    sleep_until(run.window.epoch, run);
    watched.cpu = Cpu::now();
    watched.machine_time = MachineTime::now();
    let mut machine_time = watched.machine_time;
    let mut totals_before = Totals::default();
    match engine.stats().wait() {
        Ok(stats) => {
            totals_before = Totals::from(&stats);
            watched.before = Some(stats);
        }
        Err(error) => run.fail(error),
    }
    let mut second = 0;
    loop {
        let end = run.window.epoch + Duration::from_secs(second + 1);
        if end > run.window.deadline {
            sleep_until(run.window.deadline, run);
            return watched;
        }
        // The line of the last whole second is waited for too, though its clients stop already.
        if !sleep_until(end + GRACE, run) {
            return watched;
        }
        collector.drain(&run.outbox, second + 1);
        let stats = match engine.stats().wait() {
            Ok(stats) => stats,
            Err(error) => {
                run.fail(error);
                return watched;
            }
        };
        let totals = Totals::from(&stats);
        // Where the engine took its time to answer, several seconds have passed: none is left out.
        let passed = Instant::now().min(run.window.deadline).saturating_duration_since(run.window.epoch);
        let passed = passed.as_secs();
        collector.drain(&run.outbox, passed);
        while second < passed {
            let nothing = Second::default();
            let done = collector.seconds.get(&second).unwrap_or(&nothing);
            second += 1;
            let share = puts.map_or(String::new(), |puts| {
                format!("  {:.0} %", collector.found.puts as f64 * 100.0 / puts.max(1) as f64)
            });
            say(format!("{}{share}", line(name, second as f64, done, 1.0, &totals)));
        }
        let before = std::mem::replace(&mut machine_time, MachineTime::now());
        let glance = Glance {
            second,
            segments: totals.levels(),
            backlog_bytes: totals.backlog_bytes,
            carries: carries(&stats),
            installed: totals.carries_since(&totals_before),
            stolen: machine_time.stolen_since(before),
        };
        watched.glances.push(glance);
        totals_before = totals;
    }
}

/// Sleeps until then. False: the clients have ended before, by themselves, a failure or Ctrl-C.
fn sleep_until(then: Instant, run: &Run) -> bool {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if run.aborted() || (run.all_ended() && Instant::now() < run.window.deadline) {
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
