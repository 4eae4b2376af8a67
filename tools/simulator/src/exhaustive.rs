//! All crashes, where a history is small: at every moment of it, with every choice of what persists; and again while the
//! shard recovers.
//!
//! 1. A fixed history runs once. Just before each submission, each completion and each flush, the disk tells what is
//!    durable for certain, and which changes may persist or not.
//! 2. For each moment, each subset of these is a disk of its own; so is one with a torn write. Where there are more than
//!    [`Limits::changes`] of them, so many subsets are drawn from a seed: none, all, each by itself, all but each, and others.
//! 3. Each disk that was not seen before is opened, and the oracle judges: it holds the state after some commit, whole, and
//!    that is no earlier than the last one acknowledged by then; it settles; its files are those of an undisturbed run.
//! 4. Of some, [`Limits::recoveries`] a moment, the recovery is cut at each of its own moments, in the same way. What is
//!    found then must be what was found without the cut. Afterwards they take another commit, and keep it.
//! 5. At each moment the process alone ends, too: then all can be read, and nothing that was not flushed is durable. The
//!    recovery from that is cut in the same way, and once it is done, what it found must stay.
//!
//! The same limits give the same run. A failure names the moment and the choice.

use crate::histories::TinyHistory;
use crate::invariants::CoverCheck;
use crate::model::Step;
use crate::plan::{Action, Reopen, Route};
use crate::run::{Failure, caught, perform};
use crate::sessions::{Bounds, TUNING};
use crate::twin;
use crate::world::World;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::{Fate, Moment, OpKind, Remains, SplitMix64};
use quipu::levels::{Commit, History};
use quipu::simulation::Probe;
use quipu::{Bytes, SegmentInfo};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of up to so many changes all subsets are tried; of more, two to the power of this.
    pub changes: u32,
    /// The same within a recovery.
    pub changes_in_recovery: u32,
    /// How often each write is torn: with all other changes lost, with all kept, and with those before it kept.
    pub tears: u64,
    /// Of so many new disks a moment the recovery is cut, too.
    pub recoveries: usize,
    /// Only each so manieth moment is looked at.
    pub stride: u64,
    /// Which of them.
    pub phase: u64,
    /// How often the history is gone through, each time on a disk with moods of its own: what completes when, and which
    /// calls are short or late.
    pub moods: u64,
}

impl Limits {
    /// All that is to be tried.
    pub const WHOLE: Limits = Limits {
        changes: 12,
        changes_in_recovery: 12,
        tears: 4,
        recoveries: 64,
        stride: 1,
        phase: 0,
        moods: 3,
    };
}

/// What was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Moments.
    pub moments: u64,
    /// Those with more changes than all subsets of were tried.
    pub sampled: u64,
    /// Subsets of what may persist.
    pub subsets: u64,
    /// Those with a torn write.
    pub torn: u64,
    /// The most changes at one moment.
    pub changes_max: u64,
    /// Moments within recoveries.
    pub recovery_moments: u64,
    /// Subsets there.
    pub recovery_subsets: u64,
    /// Disks that differ.
    pub disks: u64,
    /// Of these, those that a cut recovery has left.
    pub recovery_disks: u64,
    /// Ends of the process alone.
    pub kills: u64,
    /// Openings.
    pub openings: u64,
}

impl Counts {
    /// Takes in another's.
    pub fn merge(&mut self, other: &Counts) {
        self.moments += other.moments;
        self.sampled += other.sampled;
        self.subsets += other.subsets;
        self.torn += other.torn;
        self.changes_max = self.changes_max.max(other.changes_max);
        self.recovery_moments += other.recovery_moments;
        self.recovery_subsets += other.recovery_subsets;
        self.disks += other.disks;
        self.recovery_disks += other.recovery_disks;
        self.kills += other.kills;
        self.openings += other.openings;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} moments (up to {} changes, {} sampled), {} subsets and {} with a tear; {} moments of recoveries, {} subsets; \
             {} disks ({} from recoveries), {} ends of the process alone, {} openings",
            self.moments,
            self.changes_max,
            self.sampled,
            self.subsets,
            self.torn,
            self.recovery_moments,
            self.recovery_subsets,
            self.disks,
            self.recovery_disks,
            self.kills,
            self.openings
        )
    }
}

/// What has been seen of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How much.
    pub counts: Counts,
    /// Names of files that it had.
    pub files: BTreeSet<String>,
}

/// A moment, and what a crash would leave there.
struct Instant {
    number: u64,
    /// What was about to happen; nothing, at the end.
    moment: Option<Moment>,
    remains: Remains,
    least: Commit,
}

