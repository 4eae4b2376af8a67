//! Runs trials: engines take turns, round by round, each in a folder of its own that is removed after its turn.
//!
//! 1. Where the work needs data, each engine loads it once, before the first round, and is closed.
//! 2. Each round opens every engine in turn, with its settings for the work, and runs every kind of clients.
//! 3. The figure of an engine with some clients is the median of its rounds.

use crate::drive::{self, LOAD_BATCH, Spec};
use crate::engines::quipu::Tuning;
use crate::engines::{Durability, Kind, Purpose, Result, Settings, Setup, Store, View};
use crate::measure::{Measured, Times, interrupted};
use crate::native;
use crate::ops::{Data, Work};
use crate::row::{Figure, Side};
use crate::shared::units;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Keys of a batch of a load of an engine that serves one writer.
const LOAD_BATCH_ONE_WRITER: u32 = 10_000;

/// How much is measured, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// Sizes for ten minutes in all.
    pub(crate) quick: bool,
    /// What each trial measures.
    pub(crate) times: Times,
    /// How often engines take turns.
    pub(crate) rounds: u32,
}

impl Scale {
    /// One of two sizes.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Times as many seconds as usual.
    pub(crate) fn longer(&self, factor: u32) -> Times {
        Times { warmup: self.times.warmup, measured: self.times.measured * factor }
    }
}

/// What lasts through the whole run.
pub(crate) struct Bench {
    /// The run's folder.
    pub(crate) folder: PathBuf,
    pub(crate) scale: Scale,
    /// The engines that take part.
    pub(crate) engines: Vec<Kind>,
    /// Budget of every engine's memtables.
    pub(crate) memtable_bytes: u64,
}

impl Bench {
    /// The peers that take part.
    pub(crate) fn peers(&self) -> impl Iterator<Item = Kind> + '_ {
        self.engines.iter().copied().filter(|&kind| kind != Kind::Quipu)
    }

    /// Whether an engine takes part.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.engines.contains(&kind)
    }

    /// A folder of this name for one engine, gone when dropped.
    pub(crate) fn place(&self, name: &str) -> Place {
        Place(self.folder.join(name))
    }

    /// How an engine is opened, where nothing is special.
    pub(crate) fn setup(&self, path: &Path, cache_bytes: u64, durability: Durability) -> Setup {
        Setup {
            path: path.to_path_buf(),
            cache_bytes,
            memtable_bytes: self.memtable_bytes,
            durability,
            purpose: Purpose::Mixed,
            one_inserts: false,
            quipu: Tuning::default(),
        }
    }
}

/// A folder that is removed when it is dropped.
pub(crate) struct Place(PathBuf);

impl Place {
    /// The folder; it need not be there yet.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where it never was, there is nothing to remove; what stays goes with the run's folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Who drives an engine, and how many at a time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Clients {
    /// Plain threads, each with one operation at a time.
    Threads(u32, View),
    /// Tasks on the cores of Quipu: so many on each shard.
    OnCore(u32),
    /// One task on each core of Quipu that keeps so many commits in flight.
    Pipelined(u32),
    /// One task on each core of Quipu that serves so many clients.
    Served(u32),
    /// Plain threads, each of which reads so many keys in a call.
    ThreadsTogether(u32, u32),
    /// One task on each core of Quipu that reads so many keys in a call.
    OnCoreTogether(u32),
    /// So many tasks on one core of Quipu, that of this shard.
    OnOneCore(u32, u32),
    /// Async tasks, so many in all, on so many other threads.
    Async(u32, u32),
}

impl Clients {
    /// Plain threads whose reads see the newest commit.
    pub(crate) fn threads(threads: u32) -> Clients {
        Clients::Threads(threads, View::Newest)
    }

    /// Whether they can do this work.
    pub(crate) fn can_do(&self, work: Work) -> bool {
        match self {
            Clients::ThreadsTogether(..) | Clients::OnCoreTogether(_) => work == Work::Get,
            Clients::Pipelined(_) => work == Work::Put,
            Clients::Served(_) => work == Work::YcsbA,
            _ => true,
        }
    }

    /// Runs them for some time.
    pub(crate) fn run(&self, store: &dyn Store, data: &Data, work: Work, times: Times) -> Result<Measured> {
        self.run_each(store, data, work, None, times)
    }

