//! What can be chosen for a run, as the command line has it, and how that becomes the engine's options.

use crate::units::{parse_bytes, parse_duration, parse_duration_positive};
use clap::{Args, ValueEnum};
use quipu::levels::{Level, Retention};
use quipu::limits;
use quipu::{Durability, IoChoice};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The least value: slot, version and check of the value's header.
const VALUE_BYTES_MIN: u64 = super::dataset::VALUE_HEADER_BYTES as u64;

/// Options of `quipu bench`. What is left out of the engine's options takes the engine's defaults.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchOptions {
    /// Folder for the data [default: quipu-data beside the build]. Each run makes a folder of its own in it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) path: Option<PathBuf>,
    /// Leave the data there at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Time measured, shared equally by the phases
    #[arg(long, value_name = "TIME", default_value = "15", value_parser = parse_duration_positive)]
    #[serde(serialize_with = "as_seconds")]
    pub(crate) seconds: Duration,
    /// Time of the warm-up, which does not count
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub(crate) warmup: Duration,
    /// Phases to run, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["commits", "commits-async", "mix"])]
    pub(crate) phases: Vec<Phase>,

    /// Operations in flight for each shard
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) in_flight: u32,
    /// Threads of the clients of phases off the shards' cores [default: one a shard]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) client_threads: Option<u16>,
    /// Keys written to, over all directories (4 bytes of memory each, for what was acknowledged)
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keys: u32,
    /// Directories, each a root of its own
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) directories: u32,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_value_bytes)]
    pub(crate) value_bytes: u32,
    /// Seed of the operations, keys and values
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    /// Shards of the engine [default: one a core]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// Divisor: a window of level L spans divisor^L commits
    #[arg(long, value_name = "N")]
    pub(crate) divisor: Option<u32>,
    /// Bytes of commits that a shard gathers before they go to a segment
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) flush_bytes: Option<u64>,
    /// Bytes of all block caches together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) cache_bytes: Option<u64>,
    /// Bytes of all memtables together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memtable_bytes: Option<u64>,
    /// History that stays: forever, none, level:L, last:N or last:N+level:L
    #[arg(long, value_name = "RETENTION")]
    pub(crate) retention: Option<RetentionChoice>,
    /// When commits are acknowledged: sync, or buffered:TIME with the bound on what a crash loses
    #[arg(long, value_name = "DURABILITY", default_value = "sync")]
    pub(crate) durability: DurabilityChoice,
    /// How the engine reaches its files
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) io: Io,
}

impl BenchOptions {
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

/// A measured phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Commits by clients on the shards' own cores
    Commits,
    /// Commits by async tasks on other threads
    CommitsAsync,
    /// On-core: 40 % commits, 50 % point reads, 10 % scans of 20 entries
    Mix,
    /// The mix by async tasks on other threads
    MixAsync,
}

/// How the engine reaches its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
pub(crate) enum Io {
    /// io_uring where it is to be had, else plain system calls
    #[serde(rename = "auto")]
    Auto,
    /// io_uring or an error
    #[value(name = "io_uring", alias = "io-uring")]
    #[serde(rename = "io_uring")]
    Ring,
    /// Plain system calls
    #[serde(rename = "plain")]
    Plain,
}

/// [`Durability`] as text: `sync`, `buffered:10ms`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct DurabilityChoice(pub(crate) Durability);

impl FromStr for DurabilityChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "sync" => Ok(DurabilityChoice(Durability::Sync)),
            Some(("buffered", within)) => {
                Ok(DurabilityChoice(Durability::Buffered { within: parse_duration(within)? }))
            }
            _ => Err("use sync or buffered:TIME, as in buffered:10ms".to_string()),
        }
    }
}

impl fmt::Display for DurabilityChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Durability::Sync => f.write_str("sync"),
            Durability::Buffered { within } => write!(f, "buffered:{}ms", within.as_secs_f64() * 1e3),
            _ => f.write_str("other"),
        }
    }
}

/// [`Retention`] as text: `forever`, `none`, `level:8`, `last:1000`, `last:1000+level:8`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct RetentionChoice(pub(crate) Retention);

impl FromStr for RetentionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str, prefix: &str| -> Result<u64, String> {
            let digits = text.strip_prefix(prefix).ok_or_else(|| {
                "use forever, none, level:L, last:N or last:N+level:L, with numbers for L and N".to_string()
            })?;
            digits.parse().map_err(|_| format!("{digits:?} is not a number"))
        };
        let level = |text: &str| -> Result<Level, String> {
            let level = number(text, "level:")?;
            u8::try_from(level).map(Level).map_err(|_| format!("level {level} is above 255"))
        };
        Ok(RetentionChoice(match text {
            "forever" => Retention::Forever,
            "none" => Retention::None,
            text => match text.split_once('+') {
                Some((last, above)) => Retention::LastAndLevel(number(last, "last:")?, level(above)?),
                None if text.starts_with("level:") => Retention::Level(level(text)?),
                None => Retention::Last(number(text, "last:")?),
            },
        }))
    }
}

impl fmt::Display for RetentionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Retention::Forever => f.write_str("forever"),
            Retention::None => f.write_str("none"),
            Retention::Level(level) => write!(f, "level:{level}"),
            Retention::Last(commits) => write!(f, "last:{commits}"),
            Retention::LastAndLevel(commits, level) => write!(f, "last:{commits}+level:{level}"),
        }
    }
}

impl Serialize for DurabilityChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for RetentionChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn parse_value_bytes(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    let max = limits::VALUE_BYTES_MAX as u64;
    match u32::try_from(bytes) {
        Ok(value_bytes) if (VALUE_BYTES_MIN..=max).contains(&bytes) => Ok(value_bytes),
        _ => Err(format!("must be {VALUE_BYTES_MIN} to {max} bytes")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn retention_and_durability_read_back_what_they_write() {
        for text in ["forever", "none", "level:8", "last:1000", "last:1000+level:8"] {
            assert_eq!(text.parse::<RetentionChoice>().unwrap().to_string(), text);
        }
        for text in ["sync", "buffered:10ms", "buffered:0.5ms"] {
            assert_eq!(text.parse::<DurabilityChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn unknown_retention_and_durability_are_refused() {
        for text in ["", "some", "level:", "level:300", "last:x", "last:5+", "level:2+last:5", "last"] {
            assert!(text.parse::<RetentionChoice>().is_err(), "{text}");
        }
        for text in ["", "Sync!", "buffered", "buffered:", "buffered:10 apples", "sync:1ms"] {
            assert!(text.parse::<DurabilityChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_holds_its_header() {
        assert_eq!(parse_value_bytes("16"), Ok(16));
        assert!(parse_value_bytes("15").is_err());
        assert!(parse_value_bytes("1MiB").is_ok());
        assert!(parse_value_bytes("1048577").is_err());
    }
}