/// What watches a disk.
#[derive(Clone, Default)]
struct Watch {
    instants: Rc<RefCell<Vec<Instant>>>,
    count: Rc<Cell<u64>>,
    probe: Rc<RefCell<Probe>>,
    /// All up to here is acknowledged durable.
    least: Rc<Cell<Commit>>,
}

impl Watch {
    fn begin(&self, folder: &SimulatedFolder) {
        let watch = self.clone();
        folder.watch(move |moment, remains| {
            watch.look();
            watch.count.set(watch.count.get() + 1);
            // Nothing persists but by a change; what only reads is no moment of its own.
            let idle = [OpKind::Read, OpKind::List, OpKind::Close];
            if let Moment::Submission(kind) | Moment::Completion(kind) = moment
                && idle.contains(&kind)
            {
                return;
            }
            let (number, least) = (watch.count.get(), watch.least.get());
            watch.instants.borrow_mut().push(Instant { number, moment: Some(moment), remains, least });
        });
    }

    fn look(&self) {
        let durable = self.probe.borrow().durable().unwrap_or_default();
        self.least.set(self.least.get().max(durable));
    }
}

/// What the oracle knew before an action.
struct Before {
    history: History,
    changed: Commit,
    cover: CoverCheck,
    reopen: Reopen,
}

/// Goes through one history.
struct Explorer<'a> {
    limits: Limits,
    counts: Counts,
    /// What each disk was found to hold.
    known: HashMap<u128, Commit>,
    /// What was left by ends of the process alone.
    killed: BTreeSet<[u128; 2]>,
    /// The files of an undisturbed run, by the number of commits.
    twins: BTreeMap<u64, Vec<SegmentInfo>>,
    files: BTreeSet<String>,
    /// What is being tried, for whoever is told of a failure.
    trying: &'a RefCell<Vec<String>>,
}

/// Goes through a history.
///
/// # Errors
///
/// What went wrong, and where.
pub fn explore(history: &TinyHistory, limits: Limits) -> Result<Report, Failure> {
    let trying = RefCell::new(Vec::new());
    let result = caught(|| {
        let mut explorer = Explorer {
            limits,
            counts: Counts::default(),
            known: HashMap::new(),
            killed: BTreeSet::new(),
            twins: BTreeMap::new(),
            files: BTreeSet::new(),
            trying: &trying,
        };
        for mood in 0..limits.moods {
            explorer.run(history, mood);
        }
        Report { counts: explorer.counts, files: explorer.files }
    });
    result.map_err(|failure| {
        let trying = trying.borrow().join("; ");
        Failure { message: format!("{}: {trying}: {}", history.name, failure.message), ..failure }
    })
}

