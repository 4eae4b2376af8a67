//! Pace: how much of the merges in flight must be done by a commit.
//!
//! 1. A carry of level v, due at n, has a *schedule*: a straight line from nothing before n (or where its inputs are at rest
//!    only later, before that) to all of its work after a quarter of a window of level v. Its deadline is at least a whole window later. The rest is slack, for installing it
//!    and for slow disks. (Stretching the schedules to half of the way to the deadline lowers the peak of the
//!    work, but keeps the inputs of many carries live at once. Simulated with commits of s bytes, most work a
//!    commit and most live segments: divisor 4, 5 levels: 9s and 21, stretched 7s and 35, where the digits' bound is
//!    15; divisor 8, 5 levels: 17s and 63, stretched 10s and 113, digits' bound 35.)
//! 2. A fold has fifteen sixteenths of the time that the base rests, and in it gives way to the other carries: the straight line is
//!    that of its work *and* what they are to merge beside it if commits stay as large, and its own share is what they leave of that.
//!    So the rate of all work is one and the same for as long as a fold is under way, which is most of the time. Should they
//!    merge more than expected, the fold starts at the latest where twice the even rate is enough.
//! 3. What a shard *owes* after a commit is the sum of all schedules there, less all work done. It is paid between
//!    commits, to the carry whose schedule ends first. A carry that is done early stays in the account until its
//!    schedule ends: what it got too early, others got too late, and the sum is what keeps the rate even.
//!    (Earliest end first meets every end that any order can meet, so also those of the straight lines.)
//! 4. A commit is *admitted* while no more is owed than would be if each schedule were late by its own length,
//!    or by its slack if that is less (a fold: if it started as late as it can), and never at or past the deadline of a carry
//!    that is not installed.
//!
//! Promises:
//!
//! - With commits of s bytes, one commit adds at most [`work_bound`] to what is owed. A carry of level v has `D^v·s` bytes,
//!   so its schedule rises by 4s a commit, and is over before the next carry of level v. For D up to 4 it is
//!   over before the first carry of level v-1 after it, so every other level is active at most. A fold of a base of b
//!   bytes and one part in `ratio` of that lets the base rest for the commits of `b/ratio` bytes; at twice the
//!   even rate over fifteen sixteenths of that it rises by 32s(ratio + 1)/15 a commit, and at the even rate, with what is
//!   merged beside it, by less.
//! - Paid after every commit, live segments stay below twice the digits' bound, (D - 1) a level, for up to 6
//!   levels from the flush level up with D up to 4 (10^9 keys have 5), 5 levels with D up to 8, 4 above. With more
//!   levels, the inputs of a carry, of one two levels below, and so on, may be live at once, and that sum grows
//!   with the square of the levels. With a base, whose fold holds its inputs for longer, they stay below three times the bound.

use super::cover::{Carry, Shape};
use super::number::{Commit, Divisor, Level};

/// One carry in flight. Its work is counted in bytes of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// The carry.
    pub carry: Carry,
    /// The commit at which it fell due: its name.
    pub due: Commit,
    /// The commit from which it is scheduled: the newest one when its work was started, or hastened since.
    pub start: Commit,
    /// How many commits its schedule takes, from `start`; at least 1.
    pub schedule: u64,
    /// The commit before which it must be installed.
    pub deadline: Commit,
    /// All of its work.
    pub total_bytes: u64,
    /// What is done of it.
    pub done_bytes: u64,
    /// What was done of it when it was scheduled anew; at first nothing.
    before_bytes: u64,
    /// Whether there is anything to be scheduled yet: before, its inputs are waited for.
    pub started: bool,
    /// Whether its output is installed.
    pub installed: bool,
    /// Of a fold: what other carries that fall due from its start on are expected to merge during its schedule, in bytes.
    pub beside_bytes: u64,
    /// Of a fold: the work of those that were settled already.
    settled_bytes: u64,
}

impl Work {
    /// The commit before which all of its work is to be done.
    fn end(&self) -> Commit {
        Commit(self.start.0 + self.schedule)
    }

