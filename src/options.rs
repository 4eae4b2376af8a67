//! What can be chosen, when, and what it means.
//!
//! Some options are part of the data and are fixed when the engine is created (shards, divisor, …): opening an
//! existing engine takes them from its folder, and naming another value is an error. The others belong to one
//! opening (cache, durability, …).

pub use crate::disk::IoChoice;
use crate::error::{Error, Result};
use crate::levels::Retention;
use crate::limits;
use std::time::Duration;

/// When a commit is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When the commit, and every one before it on its shard, is on stable storage.
    #[default]
    Sync,
    /// As soon as it is sequenced. A crash loses at most what was committed within the last `within` (and
    /// what the device needs for one write); a barrier makes everything so far durable.
    Buffered {
        /// The longest time until a commit's log write is started.
        within: Duration,
    },
}

/// How data blocks are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: blocks of whole pages, one device read for a small value.
    #[default]
    None,
    /// LZ4; a block that does not shrink is kept as it is.
    Lz4,
}

/// How an engine is created and opened. Every method sets one option; [`Engine::open`](crate::Engine::open)
/// takes the defaults.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let engine = quipu::Options::new().shards(2).divisor(4).open(folder.path())?;
/// assert_eq!(engine.shards(), 2);
/// engine.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) shards: Option<u16>,
    pub(crate) divisor: Option<u32>,
    pub(crate) root_components: Option<u8>,
    pub(crate) compression: Option<Compression>,
    pub(crate) base_ratio: Option<u32>,
    pub(crate) part_bytes: Option<u64>,
    pub(crate) flush_bytes: Option<u64>,
    pub(crate) log_file_bytes: Option<u64>,
    pub(crate) retention: Option<Retention>,
    pub(crate) durability: Durability,
    pub(crate) io: IoChoice,
    pub(crate) pin: bool,
    pub(crate) cache_bytes: usize,
    pub(crate) memtable_bytes: usize,
    pub(crate) log_files_max: usize,
    pub(crate) log_depth: usize,
    pub(crate) group_bytes: usize,
    pub(crate) mailbox: usize,
    pub(crate) linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: true,
            shards: None,
            divisor: None,
            root_components: None,
            compression: None,
            base_ratio: None,
            part_bytes: None,
            flush_bytes: None,
            log_file_bytes: None,
            retention: None,
            durability: Durability::Sync,
            io: IoChoice::Auto,
            pin: true,
            cache_bytes: 256 << 20,
            memtable_bytes: 640 << 20,
            log_files_max: 12,
            log_depth: 4,
            group_bytes: 256 << 10,
            mailbox: 8192,
            linger: Duration::from_micros(200),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Options::default()
    }

    /// Whether [`open`](Options::open) creates an engine where there is none (default: yes).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// **Fixed at creation.** How many shards, each a thread (default: one a core).
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// **Fixed at creation.** The divisor: a window of level L spans `divisor^L` commits (default: 4).
    pub fn divisor(mut self, divisor: u32) -> Self {
        self.divisor = Some(divisor);
        self
    }

    /// **Fixed at creation.** How many leading components of a path make its root (default: 1).
    pub fn root_components(mut self, components: u8) -> Self {
        self.root_components = Some(components);
        self
    }

    /// **Fixed at creation.** Compression of data blocks (default: none).
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// **Fixed at creation.** The base is folded when what was committed since the last fold comes to at least `1/ratio` of
    /// its bytes (default: 3). Higher: less space, more writing: beside the live data there is up to about `2/ratio` of it
    /// that was overwritten, and for each byte committed a fold writes `ratio + 1` at most.
    pub fn base_ratio(mut self, ratio: u32) -> Self {
        self.base_ratio = Some(ratio);
        self
    }

    /// **Fixed at creation.** Bytes of one part of the base (default: 32 MiB). A fold replaces the base part by part: while it writes one,
    /// disk and cache hold the old and the new one. Each part that was read since it was written has its file open: of more data than the
    /// process may open files of this size, let parts be larger.
    pub fn part_bytes(mut self, bytes: u64) -> Self {
        self.part_bytes = Some(bytes);
        self
    }

    /// **Fixed at creation.** The bytes of commits that a shard gathers in memory before they go to a segment:
    /// the flush level is chosen so that its window holds about this much (default: 48 MiB).
    pub fn flush_bytes(mut self, bytes: u64) -> Self {
        self.flush_bytes = Some(bytes);
        self
    }

    /// **Fixed at creation.** Bytes of one log file of a shard (default: 32 MiB).
    pub fn log_file_bytes(mut self, bytes: u64) -> Self {
        self.log_file_bytes = Some(bytes);
        self
    }

    /// What history stays (default: [`Retention::None`]). Kept in the folder; may be changed at open where
    /// what the old one let go is not needed by the new.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// When commits are acknowledged, unless a batch says otherwise (default: [`Durability::Sync`]).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How files are reached (default: [`IoChoice::Auto`]).
    pub fn io(mut self, io: IoChoice) -> Self {
        self.io = io;
        self
    }

    /// Whether each shard's thread is pinned to a core (default: yes).
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Bytes of all block caches together (default: 256 MiB).
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Bytes of all memtables together, flushes in flight included (default: 640 MiB). A window that does not
    /// fit is spilled.
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = bytes;
        self
    }

    /// The most log files a shard may have (default: 12). With their size, it bounds the time of recovery.
    pub fn log_files_max(mut self, files: usize) -> Self {
        self.log_files_max = files;
        self
    }

    /// How many log writes of a shard may be in flight (default: 4).
    pub fn log_depth(mut self, depth: usize) -> Self {
        self.log_depth = depth;
        self
    }

    /// The most bytes of one log write, larger single commits excepted (default: 256 KiB).
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.group_bytes = bytes;
        self
    }

    /// How many requests a shard's mailbox holds (default: 8192); beyond that, clients wait. Fewer than the largest
    /// batch needs ([`limits::MAILBOX_MIN`]) are as many.
    pub fn mailbox(mut self, requests: usize) -> Self {
        self.mailbox = requests;
        self
    }

    /// For how long a shard with nothing to do looks for requests and for the end of its disk operations, and a thread that
    /// waits for what a shard reads or buffers looks for its answer, before they sleep (default: 200 us; zero: not at
    /// all; at most [`limits::LINGER_MAX`]). They give way to whatever else wants the core, on-core tasks included, and leave it out
    /// for a while where it was in vain.
    ///
    /// Sleeping and being woken takes some 25 us a time in a virtual machine, a read in memory less than one. On the other hand,
    /// what is looked for takes processor time, also where nothing comes of it.
    pub fn linger(mut self, limit: Duration) -> Self {
        self.linger = limit;
        self
    }

    /// Checks what can be checked without the folder.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |option, why: String| Err(Error::Options { option, why });
        if self.shards.is_some_and(|shards| !(1..=limits::SHARDS_MAX).contains(&shards)) {
            return bad("shards", format!("must be 1 to {}", limits::SHARDS_MAX));
        }
        if self.divisor.is_some_and(|d| !(limits::DIVISOR_MIN..=limits::DIVISOR_MAX).contains(&d)) {
            return bad("divisor", format!("must be {} to {}", limits::DIVISOR_MIN, limits::DIVISOR_MAX));
        }
        if self.root_components.is_some_and(|k| !(1..=limits::ROOT_COMPONENTS_MAX).contains(&k)) {
            return bad("root_components", format!("must be 1 to {}", limits::ROOT_COMPONENTS_MAX));
        }
        if self.base_ratio.is_some_and(|ratio| !(1..=1024).contains(&ratio)) {
            return bad("base_ratio", "must be 1 to 1024".into());
        }
        if self.part_bytes.is_some_and(|bytes| bytes < 64 << 10) {
            return bad("part_bytes", "must be at least 64 KiB".into());
        }
        if self.flush_bytes.is_some_and(|bytes| bytes < 1 << 10) {
            return bad("flush_bytes", "must be at least 1 KiB".into());
        }
        let page = limits::PAGE_BYTES as u64;
        if self.log_file_bytes.is_some_and(|bytes| bytes < 8 * page || bytes % page != 0 || bytes > 1 << 30) {
            return bad(
                "log_file_bytes",
                format!("must be a multiple of {page}, from {} to 1 GiB", 8 * page),
            );
        }
        if !(3..=100).contains(&self.log_files_max) {
            return bad("log_files_max", "must be 3 to 100".into());
        }
        if !(1..=64).contains(&self.log_depth) {
            return bad("log_depth", "must be 1 to 64".into());
        }
        if self.group_bytes < limits::PAGE_BYTES {
            return bad("group_bytes", format!("must be at least {page}"));
        }
        if !(1..=1 << 20).contains(&self.mailbox) {
            return bad("mailbox", "must be 1 to 1048576".into());
        }
        if self.linger > limits::LINGER_MAX {
            return bad("linger", format!("must be at most {} us", limits::LINGER_MAX.as_micros()));
        }
        if let Durability::Buffered { within } = self.durability {
            check_within(within)?;
        }
        Ok(())
    }
}

