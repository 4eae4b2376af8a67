//! The local handle: commits and reads on the shard's own thread, with nothing in between.

use super::Core;
use super::local_scan::LocalScan;
use super::request::Action;
use super::sequence::{Sequenced, Slot, Verdict, queue_action};
use crate::batch::{Batch, OpRef};
use crate::engine::scan::RangeOf;
use crate::engine::{CommitId, Directory, EngineInner};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::options::{Durability, check_within};
use crate::path::Name;
use crate::view::Frame;
use bytes::Bytes;
use std::future::Future;
use std::ops::RangeBounds;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A handle of a shard for tasks on its own thread; see [`Engine::run_on`](crate::Engine::run_on). Cheap to
/// clone; cannot leave the thread.
///
/// A commit is sequenced within the call that makes it, where nothing is in its way; awaiting it waits for the log
/// write. So many may be in flight from one task:
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// let copy = users.clone();
/// let commits = engine.run_on(&users, async move |local: quipu::Local| {
///     let ada = local.put(&copy, "ada", "1815");
///     let grace = local.put(&copy, "grace", "1906"); // both share a log write
///     Ok::<_, quipu::Error>((ada.await?, grace.await?))
/// });
/// let (ada, grace) = commits.wait()??;
/// assert_eq!(ada.number.0 + 1, grace.number.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Local {
    core: Rc<Core>,
    engine: Weak<EngineInner>,
}

impl Local {
    pub(crate) fn new(core: Rc<Core>, engine: Weak<EngineInner>) -> Self {
        Local { core, engine }
    }

    pub(crate) fn of_engine(self, engine: Weak<EngineInner>) -> Self {
        Local { engine, ..self }
    }

    /// The shard's number.
    pub fn shard(&self) -> u16 {
        self.core.config.shard
    }

    /// A handle of a directory, as [`Engine::directory`](crate::Engine::directory).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a path that breaks the grammar; [`Error::Closed`].
    pub fn directory(&self, path: impl AsRef<[u8]>) -> Result<Directory> {
        let engine = self.engine.upgrade().ok_or(Error::Closed)?;
        let name = engine.name(path.as_ref())?;
        Ok(Directory::new(engine, name))
    }

    /// Sets a key to a value, as a commit of its own.
    ///
    /// # Errors
    ///
    /// As [`Directory::put`], and [`Error::WrongShard`].
    pub fn put(&self, directory: &Directory, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> LocalCommit {
        self.one(directory, OpRef { name: directory.name(), key: key.as_ref(), value: Some(value.as_ref()) })
    }

    /// Removes a key, as a commit of its own.
    pub fn delete(&self, directory: &Directory, key: impl AsRef<[u8]>) -> LocalCommit {
        self.one(directory, OpRef { name: directory.name(), key: key.as_ref(), value: None })
    }

    fn one(&self, directory: &Directory, op: OpRef<'_>) -> LocalCommit {
        if let Err(error) = op.check().and_then(|()| self.check(directory)) {
            return LocalCommit::failed(error);
        }
        self.core.gathering.count();
        let durability = self.core.config.durability;
        match self.core.try_now(std::iter::once(op), durability) {
            Verdict::Wait(_) | Verdict::Unresolved(_) => {
                let batch = Batch::one(op.name, op.key, op.value);
                LocalCommit {
                    core: None,
                    state: State::Queued(queue_action(&self.core, Action::Batch(batch), durability)),
                }
                .on(&self.core)
            }
            verdict => self.settled(verdict, durability),
        }
    }

    /// Commits a batch with the engine's durability. The batch can be used again.
    ///
    /// # Errors
    ///
    /// As [`Engine::commit`](crate::Engine::commit), and [`Error::WrongShard`].
    pub fn commit(&self, batch: &Batch) -> LocalCommit {
        self.commit_with(batch, self.core.config.durability)
    }

    /// Commits a batch with a durability of its own.
    pub fn commit_with(&self, batch: &Batch, durability: Durability) -> LocalCommit {
        let checked = batch.check(self.engine.as_ptr()).and_then(|()| match durability {
            Durability::Buffered { within } => check_within(within),
            Durability::Sync => Ok(()),
        });
        let checked = checked.and_then(|()| batch.first_name().map_or(Ok(()), |name| self.check_shard(name)));
        if let Err(error) = checked {
            return LocalCommit::failed(error);
        }
        self.core.gathering.count();
        match self.core.try_now(batch.ops(), durability) {
            Verdict::Wait(_) | Verdict::Unresolved(_) => {
                let queued = queue_action(&self.core, Action::Batch(batch.copy()), durability);
                LocalCommit { core: None, state: State::Queued(queued) }.on(&self.core)
            }
            verdict => self.settled(verdict, durability),
        }
    }

    /// Makes a commit that is not a batch.
    pub(crate) fn act(&self, action: Action) -> LocalCommit {
        let queued = queue_action(&self.core, action, self.core.config.durability);
        LocalCommit { core: None, state: State::Queued(queued) }.on(&self.core)
    }

    fn settled(&self, verdict: Verdict, durability: Durability) -> LocalCommit {
        match verdict {
            Verdict::Sequenced(number) => {
                let id = CommitId { shard: self.shard(), number };
                match durability {
                    Durability::Sync => {
                        LocalCommit { core: Some(self.core.clone()), state: State::Sequenced(number) }
                    }
                    Durability::Buffered { .. } => {
                        LocalCommit { core: None, state: State::Over(Some(Ok(id))) }
                    }
                }
            }
            Verdict::Refused(error) => LocalCommit::failed(error),
            Verdict::Wait(_) | Verdict::Unresolved(_) => LocalCommit::failed(Error::Closed),
        }
    }

    /// The newest value of a key, as of a moment between the first poll and the answer.
    ///
    /// Where the tasks of many commits were woken together, their reads are done together, too, once all of them had their turn.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Io`], [`Error::WrongShard`].
    pub async fn get(&self, directory: &Directory, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.check(directory)?;
        crate::batch::check_key(key.as_ref())?;
        if let Some(gathered) = self.core.get_gathered(directory.name(), key.as_ref())
            && let Some(value) = gathered.await
        {
            return Ok(value);
        }
        let frame = self.core.frame();
        self.core.get(&frame, directory.name(), key.as_ref()).await
    }

    /// The newest values of several keys, in their order; their reads overlap. Short ones share memory:
    /// see [`Directory::get_many`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        directory: &Directory,
        keys: &[K],
    ) -> Result<Vec<Option<Bytes>>> {
        self.check(directory)?;
        crate::batch::check_keys(keys)?;
        let frame = self.core.frame();
        self.core.get_many(&frame, directory.name(), keys).await
    }

