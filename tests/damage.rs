//! Damage: a flipped byte, a file cut short, a file gone. Opening and reading then give the right data, or an
//! error that names the file: never wrong data, never a panic, never a hang.
//!
//! One engine is written and closed; each case copies its folder, damages one file, and reads everything. Every
//! byte of the headers of each kind of file is flipped, and seeded ones elsewhere.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{Seeded, eventually, files, folder, within_minutes};
use quipu::{Commit, Directory, Engine, Error, IoChoice, Options, Retention};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// What a damaged folder may be opened with: as the engine's own options, on plain system calls, which open
/// faster.
fn options(retention: Retention) -> Options {
    Options::new()
        .shards(1)
        .log_file_bytes(64 << 10)
        .log_files_max(4)
        .flush_bytes(16 << 10)
        .part_bytes(64 << 10)
        .memtable_bytes(4 << 20)
        .retention(retention)
        .io(IoChoice::Plain)
        .pin(false)
}

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A closed engine: its files, and what it holds as of some commits (the newest first).
struct Original {
    retention: Retention,
    files: BTreeMap<PathBuf, Vec<u8>>,
    states: Vec<(Commit, Content)>,
}

impl Original {
    fn write(retention: Retention, as_of: bool) -> Self {
        Self::write_commits(retention, as_of, 900)
    }

