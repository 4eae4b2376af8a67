//! Log files as slots of the folder: made, filled with zeros, given a sequence number, marked free.
//!
//! A slot's name never changes. A file becomes usable in the steps of [`prepare`]:
//!
//! 1. remove what a crash left under the name; create, reserve the space (a full disk shows here, before
//!    anything depends on the file), fill with zeros by writing (writes into reserved but unwritten space are
//!    several times slower when durable), sync file and folder;
//! 2. open again so that each write is durable;
//! 3. write the header with a new sequence number.
//!
//! Recycling is step 3 alone. A file without an intact header is one that step 3 never reached.

use super::format::{FileHeader, Identity, VERSION};
use crate::disk::io::Io;
use crate::disk::{FileId, IoBuf, Op, OpenHow};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use std::io::ErrorKind;

/// How much of a new file is filled with one write: large enough for the device's full rate, small enough not
/// to hold up the group writes that share the device.
const FILL_BYTES: usize = 1024 * 1024;

/// How log files are opened: each write durable.
pub(super) const DURABLE: OpenHow = OpenHow { write: true, create_new: false, durable: true };

/// An open log file of full length.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) slot: u32,
    pub(super) file: FileId,
    pub(super) bytes: u64,
    /// What its header says was durable.
    pub(super) told: Commit,
}

/// The name of a slot.
pub(super) fn slot_name(slot: u32) -> String {
    format!("log-{slot:02}")
}

/// The slot that a name stands for, if it is a log file's.
pub(super) fn slot_of(name: &str) -> Option<u32> {
    let slot = name.strip_prefix("log-")?.parse().ok()?;
    (slot_name(slot) == name).then_some(slot)
}

/// Writes a file's header page: sequence 0 marks it free, `sealed_at` (if not 0) closed cleanly.
pub(super) async fn write_header(
    io: &Io,
    identity: Identity,
    file: &LogFile,
    sequence: u64,
    sealed_at: u64,
) -> Result<()> {
    let mut page = IoBuf::zeroed(PAGE_BYTES);
    let (file_bytes, durable) = (file.bytes, file.told);
    let header = FileHeader { version: VERSION, identity, sequence, file_bytes, durable, sealed_at };
    header.encode(&mut page);
    let written = io.write(file.file, 0, page).await;
    written.map(drop).map_err(|error| Error::io("write the header of", slot_name(file.slot), error))
}

/// Where the next file comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A free file is used again.
    Recycle(LogFile),
    /// A file is made in a slot.
    Create(u32),
}

/// A file made ready, or why not, with what is left: a recycled file, or the slot of one that is gone.
pub(super) type Prepared = Result<LogFile, (Error, Source)>;

/// Makes a file ready for its first group, under a new sequence number; commits up to `durable` are durable.
/// See the module.
pub(super) async fn prepare(
    io: Io,
    identity: Identity,
    source: Source,
    bytes: u64,
    sequence: u64,
    durable: Commit,
) -> Prepared {
    debug_assert!(sequence > 0, "0 marks free files");
    let source = match source {
        // Of another length, since the options changed: made anew.
        Source::Recycle(file) if file.bytes != bytes => match io.run(Op::Close { file: file.file }).await {
            Ok(()) => Source::Create(file.slot),
            Err(error) => {
                return Err((Error::io("close", slot_name(file.slot), error), Source::Create(file.slot)));
            }
        },
        source => source,
    };
    let mut file = match source {
        Source::Recycle(file) => file,
        Source::Create(slot) => match create(&io, slot, bytes).await {
            Ok(file) => file,
            Err(error) => return Err((error, Source::Create(slot))),
        },
    };
    file.told = durable;
    match write_header(&io, identity, &file, sequence, 0).await {
        Ok(()) => Ok(file),
        Err(error) => Err((error, Source::Recycle(file))),
    }
}

async fn create(io: &Io, slot: u32, bytes: u64) -> Result<LogFile> {
    let name = slot_name(slot);
    remove(io, &name).await?;
    let how = OpenHow { write: true, create_new: true, durable: false };
    let (file, _) = io.open(&name, how).await.map_err(|error| Error::io("create", &name, error))?;
    let filled = fill(io, &name, file, bytes).await;
    let closed = io.run(Op::Close { file }).await.map_err(|error| Error::io("close", &name, error));
    if let Err(error) = filled.and(closed) {
        // Give the space back; the error that counts is the first.
        let _ = remove(io, &name).await;
        return Err(error);
    }
    io.run(Op::SyncFolder).await.map_err(|error| Error::io("sync the folder of", &name, error))?;
    let (file, _) = io.open(&name, DURABLE).await.map_err(|error| Error::io("open", &name, error))?;
    Ok(LogFile { slot, file, bytes, told: Commit::ZERO })
}

async fn fill(io: &Io, name: &str, file: FileId, bytes: u64) -> Result<()> {
    let reserved = io.run(Op::Reserve { file, bytes }).await;
    reserved.map_err(|error| Error::io("reserve space for", name, error))?;
    let mut zeros = IoBuf::zeroed(FILL_BYTES.min(usize::try_from(bytes).unwrap_or(FILL_BYTES)));
    let mut at = 0;
    while at < bytes {
        if bytes - at < zeros.len() as u64 {
            zeros.truncate((bytes - at) as usize);
        }
        zeros = io.write(file, at, zeros).await.map_err(|error| Error::io("fill", name, error))?;
        at += zeros.len() as u64;
    }
    io.run(Op::Sync { file }).await.map_err(|error| Error::io("sync", name, error))
}

/// Removes a name, if it is there.
pub(super) async fn remove(io: &Io, name: &str) -> Result<()> {
    match io.run(Op::Remove { name: name.to_string() }).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", name, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slot_names_are_slots() {
        for slot in [0, 7, 99, 100, u32::MAX] {
            assert_eq!(slot_of(&slot_name(slot)), Some(slot));
        }
        for name in ["log-", "log-1", "log-001", "log-+1", "log-00x", "lag-00", "log-99999999999"] {
            assert_eq!(slot_of(name), None, "{name}");
        }
    }
}
