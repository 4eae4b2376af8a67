//! Tasks on the shards' own cores: thousands of commits in flight, timers, sockets and files beside the data,
//! and what becomes of tasks that panic or are still there at the end.

#![allow(clippy::unwrap_used)]

mod procs;

use futures_util::FutureExt;
use procs::{eventually, folder, within_minutes};
use quipu::{Batch, Commit, Directory, Durability, Engine, Error, IoChoice, Local, Options, Retention};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;

fn small() -> Options {
    Options::new().shards(1).log_file_bytes(256 << 10).flush_bytes(32 << 10).part_bytes(64 << 10)
}

/// Runs a test with io_uring, where it is to be had, and with plain system calls.
fn on_each_io(test: impl Fn(&Engine, &Directory) + Send + Copy + 'static) {
    for io in [IoChoice::Auto, IoChoice::Plain] {
        within_minutes("work on the shard's core", move || {
            let folder = folder();
            let engine = small().io(io).open(folder.path()).unwrap();
            let directory = engine.directory("a/b").unwrap();
            test(&engine, &directory);
            engine.close().unwrap();
        });
    }
}

#[test]
fn thousands_in_flight_as_plain_tasks() {
    on_each_io(|engine, directory| {
        const TASKS: u32 = 3000;
        let handle = directory.clone();
        let numbers = engine.run_on(directory, async move |local: Local| {
            let numbers = Rc::new(RefCell::new(Vec::new()));
            let (ended, mut all_ended) = tokio::sync::mpsc::channel::<()>(1);
            for task in 0..TASKS {
                let (task_local, handle, numbers) = (local.clone(), handle.clone(), numbers.clone());
                let ended = ended.clone();
                local.spawn(async move {
                    let key = format!("key{task:05}");
                    let id = task_local.put(&handle, &key, task.to_be_bytes()).await.unwrap();
                    let got = task_local.get(&handle, &key).await.unwrap().unwrap();
                    assert_eq!(got[..], task.to_be_bytes());
                    numbers.borrow_mut().push(id.number.0);
                    drop(ended);
                });
            }
            drop(ended);
            all_ended.recv().await;
            numbers.take()
        });
        let mut numbers = numbers.wait().unwrap();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=u64::from(TASKS)), "gapless, each once");
        assert_eq!(directory.iter().blocking().count(), TASKS as usize);
        let stats = engine.stats().wait().unwrap();
        assert_eq!(stats.shards[0].durable, Commit(u64::from(TASKS)));
        assert!(stats.shards[0].log_groups < u64::from(TASKS) / 4, "commits share log writes");
    });
}

/// Keeps the shard busy until `done`: commits, each awaited, so that there is always one on its way.
fn keep_busy(local: &Local, directory: &Directory, done: Rc<Cell<bool>>) {
    for task in 0..8 {
        let (task_local, directory, done) = (local.clone(), directory.clone(), done.clone());
        local.spawn(async move {
            let mut number = 0u64;
            while !done.get() {
                let key = format!("busy{task} {}", number % 100);
                task_local.put(&directory, key, [7; 200]).await.unwrap();
                number += 1;
            }
        });
    }
}

