//! What a run found, once: the text at the end and the JSON file are two ways to write it.

use super::choices::Sweep;
use super::engine_stats::{Carry, CarryName, Stage, Totals};
use super::op::OpKind;
use super::options::BenchOptions;
use super::place::FileSystem;
use super::progress::Glance;
use super::record::{Collector, Found, Histograms, Latency, Packed};
use super::schedule::Arrivals;
use super::system::{Build, Cpu, Machine};
use super::verify::Verification;
use super::workload::Recipe;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything about one run. Latencies in nanoseconds, times in seconds, sizes in bytes.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The format of the JSON; raised when a field changes its meaning or goes.
    pub(crate) format: u64,
    pub(crate) build: Build,
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
    /// The load phase, where there was one.
    pub(crate) load: Option<PhaseReport>,
    pub(crate) phases: Vec<PhaseReport>,
    pub(crate) sweeps: Vec<SweepReport>,
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
    pub(crate) name: String,
    /// Where its clients ran.
    pub(crate) clients: &'static str,
    /// What they did.
    pub(crate) recipe: Recipe,
    /// Closed loop: operations in flight.
    pub(crate) in_flight: Option<u32>,
    /// Open loop: what was to start, in operations a second, and how.
    pub(crate) offered: Option<Offered>,
    /// How long it warmed up before it was measured.
    pub(crate) warmup_seconds: f64,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Operations of all kinds that ended in that time, a second.
    pub(crate) rate: f64,
    pub(crate) operations: Vec<OperationReport>,
    /// Open loop: by how much the generator itself started operations late.
    pub(crate) lag_ns: Option<Latency>,
    /// Open loop: operations that were to start and never did, because those before them had not ended.
    pub(crate) unstarted: u64,
    pub(crate) slowest_second: Option<SlowestSecond>,
    /// What operations found and wrote.
    pub(crate) found: Found,
    /// Reads that did not return what was acknowledged; must be 0.
    pub(crate) wrong_reads: u64,
    /// Bytes written to log and segments for each byte of keys and values committed.
    pub(crate) written_per_byte: Option<WrittenPerByte>,
    pub(crate) commits_per_log_write: Option<f64>,
    /// Share of the block cache's lookups that found their block.
    pub(crate) cache_hit_share: Option<f64>,
    /// Processor time of the whole process during the phase.
    pub(crate) cpu: Cpu,
    pub(crate) cpu_us_per_operation: f64,
    /// The share of the machine's processor time that the hypervisor took during the phase (steal): where it is not next to
    /// nothing, the figures are those of a smaller machine.
    pub(crate) stolen: f64,
    /// Memory of the process at the end of the phase.
    pub(crate) memory_bytes: u64,
    /// The engine's counters, before and after.
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    /// Where time went inside the engine during the phase.
    pub(crate) stages: Vec<Stage>,
    pub(crate) timeline: Vec<SecondReport>,
    /// All latencies, for plots and histogram files.
    #[serde(skip)]
    pub(crate) histograms: Histograms,
    /// Those of each second, where they were asked for.
    #[serde(skip)]
    pub(crate) packed: Option<Vec<Packed>>,
    /// When it began to be measured, in seconds since 1970.
    pub(crate) started_unix: f64,
}

/// What an open loop was to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Offered {
    /// Operations a second.
    pub(crate) rate: f64,
    pub(crate) arrivals: Arrivals,
}

/// A search for the highest rate.
#[derive(Serialize)]
pub(crate) struct SweepReport {
    /// The phase that was swept.
    pub(crate) phase: String,
    pub(crate) looks_for: Sweep,
    /// In the order they were tried: first a closed loop, last the runs at shares of what was found.
    pub(crate) points: Vec<SweepPoint>,
    /// The highest rate sustained, in operations a second; none where no rate was.
    pub(crate) found: Option<f64>,
}

/// A rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SweepPoint {
    /// Operations a second that were to start; `null`: a closed loop.
    pub(crate) offered: Option<f64>,
    /// Operations a second that ended.
    pub(crate) rate: f64,
    pub(crate) response_ns: Latency,
    pub(crate) lag_p99_ns: u64,
    pub(crate) unstarted: u64,
    pub(crate) sustained: bool,
}

