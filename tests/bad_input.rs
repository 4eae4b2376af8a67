//! Bad input of every kind: an error of the right type that names the thing and the limit, and nothing written.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{child, files, folder, plays, report};
use quipu::{
    Batch, Commit, Compression, Directory, Durability, Engine, Error, Local, Options, Retention, limits,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn is_invalid<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    names(&error, words);
}

fn names(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not named in: {text}");
    }
}

fn newest(engine: &Engine) -> u64 {
    engine.stats().wait().unwrap().total(|shard| shard.last.0)
}

/// An engine with one commit in `a`, and a directory handle of that.
fn engine(path: &Path, shards: u16) -> (Engine, Directory) {
    let engine = Options::new().shards(shards).log_file_bytes(8 << 20).open(path).unwrap();
    let directory = engine.directory("a").unwrap();
    directory.put("key", "value").wait().unwrap();
    (engine, directory)
}

#[test]
fn paths_that_break_the_grammar() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 2);
    for path in ["", "/", "/a", "a/", "a//b", "//"] {
        is_invalid(engine.directory(path), &["path", "empty component"]);
        is_invalid(engine.shard_of(path), &["path"]);
    }
    is_invalid(engine.directory(b"a/\xff\xfe"), &["path", "UTF-8", "byte 2"]);
    is_invalid(engine.directory("x".repeat(256)), &["256 bytes", "at most 255"]);
    is_invalid(engine.directory(format!("a/{}", "x".repeat(256))), &["at most 255"]);
    is_invalid(engine.directory(vec!["x"; 33].join("/")), &["33 components", "at most 32"]);
    let long = vec!["x".repeat(200); 21].join("/");
    is_invalid(engine.directory(&long), &["4220 bytes", "at most 4096"]);
    assert!(engine.directory(vec!["x".repeat(127); 32].join("/")).is_ok(), "32 components, 4095 bytes");
    let inside = engine.run_on(&directory, async |local: Local| local.directory("a//b").map(drop));
    is_invalid(inside.wait().unwrap(), &["a//b"]);

    // A root of two components needs two.
    let folder = procs::folder();
    let options = Options::new().shards(2).root_components(2).log_file_bytes(1 << 20);
    let engine = options.open(folder.path()).unwrap();
    is_invalid(engine.directory("a"), &["1 components", "root of this engine has 2"]);
}

#[test]
fn keys_values_and_batches_beyond_their_limits() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 2);
    let before = newest(&engine);
    let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    let value = vec![b'v'; limits::VALUE_BYTES_MAX + 1];
    let key_words = ["key", "16385 bytes", "at most 16384"];
    let value_words = ["value", "1048577 bytes", "at most 1048576"];

    is_invalid(directory.put("", "v").wait(), &["key", "empty", "at least one byte"]);
    is_invalid(directory.put(&key, "v").wait(), &key_words);
    is_invalid(directory.put("k", &value).wait(), &value_words);
    is_invalid(directory.delete("").wait(), &["key", "empty"]);
    is_invalid(directory.delete(&key).wait(), &key_words);
    is_invalid(directory.get("").wait(), &["key", "empty"]);
    is_invalid(directory.get(&key).wait(), &key_words);
    is_invalid(directory.get_many(["a", ""]).wait(), &["key", "empty"]);
    let snapshot = engine.snapshot(&directory).wait().unwrap();
    is_invalid(snapshot.get(&directory, "").wait(), &["key", "empty"]);
    is_invalid(snapshot.get_many(&directory, [&key]).wait(), &key_words);
    drop(snapshot);

    is_invalid(engine.commit(Batch::new()).wait(), &["batch", "empty"]);
    // One wrong operation spoils a batch, wherever it stands, until it is cleared.
    let mut batch = Batch::new();
    batch.put(&directory, "fine", "1").put(&directory, "", "2").put(&directory, "fine too", "3");
    is_invalid(engine.commit(batch).wait(), &["key", "empty"]);
    let mut batch = Batch::new();
    for number in 0..5u8 {
        batch.put(&directory, [number], vec![0; 1 << 20]);
    }
    is_invalid(engine.commit(batch).wait(), &["batch", "at most 4194304"]);
    let mut batch = Batch::new();
    for number in 0..=limits::BATCH_OPERATIONS_MAX as u32 {
        batch.delete(&directory, number.to_be_bytes());
    }
    is_invalid(engine.commit(batch).wait(), &["batch", "at most 65536 operations"]);

    let handle = directory.clone();
    let inside = engine.run_on(&directory, async move |local: Local| {
        is_invalid(local.put(&handle, "", "v").await, &["key", "empty"]);
        is_invalid(local.put(&handle, &key, "v").await, &key_words);
        is_invalid(local.put(&handle, "k", &value).await, &value_words);
        is_invalid(local.get(&handle, "").await, &["key", "empty"]);
        is_invalid(local.get_many(&handle, &["a", ""]).await, &["key", "empty"]);
        is_invalid(local.snapshot().get_many(&handle, &[&key]).await, &key_words);
        is_invalid(local.commit(&Batch::new()).await, &["batch", "empty"]);
        let mut batch = Batch::new();
        batch.put(&handle, "", "2");
        is_invalid(local.commit(&batch).await, &["key", "empty"]);
        batch.clear();
        assert!(batch.is_empty());
    });
    inside.wait().unwrap();
    let mut batch = Batch::new();
    batch.put(&directory, "k", "v");
    let minutes = Durability::Buffered { within: Duration::from_secs(61) };
    let error = engine.commit_with(batch, minutes).wait().unwrap_err();
    assert!(matches!(error, Error::Options { option: "durability", .. }), "{error:?}");
    names(&error, &["within", "60 s"]);
    assert_eq!(newest(&engine), before, "nothing was committed");

    // What is exactly at its limit is fine.
    directory.put(vec![b'k'; limits::KEY_BYTES_MAX], vec![b'v'; limits::VALUE_BYTES_MAX]).wait().unwrap();
    let mut batch = Batch::new();
    for number in 0..limits::BATCH_OPERATIONS_MAX as u32 {
        batch.delete(&directory, number.to_be_bytes());
    }
    engine.commit(batch).wait().unwrap();
}