#[test]
fn timers_and_sockets_beside_the_data() {
    on_each_io(|engine, directory| {
        let handle = directory.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let server = engine.run_on(directory, async move |local: Local| {
            let done = Rc::new(Cell::new(false));
            keep_busy(&local, &handle, done.clone());
            // One that never waits for anything. (It would hold back tokio-uring's files, but nothing else.)
            let spinning = done.clone();
            local.spawn(async move {
                while !spinning.get() {
                    tokio::task::yield_now().await;
                }
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
            let late = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
            assert!(late.is_err());

            let (mut one, mut other) = UnixStream::pair().unwrap();
            let echo = async {
                let mut bytes = [0; 5];
                other.read_exact(&mut bytes).await.unwrap();
                other.write_all(&bytes).await.unwrap();
            };
            let mut answer = [0; 5];
            let ask = async {
                one.write_all(b"quipu").await.unwrap();
                one.read_exact(&mut answer).await.unwrap();
            };
            tokio::join!(echo, ask);
            assert_eq!(&answer, b"quipu");

            // A server of "key value" and "key" lines.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut lines = tokio::io::BufReader::new(reader).lines();
            let mut served = 0;
            while let Some(line) = lines.next_line().await.unwrap() {
                let answer = match line.split_once(' ') {
                    Some((key, value)) => {
                        let id = local.put(&handle, key, value).await.unwrap();
                        format!("{}\n", id.number)
                    }
                    None => {
                        let value = local.get(&handle, &line).await.unwrap().unwrap_or_default();
                        format!("{}\n", String::from_utf8_lossy(&value))
                    }
                };
                writer.write_all(answer.as_bytes()).await.unwrap();
                served += 1;
            }
            done.set(true);
            served
        });
        let mut stream = TcpStream::connect(told.recv().unwrap()).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        for number in 0..50 {
            stream.write_all(format!("key{number} value{number}\n").as_bytes()).unwrap();
            assert!(lines.next().unwrap().parse::<u64>().unwrap() > 0);
            stream.write_all(format!("key{number}\n").as_bytes()).unwrap();
            assert_eq!(lines.next().unwrap(), format!("value{number}"));
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(server.wait().unwrap(), 100);
    });
}

/// A file of tokio-uring's, on the shard's core, while the shard has work without end.
#[test]
fn tokio_uring_files_beside_a_busy_shard() {
    on_each_io(|engine, directory| {
        if engine.io_kind() != "io_uring" {
            return println!("skipped on {}: there is no io_uring for tokio-uring either", engine.io_kind());
        }
        let beside = folder();
        let (handle, path) = (directory.clone(), beside.path().join("beside"));
        let work = engine.run_on(directory, async move |local: Local| {
            let done = Rc::new(Cell::new(false));
            keep_busy(&local, &handle, done.clone());
            let file = tokio_uring::fs::File::create(&path).await.unwrap();
            for block in 0..50u64 {
                let (result, _) = file.write_all_at(vec![block as u8; 4096], block * 4096).await;
                result.unwrap();
            }
            file.sync_all().await.unwrap();
            file.close().await.unwrap();
            let file = tokio_uring::fs::File::open(&path).await.unwrap();
            for block in (0..50u64).rev() {
                let (result, bytes) = file.read_exact_at(vec![0; 4096], block * 4096).await;
                result.unwrap();
                assert!(bytes.iter().all(|&byte| byte == block as u8));
            }
            file.close().await.unwrap();
            done.set(true);
        });
        work.wait().unwrap();
    });
}

/// The same beside threads that ask again as soon as they are answered, so that the shard hardly ever sleeps.
#[test]
fn tokio_uring_files_beside_threads_that_ask_again() {
    on_each_io(|engine, directory| {
        if engine.io_kind() != "io_uring" {
            return println!("skipped on {}: there is no io_uring for tokio-uring either", engine.io_kind());
        }
        directory.put("key", "value").wait().unwrap();
        let read = || drop(directory.get("key").wait().unwrap());
        let put = || {
            let mut batch = Batch::new();
            batch.put(directory, "key", "value");
            let within = Duration::from_secs(1);
            engine.commit_with(batch, Durability::Buffered { within }).wait().unwrap();
        };
        let asks: [&(dyn Fn() + Sync); 2] = [&read, &put];
        for ask in asks {
            let beside = folder();
            let path = beside.path().join("beside");
            let done = AtomicBool::new(false);
            let written = std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            ask();
                        }
                    });
                }
                let work = engine.run_on(directory, async move |_: Local| -> std::io::Result<()> {
                    let file = tokio_uring::fs::File::create(&path).await?;
                    for block in 0..200u64 {
                        file.write_all_at(vec![block as u8; 512], block * 512).await.0?;
                    }
                    file.close().await
                });
                let written = work.wait();
                done.store(true, Ordering::Relaxed);
                written
            });
            written.unwrap().unwrap();
        }
    });
}

