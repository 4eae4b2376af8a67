//! Sessions: how one ends, how the next begins, and what it may find.
//!
//! 1. At the end of a session, what is durable is the least and what is sequenced the most that may be found.
//! 2. The shard is opened, with power failures and dead processes on the way as the plan says; where the disk fails an
//!    opening, it is tried again.
//! 3. What is found must be a state of the model within those bounds. Only a disk that destroys things excuses less: where
//!    it has harmed the log, and nothing that is left of it tells.

use crate::choices;
use crate::coverage::Coverage;
use crate::faults::{Background, Harm};
use crate::model::PATHS;
use crate::plan::{End, Reopen};
use crate::world::{Session, TROUBLED_TURNS, World};
use quipu::disk::SimulatedOptions;
use quipu::disk::simulated::SplitMix64;
use quipu::levels::{Commit, History};
use quipu::simulation::{SimulatedShard, Tuning};
use quipu::{Bytes, Directory, Options, Result, Retention};

/// Files far smaller than users can ask for, so that there are many; and reads that are kept where nobody else is expected.
pub(crate) const TUNING: Tuning = Tuning {
    manifest_bytes: 32 << 10,
    part_bytes: Some(8 << 10),
    removal_piece_bytes: 4 << 10,
    reads_together_min: 1,
};

/// More steps than any opening takes.
const STEPS_MAX: u64 = 1_000_000;

/// What may be found when a shard is opened again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) least: Commit,
    pub(crate) most: Commit,
}

impl Bounds {
    /// Before anything was written.
    pub(crate) const NOTHING: Bounds = Bounds { least: Commit::ZERO, most: Commit::ZERO };
}