/// A batch that fits its limits, and not the log files that the engine was created with.
#[test]
fn batches_larger_than_a_log_file() {
    let folder = folder();
    let engine = Options::new().shards(1).log_file_bytes(64 << 10).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    is_invalid(directory.put("k", vec![0; 100_000]).wait(), &["batch", "log file"]);
    assert_eq!(newest(&engine), 0);
    assert!(!directory.exists().wait().unwrap());
    directory.put("k", vec![0; 50_000]).wait().unwrap();
}

#[test]
fn ranges_that_are_reversed() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 1);
    let words = ["range", "reversed"];
    is_invalid(directory.range("b".."a").blocking().next().unwrap(), &words);
    is_invalid(directory.range("b"..="a").reverse().blocking().next().unwrap(), &words);
    is_invalid(directory.range("b".."a").blocking().next_back().unwrap(), &words);
    let mut scan = directory.range("b".."a").blocking();
    assert!(scan.next().unwrap().is_err() && scan.next().is_none(), "an error ends the scan");
    let snapshot = engine.snapshot(&directory).wait().unwrap();
    is_invalid(snapshot.range(&directory, "b".."a").unwrap().blocking().next().unwrap(), &words);
    let handle = directory.clone();
    let inside = engine.run_on(&directory, async move |local: Local| {
        is_invalid(local.range(&handle, "b".."a").map(drop), &words);
        is_invalid(local.snapshot().range(&handle, "b".."a").map(drop), &words);
    });
    inside.wait().unwrap();
    // Empty is not reversed.
    assert!(directory.range("a".."a").blocking().next().is_none());
}

#[test]
fn batches_over_two_roots() {
    for shards in [1, 4] {
        let folder = folder();
        let (engine, directory) = engine(folder.path(), shards);
        let before = newest(&engine);
        let other = engine.directory("other/users").unwrap();
        let mut batch = Batch::new();
        batch.put(&directory, "k", "v").put(&other, "k", "v").put(&directory, "l", "v");
        let error = engine.commit(batch).wait().unwrap_err();
        assert!(matches!(&error, Error::TwoRoots { first, second } if first == "a" && second == "other"));
        names(&error, &["\"a\"", "\"other\"", "one root"]);
        let error = directory.rename(&other).wait().unwrap_err();
        assert!(matches!(error, Error::TwoRoots { .. }), "{error:?}");
        assert_eq!(newest(&engine), before);
        assert!(!other.exists().wait().unwrap());
    }
}