/// A closure that looks at entries panics, and is caught: the scan stands where it was, and goes on with whole entries.
#[test]
fn a_scan_goes_on_after_a_look_that_panicked() {
    let folder = folder();
    let engine = small().open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    // Many of them in segments, where they are shown in runs.
    for number in 0..1000u32 {
        drop(directory.put(number.to_be_bytes(), format!("value of {number}")));
    }
    engine.barrier().wait().unwrap();
    let handle = directory.clone();
    let work = engine.run_on(&directory, async move |local: Local| {
        for bad in (0..1000u32).step_by(37) {
            let mut scan = local.iter(&handle).unwrap();
            let showing = scan.for_each(|key, _| {
                assert!(*key != bad.to_be_bytes(), "a look panics, as it should in this test");
                ControlFlow::Continue(())
            });
            assert!(AssertUnwindSafe(showing).catch_unwind().await.is_err());
            let mut expected = bad;
            while let Some((key, value)) = scan.next_ref().await.unwrap() {
                let number = u32::from_be_bytes(key.try_into().unwrap());
                assert_eq!(value, format!("value of {number}").as_bytes());
                // The one it panicked at comes again, or does not.
                assert!(number == expected || (expected == bad && number == bad + 1), "{number} after {bad}");
                expected = number + 1;
            }
            assert_eq!(expected.max(bad + 1), 1000);
        }
    });
    work.wait().unwrap();
}

