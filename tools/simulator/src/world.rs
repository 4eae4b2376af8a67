//! A shard under simulation together with all that is known of it: the oracle.
//!
//! 1. A commit that is submitted waits among *arrivals*, in the order in which the shard gets them; those sent
//!    through the mailbox are *posted* until the shard's next turn takes them up.
//! 2. After every step (`World::observe`) the shard's newest number says how many arrivals were sequenced: the
//!    model makes the same steps, and must come to the same refusals. So there is a state for every commit.
//! 3. Acknowledgements must come in order, with the right number, and not before the commit is durable.
//! 4. When a session ends, what is durable is the least, what is sequenced the most that the next may find; and
//!    what it finds must be one of the states, whole.
//!
//! A violation is a panic.

use crate::coverage::Coverage;
use crate::faults::{FaultEvent, Harm, Injector};
use crate::invariants::{CoverCheck, check_alignment, check_pace, check_settled_alignment};
use crate::model::{Model, Refusal, Step};
use crate::plan::{Plan, Route};
use crate::reads::{Held, PendingRead};
use crate::sessions::Bounds;
use quipu::disk::SimulatedFolder;
use quipu::levels::{Commit, Divisor, History};
use quipu::simulation::{Left, SimulatedShard};
use quipu::{Batch, CarryKind, CommitId, Directory, Durability, Error, Options, Result, Retention};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// The time bound of buffered commits.
const BUFFERED: Durability = Durability::Buffered { within: Duration::from_millis(5) };

/// More turns than anything takes that ends.
const TURNS_MAX: u64 = 200_000;

/// After so many turns compaction that stands still is taken to stand still for ever.
pub(crate) const TROUBLED_TURNS: u64 = 3000;

/// Where a task leaves its result.
pub(crate) type Cell<T> = Rc<RefCell<Option<T>>>;

/// A commit on its way.
pub(crate) struct Submitted {
    pub(crate) step: Step,
    buffered: bool,
    outcome: Cell<Result<CommitId>>,
}

/// A commit that has its number.
struct Numbered {
    number: Commit,
    buffered: bool,
    outcome: Cell<Result<CommitId>>,
}

/// From an opening to its end.
pub(crate) struct Session {
    pub(crate) shard: SimulatedShard,
    pub(crate) directories: BTreeMap<String, Directory>,
    pub(crate) arrivals: VecDeque<Submitted>,
    pub(crate) posted: VecDeque<Submitted>,
    unacknowledged: Vec<Numbered>,
    /// How many commits were refused.
    refused: u64,
    /// All up to here was said to be durable.
    pub(crate) promised: Commit,
    pub(crate) reads: Vec<PendingRead>,
    pub(crate) held: Vec<Held>,
    looked: Option<[u64; 5]>,
    carries: Vec<(CarryKind, Commit)>,
}

impl Session {
    pub(crate) fn new(shard: SimulatedShard) -> Session {
        let promised = shard.newest();
        Session {
            shard,
            directories: BTreeMap::new(),
            arrivals: VecDeque::new(),
            posted: VecDeque::new(),
            unacknowledged: Vec::new(),
            refused: 0,
            promised,
            reads: Vec::new(),
            held: Vec::new(),
            looked: None,
            carries: Vec::new(),
        }
    }

    /// A directory's handle.
    pub(crate) fn directory(&mut self, path: &str) -> Directory {
        if let Some(known) = self.directories.get(path) {
            return known.clone();
        }
        let made = self.shard.engine().directory(path);
        let made = made.unwrap_or_else(|error| panic!("{path} is a good path: {error}"));
        self.directories.insert(path.to_string(), made.clone());
        made
    }
}