impl Explorer<'_> {
    fn run(&mut self, history: &TinyHistory, mood: u64) {
        self.known.clear();
        self.killed.clear();
        let open = Reopen { seed: history.plan.open.seed + 1000 * mood, ..history.plan.open.clone() };
        let folder = SimulatedFolder::new();
        let watch = Watch::default();
        watch.begin(&folder);
        // Not dropped after a panic, as in any run.
        let mut world = ManuallyDrop::new(World::closed(&history.plan, history.options.clone(), folder));
        let mut before = before(&world, &open);
        world.open(&open, Bounds::NOTHING);
        self.after(&world, &watch, &before);
        for (at, action) in history.plan.actions.iter().enumerate() {
            *watch.probe.borrow_mut() = world.session().shard.probe();
            if let Action::Restart { reopen, .. } = action {
                before.reopen = reopen.clone();
                // It is opened in another way from here on, so it may be found in another.
                self.known.clear();
                self.killed.clear();
            }
            before = self::before(&world, &before.reopen);
            perform(&mut world, action);
            self.trying.borrow_mut().clear();
            self.trying.borrow_mut().push(format!("action {}", at + 1));
            watch.look();
            // Later openings leave the retention as it is.
            self.after(&world, &watch, &before);
            before.reopen.retention = None;
        }
        let last = Instant {
            number: watch.count.get() + 1,
            moment: None,
            remains: world.folder.remains(),
            least: watch.least.get(),
        };
        assert_eq!(last.least, world.newest(), "all is acknowledged in the end");
        let before = self::before(&world, &before.reopen);
        self.at_instant(&world, &last, &before);
        world.folder.unwatch();
        ManuallyDrop::into_inner(world).finish();
    }

    /// Goes through the moments of an action.
    fn after(&mut self, world: &World<'_>, watch: &Watch, before: &Before) {
        let instants = std::mem::take(&mut *watch.instants.borrow_mut());
        for instant in &instants {
            self.files.extend(instant.remains.names().into_iter().map(str::to_string));
            if instant.number % self.limits.stride == self.limits.phase % self.limits.stride {
                self.at_instant(world, instant, before);
            }
        }
    }

    fn at_instant(&mut self, world: &World<'_>, instant: &Instant, before: &Before) {
        self.counts.moments += 1;
        let changes = instant.remains.changes();
        self.counts.changes_max = self.counts.changes_max.max(changes as u64);
        self.counts.sampled += u64::from(changes > self.limits.changes as usize);
        let bounds = Bounds { least: instant.least, most: world.newest() };
        let mut recoveries = self.limits.recoveries;
        let fates = choices(&instant.remains, self.limits.changes, self.limits.tears, instant.number);
        let depth = self.trying.borrow().len();
        for fates in &fates {
            match fates.iter().any(|fate| matches!(fate, Fate::Torn(_))) {
                true => self.counts.torn += 1,
                false => self.counts.subsets += 1,
            }
            let folder = instant.remains.folder(fates);
            let digest = folder.digest();
            self.trying.borrow_mut().truncate(depth);
            self.trying.borrow_mut().push(describe(instant, fates));
            if let Some(&found) = self.known.get(&digest) {
                check_bounds(found, bounds);
                continue;
            }
            let cut = recoveries > 0;
            recoveries -= usize::from(cut);
            let (found, instants) = self.judge(world, before, folder, bounds, cut);
            self.known.insert(digest, found);
            self.counts.disks += 1;
            for inner in &instants {
                self.in_recovery(world, inner, before, Bounds { least: found, most: found });
            }
        }
        self.trying.borrow_mut().truncate(depth);
        if self.limits.recoveries > 0 {
            self.kill(world, instant, before, bounds);
        }
        self.trying.borrow_mut().truncate(depth);
    }

    /// The process ends, and the power fails while the shard recovers from that.
    fn kill(&mut self, world: &World<'_>, instant: &Instant, before: &Before, bounds: Bounds) {
        let folder = instant.remains.folder_of_killed();
        if !self.killed.insert([folder.digest(), instant.remains.folder(&[]).digest()]) {
            return;
        }
        self.counts.kills += 1;
        self.trying.borrow_mut().push(format!("the process ends at {}", describe(instant, &[])));
        let (found, instants) = self.judge(world, before, folder, bounds, true);
        for inner in &instants {
            // What was found may be lost again as long as nobody was told of it.
            self.in_recovery(
                world,
                inner,
                before,
                Bounds { least: bounds.least.max(inner.least), most: found },
            );
        }
    }

    /// The power fails while the shard recovers.
    fn in_recovery(&mut self, world: &World<'_>, instant: &Instant, before: &Before, bounds: Bounds) {
        self.counts.recovery_moments += 1;
        let fates = choices(&instant.remains, self.limits.changes_in_recovery, 1, instant.number);
        let depth = self.trying.borrow().len();
        for fates in &fates {
            self.counts.recovery_subsets += 1;
            let folder = instant.remains.folder(fates);
            let digest = folder.digest();
            self.trying.borrow_mut().truncate(depth);
            self.trying.borrow_mut().push(format!("recovery from it, {}", describe(instant, fates)));
            if let Some(&known) = self.known.get(&digest) {
                check_bounds(known, bounds);
                continue;
            }
            let (found, _) = self.judge(world, before, folder, bounds, false);
            self.known.insert(digest, found);
            self.counts.disks += 1;
            self.counts.recovery_disks += 1;
        }
        self.trying.borrow_mut().truncate(depth);
    }

    /// Opens a disk and holds it against the oracle. Answers what it holds and, where that is wanted, the moments of the
    /// recovery.
    fn judge(
        &mut self,
        world: &World<'_>,
        before: &Before,
        folder: SimulatedFolder,
        bounds: Bounds,
        further: bool,
    ) -> (Commit, Vec<Instant>) {
        self.counts.openings += 1;
        let mut again = ManuallyDrop::new(World::closed(world.plan, world.options.clone(), folder));
        again.calm = true;
        again.states.clone_from(&world.states);
        again.steps.clone_from(&world.steps);
        again.history = before.history.clone();
        again.changed = before.changed;
        again.cover = before.cover.clone();
        let watch = Watch::default();
        if further {
            watch.begin(&again.folder);
        }
        again.open(&before.reopen, bounds);
        again.folder.unwatch();
        let found = again.newest();
        let mut instants = watch.instants.take();
        if further {
            // It is open: what it has found must stay.
            let remains = again.folder.remains();
            instants.push(Instant { number: watch.count.get() + 1, moment: None, remains, least: found });
        }
        again.settle();
        assert!(!again.is_troubled(), "the disk is well, and the shard is not");
        again.check_newest();
        // What a carry keeps depends on the retention by then.
        if again.changed == Commit::ZERO {
            let (options, steps) = (&again.options, &again.steps);
            let twin = self.twins.entry(found.0).or_insert_with(|| twin::files(options, steps, TUNING));
            let ours = again.session.as_ref().map(|session| twin::lasting(&session.shard));
            assert_eq!(
                ours.as_ref(),
                Some(&*twin),
                "the files after {found}, and those of an undisturbed run"
            );
        }
        if further {
            self.goes_on(&mut again, &before.reopen);
        }
        again.folder.clear_faults();
        if let Some(session) = again.session.take() {
            session.shard.kill();
        }
        drop(ManuallyDrop::into_inner(again));
        (found, instants)
    }

    /// The shard takes another commit, and holds it after a power failure that leaves nothing that it need not.
    fn goes_on(&mut self, world: &mut ManuallyDrop<World<'_>>, reopen: &Reopen) {
        self.counts.openings += 1;
        let step = Step::Batch(vec![("r/a", Bytes::from("more"), Some(Bytes::from("and more")))]);
        world.commit(Route::Local, false, &step);
        world.settle();
        let newest = world.newest();
        let folder = world.folder.remains().folder(&[]);
        if let Some(session) = world.session.take() {
            session.shard.kill();
        }
        world.folder.clear_faults();
        world.folder = folder;
        let reopen = Reopen { retention: None, ..reopen.clone() };
        world.open(&reopen, Bounds { least: newest, most: newest });
    }
}