impl World<'_> {
    /// Ends the session, and begins another.
    pub(crate) fn restart(&mut self, end: End, seed: u64, reopen: &Reopen) {
        let bounds = self.end(end, seed);
        self.open(reopen, bounds);
    }

    /// Ends the session. Answers what may be found.
    fn end(&mut self, mut end: End, seed: u64) -> Bounds {
        let random = &mut SplitMix64::new(seed);
        self.observe();
        if self.plan.harm != Harm::Benign && matches!(end, End::Close | End::ClosePower) {
            // Which of those that wait would be refused is not known beforehand.
            for _ in 0..TROUBLED_TURNS {
                let session = self.session();
                if session.arrivals.is_empty() && session.posted.is_empty() {
                    break;
                }
                self.turn();
            }
            let session = self.session();
            if !session.arrivals.is_empty() || !session.posted.is_empty() {
                end = End::Kill;
            }
        }
        let Some(mut session) = self.session.take() else { panic!("no session is open") };
        session.held.clear();
        session.reads.clear();
        session.directories.clear();
        let newest = session.shard.newest();
        let durable = session.shard.durable();
        assert!(durable >= session.promised, "{} was promised, {durable} is durable", session.promised);
        let picture = session.shard.picture();
        self.coverage.hit(match end {
            End::Power => "end: power failure",
            End::Kill => "end: process ends",
            End::Close | End::ClosePower => "end: closed",
        });
        self.coverage.add("read: together with others", picture.reads_together);
        if matches!(end, End::Power | End::Kill) && !picture.carries.is_empty() {
            self.coverage.hit("end: during compaction");
        }
        match end {
            End::Power => session.shard.crash(random),
            End::Kill => session.shard.kill(),
            End::Close | End::ClosePower => {
                // What is on its way is finished.
                let pending = session.arrivals.drain(..).chain(session.posted.drain(..));
                for submitted in pending.collect::<Vec<_>>() {
                    let state = &self.states[self.steps.len()];
                    if state.refusal(&submitted.step).is_none() {
                        let mut next = state.clone();
                        next.apply(&submitted.step);
                        self.steps.push(submitted.step);
                        self.states.push(next);
                    }
                }
                let all = self.newest();
                let mut least = all;
                match session.shard.close() {
                    Ok(()) => self.tidy = end == End::Close && !self.is_disturbed(),
                    Err(error) => {
                        self.tolerate(&error, "closing");
                        least = durable;
                    }
                }
                if end == End::ClosePower {
                    self.folder.crash(random);
                }
                return Bounds { least, most: all };
            }
        }
        Bounds { least: durable, most: newest }
    }

    /// Opens the shard, with crashes on the way, and holds what is found against the model.
    pub(crate) fn open(&mut self, reopen: &Reopen, bounds: Bounds) {
        let random = &mut SplitMix64::new(reopen.seed);
        let mut options = choices::free_options(random, self.options.clone());
        // Left out, the retention stays as it is.
        let first = self.folder.names().is_empty();
        let wanted =
            reopen.retention.unwrap_or(if first { self.plan.retention } else { self.history.retention });
        options = options.retention(wanted);
        for &(steps, end) in &reopen.crashes {
            self.coverage.hit("end: during recovery");
            let mut opening = self.begin(random, &options);
            let opened = (0..steps).find_map(|_| opening.step());
            match (opened, end) {
                (Some(Ok(shard)), End::Kill) => shard.kill(),
                (Some(Ok(shard)), _) => shard.crash(random),
                (Some(Err(error)), _) => self.tolerate(&error, "opening"),
                (None, End::Kill) => drop(opening),
                (None, _) => {
                    self.folder.crash(random);
                    drop(opening);
                }
            }
        }
        let mut tries = 0;
        let (shard, disturbed) = loop {
            let fired = self.injector.borrow().fired;
            let mut opening = self.begin(random, &options);
            let opened = (0..STEPS_MAX).find_map(|_| opening.step());
            let Some(opened) = opened else { panic!("the shard does not come to be open") };
            match opened {
                Ok(shard) => break (shard, self.injector.borrow().fired != fired),
                Err(error) => {
                    self.tolerate(&error, "opening");
                    self.coverage.hit("opening refused");
                    // Nothing went wrong this time: so it will be for ever.
                    if self.injector.borrow().fired == fired {
                        assert!(
                            self.plan.harm == Harm::Damaging,
                            "the disk is well, and it does not open: {error}"
                        );
                        self.coverage.hit("runs that end since the log or the manifest is damaged");
                        self.over = true;
                        return;
                    }
                    tries += 1;
                    if tries > 2 {
                        self.heal();
                    }
                }
            }
        };
        self.coverage.hit("cycles");
        self.coverage.add("recovery: commits replayed", shard.recovery().replayed);
        self.coverage.add("recovery: carries resumed", shard.recovery().carries as u64);
        self.coverage.add("recovery: orphans removed", shard.recovery().orphans as u64);
        // A crash may bring removed names back; an opening that changes the retention makes files, and may fail; and one that
        // reads a rotten edit does not know of the file that it tells of.
        if std::mem::take(&mut self.tidy) && reopen.crashes.is_empty() && tries == 0 && !disturbed {
            assert_eq!(shard.recovery().orphans, 0, "what a clean close has left");
            self.coverage.hit("recovery: of a folder that a clean close has tidied");
        }
        let newest = shard.newest();
        if newest < bounds.least && self.plan.harm == Harm::Damaging {
            self.excuse(newest, bounds.least);
        } else {
            assert!(newest >= bounds.least, "{newest} is there, and {} was durable", bounds.least);
        }
        assert!(newest <= bounds.most, "{newest} is there, and {} was the last", bounds.most);
        assert_eq!(shard.durable(), newest, "what was recovered is durable");
        self.coverage.add("recovery: commits lost", self.newest().0 - newest.0);
        if self.retentions.last().is_some_and(|(from, _)| *from > newest) {
            self.retentions.clear();
        }
        self.steps.truncate(newest.0 as usize);
        self.states.truncate(newest.0 as usize + 1);
        if wanted != self.history.retention {
            self.coverage.hit("retention changed");
            let changed = self.history.change(wanted, newest);
            self.earlier.push(std::mem::replace(&mut self.history, changed));
            if !self.retentions.is_empty() {
                self.retentions.push((newest, wanted));
            }
            // At least 1, to tell it from none.
            self.changed = newest.max(Commit(1));
        }
        self.session = Some(Session::new(shard));
        let picture = self.session().shard.picture();
        if picture.history != self.history && self.plan.harm == Harm::Damaging {
            self.excuse_history(picture.history, wanted, newest);
        } else {
            assert_eq!(picture.history, self.history);
        }
        self.check_invariants();
        self.check_newest();
    }

    /// The retention is not known to have been changed. That is so only where the disk has destroyed the edit that did it, and
    /// nothing that is left of the manifest tells; then it was changed again just now.
    fn excuse_history(&mut self, found: History, wanted: Retention, newest: Commit) {
        let harmed = self.folder.harmed();
        assert!(
            harmed.iter().any(|name| name.starts_with("manifest")) && self.injector.borrow().destroyed > 0,
            "{found:?} is there, {:?} was durable, and the manifest is whole; harmed: {harmed:?}",
            self.history
        );
        let again = |earlier: &History| match earlier.retention == wanted {
            true => earlier.clone(),
            false => earlier.change(wanted, newest),
        };
        assert!(
            self.earlier.iter().any(|earlier| again(earlier) == found),
            "{found:?} is there, after {:?} and before it {:?}",
            self.history,
            self.earlier
        );
        self.coverage.hit("changes of the retention that the disk destroyed, and nothing tells of");
        self.history = found;
        self.changed = newest.max(Commit(1));
        self.retentions.clear();
    }

    /// Fewer commits are there than were durable. That is so only where the disk has destroyed a part of the log, and nothing
    /// that is left of it tells.
    fn excuse(&mut self, newest: Commit, durable: Commit) {
        let harmed = self.folder.harmed();
        assert!(
            harmed.iter().any(|name| name.starts_with("log-")),
            "{newest} is there, {durable} was durable, and the log is whole; harmed: {harmed:?}"
        );
        // What was read wrongly once is read again.
        let injector = self.injector.borrow();
        assert!(
            injector.destroyed > 0 || injector.misread > 1,
            "{newest} is there, {durable} was durable, and a single read went wrong; harmed: {harmed:?}"
        );
        for (name, bytes) in self.folder.files() {
            if name.starts_with("log-") {
                let told = quipu::simulation::log_tells(&bytes);
                assert!(
                    told <= newest,
                    "{newest} is there, {durable} was durable, and {name} tells of {told}"
                );
            }
        }
        self.coverage.hit("commits that the disk destroyed, and nothing tells of");
    }

    fn begin(&self, random: &mut SplitMix64, options: &Options) -> quipu::simulation::Opening {
        let mut disk = choices::disk(random);
        disk.queue_entries = *choices::pick(random, &[usize::MAX, usize::MAX, 1, 3, 8]);
        let mut background = Background::new(random);
        if self.calm {
            (disk, background) = (calm_disk(), Background::default());
        }
        self.injector.borrow_mut().session(background, random.next_u64());
        // Few tasks are awake together here, so mostly each read is kept; in other sessions only some are, or hardly any.
        let reads_together_min = [1, 1, 2, 8][disk.seed as usize % 4];
        let tuning = Tuning { reads_together_min, ..TUNING };
        match SimulatedShard::begin_tuned(&self.folder, disk, options, tuning) {
            Ok(opening) => opening,
            Err(error) => panic!("the options are good: {error}"),
        }
    }

    /// Compares the newest state with the model, whole.
    pub(crate) fn check_newest(&mut self) {
        let newest = self.newest();
        let model = self.state(newest).clone();
        let session = self.session();
        let snapshot = session.shard.local().snapshot();
        assert_eq!(snapshot.commit(), newest);
        let mut paths: Vec<String> = model.paths().map(str::to_string).collect();
        paths.extend(PATHS.into_iter().filter(|path| !model.exists(path)).map(str::to_string));
        let directories: Vec<Directory> = paths.iter().map(|path| session.directory(path)).collect();
        type Found = (bool, Result<Vec<(Bytes, Bytes)>>);
        let cell = self.spawn(async move {
            let mut found: Vec<Result<Found>> = Vec::new();
            for directory in &directories {
                let entries = match snapshot.exists(directory).await {
                    Ok(false) => Ok((false, Ok(Vec::new()))),
                    Ok(true) => {
                        let scan = snapshot.iter(directory);
                        Ok((
                            true,
                            match scan {
                                Ok(scan) => scan.collect().await,
                                Err(error) => Err(error),
                            },
                        ))
                    }
                    Err(error) => Err(error),
                };
                found.push(entries);
            }
            found
        });
        for (path, found) in paths.iter().zip(self.wait(&cell)) {
            match found {
                Err(error) | Ok((_, Err(error))) => self.tolerate(&error, "a look at everything"),
                Ok((exists, Ok(entries))) => {
                    assert_eq!(exists, model.exists(path), "whether {path} exists at commit {newest}");
                    let expected = model.map(path);
                    assert!(
                        entries.iter().map(|(key, value)| (key, value)).eq(expected.iter()),
                        "{path} at commit {newest}: has {:?}, not {:?}",
                        show(entries.iter().map(|(key, value)| (key, value))),
                        show(expected.iter()),
                    );
                }
            }
        }
    }

    /// Ends the run: settles, looks at everything, and compares the files with those of a twin.
    pub fn finish(mut self) -> Coverage {
        self.heal();
        for _ in 0..3 {
            if self.over {
                break;
            }
            self.settle();
            if !self.is_troubled() {
                break;
            }
            // It goes on once it is opened again.
            let reopen = Reopen { seed: self.plan.seed, crashes: Vec::new(), retention: None };
            self.restart(End::Kill, 0, &reopen);
        }
        if !self.over {
            self.check_newest();
            let trouble = self.session().shard.trouble().filter(|_| self.plan.harm != Harm::Damaging);
            assert!(trouble.is_none(), "the disk is well, and the shard is not: {trouble:?}");
            // What a carry keeps depends on the retention by then, so a change makes the files a matter of time.
            let Some(session) = self.session.take() else { panic!("no session is open") };
            if self.plan.twin && self.changed == Commit::ZERO && self.plan.harm != Harm::Damaging {
                self.coverage.hit("twins");
                crate::twin::compare(&self.options, &self.steps, TUNING, &session.shard);
            }
            session.shard.kill();
        }
        self.coverage.add("commits", self.steps.len() as u64);
        self.coverage.hit(match self.plan.harm {
            Harm::Benign => "runs: benign",
            Harm::Failing => "runs: failing",
            Harm::Damaging => "runs: damaging",
        });
        for (name, count) in self.folder.effects() {
            self.coverage.add(name, count);
        }
        self.coverage.merge(&self.injector.borrow().coverage);
        // The folder holds the plan of faults, and that the injector.
        self.folder.clear_faults();
        self.coverage
    }
}

/// A disk without moods: what is in flight completes in its order.
pub(crate) fn calm_disk() -> SimulatedOptions {
    SimulatedOptions { in_order: true, operation_nanos: 1000..=1000, ..SimulatedOptions::default() }
}

/// Entries, short enough to print.
fn show<'e>(entries: impl Iterator<Item = (&'e Bytes, &'e Bytes)>) -> Vec<String> {
    let short = |bytes: &Bytes| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(12).collect();
        format!("{shown}({})", bytes.len())
    };
    entries.map(|(key, value)| format!("{}={}", short(key), short(value))).collect()
}
