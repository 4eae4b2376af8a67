//! The log of one shard: each commit's record, durable in the order of the commits.
//!
//! 1. [`Log::stage`] copies a commit's record into the open group, a buffer of whole pages.
//! 2. [`Log::start_writes`] closes the group, fills in its header and starts one direct, durable write of it at
//!    the end of the active file; up to `depth` such writes are in flight, at consecutive offsets. What is
//!    staged meanwhile makes the next group: the device's pace sets the size of groups.
//! 3. [`Log::poll`] collects what has completed, in whatever order, and answers the contiguous durable prefix.
//! 4. A full file stays until [`Log::release`] says that its commits are durable elsewhere; then it is used
//!    again. A spare is made ready in the background, so that going on in the next file costs nothing.
//!
//! Promises:
//!
//! * A group is never rewritten, and its bytes never continue behind a cut: after recovery the writer goes on in
//!   a new file (or, after a clean close, behind the seal).
//! * Each group carries the checksum of the one before, and the sequence number of its file, so neither a
//!   recycled file's old groups nor groups behind a hole pass for the log ([`plan`] has the rules).
//! * Memory and disk are bounded: [`Log::room_for`] says when to hold back. Whatever was staged has its place in
//!   files that exist and are written: a full disk never fails a group.
//! * A failed write fails the log for good: [`Log::poll`] answers its error from then on.

mod files;
pub(crate) mod format;
mod forward;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod guess;
mod plan;
mod recover;
#[cfg(any(fuzzing, test))]
#[cfg_attr(fuzzing, allow(dead_code))]
pub(crate) mod testdisk;
#[cfg(test)]
#[allow(clippy::expect_used)] // a test that cannot go on says why
mod tests;

pub(crate) use format::Identity;
pub(crate) use guess::Replay;

use crate::codec::varint_len;
use crate::disk::io::{Io, Ticket};
use crate::disk::{IoBuf, Op};
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::limits::PAGE_BYTES;
use files::{LogFile, Prepared, Source, slot_name};
use format::{FileHeader, GROUP_HEADER_BYTES, GroupHead};
use plan::Plan;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The most bytes of a log file: a record's length, and so a group's, is stored in 32 bits.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The fewest pages of a log file: its header and a few groups.
const FILE_PAGES_MIN: u64 = 4;
/// The most files: slots are numbered, and each is read when the log is opened.
const FILES_MAX: usize = 1024;
/// The most group writes in flight: beyond this, devices only add latency.
const DEPTH_MAX: usize = 64;
/// By how much a group's buffer grows at a time: new pages are zeroed, so not all at once.
const GROW_BYTES: usize = 16 * 1024;

/// How a shard's log is laid out. [`LogOptions::check`] says what is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogOptions {
    /// The length of each file, in bytes: a multiple of the page. It may differ from one opening to the next.
    pub(crate) file_bytes: u64,
    /// The most files; at least two.
    pub(crate) files_max: usize,
    /// The most group writes in flight.
    pub(crate) depth: usize,
    /// A group is closed rather than grown beyond this; only a single record may make a larger one.
    pub(crate) group_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { file_bytes: 32 << 20, files_max: 8, depth: 4, group_bytes_max: 256 << 10 }
    }
}

impl LogOptions {
    /// The longest record that fits in a file.
    pub(crate) fn record_bytes_max(&self) -> usize {
        let group = usize::try_from(self.file_bytes).unwrap_or(0).saturating_sub(PAGE_BYTES);
        group.saturating_sub(GROUP_HEADER_BYTES + varint_len(FILE_BYTES_MAX))
    }

    fn check(&self) -> Result<()> {
        let wrong = |option, why: String| Err(Error::Options { option, why });
        let bytes_min = FILE_PAGES_MIN * PAGE_BYTES as u64;
        if !self.file_bytes.is_multiple_of(PAGE_BYTES as u64)
            || !(bytes_min..=FILE_BYTES_MAX).contains(&self.file_bytes)
        {
            let why = format!(
                "{} is no multiple of {PAGE_BYTES} from {bytes_min} to {FILE_BYTES_MAX}",
                self.file_bytes
            );
            return wrong("log file_bytes", why);
        }
        if !(2..=FILES_MAX).contains(&self.files_max) {
            return wrong("log files_max", format!("{} is not within 2 to {FILES_MAX}", self.files_max));
        }
        if !(1..=DEPTH_MAX).contains(&self.depth) {
            return wrong("log depth", format!("{} is not within 1 to {DEPTH_MAX}", self.depth));
        }
        let group_max = self.file_bytes as usize - PAGE_BYTES;
        if !(PAGE_BYTES..=group_max).contains(&self.group_bytes_max) {
            let why = format!("{} is not within {PAGE_BYTES} to {group_max}", self.group_bytes_max);
            return wrong("log group_bytes_max", why);
        }
        Ok(())
    }
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct LogStats {
    /// Groups started, seals not counted.
    pub(crate) groups: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Bytes of records, lengths included.
    pub(crate) payload_bytes: u64,
    /// Bytes written: headers, records and padding.
    pub(crate) padded_bytes: u64,
}

/// How much of its files the log uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogUsage {
    /// Files that exist.
    pub(crate) files: usize,
    /// Bytes in files that are not released, the rest of full files included.
    pub(crate) bytes_used: u64,
    /// Bytes in all files that there may be.
    pub(crate) bytes_cap: u64,
}

