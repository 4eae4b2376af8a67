//! The manifest of one shard: which segments exist, and a few small facts beside them.
//!
//! 1. The state is one small file, `manifest-GENERATION`: its first record is the whole state, each further
//!    record an edit. A record is whole pages with a checksum, a number and the checksum of the one before.
//! 2. The file is filled with zeros to its full length when it is made, so that an edit overwrites pages that
//!    exist and are written: it needs no space, and one durable write, without a change to the file's metadata.
//! 3. When an edit does not fit any more, the state with that edit becomes the first record of the next
//!    generation: written under a temporary name, synced, renamed, the folder synced; then the old one goes.
//!
//! Promises:
//!
//! * An edit is atomic, and durable when [`Manifest::apply`] answers `Ok`.
//! * After a crash the state is that of the last acknowledged edit, or of the one that was in flight. The last one read at
//!   opening is written once more: whether its write had succeeded is not known.
//! * A torn last edit is cut. A record that does not read back although a later one does is
//!   [`Error::Damaged`]: edits are written one at a time, so it was acknowledged.
//! * A full disk fails only the making of a generation, before anything depends on it: the state stays as it
//!   was, and the manifest goes on when there is space. Any other failed write leaves it in doubt what is on
//!   the disk: every later edit is refused with the same error, until the shard is opened again.

mod format;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(test)]
#[allow(clippy::expect_used)] // a test that cannot go on says why
mod tests;

use crate::disk::buffer::PAGE_BLANK;
use crate::disk::io::Io;
use crate::disk::{FileId, IoBuf, Op, OpenHow};
use crate::error::{Error, Result};
use crate::limits::PAGE_BYTES;
use crate::log::Identity;
use format::{Kind, RecordHead, VERSION};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

/// A generation's file is at least this long: some hundred edits, and a read of it takes a millisecond.
pub(crate) const FILE_BYTES_MIN: u64 = 1024 * 1024;
/// … and at least this many times its snapshot: so rewriting the state costs a fraction of the edits' bytes.
const FILE_SNAPSHOTS_MIN: u64 = 4;
/// The room for edits that a generation is made with where the disk has no space for more: enough to drop
/// segments, which makes space.
const ROOM_BYTES_MIN: u64 = 16 * PAGE_BYTES as u64;
/// The room at the end of a file that only edits without additions may use.
const RESERVE_BYTES: u64 = 4 * PAGE_BYTES as u64;
/// The longest file that is read: longer than what a million segments need, and a bound on memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

const PREFIX: &str = "manifest-";
const TEMPORARY: &str = "manifest.new";
const PAGE: u64 = PAGE_BYTES as u64;

/// What the manifest knows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct State {
    /// The segments by file name, each with its description, which means nothing here.
    pub(crate) segments: BTreeMap<String, Vec<u8>>,
    /// Small facts by number, such as the last flushed commit; they mean nothing here.
    pub(crate) facts: BTreeMap<u16, Vec<u8>>,
}

/// A change to the state, all of it or nothing. Removals come first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Edit {
    /// Segments that are new, with their descriptions.
    pub(crate) add: Vec<(String, Vec<u8>)>,
    /// Segments that are no more.
    pub(crate) remove: Vec<String>,
    /// Facts to set.
    pub(crate) facts: Vec<(u16, Vec<u8>)>,
}

impl State {
    /// What is wrong with an edit, if it removes what is not there or adds what is.
    fn check(&self, edit: &Edit) -> Result<(), String> {
        let mut removed = BTreeSet::new();
        for name in &edit.remove {
            if !self.segments.contains_key(name) || !removed.insert(name) {
                return Err(format!("removes {name}, which is not there"));
            }
        }
        let mut added = BTreeSet::new();
        for (name, _) in &edit.add {
            if (self.segments.contains_key(name) && !removed.contains(name)) || !added.insert(name) {
                return Err(format!("adds {name}, which is there"));
            }
        }
        Ok(())
    }

    /// Makes an edit that was checked.
    fn make(&mut self, edit: Edit) {
        debug_assert!(self.check(&edit).is_ok());
        for name in &edit.remove {
            self.segments.remove(name);
        }
        self.segments.extend(edit.add);
        self.facts.extend(edit.facts);
    }
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug)]
struct Tail {
    file: FileId,
    file_bytes: u64,
    generation: u64,
    offset: u64,
    number: u64,
    chain: u64,
}