    /// The entries within a range of keys, as of now.
    ///
    /// # Errors
    ///
    /// [`Error::WrongShard`], and [`Error::Invalid`] for a reversed range.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        directory: &Directory,
        range: impl RangeBounds<K>,
    ) -> Result<LocalScan> {
        self.snapshot().scan(directory, RangeOf::bounds(range))
    }

    /// The entries whose keys begin with a prefix, as of now. Errors as [`range`](Local::range).
    pub fn prefix(&self, directory: &Directory, prefix: impl AsRef<[u8]>) -> Result<LocalScan> {
        self.snapshot().scan(directory, RangeOf::prefix(prefix.as_ref()))
    }

    /// All entries, as of now. Errors as [`range`](Local::range).
    pub fn iter(&self, directory: &Directory) -> Result<LocalScan> {
        self.range::<&[u8]>(directory, ..)
    }

    /// A view of the newest commit. It pins what it reads from, until it is dropped.
    pub fn snapshot(&self) -> LocalSnapshot {
        LocalSnapshot { local: self.clone(), frame: self.core.frame() }
    }

    /// A view as of a commit.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`].
    pub fn as_of(&self, commit: Commit) -> Result<LocalSnapshot> {
        Ok(LocalSnapshot { local: self.clone(), frame: self.core.frame_as_of(commit)? })
    }

    /// Whether a directory exists.
    pub async fn exists(&self, directory: &Directory) -> Result<bool> {
        self.check(directory)?;
        let frame = self.core.frame();
        let found = self.core.directory_of(&frame, directory.name()).await?;
        Ok(found.is_some())
    }

    /// Waits until everything committed so far on this shard is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub async fn barrier(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.core.barrier(reply);
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Runs another task on this thread. It is dropped when the engine closes.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.core.spawn(task);
    }

    /// Refuses directories of another engine, and of other shards.
    fn check(&self, directory: &Directory) -> Result<()> {
        if Arc::as_ptr(directory.engine()) != self.engine.as_ptr() {
            return Err(crate::engine::foreign(directory));
        }
        self.check_shard(directory.name())
    }

    fn check_shard(&self, name: &Name) -> Result<()> {
        if name.shard() == self.shard() {
            return Ok(());
        }
        Err(Error::WrongShard { root: name.root().into(), lives_on: name.shard(), shard: self.shard() })
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Local(shard {})", self.shard())
    }
}

