//! Disks to test, and a way to wait for operations.

use quipu::disk::*;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// A disk under test, with a way to see its files from outside.
pub(crate) struct Subject {
    pub(crate) label: String,
    pub(crate) disk: Box<dyn Disk>,
    /// Kept until the disk is dropped.
    folder: Where,
}

enum Where {
    Real(TempDir),
    Simulated(SimulatedFolder),
}

impl Subject {
    /// The folder's files, seen past the disk.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        match &self.folder {
            Where::Real(folder) => real_files(folder),
            Where::Simulated(folder) => folder.files(),
        }
    }
}

/// The files of a real folder.
pub(crate) fn real_files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// A folder on a real disk (the system's temporary folder may be memory).
pub(crate) fn real_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A ring on a folder; `None`, said aloud, where there is no io_uring.
pub(crate) fn uring(folder: &TempDir, entries: u32) -> Option<Uring> {
    match Uring::new(folder.path(), entries) {
        Ok(disk) => Some(disk),
        Err(error) => {
            assert!(NoUring::within(&error).is_some(), "{error}");
            eprintln!("not tested: {error}");
            None
        }
    }
}

/// Every kind of disk, the ring also with hardly any room, the simulated one also in order.
pub(crate) fn subjects(seed: u64) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for entries in [2, 64] {
        let folder = real_folder();
        if let Some(disk) = uring(&folder, entries) {
            let label = format!("io_uring with {entries} entries, seed {seed}");
            subjects.push(Subject { label, disk: Box::new(disk), folder: Where::Real(folder) });
        }
    }
    let folder = real_folder();
    let disk = Plain::new(folder.path()).unwrap();
    let label = format!("plain, seed {seed}");
    subjects.push(Subject { label, disk: Box::new(disk), folder: Where::Real(folder) });
    for in_order in [true, false] {
        let folder = SimulatedFolder::new();
        let disk = Simulated::new(&folder, SimulatedOptions { seed, in_order, ..Default::default() });
        let label = format!("simulated, in_order {in_order}, seed {seed}");
        subjects.push(Subject { label, disk: Box::new(disk), folder: Where::Simulated(folder) });
    }
    subjects
}

/// Runs operations at once; answers their completions in the order of `ops`. Checks that each completes
/// exactly once, and that buffers come back from reads and writes and from nothing else.
pub(crate) fn run_all(disk: &mut dyn Disk, ops: Vec<Op>) -> Vec<Completion> {
    let buffers: Vec<Option<usize>> = ops
        .iter()
        .map(|op| match op {
            Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf.len()),
            _ => None,
        })
        .collect();
    assert_eq!(disk.in_flight(), 0);
    for (token, op) in ops.into_iter().enumerate() {
        disk.start(token as u64, op);
    }
    assert_eq!(disk.in_flight(), buffers.len());
    disk.submit();
    let mut all: BTreeMap<u64, Completion> = BTreeMap::new();
    let mut completions = Vec::new();
    while disk.in_flight() > 0 {
        disk.wait();
        disk.collect(&mut completions);
        assert!(!completions.is_empty(), "waited for nothing");
        for completion in completions.drain(..) {
            let token = completion.token;
            assert!(all.insert(token, completion).is_none(), "operation {token} completed twice");
        }
    }
    disk.wait(); // must return at once
    disk.collect(&mut completions);
    assert!(completions.is_empty());
    assert!(all.keys().copied().eq(0..buffers.len() as u64), "an operation never completed");
    for (token, buffer) in buffers.iter().enumerate() {
        assert_eq!(all[&(token as u64)].buf.as_ref().map(|buf| buf.len()), *buffer, "the buffer of {token}");
    }
    all.into_values().collect()
}

/// Runs one operation.
pub(crate) fn run(disk: &mut dyn Disk, op: Op) -> Completion {
    run_all(disk, vec![op]).remove(0)
}

/// Runs one operation that must succeed with nothing more to say.
pub(crate) fn must(disk: &mut dyn Disk, op: Op) {
    let label = format!("{op:?}");
    assert!(matches!(run(disk, op).result.expect(&label), Outcome::Done));
}

/// The file and length that an open answered.
pub(crate) fn opened(completion: Completion) -> (FileId, u64) {
    match completion.result.expect("open") {
        Outcome::Opened { file, bytes } => (file, bytes),
        other => panic!("open answered {other:?}"),
    }
}

/// Creates a file for writing.
pub(crate) fn create(disk: &mut dyn Disk, name: &str, durable: bool) -> FileId {
    let how = OpenHow { write: true, create_new: true, durable };
    opened(run(disk, Op::Open { name: name.into(), how })).0
}

/// Opens an existing file for writing.
pub(crate) fn reopen(disk: &mut dyn Disk, name: &str, durable: bool) -> FileId {
    let how = OpenHow { write: true, create_new: false, durable };
    opened(run(disk, Op::Open { name: name.into(), how })).0
}

/// A buffer of pages, each filled with a byte of its own.
pub(crate) fn pages(fill: &[u8]) -> IoBuf {
    let mut buf = IoBuf::zeroed(fill.len() * 4096);
    for (page, byte) in buf.chunks_mut(4096).zip(fill) {
        page.fill(*byte);
    }
    buf
}

/// A write of pages.
pub(crate) fn write(file: FileId, page: u64, fill: &[u8]) -> Op {
    Op::Write { file, offset: page * 4096, buf: pages(fill) }
}

/// A read of `count` pages.
pub(crate) fn read(file: FileId, page: u64, count: usize) -> Op {
    Op::Read { file, offset: page * 4096, buf: IoBuf::zeroed(count * 4096) }
}