/// The manifest of one shard. See the module.
pub(crate) struct Manifest {
    io: Io,
    identity: Identity,
    file_bytes_min: u64,
    tail: Tail,
    state: State,
    /// Why no edit can be made any more; also set while one is under way, lest it is dropped half done.
    failure: Option<Error>,
}

fn file_name(generation: u64) -> String {
    format!("{PREFIX}{generation:08}")
}

fn generation_of(name: &str) -> Option<u64> {
    let generation = name.strip_prefix(PREFIX)?.parse().ok()?;
    (file_name(generation) == name).then_some(generation)
}

impl Manifest {
    /// Opens the newest generation in the disk's folder, or begins the first. Removes older generations, and
    /// what a crash left of one in the making. Generations made from now on are at least `file_bytes_min` long.
    ///
    /// Errors: [`Error::Damaged`], where a record that was acknowledged does not read back, or the manifest is
    /// gone though there is a log, or is another shard's; [`Error::Io`] and [`Error::NoSpace`].
    pub(crate) async fn open(io: &Io, identity: Identity, file_bytes_min: u64) -> Result<Manifest> {
        let names = io.list().await.map_err(|error| Error::io("list the folder of", file_name(1), error))?;
        let newest = names.iter().filter_map(|(name, _)| generation_of(name)).max();
        let (tail, state) = match newest {
            Some(generation) => read(io, identity, generation).await?,
            None if names.iter().any(|(name, _)| name.starts_with("log-")) => {
                return Err(Error::damaged(file_name(1), 0, "there is a log, but no manifest"));
            }
            None => {
                let state = State::default();
                (create(io, identity, 1, &state, file_bytes_min).await.map_err(|(error, _)| error)?, state)
            }
        };
        let mut stale = false;
        for (name, _) in &names {
            if name == TEMPORARY || generation_of(name).is_some_and(|other| other < tail.generation) {
                remove(io, name).await?;
                stale = true;
            }
        }
        if stale {
            sync_folder(io).await?;
        }
        Ok(Manifest { io: io.clone(), identity, file_bytes_min, tail, state, failure: None })
    }

