//! The command `simulator exhaustive`: all crashes and all failing calls of the fixed histories, and how many there were.

use crate::calls;
use crate::exhaustive;
use crate::histories::{TinyHistory, histories};
use crate::run::Failure;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// What to go through.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Only histories with this in their name.
    #[arg(long)]
    history: Option<String>,
    /// How many threads; each goes through one history at a time.
    #[arg(long)]
    threads: Option<usize>,
    /// No crashes.
    #[arg(long)]
    no_crashes: bool,
    /// No failing calls.
    #[arg(long)]
    no_calls: bool,
}

/// Does something with each history, on several threads; answers in the histories' order. After a failure none is begun.
pub fn for_each<T: Send>(
    histories: &[TinyHistory],
    threads: usize,
    work: impl Fn(&TinyHistory) -> Result<T, Failure> + Sync,
) -> Vec<Result<T, Failure>> {
    let next = Mutex::new(0..histories.len());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, histories.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                    let Some(at) = at else { break };
                    let result = work(&histories[at]);
                    if result.is_err() {
                        *next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = 0..0;
                    }
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Runs the command.
pub fn main(options: &Options) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = options.threads.unwrap_or(cores);
    let mut chosen = histories();
    chosen.retain(|history| options.history.as_ref().is_none_or(|part| history.name.contains(part)));
    let began = Instant::now();
    let mut failures = Vec::new();
    if !options.no_crashes {
        let mut sum = exhaustive::Counts::default();
        for result in for_each(&chosen, threads, |history| {
            let report = exhaustive::explore(history, exhaustive::Limits::WHOLE)?;
            println!("crashes of {}: {}", history.name, report.counts);
            Ok(report)
        }) {
            match result {
                Ok(report) => sum.merge(&report.counts),
                Err(failure) => failures.push(failure),
            }
        }
        println!("crashes: {sum}, {:.0} s", began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    if !options.no_calls {
        let mut sum = calls::Counts::default();
        for result in for_each(&chosen, threads, |history| {
            let counts = calls::fail_each(history, calls::Limits::WHOLE)?;
            println!("calls of {}: {counts}", history.name);
            Ok(counts)
        }) {
            match result {
                Ok(counts) => sum.merge(&counts),
                Err(failure) => failures.push(failure),
            }
        }
        println!("calls: {sum}, {:.0} s", began.elapsed().as_secs_f64());
    }
    for failure in &failures {
        println!("FAILED: {} ({})", failure.message, failure.place);
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
