//! What the simulated disk adds: crashes, faults, damage, and that a seed decides everything.

use crate::harness::*;
use quipu::disk::simulated::{Fault, FaultSite, OpKind, SECTOR_BYTES, SimulatedClock, SplitMix64};
use quipu::disk::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;

const EIO: i32 = 5;
const PAGES: usize = 8;

fn disk(folder: &SimulatedFolder, seed: u64) -> Simulated {
    Simulated::new(folder, SimulatedOptions { seed, ..Default::default() })
}

/// What may be and what must be on a page after a crash. Stamps are fill bytes.
#[derive(Default, Clone)]
struct PageModel {
    /// The stamp of the last write started, and whether it has completed.
    last: u8,
    in_flight: bool,
    /// Each sector must be one of these.
    possible: BTreeSet<u8>,
}

/// Writes, durable writes and syncs in any interleaving, then a crash in the middle of it: a page whose last
/// write was durable, or completed before a sync that completed was started, holds exactly that write; every
/// sector of any other holds one of the writes since the last certain one.
#[test]
fn after_a_crash_the_durable_is_there_and_the_rest_is_any_subset() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = SplitMix64::new(seed);
        let folder = SimulatedFolder::new();
        let mut disk = disk(&folder, seed);
        let first = create(&mut disk, "a", false);
        must(&mut disk, write(first, 0, &[0; PAGES]));
        must(&mut disk, Op::Sync { file: first });
        must(&mut disk, Op::SyncFolder);
        let durable = reopen(&mut disk, "a", true);

        let blank = PageModel { possible: BTreeSet::from([0]), ..Default::default() };
        let mut model = vec![blank; PAGES];
        // What each operation in flight was: a write to a page, or a sync with the completed stamps it covers.
        enum Started {
            Write { page: usize, durable: bool },
            Sync { covers: Vec<Option<u8>> },
        }
        let mut started = BTreeMap::new();
        let mut completions = Vec::new();
        for token in 1..=random.below(60) {
            let page = random.below(PAGES as u64) as usize;
            if random.chance(15) {
                let covers = model.iter().map(|page| (!page.in_flight).then_some(page.last)).collect();
                started.insert(token, Started::Sync { covers });
                disk.start(token, Op::Sync { file: first });
                disk.submit();
            } else if !model[page].in_flight {
                let is_durable = random.chance(30);
                model[page].last = token as u8;
                model[page].in_flight = true;
                model[page].possible.insert(token as u8);
                started.insert(token, Started::Write { page, durable: is_durable });
                disk.start(
                    token,
                    write(if is_durable { durable } else { first }, page as u64, &[token as u8]),
                );
                disk.submit();
            }
            if random.chance(60) {
                disk.collect(&mut completions);
            }
            for completion in completions.drain(..) {
                completion.result.unwrap();
                match started.remove(&completion.token).unwrap() {
                    Started::Write { page, durable } => {
                        model[page].in_flight = false;
                        if durable {
                            model[page].possible = BTreeSet::from([model[page].last]);
                        }
                    }
                    Started::Sync { covers } => {
                        for (page, covered) in model.iter_mut().zip(covers) {
                            // What is older than the covered stamp is gone for good.
                            if let Some(stamp) = covered {
                                page.possible.retain(|possible| *possible >= stamp);
                            }
                        }
                    }
                }
            }
        }
        if random.chance(50) {
            drop(disk);
        }
        folder.crash(&mut random);
        assert_eq!(folder.files(), folder.durable_files());
        let bytes = &folder.files()["a"];
        assert_eq!(bytes.len(), PAGES * 4096);
        for (page, model) in bytes.chunks(4096).zip(&model) {
            // A write that was not durable may be there in part of a sector, with garbage in the rest of it.
            let is_whole = |sector: &&[u8]| sector.iter().all(|byte| *byte == sector[0]);
            let whole: Vec<&[u8]> = page.chunks(SECTOR_BYTES).filter(is_whole).collect();
            assert!(whole.len() == page.len() / SECTOR_BYTES || model.possible.len() > 1, "seed {seed}");
            let sectors: BTreeSet<u8> = whole.iter().map(|sector| sector[0]).collect();
            assert!(sectors.is_subset(&model.possible), "seed {seed}: {sectors:?} of {:?}", model.possible);
            if model.possible.len() > 1 {
                match (sectors.len(), sectors.contains(&model.last)) {
                    (1, true) => kept += 1,
                    (1, false) => lost += 1,
                    _ => torn += 1,
                }
            }
        }
    }
    assert!(kept > 50 && lost > 50 && torn > 50, "{kept} kept, {lost} lost, {torn} torn");
}

