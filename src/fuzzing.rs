//! Entry points for the fuzzer (`tools/fuzz`): bytes in, everything that decodes them to its end, properties asserted.
//!
//! 1. A target is a function of bytes. Its first byte mostly chooses how to take the rest: as the bytes of a file as
//!    they are; or as a payload that is sealed with the right checksum first; or as a *script* ([`Script`]) that says
//!    what to build, so that small inputs reach what lies behind a checksum.
//! 2. Each part of the engine has its target beside its format: `src/*/fuzzing.rs`. Here they are gathered.
//! 3. A test replays every file of the corpora through its target, on any toolchain, so that they do not rot.
//!
//! It exists under `cfg(any(fuzzing, test))` only: no embedder compiles it.

use crate::codec::Reader;

/// What a target is: it takes any bytes, and panics where a property does not hold.
type Target = fn(&[u8]);

/// The targets, by the names of their binaries and corpora.
pub const TARGETS: [(&str, Target); 6] = [
    ("log", crate::log::fuzzing::run),
    ("block", crate::segment::fuzzing::block),
    ("segment", crate::segment::fuzzing::segment),
    ("manifest", crate::manifest::fuzzing::run),
    ("options", crate::engine::fuzzing::run),
    ("shard", crate::shard::fuzzing::run),
];

/// Runs the target of a name.
///
/// # Panics
///
/// Where a property does not hold, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(name, _)| *name == target);
    target.expect("a target of that name").1(data);
}

/// Takes choices off the front of the input. Where that has ended, they are zeros: every input is a whole script.
pub(crate) struct Script<'a> {
    reader: Reader<'a>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Script { reader: Reader::new(data) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.reader.u8().unwrap_or(0)
    }

    /// A bit of a byte of its own.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.reader.varint().unwrap_or(0)
    }

    /// At most `most` of the bytes that follow, as many as a number says.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = usize::try_from(self.number()).unwrap_or(usize::MAX);
        let count = count.min(most).min(self.reader.remaining());
        self.reader.bytes(count).unwrap_or_default()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let count = self.reader.remaining();
        self.reader.bytes(count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn corpus(target: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz/corpus").join(target)
    }

    #[test]
    fn every_file_of_every_corpus_passes_its_target() {
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(corpus(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut count = 0;
            for file in files {
                let path = file.expect("a corpus is listed").path();
                let data = std::fs::read(&path).expect("a corpus is read");
                let passed = std::panic::catch_unwind(|| target(&data));
                assert!(passed.is_ok(), "{} fails", path.display());
                count += 1;
            }
            assert!(count >= 10, "the corpus of {name} is almost empty");
        }
    }

    /// Writes files that real writers made, as a first corpus: `cargo test --lib fuzzing_seeds -- --ignored`.
    #[test]
    #[ignore = "writes into the sources"]
    fn fuzzing_seeds() {
        let seeds: [(&str, Vec<Vec<u8>>); 6] = [
            ("log", crate::log::fuzzing::seeds()),
            ("block", crate::segment::fuzzing::block_seeds()),
            ("segment", crate::segment::fuzzing::segment_seeds()),
            ("manifest", crate::manifest::fuzzing::seeds()),
            ("options", crate::engine::fuzzing::seeds()),
            ("shard", crate::shard::fuzzing::seeds()),
        ];
        for (name, seeds) in seeds {
            std::fs::create_dir_all(corpus(name)).expect("a folder for the corpus");
            for (at, seed) in seeds.iter().enumerate() {
                std::fs::write(corpus(name).join(format!("seed-{at:02}")), seed).expect("a seed is written");
            }
        }
    }
}
