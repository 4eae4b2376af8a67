//! The promises of `quipu::disk`, held against all three disks (`promises`), and what each adds of its own:
//! crashes and faults of the simulated one (`simulated`, `remains`), the ring's queues and descriptor (`uring`).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod harness;
mod promises;
mod remains;
mod simulated;
mod uring;
