//! Point reads of several keys together, where all that they need is in memory.
//!
//! A read alone waits for memory again and again: for the filter, the block, its slots, the entry. Reads that go
//! step by step, each step for all of them, wait for all of their lines at once (Chen, Ailamaki, Gibbons and Mowry,
//! "Improving Hash Join Performance through Prefetching", ICDE 2004: group prefetching).

use super::block::{Block, BlockKind, Target};
use super::key_hash;
use super::reader::{Segment, Step};
use crate::cache::BlockCache;
use crate::entry::DirectoryId;
use crate::levels::Commit;
use smallvec::SmallVec;
use std::hint::black_box;
use std::rc::Rc;

/// A key that is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) directory: DirectoryId,
    pub(crate) key: &'a [u8],
    /// [`key_hash`] of both.
    hash: u64,
}

impl<'a> Wanted<'a> {
    #[inline]
    pub(crate) fn new(directory: DirectoryId, key: &'a [u8]) -> Self {
        Wanted { directory, key, hash: key_hash(directory, key) }
    }
}

/// What a segment says about a key of which it may hold a version.
pub(crate) enum Answered<'a> {
    /// It holds this one: an entry of a block, by place.
    Found(&'a Block, usize),
    /// That takes a look at the disk.
    Unknown,
}

/// Keys that are on their way down at a time, before it takes more memory: most segments hold few of those looked for.
const WAYS: usize = 16;

/// A key on its way down.
struct Way<'s, 'k> {
    /// Its place among the keys.
    number: usize,
    segment: &'s Segment,
    target: Target<'k>,
    /// The last index block and the child taken there; none above the root.
    above: Option<Step>,
    data: Option<Rc<Block>>,
}

/// As [`Segment::get_now`], for several keys, each in the segment that is to be asked for it, if there is one. Tells what it finds, with
/// the key's place among them; nothing of a key that is not there.
pub(crate) fn get_each_now<'s, 'k>(
    cache: &BlockCache,
    keys: &[Wanted<'k>],
    at: Commit,
    segment_of: impl Fn(&Wanted<'k>) -> Option<&'s Segment>,
    mut tell: impl FnMut(usize, Answered<'_>),
) {
    let mut ways = SmallVec::<[Way<'_, '_>; WAYS]>::new();
    for (number, wanted) in keys.iter().enumerate() {
        let segment = segment_of(wanted).filter(|segment| {
            segment.meta().identity.first <= at && segment.in_range(wanted.directory, wanted.key)
        });
        let Some(segment) = segment else { continue };
        match segment.may_have_directory_now(cache, wanted.directory) {
            Some(false) => {}
            Some(true) => {
                let target = Target::new(wanted.directory, wanted.key, segment.distance(at));
                ways.push(Way { number, segment, target, above: None, data: None });
            }
            None => tell(number, Answered::Unknown),
        }
    }
    let depth = |way: &Way<'_, '_>| way.segment.meta().depth;
    for level in 1..ways.iter().map(depth).max().unwrap_or(1) {
        ways.retain(|way| level >= depth(way) || way.go_down(cache, BlockKind::Node, &mut tell));
    }
    // Most segments hold few of the keys: this asks for one line of each key's filter.
    ways.retain(|way| match way.segment.filter_now(cache, way.above.as_ref()) {
        Some(filter) => filter.may_contain(keys[way.number].hash),
        None => way.ends_unknown(&mut tell),
    });
    ways.retain(|way| way.go_down(cache, BlockKind::Leaf, &mut tell));
    ways.retain(|way| {
        way.data = way.segment.child_now(cache, way.above.as_ref(), BlockKind::Data);
        way.data.is_some() || way.ends_unknown(&mut tell)
    });
    let blocks = ways.iter().filter_map(|way| way.data.as_deref());
    black_box(blocks.fold(0, |sum, block| sum ^ block.touch_slots()));
    let found = ways.iter().filter_map(|way| Some(way.data.as_ref()?.touch_entry(&way.target)));
    black_box(found.fold(0, |sum, byte| sum ^ byte));
    for way in &ways {
        if let Some(block) = way.data.as_deref()
            && let Some(at) = block.find(&way.target)
        {
            tell(way.number, Answered::Found(block, at));
        }
    }
}

impl Way<'_, '_> {
    /// One index block further down; false where that ends the way.
    #[inline]
    fn go_down(
        &mut self,
        cache: &BlockCache,
        kind: BlockKind,
        tell: &mut impl FnMut(usize, Answered<'_>),
    ) -> bool {
        let Some(block) = self.segment.child_now(cache, self.above.as_ref(), kind) else {
            return self.ends_unknown(tell);
        };
        let child = block.child_of(&self.target);
        self.above = child.map(|at| Step { block, at });
        child.is_some()
    }

    /// What is next on the way is not in memory.
    fn ends_unknown(&self, tell: &mut impl FnMut(usize, Answered<'_>)) -> bool {
        tell(self.number, Answered::Unknown);
        false
    }
}
