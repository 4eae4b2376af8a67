//! The raw floor: the same bytes written and read straight through a ring, no engine.
//!
//! 1. A file is written once from end to end, so that what is measured rewrites blocks that there are.
//! 2. Writes are `O_DIRECT` and `O_DSYNC`, one after the other through the file, so many in flight; reads are
//!    `O_DIRECT` of 4 KiB at random places.
//! 3. In an open loop writes have times at which they are to start, and latency counts from then.
//!
//! Unsafe code: the ring's submissions.

use super::Result;
use crate::measure::{Measured, Recorder, Times, Window, interrupted};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The device's block, and the page of the engine.
pub(crate) const PAGE: usize = 4096;

/// A file that was written once.
pub(crate) struct Floor {
    path: PathBuf,
    bytes: u64,
}

/// How a closed loop waits for what is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// In the kernel, on whichever core that likes.
    Asleep,
    /// Awake, on one core: it gives way to others and looks, in turns.
    Looking { core: usize },
}

/// How the operations of a floor begin.
#[derive(Clone, Copy)]
enum Start {
    /// When one has ended.
    Closed(Wait),
    /// So many a second, evenly spaced.
    Rate(f64),
}

impl Floor {
    /// Writes a file of so many bytes, a multiple of 1 MiB.
    pub(crate) fn create(path: &Path, bytes: u64) -> Result<Self> {
        const CHUNK: usize = 1 << 20;
        let mut chunk = vec![0u8; CHUNK];
        Xoshiro256PlusPlus::seed_from_u64(1).fill_bytes(&mut chunk);
        let mut file = File::create(path)?;
        for _ in 0..bytes.div_ceil(CHUNK as u64) {
            file.write_all(&chunk)?;
            if interrupted() {
                return Err("interrupted".into());
            }
        }
        file.sync_all()?;
        Ok(Floor { path: path.to_path_buf(), bytes: bytes.next_multiple_of(CHUNK as u64) })
    }

    /// Durable writes of so many bytes, so many in flight, in a closed loop.
    pub(crate) fn writes(&self, size: usize, depth: u32, wait: Wait, times: Times) -> Result<Measured> {
        self.run(Some(size), depth, 1, Start::Closed(wait), times)
    }

    /// Durable writes of so many bytes at so many a second in all, from so many threads with a ring each.
    pub(crate) fn writes_at(
        &self,
        size: usize,
        rate: f64,
        depth: u32,
        threads: u32,
        times: Times,
    ) -> Result<Measured> {
        self.run(Some(size), depth, threads, Start::Rate(rate / f64::from(threads)), times)
    }

    /// Reads of a page at random places, so many in flight on each thread.
    pub(crate) fn reads(&self, depth: u32, threads: u32, times: Times) -> Result<Measured> {
        self.run(None, depth, threads, Start::Closed(Wait::Asleep), times)
    }

    fn run(
        &self,
        write: Option<usize>,
        depth: u32,
        threads: u32,
        start: Start,
        times: Times,
    ) -> Result<Measured> {
        let window = match start {
            Start::Closed(_) => Window::now(times),
            Start::Rate(_) => Window::open(times),
        };
        let notes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        if let Start::Closed(Wait::Looking { core }) = start {
                            let mut one = CpuSet::new();
                            one.set(core)?;
                            sched_setaffinity(Pid::from_raw(0), &one)?;
                        }
                        let share = self.bytes / u64::from(threads);
                        let mut worker = Worker::new(&self.path, write, depth, thread, share)?;
                        worker.run(window, start)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("the floor panicked".into())))
                .collect()
        });
        Measured::of(notes)
    }
}

/// A buffer at a multiple of the page.
struct Aligned {
    bytes: Vec<u8>,
    offset: usize,
}

impl Aligned {
    fn new(length: usize, seed: u64) -> Self {
        let mut bytes = vec![0; length + PAGE];
        Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut bytes);
        let offset = bytes.as_ptr().align_offset(PAGE);
        Aligned { bytes, offset }
    }

    fn start(&mut self) -> *mut u8 {
        self.bytes[self.offset..].as_mut_ptr()
    }
}

struct Worker {
    file: File,
    ring: IoUring,
    /// One for each operation in flight.
    buffers: Vec<Aligned>,
    /// When the operation of each buffer was to start.
    started: Vec<Instant>,
    free: Vec<usize>,
    /// `None`: reads.
    write: Option<usize>,
    size: usize,
    base: u64,
    share: u64,
    next: u64,
    rng: Xoshiro256PlusPlus,
}

impl Worker {
    fn new(path: &Path, write: Option<usize>, depth: u32, thread: u32, share: u64) -> Result<Self> {
        let sync = if write.is_some() { nix::libc::O_DSYNC } else { 0 };
        let mut options = OpenOptions::new();
        options.read(true).write(write.is_some()).custom_flags(nix::libc::O_DIRECT | sync);
        let size = write.unwrap_or(PAGE);
        let buffers: Vec<_> = (0..depth).map(|number| Aligned::new(size, u64::from(number))).collect();
        Ok(Worker {
            file: options.open(path)?,
            ring: IoUring::new(depth.next_power_of_two())?,
            started: vec![Instant::now(); buffers.len()],
            free: (0..buffers.len()).collect(),
            buffers,
            write,
            size,
            base: u64::from(thread) * share / PAGE as u64 * PAGE as u64,
            share,
            next: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(u64::from(thread)),
        })
    }

