//! What can be chosen for a run, as the command line has it, and how that becomes the engine's options.

use super::choices::{
    DurabilityChoice, Io, KeyOrder, Phase, RetentionChoice, Sweep, as_seconds, as_seconds_if, as_text,
    parse_directories, parse_percent, parse_rate, parse_value_bytes,
};
use super::draw::{DirectoryDistribution, KeyDistribution};
use super::key::{KEY_BYTES_MAX, KEY_BYTES_MIN, ValueBytes};
use super::pace::Clients;
use super::schedule::Arrivals;
use super::workload::{Changes, Recipe, Workload};
use crate::failure::Failure;
use crate::units::{parse_bytes, parse_count, parse_duration, parse_duration_positive};
use clap::Args;
use quipu::limits;
use quipu::{IoChoice, Retention};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` says after the options.
pub(crate) const WORKLOADS_HELP: &str = "\
Workloads:
  commits       durable commits of one put each
  ingest        bulk load: batches of 100 puts, one directory after the other
  reads         point reads of keys that are there
  reads-absent  point reads of keys that are not there
  scans         scans of 100 entries from a key on
  mix           40 % commits, 50 % point reads, 10 % scans of 20
  ycsb-a        50 % reads, 50 % updates, zipfian
  ycsb-b        95 % reads, 5 % updates, zipfian
  ycsb-c        reads, zipfian
  ycsb-d        95 % reads of the latest, 5 % inserts
  ycsb-e        95 % scans of 1 to 100 from a zipfian key on, 5 % inserts
  ycsb-f        50 % reads, 50 % read-modify-writes, zipfian
  tenants       many small directories: 20 % inserts, 80 % reads of a directory's newest 20 by prefix
  as-of         point reads as of a random retained commit

Each may end in -on-core, -async or -blocking: where its clients run. All but commits, ingest and mix put every key
before the first phase (the load phase). docs/benchmarking.md says how to measure and what each figure means.";

/// Options of `quipu bench`. What is left out of the engine's options takes the engine's defaults.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchOptions {
    /// Workloads to run, in this order; see the list below
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "commits,commits-async,mix")]
    #[arg(help_heading = "What to run")]
    pub(crate) phases: Vec<Phase>,
    /// Time measured, shared equally by the phases
    #[arg(long, value_name = "TIME", default_value = "15", value_parser = parse_duration_positive)]
    #[arg(help_heading = "What to run")]
    #[serde(serialize_with = "as_seconds")]
    pub(crate) seconds: Duration,
    /// Time of the warm-up, which does not count, shared equally by the phases: each begins with its own
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = parse_duration)]
    #[arg(help_heading = "What to run")]
    #[serde(serialize_with = "as_seconds")]
    pub(crate) warmup: Duration,
    /// Seed of the operations, their arrivals, keys and values
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "What to run")]
    pub(crate) seed: u64,

    /// Where clients run, in phases whose names do not say
    #[arg(long, value_enum, default_value = "on-core", help_heading = "Clients")]
    pub(crate) clients: Clients,
    /// Closed loop: operations in flight for each shard
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(help_heading = "Clients")]
    pub(crate) in_flight: u32,
    /// Threads of async clients [default: one a shard]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    #[arg(help_heading = "Clients")]
    pub(crate) client_threads: Option<u16>,
    /// Threads of blocking clients, one operation in flight each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    #[arg(help_heading = "Clients")]
    pub(crate) blocking_threads: u16,
    /// Open loop: operations a second in all, as in 50000, 50k or 1.5M
    #[arg(long, value_name = "N", value_parser = parse_rate, conflicts_with = "sweep", help_heading = "Clients")]
    pub(crate) rate: Option<f64>,
    /// Open loop: how arrivals are spaced
    #[arg(long, value_enum, default_value = "poisson", help_heading = "Clients")]
    pub(crate) arrivals: Arrivals,
    /// Open loop: the most operations in flight for each shard; beyond that arrivals wait, which counts
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(help_heading = "Clients")]
    pub(crate) in_flight_max: u32,
    /// Open loop at rates that are searched: highest (then runs at 50, 80 and 95 % of it), or p99:TIME for the
    /// highest rate whose p99 stays under a bound
    #[arg(long, value_name = "WHAT", help_heading = "Clients")]
    pub(crate) sweep: Option<Sweep>,
    /// Time measured of each rate that a sweep tries
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_duration_positive)]
    #[arg(help_heading = "Clients")]
    #[serde(serialize_with = "as_seconds")]
    pub(crate) step: Duration,

    /// Keys that there are from the beginning (20 bytes of memory each, for what was acknowledged)
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    #[arg(help_heading = "Data")]
    pub(crate) keys: u32,
    /// Keys that may be inserted on top [default: as many, and at least 16 million]; then inserts update
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) insert_room: Option<u32>,
    /// Directories, each a root of its own
    #[arg(long, value_name = "N", default_value = "10k", value_parser = parse_directories)]
    #[arg(help_heading = "Data")]
    pub(crate) directories: u32,
    /// Bytes of a key
    #[arg(long, value_name = "BYTES", default_value_t = 24, help_heading = "Data")]
    #[arg(value_parser = clap::value_parser!(u8).range(KEY_BYTES_MIN as i64..=KEY_BYTES_MAX as i64))]
    pub(crate) key_bytes: u8,
    /// Bytes of a value, or the least and the most as in 64-1024
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_value_bytes, help_heading = "Data")]
    pub(crate) value_bytes: ValueBytes,
    /// Order of keys [default: hashed; ordered where a workload needs it]
    #[arg(long, value_enum, help_heading = "Data")]
    pub(crate) key_order: Option<KeyOrder>,
    /// Put every key before the first phase, even if no workload needs it
    #[arg(long, help_heading = "Data")]
    pub(crate) load: bool,

    /// How keys are chosen: uniform, zipfian[:EXPONENT], latest[:EXPONENT] or sequential [default: as the workload has it]
    #[arg(long, value_name = "HOW", help_heading = "Operations")]
    pub(crate) key_distribution: Option<KeyDistribution>,
    /// How directories are chosen: uniform, zipfian[:EXPONENT] or hot-shard[:SHARE] [default: uniform]
    #[arg(long, value_name = "HOW", help_heading = "Operations")]
    pub(crate) directory_distribution: Option<DirectoryDistribution>,
    /// Percentage of writes, the rest being reads [default: as the workload has it]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, help_heading = "Operations")]
    pub(crate) writes: Option<f64>,
    /// Puts in a commit [default: 1; 100 in ingest and load]
    #[arg(long, value_name = "N", help_heading = "Operations")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_OPERATIONS_MAX as i64))]
    pub(crate) batch: Option<u32>,
    /// Entries of a scan [default: as the workload has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(help_heading = "Operations")]
    pub(crate) scan_entries: Option<u32>,

    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    #[serde(serialize_with = "as_text")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report with plots, as one page that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    #[serde(serialize_with = "as_text")]
    pub(crate) html: Option<PathBuf>,
    /// Write HdrHistogram files (.hgrm by phase and operation, .hlog by phase) into a folder
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    #[serde(serialize_with = "as_text")]
    pub(crate) histograms: Option<PathBuf>,
    /// Sample where the threads spend their time, and draw it as a flame graph (SVG); by perf, where it can be used
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    #[serde(serialize_with = "as_text")]
    pub(crate) flamegraph: Option<PathBuf>,
    /// Folder for the data [default: quipu-data beside the build]. Each run makes a folder of its own in it
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    #[serde(serialize_with = "as_text")]
    pub(crate) path: Option<PathBuf>,
    /// Leave the data there at the end
    #[arg(long, help_heading = "Output")]
    pub(crate) keep: bool,

    /// Shards [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    pub(crate) shards: Option<u16>,
    /// Divisor: a window of level L spans divisor^L commits
    #[arg(long, value_name = "N", help_heading = "Engine")]
    pub(crate) divisor: Option<u32>,
    /// Bytes of commits that a shard gathers before they go to a segment
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Engine")]
    pub(crate) flush_bytes: Option<u64>,
    /// The base is folded when what came since the last fold is at least one part in so many of it
    #[arg(long, value_name = "N", help_heading = "Engine")]
    pub(crate) base_ratio: Option<u32>,
    /// Log writes that a shard has in flight at most
    #[arg(long, value_name = "N", help_heading = "Engine")]
    pub(crate) log_depth: Option<usize>,
    /// For how long shards and threads look for what they wait for before they sleep [default: 200us]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Engine")]
    #[serde(serialize_with = "as_seconds_if")]
    pub(crate) linger: Option<Duration>,
    /// Bytes of all block caches together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Engine")]
    pub(crate) cache_bytes: Option<u64>,
    /// Bytes of all memtables together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Engine")]
    pub(crate) memtable_bytes: Option<u64>,
    /// History that stays: forever, none, level:L, last:N or last:N+level:L [default: none; forever with as-of]
    #[arg(long, value_name = "RETENTION", help_heading = "Engine")]
    pub(crate) retention: Option<RetentionChoice>,
    /// When commits are acknowledged: sync, or buffered:TIME with the bound on what a crash loses
    #[arg(long, value_name = "DURABILITY", default_value = "sync", help_heading = "Engine")]
    pub(crate) durability: DurabilityChoice,
    /// How the engine reaches its files
    #[arg(long, value_enum, default_value = "auto", help_heading = "Engine")]
    pub(crate) io: Io,
}

impl BenchOptions {
    /// Checks what no single option can tell, and settles what depends on the workloads.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`], naming the options that do not go together.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        let any =
            |needs: fn(Workload) -> bool| self.phases.iter().find(|phase| needs(phase.workload)).copied();
        if let Some(phase) = any(Workload::needs_order) {
            if self.key_order == Some(KeyOrder::Hashed) {
                return Err(Failure::input(format!("--key-order: {phase} needs ordered keys")));
            }
            self.key_order = Some(KeyOrder::Ordered);
        }
        self.key_order.get_or_insert(KeyOrder::Hashed);
        if any(Workload::needs_history).is_some() {
            self.retention.get_or_insert(RetentionChoice(Retention::Forever));
        }
        self.load |= any(Workload::needs_data).is_some();
        let room = if self.phases.iter().any(|phase| self.recipe(phase.workload).inserts()) {
            self.insert_room.unwrap_or(self.keys.max(16_000_000))
        } else {
            0
        };
        self.insert_room = Some(room.min(u32::MAX - self.keys));
        let operation = u64::from(self.key_bytes) + u64::from(self.value_bytes.max);
        let operation = operation + limits::OPERATION_BYTES_OVERHEAD as u64;
        let most = limits::BATCH_BYTES_MAX as u64 / operation;
        if self.batch.is_some_and(|batch| u64::from(batch) > most) {
            let why = format!("--batch: at most {most} puts of this size go into a commit");
            return Err(Failure::input(why));
        }
        for phase in &mut self.phases {
            phase.clients.get_or_insert(self.clients);
        }
        Ok(())
    }

    /// The recipe of a workload with what was chosen.
    pub(crate) fn recipe(&self, workload: Workload) -> Recipe {
        let batch = match (self.batch, workload) {
            (None, Workload::Ingest) => Some(self.load_batch()),
            (batch, _) => batch,
        };
        let changes = Changes {
            keys: self.key_distribution,
            directories: self.directory_distribution,
            batch,
            scan_entries: self.scan_entries,
            writes_percent: self.writes,
        };
        Recipe::new(workload, &changes)
    }

    /// Puts in a commit of the load phase: a hundred, or as many as fit.
    pub(crate) fn load_batch(&self) -> u32 {
        let operation = self.value_bytes.max as usize + KEY_BYTES_MAX + limits::OPERATION_BYTES_OVERHEAD;
        (limits::BATCH_BYTES_MAX / operation).clamp(1, 100) as u32
    }

    /// The engine's options that these ask for.
    pub(crate) fn engine(&self) -> quipu::Options {
        let mut options = quipu::Options::new().durability(self.durability.0).io(match self.io {
            Io::Auto => IoChoice::Auto,
            Io::Ring => IoChoice::Require,
            Io::Plain => IoChoice::Plain,
        });
        if let Some(shards) = self.shards {
            options = options.shards(shards);
        }
        if let Some(divisor) = self.divisor {
            options = options.divisor(divisor);
        }
        if let Some(bytes) = self.flush_bytes {
            options = options.flush_bytes(bytes);
        }
        if let Some(ratio) = self.base_ratio {
            options = options.base_ratio(ratio);
        }
        if let Some(depth) = self.log_depth {
            options = options.log_depth(depth);
        }
        if let Some(limit) = self.linger {
            options = options.linger(limit);
        }
        if let Some(bytes) = self.cache_bytes {
            options = options.cache_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = self.memtable_bytes {
            options = options.memtable_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(RetentionChoice(retention)) = self.retention {
            options = options.retention(retention);
        }
        options
    }
}
