//! The one error type: what happened, to what, and what to do about it.

use crate::levels::Commit;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A shortcut for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, named by what happened.
///
/// Cheap to clone: one failed log write answers every commit that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path, key, value, batch or range breaks a rule. Nothing was written.
    #[error("{what}: {why}")]
    Invalid {
        /// The thing, as the caller knows it ("key", "path \"a//b\"").
        what: String,
        /// The rule that it breaks, with the limit's number.
        why: String,
    },

    /// Options that make no sense, or contradict those that the engine was created with.
    #[error("option {option}: {why}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it and what to do.
        why: String,
    },

    /// The folder is not a Quipu folder, or not one that this version reads.
    #[error("{}: {why}", path.display())]
    NotAnEngine {
        /// The folder.
        path: PathBuf,
        /// What was found there instead.
        why: String,
    },

    /// Another process (or another engine of this one) has the folder open.
    #[error("{}: already open in another process or engine; close that one first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },

    /// io_uring was insisted on and is not to be had.
    #[error("io_uring is not available: {why}")]
    NoIoUring {
        /// What the kernel said and what to change.
        why: String,
    },

    /// A batch touches directories of two roots, which never share a commit.
    #[error("a batch over two roots, {first:?} and {second:?}: a batch is atomic within one root only")]
    TwoRoots {
        /// The root of the batch's first operation.
        first: String,
        /// The other root.
        second: String,
    },

    /// A handle of one shard was used for a root of another.
    #[error("root {root:?} lives on shard {lives_on}, not on shard {shard}")]
    WrongShard {
        /// The root.
        root: String,
        /// The shard it lives on.
        lives_on: u16,
        /// The shard that was asked.
        shard: u16,
    },

    /// The directory does not exist (where one must: rename, drop).
    #[error("directory {path:?} does not exist")]
    NoDirectory {
        /// Its path.
        path: String,
    },

    /// The directory exists already (where it must not: the target of a rename).
    #[error("directory {path:?} exists already")]
    DirectoryExists {
        /// Its path.
        path: String,
    },

    /// The commit asked for is not retained (or not yet made).
    #[error("commit {asked} of shard {shard} is not retained; the nearest that is: {}",
        nearest.map_or("none".to_string(), |commit| commit.to_string()))]
    NotRetained {
        /// The shard.
        shard: u16,
        /// The commit asked for.
        asked: Commit,
        /// The nearest retained commit: at or below `asked` if there is one, else above.
        nearest: Option<Commit>,
    },

    /// A file of the engine does not hold what was written to it.
    #[error("{file} is damaged at byte {offset}: {why}{}",
        window.map_or(String::new(), |(first, last)| format!(" (commits {first} to {last})")))]
    Damaged {
        /// The file, relative to the engine's folder.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        why: String,
        /// The first and last commit that the file holds, where that is known.
        window: Option<(Commit, Commit)>,
    },

    /// The disk or file system refused an operation.
    #[error("{operation} {file}: {source}")]
    Io {
        /// What was tried ("write", "flush", …).
        operation: &'static str,
        /// The file, relative to the engine's folder.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },

    /// The disk is full. The engine stays readable, and goes on when there is space again.
    #[error("no space left on the disk of {file}; free some, and commits go on")]
    NoSpace {
        /// The file that could not grow.
        file: String,
    },

    /// The file system can only be read. Opening an engine writes, too: its lock, and the log that it goes on with.
    #[error(
        "{file}: the file system is read-only, and an engine writes even to be opened; mount it for writing, or \
        copy the engine's folder to one that can be written"
    )]
    ReadOnly {
        /// The file that could not be opened for writing, or written.
        file: String,
    },

    /// A log write or flush failed earlier: the shard acknowledges nothing more until reopened.
    #[error("shard {shard} is poisoned, reopen the engine: {source}")]
    Poisoned {
        /// The shard.
        shard: u16,
        /// What failed.
        source: Box<Error>,
    },

    /// Too many of something are open at once.
    #[error("too many {what} at once: the limit is {limit}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },

    /// A task that was run on a shard panicked. The shard goes on.
    #[error("a task on shard {shard} panicked")]
    Panicked {
        /// The shard.
        shard: u16,
    },

    /// The engine (or this shard of it) is closed or closing.
    #[error("the engine is closed")]
    Closed,
}

impl Error {
    /// An [`Error::Invalid`].
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Invalid { what: what.into(), why: why.into() }
    }

    /// An [`Error::Damaged`] whose window is not known.
    pub(crate) fn damaged(file: impl Into<String>, offset: u64, why: impl Into<String>) -> Self {
        Error::Damaged { file: file.into(), offset, why: why.into(), window: None }
    }

    /// What the system said about an operation on a file; a full disk becomes [`Error::NoSpace`], one that can only be read
    /// [`Error::ReadOnly`].
    pub(crate) fn io(operation: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { file: file.into() },
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { file: file.into() },
            _ => Error::Io { operation, file: file.into(), source: Arc::new(source) },
        }
    }

    /// Puts a shard's folder in front of the file that the error names: within a shard, files go by their names.
    #[must_use]
    pub(crate) fn on_shard(self, shard: u16) -> Self {
        let put = |file: String| match file.contains('/') {
            true => file,
            false => format!("shard-{shard:04}/{file}"),
        };
        match self {
            Error::Damaged { file, offset, why, window } => {
                Error::Damaged { file: put(file), offset, why, window }
            }
            Error::Io { operation, file, source } => Error::Io { operation, file: put(file), source },
            Error::NoSpace { file } => Error::NoSpace { file: put(file) },
            Error::ReadOnly { file } => Error::ReadOnly { file: put(file) },
            Error::Poisoned { shard, source } => {
                Error::Poisoned { shard, source: Box::new(source.on_shard(shard)) }
            }
            other => other,
        }
    }
}