    /// The state as of the last edit.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Makes an edit, durably.
    ///
    /// Errors: [`Error::Invalid`] where the edit contradicts the state, and [`Error::NoSpace`]: nothing has
    /// changed, and other edits can be made. Any other error: whether the edit is on the disk is in doubt, and
    /// no further one is accepted. The same holds where the future is dropped before it is done.
    pub(crate) async fn apply(&mut self, edit: Edit) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.state
            .check(&edit)
            .map_err(|why| Error::invalid("an edit of the manifest", format!("it {why}")))?;
        let payload = format::encode_edit(&edit);
        let head = RecordHead {
            version: VERSION,
            kind: Kind::Edit,
            identity: self.identity,
            generation: self.tail.generation,
            number: self.tail.number,
            prev: self.tail.chain,
            payload_bytes: payload.len() as u64,
        };
        let name = file_name(self.tail.generation);
        let cancelled = std::io::Error::new(ErrorKind::Interrupted, "an edit was dropped before it was done");
        self.failure = Some(Error::io("edit", &name, cancelled));
        // What only removes segments may use the last pages, so that a full disk does not keep it from making space.
        let held_back = if edit.add.is_empty() { 0 } else { RESERVE_BYTES };
        let room = self.tail.file_bytes.saturating_sub(self.tail.offset + held_back);
        let done = match head.padded_bytes() {
            Some(bytes) if bytes <= room => {
                let mut record = IoBuf::zeroed(bytes as usize);
                let checksum = head.encode(&payload, &mut record);
                let written = self.io.write(self.tail.file, self.tail.offset, record).await;
                written.map(|_| advanced(self.tail, bytes, checksum)).map_err(|error| {
                    // Not even a full disk proves that nothing of it was written.
                    (Error::Io { operation: "write", file: name, source: error.into() }, Harm::Possible)
                })
            }
            _ => self.next_generation(&edit).await,
        };
        match done {
            Ok(tail) => {
                self.tail = tail;
                self.state.make(edit);
                self.failure = None;
                Ok(())
            }
            Err((error, Harm::None)) => {
                self.failure = None;
                Err(error)
            }
            Err((error, Harm::Possible)) => {
                self.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Makes the next generation, which begins with the state after the edit, and lets the present one go.
    async fn next_generation(&self, edit: &Edit) -> Result<Tail, (Error, Harm)> {
        let mut state = self.state.clone();
        state.make(edit.clone());
        let generation = self.tail.generation + 1;
        let tail = create(&self.io, self.identity, generation, &state, self.file_bytes_min).await?;
        // The edit is done. Should these fail, the next opening removes what is left.
        let _ = self.io.run(Op::Close { file: self.tail.file }).await;
        let _ = remove(&self.io, &file_name(self.tail.generation)).await;
        Ok(tail)
    }
}

fn advanced(tail: Tail, bytes: u64, checksum: u64) -> Tail {
    Tail { offset: tail.offset + bytes, number: tail.number + 1, chain: checksum, ..tail }
}

/// Whether a failed edit may be on the disk all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    None,
    Possible,
}

/// Makes a generation and gives it its name.
async fn create(
    io: &Io,
    identity: Identity,
    generation: u64,
    state: &State,
    file_bytes_min: u64,
) -> Result<Tail, (Error, Harm)> {
    let payload = format::encode_state(state);
    let head = RecordHead {
        version: VERSION,
        kind: Kind::Snapshot,
        identity,
        generation,
        number: 0,
        prev: 0,
        payload_bytes: payload.len() as u64,
    };
    let snapshot_bytes = head.padded_bytes().unwrap_or(u64::MAX);
    if snapshot_bytes > FILE_BYTES_MAX / (2 * FILE_SNAPSHOTS_MIN) {
        let why = format!("it would need {snapshot_bytes} bytes");
        return Err((Error::invalid("the state of the manifest", why), Harm::None));
    }
    let wanted = (snapshot_bytes * FILE_SNAPSHOTS_MIN).max(file_bytes_min);
    let mut pages = IoBuf::zeroed(snapshot_bytes as usize);
    let chain = head.encode(&payload, &mut pages);
    let mut made = fill(io, &pages, wanted).await;
    let mut file_bytes = wanted;
    if matches!(made, Err(Error::NoSpace { .. })) {
        file_bytes = snapshot_bytes + ROOM_BYTES_MIN;
        made = fill(io, &pages, file_bytes).await;
    }
    if let Err(error) = made {
        // Give the space back; the error that counts is the first.
        let _ = remove(io, TEMPORARY).await;
        return Err((error, Harm::None));
    }
    let name = file_name(generation);
    let harm = |operation: &'static str| {
        let name = name.clone();
        move |source: std::io::Error| {
            (Error::Io { operation, file: name, source: source.into() }, Harm::Possible)
        }
    };
    let rename = Op::Rename { from: TEMPORARY.to_string(), to: name.clone() };
    io.run(rename).await.map_err(harm("rename to"))?;
    io.run(Op::SyncFolder).await.map_err(harm("sync the folder of"))?;
    let how = OpenHow { write: true, create_new: false, durable: true };
    let (file, _) = io.open(&name, how).await.map_err(harm("open"))?;
    Ok(Tail { file, file_bytes, generation, offset: snapshot_bytes, number: 1, chain })
}

/// Writes the temporary file: the snapshot, then zeros; and syncs it.
async fn fill(io: &Io, snapshot: &IoBuf, bytes: u64) -> Result<()> {
    let failed = |operation: &'static str| move |error| Error::io(operation, TEMPORARY, error);
    remove(io, TEMPORARY).await?;
    let how = OpenHow { write: true, create_new: true, durable: false };
    let (file, _) = io.open(TEMPORARY, how).await.map_err(failed("create"))?;
    let filled = async {
        io.run(Op::Reserve { file, bytes }).await.map_err(failed("reserve space for"))?;
        let mut pages = snapshot.clone();
        pages.resize(bytes as usize);
        io.write(file, 0, pages).await.map_err(failed("write"))?;
        io.run(Op::Sync { file }).await.map_err(failed("sync"))
    };
    let filled = filled.await;
    let closed = io.run(Op::Close { file }).await.map_err(failed("close"));
    filled.and(closed)
}

async fn remove(io: &Io, name: &str) -> Result<()> {
    match io.run(Op::Remove { name: name.to_string() }).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", name, error)),
        _ => Ok(()),
    }
}

async fn sync_folder(io: &Io) -> Result<()> {
    let synced = io.run(Op::SyncFolder).await;
    synced.map_err(|error| Error::io("sync the folder of", file_name(0), error))
}

