//! What the property tests share: random histories with a model of every commit's state, random options, and a
//! runner that feeds a history to a simulated shard.
//!
//! A history is fixed by its seed: it knows nothing of timing. Whatever else varies between runs (the disk, how
//! many commits are staged between turns, crashes) comes from other seeds.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, dead_code)] // Each test file uses its part.

use quipu::disk::simulated::SplitMix64;
use quipu::disk::{SimulatedFolder, SimulatedOptions};
use quipu::levels::Commit;
use quipu::simulation::{Left, SimulatedShard};
use quipu::{Batch, CommitId, Durability, Error, LocalSnapshot, Options};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

#[allow(unused_imports)]
pub use quipu_simulator::choices::{
    Profile, batch, disk, fixed_options, free_options, key, pick, retention, tiny_options, value,
};
#[allow(unused_imports)]
pub use quipu_simulator::model::{Map, Model, PATHS, Step, is_within};

/// Commits, and the state after each: `states[n]` is that after commit n.
pub struct History {
    pub steps: Vec<Step>,
    pub states: Vec<Model>,
}

impl History {
    pub fn new(seed: u64, profile: Profile) -> Rc<History> {
        let mut random = SplitMix64::new(seed);
        let mut states = vec![Model::default()];
        let mut steps = Vec::new();
        for number in 1..=profile.commits {
            let mut state = states[number - 1].clone();
            let step = step(&mut random, &state, profile, number);
            state.apply(&step);
            steps.push(step);
            states.push(state);
        }
        Rc::new(History { steps, states })
    }

    pub fn commits(&self) -> u64 {
        self.steps.len() as u64
    }

    pub fn state(&self, commit: Commit) -> &Model {
        &self.states[commit.0 as usize]
    }
}

fn step(random: &mut SplitMix64, state: &Model, profile: Profile, number: usize) -> Step {
    if random.chance(profile.moves) {
        let existing: Vec<&'static str> = PATHS.into_iter().filter(|path| state.exists(path)).collect();
        let absent: Vec<&'static str> = PATHS.into_iter().filter(|path| !state.exists(path)).collect();
        if !existing.is_empty() {
            let from = *pick(random, &existing);
            let root = |path: &str| path.split('/').next().map(str::to_string);
            let targets: Vec<&'static str> =
                absent.into_iter().filter(|to| root(to) == root(from) && !is_within(to, from)).collect();
            if from.contains('/') && !targets.is_empty() && random.chance(60) {
                return Step::Rename(from, pick::<&'static str>(random, &targets));
            }
            // A root goes seldom: everything is under it.
            if from.contains('/') || random.chance(20) {
                return Step::Remove(from);
            }
        }
    }
    batch(random, profile, number)
}

/// How commits reach the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    Local,
    Mailbox,
}

/// Feeds a history to a shard.
pub struct Runner {
    pub shard: SimulatedShard,
    pub history: Rc<History>,
    pub route: Route,
    pub durability: Option<Durability>,
    /// Commits submitted so far, those of earlier runs included.
    pub submitted: u64,
    /// Commits acknowledged in this run, in that order.
    pub acknowledged: Rc<RefCell<Vec<Commit>>>,
    pub failed: Rc<RefCell<Vec<Error>>>,
    /// Where this run began.
    pub began: Commit,
    /// At most so many commits wait for their acknowledgement.
    pub window: u64,
}

impl Runner {
    /// Opens a shard, and goes on with the history where it ends.
    pub fn open(
        folder: &SimulatedFolder,
        disk: SimulatedOptions,
        options: &Options,
        history: &Rc<History>,
    ) -> Runner {
        let shard = SimulatedShard::open(folder, disk, options).expect("the shard opens");
        Runner::on(shard, history)
    }

    pub fn on(mut shard: SimulatedShard, history: &Rc<History>) -> Runner {
        let began = shard.newest();
        assert_eq!(shard.durable(), began, "what was recovered is durable");
        let route = if shard.random().chance(50) { Route::Local } else { Route::Mailbox };
        let window = 1 + shard.random().below(60);
        Runner {
            shard,
            history: history.clone(),
            route,
            durability: None,
            submitted: began.0,
            acknowledged: Rc::default(),
            failed: Rc::default(),
            began,
            window,
        }
    }

    fn commit(&mut self) -> Pin<Box<dyn Future<Output = quipu::Result<CommitId>>>> {
        let (engine, local) = (self.shard.engine().clone(), self.shard.local());
        let directory = |path: &str| engine.directory(path).expect("a good path");
        match (&self.history.steps[self.submitted as usize], self.route) {
            (Step::Batch(ops), route) => {
                let mut batch = Batch::new();
                for (path, key, value) in ops {
                    match value {
                        Some(value) => batch.put(&directory(path), key, value),
                        None => batch.delete(&directory(path), key),
                    };
                }
                match (route, self.durability) {
                    (Route::Local, None) => Box::pin(local.commit(&batch)),
                    (Route::Local, Some(durability)) => Box::pin(local.commit_with(&batch, durability)),
                    (Route::Mailbox, None) => Box::pin(engine.commit(batch)),
                    (Route::Mailbox, Some(durability)) => Box::pin(engine.commit_with(batch, durability)),
                }
            }
            (Step::Rename(from, to), Route::Local) => {
                Box::pin(self.shard.rename(&directory(from), &directory(to)))
            }
            (Step::Rename(from, to), Route::Mailbox) => Box::pin(directory(from).rename(&directory(to))),
            (Step::Remove(path), Route::Local) => Box::pin(self.shard.remove(&directory(path))),
            (Step::Remove(path), Route::Mailbox) => Box::pin(directory(path).remove()),
        }
    }

