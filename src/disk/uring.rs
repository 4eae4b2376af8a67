//! The disk through a ring of the shard's own (io_uring).
//!
//! 1. [`start`](Disk::start) puts an operation into a slab, which owns its buffer and names from now on, and
//!    its key into a queue.
//! 2. [`submit`](Disk::submit) writes queued operations into the submission ring and enters the kernel once
//!    for all of them. What does not fit stays queued, in order.
//! 3. [`collect`](Disk::collect) reads the completion ring, which takes no system call. With deferred task
//!    work (the best mode, Linux 6.1) completions are posted only within an enter, so where the ring's flags
//!    announce such work and nothing else was found, it enters. Where it finds nothing at all, it resets the
//!    event descriptor, so that the host can sleep on it. (The kernel queues such work before it sets the flag and signals
//!    the event, so another enter can run it first: then both come late, for nothing, and cost a call and a wake.)
//! 4. A short read or write, a retry, and an open without `O_DIRECT` go through the queue again.
//!
//! Promises, beyond the trait's: an operation leaves the slab only when its completion has been read, so the
//! kernel never holds a pointer to freed memory; there are never more operations in the kernel than the
//! completion ring has room for, so it cannot overflow; a file is closed only when nothing is in flight on it.
//!
//! Unsafe code stands here (three blocks) and in `shard/host.rs` (one), each block with its reason; nowhere else.

use super::folder::{self, Folder};
use super::no_uring::NoUring;
use super::progress::{Next, Progress, Way};
use super::{Completion, Disk, DiskStats, FileId, IoBuf, Op, Outcome};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use slab::Slab;
use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The operations that the ring must have; all of them since Linux 5.11.
const OPERATIONS_NEEDED: [(u8, &str); 8] = [
    (opcode::OpenAt::CODE, "OPENAT"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Fallocate::CODE, "FALLOCATE"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::RenameAt::CODE, "RENAMEAT"),
    (opcode::UnlinkAt::CODE, "UNLINKAT"),
];

/// How often a dropped disk asks for its completions while the kernel answers with errors, a millisecond
/// apart, before it leaks their buffers.
const DROP_FAILURES_MAX: u32 = 1000;

/// An open file.
struct OpenFile {
    /// `None` once its close is in the kernel.
    fd: Option<OwnedFd>,
    /// Operations started on it and not completed, the close not counted.
    pending: u32,
    /// A close was started: the file takes no more operations.
    closing: bool,
    /// The close that waits for `pending` to become zero.
    close: Option<usize>,
}

/// What an operation is at, with all that the kernel points to.
enum Step {
    Open { name: CString, flags: OFlags },
    Read { file: usize, offset: u64, buf: IoBuf },
    Write { file: usize, offset: u64, buf: IoBuf },
    Sync { file: usize },
    Reserve { file: usize, bytes: u64 },
    Truncate { file: usize, bytes: u64 },
    Close { file: usize },
    Rename { from: CString, to: CString },
    Remove { name: CString },
    SyncFolder,
    List,
}

impl Step {
    /// The file that it keeps from being closed.
    fn file(&self) -> Option<usize> {
        match *self {
            Step::Read { file, .. } | Step::Write { file, .. } => Some(file),
            Step::Sync { file } | Step::Reserve { file, .. } | Step::Truncate { file, .. } => Some(file),
            _ => None,
        }
    }
}

/// A started operation.
struct Work {
    token: u64,
    progress: Progress,
    step: Step,
}

/// A disk over a folder, through an io_uring of its own.
///
/// It belongs to the thread that made it (and is not `Send`): the kernel takes submissions from no other.
pub struct Uring {
    ring: IoUring,
    /// Signalled by the kernel with completions and with deferred work. (The ring's own descriptor would
    /// also poll readable then, but with deferred work nobody wakes who sleeps on it.)
    event: OwnedFd,
    /// Something completed since the event was last reset.
    may_be_signalled: bool,
    folder: Folder,
    files: Slab<OpenFile>,
    work: Slab<Work>,
    /// Keys of work that waits for a place in the submission ring.
    queue: VecDeque<usize>,
    /// Operations in the submission ring or in the kernel.
    in_kernel: usize,
    /// Submitted work is still in the queue, or in the submission ring: `collect` goes on with it.
    backlog: bool,
    ready: Vec<Completion>,
    /// Results read from the completion ring; kept only for its memory.
    results: Vec<(usize, i32)>,
    has_ftruncate: bool,
    stats: DiskStats,
    started: Instant,
    _of_one_thread: PhantomData<*const ()>,
}