/// The file that groups are written to.
#[derive(Debug)]
struct Active {
    file: LogFile,
    sequence: u64,
    /// Where the next group goes.
    offset: u64,
}

impl Active {
    fn room(&self) -> u64 {
        self.file.bytes - self.offset
    }
}

/// A file that is written to its end and not yet released.
#[derive(Debug)]
struct Full {
    file: LogFile,
    last: Commit,
}

/// A group that has not been handed to the disk.
struct Staged {
    buf: IoBuf,
    /// Header and records so far, in bytes.
    used: usize,
    first: Commit,
    count: u32,
}

impl Staged {
    fn padded(&self) -> u64 {
        (self.used as u64).next_multiple_of(PAGE_BYTES as u64)
    }
}

/// A group write in flight.
struct Flight {
    ticket: Ticket,
    slot: u32,
    last: Commit,
    done: bool,
}

type Preparing = Pin<Box<dyn Future<Output = Prepared>>>;

/// The newest commit of which the header or any intact group in a log file's bytes says that it was durable.
pub(crate) fn durable_told(identity: Identity, file: &[u8]) -> Commit {
    let seed = identity.seed();
    let groups = (0..file.len()).step_by(PAGE_BYTES).filter_map(|at| {
        let bytes = GroupHead::peek(&file[at..], seed)?.padded_bytes();
        GroupHead::decode(file.get(at..at + usize::try_from(bytes).ok()?)?, seed)
    });
    let header = FileHeader::decode(file).filter(|header| header.identity == identity);
    groups
        .map(|(head, _)| head.durable)
        .chain(header.map(|header| header.durable))
        .max()
        .unwrap_or(Commit::ZERO)
}

/// The log of one shard. See the module.
pub(crate) struct Log {
    // Fixed at opening.
    io: Io,
    options: LogOptions,
    identity: Identity,
    seed: u64,

    // The chain.
    last: Commit,
    started: Commit,
    durable: Commit,
    chain: u64,
    /// What the last group started says is durable.
    claimed: Commit,

    // Files: each is in exactly one of these (or held by `preparing`).
    active: Option<Active>,
    spare: Option<(LogFile, u64)>,
    full: VecDeque<Full>,
    free: VecDeque<LogFile>,
    preparing: Option<(Preparing, u32, u64)>,
    sequence_next: u64,
    shortage: Option<Error>,

    // Groups on their way.
    staged: VecDeque<Staged>,
    staged_records: usize,
    staged_bytes: usize,
    /// Padded bytes of all staged groups but the open one.
    closed_bytes: u64,
    flights: VecDeque<Flight>,
    pool: Vec<IoBuf>,
    failure: Option<Error>,
    stats: LogStats,
}

impl Log {
    fn new(io: &Io, options: LogOptions, identity: Identity, plan: &Plan) -> Log {
        Log {
            io: io.clone(),
            options,
            identity,
            seed: identity.seed(),
            last: plan.last,
            started: plan.last,
            durable: plan.last,
            chain: plan.chain,
            claimed: plan.claimed,
            active: None,
            spare: None,
            full: VecDeque::new(),
            free: VecDeque::new(),
            preparing: None,
            sequence_next: plan.sequence_next,
            shortage: None,
            staged: VecDeque::new(),
            staged_records: 0,
            staged_bytes: 0,
            closed_bytes: 0,
            flights: VecDeque::new(),
            pool: Vec::new(),
            failure: None,
            stats: LogStats::default(),
        }
    }

    /// The last commit that was staged or replayed; the floor, where there was nothing to replay.
    #[cfg(test)]
    pub(crate) fn last(&self) -> Commit {
        self.last
    }

