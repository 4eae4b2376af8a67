//! What a run found, once: the text at the end and the JSON file are two ways to write it.

use super::engine_stats::{Stage, Totals};
use super::options::BenchOptions;
use super::place::FileSystem;
use super::progress::Glance;
use super::record::{Collector, Found, Latency};
use super::system::{Cpu, Machine};
use super::verify::Verification;
use super::workload::OpKind;
use serde::Serialize;

/// Everything about one run. Latencies in nanoseconds, times in seconds, sizes in bytes.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The format of the JSON; raised when a field changes its meaning or goes.
    pub(crate) format: u32,
    /// The version of this program and of the engine, which are released together.
    pub(crate) version: &'static str,
    /// What it was started with.
    pub(crate) command: Vec<String>,
    /// When, in seconds since 1970.
    pub(crate) started_unix: u64,
    /// Whether Ctrl-C ended it early.
    pub(crate) interrupted: bool,
    /// What failed under way.
    pub(crate) failure: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) engine: EngineReport,
    /// The options, as given or by default; `null`: the engine's default.
    pub(crate) options: BenchOptions,
    pub(crate) phases: Vec<PhaseReport>,
    /// Where time goes inside the engine, over the whole run.
    pub(crate) stages: Vec<Stage>,
    pub(crate) close_seconds: Option<f64>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) verification: Option<Verification>,
    /// The most memory that the process had, load generator included.
    pub(crate) memory_peak_bytes: u64,
}

/// The engine as it was opened.
#[derive(Serialize)]
pub(crate) struct EngineReport {
    pub(crate) shards: u16,
    /// "io_uring" or what it fell back to.
    pub(crate) io: String,
    /// Why it fell back.
    pub(crate) io_fallback: Option<String>,
    pub(crate) folder: String,
    pub(crate) file_system: FileSystem,
}

/// One phase.
#[derive(Serialize)]
pub(crate) struct PhaseReport {
    pub(crate) name: &'static str,
    /// Where its clients ran.
    pub(crate) clients: &'static str,
    pub(crate) in_flight: u32,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Operations of all kinds a second.
    pub(crate) rate: f64,
    pub(crate) operations: Vec<OperationReport>,
    pub(crate) slowest_second: Option<SlowestSecond>,
    /// What reads and scans found.
    pub(crate) found: Found,
    /// Reads that did not return what was acknowledged; must be 0.
    pub(crate) wrong_reads: u64,
    /// Bytes written to log and segments for each byte of keys and values committed.
    pub(crate) written_per_byte: Option<WrittenPerByte>,
    pub(crate) commits_per_log_write: Option<f64>,
    /// Processor time of the whole process during the phase.
    pub(crate) cpu: Cpu,
    pub(crate) cpu_us_per_operation: f64,
    /// Memory of the process at the end of the phase.
    pub(crate) memory_bytes: u64,
    /// The engine's counters, before and after.
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    pub(crate) timeline: Vec<SecondReport>,
}

/// One kind of operation of a phase.
#[derive(Serialize)]
pub(crate) struct OperationReport {
    pub(crate) operation: &'static str,
    pub(crate) rate: f64,
    pub(crate) latency_ns: Latency,
}

/// The whole second in which the fewest operations ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct SlowestSecond {
    /// Counted from the start of the phase; 0 is the first.
    pub(crate) second: u64,
    pub(crate) rate: f64,
    /// Against the mean rate of the phase.
    pub(crate) of_mean: f64,
}

/// Bytes to disk for each byte committed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct WrittenPerByte {
    pub(crate) log: f64,
    pub(crate) segments: f64,
}

/// One second of a phase. The three columns of the arrays are commits, reads and scans.
#[derive(Serialize)]
pub(crate) struct SecondReport {
    pub(crate) second: u64,
    pub(crate) operations: [u64; OpKind::COUNT],
    pub(crate) p99_ns: [u64; OpKind::COUNT],
    pub(crate) max_ns: [u64; OpKind::COUNT],
    /// As printed in the line of that second.
    pub(crate) segments: Option<String>,
    pub(crate) backlog_bytes: Option<u64>,
}

/// How the reopening went.
#[derive(Serialize)]
pub(crate) struct Recovery {
    /// As the engine tells it.
    pub(crate) seconds: f64,
    /// From the call to the answer.
    pub(crate) open_seconds: f64,
    pub(crate) commits_replayed: u64,
    pub(crate) log_bytes: u64,
}

/// What a phase took beside its latencies.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) clients: &'static str,
    pub(crate) in_flight: u32,
    pub(crate) seconds: f64,
    pub(crate) wrong_reads: u64,
    pub(crate) cpu: Cpu,
    pub(crate) memory_bytes: u64,
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    pub(crate) glances: Vec<Glance>,
}

impl PhaseReport {
    /// Puts together what was collected and measured.
    pub(crate) fn new(measured: Measured, collector: &Collector) -> Self {
        let Measured {
            name,
            clients,
            in_flight,
            seconds,
            wrong_reads,
            cpu,
            memory_bytes,
            before,
            after,
            glances,
        } = measured;
        let per_second = |operations: u64| if seconds > 0.0 { operations as f64 / seconds } else { 0.0 };
        let operations: Vec<OperationReport> = OpKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let histogram = collector.total.of(kind)?;
                let rate = per_second(histogram.len());
                Some(OperationReport { operation: kind.name(), rate, latency_ns: Latency::from(histogram) })
            })
            .collect();
        let count: u64 = operations.iter().map(|operation| operation.latency_ns.samples).sum();
        let rate = per_second(count);
        let slowest_second = collector.slowest(seconds as u64).map(|(second, operations)| SlowestSecond {
            second,
            rate: operations as f64,
            of_mean: if rate > 0.0 { operations as f64 / rate } else { 0.0 },
        });
        let ratio = |over: u64, under: u64| (under > 0).then(|| over as f64 / under as f64);
        let bytes_in = after.bytes_in - before.bytes_in;
        let timeline = collector
            .seconds
            .iter()
            .map(|(&second, done)| {
                let glance = glances.iter().find(|glance| glance.second == second + 1);
                SecondReport {
                    second,
                    operations: done.counts,
                    p99_ns: done.p99_ns,
                    max_ns: done.max_ns,
                    segments: glance.map(|glance| glance.segments.clone()),
                    backlog_bytes: glance.map(|glance| glance.backlog_bytes),
                }
            })
            .collect();
        PhaseReport {
            name,
            clients,
            in_flight,
            seconds,
            rate,
            operations,
            slowest_second,
            found: collector.found,
            wrong_reads,
            written_per_byte: ratio(after.log_bytes - before.log_bytes, bytes_in)
                .zip(ratio(after.segment_bytes - before.segment_bytes, bytes_in))
                .map(|(log, segments)| WrittenPerByte { log, segments }),
            commits_per_log_write: ratio(
                after.commits - before.commits,
                after.log_groups - before.log_groups,
            ),
            cpu,
            cpu_us_per_operation: if count > 0 { cpu.total() * 1e6 / count as f64 } else { 0.0 },
            memory_bytes,
            before,
            after,
            timeline,
        }
    }
}

impl Report {
    /// Whether the run went as it should: no failure, and all that was read is what was acknowledged.
    pub(crate) fn passed(&self) -> bool {
        self.failure.is_none()
            && self.phases.iter().all(|phase| phase.wrong_reads == 0)
            && self.verification.as_ref().is_none_or(Verification::passed)
    }
}
