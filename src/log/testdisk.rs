//! A disk in memory for the tests of the log and the manifest, which can crash at any completion.
//!
//! What is durable is kept apart from what can be read: a crash keeps the first, and of the rest (unsynced or in
//! flight) whatever the test's choice says, sector by sector. Operations complete in an order drawn from a seed.

use crate::disk::io::Io;
use crate::disk::{Completion, Disk, DiskStats, FileId, IoBuf, Op, OpenHow, Outcome};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A small generator of numbers (splitmix64), so that a seed says everything.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    stable: Vec<u8>,
    unsynced: Vec<Change>,
}

fn write_at(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    data.resize(data.len().max(at + bytes.len()), 0);
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

type Names = BTreeMap<String, usize>;

struct World {
    inodes: Vec<Inode>,
    names: Names,
    /// The names as of the last folder sync, then after each change since.
    name_history: Vec<Names>,
    handles: Vec<Option<(usize, OpenHow)>>,
    queue: Vec<(u64, Op)>,
    random: Random,
    must_complete: bool,
    completed: u64,
    crash_after: Option<u64>,
    space: Option<usize>,
    fail: Option<(FailOn, ErrorKind)>,
}

/// Which operations are to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailOn {
    Write,
    Read,
    Rename,
    SyncFolder,
}

/// A handle on the disk for the test; [`MemDisk::io`] gives the other end.
#[derive(Clone)]
pub(crate) struct MemDisk(Rc<RefCell<World>>);

