//! Installing: making a change durable in the manifest, then visible. One change at a time, in order.
//!
//! A change becomes one edit of the manifest. Only when the edit is durable is the view replaced, and only
//! then are files that it took away marked to be removed (they go when the last snapshot that reads them
//! does) and log files released whose commits are all in segments.
//!
//! What the manifest holds of a segment is a *role*: a kind (one byte, see [`Kind`]), for a part its bounds, and
//! the segment's own description.

use super::{Core, State};
use crate::codec::{Reader, put_prefixed, put_varint};
use crate::compact::{Change, NewParts};
use crate::entry::DirectoryId;
use crate::error::{Error, Result};
use crate::levels::{Aligned, Commit, History, Level, Retention, Span};
use crate::manifest::{Edit, Manifest};
use crate::probes;
use crate::segment::{Leftover, Segment, SegmentMeta};
use crate::view::{FullKey, Kind, Part, Source, View, work_bytes};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The schedule at the floor.
pub(crate) const FACT_SCHEDULE: u16 = 1;
/// The base: the last commit folded into all of it, and its bytes of entries.
pub(crate) const FACT_BASE: u16 = 2;
/// What history is retained, and since when.
pub(crate) const FACT_HISTORY: u16 = 3;
/// A commit that was durable when the edit was made, with all before it: a log that ends earlier has lost something.
pub(crate) const FACT_DURABLE: u16 = 4;

type Applying = Pin<Box<dyn Future<Output = (Manifest, Result<()>)>>>;

/// The manifest, idle or at work, and the changes that wait for it.
pub(crate) struct Installer {
    idle: Option<Manifest>,
    busy: Option<(Applying, Next)>,
    changes: VecDeque<Change>,
    failed: bool,
}

/// What becomes visible when the edit at work is durable.
struct Next {
    view: View,
    gone: Vec<Rc<Segment>>,
    floor: Commit,
    base_bytes: u64,
    /// The carry that is done by it.
    done: Option<Commit>,
    /// The spill that is done by it.
    spilled: Option<Span>,
    /// The files that are not loose any more.
    settled: Vec<String>,
}

impl Installer {
    pub(crate) fn new(manifest: Manifest) -> Self {
        Installer { idle: Some(manifest), busy: None, changes: VecDeque::new(), failed: false }
    }

    /// Whether an edit is at work or waits.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_some() || (!self.changes.is_empty() && !self.failed)
    }

    /// Whether the manifest takes no edits any more, until it is opened again.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Adds a change behind those that wait.
    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push_back(change);
    }

    /// Notes in the manifest that all commits up to one are durable. For the end: no edit is at work or waits.
    pub(crate) async fn note_durable(&mut self, commit: Commit) -> Result<()> {
        let known = |manifest: &Manifest| {
            manifest.state().facts.get(&FACT_DURABLE).and_then(|bytes| decode_durable(bytes))
        };
        match &mut self.idle {
            Some(manifest) if !self.failed && known(manifest) != Some(commit) => {
                let facts = vec![(FACT_DURABLE, encode_durable(commit))];
                manifest.apply(Edit { facts, ..Edit::default() }).await
            }
            _ => Ok(()),
        }
    }

    /// Lets go of changes that wait, since their work is given up.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
    }
}

impl Core {
    /// Goes on with the change at work, and begins the next. Answers whether something was installed.
    pub(super) fn install(&self) -> Result<bool> {
        let mut installed = false;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        loop {
            if let Some((applying, _)) = &mut state.installer.busy {
                let mut cx = Context::from_waker(Waker::noop());
                let Poll::Ready((manifest, result)) = applying.as_mut().poll(&mut cx) else { break };
                let Some((_, next)) = state.installer.busy.take() else { break };
                state.installer.idle = Some(manifest);
                if let Err(error) = result {
                    state.installer.changes.clear();
                    let harmless = matches!(error, Error::NoSpace { .. } | Error::Invalid { .. });
                    state.installer.failed = !harmless;
                    return Err(error);
                }
                let done = next.done;
                state.leftovers.extend(next.gone.iter().map(|segment| Leftover::of(segment, &self.cache)));
                state.show(next);
                if let Some(due) = done {
                    probes::carry_installed(self.config.shard, due);
                }
                installed = true;
            }
            let Some(change) = state.installer.changes.pop_front() else { break };
            let Some(mut manifest) = state.installer.idle.take() else { break };
            let (edit, next) = state.plan(change);
            let applying = Box::pin(async move {
                let result = manifest.apply(edit).await;
                (manifest, result)
            });
            state.installer.busy = Some((applying, next));
        }
        Ok(installed)
    }
}