    fn write_commits(retention: Retention, as_of: bool, commits: u64) -> Self {
        let folder = folder();
        let engine = options(retention).open(folder.path()).unwrap();
        let directory = engine.directory("a/b").unwrap();
        let mut random = Seeded(11);
        let mut content = Content::new();
        let mut states = Vec::new();
        for round in 0..commits {
            let key = format!("key{:03}", random.below(400)).into_bytes();
            if random.below(10) == 0 {
                directory.delete(&key).wait().unwrap();
                content.remove(&key);
            } else {
                let value = format!("{round} ").repeat(1 + random.below(200) as usize).into_bytes();
                directory.put(&key, &value).wait().unwrap();
                content.insert(key, value);
            }
            if as_of && round % 200 == 100 {
                states.push((Commit(round + 1), content.clone()));
            }
        }
        states.push((Commit(commits), content));
        states.reverse();
        // So that it does not depend on timing which files there are.
        eventually("carries are installed", || engine.stats().wait().unwrap().shards[0].carries.is_empty());
        drop(directory);
        engine.close().unwrap();
        let files = files(folder.path());
        let files = files
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix(folder.path()).unwrap().to_path_buf(), bytes));
        Original { retention, files: files.collect(), states }
    }

    fn copy(&self, to: &Path) {
        let _ = fs::remove_dir_all(to);
        for (path, bytes) in &self.files {
            let path = to.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Opens and reads everything. Answers whether something was found to be damaged.
    fn read(&self, folder: &Path, damaged: &Path) -> bool {
        let mut found = false;
        let mut is_typed = |error: Error| {
            let named = match &error {
                Error::Damaged { file, .. } => file.clone(),
                // A version that this code does not know.
                Error::NotAnEngine { path, .. } if damaged == Path::new("QUIPU") => {
                    path.display().to_string()
                }
                _ => panic!("{} damaged: {error:?}", damaged.display()),
            };
            let name = damaged.file_name().unwrap().to_str().unwrap();
            let kind = name.split('-').next().unwrap();
            // A manifest that ends early shows where another file contradicts it.
            let shown = kind == "manifest" || matches!(error, Error::NotAnEngine { .. });
            assert!(
                named.contains(name) || named.contains(kind) || shown,
                "{name} is damaged, not {named}: {error}"
            );
            found = true;
        };
        let engine = match options(self.retention).open(folder) {
            Ok(engine) => engine,
            Err(error) => {
                is_typed(error);
                return true;
            }
        };
        for error in engine.verify().wait().unwrap().damaged {
            is_typed(error);
        }
        let directory = engine.directory("a/b").unwrap();
        let (_, newest) = &self.states[0];
        // Each key by itself: what lies in other blocks and files is served.
        for number in 0..400 {
            let key = format!("key{number:03}").into_bytes();
            match directory.get(&key).wait() {
                Ok(value) => assert_eq!(value.as_deref(), newest.get(&key).map(Vec::as_slice), "wrong data"),
                Err(error) => is_typed(error),
            }
        }
        for (commit, content) in &self.states {
            match scan(&engine, &directory, *commit, self.states[0].0) {
                Ok(entries) => assert!(entries == *content, "wrong data as of {commit}"),
                Err(error) => is_typed(error),
            }
        }
        if directory.put("more", "more").wait().is_ok() {
            assert!(matches!(
                directory.get("more").wait().as_ref().map(|got| got.is_some()),
                Ok(true) | Err(_)
            ));
        }
        drop(directory);
        // What is damaged may stop compaction, but not the end.
        let _ = engine.close();
        found
    }
}

fn scan(engine: &Engine, directory: &Directory, commit: Commit, newest: Commit) -> Result<Content, Error> {
    let scan = match commit == newest {
        true => directory.iter(),
        false => engine.as_of(directory, commit).wait()?.iter(directory)?,
    };
    scan.blocking().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip(usize, u8),
    Cut(usize),
    Zero(usize),
    Gone,
}

impl Harm {
    fn apply(self, path: &Path, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        match self {
            Harm::Flip(at, bits) => bytes[at] ^= bits,
            Harm::Cut(length) => bytes.truncate(length),
            Harm::Zero(page) => bytes[page..].iter_mut().take(4096).for_each(|byte| *byte = 0),
            Harm::Gone => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }
}

/// Where the fields of a file's headers lie, by `docs/format.md`: every byte that says something about what follows.
fn headers(kind: &str, bytes: &[u8]) -> Vec<Range<usize>> {
    const PAGE: usize = 4096;
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let pages = |magic: &'static [u8], header: usize| {
        let found = (0..bytes.len()).step_by(PAGE).filter(move |at| bytes[at + 8..].starts_with(magic));
        found.map(move |at| at..at + header)
    };
    match kind {
        "QUIPU" => std::iter::once(0..bytes.len()).collect(),
        // The header, the mark of a clean close; the first groups.
        "log" => [0..64, 512..536].into_iter().chain(pages(b"QGRP", 56).take(2)).collect(),
        // The snapshot, the first edits.
        "manifest" => pages(b"QMAN", 72).take(3).collect(),
        // The header; the first block; the meta and the end of the footer.
        "segment" | "base" | "spill" => {
            let end = bytes.len();
            let meta = end - number(end - 24);
            vec![0..46, PAGE..PAGE + 24, meta..meta + number(end - 20), end - 32..end]
        }
        _ => Vec::new(),
    }
}

/// The harms of a file: each byte of its headers and more of its head and tail where it is the first of its kind, some
/// elsewhere.
fn harms(kind: &str, bytes: &[u8], first: bool, random: &mut Seeded) -> Vec<Harm> {
    let mut harms = vec![Harm::Gone];
    let length = bytes.len();
    let mut flip = |harms: &mut Vec<Harm>, at: usize| harms.push(Harm::Flip(at, 1 << random.below(8)));
    if first {
        let headers = headers(kind, bytes);
        assert!(!headers.is_empty(), "the headers of a {kind} are not known");
        headers.into_iter().flatten().for_each(|at| flip(&mut harms, at));
        (64..96.min(length)).step_by(3).for_each(|at| flip(&mut harms, at));
        (length.saturating_sub(64)..length).step_by(3).for_each(|at| flip(&mut harms, at));
        // What follows upon the header of the record, group or block behind the first page.
        (4096 + 56..4096 + 80).step_by(3).filter(|&at| at < length).for_each(|at| flip(&mut harms, at));
    }
    let mut places = Vec::new();
    for _ in 0..if first { 24 } else { 8 } {
        places.push(random.below(length as u64) as usize);
    }
    harms.extend(places.iter().map(|&at| Harm::Flip(at, 0x20)));
    harms.extend([0, 1, length / 2, length - 1].map(Harm::Cut));
    harms.extend([4096, length / 8192 * 4096].into_iter().filter(|&at| at < length).map(Harm::Cut));
    let pages = (0..length).step_by(4096).collect::<Vec<_>>();
    for _ in 0..3 {
        harms.push(Harm::Zero(pages[random.below(pages.len() as u64) as usize]));
    }
    harms
}

fn damage_everything(retention: Retention, as_of: bool) {
    let original = Original::write(retention, as_of);
    let mut cases = Vec::new();
    let mut kinds = BTreeMap::new();
    let mut random = Seeded(5);
    for (path, bytes) in &original.files {
        let name = path.file_name().unwrap().to_str().unwrap();
        // A carry that the close interrupted may have left an empty file.
        if name == "LOCK" || bytes.is_empty() {
            continue;
        }
        let kind = name.split('-').next().unwrap();
        let seen = kinds.entry(kind.to_string()).or_insert(0);
        // A log file that is free has no groups of its own.
        if kind == "log" && *seen == 0 && bytes[32..40] == [0; 8] {
            continue;
        }
        *seen += 1;
        let harms = harms(kind, bytes, *seen == 1, &mut random);
        cases.extend(harms.into_iter().map(|harm| (path.clone(), harm)));
    }
    for kind in ["QUIPU", "manifest", "log"] {
        assert!(kinds.contains_key(kind), "no {kind} among {kinds:?}");
    }
    assert!(kinds.contains_key("segment") || kinds.contains_key("base"), "no segments among {kinds:?}");
    let (count, mut found) = (cases.len(), 0);
    // Opening waits for the disk most of the time, so several cases at once.
    let original = std::sync::Arc::new(original);
    let (send, results) = mpsc::channel();
    for worker in 0..4 {
        let (original, send) = (original.clone(), send.clone());
        let cases: Vec<_> = cases.iter().skip(worker).step_by(4).cloned().collect();
        thread::spawn(move || {
            let folder = folder();
            let path = folder.path().join("engine");
            for (file, harm) in cases {
                let original = original.clone();
                original.copy(&path);
                harm.apply(&path.join(&file), &original.files[&file]);
                let label = format!("{} {harm:?}", file.display());
                let kind = file.file_name().unwrap().to_str().unwrap().split('-').next().unwrap();
                let changed = fs::read(path.join(&file)).ok().as_ref() != Some(&original.files[&file]);
                let must = changed && ["segment", "spill", "base"].contains(&kind);
                let read = thread::Builder::new().name(label.clone());
                let (original, path) = (original.clone(), path.clone());
                let read = read.spawn(move || {
                    let found = original.read(&path, &file);
                    assert!(found || !must, "a segment changed, and verification did not see it");
                    found
                });
                let read = read.unwrap();
                let result = within_minutes(&label, move || read.join().map_err(drop));
                send.send((label, result)).unwrap();
            }
        });
    }
    drop(send);
    let mut wrong = Vec::new();
    let mut answered = 0;
    for (label, result) in results {
        answered += 1;
        match result {
            Ok(damaged) => found += usize::from(damaged),
            Err(()) => wrong.push(label),
        }
    }
    println!("{count} cases of damage to {kinds:?}: {found} found, the others harmless");
    assert!(wrong.is_empty(), "{} of {count} cases: {wrong:#?}", wrong.len());
    assert_eq!(answered, count, "a case hung");
    assert!(found > count / 3, "{found} of {count} found");
}

#[test]
fn damage_with_a_base() {
    damage_everything(Retention::None, false);
}

#[test]
fn damage_with_history() {
    damage_everything(Retention::Forever, true);
}

/// Where one file of several is damaged, what lies in the others is served.
#[test]
fn what_is_not_damaged_is_served() {
    let original = Original::write(Retention::None, false);
    let is_data =
        |path: &&PathBuf| ["base-", "segment-"].iter().any(|kind| path.to_str().unwrap().contains(kind));
    let mut both = 0;
    for file in original.files.keys().filter(is_data) {
        let folder = folder();
        let path = folder.path().join("engine");
        original.copy(&path);
        // All of its blocks; its description is in the manifest.
        let garbage: Vec<u8> = original.files[file].iter().map(|byte| byte ^ 0x55).collect();
        fs::write(path.join(file), garbage).unwrap();
        let engine = options(Retention::None).open(&path).unwrap();
        let directory = engine.directory("a/b").unwrap();
        let (mut served, mut damaged) = (0, 0);
        for number in 0..400 {
            match directory.get(format!("key{number:03}")).wait() {
                Ok(_) => served += 1,
                Err(Error::Damaged { file: named, window, .. }) => {
                    assert!(named.ends_with(file.file_name().unwrap().to_str().unwrap()), "not {named}");
                    assert!(window.is_some(), "the commits of the damaged file are named");
                    damaged += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        println!("{}: {served} served, {damaged} damaged", file.display());
        both += usize::from(served > 0 && damaged > 0);
        engine.close().unwrap();
    }
    assert!(both > 0, "no damage left anything to be served");
}

/// After a clean close, a log that lost its end is refused, and so is one that is gone: it is known how far it went.
/// What is refused stays as it was, to be looked into or mended.
#[test]
fn a_log_that_lost_commits_is_refused_and_nothing_is_touched() {
    let mut flipped = 0;
    // Some leave their last commits in a file of their own, some do not.
    for commits in [100, 631, 650, 807, 900] {
        let retention = Retention::None;
        let original = Original::write_commits(retention, false, commits);
        let logs: Vec<&PathBuf> =
            original.files.keys().filter(|path| path.to_str().unwrap().contains("log-")).collect();
        let mut refused = 0;
        for file in &logs {
            let bytes = &original.files[*file];
            let mut harms = vec![Harm::Gone, Harm::Cut(0)];
            // A file that the close interrupted in the making is shorter.
            if bytes.len() > 60_000 {
                harms.push(Harm::Flip(60_000, 4));
                flipped += 1;
            }
            harms.extend((1..bytes.len() / 4096).map(|page| Harm::Cut(page * 4096)));
            for harm in harms {
                let folder = folder();
                let path = folder.path().join("engine");
                original.copy(&path);
                harm.apply(&path.join(file), bytes);
                // What an interrupted carry would have left.
                let orphan = path.join("shard-0000/segment-01-000000000099999");
                fs::write(&orphan, b"begun").unwrap();
                let before = files(&path);
                match options(retention).open(&path) {
                    Err(error) => {
                        assert!(
                            matches!(error, Error::Damaged { .. }),
                            "{harm:?} of {}: {error}",
                            file.display()
                        );
                        assert_eq!(files(&path), before, "{harm:?} of {} was refused", file.display());
                        refused += 1;
                    }
                    // A file that was free, or whose commits lie in segments.
                    Ok(engine) => {
                        let directory = engine.directory("a/b").unwrap();
                        let newest = scan(&engine, &directory, original.states[0].0, original.states[0].0);
                        assert_eq!(newest.unwrap(), original.states[0].1, "{harm:?} of {}", file.display());
                        drop(directory);
                        engine.close().unwrap();
                        assert!(!orphan.exists());
                    }
                }
            }
        }
        println!("{commits} commits: {refused} refused");
        assert!(refused > 5, "{refused}");
    }
    assert!(flipped > 0, "no log file is long enough");
}
