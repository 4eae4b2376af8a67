//! Serving what comes through the mailbox.

use super::catalog::Known;
use super::mailbox::{Letter, Mailbox};
use super::request::{At, Opened, ReplyTo, Request};
use super::sequence::Reply;
use super::{Core, State, TOP, Turn};
use crate::bell;
use crate::engine::scan::RangeOf;
use crate::entry::DirectoryId;
use crate::error::{Error, Result};
use crate::levels::Commit;
use crate::path::Name;
use crate::probes;
use crate::read::{self, Page, PageRequest, Walk};
use crate::view::Frame;
use bytes::Bytes;
use std::cell::Cell;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// The most requests taken up in one turn.
const REQUESTS_PER_TURN: usize = 1024;
/// … and no more are once they have taken so long: clients that ask again as soon as they are answered would keep
/// the shard from everything else, since a page of a scan takes as long as a thousand commits.
const REQUESTS_NANOS: u64 = 500_000;
/// The clock is read once for so many commits of one permit: to read it takes a tenth of what such a commit does.
const COMMITS_PER_LOOK: usize = 8;

/// Permits to give back to the mailbox: taken by requests that are answered.
#[derive(Clone, Default)]
pub(crate) struct Spent {
    permits: Rc<Cell<usize>>,
}

impl Spent {
    /// Takes what is to be given back.
    pub(crate) fn take(&self) -> usize {
        self.permits.take()
    }
}

/// Gives a request's permits back when it goes.
pub(crate) struct Permits {
    spent: Spent,
    count: usize,
}

impl Drop for Permits {
    fn drop(&mut self) {
        let cell = &self.spent.permits;
        cell.set(cell.get() + self.count);
    }
}

impl Core {
    /// A turn that begins with the requests of a mailbox. With those there is more to do at once.
    pub(crate) fn turn_with(self: &Rc<Self>, mailbox: &Arc<Mailbox>, spent: &Spent) -> Turn {
        let taken = bell::together(|| self.take_requests(mailbox, spent));
        let turn = self.turn();
        mailbox.give_back(spent.take());
        if taken > 0 && turn != Turn::Closed { Turn::Busy } else { turn }
    }

    /// Takes up what is in the mailbox, a bounded number. Answers how many.
    fn take_requests(self: &Rc<Self>, mailbox: &Arc<Mailbox>, spent: &Spent) -> usize {
        self.allowance.refill();
        if mailbox.is_ending() {
            let mut state = self.state.borrow_mut();
            // No one waits for this end.
            state.closing.get_or_insert_with(|| oneshot::channel().0);
        }
        let mut count = 0;
        let mut began = None;
        // When the present requests were taken up.
        let mut taken_up: Option<Instant> = None;
        while count < REQUESTS_PER_TURN {
            let Some(letter) = mailbox.pop() else {
                self.snapshots.borrow_mut().release(mailbox, true);
                break;
            };
            count += 1;
            let Letter { request, permits, posted } = letter;
            if self.state.borrow().closing.is_some() {
                // What was taken up before is finished; more would keep the shard open for ever. Without its reply
                // the client learns that the engine is closed.
                drop(request);
                continue;
            }
            let waited = taken_up.get_or_insert_with(Instant::now).saturating_duration_since(posted);
            let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            self.state.borrow_mut().stages.mailbox.saturating_record(waited.max(1));
            let is_brief = permits == 1 && matches!(request, Request::Commit { .. });
            let permits = Permits { spent: spent.clone(), count: permits as usize };
            self.serve(request, permits, mailbox);
            self.snapshots.borrow_mut().release(mailbox, false);
            if is_brief && !count.is_multiple_of(COMMITS_PER_LOOK) {
                continue;
            }
            taken_up = None;
            // By the disk's clock, as all that decides something here.
            let now = self.io.now();
            if now - *began.get_or_insert(now) > REQUESTS_NANOS {
                break;
            }
        }
        count
    }

