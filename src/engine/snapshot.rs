//! Snapshots from any thread: a handle, and the reads through it.

use super::scan::{RangeOf, Scan};
use super::{Directory, EngineInner};
use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::shard::request::{At, Opened, Request};
use bytes::Bytes;
use std::ops::RangeBounds;
use std::sync::Arc;

/// What a shard keeps for a snapshot, until this goes away.
pub(crate) struct Held {
    opened: Opened,
    shard: u16,
    // Last: where it is the engine's last handle, dropping it closes the engine.
    engine: Arc<EngineInner>,
}

impl Held {
    pub(crate) fn new(engine: Arc<EngineInner>, shard: u16, opened: Opened) -> Self {
        Held { opened, shard, engine }
    }

    /// The state that it names.
    pub(crate) fn at(&self) -> At {
        At::Snapshot(self.opened.snapshot)
    }
}

/// A view of one shard at one commit, unmoved by what is committed after it. It lasts while a clone of the
/// handle lives, and pins the files and memory that it needs; so let it go when it is no longer needed.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// users.put("ada", "1815").wait()?;
/// let before = engine.snapshot(&users).wait()?;
/// users.delete("ada").wait()?;
/// assert!(before.get(&users, "ada").wait()?.is_some());
/// assert!(users.get("ada").wait()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

impl Snapshot {
    pub(crate) fn new(held: Held) -> Self {
        Snapshot { held: Arc::new(held) }
    }

    /// The commit it shows.
    pub fn commit(&self) -> Commit {
        self.held.opened.commit
    }

    /// The shard it shows.
    pub fn shard(&self) -> u16 {
        self.held.shard
    }

    /// The value of a key. Errors as [`Directory::get`], and [`Error::WrongShard`].
    pub fn get(&self, directory: &Directory, key: impl AsRef<[u8]>) -> Answer<Option<Bytes>> {
        match self.check(directory) {
            Ok(()) => super::directory::get(&self.held.engine, directory.name(), key.as_ref(), self.at()),
            Err(error) => Answer::ready(Err(error)),
        }
    }

    /// The values of several keys, in their order. Short ones share memory: see [`Directory::get_many`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        directory: &Directory,
        keys: impl IntoIterator<Item = K>,
    ) -> Answer<Vec<Option<Bytes>>> {
        match self.check(directory) {
            Ok(()) => super::directory::get_many(&self.held.engine, directory.name(), keys, self.at()),
            Err(error) => Answer::ready(Err(error)),
        }
    }

    /// The entries within a range of keys.
    ///
    /// # Errors
    ///
    /// [`Error::WrongShard`] for a directory of another shard.
    pub fn range<K: AsRef<[u8]>>(&self, directory: &Directory, range: impl RangeBounds<K>) -> Result<Scan> {
        self.scan(directory, RangeOf::bounds(range))
    }

    /// The entries whose keys begin with a prefix. Errors as [`range`](Snapshot::range).
    pub fn prefix(&self, directory: &Directory, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        self.scan(directory, RangeOf::prefix(prefix.as_ref()))
    }

    /// All entries. Errors as [`range`](Snapshot::range).
    pub fn iter(&self, directory: &Directory) -> Result<Scan> {
        self.range::<&[u8]>(directory, ..)
    }

    /// Whether a directory existed.
    pub fn exists(&self, directory: &Directory) -> Answer<bool> {
        match self.check(directory) {
            Ok(()) => {
                let (name, at) = (directory.name().clone(), self.at());
                self.held.engine.ask(self.held.shard, |reply| Request::Exists { name, at, reply })
            }
            Err(error) => Answer::ready(Err(error)),
        }
    }

    /// The names of the directories that were right under this one, as [`Directory::children`].
    pub fn children(&self, directory: &Directory, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        match self.check(directory) {
            Ok(()) => {
                let name = directory.name().clone();
                super::directory::children(&self.held.engine, self.held.shard, name, after, limit, self.at())
            }
            Err(error) => Answer::ready(Err(error)),
        }
    }

    fn at(&self) -> At {
        self.held.at()
    }

    fn scan(&self, directory: &Directory, range: RangeOf) -> Result<Scan> {
        self.check(directory)?;
        Ok(Scan::new(self.held.engine.clone(), directory.name().clone(), Some(self.held.clone()), range))
    }

    fn check(&self, directory: &Directory) -> Result<()> {
        self.held.engine.check(directory)?;
        if directory.shard() != self.held.shard {
            return Err(Error::WrongShard {
                root: directory.root().into(),
                lives_on: directory.shard(),
                shard: self.held.shard,
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(shard {}, commit {})", self.held.shard, self.commit())
    }
}
