//! What outlives a simulated disk: the files, their names, and the operations in flight.

use super::content::Content;
use super::fault::{Fault, FaultPlan, FaultSite, OpKind};
use super::{SimulatedClock, SplitMix64};
use crate::disk::{IoBuf, OpenHow};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, Result};

/// The number of a content: an inode's number, so to say.
pub(super) type ContentId = u64;

/// A change of names that is not durable yet. A rename holds its content, so that it is whole by itself.
enum NameChange {
    Create { name: String, content: ContentId },
    Rename { from: String, to: String, content: ContentId },
    Remove { name: String },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, ContentId>) {
        match self {
            NameChange::Create { name, content } => drop(names.insert(name.clone(), *content)),
            NameChange::Rename { from, to, content } => {
                if names.get(from) == Some(content) {
                    names.remove(from);
                }
                names.insert(to.clone(), *content);
            }
            NameChange::Remove { name } => drop(names.remove(name)),
        }
    }

    fn content(&self) -> Option<ContentId> {
        match self {
            NameChange::Create { content, .. } | NameChange::Rename { content, .. } => Some(*content),
            NameChange::Remove { .. } => None,
        }
    }
}

/// What an operation does when it completes; files are resolved when it is submitted.
pub(super) enum Work {
    Open { name: String, how: OpenHow },
    Read { content: ContentId, offset: usize },
    Write { content: ContentId, offset: usize, durable: bool },
    Sync { content: ContentId, mark: u64 },
    Reserve { content: ContentId, bytes: usize },
    Truncate { content: ContentId, bytes: usize },
    Close { content: ContentId },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncFolder { mark: u64 },
    List,
}

impl Work {
    /// The file that it works on.
    pub(super) fn content(&self) -> Option<ContentId> {
        match *self {
            Work::Read { content, .. } | Work::Write { content, .. } | Work::Sync { content, .. } => {
                Some(content)
            }
            Work::Reserve { content, .. } | Work::Truncate { content, .. } => Some(content),
            Work::Close { content } => Some(content),
            _ => None,
        }
    }
}

/// What came of it.
pub(super) enum Effect {
    Done,
    Opened { content: ContentId, bytes: u64 },
    Names(Vec<(String, u64)>),
}

/// A submitted operation.
pub(super) struct Flight {
    /// The disk that awaits it; `None` once that was dropped.
    pub(super) disk: Option<u64>,
    pub(super) token: u64,
    pub(super) kind: OpKind,
    /// How an open opens.
    pub(super) how: OpenHow,
    /// The handle that a close closes.
    pub(super) closes: Option<usize>,
    /// What it does, or why it is refused.
    pub(super) work: Result<Work>,
    pub(super) buf: Option<IoBuf>,
    pub(super) fault: Option<Fault>,
}

/// See the module.
#[derive(Default)]
pub(super) struct State {
    pub(super) clock: SimulatedClock,
    contents: BTreeMap<ContentId, Content>,
    contents_made: u64,

    names: BTreeMap<String, ContentId>,
    durable_names: BTreeMap<String, ContentId>,
    pending_names: Vec<(u64, NameChange)>,
    name_changes: u64,

    flights: BTreeMap<u64, Flight>,
    flights_made: u64,
    disks_made: u64,
    /// Crashes so far. A disk from before the last one is dead.
    pub(super) crashes: u64,

    pub(super) capacity: Option<u64>,
    pub(super) faults: Option<FaultPlan>,
}

impl State {
    /// The number of a new disk. What dropped disks left in flight takes its effect now at the latest.
    pub(super) fn new_disk(&mut self) -> u64 {
        let adrift: Vec<u64> = self.flights_of(None);
        for number in adrift {
            // Nobody listens to the outcome. The seed matters only to a torn write.
            if let Some((_, Ok(Effect::Opened { content, .. }))) =
                self.land(number, &mut SplitMix64::new(number))
            {
                self.release(content);
            }
        }
        self.disks_made += 1;
        self.disks_made
    }

    /// A disk is dropped: its operations stay in flight unheard, its handles are closed.
    pub(super) fn drop_disk(&mut self, disk: u64, handles: impl Iterator<Item = ContentId>) {
        for flight in self.flights.values_mut().filter(|flight| flight.disk == Some(disk)) {
            flight.disk = None;
        }
        handles.for_each(|content| self.release(content));
    }

    /// The numbers of a disk's operations in flight, in the order of submission.
    pub(super) fn flights_of(&self, disk: Option<u64>) -> Vec<u64> {
        self.flights.iter().filter(|(_, flight)| flight.disk == disk).map(|(number, _)| *number).collect()
    }

