//! What a power failure may leave, chosen instead of drawn: for tests that try all of it.
//!
//! 1. [`Remains`] is what is durable at a moment for certain, and the list of the changes that may persist or not: those
//!    that are not flushed, and those that are in flight and may have arrived, in this order.
//! 2. [`Remains::folder`] makes the folder that is there after a power failure which leaves each change as its [`Fate`]
//!    says. The folder that was looked at goes on undisturbed, so one run serves for all choices at all its moments.
//!
//! A sync in flight adds no choice: it makes durable what may persist anyway. Changes of files that no name can bring back are
//! left out.

use super::content::{Change, Content, tear};
use super::fault::{Fault, OpKind};
use super::state::{ContentId, NameChange, State, Work};
use super::{SimulatedClock, SimulatedFolder, SplitMix64};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3;

/// A moment at which a disk is about to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// An operation is about to be taken in flight.
    Submission(OpKind),
    /// A call for one is about to take its effect.
    Completion(OpKind),
}

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It persists.
    Kept,
    /// Of a write, a part persists, which this seed chooses; anything else persists.
    Torn(u64),
}

/// A change that may persist.
#[derive(Clone)]
enum Pending {
    File(ContentId, Change),
    Name(NameChange),
}

/// See the module.
#[derive(Clone)]
pub struct Remains {
    clock: u64,
    contents: BTreeMap<ContentId, Rc<Vec<u8>>>,
    contents_made: u64,
    names: BTreeMap<String, ContentId>,
    changes: Vec<Pending>,
}

impl Remains {
    /// How many changes may persist or not, each for itself.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// The names of the files that may be there.
    pub fn names(&self) -> BTreeSet<&str> {
        let made = self.changes.iter().filter_map(|change| match change {
            Pending::Name(change @ (NameChange::Create { .. } | NameChange::Rename { .. })) => {
                Some(change.name())
            }
            _ => None,
        });
        self.names.keys().map(String::as_str).chain(made).collect()
    }

    /// Whether a change is a write: only such may be torn.
    pub fn is_write(&self, at: usize) -> bool {
        matches!(self.changes.get(at), Some(Pending::File(_, Change::Write { .. })))
    }

    /// What a change is, for people.
    pub fn describe(&self, at: usize) -> String {
        let named = |content: &ContentId| {
            let created = self.changes.iter().filter_map(|change| match change {
                Pending::Name(change) if change.content() == Some(*content) => Some(change.name()),
                _ => None,
            });
            let durable = self.names.iter().filter(|(_, id)| *id == content).map(|(name, _)| name.as_str());
            durable.chain(created).next().unwrap_or("a file").to_string()
        };
        match self.changes.get(at) {
            None => "nothing".into(),
            Some(Pending::File(content, Change::Write { offset, bytes })) => {
                format!("{} bytes at {offset} of {}", bytes.len(), named(content))
            }
            Some(Pending::File(content, Change::Grow(bytes))) => {
                format!("the length of at least {bytes} of {}", named(content))
            }
            Some(Pending::File(content, Change::Cut(bytes))) => {
                format!("the length of {bytes} of {}", named(content))
            }
            Some(Pending::Name(NameChange::Create { name, .. })) => format!("the new name {name}"),
            Some(Pending::Name(NameChange::Rename { from, to, .. })) => {
                format!("the rename of {from} to {to}")
            }
            Some(Pending::Name(NameChange::Remove { name })) => format!("the removal of {name}"),
        }
    }

    /// The folder after a power failure. A change without a fate is lost.
    pub fn folder(&self, fates: &[Fate]) -> SimulatedFolder {
        let mut contents = self.contents.clone();
        let mut names = self.names.clone();
        for (change, fate) in self.changes.iter().zip(fates) {
            match (change, fate) {
                (_, Fate::Lost) => {}
                (Pending::File(content, Change::Write { offset, bytes }), Fate::Torn(seed)) => {
                    let file = contents.entry(*content).or_default();
                    tear(file, *offset, bytes, &mut SplitMix64::new(*seed));
                }
                (Pending::File(content, change), _) => change.apply(contents.entry(*content).or_default()),
                (Pending::Name(change), _) => change.apply(&mut names),
            }
        }
        let named: BTreeSet<ContentId> = names.values().copied().collect();
        let folder = self.empty_folder();
        {
            let mut state = folder.state.borrow_mut();
            state.contents = named
                .into_iter()
                .map(|content| (content, Content::of(contents.remove(&content).unwrap_or_default())))
                .collect();
            state.durable_names.clone_from(&names);
            state.names = names;
        }
        folder
    }

