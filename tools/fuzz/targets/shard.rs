//! Fuzzes the target `shard` of the engine's `fuzzing` module.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quipu::fuzzing::run("shard", data));
