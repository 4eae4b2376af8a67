//! The engine's folder: its lock, and the file that says what it is.
//!
//! `QUIPU` is a small text file: a first line with the format's version, one `name = value` line for each
//! option fixed at creation, and a last line with a checksum of what stands above it. It is written last, by a
//! rename, when an engine is created: a folder without it is not an engine.
//!
//! `LOCK` is an empty file that the process which has the engine open holds an exclusive lock on.

use crate::error::{Error, Result};
use crate::options::{Compression, Fixed};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const IDENTITY: &str = "QUIPU";
const IDENTITY_NEW: &str = "QUIPU.new";
const LOCK: &str = "LOCK";
const FORMAT: &str = "quipu format 1";
/// No identity is longer than this, in bytes.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// The folder of a shard.
pub(crate) fn shard_folder(root: &Path, shard: u16) -> PathBuf {
    root.join(format!("shard-{shard:04}"))
}

/// The lock of an engine's folder, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Unlocks by name: closing would not do where a process that is being started by this one (between `fork`
    /// and `exec`) has a copy of the descriptor.
    fn drop(&mut self) {
        // Where it fails, the end of the last descriptor unlocks.
        let _ = self.file.unlock();
    }
}

/// Takes the folder's lock.
pub(crate) fn lock(root: &Path) -> Result<Lock> {
    let path = root.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io("open", path.display().to_string(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { file }),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: root.into() }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path.display().to_string(), error)),
    }
}

/// Checks that the path is a folder that an engine can be in, before anything is written. Answers whether an
/// engine is there.
pub(crate) fn look(root: &Path) -> Result<bool> {
    let not_engine = |why: &str| Err(Error::NotAnEngine { path: root.into(), why: why.into() });
    match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return not_engine("a file stands where a folder of its path should be; name another path");
        }
        Err(error) => return Err(Error::io("open", root.display().to_string(), error)),
        Ok(found) if !found.is_dir() => return not_engine("a file, not a folder; name a folder"),
        Ok(_) => {}
    }
    if root.join(IDENTITY).exists() {
        return Ok(true);
    }
    let entries = fs::read_dir(root).map_err(|error| Error::io("list", root.display().to_string(), error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", root.display().to_string(), error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What a creation that did not come to its end leaves behind.
        let ours = name == LOCK || name == IDENTITY_NEW || name.starts_with("shard-");
        if name.starts_with("shard-")
            && fs::read_dir(entry.path()).is_ok_and(|mut files| files.next().is_some())
        {
            return Err(Error::damaged(IDENTITY, 0, format!("it is gone, though {name} holds data")));
        }
        if !ours && name != "lost+found" {
            return not_engine(&format!(
                "not a Quipu folder and not empty (it holds {name:?}); name an empty or new folder"
            ));
        }
    }
    Ok(false)
}

/// Reads the identity.
pub(crate) fn read(root: &Path) -> Result<Fixed> {
    let path = root.join(IDENTITY);
    let named = || path.display().to_string();
    let bytes = fs::metadata(&path).map_err(|error| Error::io("open", named(), error))?.len();
    if bytes > IDENTITY_BYTES_MAX {
        return Err(Error::damaged(IDENTITY, IDENTITY_BYTES_MAX, "too long to be an identity"));
    }
    let bytes = fs::read(&path).map_err(|error| Error::io("read", named(), error))?;
    decode(&bytes).map_err(|(offset, why)| match why.strip_prefix("version:") {
        Some(why) => Error::NotAnEngine { path: root.into(), why: why.into() },
        None => Error::damaged(IDENTITY, offset as u64, why),
    })
}

/// Writes the identity of a new engine, durably; its shards' folders are made before.
pub(crate) fn create(root: &Path, fixed: &Fixed) -> Result<()> {
    let new = root.join(IDENTITY_NEW);
    let failed = |operation| {
        let name = new.display().to_string();
        move |error| Error::io(operation, name, error)
    };
    for shard in 0..fixed.shards {
        let folder = shard_folder(root, shard);
        fs::create_dir_all(&folder)
            .map_err(|error| Error::io("create", folder.display().to_string(), error))?;
    }
    let mut file = File::create(&new).map_err(failed("create"))?;
    file.write_all(encode(fixed).as_bytes()).map_err(failed("write"))?;
    file.sync_all().map_err(failed("flush"))?;
    sync_folder(root)?;
    fs::rename(&new, root.join(IDENTITY)).map_err(failed("rename"))?;
    sync_folder(root)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io("flush", folder.display().to_string(), error))
}

