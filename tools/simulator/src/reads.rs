//! Reads beside everything else, and what they may answer.
//!
//! A read is a task. When it is over, its answer must be that of one commit's state: of the commit at which it was
//! taken up, which for a read through the mailbox lies between the newest one when it was asked and the
//! newest one when it was answered.

use crate::model::{Model, PATHS};
use crate::plan::{Hold, Keys, Route, ScanOf, View, What};
use crate::retained::retained;
use crate::world::{Cell, World};
use quipu::disk::simulated::SplitMix64;
use quipu::levels::Commit;
use quipu::{Bytes, Directory, Error, Local, LocalScan, LocalSnapshot, Result, Scan, Snapshot};
use std::future::Future;
use std::ops::{Bound, ControlFlow};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A read under way.
pub(crate) struct PendingRead {
    what: What,
    least: Commit,
    /// Of a snapshot: its commit.
    at: Option<Commit>,
    answer: Cell<Result<Answered>>,
}

/// A snapshot that is held.
#[derive(Clone)]
pub(crate) enum Held {
    Local(LocalSnapshot),
    Remote(Snapshot),
}

impl Held {
    fn commit(&self) -> Commit {
        match self {
            Held::Local(snapshot) => snapshot.commit(),
            Held::Remote(snapshot) => snapshot.commit(),
        }
    }
}

/// What a read looks at, with all it needs.
#[derive(Clone)]
enum Source {
    Local(Local),
    Remote,
    Held(Held),
}

/// An answer.
#[derive(Debug)]
enum Answered {
    Values(Vec<Option<Bytes>>),
    Exists(bool),
    Names(Vec<String>),
    /// Entries as they came, each with the end that it was taken from; and whether the end was seen.
    Entries(Vec<(bool, Bytes, Bytes)>, Option<bool>),
}

enum Scanning {
    Local(LocalScan),
    Remote(Scan),
}

impl Scanning {
    fn limit(self, entries: usize) -> Self {
        match self {
            Scanning::Local(scan) => Scanning::Local(scan.limit(entries)),
            Scanning::Remote(scan) => Scanning::Remote(scan.limit(entries)),
        }
    }

    fn reverse(self) -> Self {
        match self {
            Scanning::Local(scan) => Scanning::Local(scan.reverse()),
            Scanning::Remote(scan) => Scanning::Remote(scan.reverse()),
        }
    }

    /// The next entry, or, `borrowed`, a copy of it.
    async fn step(&mut self, back: bool, borrowed: bool) -> Result<Option<(Bytes, Bytes)>> {
        if borrowed {
            let entry = match (self, back) {
                (Scanning::Local(scan), false) => scan.next_ref().await?,
                (Scanning::Local(scan), true) => scan.next_back_ref().await?,
                (Scanning::Remote(scan), false) => scan.next_ref().await?,
                (Scanning::Remote(scan), true) => scan.next_back_ref().await?,
            };
            let copied = |(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            return Ok(entry.map(copied));
        }
        match (self, back) {
            (Scanning::Local(scan), false) => scan.next().await,
            (Scanning::Local(scan), true) => scan.next_back().await,
            (Scanning::Remote(scan), false) => scan.next().await,
            (Scanning::Remote(scan), true) => scan.next_back().await,
        }
    }
}

impl Source {
    async fn get(&self, directory: &Directory, key: &[u8]) -> Result<Option<Bytes>> {
        match self {
            Source::Local(local) => local.get(directory, key).await,
            Source::Remote => directory.get(key).await,
            Source::Held(Held::Local(snapshot)) => snapshot.get(directory, key).await,
            Source::Held(Held::Remote(snapshot)) => snapshot.get(directory, key).await,
        }
    }

