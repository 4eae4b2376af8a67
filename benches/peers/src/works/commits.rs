//! Commits: durable from many clients (rows 1, 2, 3) and from one (row 4), unsynced (row 5), and YCSB A (row 7).

use crate::engines::floor::{Floor, PAGE, Wait};
use crate::engines::{Durability, Kind, Purpose, Result, View};
use crate::ops::{Data, Work};
use crate::row::{Figure, Goal, Row, Side};
use crate::shared::units;
use crate::trial::{Before, Bench, Clients, Comparison, Entrant, Outcome, calm, compare, say};
use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes of the values of commits.
pub(crate) const VALUE_BYTES: u32 = 100;
/// Decides keys and values of every row.
pub(crate) const SEED: u64 = 42;
/// The cache of rows that do not turn on it.
pub(crate) const CACHE_BYTES: u64 = 256 << 20;
/// Within which buffered commits are on stable storage, where an engine can promise that.
const WITHIN: Duration = Duration::from_millis(100);
/// Threads that write durably to the peers.
const DURABLE_THREADS: [u32; 5] = [1, 8, 64, 256, 1024];
/// … and to those that serve one writer.
const ONE_WRITER_THREADS: [u32; 3] = [1, 8, 64];

/// Keys that commits are drawn from.
pub(crate) fn keys() -> Data {
    Data { keys: 1_000_000, value_bytes: VALUE_BYTES, seed: SEED }
}

/// On-core with 512 in flight on each shard.
pub(crate) const ON_CORE: Clients = Clients::OnCore(512);

/// The same number in flight, from one task on each shard.
pub(crate) const PIPELINED: Clients = Clients::Pipelined(512);

/// Rows 1, 2 and 3: durable commits of one put.
pub(crate) fn durable(bench: &Bench, wanted: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let mut entrants = Vec::new();
    if bench.has(Kind::Quipu) {
        let kinds = [
            (1, vec![ON_CORE, PIPELINED]),
            (2, vec![Clients::Async(512, 1), Clients::Async(512, 2)]),
            (3, vec![Clients::threads(64)]),
        ];
        let clients =
            kinds.into_iter().filter(|(row, _)| wanted.contains(row)).flat_map(|(_, clients)| clients);
        entrants.push(Entrant::new(Kind::Quipu, Durability::Synced, clients.collect()));
    }
    for kind in bench.peers() {
        let threads = if kind.one_writer() { &ONE_WRITER_THREADS[..] } else { &DURABLE_THREADS[..] };
        let clients = threads.iter().copied().map(Clients::threads).collect();
        entrants.extend(Entrant::new(kind, Durability::Synced, clients).of_threads());
    }
    let outcome = compare(
        bench,
        &Comparison {
            data: keys(),
            cache_bytes: CACHE_BYTES,
            works: &[Work::Put],
            before: Before::Empty,
            entrants: &entrants,
            times: bench.scale.times,
            rounds: bench.scale.rounds,
        },
    )?;
    let rows = [
        (
            1,
            "durable commits, on-core",
            "Quipu with 512 in flight on each shard, from as many tasks and from one",
            20.0,
        ),
        (2, "durable commits, async tasks", "Quipu from 512 async tasks on other threads", 8.0),
        (3, "durable commits, 64 plain threads", "Quipu from 64 plain threads", 2.0),
    ];
    Ok(rows
        .into_iter()
        .map(|(number, title, ours, factor)| {
            let what = format!(
                "Commits of one put, each durable before its client goes on; 24-byte keys, 100-byte values, keys uniform \
                 of 1,000,000, the engine empty at first. {ours}; each peer from 1 to 1,024 threads, its best counts. RocksDB as its documentation \
                 recommends, and so that of threads that commit together one inserts for all."
            );
            let mut row = take(number, title, what, "commits/s", &outcome, 0);
            row.figures.retain(|figure| figure.side != Side::Ours || belongs(number, &figure.clients));
            let text = format!("{factor} x the best peer");
            row.beside_peers(&text, factor);
            row
        })
        .collect())
}

fn belongs(row: u32, clients: &str) -> bool {
    match row {
        1 => clients.starts_with("on-core"),
        2 => clients.contains("async"),
        _ => clients.ends_with("threads") && !clients.contains("async"),
    }
}

/// A row with the figures of one of an outcome's works.
pub(crate) fn take(
    number: u32,
    title: &str,
    what: impl Into<String>,
    unit: &str,
    outcome: &Outcome,
    work: usize,
) -> Row {
    let mut row = Row::new(number, title, what, unit);
    row.figures = outcome.figures.get(work).cloned().unwrap_or_default();
    row.settings = outcome.settings.clone();
    row
}

