//! The kinds of operation that a run knows, and one operation as a client gets it.

use super::dataset::Dataset;

/// What kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum OpKind {
    /// One put, committed on its own.
    Put,
    /// Several puts in one directory, committed as one.
    Batch,
    /// One put of a key that was never written.
    Insert,
    /// One point read of a key that may be there.
    Get,
    /// One point read of a key that was never written.
    Absent,
    /// A scan forwards from a key on.
    Scan,
    /// The newest entries of a directory: backwards over those with a prefix.
    Newest,
    /// A point read, and then a put of the same key (YCSB F).
    ReadModifyWrite,
    /// A point read as of a retained commit.
    AsOf,
}

impl OpKind {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = 9;
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [OpKind; OpKind::COUNT] = [
        OpKind::Put,
        OpKind::Batch,
        OpKind::Insert,
        OpKind::Get,
        OpKind::Absent,
        OpKind::Scan,
        OpKind::Newest,
        OpKind::ReadModifyWrite,
        OpKind::AsOf,
    ];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OpKind::Put => "commit",
            OpKind::Batch => "batch",
            OpKind::Insert => "insert",
            OpKind::Get => "read",
            OpKind::Absent => "absent",
            OpKind::Scan => "scan",
            OpKind::Newest => "newest",
            OpKind::ReadModifyWrite => "rmw",
            OpKind::AsOf => "as-of",
        }
    }

    /// Whether it commits.
    pub(crate) fn writes(self) -> bool {
        matches!(self, OpKind::Put | OpKind::Batch | OpKind::Insert | OpKind::ReadModifyWrite)
    }
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    /// What to do.
    pub(crate) kind: OpKind,
    /// On which shard.
    pub(crate) shard: u16,
    /// In which of the shard's directories: that of the slot, where it has one.
    pub(crate) directory: u32,
    /// To which slot. For a batch the first, for a scan where it starts; none for inserts and `Newest`.
    pub(crate) slot: u32,
    /// How many: puts of a batch, entries of a scan.
    pub(crate) count: u32,
    /// A draw that chooses the commit of an as-of read.
    pub(crate) draw: u32,
}

impl Op {
    /// Asks for what the operation will need of the data's table. It is larger than a core's cache: asked for one
    /// operation ahead, a miss (a quarter of all that a client needs) overlaps with the work before.
    pub(crate) fn touch(&self, dataset: &Dataset) {
        std::hint::black_box(dataset.expect(self.slot));
    }
}