    /// The length of a file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.options.file_bytes
    }

    /// The last commit that was handed to the disk.
    pub(crate) fn started(&self) -> Commit {
        self.started
    }

    /// All commits up to this one are durable.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> Commit {
        self.durable
    }

    /// The longest record that can be staged, in bytes.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.options.record_bytes_max()
    }

    /// Records staged and not handed to the disk, and their bytes.
    pub(crate) fn staged(&self) -> (usize, usize) {
        (self.staged_records, self.staged_bytes)
    }

    /// Group writes in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Counters since opening.
    pub(crate) fn stats(&self) -> LogStats {
        self.stats
    }

    /// Why no further file could be made ready, if that is so. Commits go on while [`Log::room_for`] says so.
    /// [`Log::retry`] tries again, and so does a release that lets a file go.
    pub(crate) fn shortage(&self) -> Option<&Error> {
        self.shortage.as_ref()
    }

    /// Tries again to make a file ready, in the turns to come.
    pub(crate) fn retry(&mut self) {
        self.shortage = None;
    }

    /// How much of its files the log uses.
    pub(crate) fn usage(&self) -> LogUsage {
        let full: u64 = self.full.iter().map(|full| full.file.bytes).sum();
        let active = self.active.as_ref().map_or(0, |active| active.offset);
        LogUsage {
            files: self.files(),
            bytes_used: full + active,
            bytes_cap: self.options.file_bytes * self.options.files_max as u64,
        }
    }

    fn files(&self) -> usize {
        self.full.len()
            + self.free.len()
            + usize::from(self.active.is_some())
            + usize::from(self.spare.is_some())
            + usize::from(self.preparing.is_some())
    }

    /// Whether a record of `bytes` bytes can be staged now: it has its place in a file that is ready, and the
    /// records that wait in memory stay below `depth` groups (or are this one alone). If not: let writes
    /// complete, release files, or look at [`Log::shortage`]. Never true above [`Log::record_bytes_max`].
    #[inline]
    pub(crate) fn room_for(&self, bytes: usize) -> bool {
        if bytes > self.options.record_bytes_max() || self.failure.is_some() {
            return false;
        }
        let need = varint_len(bytes as u64) + bytes;
        let page = PAGE_BYTES as u64;
        let total = match self.staged.back() {
            Some(open) if open.used + need <= self.options.group_bytes_max => {
                self.closed_bytes + ((open.used + need) as u64).next_multiple_of(page)
            }
            back => {
                let new = ((GROUP_HEADER_BYTES + need) as u64).next_multiple_of(page);
                self.closed_bytes + back.map_or(0, Staged::padded) + new
            }
        };
        let staged_max = self.options.depth * self.options.group_bytes_max;
        if !self.staged.is_empty() && total > staged_max as u64 {
            return false;
        }
        // All in the active file; or, at worst, all in the spare.
        self.active.as_ref().is_some_and(|active| total <= active.room())
            || self.spare.as_ref().is_some_and(|(file, _)| total <= file.bytes - page)
    }

    /// Appends a commit's record to the open group. The commit is the one after [`Log::last`], and
    /// [`Log::room_for`] was true.
    #[inline]
    pub(crate) fn stage(&mut self, commit: Commit, record: &[u8]) {
        self.stage_with(commit, record.len(), |place| place.copy_from_slice(record));
    }

    /// [`Log::stage`] for a record of `bytes` bytes that `fill` writes in its place.
    #[inline]
    pub(crate) fn stage_with(&mut self, commit: Commit, bytes: usize, fill: impl FnOnce(&mut [u8])) {
        debug_assert!(commit.0 == self.last.0 + 1, "commits are gapless");
        debug_assert!(self.room_for(bytes), "a record without room");
        let need = varint_len(bytes as u64) + bytes;
        if self.staged.back().is_none_or(|open| open.used + need > self.options.group_bytes_max) {
            self.open_group(commit);
        }
        let Some(open) = self.staged.back_mut() else { return };
        let end = open.used + need;
        if open.buf.len() < end {
            open.buf.resize(end.next_multiple_of(GROW_BYTES));
        }
        let place = &mut open.buf[open.used..end];
        let prefix = format::write_varint(place, bytes as u64);
        fill(&mut place[prefix..]);
        open.used = end;
        open.count += 1;
        self.last = commit;
        self.staged_records += 1;
        self.staged_bytes += need;
    }

    #[cold]
    fn open_group(&mut self, first: Commit) {
        self.closed_bytes += self.staged.back().map_or(0, Staged::padded);
        let buf = self.pool.pop().unwrap_or_else(|| {
            // Allocated whole, so that growing within it never copies.
            let mut buf = IoBuf::zeroed(self.options.group_bytes_max.next_multiple_of(GROW_BYTES));
            buf.truncate(0);
            buf
        });
        debug_assert!(buf.is_empty(), "what a group does not write must be zero");
        self.staged.push_back(Staged { buf, used: GROUP_HEADER_BYTES, first, count: 0 });
    }

    /// Hands staged groups to the disk while depth and files allow it (the open one too, which closes it).
    /// Answers how many. They reach the kernel with the next [`Io::pump`].
    pub(crate) fn start_writes(&mut self) -> usize {
        let mut started = 0;
        while self.flights.len() < self.options.depth && self.failure.is_none() {
            let Some(bytes) = self.staged.front().map(Staged::padded) else { break };
            if !self.make_place(bytes) {
                break;
            }
            let Some(group) = self.staged.pop_front() else { break };
            if !self.staged.is_empty() {
                self.closed_bytes -= bytes;
            }
            let payload = group.used - GROUP_HEADER_BYTES;
            self.staged_records -= group.count as usize;
            self.staged_bytes -= payload;
            self.stats.groups += 1;
            self.stats.records += u64::from(group.count);
            self.stats.payload_bytes += payload as u64;
            self.start_group(group);
            started += 1;
        }
        debug_assert!(!self.staged.is_empty() || self.closed_bytes == 0);
        started
    }

    /// Makes sure that the active file has room for a group, by going on in the spare if need be.
    fn make_place(&mut self, bytes: u64) -> bool {
        let fits = |log: &Log| log.active.as_ref().is_some_and(|active| bytes <= active.room());
        if !fits(self) {
            self.switch();
        }
        fits(self)
    }

    /// Goes on in the spare, if there is one.
    fn switch(&mut self) {
        let Some((file, sequence)) = self.spare.take() else { return };
        debug_assert!(self.active.as_ref().is_none_or(|active| active.sequence < sequence));
        if let Some(active) = self.active.take() {
            self.full.push_back(Full { file: active.file, last: self.started });
        }
        self.active = Some(Active { file, sequence, offset: PAGE_BYTES as u64 });
    }

    /// Writes a group at the end of the active file, which has room for it.
    fn start_group(&mut self, group: Staged) {
        let Staged { mut buf, used, first, count } = group;
        let Some(active) = &mut self.active else { return };
        buf.resize(used);
        let head = GroupHead {
            sequence: active.sequence,
            prev: self.chain,
            first,
            count,
            durable: self.durable,
            payload_bytes: (used - GROUP_HEADER_BYTES) as u32,
        };
        debug_assert!(first.0 == self.started.0 + 1 && buf.len() as u64 <= active.room());
        self.chain = head.encode(&mut buf, self.seed);
        self.claimed = self.durable;
        self.started = Commit(self.started.0 + u64::from(count));
        self.stats.padded_bytes += buf.len() as u64;
        let offset = active.offset;
        active.offset += buf.len() as u64;
        let ticket = self.io.start(Op::Write { file: active.file.file, offset, buf });
        self.flights.push_back(Flight { ticket, slot: active.file.slot, last: self.started, done: false });
    }

    /// Collects finished writes and goes on making a spare ready. Answers the last durable commit if that has
    /// moved. An error is that of the first write that failed: nothing after [`Log::durable`] can become
    /// durable any more, and the shard is to be poisoned.
    pub(crate) fn poll(&mut self) -> Result<Option<Commit>> {
        self.poll_with(&mut Context::from_waker(Waker::noop()))
    }

    fn poll_with(&mut self, cx: &mut Context<'_>) -> Result<Option<Commit>> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        for flight in self.flights.iter_mut().filter(|flight| !flight.done) {
            let Poll::Ready(completion) = Pin::new(&mut flight.ticket).poll(cx) else { continue };
            flight.done = completion.result.is_ok();
            if let Err(error) = completion.result {
                self.failure = Some(Error::io("write", slot_name(flight.slot), error));
                break;
            }
            if let Some(mut buf) = completion.buf
                && self.pool.len() <= self.options.depth
                && buf.capacity() <= self.options.group_bytes_max.next_multiple_of(GROW_BYTES)
            {
                buf.truncate(0);
                self.pool.push(buf);
            }
        }
        let before = self.durable;
        while let Some(flight) = self.flights.front().filter(|flight| flight.done) {
            debug_assert!(flight.last >= self.durable);
            self.durable = flight.last;
            self.flights.pop_front();
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.poll_preparing(cx);
        Ok((self.durable > before).then_some(self.durable))
    }

    /// Makes a spare ready if there is none, step by step.
    fn poll_preparing(&mut self, cx: &mut Context<'_>) {
        if self.preparing.is_none() && self.spare.is_none() && self.shortage.is_none() {
            let source = match self.free.pop_front() {
                Some(file) => Source::Recycle(file),
                None if self.files() < self.options.files_max => Source::Create(self.slot_next()),
                None => return,
            };
            let slot = match &source {
                Source::Recycle(file) => file.slot,
                Source::Create(slot) => *slot,
            };
            let sequence = self.sequence_take();
            let bytes = self.options.file_bytes;
            let ready = files::prepare(self.io.clone(), self.identity, source, bytes, sequence, self.durable);
            self.preparing = Some((Box::pin(ready), slot, sequence));
        }
        let Some((preparing, _, sequence)) = &mut self.preparing else { return };
        let sequence = *sequence;
        if let Poll::Ready(prepared) = preparing.as_mut().poll(cx) {
            self.preparing = None;
            self.take_prepared(prepared, sequence);
        }
    }

    fn take_prepared(&mut self, prepared: Prepared, sequence: u64) {
        debug_assert!(self.spare.is_none());
        match prepared {
            Ok(file) => self.spare = Some((file, sequence)),
            Err((error, source)) => {
                self.shortage = Some(error);
                if let Source::Recycle(file) = source {
                    self.free.push_back(file);
                }
            }
        }
    }

    fn sequence_take(&mut self) -> u64 {
        self.sequence_next += 1;
        self.sequence_next - 1
    }

    /// The lowest slot without a file.
    fn slot_next(&self) -> u32 {
        let taken = |slot: u32| {
            self.full.iter().any(|full| full.file.slot == slot)
                || self.free.iter().any(|file| file.slot == slot)
                || self.active.as_ref().is_some_and(|active| active.file.slot == slot)
                || self.spare.as_ref().is_some_and(|(file, _)| file.slot == slot)
                || self.preparing.as_ref().is_some_and(|(_, preparing, _)| *preparing == slot)
        };
        (0..).find(|&slot| !taken(slot)).unwrap_or(u32::MAX)
    }

    /// Commits up to `floor` are durable elsewhere: files that hold no others may be used again.
    pub(crate) fn release(&mut self, floor: Commit) {
        // A write in flight to a released file could hit the next use of its bytes: wait until it is done.
        let floor = floor.min(self.durable);
        while self.full.front().is_some_and(|full| full.last <= floor) {
            self.shortage = None;
            // Even where there are more than there may be: the next opening removes what it does not need.
            self.free.extend(self.full.pop_front().map(|full| full.file));
        }
    }

    /// Closes the log cleanly: writes what is staged, waits until all is durable, and leaves a seal, which says
    /// so, and a mark by which the next opening goes on in the same file. Somebody else pumps the [`Io`].
    ///
    /// Errors: a failed write, as [`Log::poll`]; [`Error::NoSpace`] (or the shortage) if staged records have no
    /// place. The log must not be staged to afterwards.
    pub(crate) async fn seal(&mut self) -> Result<()> {
        self.drain().await?;
        debug_assert!(self.durable == self.last && self.staged.is_empty());
        if self.claimed < self.last && self.make_place(PAGE_BYTES as u64) {
            let first = Commit(self.last.0 + 1);
            let buf = IoBuf::zeroed(PAGE_BYTES);
            self.start_group(Staged { buf, used: GROUP_HEADER_BYTES, first, count: 0 });
            self.drain().await?;
        }
        if let Some(active) = &self.active
            && self.claimed == self.last
            && active.offset > PAGE_BYTES as u64
        {
            files::write_header(&self.io, self.identity, &active.file, active.sequence, active.offset)
                .await?;
        }
        Ok(())
    }

    /// Starts and awaits writes until nothing is staged or in flight.
    async fn drain(&mut self) -> Result<()> {
        poll_fn(|cx| {
            loop {
                let started = self.start_writes();
                let in_flight = self.flights.len();
                self.poll_with(cx)?;
                if started > 0 || self.flights.len() < in_flight {
                    continue;
                }
                if self.staged.is_empty() && self.flights.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if !self.flights.is_empty() || self.preparing.is_some() {
                    return Poll::Pending;
                }
                if self.spare.is_none() {
                    let file = slot_name(self.slot_next());
                    return Poll::Ready(Err(self.shortage.clone().unwrap_or(Error::NoSpace { file })));
                }
            }
        })
        .await
    }
}
