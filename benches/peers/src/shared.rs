//! What the load generator in `tools/` has already, taken from there file by file: keys and values, distributions, a
//! timer, and what the machine, its disk and a run's folder are.
//!
//! Each file is compiled here a second time rather than copied. So this crate depends on no library of the tools, and
//! both load the engine with the same keys and values.

#![allow(dead_code, unreachable_pub, reason = "each file serves the load generator too")]

#[path = "../../../tools/src/bench/device.rs"]
pub(crate) mod device;
#[path = "../../../tools/src/bench/draw.rs"]
pub(crate) mod draw;
#[path = "../../../tools/src/bench/key.rs"]
pub(crate) mod key;
#[path = "../../../tools/src/bench/place.rs"]
pub(crate) mod place;
#[path = "../../../tools/src/bench/system.rs"]
pub(crate) mod system;
#[path = "../../../tools/src/bench/timer.rs"]
pub(crate) mod timer;
#[path = "../../../tools/src/units.rs"]
pub(crate) mod units;