    fn offset(&mut self) -> u64 {
        let places = self.share / self.size as u64;
        let place = match self.write {
            Some(_) => self.next % places.max(1),
            None => self.rng.next_u64() % places.max(1),
        };
        self.next += 1;
        self.base + place * self.size as u64
    }

    fn entry(&mut self, buffer: usize) -> squeue::Entry {
        let offset = self.offset();
        let fd = Fd(self.file.as_raw_fd());
        let (start, length) = (self.buffers[buffer].start(), self.size as u32);
        let entry = match self.write {
            Some(_) => opcode::Write::new(fd, start, length).offset(offset).build(),
            None => opcode::Read::new(fd, start, length).offset(offset).build(),
        };
        entry.user_data(buffer as u64)
    }

    fn run(&mut self, window: Window, start: Start) -> Result<Recorder> {
        let mut recorder = Recorder::new(window);
        let begin = Instant::now();
        let mut number = 0u64;
        let result = loop {
            let now = Instant::now();
            let due_of = |number: u64| match start {
                Start::Rate(rate) => begin + Duration::from_secs_f64(number as f64 / rate),
                Start::Closed(_) => now,
            };
            let mut due = due_of(number);
            if window.over(due) {
                break Ok(());
            }
            while let Some(&buffer) = self.free.last() {
                due = due_of(number);
                if due > now || window.over(due) {
                    break;
                }
                self.free.pop();
                number += 1;
                self.started[buffer] = due;
                let entry = self.entry(buffer);
                // SAFETY: the buffer and the file live until all that is in flight has completed (`drain`), and each buffer
                // is in flight once.
                if unsafe { self.ring.submission().push(&entry) }.is_err() {
                    self.free.push(buffer);
                    break;
                }
            }
            let in_flight = self.free.len() < self.buffers.len();
            let wait = due.saturating_duration_since(now);
            let waited = match (in_flight, self.free.is_empty() || wait.is_zero()) {
                (true, true) if matches!(start, Start::Closed(Wait::Looking { .. })) => self.look(),
                (true, true) => self.ring.submit_and_wait(1).map(drop),
                (true, false) => self.wait_until(wait),
                (false, _) => {
                    std::thread::sleep(wait);
                    Ok(())
                }
            };
            if let Err(error) = waited.and_then(|()| self.reap(Some(&mut recorder))) {
                break Err(error);
            }
        };
        let drained = self.drain(window.open.then_some(&mut recorder));
        result.and(drained)?;
        Ok(recorder)
    }

    /// Submits, and waits for a completion without sleeping.
    fn look(&mut self) -> io::Result<()> {
        self.ring.submit()?;
        while self.ring.completion().is_empty() {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Submits, and waits for a completion, but no longer than that.
    fn wait_until(&mut self, wait: Duration) -> io::Result<()> {
        let until = Timespec::from(wait);
        let arguments = SubmitArgs::new().timespec(&until);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ETIME) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn reap(&mut self, mut recorder: Option<&mut Recorder>) -> io::Result<()> {
        let now = Instant::now();
        let mut failed = Ok(());
        for completion in self.ring.completion() {
            let buffer = completion.user_data() as usize;
            self.free.push(buffer);
            match completion.result() {
                error if error < 0 => failed = Err(io::Error::from_raw_os_error(-error)),
                bytes if bytes as usize != self.size => failed = Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {
                    if let Some(recorder) = &mut recorder {
                        recorder.record(self.started[buffer], now);
                    }
                }
            }
        }
        failed
    }

    /// Waits for all that is in flight.
    fn drain(&mut self, mut recorder: Option<&mut Recorder>) -> io::Result<()> {
        let mut failed = Ok(());
        while self.free.len() < self.buffers.len() {
            self.ring.submit_and_wait(1)?;
            failed = failed.and(self.reap(recorder.as_deref_mut()));
        }
        failed
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.drain(None).is_err() && self.free.len() < self.buffers.len() {
            // The kernel may still write to them: better lost than given to someone else.
            self.buffers.drain(..).for_each(std::mem::forget);
        }
    }
}

/// Whether a file can be opened direct there: not on every file system.
pub(crate) fn can_be_direct(folder: &Path) -> bool {
    let path = folder.join("direct");
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(&path);
    let direct = opened.is_ok_and(|file| file.write_at(&[], 0).is_ok());
    let _ = std::fs::remove_file(path);
    direct
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_and_reads_what_was_asked_for() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if !can_be_direct(folder.path()) {
            return;
        }
        let floor = Floor::create(&folder.path().join("floor"), 4 << 20).unwrap();
        let times = Times { warmup: Duration::ZERO, measured: Duration::from_millis(200) };
        for wait in [Wait::Asleep, Wait::Looking { core: 0 }] {
            assert!(floor.writes(PAGE, 1, wait, times).unwrap().rate > 0.0);
        }
        assert!(floor.writes(16 * PAGE, 8, Wait::Asleep, times).unwrap().rate > 0.0);
        assert!(floor.reads(32, 2, times).unwrap().rate > 0.0);
        let at = floor.writes_at(PAGE, 100.0, 4, 2, times).unwrap();
        assert!(at.rate > 0.0 && at.rate < 130.0, "{}", at.rate);
        assert_eq!(std::fs::metadata(folder.path().join("floor")).unwrap().len(), 4 << 20);
    }
}
