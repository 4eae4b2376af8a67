//! Fuzzes the target `manifest` of the engine's `fuzzing` module.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quipu::fuzzing::run("manifest", data));
