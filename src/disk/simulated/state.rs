//! What outlives a simulated disk: the files, their names, and the operations in flight.

use super::content::Content;
use super::effects::{self, Effects};
use super::fault::{Fault, FaultPlan, FaultSite, OpKind};
use super::remains::{Moment, Remains};
use super::{SECTOR_BYTES, SimulatedClock, SplitMix64};
use crate::disk::progress::{Next, Progress, Way};
use crate::disk::{IoBuf, OpenHow};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Result;
use std::ops::Range;

/// The number of a content: an inode's number, so to say.
pub(super) type ContentId = u64;

/// Told of a moment, and of what a power failure would leave just then.
pub(super) type Watcher = Box<dyn FnMut(Moment, Remains)>;

/// A change of names that is not durable yet. A rename holds its content, so that it is whole by itself.
#[derive(Clone)]
pub(super) enum NameChange {
    Create { name: String, content: ContentId },
    Rename { from: String, to: String, content: ContentId },
    Remove { name: String },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, ContentId>) {
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

    /// What undoing it counts as.
    fn undone(&self) -> &'static str {
        match self {
            NameChange::Create { .. } => effects::FILES_CREATE,
            NameChange::Rename { .. } => effects::FILES_RENAME,
            NameChange::Remove { .. } => effects::FILES_REMOVE,
        }
    }

    /// The name that it makes or takes away.
    pub(super) fn name(&self) -> &str {
        match self {
            NameChange::Create { name, .. } | NameChange::Remove { name } => name,
            NameChange::Rename { to, .. } => to,
        }
    }

    pub(super) fn content(&self) -> Option<ContentId> {
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
    /// How far a read or write has come.
    pub(super) progress: Progress,
    /// It completes no sooner.
    pub(super) not_before: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct State {
    pub(super) clock: SimulatedClock,
    pub(super) contents: BTreeMap<ContentId, Content>,
    pub(super) contents_made: u64,

    pub(super) names: BTreeMap<String, ContentId>,
    pub(super) durable_names: BTreeMap<String, ContentId>,
    pub(super) pending_names: Vec<(u64, NameChange)>,
    name_changes: u64,

    pub(super) flights: BTreeMap<u64, Flight>,
    flights_made: u64,
    disks_made: u64,
    /// Crashes so far. A disk from before the last one is dead.
    pub(super) crashes: u64,

    pub(super) capacity: Option<u64>,
    pub(super) faults: Option<FaultPlan>,
    pub(super) watcher: Option<Watcher>,
    /// Nothing completes before.
    stopped_until: u64,
    pub(super) effects: Effects,
}

/// What came of a call for an operation.
enum Called {
    /// It is over.
    Over(Result<Effect>),
    /// Another call goes on with it.
    Again,
}

impl State {
    /// The number of a new disk. What dropped disks left in flight takes its effect now at the latest.
    pub(super) fn new_disk(&mut self) -> u64 {
        let adrift: Vec<u64> = self.flights_of(None);
        for number in adrift {
            // Nobody listens to the outcome. The seed matters only to a torn write.
            let mut random = SplitMix64::new(number);
            while self.flights.contains_key(&number) {
                if let Some((_, Ok(Effect::Opened { content, .. }))) = self.land(number, &mut random) {
                    self.release(content);
                }
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

    /// Those of a disk's operations in flight that may complete now, in the order of submission.
    pub(super) fn ready_of(&self, disk: u64) -> Vec<u64> {
        let now = self.clock.now();
        if self.stopped_until > now {
            return Vec::new();
        }
        let ready = |flight: &Flight| flight.disk == Some(disk) && flight.not_before <= now;
        self.flights.iter().filter(|(_, flight)| ready(flight)).map(|(number, _)| *number).collect()
    }

    /// When the first of a disk's operations in flight may complete, if there is one.
    pub(super) fn earliest_of(&self, disk: Option<u64>) -> Option<u64> {
        let flights = self.flights.values().filter(|flight| disk.is_none() || flight.disk == disk);
        let earliest = flights.map(|flight| flight.not_before).min()?;
        Some(earliest.max(self.stopped_until))
    }

    /// Takes an operation in flight.
    pub(super) fn submit(&mut self, mut flight: Flight) {
        self.watched(Moment::Submission(flight.kind));
        self.flights_made += 1;
        if let (Ok(work), Some(plan)) = (&flight.work, &mut self.faults) {
            let site = FaultSite::new(self.flights_made, flight.kind, work, flight.buf.as_ref(), &self.names);
            flight.fault = plan(&site);
        }
        let now = self.clock.now();
        match flight.fault {
            Some(Fault::Late(nanos)) => flight.not_before = now.saturating_add(nanos),
            Some(Fault::Stop(nanos)) => {
                self.stopped_until = self.stopped_until.max(now.saturating_add(nanos));
                self.effects.hit(effects::TIME_STOPPED);
            }
            _ => {}
        }
        self.flights.insert(self.flights_made, flight);
    }

    /// Tells whoever watches what a power failure would leave now.
    fn watched(&mut self, moment: Moment) {
        if let Some(mut watcher) = self.watcher.take() {
            watcher(moment, self.remains());
            self.watcher = Some(watcher);
        }
    }

    /// Lets an operation take its effect and answers it with the outcome; `None` where it goes on, and for an unknown
    /// number.
    pub(super) fn land(&mut self, number: u64, random: &mut SplitMix64) -> Option<(Flight, Result<Effect>)> {
        self.watched(Moment::Completion(self.flights.get(&number)?.kind));
        let mut flight = self.flights.remove(&number)?;
        if self.flights.range(..number).any(|(_, other)| other.disk == flight.disk) {
            self.effects.hit(effects::RING_ORDER);
        }
        let work = std::mem::replace(&mut flight.work, Err(Errno::IO.into()));
        let called = match work {
            Err(error) => Called::Over(Err(error)),
            Ok(work) => {
                let called = self.call(&work, &mut flight, random);
                flight.work = Ok(work);
                called
            }
        };
        match called {
            Called::Over(result) => Some((flight, result)),
            Called::Again => {
                self.flights.insert(number, flight);
                None
            }
        }
    }

    /// One call for an operation, with what goes wrong with it.
    fn call(&mut self, work: &Work, flight: &mut Flight, random: &mut SplitMix64) -> Called {
        let length = flight.buf.as_ref().map_or(0, |buf| buf.len());
        let done = flight.progress.done;
        let way = match work {
            Work::Read { .. } => Some(Way::Read),
            Work::Write { .. } => Some(Way::Write),
            _ => None,
        };
        let fault = flight.fault.take();
        match fault {
            None => {}
            Some(fault @ (Fault::Again(times) | Fault::Interrupted(times))) => {
                self.effects.hit(effects::RING_AGAIN);
                let (errno, next) = match fault {
                    Fault::Interrupted(_) => (Errno::INTR, Fault::Interrupted(times.saturating_sub(1))),
                    _ => (Errno::AGAIN, Fault::Again(times.saturating_sub(1))),
                };
                flight.fault = (times > 1).then_some(next);
                if flight.progress.retries(errno) {
                    return Called::Again;
                }
                return Called::Over(Err(errno.into()));
            }
            Some(Fault::Late(nanos)) => self.effects.hit(match nanos >= 1_000_000_000 {
                true => effects::TIME_SLOW,
                false => effects::RING_LATE,
            }),
            Some(Fault::Stop(_)) => {}
            Some(Fault::Short(bytes)) => {
                let some = (bytes as usize / SECTOR_BYTES * SECTOR_BYTES).max(SECTOR_BYTES);
                if let Some(way) = way.filter(|_| some < length - done) {
                    let result = self.perform(work, flight.buf.as_mut(), done..done + some);
                    if let Err(error) = result {
                        return Called::Over(Err(error));
                    }
                    self.effects.hit(match way {
                        Way::Read => effects::READ_SHORT,
                        Way::Write => effects::WRITE_SHORT,
                    });
                    return self.answered(&mut flight.progress, way, length, Ok(some));
                }
            }
            Some(Fault::Zero) => {
                if let Some(way) = way.filter(|_| length > 0) {
                    self.effects.hit(match way {
                        Way::Read => effects::READ_SHORT,
                        Way::Write => effects::WRITE_ZERO,
                    });
                    return self.answered(&mut flight.progress, way, length, Ok(0));
                }
            }
            Some(fault) => {
                if let Some(result) = self.go_wrong(fault, work, flight.buf.as_mut(), random) {
                    return Called::Over(result);
                }
            }
        }
        Called::Over(self.perform(work, flight.buf.as_mut(), done..length))
    }

    fn answered(
        &self,
        progress: &mut Progress,
        way: Way,
        length: usize,
        answer: std::result::Result<usize, Errno>,
    ) -> Called {
        match progress.answered(way, length, answer) {
            Next::Again => Called::Again,
            Next::Done => Called::Over(Ok(Effect::Done)),
            Next::Ended => Called::Over(Err(Errno::IO.into())),
            Next::Failed(error) => Called::Over(Err(error)),
        }
    }

    /// A file does not hold, or does not read back, what was written to it.
    pub(super) fn harm(&mut self, content: ContentId) {
        for (name, _) in self.names.iter().filter(|(_, other)| **other == content) {
            self.effects.harm(name);
        }
    }

    pub(super) fn content(&mut self, content: ContentId) -> Result<&mut Content> {
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

    pub(super) fn change_names(&mut self, change: NameChange) {
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

    /// Does what an operation is to do; of a read or write, for a part of its buffer.
    pub(super) fn perform(
        &mut self,
        work: &Work,
        buf: Option<&mut IoBuf>,
        part: Range<usize>,
    ) -> Result<Effect> {
        match *work {
            Work::Open { ref name, how } => return self.open(name.clone(), how),
            Work::Read { content, offset } => {
                if let Some(buf) = buf {
                    self.content(content)?.read(offset + part.start, &mut buf[part])?;
                }
            }
            Work::Write { content, offset, durable } => {
                let offset = offset + part.start;
                let bytes: &[u8] = buf.as_deref().map_or(&[], |buf| &buf[part]);
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
            Work::Rename { ref from, ref to } => {
                let content = *self.names.get(from).ok_or(Errno::NOENT)?;
                if from != to {
                    self.effects.renamed(from, to);
                    self.change_names(NameChange::Rename { from: from.clone(), to: to.clone(), content });
                }
            }
            Work::Remove { ref name } => {
                if !self.names.contains_key(name) {
                    return Err(Errno::NOENT.into());
                }
                self.change_names(NameChange::Remove { name: name.clone() });
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

    pub(super) fn release(&mut self, content: ContentId) {
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
            let arrives = random.chance(50) && flight.fault.is_none_or(Fault::is_benign);
            let length = buf.as_ref().map_or(0, |buf| buf.len());
            let landed = match work {
                Ok(Work::Write { content, offset, .. }) if arrives => {
                    let work = Work::Write { content, offset, durable: false };
                    // Refused for want of space, say: then nothing arrives.
                    self.perform(&work, buf.as_mut(), 0..length).is_ok()
                }
                // A sync completes what was pending anyway, and each pending change has its own chance.
                Ok(
                    ref work @ (Work::Open { .. }
                    | Work::Reserve { .. }
                    | Work::Truncate { .. }
                    | Work::Rename { .. }
                    | Work::Remove { .. }),
                ) if arrives => self.perform(work, None, 0..0).is_ok(),
                _ => false,
            };
            self.effects.hit(if landed { effects::CRASH_ARRIVED } else { effects::CRASH_IN_FLIGHT });
            if let Some(flight) = self.flights.get_mut(&number) {
                flight.buf = buf;
            }
        }
        self.flights.retain(|_, flight| flight.disk.is_some());

        self.decide_names(random);
        self.names.clone_from(&self.durable_names);
        let effects = &mut self.effects;
        self.contents.values_mut().for_each(|content| content.crash(random, effects));
        self.forget_unreachable();
    }

    /// What becomes of changes of names that are not durable.
    fn decide_names(&mut self, random: &mut SplitMix64) {
        // A journal keeps the order of names; not every file system has one.
        let kept = random.below(self.pending_names.len() as u64 + 1) as usize;
        let in_order = random.chance(50);
        for (at, (_, change)) in self.pending_names.drain(..).enumerate() {
            if if in_order { at < kept } else { random.chance(50) } {
                change.apply(&mut self.durable_names);
            } else {
                self.effects.hit(change.undone());
            }
        }
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