/// Reads a generation and what its records make together.
async fn read(io: &Io, identity: Identity, generation: u64) -> Result<(Tail, State)> {
    let name = file_name(generation);
    let how = OpenHow { write: true, create_new: false, durable: true };
    let (file, file_bytes) = io.open(&name, how).await.map_err(|error| Error::io("open", &name, error))?;
    if file_bytes > FILE_BYTES_MAX {
        return Err(Error::damaged(name, FILE_BYTES_MAX, "longer than any manifest"));
    }
    let file_bytes = file_bytes / PAGE * PAGE;
    if file_bytes == 0 {
        return Err(Error::damaged(name, 0, "the manifest is empty"));
    }
    let once =
        async || io.read(file, 0, file_bytes as usize).await.map_err(|error| Error::io("read", &name, error));
    let mut bytes = once().await?;
    let (mut end, mut state) = decode(&bytes, &name, identity, generation)?;
    // What ends the manifest is taken for torn. So that one bit read wrongly, once, is not: read again.
    if bytes[end.offset as usize..].chunks(PAGE_BYTES).next().is_some_and(|page| page != PAGE_BLANK) {
        let bytes_again = once().await?;
        let (again, state_again) = decode(&bytes_again, &name, identity, generation)?;
        if again.number > end.number {
            (bytes, end, state) = (bytes_again, again, state_again);
        }
    }
    // What the disk's cache holds may be read, and yet be lost later: the last edit may be that of a write that failed, and a
    // sync that failed since lets what is not on the disk look clean to the next. So it is written once more. Those before it were
    // durable before it was written, and the snapshot before it got its name.
    if end.last > 0 {
        let last_bytes = &bytes[end.last as usize..end.offset as usize];
        let mut last = IoBuf::zeroed(last_bytes.len());
        last.copy_from_slice(last_bytes);
        match io.write(file, end.last, last).await.map_err(|error| Error::io("write", &name, error)) {
            // Where even that takes space, opening must not: what is read is as good as it was before.
            Ok(_) | Err(Error::NoSpace { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    io.run(Op::Sync { file }).await.map_err(|error| Error::io("sync", &name, error))?;
    // The name may be there, and not yet for good.
    sync_folder(io).await?;
    Ok((
        Tail { file, file_bytes, generation, offset: end.offset, number: end.number, chain: end.chain },
        state,
    ))
}

/// Where the intact records of a file end.
struct End {
    /// Where the last of them begins.
    last: u64,
    offset: u64,
    number: u64,
    chain: u64,
}

/// Applies the records of a file, from its first page on: pure, and total on garbage.
fn decode(bytes: &[u8], name: &str, identity: Identity, generation: u64) -> Result<(End, State)> {
    let mut end = End { last: 0, offset: 0, number: 0, chain: 0 };
    let mut state = State::default();
    while let Some((head, checksum, payload)) = bytes.get(end.offset as usize..).and_then(RecordHead::decode)
    {
        let damaged = |why: &str| Error::damaged(name, end.offset, why);
        if head.version != VERSION {
            let why = format!("a manifest of version {}, this code reads version {VERSION}", head.version);
            return Err(damaged(&why));
        }
        if head.identity != identity {
            return Err(damaged("a manifest of another engine or shard"));
        }
        if (head.generation, head.number, head.prev) != (generation, end.number, end.chain) {
            return Err(damaged("a record that does not continue the one before"));
        }
        match head.kind {
            Kind::Snapshot => {
                state =
                    format::decode_state(payload).ok_or_else(|| damaged("a state that makes no sense"))?;
            }
            Kind::Edit => {
                let edit =
                    format::decode_edit(payload).ok_or_else(|| damaged("an edit that makes no sense"))?;
                state.check(&edit).map_err(|why| damaged(&format!("an edit that {why}")))?;
                state.make(edit);
            }
        }
        // A record that decoded has a padded length.
        end.last = end.offset;
        end.offset += head.padded_bytes().unwrap_or(PAGE);
        end.number += 1;
        end.chain = checksum;
    }
    if end.number == 0 {
        return Err(Error::damaged(name, 0, "the state at the start of the manifest"));
    }
    // A torn edit has nothing behind it; anything intact there was written after the gap was acknowledged.
    for offset in (end.offset as usize..bytes.len()).step_by(PAGE_BYTES).skip(1) {
        if let Some((head, ..)) = bytes.get(offset..).and_then(RecordHead::decode)
            && head.generation == generation
            && head.number > end.number
        {
            let why = format!("edit {} does not read back, but edit {} does", end.number, head.number);
            return Err(Error::damaged(name, end.offset, why));
        }
    }
    Ok((end, state))
}
