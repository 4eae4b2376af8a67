//! The load generator.
//!
//! 1. A folder of its own on a real disk ([`place`], [`device`]), an engine in it ([`options`]), the data's table
//!    ([`dataset`], [`key`]).
//! 2. Phase by phase ([`session`]): clients on the shards' cores ([`clients_oncore`]) or on other threads
//!    ([`clients_remote`]) run a closed or an open loop ([`client`], [`schedule`]) over operations that a seed decides
//!    ([`workload`], [`generator`], [`draw`]), and record latencies ([`record`]), while the main thread prints a line a
//!    second ([`progress`]). A [`sweep`] runs many rates to find the highest ([`search`]).
//! 3. The engine is closed and reopened, and all that was acknowledged is read back ([`verify`]).
//! 4. The report ([`report`]) is printed ([`text`]) and, where asked for, written as JSON, as a page with plots
//!    ([`html`], [`plots`]) and as histograms ([`hdr`]); a [`flamegraph`] shows where the time went. [`compare`] lays two JSON reports side by side.
//!
//! It promises that what it counts was acknowledged by the engine, and that it notices where a read or the content
//! after reopening is not what was acknowledged: exit code 1.

mod choices;
mod client;
mod clients_oncore;
mod clients_remote;
pub(crate) mod compare;
mod dataset;
mod device;
mod draw;
mod engine_stats;
mod flamegraph;
mod generator;
mod hdr;
mod html;
mod key;
mod op;
pub(crate) mod options;
mod outputs;
mod pace;
mod place;
mod plots;
mod progress;
mod record;
mod report;
mod run;
mod schedule;
mod search;
mod session;
mod sweep;
mod system;
mod table;
mod text;
mod timer;
mod verify;
mod workload;

use crate::failure::Failure;
use crate::out::say;
use crate::units;
use dataset::{Dataset, SLOT_BYTES};
use flamegraph::Sampler;
use key::Shape;
use options::BenchOptions;
use outputs::Outputs;
use place::RunFolder;
use quipu::Engine;
use report::{EngineReport, Recovery, Report};
use session::Session;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use system::{Build, Machine};

/// The number of the JSON's format.
pub(crate) const FORMAT: u64 = 2;