impl Uring {
    /// A disk over an existing folder, with a ring of `entries` (a power of two; 256 is a good choice): so
    /// many operations go to the kernel in one call, and twice as many can be in flight there.
    ///
    /// # Errors
    ///
    /// Those of opening the folder; and where io_uring is not to be had, one of kind `Unsupported` that
    /// holds a [`NoUring`].
    pub fn new(folder: &Path, entries: u32) -> Result<Uring> {
        let folder = Folder::open(folder)?;
        let (ring, event, has_ftruncate) =
            set_up(entries).map_err(|no_uring| Error::new(ErrorKind::Unsupported, no_uring))?;
        Ok(Uring {
            ring,
            event,
            may_be_signalled: false,
            folder,
            files: Slab::new(),
            work: Slab::new(),
            queue: VecDeque::new(),
            in_kernel: 0,
            backlog: false,
            ready: Vec::new(),
            results: Vec::new(),
            has_ftruncate,
            stats: DiskStats::default(),
            started: Instant::now(),
            _of_one_thread: PhantomData,
        })
    }

    /// Tries whether a ring can be had, with everything that [`Uring::new`] needs, and lets go of it again.
    pub fn probe() -> std::result::Result<(), NoUring> {
        set_up(1).map(drop)
    }

    /// Checks an operation and takes it in. Where it cannot even be tried, gives back its buffer too.
    fn accept(&mut self, op: Op) -> std::result::Result<Step, (Error, Option<IoBuf>)> {
        let bare = |error| (error, None);
        Ok(match op {
            Op::Read { file, offset, buf } => {
                match folder::check_offset(offset).and_then(|()| self.usable(file)) {
                    Ok(file) => Step::Read { file, offset, buf },
                    Err(error) => return Err((error, Some(buf))),
                }
            }
            Op::Write { file, offset, buf } => {
                match folder::check_offset(offset).and_then(|()| self.usable(file)) {
                    Ok(file) => Step::Write { file, offset, buf },
                    Err(error) => return Err((error, Some(buf))),
                }
            }
            Op::Open { name, how } => {
                Step::Open { name: folder::c_name(&name).map_err(bare)?, flags: self.folder.flags(how) }
            }
            Op::Sync { file } => Step::Sync { file: self.usable(file).map_err(bare)? },
            Op::Reserve { file, bytes } => Step::Reserve { file: self.usable(file).map_err(bare)?, bytes },
            Op::Truncate { file, bytes } => Step::Truncate { file: self.usable(file).map_err(bare)?, bytes },
            Op::Close { file } => Step::Close { file: self.usable(file).map_err(bare)? },
            Op::Rename { from, to } => Step::Rename {
                from: folder::c_name(&from).map_err(bare)?,
                to: folder::c_name(&to).map_err(bare)?,
            },
            Op::Remove { name } => Step::Remove { name: folder::c_name(&name).map_err(bare)? },
            Op::SyncFolder => Step::SyncFolder,
            Op::List => Step::List,
        })
    }

    /// The slot of a file that is open and not being closed.
    fn usable(&self, file: FileId) -> Result<usize> {
        let slot = file.0 as usize;
        self.files.get(slot).filter(|file| !file.closing).map(|_| slot).ok_or_else(folder::not_open)
    }

    /// Moves queued work into the submission ring, as far as both rings have room.
    fn fill(&mut self) {
        let in_kernel_max = self.ring.params().cq_entries() as usize;
        while let Some(&key) = self.queue.front() {
            if self.in_kernel == in_kernel_max || self.ring.submission().is_full() {
                break;
            }
            self.queue.pop_front();
            match self.entry(key) {
                Ok(entry) => {
                    let entry = entry.user_data(key as u64);
                    // SAFETY: everything that the entry points to (buffers, names) is on the heap and owned
                    // by `self.work[key]` (so it stays where it is when the slab grows), which is removed, or changed,
                    // only after the entry's completion was read: one entry has one completion, and its key is not
                    // given to other work before. A dropped disk waits for that too, or leaks the slab. Its
                    // descriptor stays open meanwhile: a file is closed when nothing is pending on it.
                    let pushed = unsafe { self.ring.submission().push(&entry) };
                    debug_assert!(pushed.is_ok(), "the ring was not full");
                    self.in_kernel += 1;
                }
                Err(result) => self.finish(key, result),
            }
        }
        debug_assert!(self.in_kernel <= in_kernel_max);
    }

