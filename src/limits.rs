//! Every limit of the engine, with its name and the reason for its number.

use std::time::Duration;

/// The longest component of a directory's path, in bytes: what file systems and URLs also settle on.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// The longest path of a directory, in bytes, separators included.
pub const PATH_BYTES_MAX: usize = 4096;

/// The deepest path, in components: resolving a path costs one catalog read a component.
pub const PATH_COMPONENTS_MAX: usize = 32;

/// The longest key, in bytes. A block must hold a key whole, and its length is stored in 16 bits.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// The longest value, in bytes. A value lies in one block, and a block is read whole.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// The largest batch, in bytes of keys and values plus [`OPERATION_BYTES_OVERHEAD`] for each operation:
/// a batch is one record of the log, and a log file must hold several.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What one operation counts beyond its key and value, towards the limits and the memtable's budget.
pub const OPERATION_BYTES_OVERHEAD: usize = 32;

/// The most operations in a batch: they are counted in 16 bits where a commit makes directories.
pub const BATCH_OPERATIONS_MAX: usize = 65_536;

/// The most directories that one commit may make: they are counted in 16 bits, and all their paths are cached.
pub const DIRECTORIES_PER_COMMIT_MAX: usize = 32 * 1024;

/// The most keys of one batched get: its answer is gathered in memory.
pub const GET_KEYS_MAX: usize = 64 * 1024;

/// The most shards of an engine: a shard's number is stored in 16 bits, and each is a thread.
pub const SHARDS_MAX: u16 = 1024;

/// The longest that an idle shard or a waiting thread may look for news before it sleeps, what others take of the core meanwhile
/// included: who waits for longer saves little by not sleeping.
pub const LINGER_MAX: Duration = Duration::from_micros(500);

/// The bytes that count as one request more in a shard's mailbox.
pub const MAILBOX_PERMIT_BYTES: usize = 4096;
/// The fewest requests that a mailbox holds: one with the largest batch must fit into an empty one.
pub const MAILBOX_MIN: usize = BATCH_BYTES_MAX / MAILBOX_PERMIT_BYTES + 1;

/// The least and the most divisor. At 2 every second commit carries; beyond 16 too many segments are live.
pub const DIVISOR_MIN: u32 = 2;
/// See [`DIVISOR_MIN`].
pub const DIVISOR_MAX: u32 = 16;

/// The most components that may make up a root.
pub const ROOT_COMPONENTS_MAX: u8 = 4;

/// The most snapshots and scans open on one shard at a time; each pins files and memory.
pub const SNAPSHOTS_MAX: usize = 4096;

/// The most entries, handed out or not, that all scans of a shard look at between two turns of its loop: half a
/// millisecond of work, or so. Deletes and superseded versions count: there may be any number between two entries.
pub const SCAN_ENTRIES_PER_TURN: usize = 4096;

/// The most scans from other threads whose place is kept between two pages, on one shard; the others seek again. Each
/// pins what it walks, so few more than are read at the same time.
pub const WALKS_KEPT_MAX: usize = 64;

/// The most memory that those may take, in bytes: mostly what they read ahead.
pub const WALKS_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most names or entries in one page of a listing or a scan that crosses threads.
pub const PAGE_ENTRIES_MAX: usize = 4096;

/// The page of the device: every data file is written and read in multiples of it, at multiples of it.
pub const PAGE_BYTES: usize = 4096;

/// So many reads and writes of merges, up to 256 KiB each, are in flight on a shard's disk. A disk that takes its queue in turn needs 0.1 to
/// 0.3 ms for one, and a log write waits for all that are before it.
pub const BULK_IN_FLIGHT_MAX: usize = 1;

/// How much of a removed file is given back to the file system at once: a device that is told of it (`discard`) may do
/// nothing else meanwhile, for 25 ms with 64 MiB and under one with this.
pub const REMOVAL_PIECE_BYTES: u64 = 1 << 20;
