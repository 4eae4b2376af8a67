//! What lasts from the load to the verification: runs phases, one after the other, on one engine.

use super::choices::Sweep;
use super::dataset::Dataset;
use super::engine_stats::{self, Totals};
use super::generator;
use super::options::BenchOptions;
use super::pace::{Clients, Pace};
use super::progress::{self, Watched};
use super::record::{Collector, Second, Window};
use super::report::{Measured, Offered, PhaseReport, Report};
use super::run::Run;
use super::sweep;
use super::system::{self, Cpu, MachineTime};
use super::workload::Recipe;
use super::{clients_oncore, clients_remote};
use crate::failure::Failure;
use crate::out::say;
use quipu::{Directory, Engine};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Operations in flight for each shard while it is loaded: each is a batch.
const LOAD_IN_FLIGHT: u32 = 16;

/// Longer than any phase: the longest duration that an option takes.
const ENDLESS: Duration = Duration::from_secs(30 * 24 * 3600);

/// A phase, as it is to be run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) clients: Clients,
    pub(crate) recipe: Arc<Recipe>,
    pub(crate) pace: Pace,
    pub(crate) warmup: Duration,
    /// How long it is measured; `None`: until its operations are over.
    pub(crate) length: Option<Duration>,
}

/// How a phase went: its figures, and what failed in it.
pub(crate) struct Outcome {
    pub(crate) report: PhaseReport,
    pub(crate) failure: Option<String>,
}

/// What lasts from the load to the verification.
pub(crate) struct Session {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) interrupted: Arc<AtomicBool>,
    /// Phases begun.
    pub(crate) phase: u32,
}

impl Session {
    /// Whether Ctrl-C was pressed.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Loads, then runs all phases; ends early by Ctrl-C or a failure.
    pub(crate) fn drive(
        &mut self,
        engine: &Engine,
        directories: &Arc<Vec<Vec<Directory>>>,
        report: &mut Report,
    ) {
        let options = report.options.clone();
        if options.load {
            let recipe = Recipe::load(options.load_batch());
            let weights = generator::weights(&self.dataset, recipe.directories);
            let plan = Plan {
                name: "load".to_string(),
                clients: Clients::OnCore,
                pace: Pace::closed(LOAD_IN_FLIGHT, &weights, recipe.directories),
                recipe: Arc::new(recipe),
                warmup: Duration::ZERO,
                length: None,
            };
            report.load = self.take(engine, directories, plan, &options, &mut report.failure);
        }
        let shares = options.phases.len().max(1) as u32;
        for phase in &options.phases {
            let recipe = Arc::new(options.recipe(phase.workload));
            let weights = generator::weights(&self.dataset, recipe.directories);
            let pace = match options.rate {
                Some(rate) => Pace::open(rate, options.arrivals, &weights, options.in_flight_max),
                None => Pace::closed(options.in_flight, &weights, recipe.directories),
            };
            let plan = Plan {
                name: phase.to_string(),
                clients: phase.clients.unwrap_or(options.clients),
                recipe,
                pace,
                warmup: options.warmup / shares,
                length: Some(options.seconds / shares),
            };
            match options.sweep {
                Some(looks_for) => self.sweep(engine, directories, &plan, looks_for, report),
                None => {
                    let taken = self.take(engine, directories, plan, &options, &mut report.failure);
                    report.phases.extend(taken.filter(|phase| !phase.operations.is_empty()));
                }
            }
        }
        if let Ok(stats) = engine.stats().wait() {
            report.stages = engine_stats::stages(&stats, None);
        }
    }

    /// Runs a phase, unless the run is over. A failure is noted, and ends the run.
    fn take(
        &mut self,
        engine: &Engine,
        directories: &Arc<Vec<Vec<Directory>>>,
        plan: Plan,
        options: &BenchOptions,
        failure: &mut Option<String>,
    ) -> Option<PhaseReport> {
        if self.interrupted() || failure.is_some() {
            return None;
        }
        match self.measure(engine, directories, options, plan) {
            Ok(outcome) => {
                *failure = outcome.failure;
                Some(outcome.report)
            }
            Err(error) => {
                *failure = Some(error.to_string());
                None
            }
        }
    }

