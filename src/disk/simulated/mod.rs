//! A disk in memory that does everything a real one may do, and nothing that its seed does not say.
//! For tests and simulators: of whole shards, of crashes, of failing and full disks.
//!
//! A [`SimulatedFolder`] holds the files and outlives the [`Simulated`] disks opened on it, as the platter
//! outlives the process. A run goes like this:
//!
//! 1. An operation is in flight from [`Disk::submit`] on. Each [`Disk::collect`] lets a random subset of what
//!    is in flight complete, in random order. It takes its effect when it completes, not before; so two
//!    writes in flight on the same bytes may land in either order.
//! 2. A completed write can be read. It is durable once a sync that was submitted after it completes, or at
//!    once where its file was opened `durable`. The same holds for names and [`Op::SyncFolder`]; a durable
//!    write to a file whose name is not durable can be lost with the name.
//! 3. [`SimulatedFolder::crash`] is a power failure: every change that is not durable is kept, lost or (a
//!    write) torn, each for itself; what was in flight may have arrived or not. A rename is whole. A torn write
//!    leaves any of its sectors, and one of them perhaps in part, with garbage in its rest.
//! 4. A new disk opened on the folder sees what is left.
//! 5. A plan of faults ([`SimulatedFolder::set_faults`]) is asked about each operation; [`Fault`] says what it may
//!    answer. What has really happened is counted ([`SimulatedFolder::effects`]), and the files that no longer hold
//!    what was written to them are known ([`SimulatedFolder::harmed`]).
//! 6. Where not one crash is wanted but all of them, [`SimulatedFolder::watch`] is told of every moment, with what a
//!    power failure would leave there ([`Remains`]); each choice of it is a folder of its own.
//!
//! Time is virtual: it moves when operations complete, and by [`SimulatedFolder::advance`].
//!
//! The same seed and the same calls give the same run, byte for byte.
//!
//! ```
//! use quipu::disk::simulated::SplitMix64;
//! use quipu::disk::{Disk, Op, OpenHow, Simulated, SimulatedFolder, SimulatedOptions};
//!
//! let folder = SimulatedFolder::new();
//! let mut disk = Simulated::new(&folder, SimulatedOptions { seed: 7, ..Default::default() });
//! let how = OpenHow { write: true, create_new: true, durable: true };
//! disk.start(1, Op::Open { name: "log".into(), how });
//! disk.wait();
//! assert!(folder.files().contains_key("log"));
//! assert!(!folder.durable_files().contains_key("log")); // until a SyncFolder completes
//!
//! drop(disk);
//! folder.crash(&mut SplitMix64::new(7));
//! assert_eq!(folder.files(), folder.durable_files());
//! ```

mod content;
pub mod effects;
mod fault;
mod random;
mod remains;
mod state;
mod wrong;

pub use fault::{Fault, FaultSite, OpKind};
pub use random::SplitMix64;
pub use remains::{Fate, Moment, Remains};

use super::folder::{check_name, check_offset, not_open};
use super::progress::Progress;
use super::{Completion, Disk, DiskStats, FileId, IoBuf, Op, OpenHow, Outcome};
use rustix::io::Errno;
use slab::Slab;
use state::{ContentId, Effect, Flight, State, Work};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Result;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The sector of the simulated device. A torn write leaves each of its sectors whole or not at all, but for one: real
/// devices promise no more, and some not that.
pub const SECTOR_BYTES: usize = 512;

/// The longest simulated file, in bytes. It lies in memory, so a mistaken offset must not get far.
pub const FILE_BYTES_MAX: u64 = 1 << 36;

/// A virtual clock. Clones are the same clock, so that several folders (shards) can share one.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock {
    nanos: Rc<Cell<u64>>,
}

impl SimulatedClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.nanos.get()
    }

    /// Moves it on.
    pub fn advance(&self, nanos: u64) {
        self.nanos.set(self.nanos.get().saturating_add(nanos));
    }
}

/// How a simulated disk behaves.
#[derive(Clone, Debug)]
pub struct SimulatedOptions {
    /// Decides every choice of the disk.
    pub seed: u64,
    /// Everything in flight completes with the next `collect`, in the order of submission.
    pub in_order: bool,
    /// How likely it is for each operation in flight to complete with a `collect`, in percent. At 0 only
    /// `wait` lets anything complete.
    pub complete_percent: u8,
    /// The range within which the clock moves for each operation that completes, in nanoseconds.
    pub operation_nanos: RangeInclusive<u64>,
    /// How many operations can be in flight; others wait for a place.
    pub queue_entries: usize,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        SimulatedOptions {
            seed: 0,
            in_order: false,
            complete_percent: 50,
            operation_nanos: 10_000..=200_000,
            queue_entries: usize::MAX,
        }
    }
}

