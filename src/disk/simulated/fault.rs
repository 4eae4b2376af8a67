//! Faults on demand: a plan is asked about each operation and may make it fail.

use super::state::{ContentId, Work};
use crate::disk::{IoBuf, Op};
use std::collections::BTreeMap;

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// With this error number and without any effect.
    Fail(i32),
    /// With this error number; of a write, any subset of the sectors has arrived (and is not durable).
    Torn(i32),
}

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "as in `Op`")]
pub enum OpKind {
    Open,
    Read,
    Write,
    Sync,
    Reserve,
    Truncate,
    Close,
    Rename,
    Remove,
    SyncFolder,
    List,
}

impl OpKind {
    /// The kind of an operation.
    pub fn of(op: &Op) -> OpKind {
        match op {
            Op::Open { .. } => OpKind::Open,
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Sync { .. } => OpKind::Sync,
            Op::Reserve { .. } => OpKind::Reserve,
            Op::Truncate { .. } => OpKind::Truncate,
            Op::Close { .. } => OpKind::Close,
            Op::Rename { .. } => OpKind::Rename,
            Op::Remove { .. } => OpKind::Remove,
            Op::SyncFolder => OpKind::SyncFolder,
            Op::List => OpKind::List,
        }
    }
}

/// An operation that a [fault plan](super::SimulatedFolder::set_faults) is asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultSite {
    /// The operation's number since the folder was made: 1, 2, 3 … in the order of submission. Operations that
    /// are wrong in themselves (on a file that is not open, say) are counted, but not asked about.
    pub number: u64,
    /// What it is.
    pub kind: OpKind,
    /// The file's name (a rename's new one); empty for operations on the folder and on a removed file.
    pub name: String,
    /// Where a read or write starts, in bytes.
    pub offset: u64,
    /// How much is read, written or reserved, in bytes; the length to cut to.
    pub bytes: u64,
}

/// Asked about each operation; answers how it fails, if it does.
pub(super) type FaultPlan = Box<dyn FnMut(&FaultSite) -> Option<Fault>>;

impl FaultSite {
    pub(super) fn new(
        number: u64,
        kind: OpKind,
        work: &Work,
        buf: Option<&IoBuf>,
        names: &BTreeMap<String, ContentId>,
    ) -> FaultSite {
        let (offset, bytes) = match work {
            Work::Read { offset, .. } | Work::Write { offset, .. } => (*offset, 0),
            Work::Reserve { bytes, .. } | Work::Truncate { bytes, .. } => (0, *bytes),
            _ => (0, 0),
        };
        let name = match work {
            Work::Open { name, .. } | Work::Remove { name } | Work::Rename { to: name, .. } => name.clone(),
            _ => {
                let named = names.iter().find(|(_, content)| Some(**content) == work.content());
                named.map_or(String::new(), |(name, _)| name.clone())
            }
        };
        let bytes = buf.map_or(bytes, |buf| buf.len());
        FaultSite { number, kind, name, offset: offset as u64, bytes: bytes as u64 }
    }
}
