//! Sequencing: giving commits their numbers, in the order in which they arrive.
//!
//! A commit is tried in four steps, and only the last changes anything:
//!
//! 1. *Look up* the directories it names in the cache of paths. One that is not there has to be read from the
//!    catalog first ([`super::resolve`]); the commit, and all behind it, wait for that.
//! 2. *Make room*: the log, the memtables' budget and the pace of compaction must admit it; else it waits.
//! 3. *Encode* it: its operations, with catalog entries for directories that it makes.
//! 4. *Apply* the record: stage it in the log, insert it into the memtable, count it in the schedule. Replaying
//!    the log applies the same records through the same function ([`super::tip::Tip::apply`]).

use super::catalog::Known;
use super::request::{Action, ReplyTo};
use super::serve::Permits;
use super::tip::Apply;
use super::{Config, Core, State, TOP, record};
use crate::batch::OpRef;
use crate::engine::CommitId;
use crate::entry::DirectoryId;
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits;
use crate::options::Durability;
use crate::path::{Name, hash_of, split};
use crate::probes;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::task::Waker;

/// The most commits sequenced from the queue in one turn.
const COMMITS_PER_TURN: usize = 1024;
/// How far behind the front of the queue paths are resolved ahead.
const RESOLVE_AHEAD: usize = 64;
/// How often a commit's paths are resolved anew: once is enough, unless they do not fit in the cache together.
const ATTEMPTS_MAX: u32 = 4;
/// A directory that a commit makes counts at most this many bytes beyond its name.
const DIRECTORY_BYTES: usize = 64;

/// A commit that waits to be sequenced.
pub(crate) struct Queued {
    pub(crate) action: Action,
    pub(crate) durability: Durability,
    pub(crate) reply: Reply,
    /// The disk's clock when it came, in nanoseconds.
    pub(crate) arrived: u64,
    /// Its paths were begun to be resolved.
    pub(crate) resolving: Option<Rc<Resolving>>,
    /// Its place in the mailbox, given back once it is sequenced.
    pub(crate) permits: Option<Permits>,
}

/// The resolving of the paths of a commit that waits.
#[derive(Default)]
pub(crate) struct Resolving {
    /// Paths that are still being read.
    pub(super) under_way: Cell<usize>,
    /// Why one of them could not be.
    pub(super) failed: RefCell<Option<Error>>,
}

/// Who gets the answer to a commit.
pub(crate) enum Reply {
    Client(ReplyTo<CommitId>),
    Task(Rc<Slot>),
}

impl Reply {
    /// Answers before the commit is durable: with an error, or for a buffered commit.
    pub(crate) fn send(self, result: Result<CommitId>) {
        match self {
            // The client may have stopped waiting.
            Reply::Client(reply) => drop(reply.send(result)),
            Reply::Task(slot) => slot.set(Sequenced::Answered(result)),
        }
    }
}

/// What a task on the shard's thread learns of its queued commit.
pub(crate) enum Sequenced {
    /// It has a number, and is to be waited for.
    At(Commit),
    /// It is over.
    Answered(Result<CommitId>),
}

/// Where a task finds what became of its queued commit.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) outcome: RefCell<Option<Sequenced>>,
    pub(crate) waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn set(&self, outcome: Sequenced) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// What came of trying to sequence a commit.
pub(crate) enum Verdict {
    Sequenced(Commit),
    /// There is no room yet for so many bytes, its directories counted (or others come first: then for none).
    Wait(usize),
    /// This path has to be resolved first.
    Unresolved(Name),
    Refused(Error),
}

/// The directories that a commit makes, by their paths: each after the one above it.
#[derive(Default)]
struct Makes {
    paths: Vec<String>,
    planned: HashSet<String>,
}

impl Makes {
    /// What their catalog entries count in a record, at most.
    fn bytes(&self) -> usize {
        self.paths.iter().map(|path| path.len() + DIRECTORY_BYTES).sum()
    }
}