/// A folder in memory that outlives the disks opened on it. Clones are the same folder.
#[derive(Clone, Default)]
pub struct SimulatedFolder {
    state: Rc<RefCell<State>>,
}

impl SimulatedFolder {
    /// An empty folder with a clock of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty folder with a shared clock.
    pub fn with_clock(clock: SimulatedClock) -> Self {
        let folder = Self::new();
        folder.state.borrow_mut().clock = clock;
        folder
    }

    /// The power fails. Each change that is not durable is kept, lost or torn, each for itself; of changes of
    /// names, sometimes the first few are kept in order instead. Operations in flight may have any part of
    /// their effects, durable writes too, since nobody was told that they completed.
    ///
    /// A disk that is still open is dead from now on: all its operations fail with EIO.
    pub fn crash(&self, random: &mut SplitMix64) {
        self.state.borrow_mut().crash(random);
    }

    /// The files that reads see now, without what is still in flight.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.borrow().files()
    }

    /// The names of the files that reads see now, sorted.
    pub fn names(&self) -> Vec<String> {
        self.state.borrow().names()
    }

    /// The files as they are after the worst crash (nothing that is not durable is kept).
    pub fn durable_files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.borrow().durable_files()
    }

    /// Moves the clock on.
    pub fn advance(&self, nanos: u64) {
        self.state.borrow().clock.advance(nanos);
    }

    /// The folder's clock.
    pub fn clock(&self) -> SimulatedClock {
        self.state.borrow().clock.clone()
    }

    /// Flips the bits `xor` of one byte of a file, as a rotting disk does. False where there is no such byte.
    pub fn corrupt(&self, name: &str, offset: u64, xor: u8) -> bool {
        let flip = |content: &mut content::Content| content.corrupt(offset as usize, xor);
        self.state.borrow_mut().with_content(name, flip).unwrap_or(false)
    }

    /// Cuts a file to a length (or grows it with zeros), durably with all its earlier changes. False where
    /// there is no such file.
    pub fn truncate(&self, name: &str, bytes: u64) -> bool {
        let cut = |content: &mut content::Content| {
            content.cut(bytes as usize);
            content.sync(content.mark());
        };
        self.state.borrow_mut().with_content(name, cut).is_some()
    }

    /// Removes a file, durably with all earlier changes of names. False where there is no such file.
    pub fn remove(&self, name: &str) -> bool {
        self.state.borrow_mut().remove(name)
    }

    /// How many bytes all files together may have; more is refused as `StorageFull`. Writes within a file's
    /// length always have room. `None`, as at first, is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.borrow_mut().capacity = bytes;
    }

    /// What has happened, by the names in [`effects`].
    pub fn effects(&self) -> BTreeMap<&'static str, u64> {
        self.state.borrow().effects.counts().clone()
    }

    /// The names of the files that were harmed: they no longer hold, or once did not read back, what was written to
    /// them, and nobody was told.
    pub fn harmed(&self) -> BTreeSet<String> {
        self.state.borrow().effects.harmed().clone()
    }

    /// When the first operation in flight may complete; `None` where there is none.
    pub fn earliest(&self) -> Option<u64> {
        self.state.borrow().earliest_of(None)
    }

    /// Has a plan asked about each operation when it is submitted; it answers what goes wrong with it, if
    /// anything does. It must not call back into the folder. Replaces the plan before.
    ///
    /// ```
    /// # use quipu::disk::simulated::{Fault, FaultSite, OpKind, SimulatedFolder};
    /// # let folder = SimulatedFolder::new();
    /// const EIO: i32 = 5;
    /// // The third write fails.
    /// let mut writes = 0;
    /// folder.set_faults(move |site: &FaultSite| {
    ///     writes += u32::from(site.kind == OpKind::Write);
    ///     (site.kind == OpKind::Write && writes == 3).then_some(Fault::Fail(EIO))
    /// });
    /// ```
    pub fn set_faults(&self, plan: impl FnMut(&FaultSite) -> Option<Fault> + 'static) {
        self.state.borrow_mut().faults = Some(Box::new(plan));
    }

    /// Has somebody told of each moment at which the disk changes, just before it does, with what a power failure
    /// would leave there. It must not call back into the folder. Replaces whoever was told before.
    pub fn watch(&self, watcher: impl FnMut(Moment, Remains) + 'static) {
        self.state.borrow_mut().watcher = Some(Box::new(watcher));
    }

    /// Nobody is told any more.
    pub fn unwatch(&self) {
        self.state.borrow_mut().watcher = None;
    }

    /// What a power failure would leave now.
    pub fn remains(&self) -> Remains {
        self.state.borrow().remains()
    }

    /// A hash of the names that reads see now and of what is in the files.
    pub fn digest(&self) -> u128 {
        self.state.borrow().digest()
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.state.borrow_mut().faults = None;
    }
}