    /// Runs them until each has done so many operations, or the time is over.
    pub(crate) fn run_each(
        &self,
        store: &dyn Store,
        data: &Data,
        work: Work,
        each: Option<u64>,
        times: Times,
    ) -> Result<Measured> {
        let spec = |view| Spec { data: *data, work, view, each };
        let quipu = || store.quipu().ok_or("only Quipu has such clients");
        match self {
            Clients::Threads(threads, view) => drive::closed(store, &spec(*view), *threads, times),
            Clients::OnCore(each) => native::on_core(quipu()?, &spec(View::Newest), *each, None, times),
            Clients::Pipelined(each) => {
                native::on_core_pipelined(quipu()?, &spec(View::Newest), *each, times)
            }
            Clients::Served(clients) => {
                native::on_core_served(quipu()?, &spec(View::Newest), *clients, times)
            }
            Clients::ThreadsTogether(threads, together) => {
                drive::closed_together(store, &spec(View::Newest), *threads, *together, times)
            }
            Clients::OnCoreTogether(together) => {
                native::on_core_together(quipu()?, &spec(View::Newest), *together, times)
            }
            Clients::OnOneCore(each, shard) => {
                native::on_core(quipu()?, &spec(View::Newest), *each, Some(*shard), times)
            }
            Clients::Async(in_flight, threads) => {
                native::async_tasks(quipu()?, &spec(View::Newest), *in_flight, *threads, times)
            }
        }
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clients::Threads(1, View::Newest) => f.write_str("1 thread"),
            Clients::Threads(threads, View::Newest) => write!(f, "{threads} threads"),
            Clients::Threads(threads, View::Held) => {
                write!(f, "{threads} threads, one read transaction each")
            }
            Clients::OnCore(each) => write!(f, "on-core, {each} in flight on each shard"),
            Clients::Pipelined(each) => write!(f, "on-core, {each} in flight from one task on each shard"),
            Clients::Served(clients) => {
                write!(f, "on-core, {clients} clients served by one task on each shard")
            }
            Clients::ThreadsTogether(threads, together) => {
                write!(f, "{threads} threads, {together} keys a call")
            }
            Clients::OnCoreTogether(together) => {
                write!(f, "on-core, one task on each shard, {together} keys a call")
            }
            Clients::OnOneCore(each, shard) => write!(f, "on-core, {each} in flight on shard {shard}"),
            Clients::Async(in_flight, threads) => {
                write!(
                    f,
                    "{in_flight} async tasks on {threads} other thread{}",
                    if *threads == 1 { "" } else { "s" }
                )
            }
        }
    }
}

/// The variant of a peer that is set up in a way that its documentation does not recommend, and faster for it.
pub(crate) const ONE_INSERTS: &str = "one inserts";

/// One engine, set up in one way, with every kind of clients that is tried on it.
#[derive(Clone, Debug)]
pub(crate) struct Entrant {
    pub(crate) kind: Kind,
    /// What sets it apart from other entrants of the same engine; often nothing.
    pub(crate) variant: &'static str,
    pub(crate) durability: Durability,
    pub(crate) purpose: Purpose,
    /// See [`Setup::one_inserts`].
    pub(crate) one_inserts: bool,
    pub(crate) clients: Vec<Clients>,
}

impl Entrant {
    /// An engine as usual.
    pub(crate) fn new(kind: Kind, durability: Durability, clients: Vec<Clients>) -> Entrant {
        Entrant { kind, variant: "", durability, purpose: Purpose::Mixed, one_inserts: false, clients }
    }

    /// The engine as usual, and where there is such a choice, set up so that one of many threads inserts for all.
    pub(crate) fn of_threads(self) -> Vec<Entrant> {
        let one = self.kind.has_choice_of_inserts().then(|| Entrant {
            variant: if self.variant.is_empty() { ONE_INSERTS } else { "for writes, one inserts" },
            one_inserts: true,
            ..self.clone()
        });
        std::iter::once(self).chain(one).collect()
    }

    /// Its name in the report.
    pub(crate) fn name(&self) -> String {
        match self.variant {
            "" => self.kind.to_string(),
            variant => format!("{}, {variant}", self.kind),
        }
    }

    /// Whose it is.
    pub(crate) fn side(&self) -> Side {
        if self.kind == Kind::Quipu { Side::Ours } else { Side::Peer }
    }
}

/// What is there before the clients come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Before {
    /// Nothing.
    Empty,
    /// Every key once.
    Loaded,
    /// Every key once, and each was read since opening.
    Touched,
}

/// A comparison: the same works, by every entrant, in turns.
pub(crate) struct Comparison<'a> {
    pub(crate) data: Data,
    pub(crate) cache_bytes: u64,
    pub(crate) works: &'a [Work],
    pub(crate) before: Before,
    pub(crate) entrants: &'a [Entrant],
    pub(crate) times: Times,
    pub(crate) rounds: u32,
}

/// What came of it: for each work its figures, and how each entrant was set up.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Vec<Figure>>,
    pub(crate) settings: Vec<(String, Settings)>,
}