fn before(world: &World<'_>, reopen: &Reopen) -> Before {
    Before {
        history: world.history.clone(),
        changed: world.changed,
        cover: world.cover.clone(),
        reopen: reopen.clone(),
    }
}

fn check_bounds(found: Commit, bounds: Bounds) {
    assert!(found >= bounds.least, "{found} is there, and {} was durable", bounds.least);
    assert!(found <= bounds.most, "{found} is there, and {} was the last", bounds.most);
}

fn describe(instant: &Instant, fates: &[Fate]) -> String {
    let of = |what: fn(&Fate) -> bool| {
        let at = (0..fates.len()).filter(|&at| what(&fates[at]));
        at.map(|at| instant.remains.describe(at)).collect::<Vec<_>>().join(", ")
    };
    let moment = instant.moment.map_or("the end".into(), |moment| format!("before {moment:?}"));
    format!(
        "moment {} ({moment}): kept [{}], torn [{}], lost [{}]",
        instant.number,
        of(|fate| *fate == Fate::Kept),
        of(|fate| matches!(fate, Fate::Torn(_))),
        of(|fate| *fate == Fate::Lost)
    )
}

/// The subsets of what may persist, and the torn writes: all where there are few, else drawn from a seed.
fn choices(remains: &Remains, most: u32, tears: u64, seed: u64) -> Vec<Vec<Fate>> {
    let changes = remains.changes();
    let fate = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
    let mut all: Vec<Vec<Fate>> = if changes <= most as usize {
        (0..1u64 << changes).map(|mask| (0..changes).map(|at| fate(mask >> at & 1 == 1)).collect()).collect()
    } else {
        let mut drawn: BTreeSet<Vec<bool>> = BTreeSet::from([vec![false; changes], vec![true; changes]]);
        for at in 0..changes {
            for kept in [false, true] {
                let mut one = vec![!kept; changes];
                one[at] = kept;
                drawn.insert(one);
            }
        }
        let mut random = SplitMix64::new(seed);
        while drawn.len() < 1 << most {
            drawn.insert((0..changes).map(|_| random.chance(50)).collect());
        }
        drawn.into_iter().map(|kept| kept.into_iter().map(fate).collect()).collect()
    };
    for torn in (0..changes).filter(|&at| remains.is_write(at)) {
        for tear in 0..tears {
            for others in 0..3 {
                // So that other moments tear the same write in other ways.
                let seed = seed.wrapping_mul(1 << 20) + (torn as u64) * 64 + tear;
                let of = |at: usize| match at == torn {
                    true => Fate::Torn(seed),
                    false => fate(others == 1 || (others == 2 && at < torn)),
                };
                all.push((0..changes).map(of).collect());
            }
        }
    }
    all
}
