//! Shrinking: the fewest actions that still fail in the same way.
//!
//! Delta debugging: drop ever smaller runs of actions, keep what still fails at the same place of the source, until
//! no single action can go.

use crate::plan::{Action, Plan};
use crate::run::{Failure, run};
use std::time::{Duration, Instant};

/// A failing plan made small, with its failure, and how many plans were tried.
pub fn shrink(plan: &Plan, failure: &Failure, budget: Duration) -> (Plan, Failure, usize) {
    let until = Instant::now() + budget;
    let mut best = (plan.clone(), failure.clone());
    let mut tried = 0;
    // What comes after the failure is not needed.
    best.0.actions.truncate(failure.action);
    let mut attempt = |plan: &Plan, best: &mut (Plan, Failure)| {
        tried += 1;
        match run(plan) {
            Err(failure) if failure.place == best.1.place => {
                let mut plan = plan.clone();
                plan.actions.truncate(failure.action);
                *best = (plan, failure);
                true
            }
            _ => false,
        }
    };
    let mut size = (best.0.actions.len() / 2).max(1);
    while Instant::now() < until {
        let mut any = false;
        let mut at = 0;
        while at < best.0.actions.len() && Instant::now() < until {
            let mut plan = best.0.clone();
            plan.actions.drain(at..(at + size).min(plan.actions.len()));
            if attempt(&plan, &mut best) {
                any = true;
            } else {
                at += size;
            }
        }
        if size > 1 {
            size /= 2;
        } else if !any {
            break;
        }
    }
    simplify(&mut best, until, &mut attempt);
    (best.0, best.1, tried)
}

/// Drops parts of single actions.
fn simplify(
    best: &mut (Plan, Failure),
    until: Instant,
    attempt: &mut impl FnMut(&Plan, &mut (Plan, Failure)) -> bool,
) {
    let mut at = 0;
    while at < best.0.actions.len() && Instant::now() < until {
        let mut simpler = Vec::new();
        match &best.0.actions[at] {
            Action::Restart { end, seed, reopen } if !reopen.crashes.is_empty() => {
                let mut reopen = reopen.clone();
                reopen.crashes.pop();
                simpler.push(Action::Restart { end: *end, seed: *seed, reopen });
            }
            Action::Turns(turns) if *turns > 1 => {
                simpler.extend([1, turns / 2, turns - 1].map(Action::Turns));
            }
            Action::Commit { route, buffered, step: crate::model::Step::Batch(changes) }
                if changes.len() > 1 =>
            {
                for drop in 0..changes.len() {
                    let mut changes = changes.clone();
                    changes.remove(drop);
                    let step = crate::model::Step::Batch(changes);
                    simpler.push(Action::Commit { route: *route, buffered: *buffered, step });
                }
            }
            _ => {}
        }
        let simpler = simpler.into_iter().any(|action| {
            let mut plan = best.0.clone();
            plan.actions[at] = action;
            attempt(&plan, best)
        });
        if !simpler {
            at += 1;
        }
    }
}