    /// Takes an operation in flight.
    pub(super) fn submit(&mut self, mut flight: Flight) {
        self.flights_made += 1;
        if let (Ok(work), Some(plan)) = (&flight.work, &mut self.faults) {
            let site = FaultSite::new(self.flights_made, flight.kind, work, flight.buf.as_ref(), &self.names);
            flight.fault = plan(&site);
        }
        self.flights.insert(self.flights_made, flight);
    }

    /// Lets an operation take its effect and answers it with the outcome; `None` for an unknown number.
    pub(super) fn land(&mut self, number: u64, random: &mut SplitMix64) -> Option<(Flight, Result<Effect>)> {
        let mut flight = self.flights.remove(&number)?;
        let work = std::mem::replace(&mut flight.work, Err(Errno::IO.into()));
        let result = match (work, flight.fault) {
            (Err(error), _) => Err(error),
            (Ok(work), None) => self.perform(work, flight.buf.as_mut()),
            (Ok(Work::Write { content, offset, .. }), Some(Fault::Torn(errno))) => {
                if let (Ok(content), Some(buf)) = (self.content(content), &flight.buf) {
                    content.write_torn(offset, buf, random);
                }
                Err(Error::from_raw_os_error(errno))
            }
            (Ok(Work::Close { content }), Some(Fault::Fail(errno) | Fault::Torn(errno))) => {
                self.release(content);
                Err(Error::from_raw_os_error(errno))
            }
            (Ok(_), Some(Fault::Fail(errno) | Fault::Torn(errno))) => Err(Error::from_raw_os_error(errno)),
        };
        Some((flight, result))
    }

    fn content(&mut self, content: ContentId) -> Result<&mut Content> {
        self.contents.get_mut(&content).ok_or_else(|| Errno::BADF.into())
    }

    /// The number of the next change of a file, for a sync that starts now.
    pub(super) fn mark(&self, content: ContentId) -> u64 {
        self.contents.get(&content).map_or(0, Content::mark)
    }

    /// The number of the next change of names, for a sync of the folder that starts now.
    pub(super) fn names_mark(&self) -> u64 {
        self.name_changes
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push((self.name_changes, change));
        self.name_changes += 1;
    }