    /// Schedules what is left of it anew, beside so much work of others.
    fn reschedule(&mut self, now: Commit, schedule: u64, beside_bytes: u64) {
        (self.start, self.schedule, self.before_bytes) = (now, schedule, self.done_bytes);
        (self.beside_bytes, self.settled_bytes) = (beside_bytes, 0);
    }

    /// The share of what is merged beside it that so many commits see.
    fn beside_in(&self, commits: u64) -> u64 {
        let beside = u128::from(self.beside_bytes) * u128::from(commits) / u128::from(self.schedule);
        u64::try_from(beside).unwrap_or(u64::MAX)
    }

    /// What was left when it was scheduled.
    fn left_bytes(&self) -> u64 {
        self.total_bytes - self.before_bytes
    }

    fn is_fold(&self) -> bool {
        matches!(self.carry, Carry::Fold { .. })
    }

    /// How far a straight line of `bytes` over its schedule has come between commits `n` and `n + 1`.
    fn line(&self, n: Commit, bytes: u64) -> u64 {
        if !self.started {
            return 0;
        }
        let (steps, of) = (n.next().0.saturating_sub(self.start.0), self.schedule);
        if steps >= of {
            return bytes;
        }
        let bytes = (u128::from(bytes) * u128::from(steps)).div_ceil(u128::from(of));
        bytes as u64 // At most `bytes`.
    }

    /// What must be done of it between commits `n` and `n + 1`, in bytes since its start, where nothing is done beside it.
    pub fn scheduled_bytes(&self, n: Commit) -> u64 {
        self.before_bytes + self.line(n, self.left_bytes())
    }

    /// Of a fold: as [`Work::scheduled_bytes`], where the schedules of others say `beside` since its start.
    fn scheduled_beside(&self, n: Commit, beside: u64) -> u64 {
        let both = self.line(n, self.left_bytes().saturating_add(self.beside_bytes));
        let own = self.before_bytes.saturating_add(both.saturating_sub(beside));
        own.clamp(self.latest(n), self.total_bytes)
    }

    /// Of a fold: what must be done of it where it started as late as twice the even rate allows.
    fn latest(&self, n: Commit) -> u64 {
        let left = self.left_bytes();
        let late = 2 * u128::from(self.line(n, left));
        self.before_bytes + late.saturating_sub(left.into()) as u64 // At most `left`: the line ends there.
    }

    /// What must at the least be done of it before commit `n` is sequenced: its schedule, late by its length or slack.
    fn required_bytes(&self, n: Commit) -> u64 {
        let late = self.schedule.min(self.deadline.0.saturating_sub(self.end().0));
        let Some(at) = n.0.checked_sub(late + 1).map(Commit) else { return 0 };
        if self.is_fold() { self.latest(at) } else { self.scheduled_bytes(at) }
    }
}

/// The account of all carries in flight of a shard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pace {
    /// By due commit.
    works: Vec<Work>,
}

impl Pace {
    /// An account without carries.
    pub fn new() -> Pace {
        Pace::default()
    }

    /// Puts a carry into the account, whose inputs have `total_bytes`, `fresh_bytes` of them in no base. `now` is the newest
    /// commit (the carry's own, or a later one after a restart, which leaves it less time), `shape` the shape after it.
    pub fn begin(&mut self, shape: &Shape, carry: Carry, now: Commit, total_bytes: u64, fresh_bytes: u64) {
        let (due, deadline) = (carry.due(), shape.deadline(carry, now));
        debug_assert!(due <= now && now < deadline);
        debug_assert!(
            self.works.last().is_none_or(|last| last.due < due),
            "carries begin in the order of their commits"
        );
        let schedule = schedule_of(carry, now, deadline);
        let beside_bytes = match carry {
            Carry::Fold { from, to } => beside_fold(shape, fresh_bytes, to.0 - from.0, now, schedule),
            Carry::Segment(_) => 0,
        };
        self.works.push(Work {
            carry,
            due,
            start: now,
            schedule,
            deadline,
            total_bytes,
            done_bytes: 0,
            before_bytes: 0,
            started: false,
            installed: false,
            beside_bytes,
            settled_bytes: 0,
        });
    }

