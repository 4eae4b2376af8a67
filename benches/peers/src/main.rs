//! `quipu-peers`: Quipu beside RocksDB, fjall, redb and LMDB, and beside the raw floor.
//!
//! 1. [`works`] has the rows of the table; each measures with [`trial`], where engines take turns, and gives a [`row`].
//! 2. [`engines`] has the adapters, [`drive`] the clients on plain threads, [`native`] those that only Quipu has.
//! 3. [`report`] and [`plots`] write what was found.
//!
//! Promise: the same operations, sizes, durability, cache budget and numbers of clients for every engine; settings are
//! printed; data is removed after, also on Ctrl-C.

mod drive;
mod engines;
mod environment;
#[path = "../../../tools/src/failure.rs"]
#[allow(dead_code, unreachable_pub, reason = "it serves the load generator too")]
mod failure;
mod measure;
mod native;
mod ops;
mod plots;
mod report;
mod row;
mod shared;
mod trial;
mod works;

use clap::Parser;
use engines::{Kind, Result};
use environment::Environment;
use measure::{INTERRUPTED, Times};
use report::{Report, plot_name};
use shared::place::RunFolder;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use trial::{Bench, Scale};

/// Quipu beside RocksDB, fjall, redb and LMDB: the same work, in turns, in one run.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Small sizes and short times: all rows in about ten minutes.
    #[arg(long)]
    quick: bool,
    /// Only these rows, by number; see README.md for what they are.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    rows: Vec<u32>,
    /// Only these engines.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    engines: Vec<Kind>,
    /// Seconds that each trial is measured (5; with --quick 2).
    #[arg(long)]
    seconds: Option<f64>,
    /// How often engines take turns (3; with --quick 1).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// The folder for the data, on the disk to be measured; each run makes a folder of its own there and removes it.
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
    /// The folder for report.md, report.json and the plots (default: `peers` beside the build).
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Opens an engine of row 16 and says what that took.
    #[arg(long, hide = true, num_args = 2, value_names = ["FOLDER", "DIRECTORY"])]
    probe: Option<Vec<PathBuf>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some([folder, directory]) = arguments.probe.as_deref() {
        return end(works::directories::probe(folder, &directory.to_string_lossy()));
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => end(Err(error)),
    }
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quipu-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is asked for; whether all of it went well.
fn run(arguments: &Arguments) -> Result<bool> {
    let known = works::numbers();
    let rows: BTreeSet<u32> = match arguments.rows.is_empty() {
        true => known.clone(),
        false => arguments.rows.iter().copied().collect(),
    };
    if let Some(unknown) = rows.difference(&known).next() {
        return Err(format!("there is no row {unknown}; they are 1 to {}", known.len()).into());
    }
    let mut engines: Vec<Kind> = match arguments.engines.is_empty() {
        true => Kind::ALL.to_vec(),
        false => arguments.engines.clone(),
    };
    engines.sort_unstable();
    engines.dedup();
    if let Some(missing) = engines.iter().find(|kind| !Kind::ALL.contains(kind)) {
        return Err(format!("this program was built without {missing}").into());
    }
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 2.0 } else { 5.0 });
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("--seconds must be 0.1 to 3600".into());
    }
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 });
    let out = arguments.out.clone().map_or_else(default_out, Ok)?;
    fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;

    interruptible()?;
    let folder =
        RunFolder::create(arguments.path.as_deref(), false).map_err(|failure| failure.to_string())?;
    if !engines::floor::can_be_direct(folder.path()) {
        return Err("the data folder takes no O_DIRECT: name one on a disk with --path".into());
    }
    let measured = Duration::from_secs_f64(seconds);
    let bench = Bench {
        folder: folder.path().to_path_buf(),
        scale: Scale {
            quick: arguments.quick,
            times: Times { warmup: (measured / 5).min(Duration::from_secs(1)), measured },
            rounds,
        },
        engines: engines.clone(),
        memtable_bytes: 512 << 20,
    };
    let environment = Environment::here(folder.path(), &engines);
    let mut report = Report::new(environment, arguments.quick, seconds, rounds);
    if cfg!(debug_assertions) {
        eprintln!("quipu-peers: a debug build: its figures mean nothing");
    }
    let mut failed_to_write = None;
    let (measured, failures) = works::run(&bench, &rows, |so_far| {
        report.rows = so_far.to_vec();
        // After each group, so that a long run that is interrupted leaves what it has.
        if let Err(error) = write(&report, &out) {
            failed_to_write = Some(error);
        }
    });
    report.rows = measured;
    report.failures = failures;
    drop(folder);
    if let Some(error) = failed_to_write {
        return Err(error);
    }
    write(&report, &out)?;
    println!("{}", report.markdown());
    eprintln!("report: {}", out.join("report.md").display());
    Ok(report.failures.is_empty() && !measure::interrupted())
}

fn write(report: &Report, out: &Path) -> Result<()> {
    fs::write(out.join("report.md"), report.markdown())?;
    fs::write(out.join("report.json"), serde_json::to_vec_pretty(report)?)?;
    for row in &report.rows {
        let plot = plots::row(row).map_err(|error| format!("the plot of row {}: {error}", row.number))?;
        fs::write(out.join(plot_name(row.number)), plot)?;
    }
    Ok(())
}

/// Beside the build: in cargo's target folder, which it marks.
fn default_out() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(target.map_or_else(|| PathBuf::from("peers-report"), |target| target.join("peers")))
}

/// The first Ctrl-C ends the trial under way and cleans up; the second ends the program at once.
fn interruptible() -> Result<()> {
    let first = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, first.clone())?;
        signal_hook::flag::register(signal, first.clone())?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while !first.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("interrupted: cleaning up");
    })?;
    Ok(())
}
