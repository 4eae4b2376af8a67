//! A file system that can only be read: opening an engine there is refused with an error that says what to do, and nothing
//! is touched. Once it can be written, all is there.
//!
//! It takes a mount in a namespace of the test's own. Where that is forbidden, the test says so and does nothing.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{child_with_mounts, files, folder, plays};
use quipu::{Engine, Error, IoChoice, Options};
use std::path::Path;

/// Makes what is at a path readable only.
const READ_ONLY: &str =
    r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && export QUIPU_TEST_FOLDER="$0""#;
const FOLDER: &str = "QUIPU_TEST_FOLDER";

fn options(io: IoChoice) -> Options {
    Options::new().shards(2).log_file_bytes(64 << 10).log_files_max(4).flush_bytes(8 << 10).io(io)
}

fn write(folder: &Path, crash: bool) {
    let engine = options(IoChoice::Auto).open(folder).unwrap();
    for root in ["a", "b", "c"] {
        let directory = engine.directory(root).unwrap();
        for number in 0..60 {
            directory.put(format!("key{number}"), vec![number; 300]).wait().unwrap();
        }
    }
    match crash {
        // The log stays open, and carries may be on their way.
        true => std::process::exit(0),
        false => engine.close().unwrap(),
    }
}

fn check(engine: &Engine) {
    for root in ["a", "b", "c"] {
        let directory = engine.directory(root).unwrap();
        assert_eq!(directory.iter().blocking().count(), 60);
        assert_eq!(directory.get("key59").wait().unwrap().as_deref(), Some(&[59; 300][..]));
    }
}

fn is_refused(opened: Result<Engine, Error>) {
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("read-only") && text.contains("mount it for writing"), "{text}");
}

/// In the namespace: the folder can only be read.
#[test]
fn opens_what_can_only_be_read() {
    if !plays("opens_what_can_only_be_read") {
        return;
    }
    let path = std::env::var_os(FOLDER).unwrap();
    let path = Path::new(&path);
    assert!(std::fs::write(path.join("probe"), "").is_err(), "it can be written");
    for io in [IoChoice::Auto, IoChoice::Plain] {
        for engine in ["closed", "crashed"] {
            is_refused(options(io).open(path.join(engine)));
            is_refused(options(io).create(false).open(path.join(engine)));
        }
        // One that is not there cannot be created.
        is_refused(options(io).open(path.join("new")));
        is_refused(options(io).open(path.join("empty")));
    }
}

#[test]
fn writes_and_ends_without_closing() {
    if plays("writes_and_ends_without_closing") {
        write(Path::new(&std::env::var_os(FOLDER).unwrap()), true);
    }
}

#[test]
fn a_read_only_file_system_is_refused_and_nothing_is_touched() {
    let folder = folder();
    write(&folder.path().join("closed"), false);
    let mut child = procs::child("writes_and_ends_without_closing");
    assert!(child.env(FOLDER, folder.path().join("crashed")).status().unwrap().success());
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let before = files(folder.path());
    match child_with_mounts("opens_what_can_only_be_read", folder.path(), READ_ONLY) {
        Ok(()) => {}
        Err(why) => return println!("skipped, since nothing can be mounted here: {why}"),
    }
    assert_eq!(files(folder.path()), before);
    for engine in ["closed", "crashed"] {
        check(&options(IoChoice::Auto).open(folder.path().join(engine)).unwrap());
    }
}