impl State {
    /// What a change does to the manifest and to the view.
    fn plan(&self, change: Change) -> (Edit, Next) {
        let mut view = View::clone(&self.tip.view);
        let mut edit = Edit::default();
        let mut gone = Vec::new();
        let mut base_bytes = self.tip.base_bytes;
        let (mut done, mut spilled) = (None, None);
        let mut settled = Vec::new();
        match change {
            Change::Window { segment, span } => {
                gone = segments_of(view.take_within(span));
                edit.remove = names_of(&gone);
                edit.add.push((segment.name().to_string(), encode_role(Kind::Window, None, &segment)));
                view.insert(Source::Segment(segment));
                done = Some(span.last);
            }
            Change::Spill { segment, span } => {
                // Where its carry was installed meanwhile, there is nothing to spill any more: what lies within the
                // span is then a window, which may be the same commits.
                let within = |source: &&Source| span.covers(source.span());
                if view.sources.iter().filter(within).any(|source| !source.is_window()) {
                    gone = segments_of(view.take_within(span));
                    edit.remove = names_of(&gone);
                    edit.add.push((segment.name().to_string(), encode_role(Kind::Spill, None, &segment)));
                    view.insert(Source::Segment(segment));
                } else {
                    settled.push(segment.name().to_string());
                    segment.mark_obsolete();
                }
                spilled = Some(span);
            }
            Change::Parts(new) => gone = replace_parts(&mut view, &mut edit, new),
            Change::Folded { to, own } => {
                gone = segments_of(view.take_within(Span::new(Commit::ZERO, to)));
                edit.remove = names_of(&gone);
                if let Some(own) = own {
                    gone.extend(replace_parts(&mut view, &mut edit, own));
                }
                view.base_end = to;
                base_bytes = view.parts.iter().map(|part| work_bytes(&part.segment)).sum();
                done = Some(to);
            }
        }
        let floor = self.tip.floor_of(&view);
        let schedule = self.tip.schedule_at(floor);
        let floor = schedule.at;
        edit.facts.push((FACT_SCHEDULE, schedule.encode()));
        edit.facts.push((FACT_BASE, encode_base(view.base_end, base_bytes)));
        edit.facts.push((FACT_DURABLE, encode_durable(self.waiters.durable_until())));
        settled.extend(edit.add.iter().map(|(name, _)| name.clone()));
        (edit, Next { view, gone, floor, base_bytes, done, spilled, settled })
    }

    /// Makes visible what is durable by now.
    fn show(&mut self, next: Next) {
        let Next { view, gone, floor, base_bytes, done, spilled, settled } = next;
        settled.iter().for_each(|name| self.compaction.loose.settle(name));
        self.tip.show(view, floor);
        self.tip.base_bytes = base_bytes;
        for segment in gone {
            segment.mark_obsolete();
        }
        self.log.release(floor);
        if let Some(due) = done {
            self.compaction.installed(due, self.tip.schedule.shape.divisor);
        }
        if let Some(span) = spilled {
            self.compaction.spilled(span);
        }
    }
}

/// Puts new parts in the place of what lay within their bounds, in the view and in the edit. Answers what is gone.
fn replace_parts(view: &mut View, edit: &mut Edit, new: NewParts) -> Vec<Rc<Segment>> {
    let NewParts { low, high, parts } = new;
    let above = |key: &FullKey| high.as_ref().is_some_and(|high| key >= high);
    let mut gone = Vec::new();
    let mut kept = Vec::new();
    for part in std::mem::take(&mut view.parts) {
        if part.low < low || above(&part.low) {
            kept.push(part);
            continue;
        }
        edit.remove.push(part.segment.name().to_string());
        match &high {
            // The rest of it is still to be folded.
            Some(high) if part.ends_above(high.directory, &high.key) => {
                let rest = Part { low: high.clone(), whole: false, ..part };
                let role = encode_role(Kind::Part, Some(&rest), &rest.segment);
                edit.add.push((rest.segment.name().to_string(), role));
                kept.push(rest);
            }
            _ => gone.push(part.segment),
        }
    }
    for part in parts {
        let role = encode_role(Kind::Part, Some(&part), &part.segment);
        edit.add.push((part.segment.name().to_string(), role));
        kept.push(part);
    }
    kept.sort_by(|one, other| one.low.cmp(&other.low));
    view.parts = kept;
    gone
}

