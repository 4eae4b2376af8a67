//! The work of a carry: merging sources into files, in slices.
//!
//! Everything here is a future that its shard polls by hand, between commits ([`crate::shard::compaction`]).
//! It spends from a [`Throttle`] for each byte that it merges, and pauses when the shard has granted no more:
//! that is what bounds a slice. It decides nothing about when to run and installs nothing: finished files go
//! to its outbox as [`Change`]s.
//!
//! * [`carry`] writes a window's segment, or a spill: one merge, one file.
//! * [`fold`] folds a window into the base, part by part.
//! * [`dead`] finds the directories whose drop lies in the merge, so that their entries can go.
//! * [`loose`] keeps account of files that are not installed yet.
//! * [`output`] is the way from a segment writer to the disk.

pub(crate) mod carry;
pub(crate) mod dead;
pub(crate) mod fold;
pub(crate) mod loose;
pub(crate) mod output;
pub(crate) mod sift;

use crate::cache::BlockCache;
use crate::disk::io::Io;
use crate::levels::{Commit, Divisor, History, Level, Span};
use crate::segment::{Segment, SegmentOptions};
use crate::view::{FullKey, Part};
use loose::Loose;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// What a seek, or a look at an entry that is not merged, counts against a grant: about as much work as merging
/// so many bytes.
const LOOK_BYTES: u64 = 256;

/// What a piece of work may do until it is granted more, in bytes merged; and what it has done.
#[derive(Default)]
pub(crate) struct Throttle {
    left: Cell<u64>,
    done: Cell<u64>,
    spent: Cell<u64>,
}

impl Throttle {
    /// Lets the work go on for so many bytes.
    pub(crate) fn grant(&self, bytes: u64) {
        self.left.set(bytes);
    }

    /// Bytes merged so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.get()
    }

    /// What counted against the grants so far, in bytes.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.get()
    }

    /// Whether the grant is used up: then nothing is merged before [`pause`](Throttle::pause).
    #[inline]
    pub(crate) fn is_used_up(&self) -> bool {
        self.left.get() == 0
    }

    /// Counts bytes as merged.
    #[inline]
    pub(crate) fn spend(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        self.charge(bytes);
    }

    /// Counts bytes as done that are left as they are.
    pub(crate) fn skip(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
    }

    /// Counts a seek, or an entry that is looked at and not merged; waits where the grant is used up.
    pub(crate) async fn look(&self) {
        self.charge(LOOK_BYTES);
        if self.is_used_up() {
            self.pause().await;
        }
    }

    #[inline]
    fn charge(&self, bytes: u64) {
        self.spent.set(self.spent.get() + bytes);
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// Waits for the next grant. Nothing is woken: the shard polls again when it grants.
    pub(crate) async fn pause(&self) {
        poll_fn(|_| if self.left.get() > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// What the work of a carry needs from its shard.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) io: Io,
    pub(crate) cache: Rc<BlockCache>,
    pub(crate) shard: u16,
    pub(crate) divisor: Divisor,
    pub(crate) segments: SegmentOptions,
    pub(crate) part_bytes: u64,
    pub(crate) history: History,
    pub(crate) throttle: Rc<Throttle>,
    pub(crate) outbox: Rc<RefCell<VecDeque<Change>>>,
    /// Bytes written to segments by all carries of the shard.
    pub(crate) written: Rc<Cell<u64>>,
    /// Files that were begun and are not installed.
    pub(crate) loose: Rc<Loose>,
}

/// A change to what a shard is made of, to be made durable and then visible, as one.
pub(crate) enum Change {
    /// The segment of a window takes the place of everything within the window.
    Window { segment: Rc<Segment>, span: Span },
    /// A spill takes the place of its table, or of smaller spills.
    Spill { segment: Rc<Segment>, span: Span },
    /// New parts of the base take the place of what lay there.
    Parts(NewParts),
    /// The base is folded up to a commit: what it took in goes. The last parts are new, if they had to be: those of
    /// the engine's own directories.
    Folded { to: Commit, own: Option<NewParts> },
}

/// New parts of the base, and the bounds of what they take the place of.
pub(crate) struct NewParts {
    pub(crate) low: FullKey,
    pub(crate) high: Option<FullKey>,
    pub(crate) parts: Vec<Part>,
}

/// The file of a window's segment.
pub(crate) fn window_name(level: Level, last: Commit) -> String {
    format!("segment-{:02}-{:015}", level.0, last.0)
}

/// The file of a spill.
pub(crate) fn spill_name(span: Span) -> String {
    format!("spill-{:015}-{:015}", span.first().0, span.last.0)
}

/// The file of a part of the base.
pub(crate) fn part_name(to: Commit, number: usize) -> String {
    format!("base-{:015}-{number:05}", to.0)
}
