//! The `quipu` command: a load generator that runs the engine, and tools that look into a folder of one.
//!
//! - `quipu` or `quipu bench`: opens an engine on the real disk, drives it for about twenty seconds, closes and
//!   reopens it, verifies what was acknowledged, and reports ([`bench`]).
//! - `quipu bench compare A.json B.json`: two reports as ratios ([`bench::compare`]).
//! - `quipu inspect PATH`: what an engine's folder holds ([`inspect`]).
//! - `quipu verify PATH`: reads everything that an engine holds, so that damage is found ([`inspect`]).
//!
//! Exit codes: 0 for success (a run ended by Ctrl-C included); 1 where the engine failed under way or what it
//! holds is not what was acknowledged; 2 for bad input, with a message that names it.

mod bench;
mod failure;
mod inspect;
mod out;
mod units;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Drives and inspects the Quipu storage engine. Without a command: `bench` with its defaults.
#[derive(Parser)]
#[command(name = "quipu", version, args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = bench::options::WORKLOADS_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: bench::options::BenchOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Measures an engine on the real disk, then reopens it and verifies what was acknowledged
    #[command(args_override_self = true, args_conflicts_with_subcommands = true)]
    #[command(after_help = bench::options::WORKLOADS_HELP)]
    Bench(Box<Bench>),
    /// Prints what an engine's folder holds: shards, commits, segments per level, directories
    Inspect {
        /// The engine's folder
        path: PathBuf,
        /// List root directories after this one
        #[arg(long, value_name = "ROOT")]
        after: Option<String>,
        /// How many root directories to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=4096))]
        limit: u16,
    },
    /// Checks every file of an engine and reads every directory; exit code 1 where something is damaged
    Verify {
        /// The engine's folder
        path: PathBuf,
    },
}

#[derive(Args)]
struct Bench {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    options: bench::options::BenchOptions,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Lays two JSON reports side by side, as ratios
    Compare {
        /// The report to compare with
        before: PathBuf,
        /// The report that is compared
        after: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => bench::run(cli.bench),
        Some(Command::Bench(bench)) => match bench.command {
            None => bench::run(bench.options),
            Some(BenchCommand::Compare { before, after }) => bench::compare::compare(&before, &after),
        },
        Some(Command::Inspect { path, after, limit }) => {
            inspect::inspect(&path, after.as_deref(), limit.into())
        }
        Some(Command::Verify { path }) => inspect::verify(&path),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quipu: {failure}");
            failure.exit_code()
        }
    }
}
