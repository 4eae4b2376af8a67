//! The simulator: runs whole shards from a seed, in virtual time, on a disk that does what real disks have been seen to
//! do, and holds them against an oracle that knows what must hold.
//!
//! 1. [`plan`] makes a run from a seed, as plain data: options, and a list of actions and faults.
//! 2. [`run`] carries it out on a shard ([`world`]), and catches panics.
//! 3. [`faults`] says what goes wrong with the disk; [`world`] keeps a plain model of every commit's state, and checks after each step; [`invariants`] are those
//!    of the design; `twin` compares the files with those of an undisturbed run.
//! 4. [`shrink`] drops what a failure does not need.
//! 5. [`planted`] tests the tester: known bugs, each of which it must find.
//!
//! 5. [`exhaustive`] tries all crashes of the small fixed [`histories`], [`calls`] all failing calls; [`whole`] is the
//!    command for both.
//!
//! The tests of the engine share [`model`], [`choices`] and [`invariants`].

pub mod calls;
pub mod choices;
pub mod coverage;
pub mod exhaustive;
pub mod faults;
pub mod histories;
pub mod invariants;
pub mod model;
pub mod plan;
pub mod planted;
mod reads;
pub mod retained;
pub mod run;
mod sessions;
pub mod shrink;
mod twin;
pub mod whole;
pub mod world;
