//! Fuzzes the target `block` of the engine's `fuzzing` module.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quipu::fuzzing::run("block", data));
