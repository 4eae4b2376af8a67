//! What is readable, and which versions merges keep so that it is.

use crate::{Seeded, divisors};
use quipu::levels::{
    Budget, Commit, Divisor, History, KeyFold, Level, Measured, Retention, Shape, Span, Version,
};
use std::collections::BTreeSet;

/// What the option promises for a shard that never had another, word by word.
fn promised(retention: Retention, divisor: Divisor, newest: u64) -> BTreeSet<u64> {
    let last = |count: u64| (0..=newest).filter(move |commit| newest - commit < count);
    let aligned = |level: Level| (0..=newest).filter(move |commit| commit % divisor.pow(level) == 0);
    let mut promised: BTreeSet<u64> = match retention {
        Retention::Forever => (0..=newest).collect(),
        Retention::None => BTreeSet::new(),
        Retention::Level(level) => aligned(level).collect(),
        Retention::Last(count) => last(count).collect(),
        Retention::LastAndLevel(count, level) => last(count).chain(aligned(level)).collect(),
    };
    promised.insert(newest);
    promised
}

fn readable(history: &History, divisor: Divisor, newest: u64) -> BTreeSet<u64> {
    (0..=newest + 3).filter(|&commit| history.retained(divisor, Commit(commit), Commit(newest))).collect()
}

fn any_retention(seeded: &mut Seeded) -> Retention {
    let (count, level) = (seeded.below(30), Level(seeded.below(5) as u8));
    [
        Retention::Forever,
        Retention::None,
        Retention::Level(level),
        Retention::Last(count),
        Retention::LastAndLevel(count, level),
    ][seeded.below(5) as usize]
}

fn check_nearest(history: &History, divisor: Divisor, newest: u64) {
    let readable = readable(history, divisor, newest);
    for asked in 0..=newest + 3 {
        let below = readable.range(..=asked).next_back();
        let expected = below.or_else(|| readable.range(asked..).next()).unwrap();
        let nearest = history.nearest(divisor, Commit(asked), Commit(newest));
        assert_eq!(nearest.0, *expected, "{history:?} at {newest}: nearest to {asked}");
    }
}

#[test]
fn retained_is_what_the_option_says() {
    let ten = Divisor::new(10).unwrap();
    let (every, hundreds) = (Level(0), Level(2));
    for retention in [
        Retention::Forever,
        Retention::None,
        Retention::Level(every),
        Retention::Level(hundreds),
        Retention::Level(Level(255)),
        Retention::Last(0),
        Retention::Last(1),
        Retention::Last(30),
        Retention::Last(u64::MAX),
        Retention::LastAndLevel(30, hundreds),
    ] {
        let history = History::new(retention);
        for newest in [0, 1, 29, 30, 31, 99, 100, 101, 250, 1234] {
            assert_eq!(
                readable(&history, ten, newest),
                promised(retention, ten, newest),
                "{retention:?} at {newest}"
            );
            check_nearest(&history, ten, newest);
        }
    }
    let base: Vec<bool> = [
        Retention::Forever,
        Retention::None,
        Retention::Level(every),
        Retention::Last(9),
        Retention::LastAndLevel(9, every),
    ]
    .map(Retention::has_base)
    .to_vec();
    assert_eq!(base, [false, true, false, true, false]);
}