/// The way to replace a file: write, sync, rename, sync the folder. Before the last step a crash leaves the
/// old one or the new one, whole; after it, the new one.
#[test]
fn a_rename_is_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        for steps in 0..=2 {
            let folder = SimulatedFolder::new();
            let mut disk = disk(&folder, seed);
            let old = create(&mut disk, "CURRENT", true);
            must(&mut disk, write(old, 0, &[1, 1]));
            must(&mut disk, Op::SyncFolder);
            let new = create(&mut disk, "new", false);
            must(&mut disk, write(new, 0, &[2, 2, 2]));
            must(&mut disk, Op::Sync { file: new });
            disk.start(0, Op::Rename { from: "new".into(), to: "CURRENT".into() });
            disk.submit(); // step 0: in flight
            if steps >= 1 {
                disk.wait(); // step 1: completed
                disk.collect(&mut Vec::new());
            }
            if steps >= 2 {
                must(&mut disk, Op::SyncFolder);
            }
            folder.crash(&mut SplitMix64::new(seed));
            let files = folder.files();
            let fill = files["CURRENT"][0];
            assert!(files["CURRENT"][..] == pages(&vec![fill; 1 + fill as usize])[..]);
            assert!(steps < 2 || fill == 2 && files.len() == 1, "seed {seed}");
            seen.insert((steps, fill));
        }
    }
    assert_eq!(seen, BTreeSet::from([(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]));
}

/// Bytes may be durable and their file's name not: a crash loses both or neither. And a name may be durable
/// while its bytes are not.
#[test]
fn names_and_contents_are_durable_apart() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let folder = SimulatedFolder::new();
        let mut disk = disk(&folder, seed);
        let named = create(&mut disk, "named", false);
        must(&mut disk, Op::SyncFolder);
        must(&mut disk, write(named, 0, &[1]));
        let durable = create(&mut disk, "durable", true);
        must(&mut disk, write(durable, 0, &[2]));
        folder.crash(&mut SplitMix64::new(seed));
        let files = folder.files();
        assert!(files.get("durable").is_none_or(|bytes| bytes[..] == pages(&[2])[..]));
        seen.insert((files.contains_key("durable"), files["named"].is_empty()));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// A removed name that was durable may come back; after a sync of the folder it does not.
#[test]
fn a_removed_name_may_come_back() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        for synced in [false, true] {
            let folder = SimulatedFolder::new();
            let mut disk = disk(&folder, seed);
            let file = create(&mut disk, "a", true);
            must(&mut disk, write(file, 0, &[1]));
            must(&mut disk, Op::SyncFolder);
            must(&mut disk, Op::Remove { name: "a".into() });
            must(&mut disk, Op::Close { file });
            if synced {
                must(&mut disk, Op::SyncFolder);
            }
            folder.crash(&mut SplitMix64::new(seed));
            assert!(folder.files().get("a").is_none_or(|bytes| bytes[..] == pages(&[1])[..]));
            seen.insert((synced, folder.files().contains_key("a")));
        }
    }
    assert_eq!(seen, BTreeSet::from([(false, false), (false, true), (true, false)]));
}

