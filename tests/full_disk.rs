//! A disk that is full: an error that says so, reads go on, and commits go on when there is space again.
//!
//! It takes a small file system of its own, mounted from an image. That takes the superuser; where it is not permitted,
//! one in memory does, in a namespace of the test's own. Where that is forbidden, too, the test says so and does nothing;
//! the simulated disk has its own.

#![allow(clippy::unwrap_used)]

mod procs;

use procs::{child_with_mounts, eventually, folder};
use quipu::{Engine, Error, IoChoice, Options};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// How large the file systems are.
const MEGABYTES: u64 = 24;

/// The variable that says where a child finds a small file system.
const SMALL_DISK: &str = "QUIPU_TEST_SMALL_DISK";

/// A mounted file system of a few megabytes.
struct SmallDisk {
    path: PathBuf,
    // Dropped after it is unmounted; of one that somebody else mounted, nothing.
    folder: Option<TempDir>,
}

impl SmallDisk {
    fn mount(megabytes: u64) -> Result<Self, String> {
        let folder = folder();
        let (image, path) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).and_then(|file| file.set_len(megabytes << 20)).unwrap();
        fs::create_dir(&path).unwrap();
        let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
        Ok(SmallDisk { path, folder: Some(folder) })
    }

    /// What this process was given, or else one of its own.
    fn get() -> Result<Self, String> {
        match std::env::var_os(SMALL_DISK) {
            Some(path) => Ok(SmallDisk { path: path.into(), folder: None }),
            None => Self::mount(MEGABYTES),
        }
    }

    /// Takes all the space there is. Removing the file gives it back.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = File::options().create(true).append(true).open(&filler).unwrap();
        for bytes in [1 << 20, 4096] {
            while file.write_all(&vec![7; bytes]).and_then(|()| file.sync_data()).is_ok() {}
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.folder.is_some() {
            let _ = Command::new("umount").arg(&self.path).status();
        }
    }
}

fn open(disk: &SmallDisk, io: IoChoice) -> Result<Engine, Error> {
    Options::new()
        .shards(2)
        .log_file_bytes(256 << 10)
        .log_files_max(4)
        .flush_bytes(64 << 10)
        .part_bytes(64 << 10)
        .memtable_bytes(4 << 20)
        .io(io)
        .open(disk.path.join("engine"))
}

fn check(engine: &Engine, model: &BTreeMap<String, Vec<u8>>, maybe: &BTreeMap<String, Vec<u8>>) {
    let directory = engine.directory("a/b").unwrap();
    let mut found = 0;
    for entry in directory.iter().blocking() {
        let (key, value) = entry.unwrap();
        let key = String::from_utf8(key.to_vec()).unwrap();
        let expected = model.get(&key) == Some(&value.to_vec());
        assert!(expected || maybe.get(&key) == Some(&value.to_vec()), "{key} is wrong");
        found += usize::from(model.contains_key(&key));
    }
    assert_eq!(found, model.len());
}

/// `role` is the test function that called.
fn fill_and_go_on(io: IoChoice, role: &str) {
    let disk = match SmallDisk::get() {
        Ok(disk) => disk,
        Err(why) => {
            let folder = folder();
            let mounts =
                format!("mount -t tmpfs -o size={MEGABYTES}m none \"$0\" && export {SMALL_DISK}=\"$0\"");
            return match child_with_mounts(role, folder.path(), &mounts) {
                Ok(()) => println!("in memory, since no image can be mounted here: {why}"),
                Err(also) => println!("skipped, since no file system can be mounted here: {why}; {also}"),
            };
        }
    };
    let mut engine = open(&disk, io).unwrap();
    let mut directory = engine.directory("a/b").unwrap();
    let mut model = BTreeMap::new();
    let mut maybe = BTreeMap::new();
    let mut number = 0u64;
    let mut put = |directory: &quipu::Directory, model: &mut BTreeMap<_, _>, maybe: &mut BTreeMap<_, _>| {
        number += 1;
        let (key, value) = (format!("key{:05}", number % 3000), vec![number as u8; 500]);
        let result = directory.put(&key, &value).wait();
        match result {
            Ok(_) => drop(model.insert(key, value)),
            Err(_) => drop(maybe.insert(key, value)),
        }
        result
    };
    for _ in 0..400 {
        put(&directory, &mut model, &mut maybe).unwrap();
    }
    for round in 0..3 {
        let filler = disk.fill();
        let error = (0..200_000).find_map(|_| put(&directory, &mut model, &mut maybe).err());
        let error = error.unwrap_or_else(|| panic!("round {round}: a full disk takes everything"));
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        assert!(error.to_string().contains("no space"), "{error}");
        // What failed once may have become possible; what is there can be read.
        check(&engine, &model, &maybe);
        let stats = engine.stats().wait().unwrap();
        assert!(stats.shards.iter().all(|shard| shard.poisoned.is_none()));
        if round == 1 {
            // Also when it was opened on a full disk, if it can be.
            engine.close().unwrap();
            match open(&disk, io) {
                Ok(opened) => check(&opened, &model, &maybe),
                Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error:?}"),
            }
            fs::remove_file(&filler).unwrap();
            engine = open(&disk, io).unwrap();
            directory = engine.directory("a/b").unwrap();
        } else {
            fs::remove_file(&filler).unwrap();
        }
        eventually("commits go on", || put(&directory, &mut model, &mut maybe).is_ok());
        for _ in 0..400 {
            put(&directory, &mut model, &mut maybe).unwrap();
        }
        check(&engine, &model, &maybe);
    }
    engine.close().unwrap();
    check(&open(&disk, io).unwrap(), &model, &maybe);
    assert!(!Path::new(&disk.path).join("filler").exists());
}

#[test]
fn a_full_disk_stops_commits_until_there_is_space() {
    fill_and_go_on(IoChoice::Auto, "a_full_disk_stops_commits_until_there_is_space");
}

#[test]
fn a_full_disk_on_plain_system_calls() {
    fill_and_go_on(IoChoice::Plain, "a_full_disk_on_plain_system_calls");
}
