//! The fuzz target of the options: the identity file, paths, and what an engine makes of both.
//!
//! What must hold: nothing panics; an identity that reads back is within the limits of the options, encodes to what reads
//! back the same, and gives a shard a configuration; a path that is taken is the path that was given, has a root
//! and a shard.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::identity::{decode, encode};
use crate::fuzzing::Script;
use crate::limits;
use crate::options::{Compression, Fixed, Options};
use crate::path::{Name, split};
use crate::shard::host::{config_of, log_options_of};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 4 {
        0 => identity(script.rest()),
        1 => {
            // Behind a right checksum.
            let mut text = b"quipu format 1\n".to_vec();
            text.extend_from_slice(script.rest());
            let sum = xxh3_64(&text);
            text.extend_from_slice(format!("checksum = {sum:016x}\n").as_bytes());
            identity(&text);
        }
        2 => {
            let mut number = || script.number();
            let fixed = Fixed {
                engine: u128::from(number()),
                shards: number() as u16,
                divisor: number() as u32,
                root_components: number() as u8,
                compression: if number() & 1 == 0 { Compression::None } else { Compression::Lz4 },
                base_ratio: number() as u32,
                part_bytes: number(),
                flush_bytes: number(),
                log_file_bytes: number(),
            };
            identity(encode(&fixed).as_bytes());
        }
        _ => {
            let (components, shards) = (script.byte() % 5, u16::from(script.byte()) + 1);
            path(script.rest(), components.max(1), shards);
        }
    }
}

fn identity(bytes: &[u8]) {
    let Ok(fixed) = decode(bytes) else { return };
    assert_eq!(decode(encode(&fixed).as_bytes()).as_ref(), Ok(&fixed));
    assert!((1..=limits::SHARDS_MAX).contains(&fixed.shards));
    let options = Options::new();
    fixed.agree(&options).unwrap();
    config_of(0, &fixed, &options).expect("a configuration");
    let log = log_options_of(&fixed, &options);
    assert!(log.group_bytes_max > 0 && (log.group_bytes_max as u64) < log.file_bytes);
    Name::new(b"a/b/c/d/e", fixed.root_components, fixed.shards).expect("a path");
}

fn path(bytes: &[u8], components: u8, shards: u16) {
    let Ok(name) = Name::new(bytes, components, shards) else { return };
    assert_eq!(name.path().as_bytes(), bytes);
    assert!(name.shard() < shards && name.path().starts_with(name.root()));
    assert_eq!(name.root().split('/').count(), usize::from(components));
    assert_eq!(name.is_root(), name.root() == name.path());
    let (parent, last) = split(name.path());
    assert!(!last.is_empty() && !last.contains('/'));
    assert_eq!(parent.map_or(0, |parent| parent.len() + 1) + last.len(), bytes.len());
    assert!(name.path().split('/').count() <= limits::PATH_COMPONENTS_MAX);
    assert!(bytes.len() <= limits::PATH_BYTES_MAX);
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let fixed = Fixed::create(&Options::new().compression(Compression::Lz4).divisor(7), 12345, 3);
    let text = encode(&fixed);
    let body = text.strip_prefix("quipu format 1\n").unwrap();
    let body = &body[..body.rfind("checksum").unwrap()];
    let mut seeds = vec![
        [&[0][..], text.as_bytes()].concat(),
        [&[1][..], body.as_bytes()].concat(),
        vec![2, 1, 1, 4, 1, 0, 8, 0x80, 0x80, 4, 0x80, 8, 0x80, 0x80, 2],
        vec![2, 1, 3, 16, 4, 1, 8, 0x80, 0x80, 0x80, 4, 0x80, 0x80, 8, 0x80, 0x80, 0x80, 2],
    ];
    let longest = ["x"; 32].join("/");
    let over = "y".repeat(256);
    for path in ["a", "acme/users", "acme/users/emails", "", "/", "a//b", "a/", "ä/ö/ü", &longest, &over] {
        for components in [1, 3] {
            seeds.push([&[3, components, 6][..], path.as_bytes()].concat());
        }
    }
    seeds
}