/// See the module.
pub struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) options: Options,
    pub(crate) folder: SimulatedFolder,
    /// The disk does nothing of itself: no call is short or slow, and all complete in their order.
    pub(crate) calm: bool,
    /// The state after each commit; the first is that before any.
    pub(crate) states: Vec<Model>,
    /// The step of each commit but the one before any.
    pub(crate) steps: Vec<Step>,
    /// When the retention was last changed.
    pub(crate) changed: Commit,
    pub(crate) history: History,
    /// What the history was before each change of the retention.
    pub(crate) earlier: Vec<History>,
    /// The retentions, and the commits at which they began; none where the disk has destroyed commits from before one.
    pub(crate) retentions: Vec<(Commit, Retention)>,
    pub(crate) cover: CoverCheck,
    pub(crate) injector: Rc<RefCell<Injector>>,
    /// The disk has destroyed so much that the shard does not open any more.
    pub(crate) over: bool,
    /// The last session was closed, and nothing went wrong: it has left nothing to remove.
    pub(crate) tidy: bool,
    /// What was done.
    pub coverage: Coverage,
    pub(crate) session: Option<Session>,
}

impl<'a> World<'a> {
    /// An empty folder, and the shard of a plan opened on it.
    pub fn new(plan: &'a Plan) -> World<'a> {
        let mut world = World::closed(plan, plan.options(), SimulatedFolder::new());
        world.open(&plan.open, Bounds::NOTHING);
        world
    }

    /// A folder, and no shard opened on it.
    pub(crate) fn closed(plan: &'a Plan, options: Options, folder: SimulatedFolder) -> World<'a> {
        let world = World {
            plan,
            options,
            folder,
            calm: false,
            states: vec![Model::default()],
            steps: Vec::new(),
            changed: Commit::ZERO,
            history: History::new(plan.retention),
            earlier: Vec::new(),
            retentions: vec![(Commit::ZERO, plan.retention)],
            cover: CoverCheck::default(),
            injector: Rc::default(),
            over: false,
            tidy: false,
            coverage: Coverage::default(),
            session: None,
        };
        let injector = world.injector.clone();
        world.folder.set_faults(move |site| injector.borrow_mut().ask(site));
        world
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        match &mut self.session {
            Some(session) => session,
            None => panic!("no session is open"),
        }
    }

    /// The newest commit of the model.
    pub(crate) fn newest(&self) -> Commit {
        Commit(self.steps.len() as u64)
    }

    /// The state after a commit.
    pub(crate) fn state(&self, commit: Commit) -> &Model {
        &self.states[commit.0 as usize]
    }

    pub(crate) fn divisor(&mut self) -> Divisor {
        self.session().shard.picture().shape.divisor
    }

    // What clients do.

    /// Submits a commit.
    pub(crate) fn commit(&mut self, route: Route, buffered: bool, step: &Step) {
        self.coverage.hit(match step {
            Step::Batch(changes) if changes.len() > 1 => "commit: batch",
            Step::Batch(_) => "commit: one",
            Step::Rename(..) => "commit: rename",
            Step::Remove(_) => "commit: drop",
        });
        let session = self.session();
        let durability = if buffered { BUFFERED } else { Durability::Sync };
        let (engine, local) = (session.shard.engine().clone(), session.shard.local());
        let commit: Pin<Box<dyn Future<Output = Result<CommitId>>>> = match (step, route) {
            (Step::Batch(changes), route) => {
                let mut batch = Batch::new();
                for (path, key, value) in changes {
                    let directory = session.directory(path);
                    match value {
                        Some(value) => batch.put(&directory, key, value),
                        None => batch.delete(&directory, key),
                    };
                }
                match route {
                    Route::Local => Box::pin(local.commit_with(&batch, durability)),
                    Route::Mailbox => Box::pin(engine.commit_with(batch, durability)),
                }
            }
            (Step::Rename(from, to), Route::Local) => {
                let (from, to) = (session.directory(from), session.directory(to));
                Box::pin(session.shard.rename(&from, &to))
            }
            (Step::Rename(from, to), Route::Mailbox) => {
                let (from, to) = (session.directory(from), session.directory(to));
                Box::pin(from.rename(&to))
            }
            (Step::Remove(path), Route::Local) => {
                let directory = session.directory(path);
                Box::pin(session.shard.remove(&directory))
            }
            (Step::Remove(path), Route::Mailbox) => Box::pin(session.directory(path).remove()),
        };
        let outcome: Cell<Result<CommitId>> = Rc::default();
        let cell = outcome.clone();
        session.shard.spawn(async move {
            let result = commit.await;
            *cell.borrow_mut() = Some(result);
        });
        let buffered = buffered && matches!(step, Step::Batch(_));
        let submitted = Submitted { step: step.clone(), buffered, outcome };
        match route {
            Route::Local => session.arrivals.push_back(submitted),
            Route::Mailbox => session.posted.push_back(submitted),
        }
        self.observe();
    }

    /// Runs a barrier to its end.
    pub(crate) fn barrier(&mut self, route: Route) {
        self.coverage.hit("barrier");
        let session = self.session();
        let ahead = session.arrivals.len() + session.posted.len();
        let covered = Commit(session.shard.newest().0 + ahead as u64);
        let refused_before = session.refused;
        let (engine, local) = (session.shard.engine().clone(), session.shard.local());
        let result = match route {
            Route::Local => {
                let cell = self.spawn(async move { local.barrier().await });
                // It came before those that are still in the mailbox.
                self.wait(&cell)
            }
            Route::Mailbox => {
                let cell = self.spawn(async move { engine.barrier().await });
                let result = self.wait(&cell);
                let refused = self.session().refused - refused_before;
                let durable = self.session().shard.durable();
                assert!(
                    result.is_err() || durable.0 + refused >= covered.0,
                    "a barrier was passed at {durable}, with commits up to {covered} before it"
                );
                result
            }
        };
        match result {
            Ok(()) => {
                let session = self.session();
                session.promised = session.promised.max(session.shard.durable());
            }
            Err(error) => self.tolerate(&error, "a barrier"),
        }
    }

    /// Runs something beside everything else.
    pub(crate) fn spawn<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Cell<T> {
        let cell: Cell<T> = Rc::default();
        let inner = cell.clone();
        self.session().shard.spawn(async move {
            let value = future.await;
            *inner.borrow_mut() = Some(value);
        });
        cell
    }

    /// Turns until a task has left its result.
    pub(crate) fn wait<T>(&mut self, cell: &Cell<T>) -> T {
        for _ in 0..TURNS_MAX {
            if let Some(value) = cell.borrow_mut().take() {
                return value;
            }
            let left = self.turn();
            assert!(
                left == Left::More || cell.borrow().is_some(),
                "the shard sleeps, and nobody will wake a task: {:?}",
                self.session().shard
            );
        }
        panic!("a task does not come to an end: {:?}", self.session().shard);
    }

    // The disk.

    /// A fault waits for its operation.
    pub(crate) fn arm(&mut self, event: FaultEvent) {
        self.injector.borrow_mut().arm(event);
    }

    /// The disk is well again.
    pub(crate) fn heal(&mut self) {
        self.injector.borrow_mut().heal();
    }

    /// Whether the run ends here.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether something has gone wrong that was not made good.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.plan.harm != Harm::Benign && self.injector.borrow().fired > 0
    }

    /// An error is the right answer only where the disk has done something.
    pub(crate) fn tolerate(&mut self, error: &Error, what: &str) {
        let right = self.is_disturbed()
            && match self.plan.harm {
                Harm::Benign => false,
                Harm::Failing => is_failure(error),
                Harm::Damaging => self.is_damage(error),
            };
        assert!(right, "{what} failed: {error} ({error:?})");
        if matches!(error, Error::Poisoned { .. }) {
            let failed = self.injector.borrow().session_failed.log_writes;
            assert!(failed, "{what} failed, and no write of the log did: {error} ({error:?})");
        }
        self.coverage.hit("errors told");
    }

    /// Whether an error names what the disk has harmed.
    fn is_damage(&self, error: &Error) -> bool {
        let harmed = self.folder.harmed();
        let any = |kind: &str| harmed.iter().any(|name| name.starts_with(kind));
        match error {
            Error::Damaged { file, .. } | Error::Io { file, .. } => {
                // What comes from an open shard names its folder, too.
                let file = file.strip_prefix("shard-0000/").unwrap_or(file);
                // A manifest that lost an edit shows where another file contradicts it; and the log as a whole, where
                // it breaks off.
                harmed.contains(file)
                    || any("manifest")
                    || (file.starts_with("log") && any("log-"))
                    || (file == "catalog" && !harmed.is_empty())
            }
            Error::Poisoned { source, .. } => self.is_damage(source),
            _ => false,
        }
    }

    // Steps.

    /// One turn, and a look at what it did.
    pub(crate) fn turn(&mut self) -> Left {
        let session = self.session();
        session.arrivals.append(&mut session.posted);
        let left = session.shard.turn();
        self.observe();
        self.check_invariants();
        left
    }

    /// Time passes.
    pub(crate) fn sleep(&mut self, nanos: u64) {
        self.folder.advance(nanos);
    }

    /// Turns until nothing is left to do; then everything must be in order.
    pub(crate) fn settle(&mut self) {
        self.coverage.hit("settled");
        // What fails for good would be tried again for ever.
        self.heal();
        for turns in 0.. {
            assert!(turns < TURNS_MAX, "the shard does not settle: {:?}", self.session().shard);
            if self.turn() != Left::More {
                break;
            }
            if turns > TROUBLED_TURNS && self.is_troubled_for_good() {
                return;
            }
        }
        if self.is_troubled_for_good() {
            return;
        }
        let session = self.session();
        assert!(session.arrivals.is_empty(), "asleep, with commits waiting: {:?}", session.shard);
        let waiting = session.unacknowledged.len();
        assert_eq!(waiting, 0, "asleep, with commits unacknowledged: {:?}", session.shard);
        assert!(session.reads.is_empty(), "asleep, with reads waiting: {:?}", session.shard);
        // Buffered ones are acknowledged long before.
        let (durable, newest) = (session.shard.durable(), session.shard.newest());
        assert_eq!(durable, newest, "asleep, with commits that are not durable: {:?}", session.shard);
        let picture = session.shard.picture();
        assert!(picture.carries.is_empty(), "settled, yet in flight: {picture:?}");
        check_settled_alignment(&session.shard, &picture);
        self.cover.check_settled(&picture);
        self.check_no_orphans();
    }

    /// Whether the shard is poisoned, or its compaction stands still, as it may.
    pub(crate) fn is_troubled(&mut self) -> bool {
        let trouble = self.session().shard.trouble();
        if let Some(error) = &trouble {
            self.tolerate(error, "the shard");
        }
        trouble.is_some()
    }

    /// [`is_troubled`](World::is_troubled), on a disk that is well again. Compaction that a segment's file or a full disk
    /// has stopped must have gone on by now; only a manifest in doubt waits for the next opening, as a poisoned log does.
    fn is_troubled_for_good(&mut self) -> bool {
        let troubled = self.is_troubled();
        let trouble = self.session().shard.trouble().filter(|_| self.plan.harm == Harm::Failing);
        let passes = match &trouble {
            Some(Error::NoSpace { .. }) => true,
            Some(Error::Io { file, .. }) => {
                ["segment-", "spill-", "base-"].iter().any(|kind| file.contains(kind))
            }
            _ => false,
        };
        assert!(!passes, "the disk is well, and compaction does not go on: {trouble:?}");
        troubled
    }

    /// The files of segments that the folder holds are those that should be there.
    fn check_no_orphans(&mut self) {
        // What a snapshot reads stays. What was given up is removed, unless that fails.
        let disturbed = self.is_disturbed()
            && (self.plan.harm == Harm::Damaging || self.injector.borrow().session_failed.names);
        let session = self.session();
        if !session.held.is_empty() || disturbed {
            return;
        }
        let ours = |name: &String| ["segment-", "spill-", "base-"].iter().any(|kind| name.starts_with(kind));
        let mut live: Vec<String> = session.shard.segments().into_iter().map(|info| info.file).collect();
        live.sort();
        let there: Vec<String> = self.folder.names().into_iter().filter(ours).collect();
        assert_eq!(there, live, "files of segments, there and live");
    }

    /// Takes in what has happened.
    pub(crate) fn observe(&mut self) {
        let Some(session) = &mut self.session else { return };
        session.shard.poll_tasks();
        let newest = session.shard.newest();
        let mut errors = Vec::new();
        while let Some(front) = session.arrivals.front() {
            let refused = match &*front.outcome.borrow() {
                Some(Err(Error::Poisoned { .. })) => (self.steps.len() as u64) >= newest.0,
                Some(Err(_)) => true,
                _ if (self.steps.len() as u64) < newest.0 => false,
                Some(Ok(id)) => panic!("{} is acknowledged, and the newest is {newest}", id.number),
                None => break,
            };
            let Some(front) = session.arrivals.pop_front() else { break };
            let state = &self.states[self.steps.len()];
            let refusal = state.refusal(&front.step);
            if refused {
                let outcome = front.outcome.borrow_mut().take();
                match (outcome, refusal) {
                    (Some(Err(Error::NoDirectory { .. })), Some(Refusal::NoDirectory)) => {}
                    (Some(Err(Error::DirectoryExists { .. })), Some(Refusal::DirectoryExists)) => {}
                    (Some(Err(error)), _) => errors.push(error),
                    _ => {}
                }
                session.refused += 1;
                self.coverage.hit("commit: refused");
                continue;
            }
            assert_eq!(refusal, None, "{:?} was sequenced as commit {}", front.step, self.steps.len() + 1);
            let mut next = state.clone();
            next.apply(&front.step);
            self.steps.push(front.step);
            self.states.push(next);
            let number = Commit(self.steps.len() as u64);
            session.unacknowledged.push(Numbered {
                number,
                buffered: front.buffered,
                outcome: front.outcome,
            });
        }
        assert_eq!(self.steps.len() as u64, newest.0, "commits in the model, and in the shard");

        let durable = session.shard.durable();
        let mut unheard: Option<Commit> = None;
        let promised = &mut session.promised;
        session.unacknowledged.retain(|commit| {
            let outcome = commit.outcome.borrow_mut().take();
            let number = commit.number;
            match outcome {
                None => {
                    assert!(!commit.buffered, "{number} is buffered and sequenced, and not acknowledged");
                    unheard.get_or_insert(number);
                    return true;
                }
                Some(Ok(id)) => {
                    assert_eq!(id.number, number, "commits are numbered in the order of their arrival");
                    if !commit.buffered {
                        assert!(number <= durable, "{number} is acknowledged, and {durable} is durable");
                        assert!(unheard.is_none_or(|unheard| unheard > number), "out of order: {number}");
                        *promised = (*promised).max(number);
                    }
                }
                Some(Err(error)) => errors.push(error),
            }
            false
        });
        for error in errors {
            self.tolerate(&error, "a commit");
        }
        self.finish_reads();
    }

    /// Checks alignment, cover and pace, if anything has changed.
    pub(crate) fn check_invariants(&mut self) {
        let Some(session) = &mut self.session else { return };
        let signature = session.shard.signature();
        if session.looked == Some(signature) {
            return;
        }
        session.looked = Some(signature);
        let picture = session.shard.picture();
        check_alignment(&session.shard, &picture, self.plan.harm == Harm::Damaging);
        self.cover.check(&picture, 3);
        check_pace(&picture);
        let carries: Vec<(CarryKind, Commit)> =
            picture.carries.iter().map(|carry| (carry.kind, carry.due)).collect();
        for carry in carries.iter().filter(|carry| !session.carries.contains(carry)) {
            self.coverage.hit(match carry.0 {
                CarryKind::Spill => "compaction: spill",
                CarryKind::Fold => "compaction: fold",
                _ => "compaction: carry",
            });
        }
        session.carries = carries;
    }
}

/// Whether an error says that the disk refused something.
fn is_failure(error: &Error) -> bool {
    match error {
        Error::Io { .. } | Error::NoSpace { .. } | Error::ReadOnly { .. } => true,
        Error::Poisoned { source, .. } => is_failure(source),
        _ => false,
    }
}