/// One kind of operation of a phase.
#[derive(Serialize)]
pub(crate) struct OperationReport {
    pub(crate) operation: &'static str,
    pub(crate) rate: f64,
    /// In an open loop from the intended start (response time), else from the start.
    pub(crate) latency_ns: Latency,
    /// In an open loop from the actual start (service time).
    pub(crate) service_ns: Option<Latency>,
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

/// One second of a phase, by operation.
#[derive(Serialize)]
pub(crate) struct SecondReport {
    pub(crate) second: u64,
    pub(crate) operations: BTreeMap<&'static str, OperationSecond>,
    /// As printed in the line of that second.
    pub(crate) segments: Option<String>,
    pub(crate) backlog_bytes: Option<u64>,
    /// The carries in flight at its end.
    pub(crate) carries: Option<Vec<Carry>>,
    /// How many were installed in it (or since the last second that has this), by name.
    pub(crate) carries_installed: Option<BTreeMap<CarryName, u64>>,
    /// The share of the machine's processor time that the hypervisor took.
    pub(crate) stolen: Option<f64>,
}

/// One operation in one second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OperationSecond {
    pub(crate) count: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
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
    pub(crate) name: String,
    pub(crate) clients: &'static str,
    pub(crate) recipe: Recipe,
    pub(crate) in_flight: Option<u32>,
    pub(crate) offered: Option<Offered>,
    pub(crate) warmup_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) unstarted: u64,
    pub(crate) wrong_reads: u64,
    pub(crate) cpu: Cpu,
    pub(crate) stolen: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    pub(crate) stages: Vec<Stage>,
    pub(crate) glances: Vec<Glance>,
    pub(crate) started_unix: f64,
}

impl PhaseReport {
    /// Puts together what was collected and measured.
    pub(crate) fn new(measured: Measured, collector: Collector) -> Self {
        let Measured {
            name,
            clients,
            recipe,
            in_flight,
            offered,
            warmup_seconds,
            seconds,
            unstarted,
            wrong_reads,
            cpu,
            stolen,
            memory_bytes,
            before,
            after,
            stages,
            glances,
            started_unix,
        } = measured;
        let per_second = |operations: u64| if seconds > 0.0 { operations as f64 / seconds } else { 0.0 };
        let ended = |kind: OpKind| collector.seconds.values().map(|done| done.counts[kind as usize]).sum();
        let operations: Vec<OperationReport> = OpKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let response = collector.total.of(kind)?;
                let service = collector.total.service[kind as usize].as_ref();
                Some(OperationReport {
                    operation: kind.name(),
                    rate: per_second(ended(kind)),
                    latency_ns: Latency::from(response),
                    service_ns: service.map(Latency::from),
                })
            })
            .collect();
        let count: u64 = OpKind::ALL.into_iter().map(ended).sum();
        let rate = per_second(count);
        let slowest_second = collector.slowest(seconds as u64).map(|(second, operations)| SlowestSecond {
            second,
            rate: operations as f64,
            of_mean: if rate > 0.0 { operations as f64 / rate } else { 0.0 },
        });
        let ratio = |over: u64, under: u64| (under > 0).then(|| over as f64 / under as f64);
        let bytes_in = after.bytes_in - before.bytes_in;
        let lookups = after.cache_hits + after.cache_misses - before.cache_hits - before.cache_misses;
        let timeline = collector
            .seconds
            .iter()
            .filter(|&(&second, _)| (second as f64) < seconds)
            .map(|(&second, done)| {
                let glance = glances.iter().find(|glance| glance.second == second + 1);
                let of = |kind: OpKind| OperationSecond {
                    count: done.counts[kind as usize],
                    p99_ns: done.p99_ns[kind as usize],
                    max_ns: done.max_ns[kind as usize],
                };
                let kinds = OpKind::ALL.into_iter().filter(|&kind| done.counts[kind as usize] > 0);
                SecondReport {
                    second,
                    operations: kinds.map(|kind| (kind.name(), of(kind))).collect(),
                    segments: glance.map(|glance| glance.segments.clone()),
                    backlog_bytes: glance.map(|glance| glance.backlog_bytes),
                    carries: glance.map(|glance| glance.carries.clone()),
                    carries_installed: glance.map(|glance| glance.installed.clone()),
                    stolen: glance.map(|glance| glance.stolen),
                }
            })
            .collect();
        PhaseReport {
            name,
            clients,
            recipe,
            in_flight,
            offered,
            warmup_seconds,
            seconds,
            rate,
            operations,
            lag_ns: collector.total.lag.as_ref().map(Latency::from),
            unstarted,
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
            cache_hit_share: ratio(after.cache_hits - before.cache_hits, lookups),
            cpu,
            cpu_us_per_operation: if count > 0 { cpu.total() * 1e6 / count as f64 } else { 0.0 },
            stolen,
            memory_bytes,
            before,
            after,
            stages,
            timeline,
            histograms: collector.total,
            packed: collector.packed,
            started_unix,
        }
    }

    /// Where its clients ran, and how they went: "1024 on-core", "async at 50,000/s".
    pub(crate) fn pace(&self) -> String {
        match (&self.offered, self.in_flight) {
            (Some(offered), _) => format!("{} at {}", self.clients, crate::units::rate(offered.rate)),
            (None, Some(in_flight)) => format!("{in_flight} {}", self.clients),
            (None, None) => self.clients.to_string(),
        }
    }
}

impl Report {
    /// The load phase, if there was one, and the phases.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &PhaseReport> {
        self.load.iter().chain(&self.phases)
    }

    /// Whether the run went as it should: no failure, and all that was read is what was acknowledged.
    pub(crate) fn passed(&self) -> bool {
        self.failure.is_none()
            && self.measured().all(|phase| phase.wrong_reads == 0)
            && self.verification.as_ref().is_none_or(Verification::passed)
    }
}