/// Runs the load generator.
pub(crate) fn run(mut options: BenchOptions) -> Result<(), Failure> {
    options.settle()?;
    let interrupted = on_interrupt()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let folder = RunFolder::create(options.path.as_deref(), options.keep)?;
    let (engine, mut outputs, mut session) = match prepare(&options, folder.path(), &interrupted) {
        Ok(prepared) => prepared,
        Err(failure) => {
            folder.abandon();
            return Err(failure);
        }
    };
    let directories = Arc::new(dataset::directories(&engine, options.directories)?);
    let mut report = Report {
        format: FORMAT,
        build: Build::this(),
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
        load: None,
        phases: Vec::new(),
        sweeps: Vec::new(),
        stages: Vec::new(),
        close_seconds: None,
        recovery: None,
        verification: None,
        memory_peak_bytes: 0,
    };
    introduce(&report);
    let sampled = outputs.flamegraph.take().map(|(file, path)| (Sampler::start(), file, path));
    if let Some((Ok(Sampler { fallback: Some(why), .. }), ..)) = &sampled {
        eprintln!("quipu: --flamegraph: perf cannot be used ({why}), so the kernel's part will be missing");
    }
    if sampled.is_some() && env!("QUIPU_FRAME_POINTERS") != "true" {
        eprintln!(
            "quipu: --flamegraph: this program was built without frame pointers, so most stacks will be cut short; \
             build it with `cargo profiling` (docs/profiling.md)"
        );
    }
    session.drive(&engine, &directories, &mut report);
    let drawn = sampled.map(|(sampler, file, path)| draw(sampler, &file, &path));
    report.interrupted = session.interrupted();
    drop(directories);
    close_and_verify(&session, engine, folder.path(), &mut report);
    report.interrupted |= session.interrupted();
    report.memory_peak_bytes = system::memory_peak();

    let text = text::write(&report);
    say(text.trim_end());
    if report.options.keep {
        say(format!("data kept in {}", folder.path().display()));
    }
    drop(folder);
    outputs.write(&report, &text)?;
    if let Some(drawn) = drawn {
        say(drawn?);
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

/// Opens the engine and the files for the report, and makes the table of the data: what can be wrong with any of them is
/// told before anything runs.
fn prepare(
    options: &BenchOptions,
    folder: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(Engine, Outputs, Session), Failure> {
    let engine = options.engine().open(folder).map_err(Failure::input)?;
    let outputs = Outputs::open(options)?;
    let directories = dataset::directories(&engine, options.directories)?;
    let by_shard: Vec<u32> = directories.iter().map(|directories| directories.len() as u32).collect();
    let shape = Shape {
        seed: options.seed,
        key_bytes: usize::from(options.key_bytes),
        ordered: options.key_order == Some(choices::KeyOrder::Ordered),
        value_bytes: options.value_bytes,
    };
    let room = options.insert_room.unwrap_or(0);
    let dataset = Dataset::new(shape, options.keys, room, &by_shard).map_err(|dataset::TooLarge| {
        let bytes = (u64::from(options.keys) + u64::from(room)) * SLOT_BYTES as u64;
        Failure::input(format!(
            "--keys, --insert-room: their table would take {} of memory, which is not to be had",
            units::bytes(bytes)
        ))
    })?;
    let session = Session { dataset: Arc::new(dataset), interrupted: interrupted.clone(), phase: 0 };
    Ok((engine, outputs, session))
}

/// Draws the flame graph. Answers what is to be said of it.
fn draw(sampler: Result<Sampler, Failure>, file: &File, path: &Path) -> Result<String, Failure> {
    let cannot = |error| Failure::run(format!("cannot write {}: {error}", path.display()));
    file.set_len(0).map_err(cannot)?;
    let drawn = sampler?.draw(file, "quipu bench")?;
    Ok(format!("flame graph in {}: {drawn}", path.display()))
}

/// Says what is about to be measured.
fn introduce(report: &Report) {
    let Report { engine, machine, options, build, .. } = report;
    let on = format!("{} on {}", engine.file_system.kind, engine.file_system.source);
    let cache = engine.file_system.device.write_cache.as_ref();
    let cache = cache.map_or(String::new(), |cache| format!(", write cache: {cache}"));
    say(format!(
        "quipu {}: {} on {} ({}), {}, Linux {}",
        build.version,
        units::counted(engine.shards.into(), "shard", "shards"),
        units::counted(machine.cores as u64, "core", "cores"),
        machine.cpu,
        engine.io,
        machine.kernel
    ));
    say(format!("data in {} ({on}{cache}), durability {}", engine.folder, options.durability));
    let pace = match (options.sweep, options.rate) {
        (Some(sweep), _) => format!("sweep: {sweep}"),
        (None, Some(rate)) => format!("{} in all", units::rate(rate)),
        (None, None) => format!("{} in flight a shard", options.in_flight),
    };
    say(format!(
        "{} keys of {} bytes in {} directories, values of {} bytes, {pace}, seed {}\n",
        units::thousands(options.keys.into()),
        options.key_bytes,
        units::thousands(options.directories.into()),
        options.value_bytes,
        options.seed
    ));
    if build.profile != "release" {
        eprintln!("quipu: warning: a {} build; its figures mean nothing", build.profile);
    }
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

/// Closes; then, unless Ctrl-C was pressed, reopens and verifies what was acknowledged.
fn close_and_verify(session: &Session, engine: Engine, folder: &Path, report: &mut Report) {
    let start = Instant::now();
    if let Err(error) = engine.close() {
        report.failure.get_or_insert(format!("close: {error}"));
    }
    report.close_seconds = Some(start.elapsed().as_secs_f64());
    if session.interrupted() {
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
    let interrupted = session.interrupted.clone();
    report.verification = Some(verify::verify(&engine, session.dataset.clone(), directories, interrupted));
    if let Err(error) = engine.close() {
        report.failure.get_or_insert(format!("close after verification: {error}"));
    }
}
