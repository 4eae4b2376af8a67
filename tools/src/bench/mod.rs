//! The load generator.
//!
//! 1. A folder of its own on a real disk ([`place`]), an engine in it ([`options`]), the data's shape ([`dataset`]).
//! 2. Phase by phase ([`run`]): clients on the shards' cores ([`clients_oncore`]) or on other threads
//!    ([`clients_async`]) run a closed loop ([`client`]) over operations that a seed decides ([`workload`]), and
//!    record latencies ([`record`]), while the main thread prints a line a second ([`progress`]).
//! 3. The engine is closed and reopened, and all that was acknowledged is read back ([`verify`]).
//! 4. The report ([`report`]) is printed ([`text`]) and, where asked for, written as JSON.
//!
//! It promises that what it counts was acknowledged by the engine, and that it notices where a read or the content
//! after reopening is not what was acknowledged: exit code 1.

mod client;
mod clients_async;
mod clients_oncore;
mod dataset;
mod engine_stats;
pub(crate) mod options;
mod place;
mod progress;
mod record;
mod report;
mod run;
mod system;
mod text;
mod verify;
mod workload;

use crate::failure::Failure;
use crate::out::say;
use crate::units;
use dataset::Dataset;
use engine_stats::Totals;
use options::{BenchOptions, Phase};
use place::RunFolder;
use quipu::{Directory, Engine};
use record::{Collector, Second};
use report::{EngineReport, Measured, PhaseReport, Recovery, Report};
use run::Run;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use system::{Cpu, Machine};
use workload::Mix;

/// The number of the JSON's format.
const FORMAT: u32 = 1;

/// A phase, as it is run.
struct Plan {
    name: &'static str,
    on_core: bool,
    mix: Mix,
    length: Duration,
}

impl Plan {
    fn new(phase: Phase, length: Duration) -> Self {
        let (name, on_core, mix) = match phase {
            Phase::Commits => ("commits", true, Mix::PUTS),
            Phase::CommitsAsync => ("commits-async", false, Mix::PUTS),
            Phase::Mix => ("mix", true, Mix::MIXED),
            Phase::MixAsync => ("mix-async", false, Mix::MIXED),
        };
        Plan { name, on_core, mix, length }
    }
}

/// Runs the load generator.
pub(crate) fn run(options: BenchOptions) -> Result<(), Failure> {
    let interrupted = on_interrupt()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let folder = RunFolder::create(options.path.as_deref(), options.keep)?;
    let (engine, json) = match open(&options, folder.path()) {
        Ok(opened) => opened,
        Err(failure) => {
            folder.abandon();
            return Err(failure);
        }
    };

    let directories = Arc::new(dataset::directories(&engine, options.directories)?);
    let by_shard = directories.iter().map(|directories| directories.len() as u32).collect();
    let dataset = Dataset::new(options.seed, options.value_bytes as usize, options.keys, by_shard);
    let mut session = Session { dataset: Arc::new(dataset), interrupted, phase: 0 };
    let mut report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        started_unix: started,
        interrupted: false,
        failure: None,
        machine: Machine::here(),
        engine: EngineReport {
            shards: engine.shards(),
            io: engine.io_kind().to_string(),
            io_fallback: engine.io_fallback().map(str::to_string),
            folder: folder.path().display().to_string(),
            file_system: place::file_system(folder.path()),
        },
        options,
        phases: Vec::new(),
        stages: Vec::new(),
        close_seconds: None,
        recovery: None,
        verification: None,
        memory_peak_bytes: 0,
    };
    introduce(&report);
    session.drive(&engine, &directories, &mut report);
    report.interrupted = session.interrupted();
    drop(directories);
    session.close_and_verify(engine, folder.path(), &mut report);
    report.interrupted |= session.interrupted();
    report.memory_peak_bytes = system::memory_peak();

    say(text::write(&report).trim_end());
    if report.options.keep {
        say(format!("data kept in {}", folder.path().display()));
    }
    drop(folder);
    if let (Some(mut file), Some(path)) = (json, &report.options.json) {
        let bytes = serde_json::to_vec_pretty(&report).map_err(Failure::run)?;
        let written =
            file.set_len(0).and_then(|()| file.write_all(&bytes)).and_then(|()| file.write_all(b"\n"));
        written.map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))?;
    }
    match (&report.failure, report.passed()) {
        (_, true) => Ok(()),
        (Some(failure), false) => Err(Failure::run(failure)),
        (None, false) => Err(Failure::run("the engine does not hold what it acknowledged")),
    }
}