/// Runs a comparison. Rates are of keys, so that a batch of 100 counts as 100.
pub(crate) fn compare(bench: &Bench, comparison: &Comparison<'_>) -> Result<Outcome> {
    let Comparison { data, cache_bytes, works, before, entrants, times, rounds } = comparison;
    let places: Vec<Place> =
        (0..entrants.len()).map(|number| bench.place(&format!("engine-{number}"))).collect();
    let setup_of = |entrant: &Entrant, place: &Place| Setup {
        purpose: entrant.purpose,
        one_inserts: entrant.one_inserts,
        ..bench.setup(place.path(), *cache_bytes, entrant.durability)
    };
    if *before != Before::Empty {
        for (entrant, place) in entrants.iter().zip(&places) {
            let setup = Setup { durability: Durability::Unsynced, ..setup_of(entrant, place) };
            let took = load(entrant.kind, &setup, data)?;
            say(&format!(
                "  {:<28} loaded {} keys in {took:.1?}",
                entrant.name(),
                units::thousands(data.keys.into())
            ));
        }
    }
    let mut measured: Vec<Vec<Vec<Vec<Measured>>>> = works
        .iter()
        .map(|_| entrants.iter().map(|entrant| vec![Vec::new(); entrant.clients.len()]).collect())
        .collect();
    let mut outcome = Outcome::default();
    for round in 0..*rounds {
        for (number, (entrant, place)) in entrants.iter().zip(&places).enumerate() {
            if *before == Before::Empty {
                let _ = std::fs::remove_dir_all(place.path());
            }
            let store = entrant.kind.open(&setup_of(entrant, place))?;
            if round == 0 {
                outcome.settings.push((entrant.name(), store.settings()));
            }
            if *before == Before::Touched {
                touch(&*store, data)?;
            }
            for (work, measured) in works.iter().zip(&mut measured) {
                let each = entrant.clients.iter().zip(&mut measured[number]);
                for (clients, measured) in each.filter(|(clients, _)| clients.can_do(*work)) {
                    let got = calm(bench, || clients.run(&*store, data, *work, *times))?;
                    say(&format!(
                        "  {:<28} {:<44} {:>12}  p50 {:>8}  p99.9 {:>8}  stolen {:>2.0} %",
                        entrant.name(),
                        clients.to_string(),
                        units::rate(got.rate * scale(*work)),
                        units::latency(got.p50),
                        units::latency(got.p999),
                        got.stolen * 100.0,
                    ));
                    measured.push(got);
                }
            }
            store.close()?;
            if *before == Before::Empty {
                let _ = std::fs::remove_dir_all(place.path());
            }
        }
    }
    for (work, measured) in works.iter().zip(measured) {
        let figures = entrants.iter().zip(measured).flat_map(|(entrant, measured)| {
            entrant.clients.iter().zip(measured).filter_map(|(clients, rounds)| {
                Figure::rates(entrant.side(), entrant.name(), clients.to_string(), rounds, scale(*work))
            })
        });
        outcome.figures.push(figures.collect());
    }
    Ok(outcome)
}

/// A trial in which more than this share of the processor time was stolen is made again …
const STOLEN_MOST: f64 = 0.05;
/// … so often in all; the one with the least counts, whatever its rate.
const TRIALS: u32 = 3;

/// Makes a trial, and makes it again where much was stolen; in quick runs once.
pub(crate) fn calm(bench: &Bench, trial: impl FnMut() -> Result<Measured>) -> Result<Measured> {
    calm_by(bench, |measured| measured.stolen, trial)
}

/// As [`calm`], for a trial that comes with more than what was measured.
pub(crate) fn calm_by<T>(
    bench: &Bench,
    stolen: impl Fn(&T) -> f64,
    trial: impl FnMut() -> Result<T>,
) -> Result<T> {
    calm_below(bench, STOLEN_MOST, stolen, trial)
}

/// As [`calm_by`], where no more than another share may be stolen.
pub(crate) fn calm_below<T>(
    bench: &Bench,
    most: f64,
    stolen: impl Fn(&T) -> f64,
    mut trial: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut trial = || {
        // What was written before and is still in the system's memory goes to the disk first, not meanwhile.
        nix::unistd::sync();
        trial()
    };
    let mut best = trial()?;
    for _ in 1..bench.scale.pick(TRIALS, 1) {
        if stolen(&best) <= most || interrupted() {
            break;
        }
        let again = trial()?;
        if stolen(&again) < stolen(&best) {
            best = again;
        }
    }
    Ok(best)
}

/// What an operation counts: the keys of a batch, else one.
fn scale(work: Work) -> f64 {
    match work {
        Work::Batch(keys) => f64::from(keys),
        _ => 1.0,
    }
}

/// Loads data into an engine that is set up like this, brings its background work to an end, and closes it.
pub(crate) fn load(kind: Kind, setup: &Setup, data: &Data) -> Result<Duration> {
    let store = kind.open(setup)?;
    let began = Instant::now();
    fill(kind, &*store, data)?;
    store.settle()?;
    let took = began.elapsed();
    store.close()?;
    Ok(took)
}

/// Loads data into an open engine, in the way that suits it.
pub(crate) fn fill(kind: Kind, store: &dyn Store, data: &Data) -> Result<Duration> {
    match store.quipu() {
        Some(quipu) => native::load(quipu, data, LOAD_BATCH),
        None if kind.one_writer() => drive::load(store, data, LOAD_BATCH_ONE_WRITER, 1),
        None => drive::load(store, data, LOAD_BATCH, 2),
    }
}

fn touch(store: &dyn Store, data: &Data) -> Result<()> {
    match store.quipu() {
        Some(quipu) => native::touch(quipu, data),
        None => drive::touch(store, data),
    }
}

/// Says what goes on, on standard error, at once.
pub(crate) fn say(what: &str) {
    if !interrupted() {
        eprintln!("{what}");
    }
}