/// What becomes of the sectors that were on their way at a crash.
pub(crate) enum Fate<'a> {
    /// All are lost.
    Lost,
    /// All are kept.
    Kept,
    /// Each write, or each sector of it, as drawn.
    Drawn(&'a mut Random),
    /// Whether the n-th write in flight (in the order they were started) is kept.
    Chosen(&'a dyn Fn(usize) -> bool),
}

impl MemDisk {
    pub(crate) fn new(seed: u64) -> MemDisk {
        MemDisk(Rc::new(RefCell::new(World {
            inodes: Vec::new(),
            names: Names::new(),
            name_history: vec![Names::new()],
            handles: Vec::new(),
            queue: Vec::new(),
            random: Random(seed),
            must_complete: false,
            completed: 0,
            crash_after: None,
            space: None,
            fail: None,
        })))
    }

    pub(crate) fn io(&self) -> Io {
        Io::new(Box::new(self.clone()))
    }

    /// After so many more completions, nothing completes any more.
    pub(crate) fn crash_after(&self, completions: u64) {
        self.0.borrow_mut().crash_after = Some(completions);
    }

    pub(crate) fn dead(&self) -> bool {
        self.0.borrow().crash_after == Some(0)
    }

    /// How many bytes files may still grow; `None` for no limit.
    pub(crate) fn set_space(&self, bytes: Option<usize>) {
        self.0.borrow_mut().space = bytes;
    }

    pub(crate) fn fail(&self, on: Option<(FailOn, ErrorKind)>) {
        self.0.borrow_mut().fail = on;
    }

    /// The file's bytes, to look at or to damage (durably).
    pub(crate) fn edit<T>(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut world = self.0.borrow_mut();
        let inode = world.names[name];
        let inode = &mut world.inodes[inode];
        let answer = edit(&mut inode.now);
        inode.stable = inode.now.clone();
        answer
    }

    /// Puts a file there, durably, in place of one of its name.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.0.borrow_mut();
        world.inodes.push(Inode { now: bytes.clone(), stable: bytes, unsynced: Vec::new() });
        let inode = world.inodes.len() - 1;
        world.names.insert(name.into(), inode);
        world.name_history = vec![world.names.clone()];
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut world = self.0.borrow_mut();
        world.names.remove(name);
        world.name_history = vec![world.names.clone()];
    }

    /// How many writes are in flight.
    pub(crate) fn writes_queued(&self) -> usize {
        self.0.borrow().queue.iter().filter(|(_, op)| matches!(op, Op::Write { .. })).count()
    }

    /// A copy that goes its own way; handles and what is in flight stay behind.
    pub(crate) fn copy(&self) -> MemDisk {
        self.crash_image(true, Fate::Kept)
    }

    /// The disk as found after a power cut.
    pub(crate) fn crash(&self, fate: Fate<'_>) -> MemDisk {
        self.crash_image(false, fate)
    }

    fn crash_image(&self, calm: bool, mut fate: Fate<'_>) -> MemDisk {
        let world = self.0.borrow();
        let mut index = 0;
        let mut keep = |change: &Change, in_flight: bool, data: &mut Vec<u8>| {
            let chosen = match &mut fate {
                Fate::Lost => false,
                Fate::Kept => true,
                Fate::Drawn(random) => match random.below(4) {
                    0 => false,
                    1 => true,
                    _ => {
                        // Torn: some sectors of it.
                        if let Change::Write(at, bytes) = change {
                            for (n, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                                if random.below(2) == 0 {
                                    write_at(data, at + n * SECTOR_BYTES, sector);
                                }
                            }
                        }
                        false
                    }
                },
                Fate::Chosen(choose) => !in_flight || choose(index),
            };
            index += usize::from(in_flight);
            match change {
                Change::Write(at, bytes) if chosen => write_at(data, *at, bytes),
                Change::Length(bytes) if chosen => data.resize(*bytes, 0),
                _ => {}
            }
        };
        let mut inodes = Vec::new();
        for inode in &world.inodes {
            let mut data = inode.stable.clone();
            inode.unsynced.iter().for_each(|change| keep(change, false, &mut data));
            if calm {
                data = inode.now.clone();
            }
            inodes.push(data);
        }
        for (_, op) in world.queue.iter().filter(|_| !calm) {
            if let Op::Write { file, offset, buf } = op
                && let Some((inode, _)) = world.handles[file.0 as usize]
            {
                keep(&Change::Write(*offset as usize, buf.to_vec()), true, &mut inodes[inode]);
            }
        }
        let names = match &mut fate {
            _ if calm => world.names.clone(),
            Fate::Lost => world.name_history[0].clone(),
            Fate::Drawn(random) => {
                world.name_history[random.below(world.name_history.len() as u64) as usize].clone()
            }
            _ => world.names.clone(),
        };
        let next = MemDisk::new(world.random.0 ^ world.completed);
        {
            let mut to = next.0.borrow_mut();
            to.inodes = inodes
                .into_iter()
                .map(|data| Inode { now: data.clone(), stable: data, unsynced: Vec::new() })
                .collect();
            to.names = names.clone();
            to.name_history = vec![names];
        }
        next
    }

    /// Runs a future to its end; `None` where the disk crashed before.
    pub(crate) fn run<T>(&self, io: &Io, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut idle = 0;
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(value);
            }
            if self.dead() {
                return None;
            }
            idle = if io.pump() == 0 { idle + 1 } else { 0 };
            assert!(idle < 10_000, "a future waits for nothing");
        }
    }
}

impl World {
    fn renamed(&mut self) {
        self.name_history.push(self.names.clone());
    }