#[test]
fn directories_that_cannot_be_renamed_or_dropped() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 1);
    let at = |path: &str| engine.directory(path).unwrap();
    at("a/b").put("k", "v").wait().unwrap();
    at("a/c").put("k", "v").wait().unwrap();
    let before = newest(&engine);
    is_invalid(directory.rename(&at("a/new")).wait(), &["\"a\"", "a root keeps its name"]);
    is_invalid(at("a/b").rename(&at("a/b/c")).wait(), &["\"a/b\"", "\"a/b/c\"", "into itself"]);
    is_invalid(at("a/b").rename(&at("a/b")).wait(), &["onto or into itself"]);
    let error = at("a/none").rename(&at("a/new")).wait().unwrap_err();
    assert!(matches!(&error, Error::NoDirectory { path } if path == "a/none"), "{error:?}");
    let error = at("a/b").rename(&at("a/c")).wait().unwrap_err();
    assert!(matches!(&error, Error::DirectoryExists { path } if path == "a/c"), "{error:?}");
    let error = at("a/none").remove().wait().unwrap_err();
    assert!(matches!(&error, Error::NoDirectory { path } if path == "a/none"), "{error:?}");
    assert_eq!(newest(&engine), before);
}

#[test]
fn a_root_of_another_shard() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 3);
    let other = (0..).map(|number| engine.directory(format!("other{number}")).unwrap());
    let other = { other }.find(|other| other.shard() != directory.shard()).unwrap();
    let before = newest(&engine);
    let (shard, lives) = (directory.shard(), other.shard());
    let is_wrong = move |error: Error| {
        assert!(
            matches!(&error, Error::WrongShard { lives_on, shard: asked, .. } if (*lives_on, *asked) == (lives, shard)),
            "{error:?}"
        );
    };
    let handle = other.clone();
    let inside = engine.run_on(&directory, async move |local: Local| {
        is_wrong(local.put(&handle, "k", "v").await.unwrap_err());
        is_wrong(local.delete(&handle, "k").await.unwrap_err());
        let mut batch = Batch::new();
        batch.put(&handle, "k", "v");
        is_wrong(local.commit(&batch).await.unwrap_err());
        is_wrong(local.get(&handle, "k").await.unwrap_err());
        is_wrong(local.get_many(&handle, &["k"]).await.unwrap_err());
        is_wrong(local.iter(&handle).unwrap_err());
        is_wrong(local.exists(&handle).await.unwrap_err());
        is_wrong(local.snapshot().get(&handle, "k").await.unwrap_err());
    });
    inside.wait().unwrap();
    let snapshot = engine.snapshot(&directory).wait().unwrap();
    is_wrong(snapshot.get(&other, "k").wait().unwrap_err());
    is_wrong(snapshot.iter(&other).unwrap_err());
    is_invalid(engine.run_on_shard(3, async |_| ()).wait(), &["shard 3", "3 shards"]);
    assert_eq!(newest(&engine), before);
}

/// A handle of one engine, given to another.
#[test]
fn handles_of_another_engine() {
    let folders = (folder(), folder());
    let (many, foreign) = engine(folders.0.path(), 8);
    let (engine, own) = engine(folders.1.path(), 1);
    let words = ["directory \"a\"", "another engine"];
    let mut batch = Batch::new();
    batch.put(&foreign, "key", "value");
    is_invalid(engine.commit(batch).wait(), &["another engine"]);
    // With more shards or as many: it is not looked at.
    for shards in [&foreign, &many.directory("b").unwrap()] {
        let path = format!("directory {:?}", shards.path());
        let words = [&path[..], "another engine"];
        is_invalid(engine.snapshot(shards).wait(), &words);
        is_invalid(engine.as_of(shards, Commit(1)).wait(), &words);
        is_invalid(engine.retained(shards).wait(), &words);
        is_invalid(engine.run_on(shards, async |_: Local| ()).wait(), &words);
    }
    let snapshot = engine.snapshot(&own).wait().unwrap();
    is_invalid(snapshot.get(&foreign, "key").wait(), &words);
    is_invalid(snapshot.iter(&foreign).map(drop), &words);
    let copy = foreign.clone();
    let inside = engine.run_on(&own, async move |local: Local| local.get(&copy, "key").await);
    is_invalid(inside.wait().unwrap(), &words);
}

/// A shard that waited for itself would wait for ever.
#[test]
fn waits_on_a_shards_own_thread() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 1);
    let handle = directory.clone();
    let waited =
        engine.run_on(&directory, async move |_: Local| handle.put("more", "value").wait().map(drop));
    is_invalid(waited.wait().unwrap(), &["wait", "shard's thread"]);
    let handle = directory.clone();
    let scanned = engine.run_on(&directory, async move |_: Local| {
        handle.iter().blocking().next().unwrap_or(Ok(Default::default())).map(drop)
    });
    is_invalid(scanned.wait().unwrap(), &["wait", "shard's thread"]);
    assert!(directory.get("key").wait().unwrap().is_some(), "the shard goes on");
}

