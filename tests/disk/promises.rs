//! What every disk promises.

use crate::harness::*;
use quipu::disk::simulated::SplitMix64;
use quipu::disk::*;
use std::collections::BTreeMap;
use std::io::ErrorKind;

const NAMES: [&str; 6] = ["a", "b", "c", "log-1", "log-2", "CURRENT"];

/// What the folder must hold, and the handles open on it by name.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, Vec<u8>>,
    open: BTreeMap<String, FileId>,
}

/// What an operation of a round must answer.
enum Expect {
    Done,
    Bytes(Vec<u8>),
    Error(ErrorKind),
    Opened(String, u64),
}

/// Operations that do not depend on each other run at once, round after round, against a map of byte
/// vectors; after each round the listing must agree, and at the end every byte.
#[test]
fn random_operations_agree_with_a_map() {
    for seed in 0..3 {
        for mut subject in subjects(seed) {
            let mut random = SplitMix64::new(seed);
            let mut model = Model::default();
            for _ in 0..40 {
                round(&mut subject, &mut model, &mut random);
            }
            assert!(subject.files() == model.files, "{}", subject.label);
            let stats = subject.disk.stats();
            assert!(stats.reads > 0 && stats.writes > 0 && stats.syncs > 0 && stats.enters > 0);
            assert!(stats.read_bytes >= stats.reads * 4096 && stats.write_bytes >= stats.writes * 4096);
        }
    }
}

fn round(subject: &mut Subject, model: &mut Model, random: &mut SplitMix64) {
    let (mut ops, mut expected) = (Vec::new(), Vec::new());
    let mut names = NAMES.to_vec();
    random.shuffle(&mut names);
    // Each name is touched by one part of the round only, since operations in flight have no order.
    while let Some(name) = names.pop() {
        let name = name.to_string();
        let mut add = |op, expect| {
            ops.push(op);
            expected.push(expect);
        };
        let open = |name: &String, create_new| Op::Open {
            name: name.clone(),
            how: OpenHow { write: true, create_new, durable: name.starts_with("log") },
        };
        let Some(bytes) = model.files.get_mut(&name) else {
            if random.chance(60) {
                add(open(&name, true), Expect::Opened(name.clone(), 0));
                model.files.insert(name, Vec::new());
            } else {
                add(open(&name, false), Expect::Error(ErrorKind::NotFound));
                add(Op::Remove { name: name.clone() }, Expect::Error(ErrorKind::NotFound));
                add(Op::Rename { from: name, to: "x".into() }, Expect::Error(ErrorKind::NotFound));
            }
            continue;
        };
        let Some(&file) = model.open.get(&name) else {
            add(open(&name, false), Expect::Opened(name.clone(), bytes.len() as u64));
            continue;
        };
        match random.below(12) {
            0..=5 => {
                let whole_pages = bytes.len() / 4096;
                let mut page = 0;
                while page < 24 {
                    let count = 1 + random.below(4) as usize;
                    if random.chance(50) {
                        let fill: Vec<u8> = (0..count).map(|_| random.next_u64() as u8).collect();
                        add(write(file, page as u64, &fill), Expect::Done);
                        let end = (page + count) * 4096;
                        bytes.resize(bytes.len().max(end), 0);
                        bytes[page * 4096..end].copy_from_slice(&pages(&fill));
                    } else if page + count <= whole_pages {
                        let now = bytes[page * 4096..(page + count) * 4096].to_vec();
                        add(read(file, page as u64, count), Expect::Bytes(now));
                    }
                    page += count + random.below(8) as usize;
                }
            }
            6 => {
                let length = random.below(20) * 4096 + if random.chance(30) { random.below(4096) } else { 0 };
                if random.chance(50) {
                    add(Op::Reserve { file, bytes: length }, Expect::Done);
                    bytes.resize(bytes.len().max(length as usize), 0);
                } else {
                    add(Op::Truncate { file, bytes: length }, Expect::Done);
                    bytes.resize(length as usize, 0);
                }
            }
            7 => {
                let last = bytes.len() as u64 / 4096;
                add(read(file, last, 1), Expect::Error(ErrorKind::UnexpectedEof));
                add(read(file, last + 1, 1), Expect::Error(ErrorKind::UnexpectedEof));
                add(read(file, last.saturating_sub(3), 5), Expect::Error(ErrorKind::UnexpectedEof));
                add(open(&name, true), Expect::Error(ErrorKind::AlreadyExists));
            }
            8 => {
                add(Op::Sync { file }, Expect::Done);
                add(Op::SyncFolder, Expect::Done);
            }
            9 => {
                add(Op::Close { file }, Expect::Done);
                model.open.remove(&name);
            }
            10 => {
                add(Op::Remove { name: name.clone() }, Expect::Done);
                add(Op::Close { file }, Expect::Done);
                model.files.remove(&name);
                model.open.remove(&name);
            }
            _ => {
                let Some(to) = names.pop() else { continue };
                add(Op::Rename { from: name.clone(), to: to.into() }, Expect::Done);
                if let Some(replaced) = model.open.remove(to) {
                    add(Op::Close { file: replaced }, Expect::Done);
                }
                let (bytes, file) = (model.files.remove(&name), model.open.remove(&name));
                model.files.insert(to.into(), bytes.unwrap());
                model.open.insert(to.into(), file.unwrap());
            }
        }
    }
    for (completion, expect) in run_all(&mut *subject.disk, ops).into_iter().zip(expected) {
        let label = &subject.label;
        match expect {
            Expect::Done => {
                assert!(matches!(completion.result, Ok(Outcome::Done)), "{label}: {completion:?}")
            }
            Expect::Bytes(bytes) => {
                assert!(completion.result.is_ok(), "{label}: {completion:?}");
                assert!(completion.buf.unwrap()[..] == bytes[..], "{label}: read other bytes than written");
            }
            Expect::Error(kind) => {
                assert_eq!(completion.result.expect_err(label).kind(), kind, "{label}");
            }
            Expect::Opened(name, length) => {
                let (file, bytes) = opened(completion);
                assert_eq!(bytes, length, "{label}: the length of {name}");
                assert!(model.open.values().all(|open| *open != file), "{label}: {file:?} given twice");
                model.open.insert(name, file);
            }
        }
    }
    let Outcome::Names(mut names) = run(&mut *subject.disk, Op::List).result.unwrap() else {
        panic!("list answered something else")
    };
    names.sort();
    let lengths = model.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64));
    assert!(names.into_iter().eq(lengths), "{}", subject.label);
}