/// The longest bound that `Buffered` may ask for: a minute.
pub(crate) const BUFFERED_WITHIN_MAX: Duration = Duration::from_secs(60);

/// Checks the time bound of [`Durability::Buffered`].
pub(crate) fn check_within(within: Duration) -> Result<()> {
    if within > BUFFERED_WITHIN_MAX {
        let why = format!("`within` must be at most {} s", BUFFERED_WITHIN_MAX.as_secs());
        return Err(Error::Options { option: "durability", why });
    }
    Ok(())
}

/// The options that are part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) engine: u128,
    pub(crate) shards: u16,
    pub(crate) divisor: u32,
    pub(crate) root_components: u8,
    pub(crate) compression: Compression,
    pub(crate) base_ratio: u32,
    pub(crate) part_bytes: u64,
    pub(crate) flush_bytes: u64,
    pub(crate) log_file_bytes: u64,
}

impl Fixed {
    /// What a new engine gets; `cores` is the default number of shards.
    pub(crate) fn create(options: &Options, engine: u128, cores: u16) -> Self {
        Fixed {
            engine,
            shards: options.shards.unwrap_or(cores),
            divisor: options.divisor.unwrap_or(4),
            root_components: options.root_components.unwrap_or(1),
            compression: options.compression.unwrap_or_default(),
            base_ratio: options.base_ratio.unwrap_or(3),
            part_bytes: options.part_bytes.unwrap_or(32 << 20),
            flush_bytes: options.flush_bytes.unwrap_or(48 << 20),
            log_file_bytes: options.log_file_bytes.unwrap_or(32 << 20),
        }
    }

