//! Kills with SIGKILL at any moment, with real processes on a real disk.
//!
//! 1. A child opens an engine (small files, so that carries, spills, folds and log recycling run all the time)
//!    and commits with several *writers*: blocking threads, an async runtime, on-core tasks, and one whose
//!    commits are buffered. Each commit's content follows from its writer, its number and the child's.
//! 2. It reports each commit before it is submitted and once it is acknowledged durable, a line each.
//! 3. The parent kills it at a random moment, opens the folder itself, and compares the content with its model.
//! 4. The next child goes on in the same folder.
//!
//! What must hold: each writer's commits are there up to some number, at least the last one reported as durable
//! and at most the last one reported as submitted; the content is exactly that of those commits; and a shard's
//! newest commit is the number of all commits of its writers, so there is no hole and nothing of an earlier end.
//!
//! `QUIPU_SOAK=20` in the environment kills twenty times as often.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{PATIENCE, Seeded, child, folder, plays, report};
use quipu::{Answer, Batch, CommitId, Directory, Durability, Engine, IoChoice, Local, Options, Retention};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const WRITERS: u64 = 6;
const KEYS: u64 = 120;

fn options(io: IoChoice, retention: Retention) -> Options {
    Options::new()
        .shards(2)
        .log_file_bytes(64 << 10)
        .log_files_max(6)
        .group_bytes(16 << 10)
        .flush_bytes(24 << 10)
        .part_bytes(64 << 10)
        .memtable_bytes(512 << 10)
        .cache_bytes(1 << 20)
        .retention(retention)
        .io(io)
}

