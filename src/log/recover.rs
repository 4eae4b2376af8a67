//! Opening a log: read every file, decide ([`plan`]), replay, and leave the files so that only the live chain
//! can be found next time.
//!
//! 1. Every slot's header and every intact group in it are read (an unreadable page is an error).
//! 2. [`plan`] decides what is the log, or that it is damaged.
//! 3. The records above the floor go to the caller, in order.
//! 4. Files that gave records are synced: what the disk's cache holds may be read, and yet be lost later.
//! 5. Every file that is not kept is marked free, durably, before any new group can be written: so stale
//!    groups are never candidates twice.
//! 6. A new file is made ready; or the last one goes on, if it was closed cleanly and its mark is cleared.
//!
//! A crash in any step leaves a log on which the same steps decide the same.

use super::files::{self, DURABLE, LogFile, Source, slot_name, slot_of};
use super::format::{FileHeader, GROUP_HEADER_BYTES, GroupHead, Identity, VERSION};
use super::plan::{GroupAt, Plan, Scanned, plan};
use super::{Active, Full, Log, LogOptions};
use crate::disk::buffer::PAGE_BLANK;
use crate::disk::io::Io;
use crate::disk::{IoBuf, Op};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::cell::RefCell;

/// How much is read at once where nothing longer is asked for.
const READ_BYTES: u64 = 1024 * 1024;
/// Reads in flight: files that are scanned at once, stretches read ahead of the replay.
const READS_AHEAD: usize = 4;

const PAGE: u64 = PAGE_BYTES as u64;

/// A file, read through a window that moves forward.
struct Window<'a> {
    io: &'a Io,
    file: &'a LogFile,
    held: IoBuf,
    held_at: u64,
    /// How much is read where less is asked for.
    read_bytes: u64,
}

impl<'a> Window<'a> {
    fn new(io: &'a Io, file: &'a LogFile) -> Self {
        Window { io, file, held: IoBuf::default(), held_at: 0, read_bytes: READ_BYTES }
    }

    /// Reads no more than what is asked for.
    fn once(io: &'a Io, file: &'a LogFile) -> Self {
        Window { read_bytes: 0, ..Window::new(io, file) }
    }

    /// `bytes` bytes (whole pages, within the file) at `offset`.
    async fn at(&mut self, offset: u64, bytes: u64) -> Result<&[u8]> {
        debug_assert!(offset + bytes <= self.file.bytes && offset.is_multiple_of(PAGE));
        if offset < self.held_at || offset + bytes > self.held_at + self.held.len() as u64 {
            let count = bytes.max(self.read_bytes).min(self.file.bytes / PAGE * PAGE - offset);
            let held = std::mem::take(&mut self.held);
            let read = self.io.read_into(self.file.file, offset, count as usize, held).await;
            self.held = read.map_err(|error| Error::io("read", slot_name(self.file.slot), error))?;
            self.held_at = offset;
        }
        let start = (offset - self.held_at) as usize;
        Ok(&self.held[start..start + bytes as usize])
    }
}

/// Reads a file's header and finds every intact group in it.
async fn scan(io: &Io, identity: Identity, file: &LogFile) -> Result<Scanned> {
    let name = slot_name(file.slot);
    let seed = identity.seed();
    let mut window = Window::new(io, file);
    let mut header = None;
    if file.bytes >= PAGE {
        header = FileHeader::decode(window.at(0, PAGE).await?);
    }
    if let Some(header) = header {
        if header.version != VERSION {
            let why = format!("a log of version {}, this code reads version {VERSION}", header.version);
            return Err(Error::damaged(name, 8, why));
        }
        if header.identity != identity {
            return Err(Error::damaged(name, 12, "a log file of another engine or shard"));
        }
        // The length was durable before the header was written.
        if file.bytes < header.file_bytes {
            let why = format!("{} bytes long, not {}: cut short", file.bytes, header.file_bytes);
            return Err(Error::damaged(name, file.bytes, why));
        }
    }
    let mut groups = Vec::new();
    let mut offset = PAGE;
    while offset + PAGE <= file.bytes {
        let mut group = group_at(&mut window, offset, seed).await?;
        if group.is_none() && window.at(offset, PAGE).await? != PAGE_BLANK {
            // What ends the log is cut off. So that one bit read wrongly, once, is not taken for that: read again.
            group = group_at(&mut Window::once(io, file), offset, seed).await?;
        }
        offset += group.map_or(PAGE, |group| group.head.padded_bytes());
        groups.extend(group);
    }
    Ok(Scanned { name, header, groups })
}