/// After a crash an open disk is dead: what was in flight and what comes later fails, buffers come back.
#[test]
fn a_crash_kills_the_open_disk() {
    let folder = SimulatedFolder::new();
    let mut disk = disk(&folder, 1);
    let file = create(&mut disk, "a", true);
    must(&mut disk, Op::SyncFolder);
    disk.start(1, write(file, 0, &[1]));
    disk.start(2, Op::SyncFolder);
    disk.submit();
    folder.crash(&mut SplitMix64::new(1));
    let before = folder.files();
    disk.start(3, write(file, 1, &[1]));
    let mut completions = Vec::new();
    while disk.in_flight() > 0 {
        disk.wait();
        disk.collect(&mut completions);
    }
    completions.sort_by_key(|completion| completion.token);
    for completion in &completions {
        assert_eq!(completion.result.as_ref().unwrap_err().raw_os_error(), Some(EIO));
    }
    assert!(completions.iter().map(|completion| completion.buf.is_some()).eq([true, false, true]));
    drop(disk);
    assert_eq!(folder.files(), before);
}

/// Without a crash, what a dropped disk had in flight is there for the next one.
#[test]
fn a_dropped_disk_loses_nothing() {
    for seed in 0..20 {
        let folder = SimulatedFolder::new();
        let mut first = disk(&folder, seed);
        let file = create(&mut first, "a", false);
        (0..10).for_each(|page| first.start(page, write(file, page, &[7])));
        first.start(10, Op::Rename { from: "a".into(), to: "b".into() });
        first.submit();
        drop(first);
        let _next = disk(&folder, seed);
        assert!(folder.files()["b"][..] == pages(&[7; 10])[..]);
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// What a seed did, in full: tokens in order of completion, times, and the files after a crash.
fn transcript(seed: u64) -> (Vec<(u64, u64)>, Files) {
    let folder = SimulatedFolder::new();
    let mut disk = disk(&folder, seed);
    let file = create(&mut disk, "a", false);
    let (mut seen, mut completions) = (Vec::new(), Vec::new());
    for token in 0..100 {
        disk.start(token, write(file, token % 7, &[token as u8]));
        disk.submit();
        disk.collect(&mut completions);
        seen.extend(completions.drain(..).map(|completion| (completion.token, disk.now())));
    }
    folder.crash(&mut SplitMix64::new(seed));
    (seen, folder.files())
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..10 {
        assert_eq!(transcript(seed), transcript(seed));
        assert_ne!(transcript(seed), transcript(seed + 1));
    }
}

/// Two writes in flight on the same bytes land in either order; in plain mode in that of submission.
#[test]
fn writes_in_flight_have_no_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        for in_order in [false, true] {
            let folder = SimulatedFolder::new();
            let mut disk = Simulated::new(&folder, SimulatedOptions { seed, in_order, ..Default::default() });
            let file = create(&mut disk, "a", false);
            run_all(&mut disk, vec![write(file, 0, &[1]), write(file, 0, &[2])]);
            seen.insert((in_order, folder.files()["a"][0]));
        }
    }
    assert_eq!(seen, BTreeSet::from([(false, 1), (false, 2), (true, 2)]));
}