#[test]
fn a_task_that_panics_takes_nothing_with_it() {
    on_each_io(|engine, directory| {
        directory.put("before", "1").wait().unwrap();
        let handle = directory.clone();
        let spawned = engine.run_on(directory, async move |local: Local| {
            let inner = local.clone();
            let inner_handle = handle.clone();
            local.spawn(async move {
                inner.put(&inner_handle, "within", "1").await.unwrap();
                panic!("a spawned task panics, as it should in this test");
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            local.put(&handle, "after", "1").await.unwrap();
        });
        spawned.wait().unwrap();
        let awaited = engine.run_on(directory, async |_: Local| -> u8 {
            tokio::task::yield_now().await;
            panic!("a task panics, as it should in this test")
        });
        assert!(matches!(awaited.wait(), Err(Error::Panicked { shard: 0 })));
        let at_once = engine.run_on(directory, |_: Local| -> std::future::Ready<u8> {
            panic!("a closure panics before it is a task, as it should in this test")
        });
        assert!(matches!(at_once.wait(), Err(Error::Panicked { shard: 0 })));
        // Dropped in the middle of a commit and of a read.
        let handle = directory.clone();
        let dropped = engine.run_on(directory, async move |local: Local| {
            for number in 0..200u8 {
                drop(local.put(&handle, [number], [number]));
                drop(local.get(&handle, [number]));
            }
        });
        dropped.wait().unwrap();
        directory.put("last", "1").wait().unwrap();
        for key in ["before", "within", "after", "last"] {
            assert!(directory.get(key).wait().unwrap().is_some(), "{key}");
        }
        assert_eq!(directory.iter().blocking().count(), 204);
    });
}

/// A value that tells when it is dropped.
struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn closing_drops_tasks_that_still_run() {
    within_minutes("closing with tasks", || {
        for io in [IoChoice::Auto, IoChoice::Plain] {
            let folder = folder();
            let engine = small().io(io).open(folder.path()).unwrap();
            let directory = engine.directory("a").unwrap();
            let dropped = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
            let [endless, committing, spawned] = dropped.clone().map(Tell);
            let first = engine.run_on(&directory, async move |_: Local| {
                let _endless = endless;
                std::future::pending::<()>().await;
            });
            let handle = directory.clone();
            let second = engine.run_on(&directory, async move |local: Local| {
                let _committing = committing;
                loop {
                    if local.put(&handle, "key", "value").await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            });
            let third = engine.run_on(&directory, async move |local: Local| {
                local.spawn(async move {
                    let _spawned = spawned;
                    loop {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
            });
            third.wait().unwrap();
            directory.put("key", "value").wait().unwrap();
            engine.clone().close().unwrap();
            assert!(matches!(first.wait(), Err(Error::Closed)));
            assert!(matches!(second.wait(), Err(Error::Closed)));
            assert!(dropped.iter().all(|dropped| dropped.load(Ordering::Relaxed)));
            drop((engine, directory));
            let engine = small().io(io).open(folder.path()).unwrap();
            assert!(engine.directory("a").unwrap().get("key").wait().unwrap().is_some());
        }
    });
}

#[test]
fn batches_barriers_and_scans_on_the_core() {
    on_each_io(|engine, directory| {
        let handle = directory.clone();
        let work = engine.run_on(directory, async move |local: Local| {
            let other = local.directory("a/c").unwrap();
            let mut batch = Batch::new();
            for round in 0..20u64 {
                batch.clear();
                for key in 0..100u64 {
                    batch.put(&handle, format!("key{key:03}"), round.to_be_bytes());
                }
                batch.put(&other, "round", round.to_be_bytes());
                let within = Duration::from_secs(60);
                let id = local.commit_with(&batch, Durability::Buffered { within }).await.unwrap();
                assert_eq!(id.number, Commit(round + 1));
            }
            local.barrier().await.unwrap();
            let snapshot = local.snapshot();
            let scan = local.iter(&handle).unwrap();
            for key in 0..100u64 {
                drop(local.delete(&handle, format!("key{key:03}")));
            }
            local.barrier().await.unwrap();
            assert_eq!(scan.collect().await.unwrap().len(), 100, "a scan is of the moment it was made");
            assert!(local.iter(&handle).unwrap().next().await.unwrap().is_none());
            let mut scan = snapshot.prefix(&handle, "key0").unwrap().reverse().limit(30);
            let (key, value) = scan.next().await.unwrap().unwrap();
            assert_eq!((&key[..], &value[..]), (&b"key099"[..], &19u64.to_be_bytes()[..]));
            assert_eq!(scan.collect().await.unwrap().len(), 29);
            let keys = ["key001", "none", "key002"];
            let many = snapshot.get_many(&handle, &keys).await.unwrap();
            assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
            assert!(local.exists(&other).await.unwrap());
        });
        work.wait().unwrap();
        assert_eq!(engine.stats().wait().unwrap().shards[0].durable, Commit(120));
    });
}

#[test]
fn as_of_reads_on_the_core() {
    let folder = folder();
    let engine = small().retention(Retention::Last(10)).open(folder.path()).unwrap();
    let directory = engine.directory("a").unwrap();
    let handle = directory.clone();
    let work = engine.run_on(&directory, async move |local: Local| {
        for round in 1..=50u64 {
            local.put(&handle, "key", round.to_be_bytes()).await.unwrap();
        }
        for back in 41..=50u64 {
            let value = local.as_of(Commit(back)).unwrap().get(&handle, "key").await.unwrap().unwrap();
            assert_eq!(value[..], back.to_be_bytes());
        }
        let error = local.as_of(Commit(40)).unwrap_err();
        assert!(matches!(error, Error::NotRetained { nearest: Some(Commit(41)), .. }), "{error:?}");
    });
    work.wait().unwrap();
}

/// Reads from the disk, while nothing else keeps the shard awake.
#[test]
fn reads_from_the_disk_on_an_idle_shard() {
    within_minutes("reads on an idle shard", || {
        for io in [IoChoice::Auto, IoChoice::Plain] {
            let folder = folder();
            let open = || small().io(io).retention(Retention::Forever).open(folder.path()).unwrap();
            let engine = open();
            let directory = engine.directory("a/b").unwrap();
            for number in 0..600u64 {
                drop(directory.put(format!("key{number:03}"), [1; 300]));
            }
            engine.barrier().wait().unwrap();
            let done = || engine.stats().wait().unwrap().total(|shard| shard.carries.len()) == 0;
            eventually("carries are installed", done);
            drop(directory);
            engine.close().unwrap();

            // Nothing is cached, and each of these asks for what the ones before it did not.
            let engine = open();
            let directory = engine.directory("a/b").unwrap();
            let handle = directory.clone();
            let work = engine.run_on(&directory, async move |local: Local| {
                let idle = || tokio::time::sleep(Duration::from_millis(5));
                idle().await;
                assert!(local.exists(&handle).await.unwrap());
                idle().await;
                assert!(local.get(&handle, "key000").await.unwrap().is_some());
                idle().await;
                let many = local.get_many(&handle, &["key150", "key200", "key250"]).await.unwrap();
                assert!(many.iter().all(Option::is_some));
                idle().await;
                let then = local.as_of(Commit(400)).unwrap();
                assert!(then.get(&handle, "key399").await.unwrap().is_some());
                assert!(then.get(&handle, "key400").await.unwrap().is_none());
                idle().await;
                let mut scan = local.range(&handle, "key300"..).unwrap();
                let mut count = 0;
                while scan.next().await.unwrap().is_some() {
                    count += 1;
                }
                assert_eq!(count, 300);
            });
            work.wait().unwrap();
            assert!(engine.stats().wait().unwrap().total(|shard| shard.reads) > 0, "it read from the disk");
        }
    });
}

/// Tasks may be handed values from outside, and hand some back while they run.
#[test]
fn tasks_talk_to_other_threads() {
    on_each_io(|engine, directory| {
        let (go, wait) = oneshot::channel::<PathBuf>();
        let handle = directory.clone();
        let answer = engine.run_on(directory, async move |local: Local| {
            let path = wait.await.unwrap();
            local.put(&handle, "path", path.to_str().unwrap()).await.unwrap();
        });
        go.send(PathBuf::from("over there")).unwrap();
        answer.wait().unwrap();
        assert_eq!(directory.get("path").wait().unwrap().unwrap(), "over there");
    });
}

/// Tasks that commits wake together have their reads done together, some of them from the disk.
#[test]
fn reads_of_many_tasks_give_what_each_has_committed() {
    on_each_io(|engine, directory| {
        const TASKS: u32 = 40;
        let handle = directory.clone();
        let work = engine.run_on(directory, async move |local: Local| {
            let other = local.directory("a/c").unwrap();
            let (ended, mut all_ended) = tokio::sync::mpsc::channel::<()>(1);
            for task in 0..TASKS {
                let (task_local, ended) = (local.clone(), ended.clone());
                // Half of them move their entries back and forth between two directories.
                let directories =
                    [handle.clone(), if task % 2 == 0 { other.clone() } else { handle.clone() }];
                local.spawn(async move {
                    let key = |round: u32| format!("key{task:03} {}", round % 7);
                    let value = |round: u32| vec![round as u8; 20 + (task + round) as usize % 300];
                    for round in 0..60 {
                        let directory = &directories[round as usize % 2];
                        task_local.put(directory, key(round), value(round)).await.unwrap();
                        let got = task_local.get(directory, key(round)).await.unwrap();
                        assert_eq!(got.unwrap(), value(round), "task {task}, round {round}");
                        if round >= 20 {
                            // By then it lies in a segment, if nobody has asked for it, on the disk.
                            let before = &directories[(round - 5) as usize % 2];
                            let got = task_local.get(before, key(round - 5)).await.unwrap();
                            assert_eq!(got.unwrap(), value(round - 5), "task {task}, round {round}");
                        }
                        let none =
                            task_local.get(&directories[1], format!("no {}", key(round))).await.unwrap();
                        assert_eq!(none, None);
                    }
                    drop(ended);
                });
            }
            drop(ended);
            all_ended.recv().await;
        });
        work.wait().unwrap();
        let shard = &engine.stats().wait().unwrap().shards[0];
        assert!(shard.reads_together > u64::from(TASKS) * 20, "{} together", shard.reads_together);
    });
}

/// Reads that are done together keep one another going. They hold back log writes, but not for ever; and what becomes of one
/// that nobody waits for any more does not touch the others.
#[test]
fn a_commit_beside_tasks_that_only_read() {
    on_each_io(|engine, directory| {
        let handle = directory.clone();
        let work = engine.run_on(directory, async move |local: Local| {
            let done = Rc::new(Cell::new(false));
            for task in 0..32u32 {
                let (task_local, handle, done) = (local.clone(), handle.clone(), done.clone());
                local.spawn(async move {
                    let key = format!("key{task}");
                    task_local.put(&handle, &key, task.to_be_bytes()).await.unwrap();
                    let mut round = 0;
                    while !done.get() {
                        let read = task_local.get(&handle, &key);
                        if (round + task) % 3 == 0 {
                            // Gives up before the turn that would answer it.
                            tokio::select! { biased; _ = read => {}, () = std::future::ready(()) => {} }
                        } else {
                            assert_eq!(read.await.unwrap().unwrap(), task.to_be_bytes()[..]);
                        }
                        round += 1;
                        if round % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                });
            }
            for round in 0..200u32 {
                local.put(&handle, "beside", round.to_be_bytes()).await.unwrap();
                let got = local.get(&handle, "beside").await.unwrap().unwrap();
                assert_eq!(got, round.to_be_bytes()[..]);
            }
            done.set(true);
        });
        work.wait().unwrap();
        let shard = &engine.stats().wait().unwrap().shards[0];
        assert!(shard.reads_together > 1000, "{} together", shard.reads_together);
    });
}
