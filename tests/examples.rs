//! Each example runs.

#![allow(clippy::unwrap_used)]
// Their `main`s are for the command line.
#![allow(dead_code, unreachable_pub)]

#[path = "../examples/as_of.rs"]
mod as_of;
#[path = "../examples/blocking_use.rs"]
mod blocking_use;
#[path = "../examples/first_use.rs"]
mod first_use;
#[path = "../examples/on_core.rs"]
mod on_core;
mod procs;

use procs::folder;

/// Twice in the same folder: what the first run left does not trouble the second.
fn twice<E: std::fmt::Debug>(run: impl Fn(&std::path::Path) -> Result<(), E>) {
    let folder = folder();
    run(folder.path()).unwrap();
    run(folder.path()).unwrap();
}

#[test]
fn first_use_runs() {
    twice(first_use::run);
}

#[test]
fn blocking_use_runs() {
    twice(blocking_use::run);
}

#[test]
fn on_core_runs() {
    twice(on_core::run);
}

#[test]
fn as_of_runs() {
    twice(as_of::run);
}