/// All roots of all shards, page by page, however many components a root has.
#[test]
fn roots_are_listed_in_pages() {
    for components in 1..=3u8 {
        let folder = folder();
        let options = Options::new().shards(3).root_components(components).log_file_bytes(1 << 20);
        let engine = options.open(folder.path()).unwrap();
        let mut roots = Vec::new();
        for number in 0..30u32 {
            // Names of which one is a prefix of another, and '-', which comes before '/'.
            let names = [["a", "a-b", "ab", "b"][number as usize % 4], ["x", "x-", "y"][number as usize % 3]];
            let last = format!("n{number:02}");
            let root = match components {
                1 => last,
                2 => format!("{}/{last}", names[0]),
                _ => format!("{}/{}/{last}", names[0], names[1]),
            };
            engine.directory(format!("{root}/below")).unwrap().put("key", "value").wait().unwrap();
            roots.push(root);
        }
        roots.sort_by(|one, other| one.split('/').cmp(other.split('/')));
        for page in [1, 7, 100] {
            let mut listed: Vec<String> = Vec::new();
            loop {
                let names = engine.roots(listed.last().map(String::as_str), page).wait().unwrap();
                assert!(names.len() <= page);
                if names.is_empty() {
                    break;
                }
                listed.extend(names);
            }
            assert_eq!(listed, roots, "{components} components, pages of {page}");
        }
        engine.close().unwrap();
    }
}

#[test]
fn commits_that_cannot_be_read_as_of() {
    let folder = folder();
    let (engine, directory) = engine(folder.path(), 1);
    directory.put("key", "2").wait().unwrap();
    for asked in [Commit(0), Commit(1), Commit(3), Commit(u64::MAX)] {
        let error = engine.as_of(&directory, asked).wait().unwrap_err();
        assert!(
            matches!(error, Error::NotRetained { asked: named, nearest: Some(Commit(2)), .. } if named == asked),
            "{error:?}"
        );
    }
}

fn is_option<T: std::fmt::Debug>(result: Result<T, Error>, name: &str, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Options { option, .. } if *option == name), "{error:?}");
    names(&error, words);
}

#[test]
fn options_that_make_no_sense_create_nothing() {
    let folder = folder();
    let path = folder.path().join("new");
    let open = |options: Options| options.open(&path);
    is_option(open(Options::new().shards(0)), "shards", &["1 to 1024"]);
    is_option(open(Options::new().shards(1025)), "shards", &["1 to 1024"]);
    is_option(open(Options::new().divisor(1)), "divisor", &["2 to 16"]);
    is_option(open(Options::new().divisor(17)), "divisor", &["2 to 16"]);
    is_option(open(Options::new().root_components(0)), "root_components", &["1 to 4"]);
    is_option(open(Options::new().root_components(5)), "root_components", &["1 to 4"]);
    is_option(open(Options::new().base_ratio(0)), "base_ratio", &["1 to 1024"]);
    is_option(open(Options::new().part_bytes(1)), "part_bytes", &["64 KiB"]);
    is_option(open(Options::new().flush_bytes(1)), "flush_bytes", &["1 KiB"]);
    is_option(open(Options::new().log_file_bytes(4096)), "log_file_bytes", &["multiple of 4096"]);
    is_option(open(Options::new().log_file_bytes(1_000_000)), "log_file_bytes", &["multiple of 4096"]);
    is_option(open(Options::new().log_file_bytes((1 << 30) + 4096)), "log_file_bytes", &["1 GiB"]);
    is_option(open(Options::new().log_files_max(0)), "log_files_max", &["3 to 100"]);
    is_option(open(Options::new().log_depth(0)), "log_depth", &["1 to 64"]);
    is_option(open(Options::new().group_bytes(0)), "group_bytes", &["4096"]);
    is_option(open(Options::new().mailbox(0)), "mailbox", &["1 to 1048576"]);
    is_option(open(Options::new().linger(Duration::from_millis(1))), "linger", &["500 us"]);
    let minutes = Durability::Buffered { within: Duration::from_secs(61) };
    is_option(open(Options::new().durability(minutes)), "durability", &["60 s"]);
    assert!(!path.exists());
}

