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
use super::format::{FileHeader, GroupHead, Identity, VERSION};
use super::forward::{Forward, Spent};
use super::guess::{Guess, Promise, Replay, reading_order, replay_group};
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

/// Files whose first pages are read at once.
const FILES_AT_ONCE: usize = 16;

const PAGE: u64 = PAGE_BYTES as u64;

/// Reads some pages of a file, within its length.
async fn read(io: &Io, file: &LogFile, offset: u64, bytes: u64) -> Result<IoBuf> {
    let read = io.read(file.file, offset, bytes as usize).await;
    read.map_err(|error| Error::io("read", slot_name(file.slot), error))
}

/// What a file promises at its start. That it keeps it is to be seen.
async fn promise(io: &Io, identity: Identity, file: &LogFile) -> Result<Option<Promise>> {
    if file.bytes < 2 * PAGE {
        return Ok(None);
    }
    let pages = read(io, file, 0, 2 * PAGE).await?;
    let (header, group) = pages.split_at(PAGE_BYTES);
    let header = FileHeader::decode(header).filter(|header| header.sequence != 0);
    let head = GroupHead::peek(group, identity.seed());
    Ok(header.zip(head).map(|(header, head)| Promise { sequence: header.sequence, first: head.first }))
}

/// Reads a file's header and finds every intact group in it. Each group of a file in use is told of, too.
async fn scan(
    io: &Io,
    identity: Identity,
    file: &LogFile,
    spent: &Spent,
    mut found: impl FnMut(u64, &GroupAt, &[u8]),
) -> Result<Scanned> {
    let name = slot_name(file.slot);
    let seed = identity.seed();
    let mut pages = Forward::new(io, file, 0..whole_pages(file), spent);
    let mut header = None;
    if file.bytes >= PAGE {
        header = FileHeader::decode(pages.at(0, PAGE).await?);
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
    let mut found = |group: &GroupAt, bytes: &[u8]| {
        if let Some(header) = header.filter(|header| header.sequence != 0) {
            found(header.sequence, group, bytes);
        }
    };
    let mut groups = Vec::new();
    let mut offset = PAGE;
    while offset + PAGE <= file.bytes {
        let mut group = None;
        if let Some(head) = head_at(file, offset, pages.at(offset, PAGE).await?, seed) {
            let bytes = pages.at(offset, head.padded_bytes()).await?;
            group = GroupAt::decode(offset, bytes, seed);
            group.iter().for_each(|group| found(group, bytes));
        }
        if group.is_none() && pages.at(offset, PAGE).await? != PAGE_BLANK {
            // What ends the log is cut off. So that one bit read wrongly, once, is not taken for that: read again.
            if let Some(head) = head_at(file, offset, &read(io, file, offset, PAGE).await?, seed) {
                let bytes = read(io, file, offset, head.padded_bytes()).await?;
                group = GroupAt::decode(offset, &bytes, seed);
                group.iter().for_each(|group| found(group, &bytes));
            }
        }
        offset += group.map_or(PAGE, |group| group.head.padded_bytes());
        groups.extend(group);
    }
    Ok(Scanned { name, header, groups })
}

/// The head that a page begins with, if the file is long enough for its group.
fn head_at(file: &LogFile, offset: u64, page: &[u8], seed: u64) -> Option<GroupHead> {
    let most = whole_pages(file) - offset;
    GroupHead::peek(page, seed).filter(|head| head.padded_bytes() <= most)
}

/// The length of a file, less what is behind its last whole page.
fn whole_pages(file: &LogFile) -> u64 {
    file.bytes / PAGE * PAGE
}

/// Hands the planned records above `floor` to `replay`.
async fn replay_plan(
    io: &Io,
    seed: u64,
    files: &[LogFile],
    scanned: &[Scanned],
    plan: &Plan,
    floor: Commit,
    replay: &mut dyn Replay,
) -> Result<()> {
    let spent = Spent::default();
    let mut expected: Option<Commit> = None;
    for portion in &plan.replay {
        let Scanned { name, groups, .. } = &scanned[portion.file];
        let groups = &groups[portion.groups.clone()];
        let below = groups.partition_point(|group| group.head.next().0 <= floor.0.saturating_add(1));
        let groups = &groups[below..];
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { continue };
        let mut pages = Forward::new(io, &files[portion.file], first.offset..last.end(), &spent);
        for group in groups {
            debug_assert!(expected.is_none_or(|expected| group.head.first == expected));
            expected = Some(group.head.next());
            let bytes = pages.at(group.offset, group.head.padded_bytes()).await?;
            if GroupHead::decode(bytes, seed) != Some((group.head, group.checksum)) {
                let why = "a group that read differently a moment ago";
                return Err(Error::damaged(name, group.offset, why));
            }
            replay_group(name, group, bytes, floor, replay)?;
        }
    }
    Ok(())
}

impl Log {
    /// Opens the log in the disk's folder, or begins it. Each record of a commit above `floor` goes to `replay`,
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
        replay: &mut dyn Replay,
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
        let promises = stream::iter(&files).map(|file| promise(io, identity, file));
        let promises: Vec<_> = promises.buffered(FILES_AT_ONCE).try_collect().await?;
        let order = reading_order(&promises, floor);
        let spent = Spent::default();
        let mut guess = Guess::new(replay, floor);
        let mut scanned: Vec<Option<Scanned>> = vec![None; files.len()];
        for index in order {
            let found = |sequence, group: &GroupAt, bytes: &[u8]| guess.offer(index, sequence, group, bytes);
            scanned[index] = Some(scan(io, identity, &files[index], &spent, found).await?);
        }
        let scanned: Vec<Scanned> = scanned.into_iter().flatten().collect();

        let plan = plan(&scanned, floor)?;
        if plan.last.max(floor) < reach {
            let why =
                format!("it ends at commit {}, but commits up to {reach} were durable", plan.last.max(floor));
            return Err(Error::damaged("log", 0, why));
        }
        if !guess.is(&plan.replay) {
            replay.restart();
            replay_plan(io, identity.seed(), &files, &scanned, &plan, floor, replay).await?;
        }

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