    /// The work of the carry due at `due` can be done from `now` on, the newest commit: its schedule starts. What was waited
    /// for until then (smaller carries, a spill) was done ahead of all schedules, and is not to be made up for in a hurry.
    pub fn start(&mut self, due: Commit, now: Commit) {
        if let Some(work) = self.works.iter_mut().find(|work| work.due == due && !work.started) {
            work.started = true;
            if now < work.deadline {
                let schedule = schedule_of(work.carry, now, work.deadline);
                work.reschedule(now, schedule, work.beside_in(schedule));
            }
        }
    }

    /// The shape may have changed at `now`, the newest commit. A base whose level fell, or that rests less, is folded sooner, so what
    /// goes into it must be done sooner: what is left of such a carry is scheduled anew, over half of the time that it has now. The
    /// fold of a base that rests longer has more time.
    pub fn reshape(&mut self, shape: &Shape, now: Commit) {
        for work in self.works.iter_mut().filter(|work| !work.installed) {
            let deadline = shape.deadline(work.carry, now);
            if deadline < work.deadline {
                work.deadline = deadline;
                let schedule = (deadline.0 - now.0).div_ceil(2);
                if now.0 + schedule < work.end().0 {
                    work.reschedule(now, schedule, work.beside_in(schedule));
                }
            } else if deadline > work.deadline && work.is_fold() {
                work.deadline = deadline;
                if work.started {
                    // It rests longer since commits are smaller: in all of them comes what would have come.
                    let beside = work.beside_in(work.end().0.saturating_sub(now.0));
                    work.reschedule(now, schedule_of(work.carry, now, deadline), beside);
                }
            }
        }
    }

    /// The carries in the account that are not installed, oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &Work> {
        self.works.iter().filter(|work| !work.installed)
    }

    /// The carry to work on: of those that have started and have work left, the one whose schedule ends first (the newest of several).
    pub fn next(&self) -> Option<Commit> {
        let open = self
            .works
            .iter()
            .rev()
            .filter(|work| work.started && !work.installed)
            .filter(|work| work.done_bytes < work.total_bytes);
        open.min_by_key(|work| work.end()).map(|work| work.due)
    }

    /// Books work done on the carry due at `due`.
    pub fn progress(&mut self, due: Commit, bytes: u64) {
        if let Some(work) = self.works.iter_mut().find(|work| work.due == due) {
            work.done_bytes = work.done_bytes.saturating_add(bytes).min(work.total_bytes);
        }
    }

    /// Books the carry as installed; work that turned out not to be needed counts as done.
    pub fn install(&mut self, due: Commit) {
        if let Some(work) = self.works.iter_mut().find(|work| work.due == due) {
            (work.done_bytes, work.installed) = (work.total_bytes, true);
        }
    }

    /// Closes the account of carries that are installed and whose schedules have ended when `n` is the newest commit.
    pub fn settle(&mut self, n: Commit) {
        let settles = |work: &Work| work.installed && work.end() <= n.next();
        for at in 0..self.works.len() {
            let beside = self.beside(&self.works[at]).filter(|work| settles(work));
            let settled: u64 = beside.map(|work| work.total_bytes).sum();
            self.works[at].settled_bytes += settled;
        }
        self.works.retain(|work| !settles(work));
    }

    /// The carries in the account that a fold gives way to; of any other, none.
    fn beside<'a>(&'a self, fold: &'a Work) -> impl Iterator<Item = &'a Work> {
        let others = self.works.iter().filter(|_| fold.is_fold());
        others.filter(|other| !other.is_fold() && other.start >= fold.start)
    }

    /// What the schedule of a carry in the account says after commit `n`.
    fn scheduled_bytes(&self, work: &Work, n: Commit) -> u64 {
        if !work.is_fold() {
            return work.scheduled_bytes(n);
        }
        let beside = self
            .beside(work)
            .fold(work.settled_bytes, |sum, other| sum.saturating_add(other.scheduled_bytes(n)));
        work.scheduled_beside(n, beside)
    }

    /// How much work must be done now that `n` is the newest commit, in bytes.
    pub fn owed_bytes(&self, n: Commit) -> u64 {
        let sums = self.works.iter().fold((0u64, 0u64), |(scheduled, done), work| {
            (scheduled.saturating_add(self.scheduled_bytes(work, n)), done.saturating_add(work.done_bytes))
        });
        sums.0.saturating_sub(sums.1)
    }

    /// Whether commit `n` may be sequenced. If one may not, none after it may, until more is done of [`Pace::next`]
    /// (owed or not), or what is done is installed.
    pub fn admits(&self, n: Commit) -> bool {
        let (mut required, mut done) = (0u64, 0u64);
        for work in &self.works {
            if n >= work.deadline && !work.installed {
                return false;
            }
            required = required.saturating_add(work.required_bytes(n));
            done = done.saturating_add(work.done_bytes);
        }
        done >= required
    }

    /// How many commits after `newest` may be sequenced as things stand, at most `limit`.
    pub fn commits_ahead(&self, newest: Commit, limit: u64) -> u64 {
        // `admits` goes from true to false once: halve the interval in which it does.
        let (mut admitted, mut refused) = (0, limit.saturating_add(1));
        while refused - admitted > 1 {
            let middle = admitted + (refused - admitted) / 2;
            if self.admits(Commit(newest.0.saturating_add(middle))) {
                admitted = middle;
            } else {
                refused = middle;
            }
        }
        admitted
    }
}