    /// Submits the next commit.
    pub fn submit(&mut self) {
        let commit = self.commit();
        self.submitted += 1;
        let expected = Commit(self.submitted);
        let (acknowledged, failed) = (self.acknowledged.clone(), self.failed.clone());
        self.shard.spawn(async move {
            match commit.await {
                Ok(id) => {
                    assert_eq!(id.number, expected, "commits are numbered in the order of their submission");
                    acknowledged.borrow_mut().push(id.number);
                }
                Err(error) => failed.borrow_mut().push(error),
            }
        });
    }

    /// The commits of this run that are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.began.0 + self.acknowledged.borrow().len() as u64
    }

    pub fn is_over(&self) -> bool {
        self.submitted == self.history.commits()
    }

    /// Submits so many commits (or what is left), with turns in between as the seed says; `each` looks after
    /// every turn.
    pub fn advance_with(&mut self, commits: u64, mut each: impl FnMut(&mut Runner)) {
        let target = (self.submitted + commits).min(self.history.commits());
        while self.submitted < target {
            self.submit();
            let turns = match self.shard.random().below(8) {
                0 => 1 + self.shard.random().below(12),
                1 | 2 => 1,
                _ => 0,
            };
            for _ in 0..turns {
                self.shard.turn();
                each(self);
            }
            let mut count = 0u64;
            while self.submitted - self.acknowledged() > self.window {
                self.turn();
                each(self);
                count += 1;
                assert!(count < 300_000, "commits are not acknowledged: {:?}", self.shard);
            }
        }
    }

    pub fn advance(&mut self, commits: u64) {
        self.advance_with(commits, |_| {});
    }

    fn turn(&mut self) {
        let left = self.shard.turn();
        if let Some(error) = self.failed.borrow().first() {
            panic!("a commit failed: {error}");
        }
        let waits = self.submitted > self.acknowledged();
        assert!(!(left == Left::Nothing && waits), "the shard sleeps on commits: {:?}", self.shard);
    }

    /// Waits until everything submitted is acknowledged.
    pub fn catch_up(&mut self) {
        let mut count = 0u64;
        while self.acknowledged() < self.submitted {
            self.turn();
            count += 1;
            assert!(count < 300_000, "commits are not acknowledged: {:?}", self.shard);
        }
    }

    /// Everything else too.
    pub fn settle(&mut self) {
        self.catch_up();
        self.shard.settle();
        let left = self.shard.picture().carries;
        assert!(left.is_empty(), "settled, yet in flight: {left:?}");
    }

    /// Compares the newest state with the model, whole.
    pub fn check(&mut self) {
        let snapshot = self.shard.local().snapshot();
        let history = self.history.clone();
        check_state(&mut self.shard, &snapshot, history.state(snapshot.commit()));
    }

    /// The power fails.
    pub fn crash(self, random: &mut SplitMix64) -> Ended {
        assert!(self.failed.borrow().is_empty(), "a commit failed: {:?}", self.failed.borrow());
        let ended = Ended { acknowledged: self.acknowledged(), submitted: self.submitted };
        self.shard.crash(random);
        ended
    }
}

/// What was known of a run when it ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub acknowledged: u64,
    pub submitted: u64,
}

/// Compares everything that a snapshot shows with a model.
pub fn check_state(shard: &mut SimulatedShard, snapshot: &LocalSnapshot, model: &Model) {
    let at = snapshot.commit();
    let engine = shard.engine().clone();
    for path in PATHS {
        let directory = engine.directory(path).unwrap();
        let (exists, entries) = shard.run(async {
            let exists = snapshot.exists(&directory).await.unwrap();
            let entries = snapshot.iter(&directory).unwrap().collect().await.unwrap();
            (exists, entries)
        });
        assert_eq!(exists, model.exists(path), "whether {path} exists at commit {at}");
        let expected = model.map(path);
        if entries.len() != expected.len()
            || !entries.iter().map(|(k, v)| (&k[..], v)).eq(expected.iter().map(|(k, v)| (&k[..], v)))
        {
            let shown: Vec<&[u8]> = entries.iter().map(|(key, _)| &key[..]).collect();
            let keys: Vec<&[u8]> = expected.keys().map(|key| &key[..]).collect();
            assert_eq!(shown, keys, "the keys of {path} at commit {at}");
            for ((key, value), expected) in entries.iter().zip(expected.values()) {
                assert_eq!(value, expected, "the value of {key:?} in {path} at commit {at}");
            }
        }
    }
}

/// Buffered, with a bound in time that simulations reach.
pub const BUFFERED: Durability = Durability::Buffered { within: Duration::from_millis(5) };

/// How many rounds a test makes: `QUIPU_ROUNDS` times as many, to look further; `QUIPU_SEED` for one seed.
pub fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("QUIPU_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let times: u64 = std::env::var("QUIPU_ROUNDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    (1..=count * times).collect()
}

/// Runs a property for several seeds, and says which one failed.
pub fn for_seeds(count: u64, property: impl Fn(u64)) {
    for seed in seeds(count) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(seed)));
        if let Err(panic) = outcome {
            eprintln!("failed with QUIPU_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
