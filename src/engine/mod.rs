//! The engine: all shards opened on one folder. It routes by root, and opens and closes.
//!
//! The engine owns no data. It holds a mailbox a shard ([`crate::shard::mailbox`]) and the shards' threads
//! ([`crate::shard::host`]); everything it is asked becomes a [`Request`] to one shard, or to all of them.

pub(crate) mod directory;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub(crate) mod identity;
pub(crate) mod scan;
pub(crate) mod snapshot;

pub use directory::Directory;
pub use scan::{BlockingScan, Scan};
pub use snapshot::Snapshot;

use crate::answer::{Answer, Wait};
use crate::batch::Batch;
use crate::disk::Uring;
use crate::error::{Error, Result};
use crate::levels::{Commit, Divisor, History, Retention};
use crate::options::{Durability, Fixed, IoChoice, Options, check_within};
use crate::path::Name;
use crate::shard::host::{self, Started};
use crate::shard::local::Local;
use crate::shard::mailbox::{Mailbox, PostError};
use crate::shard::request::{Action, ReplyTo, Request};
use crate::stats::{SegmentInfo, Stats, Verified};
use snapshot::Held;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// A commit: which shard sequenced it, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommitId {
    /// The shard.
    pub shard: u16,
    /// Its number: 1, 2, 3 … without gaps.
    pub number: Commit,
}

/// Which commits of a shard can be read as of, at the moment it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retained {
    pub(crate) history: History,
    pub(crate) divisor: Divisor,
    pub(crate) newest: Commit,
}

impl Retained {
    /// What the shard keeps.
    pub fn retention(&self) -> Retention {
        self.history.retention
    }

    /// The newest commit, which can always be read.
    pub fn newest(&self) -> Commit {
        self.newest
    }

    /// The oldest commit that can be read; 0 is the empty state before the first.
    pub fn oldest(&self) -> Commit {
        self.nearest(Commit::ZERO)
    }

    /// Whether a commit can be read.
    pub fn contains(&self, commit: Commit) -> bool {
        self.history.retained(self.divisor, commit, self.newest)
    }

    /// The commit nearest to one that can be read: the last one up to it, else the first one after it.
    pub fn nearest(&self, commit: Commit) -> Commit {
        self.history.nearest(self.divisor, commit, self.newest)
    }
}

/// What opening an engine took.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// From the call of `open` to its return.
    pub took: Duration,
    /// Each shard's part.
    pub shards: Vec<ShardRecovery>,
}

impl RecoveryReport {
    /// Commits replayed from the logs.
    pub fn replayed(&self) -> u64 {
        self.shards.iter().map(|shard| shard.replayed).sum()
    }

    /// Bytes of log read.
    pub fn log_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.log_bytes).sum()
    }
}

/// What recovering one shard took.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ShardRecovery {
    /// From the start of its recovery to its end.
    pub took: Duration,
    /// Commits replayed from the log.
    pub replayed: u64,
    /// Bytes of log read.
    pub log_bytes: u64,
    /// The newest commit found.
    pub newest: Commit,
    /// Carries that had been interrupted and are done again.
    pub carries: usize,
    /// Files removed that belonged to nothing.
    pub orphans: usize,
}

/// A storage engine: directories of keys and values, sharded across cores.
///
/// Clones share the engine. It closes when [`close`](Engine::close) is called or the last of its handles
/// (clones, directories, snapshots, scans) is dropped; either way nothing acknowledged is lost.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// let engine = quipu::Engine::open(path)?;
/// let users = engine.directory("acme/users")?;
/// users.put("ada", "1815").wait()?; // durable when it returns
/// engine.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

/// What lasts until the engine is closed.
struct Open {
    threads: Vec<host::Thread>,
    /// The folder's lock; the shards' threads hold it too.
    _lock: Arc<identity::Lock>,
}

pub(crate) struct EngineInner {
    fixed: Fixed,
    durability: Durability,
    /// See [`Options::linger`].
    pub(crate) linger: Duration,
    mailboxes: Vec<Arc<Mailbox>>,
    /// `None` once the engine is closed.
    open: Mutex<Option<Open>>,
    recovery: RecoveryReport,
    io_kind: &'static str,
    io_fallback: Option<String>,
}