    /// The ring's entry for an operation; or the result, for one that is done without the ring.
    fn entry(&mut self, key: usize) -> std::result::Result<squeue::Entry, Result<Outcome>> {
        let raw = |file: usize| -> std::result::Result<Fd, Result<Outcome>> {
            let fd = self.files.get(file).and_then(|file| file.fd.as_ref());
            fd.map(|fd| Fd(fd.as_raw_fd())).ok_or_else(|| Err(folder::not_open()))
        };
        let dir = Fd(self.folder.as_fd().as_raw_fd());
        let work = &mut self.work[key];
        let done = work.progress.done;
        Ok(match &mut work.step {
            Step::Read { buf, .. } | Step::Write { buf, .. } if buf.is_empty() => {
                return Err(Ok(Outcome::Done));
            }
            Step::Read { file, offset, buf } => {
                let rest = &mut buf[done..];
                let len = rest.len().min(folder::CALL_BYTES_MAX) as u32;
                let entry = opcode::Read::new(raw(*file)?, rest.as_mut_ptr(), len);
                entry.offset(*offset + done as u64).build()
            }
            Step::Write { file, offset, buf } => {
                let rest = &buf[done..];
                let len = rest.len().min(folder::CALL_BYTES_MAX) as u32;
                let entry = opcode::Write::new(raw(*file)?, rest.as_ptr(), len);
                entry.offset(*offset + done as u64).build()
            }
            Step::Open { name, flags } => opcode::OpenAt::new(dir, name.as_ptr())
                .flags(flags.bits() as i32)
                .mode(folder::FILE_MODE.bits())
                .build(),
            Step::Sync { file } => opcode::Fsync::new(raw(*file)?).flags(FsyncFlags::DATASYNC).build(),
            Step::SyncFolder => opcode::Fsync::new(dir).build(),
            // `fallocate` refuses to reserve nothing.
            Step::Reserve { bytes: 0, .. } => return Err(Ok(Outcome::Done)),
            Step::Reserve { file, bytes } => opcode::Fallocate::new(raw(*file)?, *bytes).build(),
            Step::Truncate { file, bytes } if self.has_ftruncate => {
                opcode::Ftruncate::new(raw(*file)?, *bytes).build()
            }
            Step::Truncate { file, bytes } => {
                let result = fd_of(&self.files, *file).and_then(|fd| Ok(rustix::fs::ftruncate(fd, *bytes)?));
                return Err(result.map(|()| Outcome::Done));
            }
            Step::Close { file } => match self.files.get_mut(*file).and_then(|file| file.fd.take()) {
                // From here on the descriptor is the kernel's to close.
                Some(fd) => opcode::Close::new(Fd(fd.into_raw_fd())).build(),
                None => return Err(Err(folder::not_open())),
            },
            Step::Rename { from, to } => opcode::RenameAt::new(dir, from.as_ptr(), dir, to.as_ptr()).build(),
            Step::Remove { name } => opcode::UnlinkAt::new(dir, name.as_ptr()).build(),
            Step::List => return Err(self.folder.list().map(Outcome::Names)),
        })
    }

    /// Enters the kernel: submits what is in the ring, runs deferred work, waits for `want` completions.
    /// Answers how many entries the kernel took; none where it has no resources at the moment.
    fn enter(&mut self, want: usize) -> Result<usize> {
        loop {
            self.stats.enters += 1;
            match self.ring.submit_and_wait(want) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Reads the completion ring. Answers how many results there were, continuations included.
    fn reap(&mut self) -> usize {
        let mut results = std::mem::take(&mut self.results);
        results.extend(self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())));
        let count = results.len();
        self.in_kernel -= count;
        self.may_be_signalled |= count > 0;
        for (key, result) in results.drain(..) {
            self.advance(key, result);
        }
        self.results = results;
        count
    }

    /// Has the kernel post what it announces as done, and reads that.
    fn post(&mut self) {
        if self.ring.submission().taskrun() {
            // An error leaves the work announced, so the next call tries again.
            let _ = self.enter(0);
        }
        self.reap();
    }