    fn serve(self: &Rc<Self>, request: Request, permits: Permits, mailbox: &Arc<Mailbox>) {
        match request {
            Request::Commit { action, durability, reply } => {
                // Its permits go once it is sequenced: what waits for its log write is bounded by the log.
                self.enqueue(action, durability, Reply::Client(reply), Some(permits));
            }
            Request::Get { name, key, at, reply } => self.read(
                at,
                reply,
                permits,
                |core, frame| async move { core.get(&frame, &name, &key).await },
            ),
            Request::GetMany { name, keys, at, reply } => {
                self.read(at, reply, permits, |core, frame| async move {
                    core.get_many(&frame, &name, &keys).await
                })
            }
            Request::Page { name, page, at, own, reply } => {
                let mailbox = mailbox.clone();
                self.read(at, reply, permits, move |core, frame| async move {
                    core.scan_page(&frame, &name, &page, at, own, mailbox).await
                })
            }
            Request::Exists { name, at, reply } => self.read(at, reply, permits, |core, frame| async move {
                Ok(core.directory_of(&frame, &name).await?.is_some())
            }),
            Request::Children { name, after, limit, at, reply } => {
                self.read(at, reply, permits, move |core, frame| async move {
                    core.children(&frame, name.path(), after.as_deref(), limit).await
                });
            }
            Request::Roots { after, limit, reply } => {
                self.read(At::Newest, reply, permits, move |core, frame| async move {
                    core.roots(&frame, after.as_deref(), limit).await
                });
            }
            Request::Open { commit, reply } => {
                let opened = commit.map_or_else(|| Ok(self.frame()), |commit| self.frame_as_of(commit));
                let opened = opened.and_then(|frame| {
                    let commit = frame.commit;
                    let snapshot = self.snapshots.borrow_mut().open(frame)?;
                    Ok(Opened { snapshot, commit, mailbox: mailbox.clone() })
                });
                drop(reply.send(opened));
            }
            Request::Retained { reply } => drop(reply.send(Ok(self.retained()))),
            Request::Barrier { reply } => self.barrier(reply),
            Request::Stats { reply } => {
                let mut stats = self.stats();
                (stats.wakes_sent, stats.wakes_saved) = mailbox.wakes();
                drop(reply.send(Ok(Box::new(stats))));
            }
            Request::Segments { reply } => drop(reply.send(Ok(self.segments()))),
            Request::Verify { reply } => {
                self.read(At::Newest, reply, permits, |_, frame| async move {
                    Ok(super::verify::verify(&frame).await)
                });
            }
            Request::Run { task } => task(super::local::Local::new(self.clone(), Weak::default())),
            Request::Close { reply } => {
                let mut state = self.state.borrow_mut();
                if state.closing.is_none() {
                    state.closing = Some(reply);
                }
            }
        }
    }

