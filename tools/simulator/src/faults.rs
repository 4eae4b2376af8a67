//! What goes wrong with the disk: faults as data, and who injects them.
//!
//! Three kinds of run ([`Harm`]) differ in what is promised under them. In a *benign* one nothing is wrong in the end:
//! power fails, operations are slow, short, reordered, tried again; all must stay right. In a *failing* one operations
//! fail and say so: errors are typed, and nothing acknowledged is lost. In a *damaging* one the disk destroys what it
//! was given, and says nothing: an answer is right, or an error that names what is damaged.

use crate::choices::pick;
use crate::coverage::Coverage;
use quipu::disk::simulated::{Fault, FaultSite, OpKind, SECTOR_BYTES, SplitMix64};

/// No such device or address, and the like: an error.
const EIO: i32 = 5;
/// No space.
const ENOSPC: i32 = 28;

/// What may go wrong in a run. See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    /// Nothing that is not made good.
    Benign,
    /// Operations fail, and say so.
    Failing,
    /// The disk destroys things, and says nothing.
    Damaging,
}

/// Which operations a fault waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ops {
    /// Reads.
    Reads,
    /// Writes.
    Writes,
    /// Writes that are to be durable.
    DurableWrites,
    /// Flushes, of files and of the folder.
    Flushes,
    /// Everything else: opening, closing, renaming …
    Others,
}

/// Which files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// Any, and the folder.
    Any,
    /// Log files.
    Log,
    /// Manifests.
    Manifest,
    /// Segments, spills, parts.
    Segments,
}

impl Ops {
    fn include(self, site: &FaultSite) -> bool {
        match self {
            Ops::Reads => site.kind == OpKind::Read,
            Ops::Writes => site.kind == OpKind::Write,
            Ops::DurableWrites => site.kind == OpKind::Write && site.durable,
            Ops::Flushes => matches!(site.kind, OpKind::Sync | OpKind::SyncFolder),
            Ops::Others => {
                !matches!(site.kind, OpKind::Read | OpKind::Write | OpKind::Sync | OpKind::SyncFolder)
            }
        }
    }
}

impl Files {
    fn include(self, site: &FaultSite) -> bool {
        match self {
            Files::Any => true,
            Files::Log => site.name.starts_with("log-"),
            Files::Manifest => site.name.starts_with("manifest"),
            Files::Segments => ["segment-", "spill-", "base-"].iter().any(|kind| site.name.starts_with(kind)),
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An error.
    Error,
    /// An error, with a part of the effect.
    Torn,
    /// There is no space.
    NoSpace,
    /// A call transfers nothing.
    Zero,
    /// A flush fails, and all looks clean.
    Forgets,
    /// The operation takes so many nanoseconds.
    Late(u64),
    /// The disk stops for so many nanoseconds.
    Stop(u64),
    /// Done, it is said, and is not.
    Lost,
    /// Done, and not durable.
    Volatile,
    /// Elsewhere in the file.
    Misplaced,
    /// In another file.
    WrongFile,
    /// Bits are flipped, once.
    Flipped,
    /// Bits are flipped, for good.
    Rotten,
}

/// A fault that waits for an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultEvent {
    /// Of which operations.
    pub ops: Ops,
    /// On which files.
    pub files: Files,
    /// So many of them are let pass.
    pub skip: u16,
    /// What goes wrong.
    pub kind: Kind,
    /// And with all that follow too, until it is healed.
    pub for_good: bool,
    /// Decides the rest.
    pub seed: u64,
}

impl FaultEvent {
    /// A random fault of a run's kind.
    pub fn new(random: &mut SplitMix64, harm: Harm) -> FaultEvent {
        let (ops, kind) = match harm {
            Harm::Benign => {
                let second = 1_000_000_000;
                match random.below(2) {
                    0 => (
                        *pick(random, &[Ops::Reads, Ops::Writes, Ops::Flushes, Ops::Others]),
                        Kind::Late(second + random.below(4 * second)),
                    ),
                    _ => {
                        (*pick(random, &[Ops::Reads, Ops::Writes]), Kind::Stop(1_000_000 << random.below(13)))
                    }
                }
            }
            Harm::Failing => match random.below(10) {
                0 | 1 => (Ops::Reads, *pick(random, &[Kind::Error, Kind::Error, Kind::Zero])),
                2..=5 => (Ops::Writes, *pick(random, &[Kind::Error, Kind::Torn, Kind::NoSpace, Kind::Zero])),
                6 | 7 => (Ops::Flushes, *pick(random, &[Kind::Error, Kind::Forgets])),
                8 => (Ops::Others, *pick(random, &[Kind::Error, Kind::NoSpace])),
                _ => (Ops::DurableWrites, *pick(random, &[Kind::Error, Kind::Torn])),
            },
            Harm::Damaging => match random.below(10) {
                0..=2 => {
                    // Most reads are of whole files, which lie nowhere else.
                    let misplaced = Kind::Misplaced;
                    let kinds = [misplaced, misplaced, misplaced, Kind::Flipped, Kind::Rotten];
                    (Ops::Reads, *pick(random, &kinds))
                }
                3..=6 => (Ops::Writes, *pick(random, &[Kind::Lost, Kind::Misplaced, Kind::WrongFile])),
                7 => (Ops::DurableWrites, Kind::Volatile),
                _ => (Ops::Flushes, Kind::Lost),
            },
        };
        let files = *pick(random, &[Files::Any, Files::Any, Files::Log, Files::Manifest, Files::Segments]);
        let skip_max = if random.chance(50) { 3 } else { 30 };
        FaultEvent {
            ops,
            files,
            skip: random.below(skip_max) as u16,
            kind,
            for_good: harm == Harm::Failing && random.chance(30),
            seed: random.next_u64(),
        }
    }