/// A flag that the first Ctrl-C (or a request to terminate) sets; the second one ends the process at once.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, and then sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, interrupted.clone())
            .and_then(|_| flag::register(signal, interrupted.clone()))
            .map_err(|error| Failure::run(format!("cannot handle signal {signal}: {error}")))?;
    }
    Ok(interrupted)
}

/// Opens the engine, and the file for the JSON: what can be wrong with either is told before anything runs.
fn open(options: &BenchOptions, folder: &Path) -> Result<(Engine, Option<File>), Failure> {
    let engine = options.engine().open(folder).map_err(Failure::input)?;
    let json = match &options.json {
        // Not truncated yet: until there is a new report, the old one stays.
        Some(path) => match File::options().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Some(file),
            Err(error) => return Err(Failure::input(format!("cannot write {}: {error}", path.display()))),
        },
        None => None,
    };
    Ok((engine, json))
}

/// Says what is about to be measured.
fn introduce(report: &Report) {
    let Report { engine, machine, options, .. } = report;
    let on = format!("{} on {}", engine.file_system.kind, engine.file_system.device);
    say(format!(
        "quipu {}: {} on {} ({}), {}, Linux {}",
        report.version,
        units::counted(engine.shards.into(), "shard", "shards"),
        units::counted(machine.cores as u64, "core", "cores"),
        machine.cpu,
        engine.io,
        machine.kernel
    ));
    say(format!("data in {} ({on}), durability {}", engine.folder, options.durability));
    say(format!(
        "{} keys of {} bytes in {} directories, values of {} bytes, {} in flight a shard, seed {}\n",
        units::thousands(options.keys.into()),
        dataset::KEY_BYTES,
        units::thousands(options.directories.into()),
        options.value_bytes,
        options.in_flight,
        options.seed
    ));
    if let Some(why) = &engine.io_fallback {
        eprintln!("quipu: io_uring is not used, so this is slower than it could be: {why}");
    }
    if engine.file_system.in_memory {
        eprintln!(
            "quipu: warning: {} is in memory ({}), where nothing is durable and no figure means anything",
            engine.folder, engine.file_system.kind
        );
    }
}

/// What lasts from the first phase to the verification.
struct Session {
    dataset: Arc<Dataset>,
    interrupted: Arc<AtomicBool>,
    /// Phases begun.
    phase: u32,
}

impl Session {
    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Warms up, then runs all phases; ends early by Ctrl-C or a failure.
    fn drive(&mut self, engine: &Engine, directories: &Arc<Vec<Vec<Directory>>>, report: &mut Report) {
        let options = report.options.clone();
        let length = options.seconds / options.phases.len().max(1) as u32;
        let warm_up = Plan { name: "warm-up", on_core: true, mix: Mix::PUTS, length: options.warmup };
        let phases = options.phases.iter().map(|&phase| Plan::new(phase, length));
        for plan in std::iter::once(warm_up).chain(phases).filter(|plan| !plan.length.is_zero()) {
            if self.interrupted() || report.failure.is_some() {
                break;
            }
            let counts = plan.name != "warm-up";
            match self.phase(engine, directories, &options, plan) {
                Ok((phase, failure)) => {
                    report.phases.extend(Some(phase).filter(|phase| counts && !phase.operations.is_empty()));
                    report.failure = failure;
                }
                Err(failure) => report.failure = Some(failure.to_string()),
            }
        }
        if let Ok(stats) = engine.stats().wait() {
            report.stages = engine_stats::stages(&stats);
        }
    }

