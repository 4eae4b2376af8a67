//! What crosses from a client's thread to a shard's.

use super::local::Local;
use super::mailbox::Mailbox;
use crate::batch::Batch;
use crate::engine::{CommitId, Retained};
use crate::error::Result;
use crate::levels::Commit;
use crate::options::Durability;
use crate::path::Name;
use crate::read::{Page, PageRequest};
use crate::stats::{SegmentInfo, ShardStats, Verified};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Where an answer goes.
pub(crate) type ReplyTo<T> = oneshot::Sender<Result<T>>;

/// What a commit does.
pub(crate) enum Action {
    /// Puts and deletes.
    Batch(Batch),
    /// Gives a directory another path of the same root.
    Rename {
        /// The old path.
        from: Name,
        /// The new path.
        to: Name,
    },
    /// Drops a directory with everything under it.
    Remove {
        /// Its path.
        name: Name,
    },
}

impl Action {
    /// What the action counts towards limits and budgets, catalog entries excepted.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Action::Batch(batch) => batch.bytes(),
            Action::Rename { from, to } => from.path().len() + to.path().len(),
            Action::Remove { name } => name.path().len(),
        }
    }
}

/// The state that a read is made in.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// The newest commit.
    Newest,
    /// An open snapshot of the shard.
    Snapshot(u64),
}

/// An open snapshot, as its remote handle knows it. Lets it go when dropped: also where no one took the answer
/// that it came in.
pub(crate) struct Opened {
    pub(crate) snapshot: u64,
    pub(crate) commit: Commit,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.mailbox.release(self.snapshot);
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({} at {})", self.snapshot, self.commit)
    }
}

/// A request to a shard.
pub(crate) enum Request {
    Commit {
        action: Action,
        durability: Durability,
        reply: ReplyTo<CommitId>,
    },
    Get {
        name: Name,
        key: Box<[u8]>,
        at: At,
        reply: ReplyTo<Option<Bytes>>,
    },
    GetMany {
        name: Name,
        keys: Vec<Box<[u8]>>,
        at: At,
        reply: ReplyTo<Vec<Option<Bytes>>>,
    },
    /// A page of a scan.
    Page {
        name: Name,
        page: PageRequest,
        at: At,
        /// The snapshot is the scan's own: it was opened with an earlier page.
        own: bool,
        reply: ReplyTo<Page>,
    },
    Exists {
        name: Name,
        at: At,
        reply: ReplyTo<bool>,
    },
    /// A page of the shard's roots.
    Roots {
        after: Option<String>,
        limit: usize,
        reply: ReplyTo<Vec<String>>,
    },
    /// A page of the names under a directory.
    Children {
        name: Name,
        after: Option<String>,
        limit: usize,
        at: At,
        reply: ReplyTo<Vec<String>>,
    },
    /// Opens a snapshot, of the newest commit or as of another.
    Open {
        commit: Option<Commit>,
        reply: ReplyTo<Opened>,
    },
    Retained {
        reply: ReplyTo<Retained>,
    },
    Barrier {
        reply: ReplyTo<()>,
    },
    Stats {
        reply: ReplyTo<Box<ShardStats>>,
    },
    /// The live files.
    Segments {
        reply: ReplyTo<Vec<SegmentInfo>>,
    },
    /// Reads every live file from end to end.
    Verify {
        reply: ReplyTo<Verified>,
    },
    Run {
        task: Box<dyn FnOnce(Local) + Send>,
    },
    Close {
        reply: ReplyTo<()>,
    },
}

impl Request {
    /// Whether it may wait for others of its kind, or for a log write in flight: it will wait for one in any case.
    pub(crate) fn is_patient(&self) -> bool {
        matches!(self, Request::Commit { durability: Durability::Sync, .. })
    }

    /// The bytes it carries, for the mailbox's bound.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Commit { action, .. } => action.bytes(),
            Request::Get { key, .. } => key.len(),
            Request::GetMany { keys, .. } => keys.iter().map(|key| key.len()).sum(),
            _ => 0,
        }
    }
}
