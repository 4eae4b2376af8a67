//! Faults on demand: a plan is asked about each operation and may make it fail.

use super::state::{ContentId, Work};
use crate::disk::{IoBuf, Op};
use std::collections::BTreeMap;

/// What goes wrong with an operation. One that does not fit the operation has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails with this error number and without any effect.
    Fail(i32),
    /// With this error number; of a write, any subset of the sectors has arrived (and is not durable).
    Torn(i32),

    /// The first call of a read or write transfers only so many bytes (whole sectors, at least one).
    Short(u64),
    /// The kernel has no resources for so many calls.
    Again(u16),
    /// A signal interrupts so many calls.
    Interrupted(u16),
    /// The first call of a read or write transfers nothing, and gives no error.
    Zero,
    /// It completes no sooner than after so many nanoseconds.
    Late(u64),
    /// Nothing completes for so many nanoseconds.
    Stop(u64),

    /// A write or a flush: is said to be done, and is not.
    Lost,
    /// A durable write: is done, and is not durable.
    Volatile,
    /// A flush: fails with this error number, and what it should have made durable looks clean from then on.
    Forgets(i32),
    /// A read or write: at this offset instead.
    Misplaced(u64),
    /// A write: to another file, which this number chooses.
    WrongFile(u64),
    /// A read: bits of one byte are flipped in what it gives.
    Flipped {
        /// Which byte of the buffer, modulo its length.
        offset: u64,
        /// The bits.
        xor: u8,
    },
    /// A read: bits of one byte are flipped from now on.
    Rotten {
        /// Which byte of the buffer, modulo its length.
        offset: u64,
        /// The bits.
        xor: u8,
    },
}

impl Fault {
    /// Whether the operation completes in the end as if nothing had been.
    pub(super) fn is_benign(self) -> bool {
        matches!(
            self,
            Fault::Short(_) | Fault::Again(_) | Fault::Interrupted(_) | Fault::Late(_) | Fault::Stop(_)
        )
    }
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
    /// Whether a write is to be durable when it completes.
    pub durable: bool,
}

/// Asked about each operation; answers what goes wrong with it, if anything does.
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
        let durable = matches!(work, Work::Write { durable: true, .. });
        FaultSite { number, kind, name, offset: offset as u64, bytes: bytes as u64, durable }
    }
}