#[test]
fn options_that_contradict_those_of_creation() {
    let folder = folder();
    let path = folder.path();
    let (engine, _) = engine(path, 2);
    engine.close().unwrap();
    let before = files(path);
    let cases = [
        ("shards", Options::new().shards(3)),
        ("divisor", Options::new().divisor(8)),
        ("root_components", Options::new().root_components(2)),
        ("compression", Options::new().compression(Compression::Lz4)),
        ("base_ratio", Options::new().base_ratio(9)),
        ("part_bytes", Options::new().part_bytes(1 << 20)),
        ("flush_bytes", Options::new().flush_bytes(1 << 20)),
        ("log_file_bytes", Options::new().log_file_bytes(1 << 20)),
    ];
    for (name, options) in cases {
        is_option(options.open(path), name, &["was created with", "leave the option out"]);
    }
    assert_eq!(files(path), before);
    // Left out, they are those of creation; and retention may change.
    let engine = Options::new().retention(Retention::Last(10)).open(path).unwrap();
    assert_eq!(engine.shards(), 2);
    engine.close().unwrap();
}

#[test]
fn folders_that_are_none_or_not_quipus() {
    let folder = folder();
    let path = folder.path();
    let refused = |path: &Path, words: &[&str]| {
        let error = Engine::open(path).unwrap_err();
        assert!(matches!(&error, Error::NotAnEngine { path: named, .. } if named == path), "{error:?}");
        names(&error, words);
        names(&error, &[path.to_str().unwrap()]);
    };
    fs::write(path.join("file"), "mine").unwrap();
    refused(&path.join("file"), &["a file, not a folder"]);
    refused(&path.join("file/below"), &["a file stands where"]);
    refused(path, &["not a Quipu folder", "\"file\"", "empty or new folder"]);
    assert_eq!(files(path).len(), 1);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"mine");

    let absent = path.join("absent");
    let error = Options::new().create(false).open(&absent).unwrap_err();
    assert!(matches!(error, Error::NotAnEngine { .. }), "{error:?}");
    names(&error, &["absent", "not to create"]);
    assert!(!absent.exists());

    // Written by a version of another time.
    let other = path.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("QUIPU"), "quipu format 99\nengine = 1\n").unwrap();
    let before = files(&other);
    refused(&other, &["quipu format 99", "quipu format 1"]);
    assert!(files(&other).iter().all(|(name, bytes)| name.ends_with("LOCK") || before[name] == *bytes));
    // Neither here nor there: no one can make a folder under /proc.
    let error = Engine::open("/proc/quipu-cannot-be-here").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    names(&error, &["/proc/quipu-cannot-be-here"]);
}

/// The child: has the folder open until its input ends.
#[test]
fn holds_the_folder() {
    if !plays("holds_the_folder") {
        return;
    }
    let engine = Engine::open(std::env::var("FOLDER").unwrap()).unwrap();
    report("\nopen");
    let _ = std::io::stdin().read_line(&mut String::new());
    engine.close().unwrap();
}

#[test]
fn a_folder_that_is_held() {
    let folder = folder();
    let path = folder.path();
    let is_locked = || {
        let error = Engine::open(path).unwrap_err();
        assert!(matches!(&error, Error::Locked { path: named } if named == path), "{error:?}");
        names(&error, &[path.to_str().unwrap(), "already open"]);
    };
    let (first, directory) = engine(path, 1);
    is_locked();
    drop(first);
    // The directory's handle keeps it open.
    is_locked();
    drop(directory);
    let mut held = child("holds_the_folder")
        .env("FOLDER", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "open"), "the child opens it");
    is_locked();
    drop(held.stdin.take());
    lines.for_each(drop);
    assert!(held.wait().unwrap().success());
    let engine = Engine::open(path).unwrap();
    assert!(engine.directory("a").unwrap().get("key").wait().unwrap().is_some());
}

/// A folder that cannot be written to. The superuser is not stopped by permissions, so it is one mounted read-only.
#[test]
fn a_read_only_folder() {
    let folder = folder();
    let (path, mounted) = (folder.path().join("engine"), folder.path().join("mounted"));
    let (engine, _) = engine(&path, 1);
    engine.close().unwrap();
    fs::create_dir(&mounted).unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = Command::new("mount");
        command.args(arguments).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let mount_point = mounted.to_str().unwrap();
    if !mount(&["--bind", path.to_str().unwrap(), mount_point]) {
        return println!("skipped: a folder cannot be mounted read-only here");
    }
    let read_only = mount(&["-o", "remount,bind,ro", mount_point]);
    let before = files(&path);
    let existing = read_only.then(|| Engine::open(&mounted).map(drop));
    let new = read_only.then(|| Engine::open(mounted.join("new")).map(drop));
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
    let (Some(existing), Some(new)) = (existing, new) else {
        return println!("skipped: a folder cannot be mounted read-only here");
    };
    for result in [existing, new] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
        names(&error, &[mount_point, "ead-only"]);
    }
    assert_eq!(files(&path), before);
}
