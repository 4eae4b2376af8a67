//! Quipu: an embeddable, thread-per-core storage engine for Linux.
//!
//! An [`Engine`] holds *directories*: named, ordered maps of keys to values, as many as you like, with paths such
//! as `acme/users/emails`. It is split into *shards*, one a core. A shard's thread is the only code that touches
//! its commits, memtable, log and segments: it numbers its commits 1, 2, 3 …, writes its own log through its own
//! io_uring, and compacts on the same thread, at commit numbers where the arithmetic says so.
//!
//! The first component of a path, its *root*, decides the shard. So directories of one root always share a shard,
//! and a [`Batch`] over them is atomic on any machine.
//!
//! # First use
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! let engine = quipu::Engine::open(path)?;
//! let users = engine.directory("acme/users")?;
//! users.put("ada", "1815").wait()?;
//! assert_eq!(users.get("ada").wait()?.as_deref(), Some(&b"1815"[..]));
//! for entry in users.range("a".."b").blocking() {
//!     let (key, value) = entry?;
//!     println!("{key:?} = {value:?}");
//! }
//! engine.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What crossing threads costs
//!
//! Every operation of an [`Engine`] or [`Directory`] gives an [`Answer`], to be awaited on any async runtime or
//! waited for on a plain thread. It crosses to the shard's thread and back, a few microseconds where both are
//! busy. [`Engine::run_on`] runs a task on the shard's own thread instead; its [`Local`] handle commits and
//! reads without crossing anything, thousands at a time. That is the fast path.
//!
//! # What is durable
//!
//! With [`Durability::Sync`], the default, a commit is acknowledged when it and all before it on its shard are
//! on stable storage. Commits that come while a log write is under way share the next one.
//!
//! # What is visible
//!
//! A read sees one commit's state, whole. It sees every commit that was acknowledged when the read was asked for; one
//! that is still on its way, even from the same thread, it may see or not. On a shard's own thread a commit is
//! visible as soon as it has its number, which is at once unless it has to wait (for room, or for a
//! directory that this opening of the engine has not met yet).
//!
//! `docs/architecture.md` follows a commit, a read and a carry through the code.

#![warn(missing_docs)]

mod answer;
mod batch;
mod bell;
mod cache;
mod codec;
mod compact;
pub mod disk;
mod engine;
mod entry;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
#[allow(clippy::expect_used)] // a target that cannot go on says why
pub mod fuzzing;
pub mod levels;
pub mod limits;
mod linger;
mod log;
mod manifest;
#[doc(hidden)]
pub mod memtable;
mod options;
mod path;
mod probes;
mod read;
mod segment;
mod shard;
#[doc(hidden)]
pub mod simulation;
mod stats;
mod table;
mod view;

pub use answer::Answer;
pub use batch::Batch;
#[doc(no_inline)]
pub use bytes::Bytes;
pub use engine::{
    BlockingScan, CommitId, Directory, Engine, RecoveryReport, Retained, Scan, ShardRecovery, Snapshot,
};
pub use error::{Error, Result};
pub use levels::{Commit, Level, Retention};
pub use options::{Compression, Durability, IoChoice, Options};
pub use shard::local::{Local, LocalCommit, LocalSnapshot};
pub use shard::local_scan::LocalScan;
pub use stats::{
    BaseStats, CarriesInstalled, CarryKind, CarryStats, LevelStats, SegmentInfo, SegmentKind, ShardStats,
    Stages, Stats, Verified,
};
