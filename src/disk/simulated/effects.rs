//! What a simulated disk has really done to whoever uses it: counters by name, and the files that it has harmed.
//!
//! A fault counts when it takes effect: a lost write that would have changed nothing does not.

use std::collections::{BTreeMap, BTreeSet};

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// All that is counted.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

effects! {
    /// A power failure left a write that was not durable.
    CRASH_KEPT = "crash: a write kept",
    /// … lost one.
    CRASH_LOST = "crash: a write lost",
    /// … tore one.
    CRASH_TORN = "crash: a write torn",
    /// … found an operation in flight, which had arrived.
    CRASH_ARRIVED = "crash: in flight, arrived",
    /// … or had not.
    CRASH_IN_FLIGHT = "crash: in flight, lost",
    /// A torn write ended between two sectors.
    TEAR_SECTOR = "tear: at a sector",
    /// … within one.
    TEAR_WITHIN = "tear: within a sector",
    /// … and left garbage in the rest of it.
    TEAR_GARBAGE = "tear: garbage in the rest",
    /// A flush failed, of a file or of the folder.
    FLUSH_FAILED = "flush: fails",
    /// … and what it should have made durable looks clean since.
    FLUSH_FORGOT = "flush: fails, and all looks clean",
    /// A flush had something to do, did nothing, and said that it had.
    FLUSH_LIED = "flush: lies",
    /// A write that was to be durable was not.
    FLUSH_WRITE_LIED = "flush: a durable write lies",
    /// A write failed without effect.
    WRITE_FAILED = "write: EIO",
    /// … with a part of its effect.
    WRITE_TORN = "write: EIO, torn",
    /// There was no space.
    WRITE_NO_SPACE = "write: no space",
    /// A call wrote less than was asked for.
    WRITE_SHORT = "write: short",
    /// … nothing.
    WRITE_ZERO = "write: zero",
    /// A write was done, and is lost.
    WRITE_LOST = "write: completed but lost",
    /// … was done elsewhere in the file.
    WRITE_MISPLACED = "write: to the wrong place",
    /// … in another file.
    WRITE_WRONG_FILE = "write: to the wrong file",
    /// A read failed.
    READ_FAILED = "read: EIO",
    /// A call read less than was asked for.
    READ_SHORT = "read: short",
    /// A read gave what lies elsewhere.
    READ_MISPLACED = "read: from the wrong place",
    /// … a flipped bit, once.
    READ_FLIPPED = "read: bits flipped once",
    /// … one that stays flipped.
    READ_ROTTEN = "read: bits flipped for good",
    /// An operation completed before one that was submitted earlier.
    RING_ORDER = "ring: out of order",
    /// … long after it could have.
    RING_LATE = "ring: late",
    /// … after the kernel had no resources for it.
    RING_AGAIN = "ring: EAGAIN",
    /// … after it waited for a place in the queue.
    RING_FULL = "ring: queue full",
    /// A power failure undid a rename that was not flushed.
    FILES_RENAME = "files: rename undone",
    /// … a change of a file's length.
    FILES_LENGTH = "files: length undone",
    /// … a removal.
    FILES_REMOVE = "files: unlink undone",
    /// … a new file's name.
    FILES_CREATE = "files: new file gone",
    /// An operation took a second or more.
    TIME_SLOW = "time: takes seconds",
    /// The whole disk stopped.
    TIME_STOPPED = "time: the disk stops",
    /// Another operation failed (an open, a close, a rename …).
    OTHER_FAILED = "other operations: fail",
}

/// See the module.
#[derive(Default)]
pub(super) struct Effects {
    counts: BTreeMap<&'static str, u64>,
    /// Names of files that no longer hold, or did not read back, what was written to them.
    harmed: BTreeSet<String>,
}

impl Effects {
    pub(super) fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub(super) fn harm(&mut self, name: &str) {
        if !self.harmed.contains(name) {
            self.harmed.insert(name.to_string());
        }
    }

    pub(super) fn harmed(&self) -> &BTreeSet<String> {
        &self.harmed
    }

    /// A file has another name.
    pub(super) fn renamed(&mut self, from: &str, to: &str) {
        if self.harmed.contains(from) {
            self.harm(to);
        }
    }
}