    /// Makes the event descriptor poll unreadable again.
    fn reset_event(&mut self) {
        self.may_be_signalled = false;
        self.stats.enters += 1;
        // It does not block; an error (EAGAIN) says that it was not signalled.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// Takes in the kernel's answer to an operation: it is finished, or goes on.
    fn advance(&mut self, key: usize, result: i32) {
        let Some(work) = self.work.get_mut(key) else {
            debug_assert!(false, "a completion of unknown work");
            return;
        };
        let errno = (result < 0).then(|| Errno::from_raw_os_error(-result));
        let answer = errno.map_or(Ok(usize::try_from(result).unwrap_or(0)), Err);
        let verdict = match (&mut work.step, errno) {
            // The descriptor is gone whatever a close answers, so it is never tried again.
            (Step::Close { .. }, Some(Errno::INTR)) => Some(Ok(Outcome::Done)),
            (Step::Read { file, offset, buf }, _) => {
                match work.progress.answered(Way::Read, buf.len(), answer) {
                    Next::Again => None,
                    Next::Done => Some(Ok(Outcome::Done)),
                    Next::Failed(error) => Some(Err(error)),
                    Next::Ended => {
                        let end = *offset + buf.len() as u64;
                        let fd = fd_of(&self.files, *file);
                        Some(Err(fd.map_or_else(|error| error, |fd| folder::short_read(fd, end))))
                    }
                }
            }
            (Step::Write { buf, .. }, _) => match work.progress.answered(Way::Write, buf.len(), answer) {
                Next::Again => None,
                Next::Done | Next::Ended => Some(Ok(Outcome::Done)),
                Next::Failed(error) => Some(Err(error)),
            },
            (step, Some(errno)) if !matches!(step, Step::Close { .. }) && work.progress.retries(errno) => {
                None
            }
            (Step::Open { flags, .. }, Some(Errno::INVAL)) => match folder::flags_without_direct(*flags) {
                Some(without) => {
                    *flags = without;
                    None
                }
                None => Some(Err(Errno::INVAL.into())),
            },
            (Step::Open { flags, .. }, None) => {
                // SAFETY: the kernel has just opened this descriptor for us; nobody else knows of it.
                let fd = unsafe { OwnedFd::from_raw_fd(result) };
                let opened = self.folder.opened(fd.as_fd(), *flags);
                Some(opened.map(|bytes| {
                    let file = OpenFile { fd: Some(fd), pending: 0, closing: false, close: None };
                    Outcome::Opened { file: FileId(self.files.insert(file) as u32), bytes }
                }))
            }
            (Step::Reserve { file, bytes }, Some(Errno::OPNOTSUPP)) => {
                let reserved = fd_of(&self.files, *file).and_then(|fd| folder::reserve_by_length(fd, *bytes));
                Some(reserved.map(|()| Outcome::Done))
            }
            (_, Some(errno)) => Some(Err(errno.into())),
            (_, None) => Some(Ok(Outcome::Done)),
        };
        match verdict {
            Some(result) => self.finish(key, result),
            None => {
                self.queue.push_back(key);
                self.backlog = true;
            }
        }
    }

    /// Makes an operation's completion, and lets go of its file.
    fn finish(&mut self, key: usize, result: Result<Outcome>) {
        let work = self.work.remove(key);
        if let Some(slot) = work.step.file()
            && let Some(file) = self.files.get_mut(slot)
        {
            file.pending -= 1;
            if file.pending == 0
                && let Some(close) = file.close.take()
            {
                self.queue.push_back(close);
                self.backlog = true;
            }
        }
        let buf = match work.step {
            Step::Read { buf, .. } => {
                self.stats.reads += u64::from(result.is_ok());
                self.stats.read_bytes += if result.is_ok() { buf.len() as u64 } else { 0 };
                Some(buf)
            }
            Step::Write { buf, .. } => {
                self.stats.writes += u64::from(result.is_ok());
                self.stats.write_bytes += if result.is_ok() { buf.len() as u64 } else { 0 };
                Some(buf)
            }
            Step::Sync { .. } | Step::SyncFolder => {
                self.stats.syncs += u64::from(result.is_ok());
                None
            }
            Step::Close { file } => {
                self.files.try_remove(file);
                None
            }
            _ => None,
        };
        self.ready.push(Completion { token: work.token, result, buf });
    }
}

/// The descriptor of an open file.
fn fd_of(files: &Slab<OpenFile>, file: usize) -> Result<BorrowedFd<'_>> {
    files.get(file).and_then(|file| file.fd.as_ref()).map(AsFd::as_fd).ok_or_else(folder::not_open)
}

/// Sets up a ring in the best mode that the kernel has, tries it, and has it signal an eventfd. Answers also
/// whether it can `ftruncate`.
fn set_up(entries: u32) -> std::result::Result<(IoUring, OwnedFd, bool), NoUring> {
    let refused = |error: Error| NoUring::new(&error);
    let ring = build(entries.max(1)).map_err(refused)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(refused)?;
    if let Some((_, name)) = OPERATIONS_NEEDED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        let why = format!("the kernel's io_uring has no {name}: it takes Linux 5.11 or newer");
        return Err(NoUring { errno: None, why });
    }
    let ring = try_out(ring).map_err(refused)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| refused(e.into()))?;
    ring.submitter().register_eventfd(event.as_raw_fd()).map_err(refused)?;
    Ok((ring, event, probe.is_supported(opcode::Ftruncate::CODE)))
}