/// A commit made through a [`Local`] handle. Awaiting it waits until it is acknowledged; dropping it does not
/// undo it.
#[must_use = "a commit is acknowledged when it is awaited"]
pub struct LocalCommit {
    core: Option<Rc<Core>>,
    state: State,
}

enum State {
    /// It has its number, and is durable when all up to it are.
    Sequenced(Commit),
    Queued(Rc<Slot>),
    Over(Option<Result<CommitId>>),
}

impl LocalCommit {
    fn failed(error: Error) -> Self {
        LocalCommit { core: None, state: State::Over(Some(Err(error))) }
    }

    fn on(mut self, core: &Rc<Core>) -> Self {
        self.core = Some(core.clone());
        self
    }
}

impl Future for LocalCommit {
    type Output = Result<CommitId>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = &mut *self;
            match (&mut this.state, &this.core) {
                (State::Over(result), _) => {
                    return Poll::Ready(result.take().unwrap_or(Err(Error::Closed)));
                }
                (State::Sequenced(commit), Some(core)) => {
                    let mut state = core.state.borrow_mut();
                    if state.waiters.durable_until() >= *commit {
                        let id = CommitId { shard: core.config.shard, number: *commit };
                        return Poll::Ready(Ok(id));
                    }
                    if let Some(error) = state.over() {
                        return Poll::Ready(Err(error));
                    }
                    state.waiters.wait(*commit, cx.waker());
                    return Poll::Pending;
                }
                (State::Queued(slot), _) => {
                    let outcome = slot.outcome.borrow_mut().take();
                    match outcome {
                        None => {
                            *slot.waker.borrow_mut() = Some(cx.waker().clone());
                            return Poll::Pending;
                        }
                        Some(Sequenced::At(commit)) => this.state = State::Sequenced(commit),
                        Some(Sequenced::Answered(result)) => this.state = State::Over(Some(result)),
                    }
                }
                (State::Sequenced(_), None) => return Poll::Ready(Err(Error::Closed)),
            }
        }
    }
}

impl std::fmt::Debug for LocalCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalCommit")
    }
}

/// A view of the shard at one commit, for tasks on its thread; see [`Snapshot`](crate::Snapshot).
#[derive(Clone)]
pub struct LocalSnapshot {
    local: Local,
    frame: Frame,
}

impl LocalSnapshot {
    pub(super) fn core(&self) -> &Rc<Core> {
        &self.local.core
    }

    pub(super) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The commit it shows.
    pub fn commit(&self) -> Commit {
        self.frame.commit
    }

    /// The value of a key. Errors as [`Local::get`].
    pub async fn get(&self, directory: &Directory, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.local.check(directory)?;
        crate::batch::check_key(key.as_ref())?;
        let core = &self.local.core;
        core.get(&self.frame, directory.name(), key.as_ref()).await
    }

    /// The values of several keys, in their order. Short ones share memory: see [`Directory::get_many`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        directory: &Directory,
        keys: &[K],
    ) -> Result<Vec<Option<Bytes>>> {
        self.local.check(directory)?;
        crate::batch::check_keys(keys)?;
        let core = &self.local.core;
        core.get_many(&self.frame, directory.name(), keys).await
    }

    /// The entries within a range of keys. Errors as [`Local::range`].
    pub fn range<K: AsRef<[u8]>>(
        &self,
        directory: &Directory,
        range: impl RangeBounds<K>,
    ) -> Result<LocalScan> {
        self.clone().scan(directory, RangeOf::bounds(range))
    }

    /// The entries whose keys begin with a prefix.
    pub fn prefix(&self, directory: &Directory, prefix: impl AsRef<[u8]>) -> Result<LocalScan> {
        self.clone().scan(directory, RangeOf::prefix(prefix.as_ref()))
    }

    /// All entries.
    pub fn iter(&self, directory: &Directory) -> Result<LocalScan> {
        self.range::<&[u8]>(directory, ..)
    }

    /// Whether a directory existed.
    pub async fn exists(&self, directory: &Directory) -> Result<bool> {
        self.local.check(directory)?;
        let core = &self.local.core;
        Ok(core.directory_of(&self.frame, directory.name()).await?.is_some())
    }

    fn scan(self, directory: &Directory, range: RangeOf) -> Result<LocalScan> {
        self.local.check(directory)?;
        range.check()?;
        Ok(LocalScan::new(self, directory.name().clone(), range))
    }
}

impl std::fmt::Debug for LocalSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalSnapshot(shard {}, commit {})", self.local.shard(), self.frame.commit)
    }
}

/// What runs tasks on the shard's thread: whoever hosts it.
pub(crate) type Spawner = Box<dyn Fn(Pin<Box<dyn Future<Output = ()>>>)>;
