//! The simulator itself: seeds that once failed, a few fixed ones, a few seconds of fresh ones; that a run is decided by
//! its seed; and that the tester finds what is planted.

#![allow(clippy::unwrap_used)]

use quipu_simulator::coverage::Coverage;
use quipu_simulator::faults::Harm;
use quipu_simulator::plan::{Action, End, Plan, Reopen};
use quipu_simulator::run::run;
use quipu_simulator::shrink::shrink;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn check(seed: u64) -> Coverage {
    run(&Plan::new(seed)).unwrap_or_else(|failure| {
        panic!(
            "cargo run --release -p quipu-simulator -- --seed {seed}\n{} ({})",
            failure.message, failure.place
        )
    })
}

#[test]
fn seeds_that_once_failed() {
    let lines = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> =
        lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds.into_iter().for_each(|seed| drop(check(seed)));
}

/// The first seeds hit what is frequent; that all rows of the fault table are hit, the command says.
#[test]
fn the_first_seeds_cover_what_is_frequent() {
    let mut coverage = Coverage::default();
    (0..40).for_each(|seed| coverage.merge(&check(seed)));
    let expected = [
        "cycles",
        "end: during recovery",
        "end: during compaction",
        "compaction: fold",
        "compaction: spill",
        "read: as of, retained",
        "twins",
        "errors told",
        "tear: garbage in the rest",
        "files: new file gone",
        "ring: EAGAIN",
        "read: short",
    ];
    for name in expected {
        assert!(coverage.count(name) > 0, "{name} was not hit");
    }
}

#[test]
fn fresh_seeds() {
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 24;
    let until = Instant::now() + Duration::from_secs(5);
    let mut seed = first;
    while Instant::now() < until {
        check(seed);
        seed += 1;
    }
}

#[test]
fn a_run_is_decided_by_its_seed() {
    for seed in 0..12 {
        assert_eq!(check(seed), check(seed), "seed {seed}");
    }
}

/// A plan that claims too much fails, and shrinks to little: here that a closed shard settles after the power
/// failure that ends it comes at the very beginning.
#[test]
fn a_failure_shrinks_to_what_matters() {
    let mut plan =
        (0..).map(Plan::new).find(|plan| plan.harm == Harm::Benign && plan.actions.len() > 100).unwrap();
    // Reads of what a run has never had: a directory's handle for a path that breaks the grammar.
    let read = Action::Read {
        view: quipu_simulator::plan::View::Newest(quipu_simulator::plan::Route::Local),
        what: quipu_simulator::plan::What::Exists("//"),
        wait: true,
    };
    let middle = plan.actions.len() / 2;
    plan.actions.insert(middle, read.clone());
    let failure = run(&plan).unwrap_err();
    assert_eq!(failure.action, middle + 1);
    // It ends by itself, long before.
    let (small, again, _) = shrink(&plan, &failure, Duration::from_secs(3600));
    assert_eq!(small.actions, [read]);
    assert_eq!(again.place, failure.place);
}

/// Without actions there is still an opening, and an end.
#[test]
fn the_smallest_plan_runs() {
    let reopen = Reopen { seed: 1, crashes: vec![(3, End::Power)], retention: None };
    let plan = Plan { open: reopen, actions: Vec::new(), twin: true, ..Plan::new(1) };
    assert!(run(&plan).is_ok());
}
