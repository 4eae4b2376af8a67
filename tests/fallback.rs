//! Without io_uring: the engine runs on plain system calls, and says so; or refuses, if it is told to.
//!
//! A child process forbids itself io_uring with a seccomp filter, as containers do, and runs the engine.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{child, folder, plays, report};
use quipu::{Engine, Error, IoChoice, Options};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::path::PathBuf;

/// From here on, io_uring is forbidden to this process: its threads and children, too.
fn forbid_io_uring() {
    // io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
    let rules = [425, 426, 427].map(|call| (call, Vec::new()));
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(1), // EPERM
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

fn small() -> Options {
    Options::new().shards(2).log_file_bytes(256 << 10).flush_bytes(32 << 10).part_bytes(64 << 10)
}

/// The child.
#[test]
fn runs_without_io_uring() {
    if !plays("runs_without_io_uring") {
        return;
    }
    forbid_io_uring();
    let path = PathBuf::from(std::env::var("FOLDER").unwrap());

    let refused = small().io(IoChoice::Require).open(path.join("refused")).unwrap_err();
    assert!(matches!(refused, Error::NoIoUring { .. }), "{refused:?}");
    let text = refused.to_string();
    let words = ["io_uring", "seccomp", "allow io_uring_setup"];
    assert!(words.iter().all(|word| text.contains(word)), "says what to change: {text}");

    let engine = small().open(path.join("engine")).unwrap();
    assert_eq!(engine.io_kind(), "plain system calls");
    let why = engine.io_fallback().unwrap();
    assert!(why.contains("seccomp"), "says why: {why}");
    let stats = engine.stats().wait().unwrap();
    assert!(stats.shards.iter().all(|shard| shard.io_kind == "plain system calls"));
    work(&engine, 0);

    // Chosen rather than suffered, it is nothing to tell about.
    engine.close().unwrap();
    let engine = small().io(IoChoice::Plain).open(path.join("engine")).unwrap();
    assert_eq!((engine.io_kind(), engine.io_fallback()), ("plain system calls", None));
    work(&engine, 1);
    engine.close().unwrap();
    report("done");
}

/// Commits, reads and carries; also from a task on the shard's core, with a timer.
fn work(engine: &Engine, round: u64) {
    let directory = engine.directory("a/b").unwrap();
    let answers: Vec<_> = (0..2000u64)
        .map(|number| directory.put(format!("key{:04}", number % 500), format!("{round} {number}")))
        .collect();
    for answer in answers {
        answer.wait().unwrap();
    }
    let handle = directory.clone();
    let on_core = engine.run_on(&directory, async move |local| {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        local.put(&handle, "on core", format!("{round}")).await.unwrap();
        local.get(&handle, "on core").await.unwrap()
    });
    assert_eq!(on_core.wait().unwrap().unwrap(), format!("{round}"));
    check(engine, round);
    assert!(engine.stats().wait().unwrap().total(|shard| shard.carries_done()) > 0);
}

fn check(engine: &Engine, round: u64) {
    let directory = engine.directory("a/b").unwrap();
    let entries: Vec<_> = directory.prefix("key").blocking().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 500);
    for (number, (key, value)) in (1500..).zip(entries) {
        assert_eq!(key, format!("key{:04}", number % 500));
        assert_eq!(value, format!("{round} {number}"));
    }
}

#[test]
fn without_io_uring_the_engine_falls_back_and_says_so() {
    let folder = folder();
    let output = child("runs_without_io_uring").env("FOLDER", folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("done"), "the child did its part");
    assert!(!folder.path().join("refused/QUIPU").exists(), "what was refused was not created");
    // What it wrote reads the same here, on io_uring if it is to be had.
    let engine = small().open(folder.path().join("engine")).unwrap();
    check(&engine, 1);
}
