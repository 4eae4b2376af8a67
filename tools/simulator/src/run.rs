//! Runs a plan, and catches what goes wrong.

use crate::coverage::Coverage;
use crate::plan::{Action, Plan};
use crate::world::World;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The message.
    pub message: String,
    /// Where in the source.
    pub place: String,
    /// At which action of the plan; its number of actions where it was at the end.
    pub action: usize,
}

thread_local! {
    static CAUGHT: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    static CATCHING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Has panics of runs noted rather than printed.
fn take_note_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let message =
                match (info.payload().downcast_ref::<&str>(), info.payload().downcast_ref::<String>()) {
                    (Some(text), _) => text.to_string(),
                    (_, Some(text)) => text.clone(),
                    _ => "a panic".into(),
                };
            let place =
                info.location().map_or(String::new(), |place| format!("{}:{}", place.file(), place.line()));
            // The first one is the cause.
            CAUGHT.with_borrow_mut(|caught| {
                caught.get_or_insert((message, place));
            });
        }));
    });
}

pub(crate) fn perform(world: &mut World<'_>, action: &Action) {
    match action {
        Action::Commit { route, buffered, step } => world.commit(*route, *buffered, step),
        Action::Turns(turns) => {
            for _ in 0..*turns {
                world.turn();
            }
        }
        Action::Settle => world.settle(),
        Action::Sleep(nanos) => world.sleep(*nanos),
        Action::Barrier(route) => world.barrier(*route),
        Action::Read { view, what, wait } => world.read(*view, what, *wait),
        Action::Hold(hold) => world.hold(*hold),
        Action::Release(place) => world.release(*place),
        Action::Fault(event) => world.arm(*event),
        Action::Heal => world.heal(),
        Action::Restart { end, seed, reopen } => world.restart(*end, *seed, reopen),
    }
}

/// Runs a plan to its end. Answers what it did.
///
/// # Errors
///
/// What went wrong.
pub fn run(plan: &Plan) -> Result<Coverage, Failure> {
    let mut at = 0;
    let result = caught(|| {
        // Not dropped after a panic: what was borrowed then may not be dropped.
        let mut world = ManuallyDrop::new(World::new(plan));
        for action in &plan.actions {
            at += 1;
            perform(&mut world, action);
            if world.is_over() {
                break;
            }
        }
        ManuallyDrop::into_inner(world).finish()
    });
    result.map_err(|failure| Failure { action: at, ..failure })
}

/// Does something that panics where a promise is broken.
///
/// # Errors
///
/// The panic; at no action.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    take_note_of_panics();
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    let caught = CAUGHT.take();
    result.map_err(|_| {
        let (message, place) = caught.unwrap_or_default();
        Failure { message, place, action: 0 }
    })
}
