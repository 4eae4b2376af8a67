//! The plan of a run: everything that will be done to a shard, as plain data made from a seed.
//!
//! 1. [`Plan::new`] draws a plan: options, and a list of actions (commits, reads, turns, restarts …).
//! 2. Each action carries what it needs, seeds of its own included, so that a plan from which actions were dropped is
//!    still a plan, and does the rest as before. Shrinking a failure is dropping actions.
//!
//! Nothing here knows what will have become of the shard by then: a rename of what does not exist is an action too, and
//! is expected to be refused.

use crate::choices::{self, Profile, pick};
use crate::faults::{FaultEvent, Harm};
use crate::model::{PATHS, Step, is_within};
use quipu::disk::simulated::SplitMix64;
use quipu::{Options, Retention};

/// How something reaches the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// As from an on-core task.
    Local,
    /// As from another thread.
    Mailbox,
}

/// What a read looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// The newest state.
    Newest(Route),
    /// One of the snapshots held, if there is one.
    Held(u8),
}

/// A snapshot to take and hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Of the newest state.
    Newest(Route),
    /// As of a commit: so many thousandths of the newest one's number.
    AsOf(Route, u16),
    /// As of the oldest commit from which on every one is retained.
    Oldest(Route),
    /// As of the last commit below that which ends in so many zeros.
    AsOfAligned(Route, u16, u8),
}

/// A read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A key's value.
    Get(&'static str, Vec<u8>),
    /// Several keys' values.
    GetMany(&'static str, Vec<Vec<u8>>),
    /// Whether a directory exists.
    Exists(&'static str),
    /// The names under a directory, or of the top level, in pages.
    Children(Option<&'static str>, usize),
    /// The entries of a range.
    Scan(ScanOf),
}

/// The range of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// All.
    All,
    /// Those with a prefix.
    Prefix(Vec<u8>),
    /// From the first on, up to before the second.
    Between(Vec<u8>, Vec<u8>),
}

/// A scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOf {
    /// The directory.
    pub path: &'static str,
    /// The range.
    pub keys: Keys,
    /// From the high end.
    pub reverse: bool,
    /// At most so many entries. Only where it is read from one end.
    pub limit: Option<usize>,
    /// How often the next entry is taken from the other end, in percent.
    pub other_percent: u8,
    /// How often it lets others go on between two entries, in percent.
    pub pause_percent: u8,
    /// It is dropped after so many entries.
    pub abandon_after: Option<usize>,
    /// Decides when.
    pub seed: u64,
}

/// How a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The power fails.
    Power,
    /// The process ends; what is in flight goes on.
    Kill,
    /// The shard is closed.
    Close,
    /// The shard is closed, and then the power fails.
    ClosePower,
}

/// What opens a shard again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reopen {
    /// Decides the options of this opening and the disk's moods.
    pub seed: u64,
    /// Crashes on the way: each after so many steps of an opening of its own.
    pub crashes: Vec<(u32, End)>,
    /// A new retention.
    pub retention: Option<Retention>,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A commit is submitted, not waited for.
    Commit {
        /// How it reaches the shard. Renames and drops are as durable as the shard's default.
        route: Route,
        /// Whether it is buffered.
        buffered: bool,
        /// What it does.
        step: Step,
    },
    /// So many turns of the shard.
    Turns(u16),
    /// Turns until nothing is left to do, and a look at everything.
    Settle,
    /// Time passes.
    Sleep(u64),
    /// A barrier; waited for.
    Barrier(Route),
    /// A read.
    Read {
        /// Of what.
        view: View,
        /// Which.
        what: What,
        /// Whether it is waited for at once.
        wait: bool,
    },
    /// A snapshot is taken and held.
    Hold(Hold),
    /// One is let go.
    Release(u8),
    /// A fault waits for its operation.
    Fault(FaultEvent),
    /// The disk is well again.
    Heal,
    /// The session ends, and another begins.
    Restart {
        /// How it ends.
        end: End,
        /// What a power failure leaves.
        seed: u64,
        /// How the next begins.
        reopen: Reopen,
    },
}

