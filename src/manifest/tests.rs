//! Properties of the manifest: which state comes back after a crash, and what is refused.

use super::*;
use crate::log::testdisk::{FailOn, Fate, MemDisk, Random};
use std::future::Future;
use std::task::{Context, Waker};

const IDENTITY: Identity = Identity { engine: 0xbeef, shard: 1 };
/// Files this short make a new generation every few edits.
const FILE_BYTES: u64 = 10 * PAGE;

fn open(disk: &MemDisk) -> Option<Result<(Io, Manifest)>> {
    let io = disk.io();
    let manifest = disk.run(&io, Manifest::open(&io, IDENTITY, FILE_BYTES))?;
    Some(manifest.map(|manifest| (io, manifest)))
}

fn must_open(disk: &MemDisk) -> (Io, Manifest) {
    open(disk).expect("no crash").expect("an intact manifest")
}

fn state_of(disk: &MemDisk) -> State {
    must_open(disk).1.state().clone()
}

/// An edit that fits the state: replaces, adds and removes, now and then over several pages.
fn some_edit(state: &State, random: &mut Random) -> Edit {
    let mut edit = Edit::default();
    for name in state.segments.keys() {
        if random.below(4) == 0 {
            edit.remove.push(name.clone());
        }
    }
    for _ in 0..random.below(4) {
        let name = format!("segment-{}", random.below(30));
        let known = state.segments.contains_key(&name) && !edit.remove.contains(&name);
        if !known && edit.add.iter().all(|(other, _)| *other != name) {
            let bytes = [10, 100, 4000][random.below(3) as usize];
            edit.add.push((name, vec![random.next() as u8; bytes]));
        }
    }
    edit.facts.push((random.below(5) as u16, random.next().to_le_bytes().to_vec()));
    edit
}

fn after(state: &State, edit: &Edit) -> State {
    let mut state = state.clone();
    edit.remove.iter().for_each(|name| drop(state.segments.remove(name)));
    state.segments.extend(edit.add.iter().cloned());
    state.facts.extend(edit.facts.iter().cloned());
    state
}

#[test]
fn after_any_crash_the_state_is_the_acknowledged_one_or_the_one_in_flight() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut disk = MemDisk::new(seed);
        let (mut acknowledged, mut in_flight) = (State::default(), State::default());
        for era in 0..12 {
            if random.below(3) > 0 {
                disk.crash_after(random.below(60));
            }
            if let Some(opened) = open(&disk) {
                let (io, mut manifest) =
                    opened.unwrap_or_else(|error| panic!("seed {seed}, era {era}: {error}"));
                let state = manifest.state().clone();
                assert!(state == acknowledged || state == in_flight, "seed {seed}, era {era}");
                acknowledged = state;
                in_flight = acknowledged.clone();
                for _ in 0..random.below(12) {
                    let edit = some_edit(&acknowledged, &mut random);
                    in_flight = after(&acknowledged, &edit);
                    match disk.run(&io, manifest.apply(edit)) {
                        Some(result) => result.unwrap_or_else(|error| panic!("seed {seed}: {error}")),
                        None => break,
                    }
                    acknowledged = in_flight.clone();
                    assert_eq!(*manifest.state(), acknowledged);
                }
            }
            disk = match random.below(6) {
                0 => disk.crash(Fate::Lost),
                1 => disk.crash(Fate::Kept),
                _ => disk.crash(Fate::Drawn(&mut random)),
            };
        }
    }
}

#[test]
fn a_crash_at_each_completion_of_opening_and_editing() {
    let mut generations = 0;
    for after_completions in 0.. {
        let disk = MemDisk::new(1);
        let mut random = Random(7);
        disk.crash_after(after_completions);
        let (mut acknowledged, mut in_flight) = (State::default(), State::default());
        let mut crashed = true;
        if let Some(opened) = open(&disk) {
            let (io, mut manifest) = opened.expect("an intact manifest");
            crashed = false;
            for _ in 0..14 {
                let edit = some_edit(&acknowledged, &mut random);
                in_flight = after(&acknowledged, &edit);
                match disk.run(&io, manifest.apply(edit)) {
                    Some(result) => result.expect("applied"),
                    None => {
                        crashed = true;
                        break;
                    }
                }
                acknowledged = in_flight.clone();
            }
            generations = generations.max(manifest.tail.generation);
        }
        for fate in 0..6 {
            let found = state_of(&match fate {
                0 => disk.crash(Fate::Lost),
                1 => disk.crash(Fate::Kept),
                _ => disk.crash(Fate::Drawn(&mut Random(fate))),
            });
            assert!(found == acknowledged || found == in_flight, "after {after_completions}, fate {fate}");
        }
        if !crashed {
            break;
        }
    }
    assert!(generations > 2, "the edits went over {generations} generations");
}

