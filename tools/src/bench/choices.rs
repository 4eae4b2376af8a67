//! What single options of `quipu bench` take, as text: read, checked, and written back the same.

use super::key::{VALUE_HEADER_BYTES, ValueBytes};
use super::pace::Clients;
use super::workload::Workload;
use crate::units::{parse_bytes, parse_count, parse_duration, parse_duration_positive};
use clap::ValueEnum;
use quipu::Durability;
use quipu::levels::{Level, Retention};
use quipu::limits;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The most directories of a run.
const DIRECTORIES_MAX: u32 = 100_000_000;

/// A workload, and where its clients run if that is said: `mix`, `commits-async`, `reads-blocking`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    pub(crate) workload: Workload,
    pub(crate) clients: Option<Clients>,
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for (suffix, clients) in
            [("-async", Clients::Async), ("-blocking", Clients::Blocking), ("-on-core", Clients::OnCore)]
        {
            if let Some(Ok(workload)) = text.strip_suffix(suffix).map(|name| Workload::from_str(name, false))
            {
                return Ok(Phase { workload, clients: Some(clients) });
            }
        }
        Workload::from_str(text, false).map(|workload| Phase { workload, clients: None }).map_err(|_| {
            let names: Vec<String> =
                Workload::value_variants().iter().map(|workload| workload.name()).collect();
            format!("use {}; each may end in -on-core, -async or -blocking", names.join(", "))
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.workload.name())?;
        match self.clients {
            None | Some(Clients::OnCore) => Ok(()),
            Some(clients) => write!(f, "-{}", clients.name()),
        }
    }
}

/// What a sweep looks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Sweep {
    /// The highest rate that is sustained.
    Highest,
    /// The highest rate whose p99 stays under this.
    P99(Duration),
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "highest" => Ok(Sweep::Highest),
            Some(("p99", bound)) => Ok(Sweep::P99(parse_duration_positive(bound)?)),
            _ => Err("use highest or p99:TIME, as in p99:5ms".to_string()),
        }
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sweep::Highest => f.write_str("highest"),
            Sweep::P99(bound) => write!(f, "p99:{}us", bound.as_secs_f64() * 1e6),
        }
    }
}

/// The order of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyOrder {
    /// Scattered by a hash
    Hashed,
    /// What is inserted later sorts later
    Ordered,
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

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Sweep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads "100" or "64-1024" as the bytes of values.
pub(crate) fn parse_value_bytes(text: &str) -> Result<ValueBytes, String> {
    let (min, max) = match text.split_once('-') {
        Some((min, max)) => (parse_bytes(min)?, parse_bytes(max)?),
        None => (parse_bytes(text)?, parse_bytes(text)?),
    };
    // The least value is its header: slot, version and check.
    let (least, most) = (VALUE_HEADER_BYTES as u64, limits::VALUE_BYTES_MAX as u64);
    if min > max {
        return Err("the first number must not be above the second".to_string());
    }
    match (u32::try_from(min), u32::try_from(max)) {
        (Ok(low), Ok(high)) if min >= least && max <= most => Ok(ValueBytes { min: low, max: high }),
        _ => Err(format!("must be {least} to {most} bytes")),
    }
}

/// Reads "500000", "500k" or "1.5M" as operations a second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    let rate =
        number.replace('_', "").parse::<f64>().map_err(|_| format!("{text:?} is not a number"))? * scale;
    match rate {
        rate if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("must be 0.001 to 1000M operations a second".to_string()),
    }
}

/// Reads a number of directories. Each is a handle in memory, so that there are not as many as keys.
pub(crate) fn parse_directories(text: &str) -> Result<u32, String> {
    match parse_count(text)? {
        count if count <= DIRECTORIES_MAX => Ok(count),
        _ => Err(format!("must be at most {DIRECTORIES_MAX}")),
    }
}

/// Reads a percentage.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("must be 0 to 100".to_string()),
    }
}

/// Writes a duration as seconds.
pub(crate) fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// The same, where there is one.
pub(crate) fn as_seconds_if<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// Writes a path as text, whatever bytes it has.
pub(crate) fn as_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
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
        assert_eq!(parse_value_bytes("16"), Ok(ValueBytes { min: 16, max: 16 }));
        assert_eq!(parse_value_bytes("100-2KiB"), Ok(ValueBytes { min: 100, max: 2048 }));
        assert!(parse_value_bytes("1MiB").is_ok());
        for text in ["15", "1048577", "10-100", "200-100", "-5", "5-", ""] {
            assert!(parse_value_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn phases_and_sweeps_read_back_what_they_write() {
        for text in ["commits", "commits-async", "mix-blocking", "ycsb-a", "reads-absent-async", "as-of"] {
            assert_eq!(text.parse::<Phase>().unwrap().to_string(), text);
        }
        for text in ["", "lunch", "commits-", "-async", "commits-async-async"] {
            assert!(text.parse::<Phase>().is_err(), "{text}");
        }
        assert_eq!("p99:5ms".parse(), Ok(Sweep::P99(Duration::from_millis(5))));
        assert_eq!(Sweep::P99(Duration::from_millis(5)).to_string().parse(), "p99:5ms".parse::<Sweep>());
        for text in ["", "p99", "p99:0", "p99:x", "lowest", "highest:1"] {
            assert!(text.parse::<Sweep>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_percentages_have_bounds() {
        assert_eq!(parse_rate("500"), Ok(500.0));
        assert_eq!(parse_rate("1.5M"), Ok(1.5e6));
        assert_eq!(parse_rate("250_000"), Ok(250_000.0));
        for text in ["", "0", "-1", "k", "nan", "inf", "1e12", "10 apples"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_percent("20%"), Ok(20.0));
        for text in ["", "-1", "101", "nan", "x"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
