//! Handles of directories, and the operations on one of them.

use super::scan::{RangeOf, Scan};
use super::{CommitId, EngineInner};
use crate::answer::Answer;
use crate::batch::{Batch, check_key, check_keys};
use crate::error::{Error, Result};
use crate::path::Name;
use crate::shard::request::{Action, At, Request};
use bytes::Bytes;
use std::ops::RangeBounds;
use std::sync::Arc;

/// A directory: a named, ordered map of keys to values, whole on one shard.
///
/// A handle is a checked path; making one does no I/O and makes no directory: the first put does, with all
/// directories above it. Handles are cheap to clone and can be sent to other threads.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// users.put("ada", "1815").wait()?;
/// assert_eq!(users.get("ada").wait()?.as_deref(), Some(&b"1815"[..]));
/// assert_eq!(engine.directory("acme")?.children(None, 10).wait()?, ["users"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Directory {
    name: Name,
    engine: Arc<EngineInner>,
}

impl Directory {
    pub(crate) fn new(engine: Arc<EngineInner>, name: Name) -> Self {
        Directory { name, engine }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn engine(&self) -> &Arc<EngineInner> {
        &self.engine
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.name.path()
    }

    /// The root of its path, which decides its shard.
    pub fn root(&self) -> &str {
        self.name.root()
    }

    /// The shard it lives on.
    pub fn shard(&self) -> u16 {
        self.name.shard()
    }

    /// Sets a key to a value, as a commit of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a key or value beyond the [limits](crate::limits); [`Error::Poisoned`],
    /// [`Error::NoSpace`], [`Error::Closed`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Answer<CommitId> {
        self.engine.commit(Batch::one(&self.name, key.as_ref(), Some(value.as_ref())), None)
    }

    /// Removes a key, as a commit of its own. Errors as [`put`](Directory::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Answer<CommitId> {
        self.engine.commit(Batch::one(&self.name, key.as_ref(), None), None)
    }

    /// The newest value of a key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where a file does not hold what was written to it; [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Answer<Option<Bytes>> {
        get(&self.engine, &self.name, key.as_ref(), At::Newest)
    }

    /// The newest values of several keys, all of one commit's state, in the keys' order. Their reads overlap.
    ///
    /// Values shorter than 512 bytes share memory with up to 63 neighbours, and keep it as long as one of them is kept: of
    /// those that are to stay for long, keep copies.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Answer<Vec<Option<Bytes>>> {
        get_many(&self.engine, &self.name, keys, At::Newest)
    }

    /// The entries within a range of keys: a scan of one snapshot, taken when its first page is read.
    ///
    /// A reversed range is an error of the scan's first step.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Scan {
        Scan::new(self.engine.clone(), self.name.clone(), None, RangeOf::bounds(range))
    }

    /// The entries whose keys begin with a prefix.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.engine.clone(), self.name.clone(), None, RangeOf::prefix(prefix.as_ref()))
    }

    /// All entries.
    pub fn iter(&self) -> Scan {
        self.range::<&[u8]>(..)
    }

    /// Whether the directory exists.
    pub fn exists(&self) -> Answer<bool> {
        let name = self.name.clone();
        self.engine.ask(name.shard(), |reply| Request::Exists { name, at: At::Newest, reply })
    }

    /// The names of the directories right under this one, in order: at most `limit` (and at most
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX)) of those after `after`. Fewer than either
    /// means that there are no more.
    pub fn children(&self, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        children(&self.engine, self.shard(), self.name.clone(), after, limit, At::Newest)
    }

    /// Gives the directory, with everything under it, another path of the same root. One commit, whatever
    /// its size. Directories missing above the new path are made.
    ///
    /// # Errors
    ///
    /// [`Error::NoDirectory`] if it does not exist, [`Error::DirectoryExists`] if the new path does,
    /// [`Error::TwoRoots`] and [`Error::Invalid`] (a root itself, or into itself).
    pub fn rename(&self, to: &Directory) -> Answer<CommitId> {
        if !Arc::ptr_eq(&self.engine, &to.engine) {
            let error = Error::invalid(format!("rename to {:?}", to.path()), "a directory of another engine");
            return Answer::ready(Err(error));
        }
        if let Err(error) = check_rename(&self.name, &to.name) {
            return Answer::ready(Err(error));
        }
        let action = Action::Rename { from: self.name.clone(), to: to.name.clone() };
        self.engine.act(self.shard(), action)
    }

    /// Drops the directory with everything under it. One commit, whatever its size; the space comes back with
    /// later carries.
    ///
    /// # Errors
    ///
    /// [`Error::NoDirectory`] if it does not exist.
    pub fn remove(&self) -> Answer<CommitId> {
        self.engine.act(self.shard(), Action::Remove { name: self.name.clone() })
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({:?})", self.path())
    }
}

/// The rules of a rename that need no look at the data.
pub(crate) fn check_rename(from: &Name, to: &Name) -> Result<()> {
    if from.root() != to.root() {
        return Err(Error::TwoRoots { first: from.root().into(), second: to.root().into() });
    }
    if from.is_root() {
        return Err(Error::invalid(format!("rename of {:?}", from.path()), "a root keeps its name"));
    }
    if to.path().strip_prefix(from.path()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(Error::invalid(
            format!("rename of {:?} to {:?}", from.path(), to.path()),
            "a directory cannot move onto or into itself",
        ));
    }
    Ok(())
}

pub(crate) fn get(engine: &EngineInner, name: &Name, key: &[u8], at: At) -> Answer<Option<Bytes>> {
    if let Err(error) = check_key(key) {
        return Answer::ready(Err(error));
    }
    let (name, key) = (name.clone(), key.into());
    engine.ask(name.shard(), |reply| Request::Get { name, key, at, reply })
}

pub(crate) fn get_many<K: AsRef<[u8]>>(
    engine: &EngineInner,
    name: &Name,
    keys: impl IntoIterator<Item = K>,
    at: At,
) -> Answer<Vec<Option<Bytes>>> {
    let keys: Vec<Box<[u8]>> = keys.into_iter().map(|key| key.as_ref().into()).collect();
    if let Err(error) = check_keys(&keys) {
        return Answer::ready(Err(error));
    }
    let name = name.clone();
    engine.ask(name.shard(), |reply| Request::GetMany { name, keys, at, reply })
}

pub(crate) fn children(
    engine: &EngineInner,
    shard: u16,
    name: Name,
    after: Option<&str>,
    limit: usize,
    at: At,
) -> Answer<Vec<String>> {
    let after = after.map(str::to_string);
    let limit = limit.min(crate::limits::PAGE_ENTRIES_MAX);
    engine.ask(shard, |reply| Request::Children { name, after, limit, at, reply })
}