    /// The folder after the end of the process alone: all changes are there to be read, what was in flight included, and
    /// none of them is durable.
    pub fn folder_of_killed(&self) -> SimulatedFolder {
        let folder = self.empty_folder();
        {
            let mut state = folder.state.borrow_mut();
            let contents = self.contents.iter();
            state.contents = contents.map(|(number, bytes)| (*number, Content::of(bytes.clone()))).collect();
            state.names.clone_from(&self.names);
            state.durable_names.clone_from(&self.names);
            for change in &self.changes {
                match change {
                    Pending::File(content, change) => {
                        state.contents.entry(*content).or_default().change(change.clone());
                    }
                    Pending::Name(change) => {
                        if let Some(content) = change.content() {
                            state.contents.entry(content).or_default();
                        }
                        state.change_names(change.clone());
                    }
                }
            }
        }
        folder
    }

    fn empty_folder(&self) -> SimulatedFolder {
        let clock = SimulatedClock::new();
        clock.advance(self.clock);
        let folder = SimulatedFolder::with_clock(clock);
        folder.state.borrow_mut().contents_made = self.contents_made;
        folder
    }
}

impl State {
    /// What a power failure would leave now.
    pub(super) fn remains(&self) -> Remains {
        let mut contents_made = self.contents_made;
        let mut files: Vec<(ContentId, Change)> = Vec::new();
        let mut names: Vec<NameChange> =
            self.pending_names.iter().map(|(_, change)| change.clone()).collect();
        for (number, content) in &self.contents {
            files.extend(content.pending().map(|change| (*number, change.clone())));
        }
        for flight in self.flights.values().filter(|flight| flight.fault.is_none_or(Fault::is_benign)) {
            match &flight.work {
                Ok(Work::Write { content, offset, .. }) => {
                    let bytes = flight.buf.as_deref().map_or(Vec::new(), <[u8]>::to_vec);
                    files.push((*content, Change::Write { offset: *offset, bytes }));
                }
                Ok(Work::Reserve { content, bytes }) => files.push((*content, Change::Grow(*bytes))),
                Ok(Work::Truncate { content, bytes }) => files.push((*content, Change::Cut(*bytes))),
                Ok(Work::Open { name, how }) if how.create_new && !self.names.contains_key(name) => {
                    contents_made += 1;
                    names.push(NameChange::Create { name: name.clone(), content: contents_made });
                }
                Ok(Work::Rename { from, to }) if from != to => {
                    if let Some(content) = self.names.get(from) {
                        let (from, to) = (from.clone(), to.clone());
                        names.push(NameChange::Rename { from, to, content: *content });
                    }
                }
                Ok(Work::Remove { name }) if self.names.contains_key(name) => {
                    names.push(NameChange::Remove { name: name.clone() });
                }
                _ => {}
            }
        }
        let reachable: BTreeSet<ContentId> = self
            .durable_names
            .values()
            .copied()
            .chain(names.iter().filter_map(NameChange::content))
            .collect();
        files.retain(|(content, _)| reachable.contains(content));
        let durable = self.contents.iter().filter(|(number, _)| reachable.contains(number));
        let changes = files.into_iter().map(|(content, change)| Pending::File(content, change));
        Remains {
            clock: self.clock.now(),
            contents: durable.map(|(number, content)| (*number, content.durable().clone())).collect(),
            contents_made,
            names: self.durable_names.clone(),
            changes: changes.chain(names.into_iter().map(Pending::Name)).collect(),
        }
    }

    /// A hash of the names and of what is in the files.
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        for (name, content) in &self.names {
            let bytes = self.contents.get(content).map_or(&[][..], Content::volatile);
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.digest128()
    }
}