impl Core {
    /// Sequences an on-core commit at once where nothing is in its way.
    pub(crate) fn try_now<'a>(
        self: &Rc<Self>,
        ops: impl Iterator<Item = OpRef<'a>> + Clone,
        durability: Durability,
    ) -> Verdict {
        for _ in 0..ATTEMPTS_MAX {
            let verdict = {
                let mut state = self.state.borrow_mut();
                if let Some(error) = state.refusal() {
                    return Verdict::Refused(error);
                }
                if !state.queue.is_empty() {
                    return Verdict::Wait(0);
                }
                state.try_batch(&self.config, ops.clone(), durability, self.now())
            };
            match verdict {
                Verdict::Sequenced(commit) => {
                    self.kick();
                    return Verdict::Sequenced(commit);
                }
                Verdict::Unresolved(_) => match self.resolve_all_now(ops.clone().map(|op| op.name)) {
                    Some(Ok(())) => continue,
                    Some(Err(error)) => return Verdict::Refused(error),
                    None => return Verdict::Wait(0),
                },
                other => return other,
            }
        }
        Verdict::Refused(too_many_paths())
    }

    /// Makes the cache know the paths of a batch, if that takes no wait for the disk. `None` where it does.
    fn resolve_all_now<'a>(&self, names: impl Iterator<Item = &'a Name>) -> Option<Result<()>> {
        let mut last: Option<&Name> = None;
        for name in names {
            if last.is_some_and(|last| last.same(name)) {
                continue;
            }
            last = Some(name);
            match self.resolve_now(name) {
                Some(Ok(())) => {}
                other => return other,
            }
        }
        Some(Ok(()))
    }

    /// Queues a commit behind those that wait.
    pub(crate) fn enqueue(
        &self,
        action: Action,
        durability: Durability,
        reply: Reply,
        permits: Option<Permits>,
    ) {
        let mut state = self.state.borrow_mut();
        if let Some(error) = state.refusal() {
            drop(state);
            return reply.send(Err(error));
        }
        let arrived = self.now();
        state.queue.push_back(Queued { action, durability, reply, arrived, resolving: None, permits });
        drop(state);
        self.kick();
    }

    /// Sequences what waits, in order, as far as it goes. Answers how many.
    pub(super) fn sequence_queue(self: &Rc<Self>) -> usize {
        let before = self.state.borrow().queue.len();
        let count = self.sequence_some();
        let (left, barriers) = {
            let state = self.state.borrow();
            (state.queue.len(), !state.barriers.is_empty())
        };
        if barriers {
            self.barriers_go_on(before.saturating_sub(left));
        }
        count
    }

    fn sequence_some(self: &Rc<Self>) -> usize {
        let mut count = 0;
        let mut attempts = 0;
        while count < COMMITS_PER_TURN {
            let now = self.now();
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let Some(queued) = state.queue.pop_front() else { break };
            let Queued { action, durability, reply, arrived, resolving, permits } = queued;
            let tried = state.shortage_tried;
            let verdict = match &action {
                Action::Batch(batch) => state.try_batch(&self.config, batch.ops(), durability, now),
                Action::Rename { from, to } => state.try_rename(&self.config, from, to, durability, now),
                Action::Remove { name } => state.try_remove(&self.config, name, durability, now),
            };
            match verdict {
                Verdict::Sequenced(commit) => {
                    (count, attempts) = (count + 1, 0);
                    state.stages.sequenced.saturating_record(now.saturating_sub(arrived).max(1));
                    let id = CommitId { shard: self.config.shard, number: commit };
                    match (durability, reply) {
                        (Durability::Buffered { .. }, reply) => reply.send(Ok(id)),
                        (Durability::Sync, Reply::Client(client)) => state.waiters.client(commit, client),
                        (Durability::Sync, Reply::Task(slot)) => slot.set(Sequenced::At(commit)),
                    }
                }
                Verdict::Refused(error) => {
                    attempts = 0;
                    reply.send(Err(error));
                }
                Verdict::Wait(bytes) => match state.stuck(&self.config, bytes, now) {
                    Some(error) => {
                        attempts = 0;
                        reply.send(Err(error));
                        // What is behind it is tried anew with the next turn.
                        self.kick();
                    }
                    None => {
                        let queued = Queued { action, durability, reply, arrived, resolving, permits };
                        state.queue.push_front(queued);
                        if state.shortage_tried && !tried {
                            // The other try begins with the next turn.
                            self.kick();
                        }
                        break;
                    }
                },
                Verdict::Unresolved(name) => {
                    let under_way = resolving.as_ref().is_some_and(|paths| paths.under_way.get() > 0);
                    let failed = resolving.as_ref().and_then(|paths| paths.failed.take());
                    // What was resolved ahead may have become void by a rename or a drop: once more, then.
                    let resolving = resolving.filter(|_| under_way);
                    state.queue.push_front(Queued { action, durability, reply, arrived, resolving, permits });
                    drop(guard);
                    if under_way {
                        break;
                    }
                    attempts += 1;
                    let resolved = match failed {
                        Some(error) => Some(Err(error)),
                        None if attempts > ATTEMPTS_MAX => Some(Err(too_many_paths())),
                        None => self.resolve_front_now(&name),
                    };
                    match resolved {
                        Some(Ok(())) => {}
                        Some(Err(error)) => {
                            attempts = 0;
                            let front = self.state.borrow_mut().queue.pop_front();
                            if let Some(queued) = front {
                                queued.reply.send(Err(error));
                            }
                        }
                        None => {
                            self.resolve_ahead();
                            break;
                        }
                    }
                }
            }
        }
        count
    }

    /// Makes the cache know the paths of the commit at the front of the queue, if that takes no wait.
    fn resolve_front_now(&self, name: &Name) -> Option<Result<()>> {
        let names: Vec<Name> = match self.state.borrow().queue.front().map(|queued| &queued.action) {
            Some(Action::Batch(batch)) => batch.names().cloned().collect(),
            Some(Action::Rename { from, to }) => vec![from.clone(), to.clone()],
            _ => vec![name.clone()],
        };
        self.resolve_all_now(names.iter())
    }

    /// Starts resolving the paths of the commits at the front of the queue.
    fn resolve_ahead(self: &Rc<Self>) {
        let mut names = Vec::new();
        for queued in self.state.borrow_mut().queue.iter_mut().take(RESOLVE_AHEAD) {
            if queued.resolving.is_some() {
                continue;
            }
            let resolving = Rc::new(Resolving::default());
            queued.resolving = Some(resolving.clone());
            let mut add = |name: &Name| names.push((name.clone(), resolving.clone()));
            match &queued.action {
                Action::Batch(batch) => batch.names().for_each(add),
                Action::Rename { from, to } => [from, to].into_iter().for_each(add),
                Action::Remove { name } => add(name),
            }
        }
        for (name, resolving) in names {
            self.resolve_later(name, resolving);
        }
    }
}

