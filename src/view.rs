//! What a shard's state is made of at a moment: tables and segments, newest first, and the base's parts.
//!
//! A [`View`] never changes; installing a carry makes a new one. A [`Frame`] is a view together with the live
//! table and a commit: all that a read needs. Whoever holds one keeps its tables in memory and its files on
//! disk.

use crate::codec::compare_keys;
use crate::entry::DirectoryId;
use crate::levels::{Commit, Piece, Span, Window};
use crate::segment::Segment;
use crate::table::Table;
use std::cmp::Ordering;
use std::rc::Rc;

/// What a segment's file is for: the `kind` of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A window of its level.
    Window,
    /// Part of a window whose carry is still to come, written early.
    Spill,
    /// A key range of the base.
    Part,
}

impl Kind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Kind::Window => 0,
            Kind::Spill => 1,
            Kind::Part => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Window, Kind::Spill, Kind::Part].into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// A table or segment that holds all versions of some commits.
#[derive(Clone)]
pub(crate) enum Source {
    Table(Rc<Table>),
    Segment(Rc<Segment>),
}

impl Source {
    /// The commits it holds.
    pub(crate) fn span(&self) -> Span {
        match self {
            Source::Table(table) => table.span(),
            Source::Segment(segment) => segment_span(segment),
        }
    }

    /// Whether it is a window's segment: what a carry made, not what waits for one.
    pub(crate) fn is_window(&self) -> bool {
        match self {
            Source::Table(_) => false,
            Source::Segment(segment) => Kind::from_byte(segment.meta().identity.kind) == Some(Kind::Window),
        }
    }

    /// Its bytes, as the pace counts work.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Source::Table(table) => table.bytes(),
            Source::Segment(segment) => work_bytes(segment),
        }
    }
}

/// The commits that a segment holds.
pub(crate) fn segment_span(segment: &Segment) -> Span {
    let identity = &segment.meta().identity;
    Span::new(Commit(identity.first.0.saturating_sub(1)), identity.last)
}

/// A segment's bytes of entries, as the pace counts work.
pub(crate) fn work_bytes(segment: &Segment) -> u64 {
    let meta = segment.meta();
    meta.raw_bytes + meta.entries * crate::limits::OPERATION_BYTES_OVERHEAD as u64
}

/// A key within a shard, owned: where a part of the base begins or ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FullKey {
    pub(crate) directory: DirectoryId,
    pub(crate) key: Box<[u8]>,
}

impl FullKey {
    /// Before every key.
    pub(crate) fn least() -> Self {
        FullKey { directory: DirectoryId(0), key: Box::default() }
    }

    /// Where it lies against a directory and key.
    #[inline]
    pub(crate) fn compare(&self, directory: DirectoryId, key: &[u8]) -> Ordering {
        self.directory.cmp(&directory).then_with(|| compare_keys(&self.key, key))
    }
}

/// A part of the base: the entries of a file from `low` up to (and without) `high`. Keys between parts have no
/// entries.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) low: FullKey,
    pub(crate) high: Option<FullKey>,
    pub(crate) segment: Rc<Segment>,
    /// The file begins at `low`; a part of which a fold has taken the first keys already does not.
    pub(crate) whole: bool,
}

impl Part {
    /// Whether a key lies below the part's end.
    pub(crate) fn ends_above(&self, directory: DirectoryId, key: &[u8]) -> bool {
        self.high.as_ref().is_none_or(|high| high.compare(directory, key).is_gt())
    }
}

/// What a shard holds besides its live table.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// Newest first; their spans are contiguous down to the base's end.
    pub(crate) sources: Vec<Source>,
    /// By key.
    pub(crate) parts: Vec<Part>,
    /// The last commit folded into every part.
    pub(crate) base_end: Commit,
}

impl View {
    /// The part that may hold a key.
    pub(crate) fn part_of(&self, directory: DirectoryId, key: &[u8]) -> Option<&Part> {
        let above = self.parts.partition_point(|part| part.low.compare(directory, key).is_le());
        let part = &self.parts[above.checked_sub(1)?];
        part.ends_above(directory, key).then_some(part)
    }

    /// What exists, as the arithmetic sees it: tables count as spills.
    pub(crate) fn pieces(&self, divisor: crate::levels::Divisor) -> Vec<Piece> {
        let base = (self.base_end > Commit::ZERO).then_some(Piece::Base(self.base_end));
        let sources = self.sources.iter().rev().map(|source| match source {
            Source::Segment(segment)
                if Kind::from_byte(segment.meta().identity.kind) == Some(Kind::Window) =>
            {
                let identity = &segment.meta().identity;
                Window::ending_at(divisor, identity.last, identity.level)
                    .map_or(Piece::Spill(source.span()), Piece::Segment)
            }
            _ => Piece::Spill(source.span()),
        });
        base.into_iter().chain(sources).collect()
    }

    /// Puts a source in its place among the others.
    pub(crate) fn insert(&mut self, source: Source) {
        let last = source.span().last;
        let at = self.sources.partition_point(|other| other.span().last > last);
        self.sources.insert(at, source);
    }

    /// Takes out the sources whose commits lie within a span.
    pub(crate) fn take_within(&mut self, span: Span) -> Vec<Source> {
        self.sources.extract_if(.., |source| span.covers(source.span())).collect()
    }

    /// The tables, oldest first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Rc<Table>> {
        self.sources.iter().rev().filter_map(|source| match source {
            Source::Table(table) => Some(table),
            Source::Segment(_) => None,
        })
    }
}

/// All that a read needs: a commit, and where the versions up to it lie.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) commit: Commit,
    pub(crate) active: Rc<Table>,
    pub(crate) view: Rc<View>,
}