pub(super) fn encode(fixed: &Fixed) -> String {
    let compression = match fixed.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
    };
    let mut text = format!(
        "{FORMAT}\nengine = {:032x}\nshards = {}\ndivisor = {}\nroot_components = {}\ncompression = {}\n\
         base_ratio = {}\npart_bytes = {}\nflush_bytes = {}\nlog_file_bytes = {}\n",
        fixed.engine,
        fixed.shards,
        fixed.divisor,
        fixed.root_components,
        compression,
        fixed.base_ratio,
        fixed.part_bytes,
        fixed.flush_bytes,
        fixed.log_file_bytes,
    );
    text += &format!("checksum = {:016x}\n", xxh3_64(text.as_bytes()));
    text
}

/// Reads what [`encode`] wrote; on failure, where and why.
pub(super) fn decode(bytes: &[u8]) -> std::result::Result<Fixed, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| (error.valid_up_to(), "not UTF-8".to_string()))?;
    let Some(first) = text.lines().next().filter(|line| line.starts_with("quipu format ")) else {
        return Err((0, "does not begin as an identity does".into()));
    };
    if first != FORMAT {
        return Err((0, format!("version:written in {first:?}; this version reads {FORMAT:?}")));
    }
    let Some(at) = text.rfind("checksum = ") else {
        return Err((text.len(), "ends before its checksum".into()));
    };
    let sum = xxh3_64(&bytes[..at]);
    if text[at..] != format!("checksum = {sum:016x}\n") {
        return Err((at, "the checksum does not match what stands above it".into()));
    }
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(" = "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .ok_or_else(|| (0, format!("has no {name:?}")))
    };
    fn number<T: std::str::FromStr>(name: &str, text: &str) -> std::result::Result<T, (usize, String)> {
        text.parse().map_err(|_| (0, format!("{name} is not a number it can be: {text:?}")))
    }
    let fixed = Fixed {
        engine: u128::from_str_radix(value("engine")?, 16)
            .map_err(|_| (0, "engine is not a number".into()))?,
        shards: number("shards", value("shards")?)?,
        divisor: number("divisor", value("divisor")?)?,
        root_components: number("root_components", value("root_components")?)?,
        compression: match value("compression")? {
            "none" => Compression::None,
            "lz4" => Compression::Lz4,
            other => return Err((0, format!("version:compression {other:?} is not known to this version"))),
        },
        base_ratio: number("base_ratio", value("base_ratio")?)?,
        part_bytes: number("part_bytes", value("part_bytes")?)?,
        flush_bytes: number("flush_bytes", value("flush_bytes")?)?,
        log_file_bytes: number("log_file_bytes", value("log_file_bytes")?)?,
    };
    // Only a writer with another idea of the limits gets here: the checksum matched.
    fixed.check().map_err(|error| (0, error.to_string()))?;
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn an_identity_beyond_the_limits_is_damaged() {
        let sound = Fixed::create(&Options::new(), 1, 3);
        let beyond = [
            Fixed { shards: 0, ..sound.clone() },
            Fixed { divisor: 1, ..sound.clone() },
            Fixed { root_components: 0, ..sound.clone() },
            Fixed { base_ratio: 0, ..sound.clone() },
            Fixed { part_bytes: 0, ..sound.clone() },
            Fixed { flush_bytes: 0, ..sound.clone() },
            Fixed { log_file_bytes: 0, ..sound.clone() },
        ];
        for fixed in beyond {
            assert!(decode(encode(&fixed).as_bytes()).is_err(), "{fixed:?}");
        }
    }

    #[test]
    fn an_identity_reads_back_and_no_damage_passes() {
        let fixed = Fixed::create(&Options::new().compression(Compression::Lz4).divisor(7), 12345, 3);
        let text = encode(&fixed);
        assert_eq!(decode(text.as_bytes()), Ok(fixed));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_err(), "a flipped bit at {at} passes");
            assert!(decode(&text.as_bytes()[..at]).is_err(), "cut at {at} passes");
        }
    }
}