    /// Refuses what no engine is created with, as options that ask for it are refused.
    pub(crate) fn check(&self) -> Result<()> {
        let options = Options::new()
            .shards(self.shards)
            .divisor(self.divisor)
            .root_components(self.root_components)
            .compression(self.compression)
            .base_ratio(self.base_ratio)
            .part_bytes(self.part_bytes)
            .flush_bytes(self.flush_bytes)
            .log_file_bytes(self.log_file_bytes);
        options.check()
    }

    /// Refuses options that contradict what the engine was created with.
    pub(crate) fn agree(&self, options: &Options) -> Result<()> {
        fn same<T: PartialEq + std::fmt::Debug>(
            option: &'static str,
            asked: Option<T>,
            has: T,
        ) -> Result<()> {
            match asked {
                Some(asked) if asked != has => Err(Error::Options {
                    option,
                    why: format!(
                        "the engine was created with {has:?}, not {asked:?}; leave the option out to open it"
                    ),
                }),
                _ => Ok(()),
            }
        }
        same("shards", options.shards, self.shards)?;
        same("divisor", options.divisor, self.divisor)?;
        same("root_components", options.root_components, self.root_components)?;
        same("compression", options.compression, self.compression)?;
        same("base_ratio", options.base_ratio, self.base_ratio)?;
        same("part_bytes", options.part_bytes, self.part_bytes)?;
        same("flush_bytes", options.flush_bytes, self.flush_bytes)?;
        same("log_file_bytes", options.log_file_bytes, self.log_file_bytes)
    }
}