/// A manifest of one generation with a snapshot and five edits of a page each; the states after each.
fn five_edits() -> (MemDisk, Vec<State>) {
    let disk = MemDisk::new(3);
    let (io, mut manifest) = must_open(&disk);
    let mut states = vec![State::default()];
    for number in 1..=5u16 {
        let add = vec![(format!("segment-{number}"), vec![number as u8; 50])];
        let edit = Edit { add, facts: vec![(number, vec![1])], ..Edit::default() };
        disk.run(&io, manifest.apply(edit)).expect("no crash").expect("applied");
        states.push(manifest.state().clone());
    }
    assert_eq!(manifest.tail.generation, 1);
    (disk.copy(), states)
}

#[test]
fn a_flipped_byte_is_refused_except_in_the_last_edit_which_is_cut() {
    let (image, states) = five_edits();
    for record in 0..=5 {
        for byte in (0..PAGE_BYTES).step_by(97).chain(0..format::RECORD_HEADER_BYTES) {
            let disk = image.copy();
            disk.edit("manifest-00000001", |data| data[record * PAGE_BYTES + byte] ^= 4);
            match open(&disk).expect("no crash") {
                Ok((_, manifest)) => {
                    assert_eq!(record, 5, "byte {byte} of record {record}");
                    assert_eq!(*manifest.state(), states[4]);
                }
                Err(Error::Damaged { file, offset, .. }) => {
                    assert!(record < 5);
                    assert_eq!((file.as_str(), offset), ("manifest-00000001", record as u64 * PAGE));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn what_is_not_this_shards_newest_manifest_is_refused() {
    let (image, _) = five_edits();
    let io = image.io();
    let other = Identity { engine: 1, ..IDENTITY };
    let result = image.run(&io, Manifest::open(&io, other, FILE_BYTES)).expect("no crash");
    assert!(matches!(result, Err(Error::Damaged { .. })));

    // A newer generation that does not read is not replaced by the older one.
    let disk = image.copy();
    let io = disk.io();
    let how = OpenHow { write: true, create_new: true, durable: true };
    disk.run(&io, io.open("manifest-00000002", how)).expect("no crash").expect("created");
    assert!(matches!(open(&disk), Some(Err(Error::Damaged { .. }))));
    disk.edit("manifest-00000002", |data| data.resize(3 * PAGE_BYTES, 0));
    assert!(matches!(open(&disk), Some(Err(Error::Damaged { .. }))));
    // Nor is generation 1 taken for generation 2.
    let first = disk.edit("manifest-00000001", |data| data.clone());
    disk.edit("manifest-00000002", |data| *data = first);
    assert!(matches!(open(&disk), Some(Err(Error::Damaged { .. }))));

    // A log without a manifest: the manifest was lost.
    let disk = MemDisk::new(1);
    let io = disk.io();
    disk.run(&io, io.open("log-00", how)).expect("no crash").expect("created");
    assert!(matches!(open(&disk), Some(Err(Error::Damaged { .. }))));
}

#[test]
fn older_generations_and_leftovers_are_removed() {
    let disk = MemDisk::new(9);
    let mut random = Random(3);
    let (io, mut manifest) = must_open(&disk);
    while manifest.tail.generation < 3 {
        let edit = some_edit(manifest.state(), &mut random);
        disk.run(&io, manifest.apply(edit)).expect("no crash").expect("applied");
    }
    assert_eq!(disk.names(), ["manifest-00000003"]);
    let how = OpenHow { write: true, create_new: true, durable: true };
    for name in [TEMPORARY, "manifest-00000001", "manifest-1", "segment-1"] {
        disk.run(&io, io.open(name, how)).expect("no crash").expect("created");
    }
    assert_eq!(state_of(&disk), *manifest.state());
    assert_eq!(disk.names(), ["manifest-00000003", "manifest-1", "segment-1"], "what is not ours stays");
}

#[test]
fn a_full_disk_changes_nothing_and_removals_go_on() {
    let disk = MemDisk::new(9);
    let mut random = Random(4);
    let (io, mut manifest) = must_open(&disk);
    disk.set_space(Some(0));
    let before = loop {
        let before = manifest.state().clone();
        let mut edit = some_edit(&before, &mut random);
        edit.add.push(("new".to_string(), Vec::new()));
        edit.remove.retain(|name| name != "new");
        if before.segments.contains_key("new") {
            edit.remove.push("new".to_string());
        }
        match disk.run(&io, manifest.apply(edit)).expect("no crash") {
            Ok(()) => {}
            Err(Error::NoSpace { .. }) => break before,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(*manifest.state(), before);
    assert_eq!(disk.names(), ["manifest-00000001"]);
    let drop_all = Edit { remove: before.segments.keys().cloned().collect(), ..Edit::default() };
    disk.run(&io, manifest.apply(drop_all)).expect("no crash").expect("removals need no space");
    assert_eq!(manifest.tail.generation, 1);
    assert_eq!(state_of(&disk.crash(Fate::Lost)), *manifest.state());

    // With a little space the next generation is a short one.
    disk.set_space(Some((ROOM_BYTES_MIN + PAGE) as usize));
    manifest.file_bytes_min = 64 * PAGE;
    while manifest.tail.generation == 1 {
        let edit = Edit { facts: vec![(1, vec![7; 100])], ..Edit::default() };
        disk.run(&io, manifest.apply(edit)).expect("no crash").expect("applied");
    }
    assert_eq!(manifest.tail.file_bytes, ROOM_BYTES_MIN + PAGE);
    assert_eq!(state_of(&disk.crash(Fate::Lost)), *manifest.state());
}

#[test]
fn a_failed_write_leaves_doubt_and_refuses_further_edits() {
    let edit = || Edit { facts: vec![(1, vec![1])], ..Edit::default() };
    for on in [FailOn::Write, FailOn::Rename, FailOn::SyncFolder] {
        let disk = MemDisk::new(2);
        let (io, mut manifest) = must_open(&disk);
        if on != FailOn::Write {
            manifest.tail.offset = manifest.tail.file_bytes;
        }
        disk.fail(Some((on, ErrorKind::Other)));
        assert!(matches!(disk.run(&io, manifest.apply(edit())), Some(Err(Error::Io { .. }))), "{on:?}");
        disk.fail(None);
        assert!(matches!(disk.run(&io, manifest.apply(edit())), Some(Err(Error::Io { .. }))), "{on:?}");
        let found = state_of(&disk.crash(Fate::Lost));
        assert!(found == State::default() || found == after(&State::default(), &edit()));
    }
}

#[test]
fn an_edit_dropped_half_done_refuses_further_ones() {
    let edit = || Edit { facts: vec![(1, vec![1])], ..Edit::default() };
    let disk = MemDisk::new(2);
    let (io, mut manifest) = must_open(&disk);
    {
        let mut future = Box::pin(manifest.apply(edit()));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(matches!(disk.run(&io, manifest.apply(edit())), Some(Err(Error::Io { .. }))));
}

#[test]
fn an_edit_that_contradicts_the_state_is_refused_and_changes_nothing() {
    let (disk, states) = five_edits();
    let (io, mut manifest) = must_open(&disk);
    let named = |name: &str| (name.to_string(), vec![]);
    for edit in [
        Edit { remove: vec!["absent".into()], ..Edit::default() },
        Edit { remove: vec!["segment-1".into(), "segment-1".into()], ..Edit::default() },
        Edit { add: vec![named("segment-1")], ..Edit::default() },
        Edit { add: vec![named("new"), named("new")], ..Edit::default() },
    ] {
        assert!(matches!(disk.run(&io, manifest.apply(edit)), Some(Err(Error::Invalid { .. }))));
    }
    assert_eq!(*manifest.state(), states[5]);
    let replace = Edit { remove: vec!["segment-1".into()], add: vec![named("segment-1")], facts: vec![] };
    disk.run(&io, manifest.apply(replace)).expect("no crash").expect("a segment may be replaced");
}