impl Options {
    /// Opens the engine in a folder, or creates it there.
    ///
    /// # Errors
    ///
    /// [`Error::Options`], [`Error::NotAnEngine`], [`Error::Locked`], [`Error::NoIoUring`],
    /// [`Error::Damaged`], [`Error::Io`], [`Error::NoSpace`], [`Error::ReadOnly`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Engine> {
        Engine::open_with(path.as_ref(), self)
    }
}

impl Engine {
    /// Opens the engine in a folder with the default [`Options`], or creates it there.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Engine> {
        Options::new().open(path)
    }

    fn open_with(root: &Path, options: &Options) -> Result<Engine> {
        let started = std::time::Instant::now();
        options.check()?;
        if options.io == IoChoice::Require {
            // Before anything is written.
            Uring::probe().map_err(|no_uring| Error::NoIoUring { why: no_uring.why })?;
        }
        let exists = identity::look(root)?;
        if !exists {
            if !options.create {
                let why = "there is no engine, and the options say not to create one".into();
                return Err(Error::NotAnEngine { path: root.into(), why });
            }
            fs::create_dir_all(root)
                .map_err(|error| Error::io("create", root.display().to_string(), error))?;
        }
        let lock = Arc::new(identity::lock(root)?);
        // Looked at again under the lock: another process may have created it meanwhile.
        let fixed = if identity::look(root)? {
            let fixed = identity::read(root)?;
            fixed.agree(options)?;
            fixed
        } else {
            let fixed = Fixed::create(options, host::random_id(), host::cores());
            identity::create(root, &fixed)?;
            fixed
        };

        let Started { threads, mailboxes, shards, io_kind, io_fallback } =
            host::start(root, &fixed, options, &lock)?;
        let recovery = RecoveryReport { took: started.elapsed(), shards };
        Ok(Engine {
            inner: Arc::new(EngineInner {
                fixed,
                durability: options.durability,
                linger: options.linger,
                mailboxes,
                open: Mutex::new(Some(Open { threads, _lock: lock })),
                recovery,
                io_kind,
                io_fallback,
            }),
        })
    }

    /// A handle of an engine of one shard that somebody else hosts, behind this mailbox.
    pub(crate) fn detached(fixed: Fixed, options: &Options, mailbox: Arc<Mailbox>) -> Engine {
        Engine {
            inner: Arc::new(EngineInner {
                fixed,
                durability: options.durability,
                linger: Duration::ZERO,
                mailboxes: vec![mailbox],
                open: Mutex::new(None),
                recovery: RecoveryReport::default(),
                io_kind: "simulated",
                io_fallback: None,
            }),
        }
    }

    /// For handles that do not keep the engine open.
    pub(crate) fn weak(&self) -> Weak<EngineInner> {
        Arc::downgrade(&self.inner)
    }

    /// A handle of a directory. Checks the path's grammar; reads and writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a path that breaks the grammar.
    pub fn directory(&self, path: impl AsRef<[u8]>) -> Result<Directory> {
        let name = self.inner.name(path.as_ref())?;
        Ok(Directory::new(self.inner.clone(), name))
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.inner.fixed.shards
    }

    /// The shard that a path's root lives on.
    ///
    /// # Errors
    ///
    /// As [`directory`](Engine::directory).
    pub fn shard_of(&self, path: impl AsRef<[u8]>) -> Result<u16> {
        self.inner.name(path.as_ref()).map(|name| name.shard())
    }

    /// Commits a batch with the engine's durability.
    ///
    /// # Errors
    ///
    /// What is wrong with the batch ([`Error::Invalid`], [`Error::TwoRoots`]); [`Error::Poisoned`],
    /// [`Error::NoSpace`], [`Error::Closed`].
    pub fn commit(&self, batch: Batch) -> Answer<CommitId> {
        self.inner.commit(batch, None)
    }

    /// Commits a batch with a durability of its own. Errors as [`commit`](Engine::commit).
    pub fn commit_with(&self, batch: Batch, durability: Durability) -> Answer<CommitId> {
        self.inner.commit(batch, Some(durability))
    }

    /// Makes everything committed so far durable, on all shards: what was acknowledged, and what was sent by this
    /// thread and not answered yet.
    pub fn barrier(&self) -> Answer<()> {
        let answers = self.inner.ask_all(|reply| Request::Barrier { reply });
        Answer::later(async move {
            for answer in answers {
                answer.await?;
            }
            Ok(())
        })
    }

    /// A view of the newest commit of a directory's shard.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] where [`SNAPSHOTS_MAX`](crate::limits::SNAPSHOTS_MAX) are open.
    pub fn snapshot(&self, directory: &Directory) -> Answer<Snapshot> {
        self.inner.open_snapshot(directory, None)
    }

    /// A view of a directory's shard as of a commit.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`], which names the nearest commit that is; [`Error::TooMany`].
    pub fn as_of(&self, directory: &Directory, commit: Commit) -> Answer<Snapshot> {
        self.inner.open_snapshot(directory, Some(commit))
    }

    /// Which commits of a directory's shard can be read as of.
    pub fn retained(&self, directory: &Directory) -> Answer<Retained> {
        match self.inner.check(directory) {
            Ok(()) => self.inner.ask(directory.shard(), |reply| Request::Retained { reply }),
            Err(error) => Answer::ready(Err(error)),
        }
    }

    /// The paths of the roots of all shards, in the order of their components: at most `limit` (and at most
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX)) of those after `after`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// let engine = quipu::Options::new().shards(2).root_components(2).open(folder.path())?;
    /// for path in ["acme/one", "acme/two/users", "zeta/one"] {
    ///     engine.directory(path)?.put("key", "value").wait()?;
    /// }
    /// assert_eq!(engine.roots(None, 2).wait()?, ["acme/one", "acme/two"]);
    /// assert_eq!(engine.roots(Some("acme/two"), 2).wait()?, ["zeta/one"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn roots(&self, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        let limit = limit.min(crate::limits::PAGE_ENTRIES_MAX);
        let after = after.map(str::to_string);
        let answers = self.inner.ask_all(|reply| Request::Roots { after: after.clone(), limit, reply });
        Answer::later(async move {
            let mut roots = Vec::new();
            for answer in answers {
                roots.extend(answer.await?);
            }
            roots.sort_by(|one, other| one.split('/').cmp(other.split('/')));
            roots.truncate(limit);
            Ok(roots)
        })
    }

    /// Runs a closure, and the future it makes, on the thread of a directory's shard. It gets a local handle:
    /// commits and reads without a mailbox between. Tokio's timers and sockets work there, and where the
    /// engine runs on io_uring, tokio-uring's files.
    ///
    /// The task shares the thread with the shard: it must not block. One that never waits but only yields keeps the
    /// thread awake, and with it from what happens when the runtime parks: tokio-uring submits its operations
    /// then. Await something, a timer at least.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] where the task did, [`Error::Closed`] where the engine was closed before it ended.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
    /// let counter = engine.directory("acme/counter")?;
    /// let copy = counter.clone();
    /// let sum = engine.run_on(&counter, async move |local: quipu::Local| {
    ///     for value in 1..=3u8 {
    ///         local.put(&copy, [value], [value]).await?;
    ///     }
    ///     let mut sum = 0;
    ///     let mut scan = local.iter(&copy)?;
    ///     while let Some((_, value)) = scan.next().await? {
    ///         sum += value[0];
    ///     }
    ///     Ok::<_, quipu::Error>(sum)
    /// });
    /// assert_eq!(sum.wait()??, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_on<F, Fut, R>(&self, directory: &Directory, task: F) -> Answer<R>
    where
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        match self.inner.check(directory) {
            Ok(()) => self.run_on_shard(directory.shard(), task),
            Err(error) => Answer::ready(Err(error)),
        }
    }

    /// Runs a closure on a shard's thread, by the shard's number. See [`run_on`](Engine::run_on).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where there is no such shard, and those of `run_on`.
    pub fn run_on_shard<F, Fut, R>(&self, shard: u16, task: F) -> Answer<R>
    where
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        if shard >= self.shards() {
            let why = format!("this engine has {} shards, numbered from 0", self.shards());
            return Answer::ready(Err(Error::invalid(format!("shard {shard}"), why)));
        }
        // The task holds no handle of the engine by itself: that is the caller's choice.
        let inner = self.weak();
        self.inner.ask(shard, |reply: ReplyTo<R>| Request::Run {
            task: Box::new(move |local: Local| {
                let local = local.of_engine(inner);
                let spawner = local.clone();
                // The closure runs within the task, so that the runtime catches its panics too.
                spawner.spawn(async move {
                    let mut asker = Asker { shard, reply: Some(reply) };
                    let result = task(local).await;
                    asker.tell(Ok(result));
                });
            }),
        })
    }

    /// Figures of every shard.
    pub fn stats(&self) -> Answer<Stats> {
        let answers = self.inner.ask_all(|reply| Request::Stats { reply });
        Answer::later(async move {
            let mut shards = Vec::with_capacity(answers.len());
            for answer in answers {
                shards.push(*answer.await?);
            }
            Ok(Stats { shards })
        })
    }

    /// The live files of every shard, as their newest installed carries left them: what a copy of the data by
    /// file consists of, beside the log. Windows and parts of the base are the same in two copies wherever both
    /// have them, down to the hash; spills come and go with the memory that there was.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
    /// engine.directory("acme/users")?.put("ada", "1815").wait()?;
    /// for segment in engine.segments().wait()? {
    ///     println!("{} {} {:032x}", segment.shard, segment.file, segment.hash);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn segments(&self) -> Answer<Vec<SegmentInfo>> {
        let answers = self.inner.ask_all(|reply| Request::Segments { reply });
        Answer::later(async move {
            let mut segments = Vec::new();
            for answer in answers {
                segments.extend(answer.await?);
            }
            Ok(segments)
        })
    }

    /// What opening this engine took.
    pub fn recovery(&self) -> RecoveryReport {
        self.inner.recovery.clone()
    }

    /// How the files are reached: "io_uring" or "plain system calls".
    pub fn io_kind(&self) -> &'static str {
        self.inner.io_kind
    }

    /// Why io_uring is not used, where it was wanted and is not to be had.
    pub fn io_fallback(&self) -> Option<&str> {
        self.inner.io_fallback.as_deref()
    }

    /// Reads every live file from end to end, past the cache, and checks all there is to check: checksums, order, index,
    /// filters, counts, content hash. It goes on beside everything else, and pins the files meanwhile. The log was
    /// checked when the engine was opened.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
    /// let verified = engine.verify().wait()?;
    /// assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self) -> Answer<Verified> {
        let answers = self.inner.ask_all(|reply| Request::Verify { reply });
        Answer::later(async move {
            let mut all = Verified::default();
            for answer in answers {
                all.add(answer.await?);
            }
            Ok(all)
        })
    }

    /// Closes the engine: finishes what was sent, makes everything durable, ends the threads. On-core tasks
    /// that still run are dropped, carries that are not done are given up until the next opening, and files that nothing
    /// refers to any more are removed. Other handles answer [`Error::Closed`] from then on.
    ///
    /// # Errors
    ///
    /// What failed in the last log write, if anything did.
    pub fn close(self) -> Result<()> {
        self.inner.close()
    }
}