    /// Runs a sweep: each rate that its search asks for, and the runs at shares of what was found.
    fn sweep(
        &mut self,
        engine: &Engine,
        directories: &Arc<Vec<Vec<Directory>>>,
        plan: &Plan,
        looks_for: Sweep,
        report: &mut Report,
    ) {
        let options = report.options.clone();
        let weights = generator::weights(&self.dataset, plan.recipe.directories);
        let mut failure = report.failure.take();
        let measure = |plan: Plan| self.take(engine, directories, plan, &options, &mut failure);
        let at = |rate: f64| Pace::open(rate, options.arrivals, &weights, options.in_flight_max);
        let swept = sweep::run(plan, looks_for, options.step, at, measure);
        report.failure = failure;
        report.phases.extend(swept.runs.into_iter().filter(|phase| !phase.operations.is_empty()));
        report.sweeps.extend(Some(swept.report).filter(|sweep| !sweep.points.is_empty()));
    }

    /// Runs one phase. What failed in it is returned beside its report.
    fn measure(
        &mut self,
        engine: &Engine,
        directories: &Arc<Vec<Vec<Directory>>>,
        options: &BenchOptions,
        plan: Plan,
    ) -> Result<Outcome, Failure> {
        self.phase += 1;
        let begin = Instant::now();
        let epoch = begin + plan.warmup;
        let deadline = epoch + plan.length.unwrap_or(ENDLESS);
        let window = Window { epoch, deadline, open: plan.pace.offered().is_some() };
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + plan.warmup;
        let run = Arc::new(Run::new(
            self.dataset.clone(),
            directories.clone(),
            (self.phase, plan.recipe.clone()),
            (begin, window),
            self.interrupted.clone(),
        ));
        let mut collector = Collector::new(options.histograms.is_some());
        let puts = plan.recipe.once.then_some(u64::from(options.keys));
        let mut watch = || progress::watch(engine, &run, &plan.name, puts, &mut collector);
        let watched = match plan.clients {
            Clients::OnCore => {
                let clients = clients_oncore::start(engine, &run, &plan.pace);
                let watched = watch();
                for answer in clients {
                    answer.wait().unwrap_or_else(|error| run.fail(error));
                }
                watched
            }
            Clients::Async | Clients::Blocking => {
                let threads = match plan.clients {
                    Clients::Blocking => {
                        let threads = u32::from(options.blocking_threads);
                        clients_remote::start_blocking(engine, &run, &plan.pace, threads)?
                    }
                    _ => {
                        let threads = options.client_threads.unwrap_or(engine.shards());
                        clients_remote::start_async(engine, &run, &plan.pace, threads.into())?
                    }
                };
                let watched = watch();
                let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
                if panicked > 0 {
                    return Err(Failure::run("a thread of clients panicked"));
                }
                watched
            }
        };
        let Watched { before, cpu, machine_time, glances } = watched;
        let cpu = Cpu::now() - cpu;
        let stolen = MachineTime::now().stolen_since(machine_time);
        let seconds = Instant::now().min(deadline).saturating_duration_since(epoch).as_secs_f64();
        collector.finish(&run.outbox);
        let mut failure = run.failure().map(|error| format!("{}: {error}", plan.name));
        let after = match engine.stats().wait() {
            Ok(stats) => Some(stats),
            Err(error) => {
                failure.get_or_insert(error.to_string());
                before.clone()
            }
        };
        let stages = after.as_ref().map_or(Vec::new(), |after| engine_stats::stages(after, before.as_ref()));
        let totals = after.as_ref().map_or(Totals::default(), Totals::from);
        let before = before.as_ref().map_or(totals.clone(), Totals::from);
        if glances.is_empty() {
            // Too short for a line a second: one for all of it.
            let nothing = Second::default();
            let done = collector.seconds.get(&0).unwrap_or(&nothing);
            say(progress::line(&plan.name, seconds, done, seconds, &totals));
        }
        let in_flight = match plan.clients {
            Clients::Blocking => plan.pace.in_flight().map(|_| u32::from(options.blocking_threads)),
            _ => plan.pace.in_flight(),
        };
        let measured = Measured {
            name: plan.name,
            clients: plan.clients.name(),
            recipe: (*plan.recipe).clone(),
            in_flight,
            offered: plan.pace.offered().map(|(rate, arrivals)| Offered { rate, arrivals }),
            warmup_seconds: plan.warmup.as_secs_f64(),
            seconds,
            unstarted: run.unstarted(),
            wrong_reads: run.wrong_reads(),
            cpu,
            stolen,
            memory_bytes: system::memory_now(),
            before,
            after: totals,
            stages,
            glances,
            started_unix: started_unix.as_secs_f64(),
        };
        Ok(Outcome { report: PhaseReport::new(measured, collector), failure })
    }
}