    /// Runs a read in a task, at the state that it names, and answers it.
    fn read<T, F, Fut>(self: &Rc<Self>, at: At, reply: ReplyTo<T>, permits: Permits, read: F)
    where
        T: 'static,
        F: FnOnce(Rc<Core>, Frame) -> Fut,
        Fut: Future<Output = Result<T>> + 'static,
    {
        let frame = match at {
            At::Newest => Ok(self.frame()),
            At::Snapshot(snapshot) => self.snapshots.borrow().get(snapshot),
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let future = read(self.clone(), frame);
        self.tasks.run(async move {
            let result = future.await;
            drop(permits);
            // The client may have stopped waiting.
            let _ = reply.send(result);
        });
    }

    /// Answers once everything committed so far is durable: what is sequenced, and what waits to be.
    pub(crate) fn barrier(&self, who: ReplyTo<()>) {
        let mut state = self.state.borrow_mut();
        let ahead = state.queue.len();
        if ahead > 0 {
            state.barriers.push((ahead, who));
            return;
        }
        state.barrier(who);
        drop(state);
        self.kick();
    }

    /// So many commits have left the queue: barriers that waited for the last of them go on.
    pub(super) fn barriers_go_on(&self, gone: usize) {
        let mut state = self.state.borrow_mut();
        let empty = state.queue.is_empty();
        let reached = state.barriers.extract_if(.., |(ahead, _)| {
            *ahead = ahead.saturating_sub(gone);
            *ahead == 0 || empty
        });
        let reached: Vec<_> = reached.collect();
        // What is in the queue by now came behind them.
        for (_, who) in reached {
            state.barrier(who);
        }
    }

    /// The value of a key.
    pub(crate) async fn get(&self, frame: &Frame, name: &Name, key: &[u8]) -> Result<Option<Bytes>> {
        let shard = self.config.shard;
        probes::get_begun(shard);
        let got = match self.directory_of(frame, name).await? {
            Some(directory) => read::get(frame, &self.cache, directory, key).await,
            None => Ok(None),
        };
        probes::get_ended(shard, matches!(got, Ok(Some(_))));
        got.map_err(|error| error.on_shard(shard))
    }

    /// The values of several keys, in their order.
    pub(crate) async fn get_many<K: AsRef<[u8]>>(
        &self,
        frame: &Frame,
        name: &Name,
        keys: &[K],
    ) -> Result<Vec<Option<Bytes>>> {
        match self.directory_of(frame, name).await? {
            Some(directory) => read::get_many(frame, &self.cache, directory, keys)
                .await
                .map_err(|error| error.on_shard(self.config.shard)),
            None => Ok(vec![None; keys.len()]),
        }
    }

    /// A page of a scan, and the walk that goes on behind it, if there may be more. `walk` is the one that stands
    /// where the page begins; without, a new one is made.
    pub(crate) async fn page(
        &self,
        frame: &Frame,
        name: &Name,
        request: &PageRequest,
        walk: Option<Walk>,
    ) -> Result<(Page, Option<Walk>)> {
        let mut walk = match walk {
            Some(walk) => walk,
            None => {
                request.range.check()?;
                let Some(directory) = self.directory_of(frame, name).await? else {
                    return Ok((Page::default(), None));
                };
                self.begin_walk(frame, directory, &request.range, request.back).await?
            }
        };
        let page = walk.page(request).await?;
        let more = page.more;
        Ok((page, more.then_some(walk)))
    }

    /// See [`Walk::start`].
    pub(super) async fn begin_walk(
        &self,
        frame: &Frame,
        directory: DirectoryId,
        range: &RangeOf,
        back: bool,
    ) -> Result<Walk> {
        Walk::start(frame, &self.cache, &self.allowance, directory, range, back).await
    }

    /// See [`Walk::start_now`]; of a directory that is known.
    pub(super) fn begin_walk_now(&self, frame: &Frame, name: &Name, range: &RangeOf) -> Option<Walk> {
        let Known::Is(directory) = self.known_directory(frame, name) else { return None };
        Walk::start_now(frame, &self.cache, &self.allowance, directory, range)
    }

    /// A page of a scan from another thread. Where there is more, the scan gets a snapshot of its own, if it has none
    /// yet, and the walk is kept with that.
    async fn scan_page(
        &self,
        frame: &Frame,
        name: &Name,
        request: &PageRequest,
        at: At,
        own: bool,
        mailbox: Arc<Mailbox>,
    ) -> Result<Page> {
        let kept = match at {
            At::Snapshot(snapshot) if own => self.snapshots.borrow_mut().take_walk(snapshot, request.back),
            _ => None,
        };
        // A client that gave up waiting for a page asks for it again: the walk may have gone on.
        let kept = kept.filter(|walk| walk.stands_at(request));
        let (mut page, walk) = self.page(frame, name, request, kept).await?;
        let Some(walk) = walk else { return Ok(page) };
        let mut snapshots = self.snapshots.borrow_mut();
        let snapshot = match at {
            At::Snapshot(snapshot) if own => snapshot,
            _ => match snapshots.open(frame.clone()) {
                Ok(snapshot) => {
                    page.opened = Some(Opened { snapshot, commit: frame.commit, mailbox });
                    snapshot
                }
                // A scan of a snapshot that someone holds goes on without one of its own, and seeks for each page.
                Err(_) if matches!(at, At::Snapshot(_)) => return Ok(page),
                Err(error) => return Err(error),
            },
        };
        snapshots.keep_walk(snapshot, request.back, walk);
        Ok(page)
    }

    /// The names under a directory, in order: at most `limit` of those after `after`.
    pub(crate) async fn children(
        &self,
        frame: &Frame,
        path: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        match self.directory_at(frame, path).await? {
            Some(directory) => self.names_under(frame, directory.0, after, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// The paths of the shard's roots, in the order of their components: at most `limit` of those after `after`.
    pub(crate) async fn roots(
        &self,
        frame: &Frame,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let after: Vec<&str> = after.map(|after| after.split('/').collect()).unwrap_or_default();
        let components = self.config.fixed.root_components;
        let mut roots = Vec::new();
        self.roots_under(frame, String::new(), TOP, components, &after, limit, &mut roots).await?;
        Ok(roots)
    }

    /// Adds the roots that have so many components more than a prefix, those after `after`.
    #[expect(clippy::too_many_arguments, reason = "a step of a recursion")]
    fn roots_under<'a>(
        &'a self,
        frame: &'a Frame,
        prefix: String,
        parent: u64,
        components: u8,
        after: &'a [&'a str],
        limit: usize,
        roots: &'a mut Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>> {
        let path = move |name: &str| match prefix.is_empty() {
            true => name.to_string(),
            false => format!("{prefix}/{name}"),
        };
        Box::pin(async move {
            let first = after.first().copied();
            if components <= 1 {
                let names = self.names_under(frame, parent, first, limit - roots.len()).await?;
                roots.extend(names.iter().map(|name| path(name)));
                return Ok(());
            }
            // What `after` lies under goes on behind it; what comes later is taken whole.
            let mut rest = after.get(1..).unwrap_or_default();
            let mut next = match first {
                Some(first) => Some(first.to_string()),
                None => self.names_under(frame, parent, None, 1).await?.pop(),
            };
            while let Some(name) = next
                && roots.len() < limit
            {
                let inner = path(&name);
                if let Some(id) = self.directory_at(frame, &inner).await? {
                    self.roots_under(frame, inner, id.0, components - 1, rest, limit, roots).await?;
                }
                rest = &[];
                next = self.names_under(frame, parent, Some(&name), 1).await?.pop();
            }
            Ok(())
        })
    }

    /// The names under a directory's number (or of the top level), in order.
    async fn names_under(
        &self,
        frame: &Frame,
        parent: u64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let mut range = RangeOf::prefix(&parent.to_be_bytes());
        if let Some(after) = after {
            range.low = Bound::Excluded(Bytes::from(Core::catalog_key(parent, after)));
        }
        let mut names = Vec::new();
        if limit == 0 || range.is_empty() {
            return Ok(names);
        }
        let mut walk = self.begin_walk(frame, DirectoryId::CATALOG, &range, false).await?;
        let mut request = PageRequest { range, back: false, entries: limit };
        loop {
            let mut page = walk.page(&request).await?;
            while let Some((key, _)) = page.take_first() {
                let name = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
                let name = name.ok_or_else(|| Error::damaged("catalog", 0, "a name that is not UTF-8"))?;
                names.push(name.to_string());
            }
            request.entries = limit - names.len();
            if !page.more || request.entries == 0 {
                return Ok(names);
            }
        }
    }

    /// The newest durable commit.
    pub(crate) fn durable(&self) -> Commit {
        self.state.borrow().waiters.durable_until()
    }
}

impl State {
    /// Answers once everything sequenced so far is durable.
    fn barrier(&mut self, who: ReplyTo<()>) {
        let last = self.tip.schedule.at;
        match self.poisoned.clone() {
            Some(error) => drop(who.send(Err(error))),
            None if self.waiters.durable_until() >= last => drop(who.send(Ok(()))),
            None => {
                self.urgent = self.urgent.max(last);
                self.waiters.barrier(last, who);
            }
        }
    }
}