/// The intact group that begins at a page, if there is one.
async fn group_at(window: &mut Window<'_>, offset: u64, seed: u64) -> Result<Option<GroupAt>> {
    let most = window.file.bytes / PAGE * PAGE - offset;
    let head = GroupHead::peek(window.at(offset, PAGE).await?, seed);
    let Some(head) = head.filter(|head| head.padded_bytes() <= most) else { return Ok(None) };
    let decoded = GroupHead::decode(window.at(offset, head.padded_bytes()).await?, seed);
    Ok(decoded.map(|(head, checksum)| GroupAt { offset, checksum, head }))
}

/// Some groups of a file that lie one behind another, read at once.
struct Stretch<'a> {
    file: usize,
    groups: &'a [GroupAt],
}

impl Stretch<'_> {
    fn offset(&self) -> u64 {
        self.groups.first().map_or(0, |group| group.offset)
    }

    fn bytes(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.end() - self.offset())
    }
}

/// The planned groups with commits above `floor`, in stretches of about [`READ_BYTES`].
fn stretches<'a>(scanned: &'a [Scanned], plan: &Plan, floor: Commit) -> Vec<Stretch<'a>> {
    let mut stretches = Vec::new();
    for portion in &plan.replay {
        let groups = &scanned[portion.file].groups[portion.groups.clone()];
        let below = groups.partition_point(|group| group.head.next().0 <= floor.0.saturating_add(1));
        let mut start = below;
        for at in below..groups.len() {
            let next = groups.get(at + 1);
            let apart = next.is_none_or(|next| next.offset != groups[at].end());
            if apart || groups[at].end() - groups[start].offset >= READ_BYTES {
                stretches.push(Stretch { file: portion.file, groups: &groups[start..=at] });
                start = at + 1;
            }
        }
    }
    stretches
}