    async fn get_many(&self, directory: &Directory, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>> {
        match self {
            Source::Local(local) => local.get_many(directory, keys).await,
            Source::Remote => directory.get_many(keys).await,
            Source::Held(Held::Local(snapshot)) => snapshot.get_many(directory, keys).await,
            Source::Held(Held::Remote(snapshot)) => snapshot.get_many(directory, keys).await,
        }
    }

    async fn exists(&self, directory: &Directory) -> Result<bool> {
        match self {
            Source::Local(local) => local.exists(directory).await,
            Source::Remote => directory.exists().await,
            Source::Held(Held::Local(snapshot)) => snapshot.exists(directory).await,
            Source::Held(Held::Remote(snapshot)) => snapshot.exists(directory).await,
        }
    }

    fn scan(&self, directory: &Directory, keys: &Keys) -> Result<Scanning> {
        let range: (Bound<&[u8]>, Bound<&[u8]>) = match keys {
            Keys::All => (Bound::Unbounded, Bound::Unbounded),
            Keys::Between(low, high) => (Bound::Included(low), Bound::Excluded(high)),
            Keys::Prefix(prefix) => {
                return Ok(match self {
                    Source::Local(local) => Scanning::Local(local.prefix(directory, prefix)?),
                    Source::Remote => Scanning::Remote(directory.prefix(prefix)),
                    Source::Held(Held::Local(held)) => Scanning::Local(held.prefix(directory, prefix)?),
                    Source::Held(Held::Remote(held)) => Scanning::Remote(held.prefix(directory, prefix)?),
                });
            }
        };
        Ok(match self {
            Source::Local(local) => Scanning::Local(local.range::<&[u8]>(directory, range)?),
            Source::Remote => Scanning::Remote(directory.range::<&[u8]>(range)),
            Source::Held(Held::Local(held)) => Scanning::Local(held.range::<&[u8]>(directory, range)?),
            Source::Held(Held::Remote(held)) => Scanning::Remote(held.range::<&[u8]>(directory, range)?),
        })
    }
}

/// Lets everything else that is ready go on first.
struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Of the entries of a scan, how many are borrowed and not owned.
const BORROWED_PERCENT: u8 = 50;
/// How often some are shown instead, where that can be, and how many at most.
const SHOWN_PERCENT: u8 = 5;
const SHOWN_MOST: u64 = 40;

async fn scan(mut scan: Scanning, of: ScanOf) -> Result<Answered> {
    let random = &mut SplitMix64::new(of.seed);
    let borrows = &mut SplitMix64::new(!of.seed);
    if of.reverse {
        scan = scan.reverse();
    }
    if let Some(limit) = of.limit {
        scan = scan.limit(limit);
    }
    let mut entries = Vec::new();
    while of.abandon_after.is_none_or(|after| entries.len() < after) {
        let other = random.chance(of.other_percent);
        let back = other != of.reverse;
        if let Scanning::Local(local) = &mut scan
            && borrows.chance(SHOWN_PERCENT)
        {
            // Several are shown, from the end that the scan begins at.
            let most = entries.len() + 1 + borrows.below(SHOWN_MOST) as usize;
            let most = of.abandon_after.map_or(most, |after| most.min(after));
            let shown = local.for_each(|key, value| {
                entries.push((of.reverse, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                if entries.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            shown.await?;
            if entries.len() < most {
                return Ok(Answered::Entries(entries, Some(of.reverse)));
            }
            continue;
        }
        let borrowed = borrows.chance(BORROWED_PERCENT);
        match scan.step(other, borrowed).await? {
            Some((key, value)) => entries.push((back, key, value)),
            None => return Ok(Answered::Entries(entries, Some(back))),
        }
        if random.chance(of.pause_percent) {
            Pause(false).await;
        }
    }
    Ok(Answered::Entries(entries, None))
}

/// Whether a state gives an answer.
fn explains(model: &Model, what: &What, answer: &Answered) -> bool {
    match (what, answer) {
        (What::Get(path, key), Answered::Values(values)) => values[..] == [model.get(path, key).cloned()],
        (What::GetMany(path, keys), Answered::Values(values)) => {
            keys.len() == values.len()
                && keys.iter().zip(values).all(|(key, value)| model.get(path, key) == value.as_ref())
        }
        (What::Exists(path), Answered::Exists(exists)) => model.exists(path) == *exists,
        (What::Children(path, _), Answered::Names(names)) => model.children(*path) == *names,
        (What::Scan(of), Answered::Entries(entries, end)) => {
            let map = model.map(of.path);
            let within = |key: &Bytes| match &of.keys {
                Keys::All => true,
                Keys::Prefix(prefix) => key.starts_with(prefix),
                Keys::Between(low, high) => key >= low && key < high,
            };
            let mut expected = map.iter().filter(|(key, _)| within(key));
            let count = entries.len();
            entries.iter().all(|(back, key, value)| {
                let next = if *back { expected.next_back() } else { expected.next() };
                next == Some((key, value))
            }) && match end {
                None => true,
                Some(_) => of.limit == Some(count) || expected.next().is_none(),
            }
        }
        _ => false,
    }
}

impl World<'_> {
    fn source(&mut self, view: View) -> Source {
        let session = self.session();
        match view {
            View::Held(place) if !session.held.is_empty() => {
                let held = session.held[place as usize % session.held.len()].clone();
                Source::Held(held)
            }
            View::Newest(Route::Mailbox) => Source::Remote,
            _ => Source::Local(session.shard.local()),
        }
    }

    /// Begins a read, and perhaps waits for it.
    pub(crate) fn read(&mut self, view: View, what: &What, wait: bool) {
        let source = self.source(view);
        self.read_from(source, what, wait);
    }

    /// Reads all of a snapshot. What a merge has let go of too early is seldom what a single read asks for.
    fn read_all(&mut self, held: &Held) {
        for path in PATHS {
            let all = ScanOf {
                path,
                keys: Keys::All,
                reverse: false,
                limit: None,
                other_percent: 0,
                pause_percent: 0,
                abandon_after: None,
                seed: 0,
            };
            self.read_from(Source::Held(held.clone()), &What::Scan(all), true);
        }
    }

    fn read_from(&mut self, source: Source, what: &What, wait: bool) {
        self.coverage.hit(match (&source, what) {
            (Source::Held(_), _) => "read: of a snapshot",
            (_, What::Get(..)) => "read: get",
            (_, What::GetMany(..)) => "read: batched get",
            (_, What::Exists(_)) => "read: exists",
            (_, What::Children(..)) => "read: listing",
            (_, What::Scan(of)) if of.reverse => "read: reverse scan",
            (_, What::Scan(_)) => "read: scan",
        });
        let least = self.newest();
        let at = match &source {
            Source::Held(held) => Some(held.commit()),
            // It may be done together with others, a turn later.
            Source::Local(_) if matches!(what, What::Get(..)) => None,
            // It begins at once.
            Source::Local(_) => Some(least),
            Source::Remote => None,
        };
        let session = self.session();
        let engine = session.shard.engine().clone();
        let of = what.clone();
        let directory = match what {
            What::Get(path, _)
            | What::GetMany(path, _)
            | What::Exists(path)
            | What::Children(Some(path), _) => Some(session.directory(path)),
            What::Scan(of) => Some(session.directory(of.path)),
            What::Children(None, _) => None,
        };
        // A listing has no way of its own on the shard's thread; and of pages, each is of its own commit.
        let (least, at) = match (what, &source) {
            (What::Children(Some(_), _), Source::Held(Held::Remote(_))) => (least, at),
            (What::Children(..), _) => (least, None),
            _ => (least, at),
        };
        let read = async move {
            match (of, &directory) {
                (What::Get(_, key), Some(directory)) => {
                    source.get(directory, &key).await.map(|value| Answered::Values(vec![value]))
                }
                (What::GetMany(_, keys), Some(directory)) => {
                    source.get_many(directory, &keys).await.map(Answered::Values)
                }
                (What::Exists(_), Some(directory)) => source.exists(directory).await.map(Answered::Exists),
                (What::Scan(of), Some(directory)) => scan(source.scan(directory, &of.keys)?, of).await,
                (What::Children(_, limit), directory) => {
                    let mut names: Vec<String> = Vec::new();
                    loop {
                        let after = names.last().cloned();
                        let page = match (directory, &source) {
                            (None, _) => engine.roots(after.as_deref(), limit),
                            (Some(directory), Source::Held(Held::Remote(held))) => {
                                held.children(directory, after.as_deref(), limit)
                            }
                            (Some(directory), _) => directory.children(after.as_deref(), limit),
                        };
                        let page = page.await?;
                        let full = page.len() == limit;
                        names.extend(page);
                        if !full {
                            return Ok(Answered::Names(names));
                        }
                    }
                }
                _ => Err(Error::Closed),
            }
        };
        let answer = self.spawn(read);
        // Only one page is sure to be of one commit.
        let wait = wait || matches!(what, What::Children(..));
        self.session().reads.push(PendingRead { what: what.clone(), least, at, answer: answer.clone() });
        self.finish_reads();
        if wait {
            let pending = |world: &mut Self| {
                world.session().reads.iter().any(|read| std::rc::Rc::ptr_eq(&read.answer, &answer))
            };
            for turns in 0.. {
                if !pending(self) {
                    break;
                }
                assert!(turns < 100_000, "a read does not come to an end: {:?}", self.session().shard);
                let left = self.turn();
                let asleep = left != quipu::simulation::Left::More && pending(self);
                assert!(!asleep, "the shard sleeps on a read: {:?}", self.session().shard);
            }
        }
    }

    /// Checks the reads that are over.
    pub(crate) fn finish_reads(&mut self) {
        let newest = self.newest();
        let Some(session) = &mut self.session else { return };
        if session.reads.is_empty() {
            return;
        }
        let over = session.reads.extract_if(.., |read| read.answer.borrow().is_some());
        for read in over.collect::<Vec<_>>() {
            let answer = read.answer.borrow_mut().take();
            match answer {
                Some(Err(error)) => self.tolerate(&error, "a read"),
                Some(Ok(answer)) => {
                    let commits = match read.at {
                        Some(at) => at.0..=at.0,
                        None => read.least.0..=newest.0,
                    };
                    let one = commits.clone().any(|at| explains(self.state(Commit(at)), &read.what, &answer));
                    // A listing of several pages while commits go on is of no one state.
                    let paged = matches!(read.what, What::Children(..)) && commits.clone().count() > 1;
                    assert!(one || paged, "{:?} at commits {commits:?} gives {answer:?}", read.what);
                }
                None => {}
            }
        }
    }

    /// Takes a snapshot, and holds it.
    pub(crate) fn hold(&mut self, hold: Hold) {
        let newest = self.newest();
        let (route, asked) = match hold {
            Hold::Newest(route) => (route, None),
            Hold::AsOf(route, share) => (route, Some(Commit(newest.0 * u64::from(share) / 1000))),
            Hold::Oldest(route) => {
                let divisor = self.divisor();
                let kept = retained(&self.retentions, divisor, newest);
                let oldest = kept.iter().rposition(|kept| !kept).map_or(0, |missing| missing + 1);
                (route, Some(Commit(oldest as u64).min(newest)))
            }
            Hold::AsOfAligned(route, share, zeros) => {
                let unit = u64::from(self.divisor().get()).pow(u32::from(zeros));
                let near = newest.0 * u64::from(share) / 1000;
                (route, Some(Commit(near / unit * unit)))
            }
        };
        self.coverage.hit(if asked.is_some() { "read: as of" } else { "snapshot" });
        let divisor = self.divisor();
        let session = self.session();
        let local = session.shard.local();
        let got = match (route, asked) {
            (Route::Local, None) => Ok(Held::Local(local.snapshot())),
            (Route::Local, Some(asked)) => local.as_of(asked).map(Held::Local),
            (Route::Mailbox, asked) => {
                let engine = session.shard.engine().clone();
                let directory = session.directory("r");
                let cell = self.spawn(async move {
                    match asked {
                        None => engine.snapshot(&directory).await,
                        Some(asked) => engine.as_of(&directory, asked).await,
                    }
                });
                self.wait(&cell).map(Held::Remote)
            }
        };
        // Commits may have gone on meanwhile.
        let later = self.newest();
        let doubtful = self.retentions.is_empty();
        let retained = |asked: Commit| {
            let at = (newest.0..=later.0).map(Commit);
            let at = at.map(|newest| {
                retained(&self.retentions, divisor, newest).get(asked.0 as usize) == Some(&true)
            });
            (at.clone().any(|kept| kept), at.clone().all(|kept| kept))
        };
        match (got, asked) {
            (Ok(held), Some(asked)) => {
                assert_eq!(held.commit(), asked);
                assert!(doubtful || retained(asked).0, "{asked} is answered, and not retained at {newest}");
                self.coverage.hit("read: as of, retained");
                self.read_all(&held);
                self.push_held(held);
            }
            (Ok(held), None) => {
                assert!(held.commit() >= newest && held.commit() <= later);
                self.push_held(held);
            }
            (Err(Error::NotRetained { asked: said, .. }), Some(asked)) => {
                assert_eq!(said, asked);
                // One beyond the newest can only be refused.
                let kept = asked <= newest && retained(asked).1;
                assert!(doubtful || !kept, "{asked} is retained at {newest}, and refused");
            }
            (Err(error), _) => self.tolerate(&error, "a snapshot"),
        }
    }

    fn push_held(&mut self, held: Held) {
        let session = self.session();
        if session.held.len() >= 4 {
            session.held.remove(0);
        }
        session.held.push(held);
    }

    /// Lets a snapshot go.
    pub(crate) fn release(&mut self, place: u8) {
        let session = self.session();
        if !session.held.is_empty() {
            let place = place as usize % session.held.len();
            session.held.remove(place);
        }
    }
}