    /// Checks that a file may be as long as `end`.
    fn check_space(&mut self, content: ContentId, end: usize) -> Result<()> {
        let present = self.content(content)?.volatile().len();
        if end <= present {
            return Ok(());
        }
        let used: usize = self.contents.values().map(|content| content.volatile().len()).sum();
        match self.capacity {
            Some(capacity) if (used - present + end) as u64 > capacity => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    fn perform(&mut self, work: Work, buf: Option<&mut IoBuf>) -> Result<Effect> {
        match work {
            Work::Open { name, how } => return self.open(name, how),
            Work::Read { content, offset } => {
                if let Some(buf) = buf {
                    self.content(content)?.read(offset, buf)?;
                }
            }
            Work::Write { content, offset, durable } => {
                let bytes: &[u8] = buf.as_deref().map_or(&[], |buf| buf);
                self.check_space(content, if bytes.is_empty() { 0 } else { offset + bytes.len() })?;
                match durable {
                    true => self.content(content)?.write_durable(offset, bytes),
                    false => self.content(content)?.write(offset, bytes),
                }
            }
            Work::Sync { content, mark } => self.content(content)?.sync(mark),
            Work::Reserve { content, bytes } => {
                self.check_space(content, bytes)?;
                self.content(content)?.grow(bytes);
            }
            Work::Truncate { content, bytes } => {
                self.check_space(content, bytes)?;
                self.content(content)?.cut(bytes);
            }
            Work::Close { content } => self.release(content),
            Work::Rename { from, to } => {
                let content = *self.names.get(&from).ok_or(Errno::NOENT)?;
                if from != to {
                    self.change_names(NameChange::Rename { from, to, content });
                }
            }
            Work::Remove { name } => {
                if !self.names.contains_key(&name) {
                    return Err(Errno::NOENT.into());
                }
                self.change_names(NameChange::Remove { name });
            }
            Work::SyncFolder { mark } => self.sync_names(mark),
            Work::List => {
                let names = self.names.iter();
                return Ok(Effect::Names(
                    names.map(|(name, content)| (name.clone(), self.length(*content))).collect(),
                ));
            }
        }
        Ok(Effect::Done)
    }

    fn length(&self, content: ContentId) -> u64 {
        self.contents.get(&content).map_or(0, |content| content.volatile().len() as u64)
    }

    fn open(&mut self, name: String, how: OpenHow) -> Result<Effect> {
        let content = match (self.names.get(&name), how.create_new) {
            (Some(_), true) => return Err(Errno::EXIST.into()),
            (None, false) => return Err(Errno::NOENT.into()),
            (Some(content), false) => *content,
            (None, true) => {
                self.contents_made += 1;
                let content = self.contents_made;
                self.contents.insert(content, Content::default());
                self.change_names(NameChange::Create { name, content });
                content
            }
        };
        self.content(content)?.handles += 1;
        Ok(Effect::Opened { content, bytes: self.length(content) })
    }

    fn release(&mut self, content: ContentId) {
        if let Some(content) = self.contents.get_mut(&content) {
            content.handles = content.handles.saturating_sub(1);
        }
        self.forget_unreachable();
    }

    fn sync_names(&mut self, mark: u64) {
        let covered = self.pending_names.partition_point(|(number, _)| *number < mark);
        self.pending_names.drain(..covered).for_each(|(_, change)| change.apply(&mut self.durable_names));
        self.forget_unreachable();
    }

    /// Drops the contents that no handle or operation holds and no name can bring back.
    fn forget_unreachable(&mut self) {
        let named: BTreeSet<ContentId> = (self.names.values().chain(self.durable_names.values()).copied())
            .chain(self.pending_names.iter().filter_map(|(_, change)| change.content()))
            .chain(self.flights.values().filter_map(|flight| flight.work.as_ref().ok()?.content()))
            .collect();
        self.contents.retain(|number, content| content.handles > 0 || named.contains(number));
    }

    /// The power fails. See [`super::SimulatedFolder::crash`].
    pub(super) fn crash(&mut self, random: &mut SplitMix64) {
        self.crashes += 1;
        // Any of what was in flight may have come as far as the device's cache, in any order.
        let mut numbers: Vec<u64> = self.flights.keys().copied().collect();
        random.shuffle(&mut numbers);
        for number in numbers {
            let Some(flight) = self.flights.get_mut(&number) else { continue };
            let work = std::mem::replace(&mut flight.work, Err(Errno::IO.into()));
            let mut buf = flight.buf.take();
            let arrives = random.chance(50) && flight.fault.is_none();
            match work {
                Ok(Work::Write { content, offset, .. }) if arrives => {
                    let work = Work::Write { content, offset, durable: false };
                    // Refused for want of space, say: then nothing arrives.
                    let _ = self.perform(work, buf.as_mut());
                }
                // A sync completes what was pending anyway, and each pending change has its own chance.
                Ok(
                    work @ (Work::Open { .. }
                    | Work::Reserve { .. }
                    | Work::Truncate { .. }
                    | Work::Rename { .. }
                    | Work::Remove { .. }),
                ) if arrives => drop(self.perform(work, None)),
                _ => {}
            }
            if let Some(flight) = self.flights.get_mut(&number) {
                flight.buf = buf;
            }
        }
        self.flights.retain(|_, flight| flight.disk.is_some());

        // A journal keeps the order of names; not every file system has one.
        let kept = random.below(self.pending_names.len() as u64 + 1) as usize;
        let in_order = random.chance(50);
        for (at, (_, change)) in self.pending_names.drain(..).enumerate() {
            if if in_order { at < kept } else { random.chance(50) } {
                change.apply(&mut self.durable_names);
            }
        }
        self.names.clone_from(&self.durable_names);
        self.contents.values_mut().for_each(|content| content.crash(random));
        self.forget_unreachable();
    }

    /// The names that reads see.
    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The files that reads see.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let bytes = |content| self.contents.get(content).map_or(Vec::new(), |c| c.volatile().to_vec());
        self.names.iter().map(|(name, content)| (name.clone(), bytes(content))).collect()
    }

    /// The files that any crash leaves.
    pub(super) fn durable_files(&self) -> BTreeMap<String, Vec<u8>> {
        let bytes = |content| self.contents.get(content).map_or(Vec::new(), |c| c.durable().to_vec());
        self.durable_names.iter().map(|(name, content)| (name.clone(), bytes(content))).collect()
    }

    /// Changes a named file's content from outside.
    pub(super) fn with_content<T>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Content) -> T,
    ) -> Option<T> {
        let content = self.names.get(name)?;
        self.contents.get_mut(content).map(change)
    }

    /// Removes a name from outside, durably (with all earlier changes of names).
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.names.contains_key(name);
        if found {
            self.change_names(NameChange::Remove { name: name.to_string() });
            self.sync_names(self.name_changes);
        }
        found
    }
}