#[test]
fn faults_strike_where_planned() {
    let folder = SimulatedFolder::new();
    let mut disk = disk(&folder, 1);
    let file = create(&mut disk, "a", false);
    must(&mut disk, write(file, 0, &[1; 4]));
    let sites: Rc<RefCell<Vec<FaultSite>>> = Rc::default();
    let plan_sites = Rc::clone(&sites);
    folder.set_faults(move |site| {
        plan_sites.borrow_mut().push(site.clone());
        match (site.kind, site.offset) {
            (OpKind::Write, 0) => Some(Fault::Fail(EIO)),
            (OpKind::Write, 4096) => Some(Fault::Torn(EIO)),
            (OpKind::Sync, _) => Some(Fault::Fail(EIO)),
            _ => None,
        }
    });
    let ops = vec![
        write(file, 0, &[2]),
        write(file, 1, &[2]),
        write(file, 2, &[2]),
        Op::Sync { file },
        read(file, 0, 1),
    ];
    let failed: Vec<Option<i32>> = run_all(&mut disk, ops)
        .into_iter()
        .map(|completion| completion.result.err().and_then(|error| error.raw_os_error()))
        .collect();
    assert_eq!(failed, [Some(EIO), Some(EIO), None, Some(EIO), None]);
    let bytes = folder.files().remove("a").unwrap();
    assert!(bytes[..4096].iter().all(|byte| *byte == 1));
    let torn: BTreeSet<u8> = bytes[4096..8192].iter().copied().collect();
    assert_eq!(torn, BTreeSet::from([1, 2]));
    assert_eq!((bytes[8192], bytes[12288]), (2, 1));
    assert!(folder.durable_files().is_empty());

    let sites = sites.borrow();
    let name = "a".to_string();
    let (offset, bytes) = (4096, 4096);
    let expected = FaultSite { number: 4, kind: OpKind::Write, name, offset, bytes, durable: false };
    assert_eq!((sites.len(), &sites[1]), (5, &expected));
    folder.clear_faults();
    must(&mut disk, Op::Sync { file });
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let folder = SimulatedFolder::new();
    let mut disk = disk(&folder, 1);
    let file = create(&mut disk, "a", false);
    let other = create(&mut disk, "b", false);
    must(&mut disk, write(other, 0, &[1, 1]));
    folder.set_capacity(Some(4 * 4096));
    must(&mut disk, Op::Reserve { file, bytes: 2 * 4096 });
    for op in [write(other, 2, &[1]), Op::Reserve { file, bytes: 3 * 4096 }] {
        assert_eq!(run(&mut disk, op).result.unwrap_err().kind(), ErrorKind::StorageFull);
    }
    must(&mut disk, write(file, 0, &[1, 1]));
    must(&mut disk, Op::Truncate { file: other, bytes: 4096 });
    must(&mut disk, write(file, 2, &[1]));
    // A removed file's space comes back when it is closed and its removal is durable.
    must(&mut disk, Op::Remove { name: "b".into() });
    assert!(run(&mut disk, write(file, 3, &[1])).result.is_err());
    must(&mut disk, Op::Close { file: other });
    must(&mut disk, Op::SyncFolder);
    must(&mut disk, write(file, 3, &[1]));
    folder.set_capacity(None);
    must(&mut disk, write(file, 4, &[1]));
}

/// Damage from outside is seen by reads and survives a sync and a crash.
#[test]
fn damage_stays() {
    let folder = SimulatedFolder::new();
    let mut disk = disk(&folder, 1);
    let file = create(&mut disk, "a", false);
    must(&mut disk, write(file, 0, &[1, 1]));
    must(&mut disk, Op::SyncFolder);
    assert!(folder.corrupt("a", 4097, 0x80));
    assert!(!folder.corrupt("a", 8192, 1) && !folder.corrupt("b", 0, 1));
    must(&mut disk, Op::Sync { file });
    assert_eq!(run(&mut disk, read(file, 1, 1)).buf.unwrap()[..3], [1, 0x81, 1]);
    assert!(folder.truncate("a", 5000) && !folder.truncate("b", 0));
    folder.crash(&mut SplitMix64::new(1));
    let bytes = folder.files().remove("a").unwrap();
    assert_eq!((bytes.len(), bytes[4097]), (5000, 0x81));
    assert!(folder.remove("a") && !folder.remove("a"));
    folder.crash(&mut SplitMix64::new(1));
    assert!(folder.files().is_empty());
}

/// One clock for two folders; it moves with operations and by hand, and a crash does not set it back.
#[test]
fn folders_share_a_clock() {
    let clock = SimulatedClock::new();
    let folders = [SimulatedFolder::with_clock(clock.clone()), SimulatedFolder::with_clock(clock.clone())];
    let options = SimulatedOptions { operation_nanos: 5..=5, ..Default::default() };
    let mut disks = folders.each_ref().map(|folder| Simulated::new(folder, options.clone()));
    create(&mut disks[0], "a", false);
    create(&mut disks[1], "a", false);
    folders[0].advance(90);
    folders[1].crash(&mut SplitMix64::new(1));
    assert_eq!((disks[0].now(), disks[1].now(), clock.now()), (100, 100, 100));
}