/// How many commits the schedule of a carry takes that can be worked on from `now` on.
fn schedule_of(carry: Carry, now: Commit, deadline: Commit) -> u64 {
    let left = deadline.0 - now.0;
    match carry {
        Carry::Fold { .. } => left - left / 16,
        Carry::Segment(window) => window.span().count().div_ceil(4).min(left.div_ceil(2)),
    }
}

/// What carries other than a fold are expected to merge in so many commits after `now`, where the window that is folded took
/// `fresh_bytes` in `commits`: which windows close in them is known, and their sizes are as before.
fn beside_fold(shape: &Shape, fresh_bytes: u64, commits: u64, now: Commit, schedule: u64) -> u64 {
    let last = now.0.saturating_add(schedule);
    // How many windows of a level close until then that begin no earlier than the base ends.
    let close = |level: Level| {
        let span = shape.divisor.pow(level);
        let first = shape.base_end.0.div_ceil(span).max(now.0 / span);
        (last / span).saturating_sub(first)
    };
    let levels = (shape.flush_level.0..=shape.divisor.level_max().0).map(Level);
    let merged = levels.map_while(|level| match (close(level), close(level.above())) {
        (0, _) => None,
        // Where one of the level above closes at the same commit, that is made.
        (these, above) => Some(u128::from(these - above.min(these)) * u128::from(shape.divisor.pow(level))),
    });
    let merged = merged.sum::<u128>() * u128::from(fresh_bytes) / u128::from(commits.max(1));
    u64::try_from(merged).unwrap_or(u64::MAX)
}

/// The most bytes that one commit adds to what is owed, where all commits have `commit_bytes` (else: the most that a
/// window's commits had on average): with `levels` of carries in flight, from the flush level up, and a base of so
/// much `base_ratio`, if there is one. Each carry in flight may add one byte for rounding.
pub fn work_bound(divisor: Divisor, commit_bytes: u64, levels: u32, base_ratio: Option<u32>) -> u64 {
    let active = if divisor.get() <= 4 { levels.div_ceil(2) } else { levels };
    let fold = base_ratio.map_or(0, |ratio| (32 * (u64::from(ratio) + 1)).div_ceil(15));
    commit_bytes.saturating_mul(4 * u64::from(active) + fold)
}
