//! Every adapter against a map: the same operations, the same answers, before and after reopening.

#![allow(clippy::unwrap_used)]

use super::quipu::Tuning;
use super::*;
use crate::shared::draw::below;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn setup(path: &Path, durability: Durability) -> Setup {
    Setup {
        path: path.to_path_buf(),
        cache_bytes: 16 << 20,
        memtable_bytes: 64 << 20,
        durability,
        purpose: Purpose::Mixed,
        one_inserts: false,
        // One ordered map, as the others are.
        quipu: Tuning { one_directory: true, ..Tuning::default() },
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:08x}").into_bytes()
}

/// Does operations on both; compares every answer.
fn operate(client: &mut dyn Client, model: &mut Model, rng: &mut Xoshiro256PlusPlus, operations: u32) {
    for _ in 0..operations {
        let number = below(rng.next_u32(), 200);
        let value = |extra: u32| format!("value{}-{extra}", number + extra).into_bytes();
        match below(rng.next_u32(), 5) {
            0 => {
                client.put(&key(number), &value(0)).unwrap();
                model.insert(key(number), value(0));
            }
            1 => {
                let pairs: Vec<_> = (0..10).map(|extra| (key(number + extra), value(extra))).collect();
                client.commit(&mut pairs.iter().map(|(key, value)| (&key[..], &value[..]))).unwrap();
                model.extend(pairs);
            }
            2 => {
                let keys: Vec<_> = (0..3).map(|extra| key(number + extra)).collect();
                client.remove(&mut keys.iter().map(|key| &key[..])).unwrap();
                keys.iter().for_each(|key| drop(model.remove(key)));
            }
            3 => {
                client.drain().unwrap();
                let mut got = None;
                let found = client.get(&key(number), &mut |value| got = Some(value.to_vec())).unwrap();
                assert_eq!(
                    (found, got.as_ref()),
                    (model.contains_key(&key(number)), model.get(&key(number)))
                );
            }
            _ => {
                client.drain().unwrap();
                let mut got = Vec::new();
                let count = client.scan(&key(number), 7, &mut |value| got.push(value.to_vec())).unwrap();
                let expected: Vec<_> =
                    model.range(key(number)..).take(7).map(|(_, value)| value.clone()).collect();
                assert_eq!((count, &got), (expected.len(), &expected));
            }
        }
    }
    client.drain().unwrap();
}

#[test]
fn every_engine_is_an_ordered_map_that_survives_a_close() {
    for &kind in Kind::ALL {
        let held_back = Durability::Within(Duration::from_millis(5));
        for durability in [Durability::Synced, Durability::Unsynced, held_back] {
            let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            let setup = setup(folder.path(), durability);
            let (mut model, mut rng) = (Model::new(), Xoshiro256PlusPlus::seed_from_u64(11));
            for _ in 0..3 {
                let store = kind.open(&setup).unwrap();
                assert!(
                    store.settings().iter().any(|(name, _)| name == "writes"),
                    "{kind} says when commits return"
                );
                operate(&mut *store.client(View::Newest).unwrap(), &mut model, &mut rng, 200);
                store.settle().unwrap();
                operate(&mut *store.client(View::Newest).unwrap(), &mut model, &mut rng, 100);
                store.close().unwrap();
            }
        }
    }
}

#[test]
fn compacting_loses_nothing() {
    for &kind in Kind::ALL {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut store = kind.open(&setup(folder.path(), Durability::Synced)).unwrap();
        let (mut model, mut rng) = (Model::new(), Xoshiro256PlusPlus::seed_from_u64(12));
        operate(&mut *store.client(View::Newest).unwrap(), &mut model, &mut rng, 100);
        store.compact().unwrap();
        operate(&mut *store.client(View::Newest).unwrap(), &mut model, &mut rng, 100);
        store.close().unwrap();
    }
}

#[test]
fn a_held_view_sees_what_was_there_when_it_began() {
    for &kind in Kind::ALL.iter().filter(|kind| kind.can_hold_view()) {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let store = kind.open(&setup(folder.path(), Durability::Synced)).unwrap();
        store.client(View::Newest).unwrap().put(b"old", b"1").unwrap();
        std::thread::scope(|scope| {
            let mut held = store.client(View::Held).unwrap();
            // LMDB has one read transaction a thread.
            let put = || store.client(View::Newest).unwrap().put(b"new", b"2").unwrap();
            scope.spawn(put).join().unwrap();
            assert!(held.get(b"old", &mut |_| ()).unwrap());
            assert!(!held.get(b"new", &mut |_| ()).unwrap(), "{kind}");
            let found = scope.spawn(|| store.client(View::Newest).unwrap().get(b"new", &mut |_| ()).unwrap());
            assert!(found.join().unwrap());
        });
        store.close().unwrap();
    }
}