/// Row 4: one client, against the floor. Both take turns several times, since the device is never quite the same.
pub(crate) fn one_client(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let rounds = bench.scale.rounds * 2;
    let times = bench.scale.times;
    let place = bench.place("floor");
    std::fs::create_dir_all(place.path())?;
    let floor = Floor::create(&place.path().join("floor"), 64 << 20)?;
    // The disk interrupts one core, and a thread on another is woken through it. The floor's thread is on the one or the other as
    // the kernel likes; a shard stays where it is, so each is tried.
    let shards = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let mut clients: Vec<Clients> = (0..shards.min(2)).map(|shard| Clients::OnOneCore(1, shard)).collect();
    let waits =
        (0..shards.min(2) as usize).map(|core| (Wait::Looking { core }, format!("looking on core {core}")));
    let waits: Vec<_> = [(Wait::Asleep, "asleep".to_string())].into_iter().chain(waits).collect();
    let mut raw = vec![Vec::new(); waits.len()];
    clients.push(Clients::Threads(1, View::Newest));
    let entrants = [Entrant::new(Kind::Quipu, Durability::Synced, clients)];
    let mut ours: Vec<Outcome> = Vec::new();
    for _ in 0..rounds {
        for ((wait, name), raw) in waits.iter().zip(&mut raw) {
            let measured = calm(bench, || floor.writes(PAGE, 1, *wait, times))?;
            say(&format!("  {:<28} {:>12}", format!("floor, {name}"), units::rate(measured.rate)));
            raw.push(measured);
        }
        let comparison = Comparison {
            data: keys(),
            cache_bytes: CACHE_BYTES,
            works: &[Work::Put],
            before: Before::Empty,
            entrants: &entrants,
            times,
            rounds: 1,
        };
        ours.push(compare(bench, &comparison)?);
    }
    let what = "One client, one durable commit of one put at a time. The floor: 4 KiB (what such a commit's log write is padded \
                to) written with O_DIRECT and O_DSYNC through a ring, one at a time, into a file that was written once, by a thread that \
                sleeps meanwhile where the kernel likes, or looks without sleeping, on either core; the best one counts. The disk interrupts one \
                core, so it matters which one a shard is on.";
    let mut row = Row::new(4, "one client, one commit at a time", what, "commits/s");
    row.settings = ours.first().map(|outcome| outcome.settings.clone()).unwrap_or_default();
    row.figures = middle(ours.into_iter().flat_map(|outcome| outcome.figures).collect());
    for ((_, name), raw) in waits.into_iter().zip(raw) {
        row.figures.extend(Figure::rates(
            Side::Floor,
            "raw floor",
            format!("depth 1, 4 KiB, {name}"),
            raw,
            1.0,
        ));
    }
    row.goals.push(Goal::over("90 % of the raw floor", 0.9, &row.of(Side::Ours), &row.of(Side::Floor)));
    Ok(vec![row])
}

/// Figures of the same clients in several rounds, as one each: that of the middle round, with all rounds' values.
fn middle(rounds: Vec<Vec<Figure>>) -> Vec<Figure> {
    let count = rounds.first().map_or(0, Vec::len);
    (0..count)
        .filter_map(|at| {
            let mut figures: Vec<Figure> = rounds.iter().filter_map(|round| round.get(at).cloned()).collect();
            let values = figures.iter().map(|figure| figure.value).collect();
            let stolen = figures.iter().flat_map(|figure| figure.stolen.iter().copied()).collect();
            figures.sort_by(|one, other| one.value.total_cmp(&other.value));
            let middle = figures.get(figures.len().saturating_sub(1) / 2)?.clone();
            Some(Figure { rounds: values, stolen, ..middle })
        })
        .collect()
}

/// The same engine, set up to write few bytes rather than to take little space.
fn for_writes(entrant: &Entrant, clients: Vec<Clients>) -> Entrant {
    Entrant { variant: "for writes", purpose: Purpose::FewWrites, clients, ..entrant.clone() }
}