#[test]
fn a_change_never_brings_back_what_was_let_go() {
    let rounds = if cfg!(debug_assertions) { 100 } else { 1000 };
    for round in 0..rounds {
        let mut seeded = Seeded(round);
        let divisor = Divisor::new(2 + seeded.below(4) as u32).unwrap();
        let mut history = History::new(any_retention(&mut seeded));
        let mut readable_before = BTreeSet::from([0]);
        for newest in 0..160 {
            let now = readable(&history, divisor, newest);
            let possible: BTreeSet<u64> = readable_before.iter().copied().chain([newest]).collect();
            assert!(now.is_subset(&possible), "{history:?} at {newest}");
            assert!(now.is_subset(&promised(history.retention, divisor, newest)), "{history:?} at {newest}");
            readable_before = now;
            if newest % 7 == 0 {
                check_nearest(&history, divisor, newest);
            }
            if seeded.below(12) == 0 {
                let to = any_retention(&mut seeded);
                let changed = history.change(to, Commit(newest));
                let after = readable(&changed, divisor, newest);
                assert!(after.is_subset(&readable_before), "{history:?} to {changed:?} at {newest}");
                // Boundaries retained before and asked for now stay.
                if let Retention::Forever | Retention::Level(_) = to {
                    let both = &promised(to, divisor, newest) & &readable_before;
                    assert_eq!(after, both, "{history:?} to {changed:?} at {newest}");
                }
                // So do the last ones that were retained as such, or as each and every one.
                if let Retention::Last(count) | Retention::LastAndLevel(count, _) = to {
                    let every =
                        history.aligned.iter().filter(|part| part.level == Level(0)).map(|part| part.from.0);
                    let old_count = match history.retention {
                        Retention::Last(count) | Retention::LastAndLevel(count, _) => count,
                        _ => 1,
                    };
                    let old_last = (newest + 1).saturating_sub(old_count).max(history.last_from.0);
                    let since = every
                        .chain([old_last])
                        .min()
                        .unwrap_or(newest)
                        .max((newest + 1).saturating_sub(count));
                    assert!(
                        (since..=newest).all(|commit| after.contains(&commit)),
                        "{history:?} to {changed:?}"
                    );
                }
                assert_eq!(changed.change(to, Commit(newest + 9)), changed, "the same again changes nothing");
                assert!(
                    changed
                        .aligned
                        .windows(2)
                        .all(|two| two[0].from < two[1].from && two[0].level > two[1].level)
                );
                history = changed;
                readable_before = after;
            }
        }
    }
}

/// The versions of one key and of one directory: newest first, as merges bring them.
type Versions = Vec<Version>;

/// Which versions a span needs: for some readable commit up to `end`, it is what is read there; or it is the newest.
fn needed(versions: &[Version], readable: &BTreeSet<u64>, dropped: Option<u64>, bottom: bool) -> Versions {
    let mut read: BTreeSet<u64> = BTreeSet::new();
    for &at in readable {
        let gone = dropped.is_some_and(|drop| at >= drop);
        let seen = versions.iter().find(|version| version.commit.0 <= at);
        if let (Some(version), false) =
            (seen, gone && seen.is_some_and(|seen| dropped >= Some(seen.commit.0)))
        {
            read.insert(version.commit.0);
        }
    }
    let mut kept: Versions =
        versions.iter().copied().filter(|version| read.contains(&version.commit.0)).collect();
    while bottom && kept.last().is_some_and(|oldest| oldest.tombstone) {
        kept.pop();
    }
    kept
}

fn fold(fold: &KeyFold, versions: &[Version], dropped: Option<u64>) -> Versions {
    let mut kept = vec![77];
    fold.fold(versions, dropped.map(Commit), &mut kept);
    kept.into_iter().map(|position| versions[position]).collect()
}

fn merged(parts: impl DoubleEndedIterator<Item = Versions>) -> Versions {
    parts.rev().flatten().collect()
}

