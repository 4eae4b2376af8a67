//! Where and with what a run was made: machine, disk, versions, command. Stands at the head of the report.

use crate::engines::Kind;
use crate::shared::place::{FileSystem, file_system};
use crate::shared::system::{Build, Machine};
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What this program was locked to.
const LOCK: &str = include_str!("../Cargo.lock");

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) machine: Machine,
    pub(crate) build: Build,
    pub(crate) file_system: FileSystem,
    /// Each engine's crates with their versions.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) command: String,
    pub(crate) began_unix_s: u64,
}

impl Environment {
    /// Of this run, whose data lies in that folder.
    pub(crate) fn here(folder: &Path, engines: &[Kind]) -> Self {
        Environment {
            machine: Machine::here(),
            build: Build::this(),
            file_system: file_system(folder),
            versions: engines.iter().map(|&kind| (kind.to_string(), version(kind))).collect(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            began_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        }
    }
}

fn version(kind: Kind) -> String {
    let crates: &[&str] = match kind {
        Kind::Quipu => &["quipu"],
        Kind::Rocksdb => &["rocksdb", "librocksdb-sys"],
        Kind::Fjall => &["fjall", "lsm-tree"],
        Kind::Redb => &["redb"],
        Kind::Lmdb => &["heed", "lmdb-master-sys"],
    };
    let versions = crates.iter().filter_map(|name| Some(format!("{name} {}", locked(LOCK, name)?)));
    versions.collect::<Vec<_>>().join(", ")
}

/// The version of a crate in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let entry = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != entry).skip(1);
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_version() {
        for &kind in Kind::ALL {
            assert!(version(kind).contains(|c: char| c.is_ascii_digit()), "{kind}: {}", version(kind));
        }
    }

    #[test]
    fn a_version_is_that_of_the_whole_name() {
        let lock = "[[package]]\nname = \"redb-derive\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"redb\"\nversion = \"4.6.0\"\n";
        assert_eq!(locked(lock, "redb"), Some("4.6.0"));
        assert_eq!(locked(lock, "heed"), None);
    }
}