impl EngineInner {
    pub(crate) fn name(&self, path: &[u8]) -> Result<Name> {
        Name::new(path, self.fixed.root_components, self.fixed.shards)
    }

    /// Sends a request to a shard and gives the claim to its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        shard: u16,
        request: impl FnOnce(ReplyTo<T>) -> Request,
    ) -> Answer<T> {
        let (reply, receiver) = oneshot::channel();
        let mailbox = &self.mailboxes[usize::from(shard)];
        let request = request(reply);
        // The answer of what waits for a log write takes longer than looking is worth, and the core may be wanted for that.
        let wait = if request.is_patient() {
            Wait::Sleeps(mailbox.bells().current())
        } else {
            Wait::Looks(self.linger)
        };
        match mailbox.try_post(request) {
            Ok(()) => Answer::sent(receiver, shard, wait),
            Err(PostError::Closed) => Answer::ready(Err(Error::Closed)),
            Err(PostError::Full(request)) => {
                let mailbox = mailbox.clone();
                Answer::later(async move {
                    mailbox.post(request).await?;
                    Answer::sent(receiver, shard, Wait::NONE).await
                })
            }
        }
    }

    fn ask_all<T: Send + 'static>(&self, request: impl Fn(ReplyTo<T>) -> Request) -> Vec<Answer<T>> {
        (0..self.fixed.shards).map(|shard| self.ask(shard, &request)).collect()
    }

    /// Refuses a handle of another engine.
    pub(crate) fn check(&self, directory: &Directory) -> Result<()> {
        match std::ptr::eq(Arc::as_ptr(directory.engine()), self) {
            true => Ok(()),
            false => Err(foreign(directory)),
        }
    }

    pub(crate) fn commit(&self, batch: Batch, durability: Option<Durability>) -> Answer<CommitId> {
        let checked = batch.check(self).and_then(|()| match durability {
            Some(Durability::Buffered { within }) => check_within(within),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            return Answer::ready(Err(error));
        }
        // A checked batch has an operation, so it has a name.
        let shard = batch.first_name().map_or(0, Name::shard);
        let durability = durability.unwrap_or(self.durability);
        let action = Action::Batch(batch);
        self.ask(shard, |reply| Request::Commit { action, durability, reply })
    }

    /// Sends a rename or a drop.
    pub(crate) fn act(&self, shard: u16, action: Action) -> Answer<CommitId> {
        let durability = self.durability;
        self.ask(shard, |reply| Request::Commit { action, durability, reply })
    }

    fn open_snapshot(self: &Arc<Self>, directory: &Directory, commit: Option<Commit>) -> Answer<Snapshot> {
        if let Err(error) = self.check(directory) {
            return Answer::ready(Err(error));
        }
        let shard = directory.shard();
        let opened = self.ask(shard, |reply| Request::Open { commit, reply });
        let engine = self.clone();
        Answer::later(async move { Ok(Snapshot::new(Held::new(engine, shard, opened.await?))) })
    }

    fn close(&self) -> Result<()> {
        let open = self.open.lock().map(|mut open| open.take()).unwrap_or_default();
        let Some(open) = open else { return Ok(()) };
        if host::is_hosting() {
            // The last handle went on a shard's own thread, which must not wait for itself.
            self.mailboxes.iter().for_each(|mailbox| mailbox.end());
            return Ok(());
        }
        let answers = self.ask_all(|reply| Request::Close { reply });
        let results: Vec<Result<()>> = answers.into_iter().map(Answer::wait).collect();
        for thread in open.threads {
            thread.join();
        }
        results.into_iter().collect()
    }
}

/// What is told of a handle of another engine.
pub(crate) fn foreign(directory: &Directory) -> Error {
    let why = "a handle of another engine, or of an earlier opening";
    Error::invalid(format!("directory {:?}", directory.path()), why)
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        // A failure here has no one to be told to; what was acknowledged durable is so already.
        let _ = self.close();
    }
}

impl std::fmt::Debug for EngineInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} shards on {}", self.fixed.shards, self.io_kind)
    }
}

/// Whoever waits for a task. Told too where the task panics, and is dropped on the way.
struct Asker<R> {
    shard: u16,
    reply: Option<ReplyTo<R>>,
}

impl<R> Asker<R> {
    fn tell(&mut self, result: Result<R>) {
        if let Some(reply) = self.reply.take() {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(result);
        }
    }
}

impl<R> Drop for Asker<R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell(Err(Error::Panicked { shard: self.shard }));
        }
    }
}
