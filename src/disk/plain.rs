//! The disk by plain system calls, for where io_uring is not to be had: correct, and slower.
//!
//! [`Plain::start`](Disk::start) only queues. [`Plain::submit`](Disk::submit) performs everything queued,
//! one system call after the other on the calling thread, in the order in which it was started; all of it
//! can be collected at once afterwards. There is nothing to poll, so the disk has no event descriptor.

use super::folder::{self, Folder};
use super::progress::{Next, Progress, Way};
use super::{Completion, Disk, DiskStats, FileId, IoBuf, Op, OpenHow, Outcome};
use rustix::fs::{AtFlags, FallocateFlags};
use rustix::io::Errno;
use slab::Slab;
use std::collections::VecDeque;
use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

/// A disk over a folder, by plain (blocking) system calls.
///
/// ```
/// use quipu::disk::{Disk, Op, OpenHow, Plain};
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// let mut disk = Plain::new(folder.path())?;
/// let how = OpenHow { write: true, create_new: true, durable: false };
/// disk.start(1, Op::Open { name: "a".into(), how });
/// disk.submit();
/// let mut completions = Vec::new();
/// disk.collect(&mut completions);
/// assert!(completions[0].token == 1 && completions[0].result.is_ok());
/// # Ok(())
/// # }
/// ```
pub struct Plain {
    folder: Folder,
    files: Slab<OwnedFd>,
    queue: VecDeque<(u64, Op)>,
    ready: Vec<Completion>,
    stats: DiskStats,
    started: Instant,
}

impl Plain {
    /// A disk over an existing folder. Errors are those of opening it.
    pub fn new(folder: &Path) -> Result<Self> {
        Ok(Plain {
            folder: Folder::open(folder)?,
            files: Slab::new(),
            queue: VecDeque::new(),
            ready: Vec::new(),
            stats: DiskStats::default(),
            started: Instant::now(),
        })
    }

    fn fd(&self, file: FileId) -> Result<BorrowedFd<'_>> {
        self.files.get(file.0 as usize).map(AsFd::as_fd).ok_or_else(folder::not_open)
    }

    /// Performs one operation.
    fn perform(&mut self, token: u64, op: Op) -> Completion {
        self.stats.enters += 1;
        let mut buf = None;
        let result = match op {
            Op::Read { file, offset, buf: mut bytes } => {
                let result = self.fd(file).and_then(|fd| read(fd, offset, &mut bytes));
                if result.is_ok() {
                    self.stats.reads += 1;
                    self.stats.read_bytes += bytes.len() as u64;
                }
                buf = Some(bytes);
                result.map(|()| Outcome::Done)
            }
            Op::Write { file, offset, buf: bytes } => {
                let result = self.fd(file).and_then(|fd| write(fd, offset, &bytes));
                if result.is_ok() {
                    self.stats.writes += 1;
                    self.stats.write_bytes += bytes.len() as u64;
                }
                buf = Some(bytes);
                result.map(|()| Outcome::Done)
            }
            Op::Open { name, how } => self.open(&name, how),
            Op::List => self.folder.list().map(Outcome::Names),
            other => self.change(other).map(|()| Outcome::Done),
        };
        Completion { token, result, buf }
    }

    fn open(&mut self, name: &str, how: OpenHow) -> Result<Outcome> {
        let name = folder::c_name(name)?;
        let mut flags = self.folder.flags(how);
        let fd = loop {
            match retried(|| rustix::fs::openat(&self.folder, &name, flags, folder::FILE_MODE)) {
                Ok(fd) => break fd,
                Err(Errno::INVAL) => flags = folder::flags_without_direct(flags).ok_or(Errno::INVAL)?,
                Err(errno) => return Err(errno.into()),
            }
        };
        let bytes = self.folder.opened(fd.as_fd(), flags)?;
        Ok(Outcome::Opened { file: FileId(self.files.insert(fd) as u32), bytes })
    }

    /// The operations that yield nothing.
    fn change(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Sync { file } => {
                let fd = self.fd(file)?;
                retried(|| rustix::fs::fdatasync(fd))?;
                self.stats.syncs += 1;
            }
            Op::SyncFolder => {
                retried(|| rustix::fs::fsync(&self.folder))?;
                self.stats.syncs += 1;
            }
            // `fallocate` refuses to reserve nothing.
            Op::Reserve { file, bytes: 0 } => drop(self.fd(file)?),
            Op::Reserve { file, bytes } => {
                let fd = self.fd(file)?;
                match retried(|| rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, bytes)) {
                    Err(Errno::OPNOTSUPP) => folder::reserve_by_length(fd, bytes)?,
                    other => other?,
                }
            }
            Op::Truncate { file, bytes } => {
                let fd = self.fd(file)?;
                retried(|| rustix::fs::ftruncate(fd, bytes))?;
            }
            Op::Close { file } => {
                drop(self.files.try_remove(file.0 as usize).ok_or_else(folder::not_open)?);
            }
            Op::Rename { from, to } => {
                let (from, to) = (folder::c_name(&from)?, folder::c_name(&to)?);
                retried(|| rustix::fs::renameat(&self.folder, &from, &self.folder, &to))?;
            }
            Op::Remove { name } => {
                let name = folder::c_name(&name)?;
                retried(|| rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty()))?;
            }
            Op::Open { .. } | Op::Read { .. } | Op::Write { .. } | Op::List => {
                debug_assert!(false, "performed elsewhere");
            }
        }
        Ok(())
    }
}

/// Calls again as long as the kernel was merely interrupted, within bounds.
fn retried<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut progress = Progress::default();
    loop {
        match call() {
            Err(errno) if progress.retries(errno) => {}
            other => return other,
        }
    }
}

/// Fills the buffer, continuing short reads.
fn read(fd: BorrowedFd<'_>, offset: u64, buf: &mut IoBuf) -> Result<()> {
    folder::check_offset(offset)?;
    let len = buf.len();
    let mut progress = Progress::default();
    while progress.done < len {
        let done = progress.done;
        let end = len.min(done + folder::CALL_BYTES_MAX);
        let answer = rustix::io::pread(fd, &mut buf[done..end], offset + done as u64);
        match progress.answered(Way::Read, len, answer) {
            Next::Again | Next::Done => {}
            Next::Ended => return Err(folder::short_read(fd, offset + len as u64)),
            Next::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the buffer, continuing short writes.
fn write(fd: BorrowedFd<'_>, offset: u64, buf: &IoBuf) -> Result<()> {
    folder::check_offset(offset)?;
    let len = buf.len();
    let mut progress = Progress::default();
    while progress.done < len {
        let done = progress.done;
        let end = len.min(done + folder::CALL_BYTES_MAX);
        let answer = rustix::io::pwrite(fd, &buf[done..end], offset + done as u64);
        match progress.answered(Way::Write, len, answer) {
            Next::Again | Next::Done => {}
            Next::Ended => debug_assert!(false, "only a read comes to an end"),
            Next::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

impl Disk for Plain {
    fn start(&mut self, token: u64, op: Op) {
        self.queue.push_back((token, op));
    }

    fn submit(&mut self) {
        while let Some((token, op)) = self.queue.pop_front() {
            let completion = self.perform(token, op);
            self.ready.push(completion);
        }
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.ready);
    }

    fn wait(&mut self) {
        if self.ready.is_empty() {
            self.submit();
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.ready.len()
    }

    fn event_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn kind(&self) -> &'static str {
        "plain system calls"
    }

    fn stats(&self) -> DiskStats {
        self.stats
    }
}
