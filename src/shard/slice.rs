//! How soon the kernel's own threads get a shard's core.
//!
//! A durable write through a ring is finished by kernel threads of the core that the disk interrupts: one asks for the flush, one hands that
//! to the disk, one wakes who waits. Linux's scheduler (EEVDF, since 6.6) lets the thread that runs go on for its *slice*, and one
//! that wakes wait, unless that has asked for a shorter one (`PREEMPT_SHORT`, since 6.12). So the log write of one shard waited for the turns and slices of
//! compaction of another: of all wakes of such threads on a busy core one in ten by 40 us and more.
//!
//! Here a shard's thread asks for a slice that is longer than the usual one, so that whoever wakes is shorter. It costs nothing: a
//! shard that has nothing to do sleeps or gives way long before its slice is over.

use std::io;
use std::mem::size_of;

/// A shard's slice is longer than the usual one by this part of that: a half. (With an eighth two in three of the wakes that it is for do not
/// wait any more, with more than a half few others.)
const LONGER_BY: u64 = 2;

/// Lengthens the slice of the calling thread. Where the kernel has none, or the thread is scheduled in another way, nothing
/// changes.
///
/// # Errors
///
/// The kernel's, where it knows no such call, or does not allow it.
pub(crate) fn lengthen() -> io::Result<()> {
    let mut attributes = attributes()?;
    let usual = matches!(attributes.sched_policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH);
    if !usual || attributes.sched_runtime == 0 {
        return Ok(());
    }
    attributes.sched_runtime += attributes.sched_runtime / LONGER_BY;
    // SAFETY: the kernel reads as many bytes as the structure says that it has, and keeps nothing of it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    done(result)
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    let bytes = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size: bytes,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most the bytes that it is told of, which is all of the structure; any bytes are a value of it.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    done(result).map(|()| attributes)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_half_as_long_again_and_nothing_else_is_changed() {
        // The slice is a thread's own.
        let thread = std::thread::spawn(|| -> io::Result<_> {
            let before = attributes()?;
            lengthen()?;
            Ok((before, attributes()?))
        });
        let Ok((before, after)) = thread.join().unwrap() else {
            println!("SKIPPED: the kernel tells no thread how it is scheduled, or does not let it choose");
            return;
        };
        assert_eq!(after.sched_runtime, before.sched_runtime + before.sched_runtime / LONGER_BY);
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
    }
}