/// A commit over more paths than can be known at a time.
fn too_many_paths() -> Error {
    Error::TooMany { what: "paths in a batch", limit: super::catalog::PATHS_CACHED_MAX }
}

impl State {
    /// Why commits are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match &self.poisoned {
            Some(error) => Some(error.clone()),
            None => self.closing.is_some().then_some(Error::Closed),
        }
    }

    /// Why nothing that waits will become durable any more, if that is so.
    pub(crate) fn over(&self) -> Option<Error> {
        match &self.poisoned {
            Some(error) => Some(error.clone()),
            None => self.closed.then_some(Error::Closed),
        }
    }

    /// Why the commit at the front, for whose `bytes` there is no room, will wait until someone does something about it, if that is so.
    fn stuck(&mut self, config: &Config, bytes: usize, now: u64) -> Option<Error> {
        let log_full = !self.log.room_for(bytes) && self.log.staged().0 == 0 && self.log.in_flight() == 0;
        let held_up =
            log_full || !self.compaction.admits(self.tip.next()) || !self.memory_admits(config, bytes);
        // Once it is tried again, the commit waits for what comes of that.
        let stands = held_up && self.compaction.retry_at().is_none_or(|at| at > now);
        if let Some(error) = self.compaction.stalled().filter(|_| stands) {
            return Some(error.clone());
        }
        if !log_full || self.compaction.is_busy() || self.installer.is_busy() {
            return None;
        }
        let error = self.log.shortage().cloned()?;
        // It may have been found long ago: only what is found again is told.
        self.log.retry();
        self.shortage_tried = !self.shortage_tried;
        (!self.shortage_tried).then(|| error.on_shard(config.shard))
    }

    /// What is to become of a commit of `bytes` that cannot be sequenced now; `None` where it can.
    fn hindrance(&mut self, config: &Config, bytes: usize) -> Option<Verdict> {
        if let Some(error) = &self.poisoned {
            return Some(Verdict::Refused(error.clone()));
        }
        if bytes > self.log.record_bytes_max() {
            let most = self.log.record_bytes_max();
            let why = format!("{bytes} bytes as a record of the log; a log file of this engine holds {most}");
            return Some(Verdict::Refused(Error::invalid("batch", why)));
        }
        let next = self.tip.next();
        if next >= Commit::MAX {
            let error = Error::TooMany { what: "commits of a shard", limit: Commit::MAX.0 as usize };
            return Some(Verdict::Refused(error));
        }
        let room = self.log.room_for(bytes);
        self.shortage_tried &= !room;
        let compaction = &self.compaction;
        let admitted =
            room && !compaction.holds() && compaction.admits(next) && self.memory_admits(config, bytes);
        (!admitted).then_some(Verdict::Wait(bytes))
    }

    /// Tries to sequence puts and deletes.
    pub(crate) fn try_batch<'a>(
        &mut self,
        config: &Config,
        ops: impl Iterator<Item = OpRef<'a>> + Clone,
        durability: Durability,
        now: u64,
    ) -> Verdict {
        // 1. Look up.
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        let mut bytes = 0;
        let mut makes = Makes::default();
        let mut last: Option<(&Name, Option<DirectoryId>)> = None;
        for op in ops.clone() {
            bytes += op.bytes();
            let id = match last {
                Some((name, id)) if name.same(op.name) && (id.is_some() || op.value.is_none()) => id,
                _ => match self.catalog.look_name(op.name) {
                    Known::Is(id) => Some(id),
                    Known::Absent => {
                        if op.value.is_some() && self.plan_makes(op.name.path(), &mut makes).is_none() {
                            self.ids = ids;
                            return Verdict::Unresolved(op.name.clone());
                        }
                        if makes.paths.len() > limits::DIRECTORIES_PER_COMMIT_MAX {
                            self.ids = ids;
                            let most = limits::DIRECTORIES_PER_COMMIT_MAX;
                            let why = format!("makes more than {most} directories; split it");
                            return Verdict::Refused(Error::invalid("batch", why));
                        }
                        None
                    }
                    Known::Unknown => {
                        self.ids = ids;
                        return Verdict::Unresolved(op.name.clone());
                    }
                },
            };
            last = Some((op.name, id));
            ids.push(id);
        }
        bytes += makes.bytes();

        // 2. Make room.
        if let Some(verdict) = self.hindrance(config, bytes) {
            self.ids = ids;
            return verdict;
        }

        // 3. Encode.
        let commit = self.tip.next();
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        let made = self.make(commit, &makes, &mut record);
        for (op, id) in ops.zip(&ids) {
            let id = id.or_else(|| made.get(op.name.path()).copied());
            // A delete in a directory that does not exist has nothing to delete.
            if let Some(id) = id {
                record::put_op(&mut record, id, op.key, op.value);
            }
        }
        self.ids = ids;

        // 4. Apply.
        self.sequence(config, &record, durability, now);
        self.record = record;
        Verdict::Sequenced(commit)
    }

    /// Tries to sequence a rename.
    fn try_rename(
        &mut self,
        config: &Config,
        from: &Name,
        to: &Name,
        durability: Durability,
        now: u64,
    ) -> Verdict {
        let (from_parent, from_name) = split(from.path());
        let (to_parent, to_name) = split(to.path());
        let (Some(from_parent), Some(to_parent)) = (from_parent, to_parent) else {
            return Verdict::Refused(Error::invalid("rename", "a root keeps its name"));
        };
        let id = match self.catalog.look_name(from) {
            Known::Is(id) => id,
            Known::Absent => return Verdict::Refused(Error::NoDirectory { path: from.path().into() }),
            Known::Unknown => return Verdict::Unresolved(from.clone()),
        };
        match self.catalog.look_name(to) {
            Known::Is(_) => return Verdict::Refused(Error::DirectoryExists { path: to.path().into() }),
            Known::Absent => {}
            Known::Unknown => return Verdict::Unresolved(to.clone()),
        }
        let Known::Is(old_parent) = self.catalog.look(from_parent, hash_of(from_parent)) else {
            return Verdict::Unresolved(from.clone());
        };
        let mut makes = Makes::default();
        let new_parent = match self.catalog.look(to_parent, hash_of(to_parent)) {
            Known::Is(id) => Some(id),
            Known::Absent if self.plan_makes(to_parent, &mut makes).is_some() => None,
            _ => return Verdict::Unresolved(to.clone()),
        };
        let bytes = from.path().len() + 2 * to.path().len() + makes.bytes() + 2 * DIRECTORY_BYTES;
        if let Some(verdict) = self.hindrance(config, bytes) {
            return verdict;
        }
        let commit = self.tip.next();
        let mut record = Vec::new();
        let made = self.make(commit, &makes, &mut record);
        let Some(new_parent) = new_parent.or_else(|| made.get(to_parent).copied()) else {
            return Verdict::Unresolved(to.clone());
        };
        let old_key = Core::catalog_key(old_parent.0, from_name);
        let new_key = Core::catalog_key(new_parent.0, to_name);
        record::put_op(&mut record, DirectoryId::CATALOG, &old_key, None);
        record::put_op(&mut record, DirectoryId::CATALOG, &new_key, Some(&id.0.to_be_bytes()));
        self.sequence(config, &record, durability, now);
        self.catalog.begin_epoch();
        Verdict::Sequenced(commit)
    }

    /// Tries to sequence a drop.
    fn try_remove(&mut self, config: &Config, name: &Name, durability: Durability, now: u64) -> Verdict {
        let id = match self.catalog.look_name(name) {
            Known::Is(id) => id,
            Known::Absent => return Verdict::Refused(Error::NoDirectory { path: name.path().into() }),
            Known::Unknown => return Verdict::Unresolved(name.clone()),
        };
        let (parent, last) = split(name.path());
        let parent = match parent.map(|parent| self.catalog.look(parent, hash_of(parent))) {
            None => TOP,
            Some(Known::Is(parent)) => parent.0,
            Some(_) => return Verdict::Unresolved(name.clone()),
        };
        if let Some(verdict) = self.hindrance(config, last.len() + 2 * DIRECTORY_BYTES) {
            return verdict;
        }
        let commit = self.tip.next();
        let mut record = Vec::new();
        record::put_op(&mut record, DirectoryId::CATALOG, &Core::catalog_key(parent, last), None);
        record::put_op(&mut record, DirectoryId::DROPS, &id.0.to_be_bytes(), Some(&[]));
        self.sequence(config, &record, durability, now);
        self.catalog.begin_epoch();
        Verdict::Sequenced(commit)
    }

    /// Notes the directories to make so that `path` exists, topmost first. `None` where the cache does not know
    /// how much of the path exists.
    fn plan_makes(&mut self, path: &str, makes: &mut Makes) -> Option<()> {
        let mut absent = Vec::new();
        let mut rest = Some(path);
        while let Some(path) = rest.filter(|path| !makes.planned.contains(*path)) {
            match self.catalog.look(path, hash_of(path)) {
                Known::Is(_) => break,
                Known::Absent => absent.push(path),
                Known::Unknown => return None,
            }
            rest = split(path).0;
        }
        for path in absent.into_iter().rev() {
            makes.planned.insert(path.to_string());
            makes.paths.push(path.to_string());
        }
        Some(())
    }

    /// Adds the catalog entries of directories to the record, and binds their paths.
    fn make(&mut self, commit: Commit, makes: &Makes, record: &mut Vec<u8>) -> HashMap<String, DirectoryId> {
        let mut made: HashMap<String, DirectoryId> = HashMap::new();
        // The parents that exist, looked up before binding anything can make the cache forget them.
        let parents: Vec<Option<u64>> = makes
            .paths
            .iter()
            .map(|path| match split(path).0 {
                None => Some(TOP),
                Some(parent) => match self.catalog.look(parent, hash_of(parent)) {
                    Known::Is(id) => Some(id.0),
                    _ => None,
                },
            })
            .collect();
        for (index, (path, parent)) in makes.paths.iter().zip(parents).enumerate() {
            // There are at most `DIRECTORIES_PER_COMMIT_MAX`, which fits in 16 bits.
            let id = DirectoryId(commit.0 << 16 | index as u64);
            let (parent_path, name) = split(path);
            let above = parent.or_else(|| Some(made.get(parent_path?)?.0));
            // Planned topmost first, so what is above exists or was made just now.
            debug_assert!(above.is_some(), "a directory is made after its parent");
            let key = Core::catalog_key(above.unwrap_or(TOP), name);
            record::put_op(record, DirectoryId::CATALOG, &key, Some(&id.0.to_be_bytes()));
            made.insert(path.clone(), id);
        }
        for (path, id) in &made {
            self.catalog.bind(path, Some(*id), commit);
        }
        made
    }

    /// Gives a record the next number: stages it, applies it, and says how soon it must be written.
    fn sequence(&mut self, config: &Config, record: &[u8], durability: Durability, now: u64) {
        let commit = self.tip.next();
        self.log.stage(commit, record);
        probes::commit_sequenced(config.shard, commit, record.len());
        // A record made here reads back.
        let how = Apply::Live { newest_only: self.history.newest_only() };
        let carry = self.tip.apply(record, &config.budget, how).flatten();
        if let Some(carry) = carry {
            let work = self.work_of(carry);
            probes::carry_due(config.shard, carry.level(config.divisor).0, commit, work.total());
            self.compaction.due(carry, &self.tip.schedule.shape, commit, work);
        }
        self.compaction.sequenced(commit, record.len());
        self.commits += 1;
        self.waiters.sequenced(now);
        match durability {
            Durability::Sync => self.urgent = self.urgent.max(commit),
            Durability::Buffered { within } => {
                let by = now.saturating_add(u64::try_from(within.as_nanos()).unwrap_or(u64::MAX));
                self.write_by = Some(self.write_by.map_or(by, |earlier| earlier.min(by)));
            }
        }
    }
}

/// A commit of an on-core task that could not be sequenced at once.
pub(crate) fn queue_action(core: &Rc<Core>, action: Action, durability: Durability) -> Rc<Slot> {
    let slot = Rc::new(Slot::default());
    core.enqueue(action, durability, Reply::Task(slot.clone()), None);
    slot
}
