//! Looks into an engine's folder: what it holds, and whether all of it can be read.
//!
//! Both commands open the engine as a program would (recovery included), but never create one.

use crate::failure::Failure;
use crate::out::say;
use crate::units::{bytes, counted, duration, thousands};
use quipu::{Directory, Engine, Error, Options};
use std::path::Path;
use std::time::Instant;

/// Names in one page of a listing.
const PAGE: usize = 1000;

/// Prints shards, commits, segments by level, and a page of the root directories.
pub(crate) fn inspect(path: &Path, after: Option<&str>, limit: usize) -> Result<(), Failure> {
    let engine = open(path)?;
    let recovery = engine.recovery();
    say(format!("{}: {} shards, {}", path.display(), engine.shards(), engine.io_kind()));
    say(format!(
        "recovered in {}: {} commits from {} of log",
        duration(recovery.took),
        thousands(recovery.replayed()),
        bytes(recovery.log_bytes())
    ));
    for shard in &engine.stats().wait()?.shards {
        say(format!("\nshard {}", shard.shard));
        say(format!("  commits      {} (durable {})", thousands(shard.last.0), thousands(shard.durable.0)));
        let base_level = shard.base_level.map_or("none".to_string(), |level| level.to_string());
        say(format!("  flush level  {}, base level {base_level}", shard.flush_level));
        say(format!("  log          {} files", shard.log_files));
        say(format!("  memtables    {}, {}", shard.memtables, bytes(shard.memtable_bytes as u64)));
        for level in &shard.levels {
            say(format!("  level {:<6} {} segments, {}", level.level.0, level.segments, bytes(level.bytes)));
        }
        if let Some(base) = &shard.base {
            say(format!(
                "  base         {} parts, {}, to commit {}",
                base.parts,
                bytes(base.bytes),
                thousands(base.end.0)
            ));
        }
        if shard.spills > 0 {
            say(format!("  spills       {}", shard.spills));
        }
        for carry in &shard.carries {
            let (done, total) = (bytes(carry.done), bytes(carry.total));
            say(format!(
                "  {:<12} level {}: {done} of {total}, due at {}",
                carry.kind, carry.level, carry.due
            ));
        }
        for error in shard.stalled.iter().chain(&shard.poisoned) {
            say(format!("  trouble      {error}"));
        }
    }
    let roots = engine.roots(after, limit).wait()?;
    say(format!("\nroot directories{}", after.map_or(String::new(), |after| format!(" after {after}"))));
    for root in &roots {
        say(format!("  {root} (shard {})", engine.directory(root)?.shard()));
    }
    match roots.last() {
        Some(last) if roots.len() == limit => say(format!("  perhaps more: --after {last}")),
        None => say("  none"),
        _ => {}
    }
    engine.close()?;
    Ok(())
}

/// Checks every file from end to end, then reads every directory.
pub(crate) fn verify(path: &Path) -> Result<(), Failure> {
    let engine = open(path)?;
    let start = Instant::now();
    let files = engine.verify().wait()?;
    for error in &files.damaged {
        say(error.to_string());
    }
    say(format!(
        "{}: {} entries in {} files, {}, checked in {}; {} damaged",
        path.display(),
        thousands(files.entries),
        thousands(files.files),
        bytes(files.bytes),
        duration(start.elapsed()),
        thousands(files.damaged.len() as u64),
    ));
    let start = Instant::now();
    let mut read = Read::default();
    let mut after: Option<String> = None;
    loop {
        let roots = engine.roots(after.as_deref(), PAGE).wait()?;
        for root in &roots {
            read.directory(&engine, engine.directory(root)?)?;
        }
        match roots.last() {
            Some(last) if roots.len() == PAGE => after = Some(last.clone()),
            _ => break,
        }
    }
    say(format!(
        "{}: {} entries in {} directories, {} of keys and values, read in {}; {} not readable",
        path.display(),
        thousands(read.entries),
        thousands(read.directories),
        bytes(read.bytes),
        duration(start.elapsed()),
        thousands(read.damaged),
    ));
    engine.close()?;
    match (files.damaged.len(), read.damaged) {
        (0, 0) => Ok(()),
        (files, directories) => {
            let files = counted(files as u64, "damaged file", "damaged files");
            let directories = counted(directories, "directory", "directories");
            Err(Failure::run(format!("{files}, {directories} that cannot be read whole")))
        }
    }
}

/// What verification has read.
#[derive(Default)]
struct Read {
    directories: u64,
    entries: u64,
    bytes: u64,
    damaged: u64,
}

impl Read {
    /// Reads a directory and all below it. Damage is printed and counted; other data is still read.
    fn directory(&mut self, engine: &Engine, directory: Directory) -> Result<(), Failure> {
        let mut waiting = vec![directory];
        while let Some(directory) = waiting.pop() {
            self.directories += 1;
            for entry in directory.iter().blocking() {
                match entry {
                    Ok((key, value)) => {
                        self.entries += 1;
                        self.bytes += (key.len() + value.len()) as u64;
                    }
                    Err(error) => {
                        self.damaged += 1;
                        say(format!("{}: {error}", directory.path()));
                        break;
                    }
                }
            }
            let mut after: Option<String> = None;
            loop {
                let children = directory.children(after.as_deref(), PAGE).wait()?;
                for child in &children {
                    waiting.push(engine.directory(format!("{}/{child}", directory.path()))?);
                }
                match children.last() {
                    Some(last) if children.len() == PAGE => after = Some(last.clone()),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// Opens an engine that is there.
fn open(path: &Path) -> Result<Engine, Failure> {
    match std::fs::metadata(path) {
        Err(error) => return Err(Failure::input(format!("{}: {error}", path.display()))),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(Failure::input(format!(
                "{}: is a file, not the folder of an engine",
                path.display()
            )));
        }
        Ok(_) => {}
    }
    Options::new().create(false).open(path).map_err(|error| match error {
        Error::Damaged { .. } => Failure::run(error),
        Error::NotAnEngine { path, .. } if !path.join("QUIPU").exists() => {
            Failure::input(format!("{}: there is no engine in it", path.display()))
        }
        error => Failure::input(error),
    })
}
