//! The one seam between a shard and the world: a folder of files, a clock, and nothing else.
//!
//! A shard starts operations ([`Disk::start`]), hands them over once a turn ([`Disk::submit`]) and collects
//! what has completed ([`Disk::collect`]), in whatever order that is. Nothing above this trait reads a file,
//! a clock or a random number in any other way, so that a shard above a simulated disk runs deterministically
//! from a seed. Three disks implement it: `uring` (a ring of the shard's own), `plain` (system calls, where
//! io_uring is not to be had) and `simulated` (memory, with a seed).
//!
//! Promises that every disk keeps:
//!
//! * A buffer that moves into an operation comes back with its completion, whatever the outcome.
//! * Each started operation completes exactly once, unless the disk is dropped; a dropped disk waits for what
//!   is in flight before it frees a buffer.
//! * Completions arrive in any order. Two operations on the same bytes, neither awaited, have no order.
//! * A read or write completes in full, or with an error: short ones are continued by the disk; a read past
//!   the end of the file is an error of kind `UnexpectedEof`.
//! * A write to a file opened `durable` is on stable storage when it completes. Any other is so after
//!   [`Op::Sync`] on its file; a created, renamed or removed name after [`Op::SyncFolder`].

mod best;
pub(crate) mod buffer;
mod folder;
pub(crate) mod io;
mod no_uring;
pub(crate) mod plain;
mod progress;
mod removals;
pub mod simulated;
pub(crate) mod uring;

pub use best::{IoChoice, RING_ENTRIES, open_best};
pub use buffer::IoBuf;
pub use io::{Io, Ticket};
pub use no_uring::NoUring;
pub use plain::Plain;
pub use simulated::{Simulated, SimulatedFolder, SimulatedOptions};
use std::io::Result;
use std::os::fd::OwnedFd;
pub use uring::Uring;

/// An open file, numbered by the disk that opened it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileId(pub u32);

/// How a file is opened. All access is direct (`O_DIRECT`) where the file system has that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenHow {
    /// Open for writing too; otherwise for reading only.
    pub write: bool,
    /// Create the file; it must not exist.
    pub create_new: bool,
    /// Each write is durable when it completes (`O_DSYNC`).
    pub durable: bool,
}

/// One operation. Names are plain file names within the disk's folder; offsets and lengths of reads and
/// writes are multiples of a page.
#[derive(Debug)]
pub enum Op {
    /// Opens or creates a file. Answers [`Outcome::Opened`].
    Open {
        /// The name within the folder.
        name: String,
        /// How.
        how: OpenHow,
    },
    /// Fills the whole buffer from the file.
    Read {
        /// The file.
        file: FileId,
        /// From which byte on.
        offset: u64,
        /// What to fill.
        buf: IoBuf,
    },
    /// Writes the whole buffer to the file.
    Write {
        /// The file.
        file: FileId,
        /// From which byte on.
        offset: u64,
        /// What to write.
        buf: IoBuf,
    },
    /// Makes the file's earlier (completed) writes and its length durable.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Reserves space so that writes below `bytes` do not run out of it; the file's length becomes `bytes`
    /// (a longer file stays as it is).
    Reserve {
        /// The file.
        file: FileId,
        /// The length to reserve.
        bytes: u64,
    },
    /// Cuts the file to a length.
    Truncate {
        /// The file.
        file: FileId,
        /// The new length.
        bytes: u64,
    },
    /// Closes the file; its number may be given again.
    Close {
        /// The file.
        file: FileId,
    },
    /// Renames within the folder, replacing what was there.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Removes a name from the folder.
    Remove {
        /// The name.
        name: String,
    },
    /// Makes created, renamed and removed names durable.
    SyncFolder,
    /// Lists the folder. Answers [`Outcome::Names`], in no particular order.
    List,
}

/// What a completed operation yields.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing more to say.
    Done,
    /// [`Op::Open`]: the file and its length in bytes.
    Opened {
        /// The number to use from now on.
        file: FileId,
        /// Its present length.
        bytes: u64,
    },
    /// [`Op::List`]: the names of the regular files in the folder, with their lengths in bytes.
    Names(Vec<(String, u64)>),
}

/// A completed operation.
#[derive(Debug)]
pub struct Completion {
    /// The token that [`Disk::start`] was given.
    pub token: u64,
    /// What came of it.
    pub result: Result<Outcome>,
    /// The buffer of a read or write.
    pub buf: Option<IoBuf>,
}

/// Counters of a disk, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Completed reads and their bytes.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Completed writes.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Completed syncs (of files and of the folder); durable writes not counted.
    pub syncs: u64,
    /// System calls made to submit or to collect.
    pub enters: u64,
}

/// A folder of files with asynchronous operations, and a clock. See the module's promises.
pub trait Disk {
    /// Queues an operation under a token of the caller's choice, unique among those in flight.
    fn start(&mut self, token: u64, op: Op);

    /// Hands everything queued to the kernel (or does it).
    fn submit(&mut self);

    /// Appends what has completed since the last call. Never blocks.
    fn collect(&mut self, completions: &mut Vec<Completion>);

    /// Blocks until at least one operation has completed; returns at once where none is in flight.
    fn wait(&mut self);

    /// How many operations were started and not yet collected.
    fn in_flight(&self) -> usize;

    /// A duplicate of the eventfd that polls readable when completions may be there to collect. A host sleeps on it only
    /// after a [`Disk::collect`] that found nothing. It may be signalled once more for what was collected already, so a host
    /// waits for edges (as `epoll` and tokio's `AsyncFd` can), or reads it itself when it was woken for nothing. `None` where there is nothing to sleep on: operations
    /// complete within [`Disk::submit`], or (simulated) with [`Disk::wait`].
    fn event_fd(&self) -> Option<OwnedFd>;

    /// Nanoseconds of a clock that never goes back.
    fn now(&self) -> u64;

    /// "io_uring", "plain system calls", "simulated".
    fn kind(&self) -> &'static str;

    /// Counters since the disk was made.
    fn stats(&self) -> DiskStats;
}