/// An open file of a simulated disk.
struct Handle {
    content: ContentId,
    how: OpenHow,
    closing: bool,
}

/// A disk on a [`SimulatedFolder`]. See the module.
///
/// It has no event descriptor: where nothing is left to do, [`Disk::wait`] lets something complete.
/// A dropped disk leaves its operations in flight: they take their effect when the next disk is opened, or
/// are subject to a crash before that.
pub struct Simulated {
    folder: SimulatedFolder,
    number: u64,
    /// The crashes that the folder had seen when the disk was opened.
    crashes: u64,
    options: SimulatedOptions,
    random: SplitMix64,
    files: Slab<Handle>,
    queue: VecDeque<(u64, Op)>,
    /// Of the queue, so many from the front were submitted, and wait for a place.
    waiting: usize,
    /// Operations of this disk that are in flight.
    flying: usize,
    ready: Vec<Completion>,
    stats: DiskStats,
}

impl Simulated {
    /// Opens a disk on a folder.
    pub fn new(folder: &SimulatedFolder, options: SimulatedOptions) -> Self {
        let mut state = folder.state.borrow_mut();
        Simulated {
            number: state.new_disk(),
            crashes: state.crashes,
            folder: folder.clone(),
            random: SplitMix64::new(options.seed),
            options,
            files: Slab::new(),
            queue: VecDeque::new(),
            waiting: 0,
            flying: 0,
            ready: Vec::new(),
            stats: DiskStats::default(),
        }
    }

    /// Resolves an operation: its files and the marks of its syncs are those of now.
    fn resolve(&mut self, op: &Op, state: &State) -> Result<Work> {
        Ok(match op {
            Op::Open { name, how } => {
                check_name(name)?;
                Work::Open { name: name.clone(), how: *how }
            }
            Op::Read { file, offset, buf } => {
                check_range(*offset, buf.len())?;
                Work::Read { content: self.handle(*file)?.content, offset: *offset as usize }
            }
            Op::Write { file, offset, buf } => {
                check_range(*offset, buf.len())?;
                let handle = self.writable(*file)?;
                Work::Write { content: handle.content, offset: *offset as usize, durable: handle.how.durable }
            }
            Op::Sync { file } => {
                let content = self.handle(*file)?.content;
                Work::Sync { content, mark: state.mark(content) }
            }
            Op::Reserve { file, bytes } => {
                check_length(*bytes)?;
                Work::Reserve { content: self.writable(*file)?.content, bytes: *bytes as usize }
            }
            Op::Truncate { file, bytes } => {
                check_length(*bytes)?;
                Work::Truncate { content: self.writable(*file)?.content, bytes: *bytes as usize }
            }
            Op::Close { file } => {
                let handle = self.handle(*file)?;
                handle.closing = true;
                Work::Close { content: handle.content }
            }
            Op::Rename { from, to } => {
                check_name(from)?;
                check_name(to)?;
                Work::Rename { from: from.clone(), to: to.clone() }
            }
            Op::Remove { name } => {
                check_name(name)?;
                Work::Remove { name: name.clone() }
            }
            Op::SyncFolder => Work::SyncFolder { mark: state.names_mark() },
            Op::List => Work::List,
        })
    }

    fn handle(&mut self, file: FileId) -> Result<&mut Handle> {
        self.files.get_mut(file.0 as usize).filter(|handle| !handle.closing).ok_or_else(not_open)
    }

    fn writable(&mut self, file: FileId) -> Result<&mut Handle> {
        self.handle(file).and_then(|handle| if handle.how.write { Ok(handle) } else { Err(not_open()) })
    }

