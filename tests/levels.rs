//! The arithmetic, held against models that count and merge by hand, commit by commit.
//!
//! 1. `odometer`: digits, windows and carries against a counter that rolls over, for every divisor.
//! 2. `shapes`: cover, inputs, deadlines and pending carries while levels and retention change at random.
//! 3. `pace`: carries in flight under a steady load: work a commit, deadlines, live segments.
//! 4. `retention`: what is readable, and which versions merges keep for it.

#![allow(clippy::unwrap_used)]

#[path = "levels/odometer.rs"]
mod odometer;
#[path = "levels/pace.rs"]
mod pace;
#[path = "levels/retention.rs"]
mod retention;
#[path = "levels/shapes.rs"]
mod shapes;

use quipu::levels::Divisor;

/// Every divisor there is.
fn divisors() -> impl Iterator<Item = Divisor> {
    (2..=16).map(|divisor| Divisor::new(divisor).unwrap())
}

/// A number from a seed (splitmix64), so that a failure can be repeated.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
