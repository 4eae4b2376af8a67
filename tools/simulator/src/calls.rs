//! Every call to the disk fails, one after another, in every way; and the shard goes on, or says why not.
//!
//! 1. A fixed history runs once, undisturbed, and the calls that it makes are noted.
//! 2. For each call, each way in which such a call fails, and each [`Scope`] (once; all of its kind from then on; all), it
//!    runs again. Up to that call the runs are the same.
//! 3. The oracle judges as in any failing run: errors have the right types, and nobody waits for ever. Ways that are made
//!    good (a short call, an interrupted one) must give no error at all.
//! 4. At the end the disk is healed, and the power fails. All that was acknowledged must be there, and the shard well.

use crate::faults::{Harm, Pinned, Scope};
use crate::histories::TinyHistory;
use crate::plan::{Action, End, Plan, Reopen};
use crate::run::{Failure, caught, perform};
use crate::sessions::Bounds;
use crate::world::World;
use quipu::disk::SimulatedFolder;
use quipu::disk::simulated::{Fault, OpKind};
use quipu::simulation::Left;
use std::cell::RefCell;
use std::mem::ManuallyDrop;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

/// The longest rest between two actions, in turns. A disk that is not well lets a shard try again for ever.
const REST_TURNS: u64 = 300;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Only each so manieth of the runs.
    pub stride: u64,
    /// Which of them.
    pub phase: u64,
}

impl Limits {
    /// All.
    pub const WHOLE: Limits = Limits { stride: 1, phase: 0 };
}

/// What was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that an undisturbed run makes.
    pub calls: u64,
    /// Runs.
    pub runs: u64,
    /// Of these, with a fault that is made good.
    pub benign: u64,
    /// With one that stays.
    pub for_good: u64,
}

impl Counts {
    /// Takes in another's.
    pub fn merge(&mut self, other: &Counts) {
        self.calls += other.calls;
        self.runs += other.runs;
        self.benign += other.benign;
        self.for_good += other.for_good;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { calls, runs, benign, for_good } = self;
        write!(f, "{calls} calls, {runs} runs ({benign} with what is made good, {for_good} with what stays)")
    }
}

/// The ways in which a call may fail.
fn ways(kind: OpKind) -> Vec<Fault> {
    let refused = [EIO, ENOSPC, EDQUOT, EROFS].map(Fault::Fail);
    let again =
        [Fault::Again(1), Fault::Again(u16::MAX), Fault::Interrupted(1), Fault::Interrupted(u16::MAX)];
    let mut ways = match kind {
        OpKind::Read => vec![Fault::Fail(EIO), Fault::Short(512), Fault::Zero],
        OpKind::List | OpKind::Close => vec![Fault::Fail(EIO)],
        OpKind::Write => [&refused[..], &[Fault::Torn(EIO), Fault::Short(512), Fault::Zero]].concat(),
        OpKind::Sync | OpKind::SyncFolder => [&refused[..], &[Fault::Forgets(EIO)]].concat(),
        _ => refused.to_vec(),
    };
    // The kernel does not tell whether it has closed what it was interrupted in closing.
    if kind != OpKind::Close {
        ways.extend(again);
    }
    ways
}

/// Whether a shard must take no notice of it.
fn is_made_good(fault: Fault) -> bool {
    matches!(fault, Fault::Short(_) | Fault::Again(1) | Fault::Interrupted(1))
}

/// Goes through a history.
///
/// # Errors
///
/// What went wrong, and with which call.
pub fn fail_each(history: &TinyHistory, limits: Limits) -> Result<Counts, Failure> {
    let trying = RefCell::new(String::from("undisturbed"));
    let result = caught(|| {
        let calls = one(history, None).unwrap_or_default();
        let mut counts = Counts { calls: calls.len() as u64, ..Counts::default() };
        let mut number = 0;
        for (at, kind) in calls.iter().enumerate() {
            for fault in ways(*kind) {
                for scope in [Scope::Once, Scope::Kind, Scope::All] {
                    number += 1;
                    if number % limits.stride != limits.phase % limits.stride {
                        continue;
                    }
                    let pinned = Pinned { number: at as u64 + 1, fault, scope };
                    *trying.borrow_mut() = format!("{kind:?}, {pinned:?}");
                    assert!(one(history, Some(pinned)).is_none(), "the call did not come");
                    counts.runs += 1;
                    counts.benign += u64::from(is_made_good(fault));
                    counts.for_good += u64::from(scope != Scope::Once);
                }
            }
        }
        let beyond = Pinned { number: 1_000_000, fault: Fault::Fail(EIO), scope: Scope::Once };
        assert!(one(history, Some(beyond)).is_some(), "a run without end");
        counts
    });
    result.map_err(|failure| Failure {
        message: format!("{}: {}: {}", history.name, trying.borrow(), failure.message),
        ..failure
    })
}

/// One run. Answers the calls that it made where the one that was to fail did not come.
fn one(history: &TinyHistory, pinned: Option<Pinned>) -> Option<Vec<OpKind>> {
    let harm = match pinned {
        Some(pinned) if !is_made_good(pinned.fault) => Harm::Failing,
        _ => Harm::Benign,
    };
    let plan = Plan { harm, ..history.plan.clone() };
    // Not dropped after a panic, as in any run.
    let mut world = ManuallyDrop::new(World::closed(&plan, history.options.clone(), SimulatedFolder::new()));
    world.calm = true;
    {
        let mut injector = world.injector.borrow_mut();
        injector.calls = Some(Vec::new());
        if let Some(pinned) = pinned {
            injector.pin(pinned);
        }
    }
    world.open(&plan.open, Bounds::NOTHING);
    for action in &plan.actions {
        match action {
            // To settle is to be healed, which is for the end.
            Action::Settle => rest(&mut world),
            action => perform(&mut world, action),
        }
    }
    rest(&mut world);
    let waiting = pinned.is_none() || world.injector.borrow().is_waiting();
    let calls = world.injector.borrow_mut().calls.take();
    world.heal();
    let reopen = Reopen { crashes: Vec::new(), retention: None, ..plan.open.clone() };
    world.restart(End::Power, plan.seed, &reopen);
    ManuallyDrop::into_inner(world).finish();
    calls.filter(|_| waiting)
}

fn rest(world: &mut World<'_>) {
    for _ in 0..REST_TURNS {
        if world.turn() != Left::More {
            break;
        }
    }
}
