//! Fixed histories, tiny ones, for tests that go through all of something: every moment of a run, every call to the disk.
//!
//! Each is named by what it makes the shard do, with files so small that some tens of commits do it.

use crate::choices::{Profile, batch};
use crate::faults::Harm;
use crate::model::{Change, Step};
use crate::plan::{Action, End, Plan, Reopen, Route};
use quipu::disk::simulated::SplitMix64;
use quipu::levels::Level;
use quipu::{Bytes, Compression, Options, Retention};

/// A fixed history.
#[derive(Clone, Debug)]
pub struct TinyHistory {
    /// What it makes the shard do.
    pub name: &'static str,
    /// The options that are part of the data.
    pub options: Options,
    /// What is done.
    pub plan: Plan,
}

/// A put of a value of so many bytes, begun with a number.
fn put(path: &'static str, key: u64, number: u64, bytes: usize) -> Change {
    let mut value = format!("{number}:").into_bytes();
    value.resize(bytes.max(value.len()), b'a' + (number % 26) as u8);
    (path, Bytes::from(format!("key{key:03}")), Some(Bytes::from(value)))
}

/// The actions of a history in the making.
#[derive(Default)]
struct Actions(Vec<Action>);

impl Actions {
    fn commit(&mut self, step: Step) -> &mut Self {
        self.submit(Route::Local, false, step);
        self.0.push(Action::Settle);
        self
    }

    fn submit(&mut self, route: Route, buffered: bool, step: Step) -> &mut Self {
        self.0.push(Action::Commit { route, buffered, step });
        self
    }

    fn puts(&mut self, range: std::ops::Range<u64>, keys: u64, bytes: usize) -> &mut Self {
        for number in range {
            self.commit(Step::Batch(vec![put("r/a", number % keys, number, bytes)]));
        }
        self
    }

    fn restart(&mut self, seed: u64, retention: Option<Retention>) -> &mut Self {
        let reopen = Reopen { seed, crashes: Vec::new(), retention };
        self.0.push(Action::Settle);
        self.0.push(Action::Restart { end: End::Close, seed, reopen });
        self
    }
}

/// What is done, and the options and retention it is done with. `seed` decides the options of the opening, and the moods of
/// the disk.
fn history(
    name: &'static str,
    seed: u64,
    options: Options,
    retention: Retention,
    fill: impl FnOnce(&mut Actions),
) -> TinyHistory {
    let mut actions = Actions::default();
    fill(&mut actions);
    actions.0.push(Action::Settle);
    let open = Reopen { seed, crashes: Vec::new(), retention: None };
    let plan =
        Plan { seed, harm: Harm::Benign, options: 0, retention, open, actions: actions.0, twin: false };
    let options =
        options.shards(1).log_file_bytes(32 << 10).part_bytes(64 << 10).base_ratio(2).retention(retention);
    TinyHistory { name, options, plan }
}

/// All of them.
pub fn histories() -> Vec<TinyHistory> {
    let small = || Options::new().divisor(2).flush_bytes(1024);
    vec![
        history("a log of several files", 27, small().flush_bytes(8 << 10), Retention::Forever, |actions| {
            actions.puts(0..18, 30, 20);
        }),
        history("carries through several levels", 2, small(), Retention::Forever, |actions| {
            actions.puts(0..18, 7, 400);
        }),
        history("a base, and a drop", 3, small(), Retention::None, |actions| {
            actions.puts(0..8, 3, 400);
            actions.commit(Step::Batch(vec![put("r/b/x", 1, 8, 400), put("r/c", 1, 8, 300)]));
            actions.commit(Step::Remove("r/b"));
            actions.puts(9..17, 3, 400);
        }),
        history(
            "a part that a drop empties",
            31,
            small().compression(Compression::None),
            Retention::None,
            |actions| {
                let fill = |path, key| Step::Batch((0..3).map(|at| put(path, key + at, key, 3000)).collect());
                actions.commit(fill("r/a", 0)).commit(fill("r/b/x", 0)).commit(fill("r/b/x", 3)).puts(
                    0..1,
                    1,
                    400,
                );
                // The last of the parts so far is of r/b/x alone. Where it was, there is nothing but this, once the
                // fold of all has been there.
                actions.commit(Step::Batch(vec![put("r/b/x", 9, 9, 400)])).commit(Step::Remove("r/b"));
                actions.commit(fill("r/a", 3)).commit(fill("r/a", 6)).puts(0..2, 2, 400);
            },
        ),
        history("renames and drops", 4, small(), Retention::Level(Level(3)), |actions| {
            actions.puts(0..3, 3, 300);
            actions.commit(Step::Rename("r/a", "r/b"));
            actions.puts(3..5, 3, 300);
            actions.commit(Step::Rename("r/b", "r/a/x"));
            actions.commit(Step::Batch(vec![put("s", 0, 5, 500), ("s", Bytes::from("key001"), None)]));
            actions.commit(Step::Remove("r/a/x"));
            actions.commit(Step::Rename("r/a", "r/c/d"));
            actions.puts(6..10, 2, 300);
        }),
        history("buffered commits, and barriers", 5, small(), Retention::Forever, |actions| {
            let random = &mut SplitMix64::new(5);
            let profile = Profile { commits: 0, keys: 6, moves: 0, large: 0, ..Profile::default() };
            for number in 0..24u64 {
                let route = if number % 3 == 0 { Route::Mailbox } else { Route::Local };
                actions.submit(route, number % 4 != 1, batch(random, profile, number as usize));
                match number % 8 {
                    3 => actions.0.push(Action::Barrier(Route::Local)),
                    5 => actions.0.push(Action::Turns(2)),
                    7 => actions.0.push(Action::Barrier(Route::Mailbox)),
                    _ => {}
                }
            }
        }),
        history("many log writes in flight", 11, small().divisor(3), Retention::None, |actions| {
            for number in 0..20 {
                let route = if number % 2 == 0 { Route::Mailbox } else { Route::Local };
                actions.submit(route, false, Step::Batch(vec![put("r/a", number % 5, number, 350)]));
                actions.0.push(Action::Turns(1));
            }
        }),
        history("generations of the manifest", 6, small(), Retention::None, |actions| {
            actions.puts(0..14, 4, 900);
        }),
        history("changes of the retention", 7, small(), Retention::Forever, |actions| {
            actions.puts(0..6, 3, 400);
            actions.restart(70, Some(Retention::None));
            actions.puts(6..12, 3, 400);
            actions.restart(71, Some(Retention::Last(3)));
            actions.puts(12..15, 3, 400);
        }),
        history("clean closes", 8, small().flush_bytes(4 << 10), Retention::None, |actions| {
            for session in 0..4 {
                actions.puts(session * 3..session * 3 + 3, 4, 200);
                actions.restart(80 + session, None);
            }
        }),
        history("spills", 14, small().flush_bytes(64 << 10), Retention::None, |actions| {
            for number in 0..9 {
                let changes = (0..4).map(|key| put("r/a", key + number, number, 2200)).collect();
                actions.commit(Step::Batch(changes));
            }
        }),
        history("the last commits stay", 10, small().divisor(3), Retention::Last(4), |actions| {
            actions.puts(0..20, 5, 400);
        }),
    ]
}