fn segments_of(sources: Vec<Source>) -> Vec<Rc<Segment>> {
    let segments = sources.into_iter().filter_map(|source| match source {
        Source::Segment(segment) => Some(segment),
        Source::Table(_) => None,
    });
    segments.collect()
}

fn names_of(segments: &[Rc<Segment>]) -> Vec<String> {
    segments.iter().map(|segment| segment.name().to_string()).collect()
}

fn put_key(out: &mut Vec<u8>, key: &FullKey) {
    put_varint(out, key.directory.0);
    put_prefixed(out, &key.key);
}

fn take_key(reader: &mut Reader<'_>) -> Option<FullKey> {
    let directory = DirectoryId(reader.varint()?);
    Some(FullKey { directory, key: reader.prefixed()?.into() })
}

/// What the manifest holds of a segment.
pub(crate) fn encode_role(kind: Kind, part: Option<&Part>, segment: &Segment) -> Vec<u8> {
    let mut out = vec![kind.to_byte()];
    if let Some(part) = part {
        out.push(u8::from(part.whole) | u8::from(part.high.is_some()) << 1);
        put_key(&mut out, &part.low);
        if let Some(high) = &part.high {
            put_key(&mut out, high);
        }
    }
    segment.meta().encode(&mut out);
    out
}

/// A segment's role, read back.
pub(crate) struct Role {
    pub(crate) kind: Kind,
    /// Of a part: its bounds, and whether its file begins at the lower one.
    pub(crate) bounds: Option<(FullKey, Option<FullKey>, bool)>,
    pub(crate) meta: SegmentMeta,
}

pub(crate) fn decode_role(bytes: &[u8]) -> Option<Role> {
    let mut reader = Reader::new(bytes);
    let kind = Kind::from_byte(reader.u8()?)?;
    let bounds = match kind {
        Kind::Part => {
            let flags = reader.u8()?;
            let low = take_key(&mut reader)?;
            let high = if flags & 2 != 0 { Some(take_key(&mut reader)?) } else { None };
            Some((low, high, flags & 1 != 0))
        }
        Kind::Window | Kind::Spill => None,
    };
    let meta = SegmentMeta::decode(&mut reader)?;
    (reader.is_empty() && meta.identity.kind == kind.to_byte()).then_some(Role { kind, bounds, meta })
}

pub(crate) fn encode_durable(commit: Commit) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, commit.0);
    out
}

pub(crate) fn decode_durable(bytes: &[u8]) -> Option<Commit> {
    let mut reader = Reader::new(bytes);
    let commit = Commit(reader.varint()?);
    reader.is_empty().then_some(commit)
}

pub(crate) fn encode_base(end: Commit, bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, end.0);
    put_varint(&mut out, bytes);
    out
}

pub(crate) fn decode_base(bytes: &[u8]) -> Option<(Commit, u64)> {
    let mut reader = Reader::new(bytes);
    let base = (Commit(reader.varint()?), reader.varint()?);
    reader.is_empty().then_some(base)
}

pub(crate) fn encode_history(history: &History) -> Vec<u8> {
    let mut out = Vec::new();
    let (kind, last, level) = match history.retention {
        Retention::Forever => (0, 0, Level(0)),
        Retention::None => (1, 0, Level(0)),
        Retention::Level(level) => (2, 0, level),
        Retention::Last(last) => (3, last, Level(0)),
        Retention::LastAndLevel(last, level) => (4, last, level),
    };
    out.push(kind);
    put_varint(&mut out, last);
    out.push(level.0);
    put_varint(&mut out, history.last_from.0);
    put_varint(&mut out, history.aligned.len() as u64);
    for part in &history.aligned {
        put_varint(&mut out, part.from.0);
        out.push(part.level.0);
    }
    out
}

pub(crate) fn decode_history(bytes: &[u8]) -> Option<History> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let last = reader.varint()?;
    let level = Level(reader.u8()?);
    let retention = match kind {
        0 => Retention::Forever,
        1 => Retention::None,
        2 => Retention::Level(level),
        3 => Retention::Last(last),
        4 => Retention::LastAndLevel(last, level),
        _ => return None,
    };
    let last_from = Commit(reader.varint()?);
    let count = reader.varint()?;
    let mut aligned = Vec::new();
    for _ in 0..count {
        aligned.push(Aligned { from: Commit(reader.varint()?), level: Level(reader.u8()?) });
    }
    reader.is_empty().then_some(History { retention, last_from, aligned })
}