/// What is wrong in itself is answered by an error, with the buffer, and touches nothing.
#[test]
fn nonsense_is_refused() {
    for mut subject in subjects(0) {
        let disk = &mut *subject.disk;
        for name in ["", ".", "..", "a/b", "/etc/passwd", "nul\0"] {
            let name = name.to_string();
            let ops = vec![
                Op::Open { name: name.clone(), how: OpenHow { create_new: true, ..Default::default() } },
                Op::Remove { name: name.clone() },
                Op::Rename { from: "a".into(), to: name.clone() },
                Op::Rename { from: name, to: "a".into() },
            ];
            for completion in run_all(disk, ops) {
                assert_eq!(completion.result.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
        let file = create(disk, "a", false);
        must(disk, write(file, 0, &[1, 2]));
        let off_page = run(disk, Op::Read { file, offset: 512, buf: IoBuf::zeroed(4096) });
        assert_eq!(off_page.result.unwrap_err().kind(), ErrorKind::InvalidInput);
        must(disk, Op::Read { file, offset: 0, buf: IoBuf::zeroed(0) });
        must(disk, Op::Write { file, offset: 1 << 20, buf: IoBuf::zeroed(0) });

        let reader = opened(run(disk, Op::Open { name: "a".into(), how: OpenHow::default() })).0;
        assert!(run(disk, write(reader, 0, &[9])).result.is_err(), "{}: opened to read", subject.label);

        must(disk, Op::Close { file });
        let never = FileId(77);
        for file in [file, never] {
            let ops = vec![read(file, 0, 1), write(file, 0, &[3]), Op::Sync { file }, Op::Close { file }];
            for completion in run_all(disk, ops) {
                assert!(completion.result.is_err(), "{}: {file:?} is not open", subject.label);
            }
        }
        assert!(subject.files()["a"][..] == pages(&[1, 2])[..], "{}", subject.label);
    }
}

/// A file that is removed or replaced lives on for those who have it open.
#[test]
fn an_open_file_outlives_its_name() {
    for mut subject in subjects(0) {
        let disk = &mut *subject.disk;
        let old = create(disk, "a", false);
        must(disk, write(old, 0, &[1]));
        let new = create(disk, "b", false);
        must(disk, write(new, 0, &[2]));
        must(disk, Op::Rename { from: "b".into(), to: "a".into() });
        must(disk, Op::SyncFolder);
        assert_eq!(run(disk, read(old, 0, 1)).buf.unwrap()[0], 1);
        must(disk, Op::Remove { name: "a".into() });
        must(disk, Op::SyncFolder);
        assert_eq!(run(disk, read(new, 0, 1)).buf.unwrap()[0], 2);
        must(disk, Op::Close { file: new });
        assert!(subject.files().is_empty(), "{}", subject.label);
    }
}

/// A close in flight together with the writes started before it waits for them, or lets them be.
#[test]
fn a_close_overtakes_nothing() {
    for mut subject in subjects(3) {
        let file = create(&mut *subject.disk, "a", false);
        let mut ops: Vec<Op> = (0..20).map(|page| write(file, page, &[page as u8 + 1])).collect();
        ops.push(Op::Close { file });
        for completion in run_all(&mut *subject.disk, ops) {
            assert!(completion.result.is_ok(), "{}: {completion:?}", subject.label);
        }
        let fill: Vec<u8> = (1..=20).collect();
        assert!(subject.files()["a"][..] == pages(&fill)[..], "{}", subject.label);
    }
}

/// The clock of every disk goes forward only.
#[test]
fn time_does_not_go_back() {
    for mut subject in subjects(0) {
        let disk = &mut *subject.disk;
        let file = create(disk, "a", true);
        let mut last = disk.now();
        for page in 0..20 {
            must(disk, write(file, page, &[1]));
            assert!(disk.now() > last, "{}", subject.label);
            last = disk.now();
        }
    }
}

/// Futures over each disk: awaited, taken by hand, and dropped.
#[test]
fn io_serves_tickets() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    for subject in subjects(5) {
        let io = Io::new(subject.disk);
        let work = async {
            let how = OpenHow { write: true, create_new: true, durable: true };
            let (file, _) = io.open("a", how).await?;
            let writes: Vec<Ticket> =
                (0..10).map(|page| io.start(write(file, page, &[page as u8]))).collect();
            drop(io.start(Op::SyncFolder));
            for ticket in writes {
                ticket.await.result?;
            }
            let bytes = io.read(file, 0, 10 * 4096).await?;
            assert!(bytes.iter().step_by(4096).copied().eq(0..10));
            io.list().await
        };
        let mut work = pin!(work);
        let names = loop {
            if let Poll::Ready(names) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break names;
            }
            if io.pump() == 0 {
                io.wait();
            }
        };
        assert_eq!(names.unwrap(), [("a".to_string(), 40960)], "{}", subject.label);
    }
}

#[test]
fn the_best_disk_is_opened() {
    let folder = real_folder();
    let (plain, why) = open_best(folder.path(), IoChoice::Plain).unwrap();
    assert!(plain.kind() == "plain system calls" && why.is_none());
    let no_uring = Uring::probe().err();
    let (best, why) = open_best(folder.path(), IoChoice::Auto).unwrap();
    assert_eq!(best.kind() == "io_uring", no_uring.is_none());
    assert_eq!(why, no_uring.as_ref().map(|no_uring| no_uring.why.clone()));
    assert_eq!(open_best(folder.path(), IoChoice::Require).is_ok(), no_uring.is_none());

    let missing = folder.path().join("missing");
    for choice in [IoChoice::Auto, IoChoice::Require, IoChoice::Plain] {
        match open_best(&missing, choice).err() {
            Some(quipu::Error::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }
}