/// One key through a shard's life: its versions lie in the pieces that the carries make.
#[test]
fn merging_level_by_level_keeps_what_merging_at_once_keeps() {
    let rounds = if cfg!(debug_assertions) { 150 } else { 2500 };
    let (mut dropped_something, mut kept_something_old) = (0, 0);
    for round in 0..rounds {
        let mut seeded = Seeded(round * 31 + 7);
        let divisor = divisors().nth(seeded.below(5) as usize).unwrap();
        let mut history = History::new(any_retention(&mut seeded));
        let flush = Level(seeded.below(2) as u8);
        let base_level = history.retention.has_base().then_some(Level(flush.0 + seeded.below(3) as u8));
        let mut shape = Shape { base_level, ..Shape::new(divisor, flush, false) };
        let density = 1 + seeded.below(6);
        let dropped = (seeded.below(3) == 0).then(|| 20 + seeded.below(200));

        let mut raw: Versions = Vec::new();
        let mut pieces: Vec<(Span, Versions)> = Vec::new();
        let mut memtable: Versions = Vec::new();
        let mut changed = false;
        for number in 1..=260 {
            let n = Commit(number);
            let alive = dropped.is_none_or(|drop| number <= drop);
            if alive && seeded.below(density) == 0 {
                let version = Version { commit: n, tombstone: seeded.below(3) == 0 };
                raw.insert(0, version);
                memtable.insert(0, version);
            }
            // Now and then a fold is not worth it.
            let budget = Budget { flush_bytes: 100, base_ratio: 1 };
            let measured = Measured {
                flush_bytes: 100,
                window_bytes: 9,
                base_bytes: 4 * seeded.below(4),
                ..Measured::default()
            };
            if let Some((carry, after)) = shape.step(n, &measured, &budget) {
                shape = after;
                let span = carry.span();
                let rule = history.keep_rule(divisor, n);
                let key = KeyFold::new(rule, carry.is_bottom());
                let within: Vec<Versions> = pieces
                    .iter()
                    .filter(|(piece, _)| span.covers(*piece))
                    .map(|(_, versions)| versions.clone())
                    .chain([std::mem::take(&mut memtable)])
                    .collect();
                let stepwise = fold(&key, &merged(within.into_iter()), dropped);
                let all: Versions =
                    raw.iter().copied().filter(|version| span.contains(version.commit)).collect();
                let known_drop = dropped.filter(|&drop| drop <= number);
                if !changed {
                    assert_eq!(stepwise, fold(&key, &all, dropped), "{history:?}: {carry:?}");
                }
                let readable = readable(&history, divisor, number);
                assert_eq!(
                    stepwise,
                    needed(&all, &readable, known_drop, carry.is_bottom()),
                    "{history:?}: {carry:?}"
                );
                dropped_something += usize::from(stepwise.len() < all.len());
                kept_something_old += usize::from(stepwise.len() > 1);
                pieces.retain(|(piece, _)| !span.covers(*piece));
                pieces.push((span, stepwise));
            }
            // Every readable commit reads what was there.
            if number % 5 == 0 {
                let everything =
                    merged(pieces.iter().map(|(_, versions)| versions.clone()).chain([memtable.clone()]));
                for at in readable(&history, divisor, number) {
                    let read = |versions: &[Version]| {
                        let seen = versions
                            .iter()
                            .find(|version| version.commit.0 <= at && dropped.is_none_or(|drop| at < drop));
                        seen.filter(|version| !version.tombstone).map(|version| version.commit)
                    };
                    assert_eq!(read(&everything), read(&raw), "{history:?}: {at} at {number}");
                }
            }
            if seeded.below(90) == 0 {
                history = history.change(any_retention(&mut seeded), n);
                shape = shape.change(n, history.retention.has_base(), 8);
                changed = true;
            }
        }
    }
    assert!(dropped_something > 100 && kept_something_old > 100, "the rounds test something");
}

#[test]
fn tombstones_and_drops() {
    let ten = Divisor::new(10).unwrap();
    let put = |commit| Version { commit: Commit(commit), tombstone: false };
    let delete = |commit| Version { commit: Commit(commit), tombstone: true };
    let fold = |retention, bottom, dropped, versions: &[Version]| -> Vec<u64> {
        let rule = History::new(retention).keep_rule(ten, Commit(100));
        fold(&KeyFold::new(rule, bottom), versions, dropped).iter().map(|version| version.commit.0).collect()
    };
    let none = Retention::None;
    assert_eq!(fold(none, false, None, &[delete(5)]), [5], "a tombstone may hide something older");
    assert_eq!(fold(none, true, None, &[delete(5)]), [], "unless nothing is");
    assert_eq!(fold(none, true, None, &[put(9), delete(5)]), [9]);
    assert_eq!(fold(none, true, None, &[delete(9), put(5)]), [], "what it hides goes, then it goes");
    assert_eq!(fold(Retention::Forever, true, None, &[delete(9), put(5), delete(4), delete(3)]), [9, 5]);
    assert_eq!(
        fold(Retention::Level(Level(1)), false, None, &[put(31), put(29), put(20), put(19)]),
        [31, 29, 20]
    );
    assert_eq!(fold(Retention::Last(10), false, None, &[put(95), put(92), put(90), put(1)]), [95, 92, 90]);
    assert_eq!(fold(Retention::Last(10), false, None, &[put(95), put(92), put(91), put(1)]), [95, 92, 91]);
    assert_eq!(fold(none, false, Some(9), &[put(5)]), [], "dropped with its directory");
    assert_eq!(fold(none, false, Some(9), &[put(9)]), [], "in the very commit, too");
    assert_eq!(fold(none, false, Some(101), &[put(5)]), [5], "a later drop is not this merge's business");
    assert_eq!(
        fold(Retention::Level(Level(1)), true, Some(15), &[put(12), delete(9), put(3)]),
        [],
        "10 reads a tombstone"
    );
    assert_eq!(
        fold(Retention::Level(Level(1)), true, Some(15), &[put(12), put(9), put(3)]),
        [9],
        "10 reads it"
    );
}