    /// Runs one phase. What failed in it is returned beside its report.
    fn phase(
        &mut self,
        engine: &Engine,
        directories: &Arc<Vec<Vec<Directory>>>,
        options: &BenchOptions,
        plan: Plan,
    ) -> Result<(PhaseReport, Option<String>), Failure> {
        self.phase += 1;
        let before = Totals::from(&engine.stats().wait()?);
        let cpu = Cpu::now();
        let epoch = Instant::now();
        let run = Arc::new(Run::new(
            self.dataset.clone(),
            directories.clone(),
            (self.phase, plan.mix),
            (epoch, epoch + plan.length),
            self.interrupted.clone(),
        ));
        let in_flight = options.in_flight.saturating_mul(u32::from(engine.shards()));
        let mut collector = Collector::default();
        let glances = if plan.on_core {
            let clients = clients_oncore::start(engine, &run, options.in_flight);
            let glances = progress::watch(engine, &run, plan.name, &mut collector);
            for answer in clients {
                answer.wait().unwrap_or_else(|error| run.fail(error));
            }
            glances
        } else {
            let threads = options.client_threads.unwrap_or(engine.shards());
            let clients = clients_async::start(&run, in_flight, threads.into())?;
            let glances = progress::watch(engine, &run, plan.name, &mut collector);
            if clients.into_iter().any(|thread| thread.join().is_err()) {
                return Err(Failure::run("a thread of clients panicked"));
            }
            glances
        };
        let seconds = plan.length.min(epoch.elapsed()).as_secs_f64();
        collector.drain(&run.outbox, seconds.ceil() as u64);
        let cpu = Cpu::now() - cpu;
        let mut failure = run.failure().map(|error| format!("{}: {error}", plan.name));
        let after = match engine.stats().wait() {
            Ok(stats) => Totals::from(&stats),
            Err(error) => {
                failure.get_or_insert(error.to_string());
                before.clone()
            }
        };
        if glances.is_empty() {
            // Too short for a line a second: one for all of it.
            let nothing = Second::default();
            let done = collector.seconds.get(&0).unwrap_or(&nothing);
            say(progress::line(plan.name, seconds, done, seconds, &after));
        }
        let measured = Measured {
            name: plan.name,
            clients: if plan.on_core { "on-core" } else { "async" },
            in_flight,
            seconds,
            wrong_reads: run.wrong_reads(),
            cpu,
            memory_bytes: system::memory_now(),
            before,
            after,
            glances,
        };
        Ok((PhaseReport::new(measured, &collector), failure))
    }

    /// Closes; then, unless Ctrl-C was pressed, reopens and verifies what was acknowledged.
    fn close_and_verify(&self, engine: Engine, folder: &Path, report: &mut Report) {
        let start = Instant::now();
        if let Err(error) = engine.close() {
            report.failure.get_or_insert(format!("close: {error}"));
        }
        report.close_seconds = Some(start.elapsed().as_secs_f64());
        if self.interrupted() {
            return;
        }
        let start = Instant::now();
        let reopened = report.options.engine().open(folder).and_then(|engine| {
            let open_seconds = start.elapsed().as_secs_f64();
            let directories = Arc::new(dataset::directories(&engine, report.options.directories)?);
            Ok((engine, open_seconds, directories))
        });
        let (engine, open_seconds, directories) = match reopened {
            Ok(reopened) => reopened,
            Err(error) => {
                report.failure.get_or_insert(format!("reopening: {error}"));
                return;
            }
        };
        let recovery = engine.recovery();
        report.recovery = Some(Recovery {
            seconds: recovery.took.as_secs_f64(),
            open_seconds,
            commits_replayed: recovery.replayed(),
            log_bytes: recovery.log_bytes(),
        });
        say(format!("reopened in {}, verifying", units::duration(recovery.took)));
        let interrupted = self.interrupted.clone();
        report.verification = Some(verify::verify(&engine, self.dataset.clone(), directories, interrupted));
        if let Err(error) = engine.close() {
            report.failure.get_or_insert(format!("close after verification: {error}"));
        }
    }
}