/// What a commit does.
enum Act {
    Write(Vec<(&'static str, String, Option<Vec<u8>>)>),
    Rename(&'static str, &'static str),
    Remove(&'static str),
}

/// The commit `number` of a writer, as the child of `generation` makes it.
fn act(writer: u64, number: u64, generation: u64) -> Act {
    let mut random = Seeded::of(&[writer, number, generation]);
    match number % 40 {
        30 => return Act::Rename("live", "old/er"),
        35 => return Act::Remove("old"),
        _ => {}
    }
    let mut ops = vec![("data", "number".to_string(), Some(number.to_be_bytes().to_vec()))];
    for _ in 0..1 + random.below(3) {
        let directory = if random.below(4) == 0 { "live" } else { "data" };
        let key = format!("key{:03}", random.below(KEYS));
        let bytes = if random.below(30) == 0 { random.below(6000) } else { random.below(300) };
        let value = (random.below(8) > 0).then(|| {
            let mut value = format!("{writer} {number} {generation} ").into_bytes();
            value.resize(value.len() + bytes as usize, random.next() as u8);
            value
        });
        ops.push((directory, key, value));
    }
    if number % 40 == 1 {
        ops.push(("live", "begun".into(), Some(vec![1])));
    }
    Act::Write(ops)
}

/// The child's part: everything that one writer does, in terms of how it commits.
struct Writer {
    engine: Engine,
    writer: u64,
    next: u64,
    generation: u64,
}

impl Writer {
    fn root(writer: u64) -> String {
        format!("root{writer}")
    }

    fn directory(&self, name: &str) -> Directory {
        self.engine.directory(format!("{}/{name}", Self::root(self.writer))).unwrap()
    }

    fn begin(&mut self) -> (u64, Act) {
        let number = self.next;
        self.next += 1;
        report(&format!("S {} {number}", self.writer));
        (number, act(self.writer, number, self.generation))
    }

    fn durable(&self, number: u64) {
        report(&format!("A {} {number}", self.writer));
    }

    fn batch(&self, ops: &[(&str, String, Option<Vec<u8>>)]) -> Batch {
        let mut batch = Batch::new();
        for (directory, key, value) in ops {
            match value {
                Some(value) => batch.put(&self.directory(directory), key, value),
                None => batch.delete(&self.directory(directory), key),
            };
        }
        batch
    }

    fn submit(&mut self, durability: Durability) -> (u64, Answer<CommitId>) {
        let (number, act) = self.begin();
        let answer = match act {
            Act::Write(ops) => self.engine.commit_with(self.batch(&ops), durability),
            Act::Rename(from, to) => self.directory(from).rename(&self.directory(to)),
            Act::Remove(name) => self.directory(name).remove(),
        };
        (number, answer)
    }

    /// A plain thread with several commits in flight.
    fn blocking(mut self) {
        let mut flying = VecDeque::new();
        loop {
            flying.push_back(self.submit(Durability::Sync));
            if flying.len() > 12 {
                let (number, answer) = flying.pop_front().unwrap();
                answer.wait().unwrap();
                self.durable(number);
            }
        }
    }

    /// The same on an async runtime.
    async fn asynchronous(mut self) {
        let mut flying = VecDeque::new();
        loop {
            flying.push_back(self.submit(Durability::Sync));
            if flying.len() > 20 {
                let (number, answer) = flying.pop_front().unwrap();
                answer.await.unwrap();
                self.durable(number);
            }
        }
    }

    /// Buffered commits, durable with a barrier.
    fn buffered(mut self) {
        loop {
            let mut last = 0;
            for _ in 0..25 {
                let (number, answer) = self.submit(Durability::Buffered { within: Duration::from_millis(3) });
                answer.wait().unwrap();
                last = number;
            }
            self.engine.barrier().wait().unwrap();
            self.durable(last);
        }
    }

    /// A task on the shard's own core.
    async fn on_core(mut self, local: Local) {
        let mut flying = VecDeque::new();
        loop {
            let (number, act) = self.begin();
            match act {
                Act::Write(ops) => flying.push_back((number, local.commit(&self.batch(&ops)))),
                Act::Rename(from, to) => {
                    self.directory(from).rename(&self.directory(to)).await.map(drop).unwrap();
                }
                Act::Remove(name) => self.directory(name).remove().await.map(drop).unwrap(),
            }
            if flying.len() > 40 {
                for (number, commit) in flying.drain(..20) {
                    commit.await.unwrap();
                    self.durable(number);
                }
            }
            // Between its commits others may have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// The child. Its parent kills it.
#[test]
fn writes_until_killed() {
    if !plays("writes_until_killed") {
        return;
    }
    let variable = |name: &str| std::env::var(name).unwrap();
    let generation: u64 = variable("GENERATION").parse().unwrap();
    let starts: Vec<u64> = variable("STARTS").split(' ').map(|number| number.parse().unwrap()).collect();
    let io = if generation % 3 == 2 { IoChoice::Plain } else { IoChoice::Auto };
    let engine = options(io, retention_named(&variable("RETENTION"))).open(variable("FOLDER")).unwrap();
    report("");
    let mut threads = Vec::new();
    for (writer, &next) in (0..).zip(&starts) {
        let this = Writer { engine: engine.clone(), writer, next, generation };
        threads.push(match writer {
            0 | 1 => std::thread::spawn(move || this.blocking()),
            2 => std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(this.asynchronous());
            }),
            3 => std::thread::spawn(move || this.buffered()),
            _ => {
                let engine = engine.clone();
                let directory = this.directory("data");
                std::thread::spawn(move || {
                    engine.run_on(&directory, |local| this.on_core(local)).wait().unwrap()
                })
            }
        });
    }
    for thread in threads {
        if thread.join().is_err() {
            // A writer that fails ends the child, with its panic on stderr.
            std::process::exit(3);
        }
    }
}

fn retention_named(name: &str) -> Retention {
    match name {
        "none" => Retention::None,
        "last" => Retention::Last(500),
        _ => Retention::Forever,
    }
}

type Content = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What the parent knows of a writer.
#[derive(Default)]
struct Known {
    /// The content after its commit `at`.
    content: Content,
    at: u64,
    submitted: u64,
    durable: u64,
}

impl Known {
    /// Applies its next commit.
    fn step(&mut self, writer: u64, generation: u64) {
        self.at += 1;
        match act(writer, self.at, generation) {
            Act::Write(ops) => {
                for (directory, key, value) in ops {
                    match value {
                        Some(value) => {
                            let entries = self.content.entry(directory.into()).or_default();
                            entries.insert(key.into_bytes(), value);
                        }
                        None => {
                            let entries = self.content.get_mut(directory);
                            entries.map(|entries| entries.remove(key.as_bytes()));
                        }
                    }
                }
            }
            Act::Rename(from, to) => {
                let entries = self.content.remove(from).unwrap();
                self.content.insert(to.into(), entries);
            }
            Act::Remove(name) => {
                let under = format!("{name}/");
                self.content.retain(|path, _| path != name && !path.starts_with(&under));
            }
        }
    }
}

/// What the engine holds of a writer: of the directories that exist, everything.
fn content_of(engine: &Engine, writer: u64) -> Content {
    let mut content = Content::new();
    for name in ["data", "live", "old/er"] {
        let directory = engine.directory(format!("{}/{name}", Writer::root(writer))).unwrap();
        if directory.exists().wait().unwrap() {
            let entries = directory.iter().blocking().map(|entry| {
                let (key, value) = entry.unwrap();
                (key.to_vec(), value.to_vec())
            });
            content.insert(name.into(), entries.collect());
        }
    }
    content
}

/// Checks the folder against what is known, and brings what is known up to date.
fn check(engine: &Engine, known: &mut [Known], generation: u64) {
    let mut commits = vec![0; usize::from(engine.shards())];
    for (writer, known) in (0..).zip(known) {
        let found = content_of(engine, writer);
        let number = found.get("data").and_then(|data| data.get(&b"number"[..]));
        let number = number.map_or(0, |number| u64::from_be_bytes(number[..].try_into().unwrap()));
        assert!(number <= known.submitted, "writer {writer}: commit {number} was never submitted");
        let before = known.at - u64::from(!matches!(act(writer, known.at, 0), Act::Write(_)));
        assert!(number >= before, "writer {writer}: commits up to {} were there before", known.at);
        while known.at < number {
            known.step(writer, generation);
        }
        if known.content != found && known.at < known.submitted {
            // A commit that leaves the number alone may be the last one.
            known.step(writer, generation);
        }
        let differ = known.content.iter().find(|(name, entries)| found.get(*name) != Some(entries));
        assert!(
            known.content == found,
            "writer {writer} at commit {} (number {number}) differs, first in {:?}; directories {:?}, expected {:?}",
            known.at,
            differ.map(|(name, _)| name),
            found.keys(),
            known.content.keys(),
        );
        assert!(
            known.at >= known.durable,
            "writer {writer}: commit {} was acknowledged, the content is that of {}",
            known.durable,
            known.at
        );
        (known.durable, known.submitted) = (known.at, known.at);
        let shard = engine.shard_of(Writer::root(writer)).unwrap();
        commits[usize::from(shard)] += known.at;
    }
    let newest: Vec<u64> = engine.recovery().shards.iter().map(|shard| shard.newest.0).collect();
    assert_eq!(newest, commits, "every commit of a shard is one of its writers'");
}

/// Runs children on one folder for a while, and kills them.
fn kill_again_and_again(seed: u64, retention: &str, kills: u64) {
    let soak: u64 = std::env::var("QUIPU_SOAK").map_or(1, |times| times.parse().unwrap());
    let kills = kills * soak;
    let folder = folder();
    let path = folder.path();
    let mut random = Seeded(seed.wrapping_mul(soak));
    let mut known: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    let (mut replayed, mut carries, mut orphans, started) = (0, 0, 0, Instant::now());
    let mut generation = 0;
    // Whether a kill hits a carry is chance: where none of them did, there are more.
    while generation < kills || (generation < 10 * kills && (carries == 0 || replayed == 0)) {
        run_and_kill(path, &mut known, generation, retention, &mut random);
        let io = if generation % 4 == 0 { IoChoice::Plain } else { IoChoice::Auto };
        let engine = options(io, retention_named(retention)).open(path).unwrap();
        let recovery = engine.recovery();
        replayed += recovery.replayed();
        carries += recovery.shards.iter().map(|shard| shard.carries).sum::<usize>();
        orphans += recovery.shards.iter().map(|shard| shard.orphans).sum::<usize>();
        check(&engine, &mut known, generation);
        match random.below(3) {
            0 => engine.close().unwrap(),
            _ => drop(engine),
        }
        generation += 1;
    }
    let commits: u64 = known.iter().map(|known| known.at).sum();
    println!(
        "{generation} kills in {:?}: {commits} commits, {replayed} replayed, {carries} carries and {orphans} files cut off",
        started.elapsed()
    );
    assert!(carries > 0 && replayed > 0, "no kill hit a carry");
}

fn run_and_kill(path: &Path, known: &mut [Known], generation: u64, retention: &str, random: &mut Seeded) {
    let starts: Vec<String> = known.iter().map(|known| (known.at + 1).to_string()).collect();
    let mut command = child("writes_until_killed");
    command
        .env("FOLDER", path)
        .env("GENERATION", generation.to_string())
        .env("STARTS", starts.join(" "))
        .env("RETENTION", retention);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (acknowledged, acknowledgements) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut reported: Vec<(bool, usize, u64)> = Vec::new();
        for line in lines {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            if let [what @ ("S" | "A"), writer, number] = words[..] {
                // The last line may be cut off by the kill; then its number is too small, which is harmless
                // for "A", and for "S" cannot be, since it is reported in one write.
                if let (Ok(writer), Ok(number)) = (writer.parse(), number.parse()) {
                    reported.push((what == "A", writer, number));
                    if what == "A" {
                        let _ = acknowledged.send(());
                    }
                }
            }
        }
        reported
    });
    // Some are killed while they open; most while they write, some while they write a lot.
    match random.below(6) {
        0 => std::thread::sleep(Duration::from_millis(random.below(25))),
        kind => {
            for _ in 0..random.below(if kind == 1 { 1500 } else { 250 }) {
                acknowledgements.recv_timeout(PATIENCE).unwrap();
            }
            std::thread::sleep(Duration::from_micros(random.below(2000)));
        }
    }
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "child {generation} ended by itself: {ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    for (durable, writer, number) in reader.join().unwrap() {
        let known = &mut known[writer];
        match durable {
            true => known.durable = known.durable.max(number),
            false => known.submitted = known.submitted.max(number),
        }
    }
}

#[test]
fn kills_lose_nothing_acknowledged_with_a_base() {
    kill_again_and_again(1, "none", 25);
}

#[test]
fn kills_lose_nothing_acknowledged_with_all_history() {
    kill_again_and_again(2, "forever", 15);
}

#[test]
fn kills_lose_nothing_acknowledged_with_some_history() {
    kill_again_and_again(3, "last", 10);
}
