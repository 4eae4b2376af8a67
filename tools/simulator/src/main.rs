//! The command: runs seeds for a time or a count on all cores, prints rate and coverage, and for a failure one line
//! that repeats it, with the history shrunk to what matters. `planted` tests the tester itself.

use clap::{Parser, Subcommand};
use quipu_simulator::coverage::Coverage;
use quipu_simulator::faults::ROWS;
use quipu_simulator::plan::Plan;
use quipu_simulator::planted;
use quipu_simulator::run::{Failure, run};
use quipu_simulator::shrink::shrink;
use quipu_simulator::whole;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs whole shards from seeds, in virtual time, on a disk that breaks everything; and looks whether they lose
/// anything.
#[derive(Parser, Clone, Debug)]
#[command(name = "simulator", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// For so many seconds (10, where no count of seeds is given).
    #[arg(long)]
    seconds: Option<u64>,
    /// So many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed. Without it, one from the clock. Alone: only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Until so many seconds of the cores' time are used up.
    #[arg(long)]
    core_seconds: Option<u64>,
    /// How many threads; each runs one seed at a time.
    #[arg(long)]
    threads: Option<usize>,
    /// How long a failure may be shrunk, in seconds.
    #[arg(long, default_value_t = 20)]
    shrink_seconds: u64,
    /// Go on after a failure until there are so many.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Print no coverage.
    #[arg(long)]
    quiet: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Plants known bugs in a copy of the source, one after another, and looks whether each is found. Needs the
    /// repository that this was built from, git and cargo.
    Planted {
        /// Only bugs whose names contain this; may be given several times.
        #[arg(long)]
        bug: Vec<String>,
        /// For how many minutes of a core's time each is looked for.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Where the copy and its build lie. Without it, under the target folder.
        #[arg(long)]
        scratch: Option<PathBuf>,
    },
    /// Goes through small fixed histories: crashes at every moment with every choice of what persists, and every call to
    /// the disk failing in every way.
    Exhaustive(whole::Options),
}

/// The commit of the source.
const COMMIT: &str = env!("SIMULATOR_COMMIT");

fn main() -> ExitCode {
    let options = Options::parse();
    match &options.command {
        None => {}
        Some(Command::Exhaustive(options)) => return whole::main(options),
        Some(Command::Planted { bug, minutes, scratch }) => {
            return match planted::plant(bug, *minutes, scratch.as_deref()) {
                Ok(0) => ExitCode::SUCCESS,
                Ok(_) => ExitCode::FAILURE,
                Err(trouble) => {
                    eprintln!("{trouble}");
                    ExitCode::FAILURE
                }
            };
        }
    }
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = options.seed.unwrap_or_else(|| fresh.map_or(0, |since| since.as_secs() << 24));
    let seconds_asked = options.seconds.or(options.core_seconds);
    let seeds = match (options.seeds, seconds_asked, options.seed) {
        (None, None, Some(_)) => 1,
        (seeds, ..) => seeds.unwrap_or(u64::MAX),
    };
    let seconds = options.seconds.or((seeds == u64::MAX && seconds_asked.is_none()).then_some(10));
    let began = Instant::now();
    let until = seconds.map(|seconds| began + Duration::from_secs(seconds));
    let in_time = || {
        let used_up = |most: u64| cpu_seconds().is_some_and(|used| used >= most as f64);
        until.is_none_or(|until| Instant::now() < until) && !options.core_seconds.is_some_and(used_up)
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = options.threads.unwrap_or(cores).clamp(1, seeds.min(1024) as usize);

    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let coverage = Mutex::new(Coverage::default());
    let failures: Mutex<Vec<(Plan, Failure)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Coverage::default();
                while !stop.load(Ordering::Relaxed) && in_time() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        break;
                    }
                    let plan = Plan::new(first.wrapping_add(number));
                    match run(&plan) {
                        Ok(coverage) => mine.merge(&coverage),
                        Err(failure) => {
                            let mut failures =
                                failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                            failures.push((plan, failure));
                            if failures.len() >= options.failures {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                coverage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).merge(&mine);
            });
        }
    });
    let took = began.elapsed();
    let coverage = coverage.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let failures = failures.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let done = done.into_inner();
    if !options.quiet {
        report(&coverage);
    }
    let cycles = coverage.count("cycles");
    let missed = missed(&coverage, done);
    let core_seconds = cpu_seconds().unwrap_or(took.as_secs_f64() * threads as f64);
    println!(
        "{done} seeds from {first}, source {COMMIT}: {cycles} crash-and-recover cycles in {:.1} s on {threads} threads, \
         {:.0} a core-second, with {:.0} commits",
        took.as_secs_f64(),
        cycles as f64 / core_seconds,
        coverage.count("commits") as f64 / core_seconds,
    );
    for (plan, failure) in &failures {
        tell(plan, failure, Duration::from_secs(options.shrink_seconds));
    }
    for (name, count) in &missed {
        println!(
            "HIT TOO SELDOM: {name}, {count} times in {done} seeds; {HITS_MIN} in {HITS_SEEDS} are wanted"
        );
    }
    if failures.is_empty() && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// So often each fault must have taken effect …
const HITS_MIN: u64 = 100;
/// … in so many seeds. Fewer are not judged: a row with the least promised may be missed by chance.
const HITS_SEEDS: u64 = 10_000;

/// The faults that were hit too seldom, where enough seeds ran to say so.
fn missed(coverage: &Coverage, seeds: u64) -> Vec<(&'static str, u64)> {
    let wanted = HITS_MIN * seeds / HITS_SEEDS;
    let rows = ROWS.iter().flat_map(|(_, rows)| rows.iter().copied());
    let counts = rows.map(|row| (row, coverage.count(row)));
    counts.filter(|(_, count)| seeds >= HITS_SEEDS && *count < wanted).collect()
}

/// What this process has used of its cores. Others may have had their share of them.
fn cpu_seconds() -> Option<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn report(coverage: &Coverage) {
    let rows: Vec<&str> = ROWS.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
    println!("what runs did:");
    for (name, count) in coverage.iter().filter(|(name, _)| !rows.contains(name)) {
        println!("{count:>12}  {name}");
    }
    println!("faults that took effect:");
    for row in rows {
        println!("{:>12}  {row}", coverage.count(row));
    }
}

fn tell(plan: &Plan, failure: &Failure, budget: Duration) {
    let seed = plan.seed;
    println!();
    println!("FAILED: seed {seed}, source {COMMIT}: {} ({})", first_line(&failure.message), failure.place);
    println!("repeat: git checkout {COMMIT} && cargo run --release -p quipu-simulator -- --seed {seed}");
    if let Err(again) = run(plan)
        && again.place == failure.place
    {
        let (small, failure, tried) = shrink(plan, failure, budget);
        println!(
            "shrunk from {} to {} actions ({tried} plans tried):",
            plan.actions.len(),
            small.actions.len()
        );
        println!("  options {:?}", small.options());
        println!("  open {:?}", small.open);
        for action in &small.actions {
            println!("  {}", cut(&action.to_string(), 300));
        }
        println!("  {} ({})", cut(&failure.message, 1500), failure.place);
    } else {
        println!("  it does not fail so again: something in the run is not decided by the seed");
    }
}

fn first_line(text: &str) -> String {
    cut(text.lines().next().unwrap_or_default(), 200)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.into()
    } else {
        text.chars().take(most).chain(" …".chars()).collect()
    }
}
