//! What is particular to the ring.

use crate::harness::*;
use quipu::disk::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Instant;

/// Waits for the disk's descriptor to be readable.
fn readable(disk: &Uring, seconds: i64) -> bool {
    assert!(disk.event_fd().is_some());
    let mut fds = [PollFd::new(disk, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() > 0
}

/// Far more operations than the rings have room for: one `submit`, then only `wait` and `collect`.
#[test]
fn more_in_flight_than_entries() {
    let folder = real_folder();
    let Some(mut disk) = uring(&folder, 4) else { return };
    let file = create(&mut disk, "a", false);
    let ops = (0..1000).map(|page| write(file, page, &[page as u8])).collect();
    assert!(run_all(&mut disk, ops).iter().all(|completion| completion.result.is_ok()));
    let ops = (0..1000).map(|page| read(file, page, 1)).collect();
    for (page, completion) in run_all(&mut disk, ops).into_iter().enumerate() {
        assert!(completion.result.is_ok());
        assert!(completion.buf.unwrap().iter().all(|byte| *byte == page as u8));
    }
    assert_eq!(disk.stats().reads, 1000);
}

/// The same by polling the descriptor: no completion may be missed by a host that sleeps on it. Nor does it keep such a host
/// awake: it is reset, but for what the kernel signals after the completion was collected, which is seldom.
#[test]
fn the_descriptor_wakes_a_sleeper() {
    let folder = real_folder();
    let Some(mut disk) = uring(&folder, 4) else { return };
    let file = create(&mut disk, "a", true);
    let mut quiet = 0;
    for round in 0..50 {
        for page in 0..1 + round % 20 {
            disk.start(page, write(file, page, &[1]));
        }
        disk.submit();
        let mut completions = Vec::new();
        while disk.in_flight() > 0 {
            let before = completions.len();
            disk.collect(&mut completions);
            if completions.len() == before {
                // However slow the disk is, it wakes in the end; a wake that is missed never comes.
                assert!(readable(&disk, 600), "slept through a completion");
            }
        }
        assert_eq!(completions.len() as u64, 1 + round % 20);
        assert!(completions.iter().all(|completion| completion.result.is_ok()));
        disk.collect(&mut completions); // finds nothing, and resets the descriptor
        quiet += u32::from(!readable(&disk, 0));
        // As a host does that is woken for nothing.
        let _ = rustix::io::read(&disk, &mut [0; 8]);
    }
    assert!(quiet > 0, "nothing was in flight, fifty times, and the descriptor was readable");
}

/// A turn with nothing to do takes no system call, but for what the kernel announces after it was collected: once for each
/// operation at most. A turn with work takes one to submit; and what completed together takes at most one to be posted
/// and one to reset the event, however often it was asked for.
#[test]
fn idle_turns_stay_out_of_the_kernel() {
    let folder = real_folder();
    let Some(mut disk) = uring(&folder, 64) else { return };
    let file = create(&mut disk, "a", true);
    must(&mut disk, write(file, 0, &[0; 32]));
    let completed_before = 2;
    let before = disk.stats().enters;
    let mut completions = Vec::new();
    for _ in 0..1000 {
        disk.submit();
        disk.collect(&mut completions);
    }
    let idle = disk.stats().enters - before;
    assert!(idle <= completed_before, "{idle} system calls in idle turns");
    let before = disk.stats().enters;
    (0..32).for_each(|page| disk.start(page, read(file, page, 1)));
    disk.submit();
    assert_eq!(disk.stats().enters, before + 1);
    while disk.in_flight() > 0 {
        disk.collect(&mut completions);
    }
    assert_eq!(completions.len(), 32);
    disk.collect(&mut completions); // finds nothing, and resets the descriptor
    // At worst each of them completed alone, and was announced once more.
    let enters = disk.stats().enters - before - 1;
    assert!(enters <= 3 * 32, "{enters} system calls for 32 completions");
}

/// A disk dropped with operations in flight waits for them: afterwards all that was submitted is there.
#[test]
fn a_dropped_disk_waits() {
    let folder = real_folder();
    for round in 1..=20 {
        let Some(mut disk) = uring(&folder, 128) else { return };
        let name = format!("f{round}");
        let file = create(&mut disk, &name, round % 2 == 0);
        for at in 0..64 {
            disk.start(at, write(file, at * 4, &[round; 4]));
        }
        disk.start(
            64,
            Op::Open { name: format!("g{round}"), how: OpenHow { create_new: true, ..Default::default() } },
        );
        disk.start(65, Op::Close { file });
        disk.submit();
        disk.start(66, Op::Remove { name: name.clone() }); // never submitted
        drop(disk);
        let files = real_files(&folder);
        assert!(files[&name].len() == 256 * 4096 && files[&name].iter().all(|byte| *byte == round));
        assert!(files.contains_key(&format!("g{round}")));
    }
}

#[test]
fn a_missing_folder_is_not_a_missing_ring() {
    let folder = real_folder();
    let error = Uring::new(&folder.path().join("missing"), 8).err().unwrap();
    assert!(NoUring::within(&error).is_none());
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

/// Not a test: the rates of durable overwrites and random reads, to be held against measured ones.
/// `cargo test --release --test disk -- --ignored --nocapture rates`
#[test]
#[ignore = "a measurement"]
fn rates() {
    let folder = real_folder();
    let disks: [(&str, Option<Box<dyn Disk>>); 2] = [
        ("io_uring", uring(&folder, 256).map(|disk| Box::new(disk) as Box<dyn Disk>)),
        ("plain", Plain::new(folder.path()).ok().map(|disk| Box::new(disk) as Box<dyn Disk>)),
    ];
    for (name, disk) in disks {
        let Some(mut disk) = disk else { continue };
        let disk = &mut *disk;
        let file_name = format!("log {name}");
        // 64 MiB, written once so that its extents are no longer "unwritten".
        let file = create(disk, &file_name, false);
        for at in 0..64 {
            must(disk, Op::Write { file, offset: at << 20, buf: IoBuf::zeroed(1 << 20) });
        }
        must(disk, Op::Sync { file });
        must(disk, Op::Close { file });
        let file = reopen(disk, &file_name, true);
        for (bytes, depth, write) in [
            (4096, 1, true),
            (65536, 1, true),
            (65536, 4, true),
            (16384, 8, true),
            (4096, 32, false),
            (4096, 128, false),
        ] {
            let mut spare: Vec<IoBuf> = (0..depth).map(|_| IoBuf::zeroed(bytes)).collect();
            let mut random = quipu::disk::simulated::SplitMix64::new(1);
            let slots = (64 << 20) / bytes as u64;
            let (mut next, mut done, before) = (0, 0u64, disk.stats());
            let (start, mut completions) = (Instant::now(), Vec::new());
            while start.elapsed().as_millis() < 1000 {
                while let Some(buf) = spare.pop() {
                    let offset = if write { next % slots } else { random.below(slots) } * bytes as u64;
                    disk.start(
                        next,
                        match write {
                            true => Op::Write { file, offset, buf },
                            false => Op::Read { file, offset, buf },
                        },
                    );
                    next += 1;
                }
                disk.submit();
                disk.wait();
                disk.collect(&mut completions);
                for completion in completions.drain(..) {
                    completion.result.unwrap();
                    spare.extend(completion.buf);
                    done += 1;
                }
            }
            while disk.in_flight() > 0 {
                disk.wait();
                disk.collect(&mut completions);
            }
            let rate = done as f64 / start.elapsed().as_secs_f64();
            let enters = (disk.stats().enters - before.enters) as f64 / done as f64;
            let what = if write { "durable overwrite" } else { "random read" };
            println!(
                "{name}: {what} of {bytes} at depth {depth}: {rate:.0}/s, {enters:.2} system calls each"
            );
        }
    }
}