    fn matches(&self, site: &FaultSite) -> bool {
        self.ops.include(site) && self.files.include(site)
    }

    fn fault(&self, site: &FaultSite, random: &mut SplitMix64) -> Fault {
        let page = 4096;
        let elsewhere = |random: &mut SplitMix64| random.below(16) * page;
        let xor = 1 << random.below(8);
        match self.kind {
            Kind::Error => Fault::Fail(EIO),
            Kind::Torn => Fault::Torn(EIO),
            Kind::NoSpace => Fault::Fail(ENOSPC),
            Kind::Zero => Fault::Zero,
            Kind::Forgets => Fault::Forgets(EIO),
            Kind::Late(nanos) => Fault::Late(nanos),
            Kind::Stop(nanos) => Fault::Stop(nanos),
            Kind::Lost => Fault::Lost,
            Kind::Volatile => Fault::Volatile,
            // Near by, so that there is something to read.
            Kind::Misplaced if self.ops == Ops::Reads => {
                let near = (1 + random.below(3)) * page;
                let below = site.offset >= near && random.chance(70);
                Fault::Misplaced(if below { site.offset - near } else { site.offset + near })
            }
            Kind::Misplaced => Fault::Misplaced(elsewhere(random)),
            Kind::WrongFile => Fault::WrongFile(random.next_u64()),
            Kind::Flipped => Fault::Flipped { offset: random.below(site.bytes.max(1)), xor },
            Kind::Rotten => Fault::Rotten { offset: random.below(site.bytes.max(1)), xor },
        }
    }

    /// What its first effect counts as, where the disk does not tell one time from all times.
    fn row(&self) -> Option<&'static str> {
        Some(match (self.ops, self.kind, self.for_good) {
            (Ops::Flushes, Kind::Error | Kind::Forgets, false) => "flush: fails once",
            (Ops::Flushes, Kind::Error | Kind::Forgets, true) => "flush: fails for good",
            (Ops::Reads, Kind::Error, false) => "read: EIO once",
            (Ops::Reads, Kind::Error, true) => "read: EIO for good",
            _ => return None,
        })
    }
}

/// What happens to any operation now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Background {
    short_percent: u8,
    again_percent: u8,
    late_percent: u8,
}

impl Background {
    /// A random one; often nothing.
    pub fn new(random: &mut SplitMix64) -> Background {
        Background {
            short_percent: *pick(random, &[0, 0, 3, 20]),
            again_percent: *pick(random, &[0, 0, 3, 20]),
            late_percent: *pick(random, &[0, 0, 0, 3]),
        }
    }

    fn fault(&self, site: &FaultSite, random: &mut SplitMix64) -> Option<Fault> {
        let transfers = matches!(site.kind, OpKind::Read | OpKind::Write);
        if transfers && random.chance(self.short_percent) {
            let sectors = site.bytes / SECTOR_BYTES as u64;
            return Some(Fault::Short((1 + random.below(sectors.max(2) - 1)) * SECTOR_BYTES as u64));
        }
        if site.kind != OpKind::Close && random.chance(self.again_percent) {
            return Some(Fault::Again(1 + random.below(3) as u16));
        }
        random.chance(self.late_percent).then(|| Fault::Late(random.below(20_000_000)))
    }
}

/// A fault of the call with this number, and of those after it if so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The number of the call since the disk was made, from 1 on.
    pub number: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// With which.
    pub scope: Scope,
}

/// With which calls something goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// With one.
    Once,
    /// From then on with all of its kind, until the disk is healed.
    Kind,
    /// From then on with all.
    All,
}

struct Armed {
    event: FaultEvent,
    left: u16,
    fired: bool,
    random: SplitMix64,
}

/// Kinds of operations that were made to fail, whether that told or not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Failed {
    /// Durable writes of log files: only they poison.
    pub log_writes: bool,
    /// Opening, closing, renaming, removing …
    pub names: bool,
}

impl Failed {
    fn note(&mut self, site: &FaultSite) {
        self.log_writes |= Ops::DurableWrites.include(site) && Files::Log.include(site);
        self.names |= Ops::Others.include(site);
    }
}