/// Row 5: commits that return before they are durable.
pub(crate) fn buffered(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let threads = || vec![Clients::threads(1), Clients::threads(2), Clients::threads(8)];
    let mut entrants = Vec::new();
    if bench.has(Kind::Quipu) {
        let clients = vec![Clients::OnCore(64), Clients::Async(512, 1), Clients::threads(8)];
        let usual = Entrant::new(Kind::Quipu, Durability::Within(WITHIN), clients);
        entrants.push(for_writes(&usual, vec![Clients::OnCore(64)]));
        entrants.push(usual);
    }
    for kind in bench.peers() {
        let usual = Entrant::new(kind, Durability::Unsynced, threads());
        let held = Entrant::new(kind, Durability::Within(WITHIN), threads());
        let held = kind.can_hold_back().then_some(Entrant { variant: "log held back", ..held });
        if kind.has_choice_of_writes() {
            entrants.push(for_writes(&usual, threads()));
            entrants.extend(held.iter().map(|held| {
                let variant = "for writes, log held back";
                Entrant { variant, ..for_writes(held, threads()) }
            }));
        }
        entrants.push(usual);
        entrants.extend(held);
    }
    let outcome = compare(
        bench,
        &Comparison {
            data: keys(),
            cache_bytes: CACHE_BYTES,
            works: &[Work::Put],
            before: Before::Empty,
            entrants: &entrants,
            times: bench.scale.times,
            rounds: bench.scale.rounds,
        },
    )?;
    let what = "Commits of one put that return before they are durable. Quipu's are on stable storage within 100 ms. Each peer \
                both as it does it when told not to sync and, where it can, with its log held back in its own memory and \
                synced every 100 ms, which is Quipu's promise; from 1, 2 and 8 threads. Quipu and RocksDB also set up to write few \
                bytes rather than to take little space. The best of each counts.";
    let mut row = take(5, "unsynced commits", what, "commits/s", &outcome, 0);
    row.goals.push(Goal::over("4 x the best peer", 4.0, &row.of(Side::Ours), &row.of(Side::Peer)));
    Ok(vec![row])
}

/// Row 7: YCSB A, durable, 64 clients.
pub(crate) fn ycsb_a(bench: &Bench, _: &BTreeSet<u32>) -> Result<Vec<Row>> {
    let data = Data { keys: bench.scale.pick(1_000_000, 200_000), value_bytes: 200, seed: SEED };
    let mut entrants = Vec::new();
    if bench.has(Kind::Quipu) {
        let on_core = vec![Clients::Served(32), Clients::OnCore(32)];
        let others = [Clients::Async(64, 1), Clients::threads(64)];
        let clients = on_core.iter().cloned().chain(others).collect();
        let usual = Entrant::new(Kind::Quipu, Durability::Synced, clients);
        let purpose = Purpose::CachedUpdates;
        entrants.push(Entrant { variant: "for updates", purpose, clients: on_core, ..usual.clone() });
        entrants.push(usual);
    }
    for kind in bench.peers() {
        let usual = Entrant::new(kind, Durability::Synced, vec![Clients::threads(64)]);
        if kind.has_choice_of_writes() {
            entrants.extend(for_writes(&usual, usual.clients.clone()).of_threads());
        }
        entrants.extend(usual.of_threads());
    }
    let outcome = compare(
        bench,
        &Comparison {
            data,
            cache_bytes: 2 * CACHE_BYTES,
            works: &[Work::YcsbA],
            before: Before::Touched,
            entrants: &entrants,
            times: bench.scale.times,
            rounds: bench.scale.rounds,
        },
    )?;
    let what = format!(
        "Half reads, half durable updates, 64 clients in all, keys scrambled zipfian (0.99) of {}, 200-byte values, all of \
         it in a cache of 512 MiB, every key read once before. The table shows operations of both kinds. Quipu's clients are a task \
         each, or one task on each core serves 32 of them, and makes the reads of those who are ready at once in a call; and they \
         are async tasks and threads. Quipu also set up to gather updates for longer, RocksDB to write few bytes rather than to take \
         little space, and so that of threads that commit together one inserts for all.",
        units::thousands(data.keys.into())
    );
    let mut row = take(7, "YCSB A, durable, 64 clients", what, "operations/s", &outcome, 0);
    row.beside_peers("8 x the best peer", 8.0);
    Ok(vec![row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_clients() {
        let all = [ON_CORE, Clients::Async(512, 1), Clients::Async(512, 2), Clients::threads(64)];
        let rows = all
            .map(|clients| (1..=3).filter(|&row| belongs(row, &clients.to_string())).collect::<Vec<u32>>());
        assert_eq!(rows, [vec![1], vec![2], vec![2], vec![3]]);
    }

    #[test]
    fn the_middle_of_rounds_keeps_every_value() {
        let round = |value| {
            vec![Figure::value(Side::Ours, "a", "b", value), Figure::value(Side::Ours, "a", "c", -value)]
        };
        let figures = middle(vec![round(3.0), round(1.0), round(2.0)]);
        assert_eq!(figures.iter().map(|figure| figure.value).collect::<Vec<_>>(), [2.0, -2.0]);
        assert_eq!(figures[0].rounds, [3.0, 1.0, 2.0]);
    }
}