    /// Takes submitted operations in flight, as far as there are places.
    fn fill(&mut self) {
        let state = Rc::clone(&self.folder.state);
        let mut state = state.borrow_mut();
        while self.waiting > 0
            && self.flying < self.options.queue_entries
            && let Some((token, op)) = self.queue.pop_front()
        {
            self.waiting -= 1;
            let work = match state.crashes == self.crashes {
                true => self.resolve(&op, &state),
                false => Err(Errno::IO.into()),
            };
            let kind = OpKind::of(&op);
            let how = if let Op::Open { how, .. } = op { how } else { OpenHow::default() };
            let closes = match (&op, &work) {
                (Op::Close { file }, Ok(_)) => Some(file.0 as usize),
                _ => None,
            };
            let buf = into_buf(op);
            state.submit(Flight {
                disk: Some(self.number),
                token,
                kind,
                how,
                closes,
                work,
                buf,
                fault: None,
                progress: Progress::default(),
                not_before: 0,
            });
            self.flying += 1;
        }
        if self.waiting > 0 {
            state.effects.hit(effects::RING_FULL);
        }
    }

    /// Lets one operation complete, or take one more call.
    fn complete(&mut self, number: u64) {
        let landed = self.folder.state.borrow_mut().land(number, &mut self.random);
        let (least, most) = self.options.operation_nanos.clone().into_inner();
        let nanos = least + self.random.below(most.saturating_sub(least).saturating_add(1));
        self.folder.advance(nanos);
        let Some((flight, result)) = landed else { return };
        self.flying -= 1;

        let bytes = flight.buf.as_ref().map_or(0, |buf| buf.len()) as u64;
        match (flight.kind, &result) {
            (OpKind::Read, Ok(_)) => {
                self.stats.reads += 1;
                self.stats.read_bytes += bytes;
            }
            (OpKind::Write, Ok(_)) => {
                self.stats.writes += 1;
                self.stats.write_bytes += bytes;
            }
            (OpKind::Sync | OpKind::SyncFolder, Ok(_)) => self.stats.syncs += 1,
            _ => {}
        }
        let result = result.map(|effect| match effect {
            Effect::Done => Outcome::Done,
            Effect::Names(names) => Outcome::Names(names),
            Effect::Opened { content, bytes } => {
                let handle = Handle { content, how: flight.how, closing: false };
                Outcome::Opened { file: FileId(self.files.insert(handle) as u32), bytes }
            }
        });
        // Whatever a close answers, the file is closed.
        if let Some(handle) = flight.closes {
            self.files.try_remove(handle);
        }
        self.ready.push(Completion { token: flight.token, result, buf: flight.buf });
    }
}

/// Checks where a read or write is.
fn check_range(offset: u64, bytes: usize) -> Result<()> {
    check_offset(offset)?;
    check_length(offset.saturating_add(bytes as u64))
}

/// Checks a file's length.
fn check_length(bytes: u64) -> Result<()> {
    if bytes > FILE_BYTES_MAX { Err(Errno::FBIG.into()) } else { Ok(()) }
}

/// The buffer of a read or write.
fn into_buf(op: Op) -> Option<IoBuf> {
    match op {
        Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf),
        _ => None,
    }
}

impl Disk for Simulated {
    fn start(&mut self, token: u64, op: Op) {
        self.queue.push_back((token, op));
    }

    fn submit(&mut self) {
        self.waiting = self.queue.len();
        self.stats.enters += u64::from(!self.queue.is_empty());
        self.fill();
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        let mut numbers = self.folder.state.borrow().ready_of(self.number);
        if !self.options.in_order {
            self.random.shuffle(&mut numbers);
            numbers.retain(|_| self.random.chance(self.options.complete_percent));
        }
        numbers.into_iter().for_each(|number| self.complete(number));
        if self.waiting > 0 {
            self.fill();
        }
        completions.append(&mut self.ready);
    }

    fn wait(&mut self) {
        self.submit();
        while self.ready.is_empty() && self.flying > 0 {
            let (numbers, earliest) = {
                let state = self.folder.state.borrow();
                (state.ready_of(self.number), state.earliest_of(Some(self.number)))
            };
            let chosen =
                if self.options.in_order { 0 } else { self.random.below(numbers.len() as u64) as usize };
            match (numbers.get(chosen), earliest) {
                (Some(number), _) => self.complete(*number),
                (None, Some(earliest)) => self.folder.advance(earliest.saturating_sub(self.now())),
                (None, None) => break,
            }
        }
        self.fill();
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.flying + self.ready.len()
    }

    fn event_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn now(&self) -> u64 {
        self.folder.state.borrow().clock.now()
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn stats(&self) -> DiskStats {
        self.stats
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let mut state = self.folder.state.borrow_mut();
        // A crash has closed the handles already.
        let alive = state.crashes == self.crashes;
        let handles = self.files.iter().filter(|(_, handle)| alive && !handle.closing);
        state.drop_disk(self.number, handles.map(|(_, handle)| handle.content));
    }
}