    fn grow(&mut self, inode: usize, bytes: usize) -> Result<()> {
        let more = bytes.saturating_sub(self.inodes[inode].now.len());
        if let Some(space) = &mut self.space {
            *space = space.checked_sub(more).ok_or(ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    fn perform(&mut self, op: &mut Op) -> Result<Outcome> {
        let on = match op {
            Op::Write { .. } => Some(FailOn::Write),
            Op::Read { .. } => Some(FailOn::Read),
            Op::Rename { .. } => Some(FailOn::Rename),
            Op::SyncFolder => Some(FailOn::SyncFolder),
            _ => None,
        };
        if let Some((fail, kind)) = self.fail
            && Some(fail) == on
        {
            return Err(Error::from(kind));
        }
        let inode_of = |world: &World, file: &FileId| {
            world.handles[file.0 as usize].map(|(inode, _)| inode).ok_or(Error::from(ErrorKind::InvalidInput))
        };
        match op {
            Op::Open { name, how } => {
                let inode = match (self.names.get(name), how.create_new) {
                    (Some(_), true) => return Err(ErrorKind::AlreadyExists.into()),
                    (None, false) => return Err(ErrorKind::NotFound.into()),
                    (Some(&inode), false) => inode,
                    (None, true) => {
                        self.inodes.push(Inode::default());
                        self.names.insert(name.clone(), self.inodes.len() - 1);
                        self.renamed();
                        self.inodes.len() - 1
                    }
                };
                self.handles.push(Some((inode, *how)));
                let bytes = self.inodes[inode].now.len() as u64;
                return Ok(Outcome::Opened { file: FileId(self.handles.len() as u32 - 1), bytes });
            }
            Op::Read { file, offset, buf } => {
                let data = &self.inodes[inode_of(self, file)?].now;
                let at = *offset as usize;
                let read = data.get(at..at + buf.len()).ok_or(Error::from(ErrorKind::UnexpectedEof))?;
                buf.copy_from_slice(read);
            }
            Op::Write { file, offset, buf } => {
                let inode = inode_of(self, file)?;
                let durable = self.handles[file.0 as usize].is_some_and(|(_, how)| how.durable && how.write);
                let at = *offset as usize;
                self.grow(inode, at + buf.len())?;
                let inode = &mut self.inodes[inode];
                write_at(&mut inode.now, at, buf);
                match durable {
                    true => write_at(&mut inode.stable, at, buf),
                    false => inode.unsynced.push(Change::Write(at, buf.to_vec())),
                }
            }
            Op::Sync { file } => {
                let inode = inode_of(self, file)?;
                let inode = &mut self.inodes[inode];
                inode.stable = inode.now.clone();
                inode.unsynced.clear();
            }
            Op::Reserve { file, bytes } | Op::Truncate { file, bytes } => {
                let inode = inode_of(self, file)?;
                self.grow(inode, *bytes as usize)?;
                let inode = &mut self.inodes[inode];
                inode.now.resize(*bytes as usize, 0);
                inode.unsynced.push(Change::Length(*bytes as usize));
            }
            Op::Close { file } => self.handles[file.0 as usize] = None,
            Op::Rename { from, to } => {
                let inode = self.names.remove(from).ok_or(Error::from(ErrorKind::NotFound))?;
                self.names.insert(to.clone(), inode);
                self.renamed();
            }
            Op::Remove { name } => {
                let inode = self.names.remove(name).ok_or(Error::from(ErrorKind::NotFound))?;
                if let Some(space) = &mut self.space {
                    *space += self.inodes[inode].now.len();
                }
                self.renamed();
            }
            Op::SyncFolder => self.name_history = vec![self.names.clone()],
            Op::List => {
                let names = self.names.iter();
                let names = names.map(|(name, &inode)| (name.clone(), self.inodes[inode].now.len() as u64));
                return Ok(Outcome::Names(names.collect()));
            }
        }
        Ok(Outcome::Done)
    }
}

impl Disk for MemDisk {
    fn start(&mut self, token: u64, op: Op) {
        self.0.borrow_mut().queue.push((token, op));
    }

    fn submit(&mut self) {}

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        let mut world = self.0.borrow_mut();
        let queued = world.queue.len() as u64;
        let mut count = world.random.below(queued + 1);
        if std::mem::take(&mut world.must_complete) {
            count = count.max(1);
        }
        for _ in 0..count.min(queued) {
            if world.crash_after == Some(0) {
                return;
            }
            world.crash_after = world.crash_after.map(|left| left - 1);
            world.completed += 1;
            let queued = world.queue.len() as u64;
            let index = world.random.below(queued) as usize;
            let (token, mut op) = world.queue.remove(index);
            let result = world.perform(&mut op);
            let buf: Option<IoBuf> = match op {
                Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf),
                _ => None,
            };
            completions.push(Completion { token, result, buf });
        }
    }

    fn wait(&mut self) {
        self.0.borrow_mut().must_complete = true;
    }

    fn in_flight(&self) -> usize {
        self.0.borrow().queue.len()
    }

    fn event_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn now(&self) -> u64 {
        0
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn stats(&self) -> DiskStats {
        DiskStats::default()
    }
}