/// A ring in the best mode that the kernel has: an older one answers EINVAL to a flag that it does not know.
///
/// * `SINGLE_ISSUER` (6.0): only this thread submits, which saves the kernel some locking.
/// * `DEFER_TASKRUN` (6.1), else `COOP_TASKRUN` (5.19): completions are posted when this thread enters the
///   kernel anyway, instead of interrupting it; `TASKRUN_FLAG` says in the ring when there are some to post.
/// * `SUBMIT_ALL` (5.18): one refused entry does not hold back those after it.
fn build(entries: u32) -> Result<IoUring> {
    let mut tried = Err(Error::from(ErrorKind::Unsupported));
    for mode in 0..4 {
        let mut builder = IoUring::builder();
        builder.setup_clamp();
        match mode {
            0 => builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all(),
            1 => builder.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
            2 => builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
            _ => &mut builder,
        };
        tried = builder.build(entries);
        match &tried {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
            _ => break,
        }
    }
    tried
}

/// Sends an operation that does nothing through the ring: a filter may allow the set-up and forbid the rest.
fn try_out(mut ring: IoUring) -> Result<IoUring> {
    // SAFETY: the entry points to nothing.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    debug_assert!(pushed.is_ok(), "the ring is empty");
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    let seen = ring.completion().count();
    debug_assert_eq!(seen, 1);
    Ok(ring)
}

impl Disk for Uring {
    fn start(&mut self, token: u64, op: Op) {
        let step = match self.accept(op) {
            Ok(step) => step,
            Err((error, buf)) => return self.ready.push(Completion { token, result: Err(error), buf }),
        };
        let (on_file, close_of) = match step {
            Step::Close { file } => (None, Some(file)),
            ref other => (other.file(), None),
        };
        let key = self.work.insert(Work { token, progress: Progress::default(), step });
        if let Some(slot) = on_file {
            self.files[slot].pending += 1;
        }
        if let Some(slot) = close_of {
            let file = &mut self.files[slot];
            file.closing = true;
            if file.pending > 0 {
                file.close = Some(key);
                return;
            }
        }
        self.queue.push_back(key);
    }

    fn submit(&mut self) {
        loop {
            self.fill();
            if self.ring.submission().is_empty() {
                break;
            }
            // A kernel without resources keeps the rest for the next call.
            if self.enter(0).unwrap_or(0) == 0 {
                break;
            }
        }
        self.backlog = !self.queue.is_empty() || !self.ring.submission().is_empty();
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        // Deferred work that is announced while other results were found is left to the next enter, which
        // the next turn's submission makes anyway.
        if self.reap() == 0 && self.ready.is_empty() {
            self.post();
            if self.ready.is_empty() && self.may_be_signalled {
                self.reset_event();
                // What came before the reset is no longer signalled: look again.
                self.post();
            }
        }
        if self.backlog {
            self.submit();
        }
        completions.append(&mut self.ready);
    }

    fn wait(&mut self) {
        loop {
            self.reap();
            if !self.ready.is_empty() || self.work.is_empty() {
                return;
            }
            self.submit();
            self.reap();
            if self.ready.is_empty() && self.in_kernel > 0 && self.enter(1).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.work.len() + self.ready.len()
    }

    /// An eventfd. Sleep on it only after a [`Disk::collect`] that found nothing: that one resets it.
    fn event_fd(&self) -> Option<OwnedFd> {
        self.event.try_clone().ok()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn kind(&self) -> &'static str {
        "io_uring"
    }

    fn stats(&self) -> DiskStats {
        self.stats
    }
}

impl AsFd for Uring {
    /// The event descriptor, as [`Disk::event_fd`] gives it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Uring {
    /// Waits until the kernel is done with every buffer. What never reached it is forgotten.
    fn drop(&mut self) {
        let mut failures = 0;
        while self.in_kernel > 0 && failures < DROP_FAILURES_MAX {
            self.queue.clear();
            if self.reap() == 0 && self.in_kernel > 0 && self.enter(1).is_err() {
                failures += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.in_kernel > 0 {
            // Better to lose the memory than to free it under the kernel's hands.
            std::mem::forget(std::mem::take(&mut self.work));
        }
    }
}
