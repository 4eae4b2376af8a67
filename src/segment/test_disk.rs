//! A disk of vectors by name, for the tests of segments: everything completes at submit.

use crate::disk::io::Io;
use crate::disk::{Completion, Disk, DiskStats, FileId, IoBuf, Op, Outcome};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub(super) struct Files {
    pub(super) by_name: BTreeMap<String, Vec<u8>>,
    pub(super) open: BTreeMap<u32, String>,
    pub(super) opened_total: u32,
    pub(super) stats: DiskStats,
}

pub(super) type SharedFiles = Rc<RefCell<Files>>;

struct MemoryDisk {
    files: SharedFiles,
    queued: Vec<(u64, Op)>,
    done: Vec<Completion>,
}

/// A disk and the files behind it.
pub(super) fn memory_disk() -> (Io, SharedFiles) {
    let files = SharedFiles::default();
    (Io::new(Box::new(MemoryDisk { files: files.clone(), queued: Vec::new(), done: Vec::new() })), files)
}

/// Drives a future to its end, pumping the disk while it waits.
pub(super) fn block_on<T>(io: &Io, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            io.pump();
            return value;
        }
        assert!(io.pump() > 0, "a future waits for nothing");
    }
}

impl Files {
    fn read(&mut self, file: FileId, offset: u64, buf: &mut IoBuf) -> Result<()> {
        let name = self.open.get(&file.0).ok_or(Error::from(ErrorKind::NotFound))?;
        let bytes = self.by_name.get(name).ok_or(Error::from(ErrorKind::NotFound))?;
        assert!(offset.is_multiple_of(4096) && !buf.is_empty(), "reads are of whole pages");
        let start = usize::try_from(offset).map_err(Error::other)?;
        let found = bytes.get(start..start + buf.len()).ok_or(Error::from(ErrorKind::UnexpectedEof))?;
        buf.copy_from_slice(found);
        self.stats.reads += 1;
        self.stats.read_bytes += buf.len() as u64;
        Ok(())
    }

    fn run(&mut self, op: Op) -> (Result<Outcome>, Option<IoBuf>) {
        match op {
            Op::Open { name, how } => {
                assert!(!how.write, "readers open for reading");
                let Some(bytes) = self.by_name.get(&name) else {
                    return (Err(ErrorKind::NotFound.into()), None);
                };
                self.opened_total += 1;
                let file = FileId(self.opened_total);
                let bytes = bytes.len() as u64;
                self.open.insert(file.0, name);
                (Ok(Outcome::Opened { file, bytes }), None)
            }
            Op::Read { file, offset, mut buf } => {
                let result = self.read(file, offset, &mut buf);
                (result.map(|()| Outcome::Done), Some(buf))
            }
            Op::Close { file } => {
                self.open.remove(&file.0).expect("closed once");
                (Ok(Outcome::Done), None)
            }
            Op::Remove { name } => {
                self.by_name.remove(&name).expect("removed once");
                (Ok(Outcome::Done), None)
            }
            other => panic!("segments have no business with {other:?}"),
        }
    }
}

impl Disk for MemoryDisk {
    fn start(&mut self, token: u64, op: Op) {
        self.queued.push((token, op));
    }

    fn submit(&mut self) {
        for (token, op) in self.queued.drain(..) {
            let (result, buf) = self.files.borrow_mut().run(op);
            self.done.push(Completion { token, result, buf });
        }
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }

    fn wait(&mut self) {}

    fn in_flight(&self) -> usize {
        self.queued.len() + self.done.len()
    }

    fn event_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn now(&self) -> u64 {
        0
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn stats(&self) -> DiskStats {
        self.files.borrow().stats
    }
}