/// Answers the disk what goes wrong with each operation.
#[derive(Default)]
pub struct Injector {
    armed: Vec<Armed>,
    background: Background,
    random: Option<SplitMix64>,
    pinned: Option<(Pinned, Option<OpKind>)>,
    /// The kinds of the calls so far, where that is asked for.
    pub calls: Option<Vec<OpKind>>,
    /// What has gone wrong so far, that was not made good.
    pub fired: u64,
    /// What has failed since the session began.
    pub session_failed: Failed,
    /// How often a read gave something else than the disk holds, once.
    pub misread: u64,
    /// How often something was destroyed for good.
    pub destroyed: u64,
    /// Counters that the disk does not keep.
    pub coverage: Coverage,
}

impl Injector {
    /// Another session begins.
    pub fn session(&mut self, background: Background, seed: u64) {
        self.session_failed = Failed::default();
        self.background = background;
        self.random = Some(SplitMix64::new(seed));
    }

    /// A fault waits for its operation.
    pub fn arm(&mut self, event: FaultEvent) {
        self.armed.push(Armed { event, left: event.skip, fired: false, random: SplitMix64::new(event.seed) });
    }

    /// A fault waits for the call with its number.
    pub fn pin(&mut self, pinned: Pinned) {
        self.pinned = Some((pinned, None));
    }

    /// Whether the call with the number that was pinned has not come yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.pinned, Some((_, None)))
    }

    /// The disk is well from now on. What waits for its number goes on waiting.
    pub fn heal(&mut self) {
        self.armed.clear();
        self.pinned = self.pinned.filter(|(_, kind)| kind.is_none());
    }

    fn ask_pinned(&mut self, site: &FaultSite) -> Option<Fault> {
        let (pinned, kind) = self.pinned.as_mut()?;
        let goes_wrong = match (pinned.scope, *kind) {
            (_, None) => site.number >= pinned.number,
            (Scope::Once, Some(_)) => false,
            (Scope::Kind, Some(kind)) => kind == site.kind,
            (Scope::All, Some(_)) => true,
        };
        if goes_wrong {
            kind.get_or_insert(site.kind);
            self.fired += 1;
        }
        goes_wrong.then_some(pinned.fault)
    }

    /// What goes wrong with an operation.
    pub fn ask(&mut self, site: &FaultSite) -> Option<Fault> {
        if let Some(calls) = &mut self.calls {
            calls.resize(calls.len().max(site.number as usize), site.kind);
        }
        if let Some(fault) = self.ask_pinned(site) {
            return Some(fault);
        }
        for at in 0..self.armed.len() {
            let armed = &mut self.armed[at];
            if !armed.event.matches(site) {
                continue;
            }
            if armed.left > 0 {
                armed.left -= 1;
                continue;
            }
            let fault = armed.event.fault(site, &mut armed.random);
            if let Some(row) = armed.event.row().filter(|_| !armed.fired) {
                self.coverage.hit(row);
            }
            armed.fired = true;
            if !matches!(armed.event.kind, Kind::Late(_) | Kind::Stop(_)) {
                self.fired += 1;
                self.session_failed.note(site);
                match (armed.event.ops, armed.event.kind) {
                    (Ops::Reads, Kind::Misplaced | Kind::Flipped) => self.misread += 1,
                    (_, Kind::Error | Kind::Torn | Kind::NoSpace | Kind::Zero | Kind::Forgets) => {}
                    _ => self.destroyed += 1,
                }
            }
            if !armed.event.for_good {
                self.armed.remove(at);
            }
            return Some(fault);
        }
        self.random.as_mut().and_then(|random| self.background.fault(site, random))
    }
}

/// The rows of the fault table: each must be hit a hundred times in ten thousand seeds.
pub const ROWS: &[(&str, &[&str])] = {
    use quipu::disk::simulated::effects::*;
    &[
        ("crash", &[CRASH_KEPT, CRASH_LOST, CRASH_TORN, CRASH_ARRIVED, CRASH_IN_FLIGHT]),
        ("tear", &[TEAR_SECTOR, TEAR_WITHIN, TEAR_GARBAGE]),
        (
            "flush",
            &["flush: fails once", "flush: fails for good", FLUSH_FORGOT, FLUSH_LIED, FLUSH_WRITE_LIED],
        ),
        (
            "write",
            &[
                WRITE_FAILED,
                WRITE_TORN,
                WRITE_NO_SPACE,
                WRITE_SHORT,
                WRITE_ZERO,
                WRITE_LOST,
                WRITE_MISPLACED,
                WRITE_WRONG_FILE,
            ],
        ),
        (
            "read",
            &["read: EIO once", "read: EIO for good", READ_SHORT, READ_MISPLACED, READ_FLIPPED, READ_ROTTEN],
        ),
        ("ring", &[RING_ORDER, RING_LATE, RING_AGAIN, RING_FULL]),
        ("files", &[FILES_RENAME, FILES_LENGTH, FILES_REMOVE, FILES_CREATE]),
        ("time", &[TIME_SLOW, TIME_STOPPED]),
    ]
};
