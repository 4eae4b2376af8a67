//! The arithmetic: what must exist on disk after commit N is a pure function of N.
//!
//! How it works, in steps; each has its file, and none reads a clock, a file or a random number:
//!
//! 1. [`number`](Divisor): commits, levels and the divisor. Commit N in base `divisor` is the schedule.
//! 2. [`window`](Window): the commits of one digit position, ((k-1)·D^L, k·D^L].
//! 3. [`cover`](Shape): which windows make up the newest state ([`Shape::cover`]), until when a merge has time
//!    ([`Shape::deadline`]), and what a restart has to make up for ([`Shape::pending`]).
//! 4. [`adapt`](Shape::step): which merge falls due at a commit, and how the flush level and the base's level follow
//!    the sizes of the commits.
//! 5. [`retention`](History): which commits can be read later.
//! 6. [`keep`](KeepRule): which versions of a key a merge keeps so that they can.
//! 7. [`pace`](Pace): how much of the merges in flight must be done by a commit.
//!
//! What it promises: the same commits with the same sizes give the same windows, carries and kept versions,
//! whatever the timing; and keeping versions level by level gives what keeping them at once would give.

mod adapt;
mod cover;
mod keep;
mod number;
mod pace;
mod retention;
mod window;

pub use adapt::{BaseStep, Budget, Folded, Measured, next_base_level, next_flush_level};
pub use cover::{Carry, Cover, Piece, Shape};
pub use keep::{KeepRule, KeyFold, Version};
pub use number::{Commit, Divisor, Level};
pub use pace::{Pace, Work, work_bound};
pub use retention::{Aligned, History, Retention};
pub use window::{Span, Window};