impl std::fmt::Display for Action {
    /// As [`Debug`](std::fmt::Debug), with long keys and values cut.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| {
            let text: String = String::from_utf8_lossy(bytes).chars().take(12).collect();
            if bytes.len() > 12 { format!("{text:?}…{}", bytes.len()) } else { format!("{text:?}") }
        };
        match self {
            Action::Commit { route, buffered, step: Step::Batch(changes) } => {
                write!(f, "Commit {route:?}{}", if *buffered { " buffered" } else { "" })?;
                for (path, key, value) in changes {
                    let value = value.as_ref().map_or("deleted".into(), |value| short(value));
                    write!(f, ", {path} {} = {value}", short(key))?;
                }
                Ok(())
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// A run. See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The seed that it was made from.
    pub seed: u64,
    /// What may go wrong.
    pub harm: Harm,
    /// Decides the options that are part of the data.
    pub options: u64,
    /// The first retention.
    pub retention: Retention,
    /// The first opening.
    pub open: Reopen,
    /// Then this.
    pub actions: Vec<Action>,
    /// Whether the files are compared with those of a twin that ran undisturbed.
    pub twin: bool,
}

fn route(random: &mut SplitMix64) -> Route {
    if random.chance(50) { Route::Local } else { Route::Mailbox }
}

fn end(random: &mut SplitMix64) -> End {
    match random.below(10) {
        0 => End::Close,
        1 => End::ClosePower,
        2 => End::Kill,
        _ => End::Power,
    }
}

fn reopen(random: &mut SplitMix64) -> Reopen {
    let crashes = if random.chance(25) { 1 + random.below(3) } else { 0 };
    let crash = |random: &mut SplitMix64| {
        let steps = if random.chance(50) { random.below(12) } else { random.below(80) };
        (steps as u32, if random.chance(75) { End::Power } else { End::Kill })
    };
    Reopen {
        seed: random.next_u64(),
        crashes: (0..crashes).map(|_| crash(random)).collect(),
        retention: random.chance(4).then(|| choices::retention(random)),
    }
}

fn what(random: &mut SplitMix64, profile: Profile) -> What {
    let Profile { keys, narrow, .. } = profile;
    let path = if narrow { choices::NARROW_PATH } else { *pick(random, &PATHS) };
    if narrow && random.chance(70) {
        // One that is under way for long.
        return What::Scan(ScanOf {
            path,
            keys: Keys::All,
            reverse: random.chance(20),
            limit: None,
            other_percent: 0,
            pause_percent: 60,
            abandon_after: None,
            seed: random.next_u64(),
        });
    }
    match random.below(8) {
        0 | 1 => What::Get(path, choices::key(random, keys)),
        2 | 3 => {
            let count = 1 + random.below(12);
            What::GetMany(path, (0..count).map(|_| choices::key(random, keys)).collect())
        }
        4 => What::Exists(path),
        5 => What::Children(random.chance(70).then_some(path), 1 + random.below(4) as usize),
        _ => {
            let range = match random.below(4) {
                0 => {
                    let mut prefix = choices::key(random, keys);
                    prefix.truncate(random.below(4) as usize);
                    Keys::Prefix(prefix)
                }
                1 => {
                    let (one, other) = (choices::key(random, keys), choices::key(random, keys));
                    Keys::Between(one.clone().min(other.clone()), one.max(other))
                }
                _ => Keys::All,
            };
            let limit = random.chance(25).then(|| random.below(8) as usize);
            What::Scan(ScanOf {
                path,
                keys: range,
                reverse: random.chance(40),
                limit,
                other_percent: if limit.is_none() { *pick(random, &[0, 30]) } else { 0 },
                pause_percent: *pick(random, &[0, 5, 40]),
                abandon_after: random.chance(20).then(|| random.below(10) as usize),
                seed: random.next_u64(),
            })
        }
    }
}

/// How many plans are narrow: commits of the same few keys beside scans of them.
const NARROW_PERCENT: u8 = 10;

/// A rename or drop that is well formed.
fn move_step(random: &mut SplitMix64) -> Step {
    let from = *pick(random, &PATHS);
    let same_root = |to: &str| to.split('/').next() == from.split('/').next();
    let targets: Vec<&'static str> =
        PATHS.into_iter().filter(|to| to.contains('/') && same_root(to) && !is_within(to, from)).collect();
    if from.contains('/') && !targets.is_empty() && random.chance(60) {
        return Step::Rename(from, pick::<&'static str>(random, &targets));
    }
    // A root goes seldom: everything is under it.
    if from.contains('/') || random.chance(20) { Step::Remove(from) } else { Step::Remove("r/a") }
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = SplitMix64::new(seed);
        let random = &mut random;
        let options = random.next_u64();
        // Drawn aside, so that the seeds of before mean what they meant.
        let narrow = SplitMix64::new(!seed).chance(NARROW_PERCENT);
        let drawn = choices::retention(random);
        // Without history, versions go that nobody reads.
        let retention = if narrow { Retention::None } else { drawn };
        let open = Reopen { retention: None, crashes: Vec::new(), ..reopen(random) };
        let sessions = 4 + random.below(14);
        let profile = Profile {
            commits: 0,
            keys: *pick(random, &[6, 20, 40, 100]),
            moves: *pick(random, &[0, 4, 15]),
            large: *pick(random, &[0, 2, 8]),
            narrow: false,
        };
        let profile = match narrow {
            true => Profile { keys: choices::NARROW_KEYS, moves: 0, large: 0, narrow, ..profile },
            false => profile,
        };
        let buffered_percent = *pick(random, &[0, 0, 10, 50, 100]);
        let drawn = *pick(random, &[0, 5, 25]);
        let reads_percent = if narrow { 50 } else { drawn };
        let commits_per_session = *pick(random, &[6, 20, 50]);
        let harm = *pick(random, &[Harm::Benign, Harm::Benign, Harm::Failing, Harm::Failing, Harm::Damaging]);
        let faults_percent = match harm {
            Harm::Benign => *pick(random, &[0, 2]),
            Harm::Failing => *pick(random, &[3, 10]),
            Harm::Damaging => *pick(random, &[2, 5]),
        };
        let mut number = 0;
        let mut actions = Vec::new();
        for _ in 0..sessions {
            let session_route = random.chance(70).then(|| route(random));
            for _ in 0..1 + random.below(commits_per_session) {
                number += 1;
                let step = match random.chance(profile.moves) {
                    true => move_step(random),
                    false => choices::batch(random, profile, number),
                };
                let route = session_route.unwrap_or_else(|| route(random));
                actions.push(Action::Commit { route, buffered: random.chance(buffered_percent), step });
                match random.below(8) {
                    0 => actions.push(Action::Turns(1 + random.below(10) as u16)),
                    1 | 2 => actions.push(Action::Turns(1)),
                    _ => {}
                }
                if random.chance(faults_percent) {
                    let kind = if random.chance(10) { Harm::Benign } else { harm };
                    actions.push(Action::Fault(FaultEvent::new(random, kind)));
                }
                if harm == Harm::Failing && random.chance(3) {
                    actions.push(Action::Heal);
                }
                if random.chance(reads_percent) {
                    let held = random.chance(30);
                    let view = if held {
                        View::Held(random.below(4) as u8)
                    } else {
                        View::Newest(self::route(random))
                    };
                    let wait = random.chance(60);
                    actions.push(Action::Read { view, what: what(random, profile), wait });
                }
                if random.chance(reads_percent / 4) {
                    let route = self::route(random);
                    actions.push(Action::Hold(match random.below(4) {
                        0 => Hold::Newest(route),
                        1 => Hold::Oldest(route),
                        2 => Hold::AsOf(route, random.below(1010) as u16),
                        _ => Hold::AsOfAligned(route, random.below(1010) as u16, 1 + random.below(4) as u8),
                    }));
                }
                if random.chance(reads_percent / 8) {
                    actions.push(Action::Release(random.below(4) as u8));
                }
                match random.below(200) {
                    0 => actions.push(Action::Barrier(self::route(random))),
                    1 => actions.push(Action::Sleep(random.below(20_000_000))),
                    2 | 3 => actions.push(Action::Settle),
                    _ => {}
                }
            }
            if random.chance(70) {
                actions.push(Action::Turns(random.below(40) as u16));
            }
            if random.chance(10) {
                actions.push(Action::Settle);
            }
            actions.push(Action::Restart {
                end: end(random),
                seed: random.next_u64(),
                reopen: reopen(random),
            });
        }
        Plan { seed, harm, options, retention, open, actions, twin: random.chance(20) }
    }

    /// The options that are part of the data.
    pub fn options(&self) -> Options {
        choices::tiny_options(&mut SplitMix64::new(self.options)).retention(self.retention)
    }
}