/// Hands the planned records above `floor` to `apply`, while what follows is being read.
async fn replay(
    io: &Io,
    seed: u64,
    files: &[LogFile],
    scanned: &[Scanned],
    plan: &Plan,
    floor: Commit,
    apply: &mut dyn FnMut(Commit, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut expected: Option<Commit> = None;
    let spent = &RefCell::new(Vec::new());
    let reads = stretches(scanned, plan, floor).into_iter().map(|stretch| async move {
        let buf = spent.borrow_mut().pop().unwrap_or_default();
        let count = stretch.bytes() as usize;
        let read = io.read_into(files[stretch.file].file, stretch.offset(), count, buf).await;
        let bytes = read.map_err(|error| Error::io("read", &scanned[stretch.file].name, error))?;
        Ok::<_, Error>((stretch, bytes))
    });
    let mut reads = stream::iter(reads).buffered(READS_AHEAD);
    while let Some(read) = reads.next().await {
        let (stretch, buf) = read?;
        for group in stretch.groups {
            debug_assert!(expected.is_none_or(|expected| group.head.first == expected));
            expected = Some(group.head.next());
            let damaged = |at: u64, why: &str| Error::damaged(&scanned[stretch.file].name, at, why);
            let at = (group.offset - stretch.offset()) as usize;
            let bytes = &buf[at..at + group.head.padded_bytes() as usize];
            if GroupHead::decode(bytes, seed) != Some((group.head, group.checksum)) {
                return Err(damaged(group.offset, "a group that read differently a moment ago"));
            }
            let payload_at = group.offset + GROUP_HEADER_BYTES as u64;
            let mut records = group.head.records(bytes).ok_or_else(|| damaged(payload_at, "no records"))?;
            for index in 0..u64::from(group.head.count) {
                let at = payload_at + u64::from(group.head.payload_bytes) - records.remaining() as u64;
                let record = records.prefixed().ok_or_else(|| damaged(at, "a record that makes no sense"))?;
                let commit = Commit(group.head.first.0 + index);
                if commit > floor {
                    apply(commit, record)?;
                }
            }
            if !records.is_empty() {
                return Err(damaged(payload_at, "bytes behind the last record of a group"));
            }
        }
        spent.borrow_mut().push(buf);
    }
    Ok(())
}

impl Log {
    /// Opens the log in the disk's folder, or begins it. Each record of a commit above `floor` goes to `apply`,
    /// in order and without gaps; what it answers ends the replay if it is an error.
    ///
    /// `floor` is the last commit that is durable elsewhere (in segments); the log may end below it, or be gone.
    /// `reach` is one that the log is known to hold, or the floor: a log that ends below both is refused before anything
    /// is changed.
    ///
    /// Errors: [`Error::Options`]; [`Error::Damaged`], where the log breaks off before a commit that was
    /// durable, or holds another shard's files; [`Error::Io`], where a file cannot be read or marked. That no
    /// new file can be made is not an error: see [`Log::shortage`].
    pub(crate) async fn recover(
        io: &Io,
        options: LogOptions,
        identity: Identity,
        floor: Commit,
        reach: Commit,
        apply: &mut dyn FnMut(Commit, &[u8]) -> Result<()>,
    ) -> Result<Log> {
        options.check()?;
        let names = io.list().await.map_err(|error| Error::io("list the folder of", slot_name(0), error))?;
        let mut files = Vec::new();
        for slot in names.iter().filter_map(|(name, _)| slot_of(name)) {
            let name = slot_name(slot);
            let opened = io.open(&name, DURABLE).await;
            let (file, bytes) = opened.map_err(|error| Error::io("open", &name, error))?;
            files.push(LogFile { slot, file, bytes, told: Commit::ZERO });
        }
        let scans = files.iter().map(|file| scan(io, identity, file));
        let scanned: Vec<Scanned> = stream::iter(scans).buffered(READS_AHEAD).try_collect().await?;

        let plan = plan(&scanned, floor)?;
        if plan.last.max(floor) < reach {
            let why =
                format!("it ends at commit {}, but commits up to {reach} were durable", plan.last.max(floor));
            return Err(Error::damaged("log", 0, why));
        }
        replay(io, identity.seed(), &files, &scanned, &plan, floor, apply).await?;

        for &(index, _) in &plan.keep {
            let synced = io.run(Op::Sync { file: files[index].file }).await;
            synced.map_err(|error| Error::io("sync", &scanned[index].name, error))?;
        }
        let kept = |index: usize| {
            plan.resume.is_some_and(|(resumed, _)| resumed == index)
                || plan.keep.iter().any(|&(kept, _)| kept == index)
        };
        for (index, file) in files.iter_mut().enumerate() {
            let header = scanned[index].header.filter(|_| kept(index));
            file.told = header.map_or(plan.last, |header| header.durable);
        }
        let stale = files.iter().enumerate().filter(|&(index, _)| {
            !kept(index) && scanned[index].header.is_some_and(|header| header.sequence != 0)
        });
        let marked = join_all(stale.map(|(_, file)| files::write_header(io, identity, file, 0, 0))).await;
        marked.into_iter().collect::<Result<()>>()?;

        let mut log = Log::new(io, options, identity, &plan);
        log.take_files(files, &scanned, &plan).await?;
        Ok(log)
    }

    /// Step 6, and sorting the files into full, free and useless ones.
    async fn take_files(&mut self, files: Vec<LogFile>, scanned: &[Scanned], plan: &Plan) -> Result<()> {
        let io = self.io.clone();
        let mut kept: Vec<Option<LogFile>> = Vec::new();
        let mut free = Vec::new();
        let mut useless = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            let resumed = plan.resume.is_some_and(|(resumed, _)| resumed == index);
            if resumed || plan.keep.iter().any(|&(kept, _)| kept == index) {
                kept.push(Some(file));
                continue;
            }
            kept.push(None);
            // Without a header it may not have been filled to its end.
            if scanned[index].header.is_some() && file.bytes == self.options.file_bytes {
                free.push(file);
            } else {
                useless.push(file);
            }
        }
        if let Some((index, offset)) = plan.resume
            && let (Some(file), Some(header)) = (kept[index].take(), scanned[index].header)
        {
            files::write_header(&io, self.identity, &file, header.sequence, 0).await?;
            self.active = Some(Active { file, sequence: header.sequence, offset });
        }
        for &(index, last) in &plan.keep {
            if let Some(file) = kept[index].take() {
                self.full.push_back(Full { file, last });
            }
        }
        // Of files that are not in use, no more stay than the options allow.
        let in_use = self.full.len() + usize::from(self.active.is_some());
        while free.len() + in_use > self.options.files_max.max(in_use + 1) {
            useless.extend(free.pop());
        }
        let removed = !useless.is_empty();
        for file in useless {
            let name = slot_name(file.slot);
            let closed = io.run(Op::Close { file: file.file }).await;
            closed.map_err(|error| Error::io("close", &name, error))?;
            files::remove(&io, &name).await?;
        }
        if removed {
            let synced = io.run(Op::SyncFolder).await;
            synced.map_err(|error| Error::io("sync the folder of", slot_name(0), error))?;
        }
        self.free = free.into();
        if self.active.is_none() {
            // Even if all files are full: a shard that cannot log cannot do what lets files go.
            let source =
                self.free.pop_front().map_or_else(|| Source::Create(self.slot_next()), Source::Recycle);
            let sequence = self.sequence_take();
            let bytes = self.options.file_bytes;
            let ready = files::prepare(io, self.identity, source, bytes, sequence, self.durable).await;
            self.take_prepared(ready, sequence);
            self.switch();
        }
        Ok(())
    }
}
