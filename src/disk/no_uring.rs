//! Why there may be no io_uring, in words that say what to change.

use rustix::io::Errno;
use std::io::Error;

/// Why there is no io_uring here, and what to change. The source of the error that [`Uring::new`](super::Uring::new) gives.
#[derive(Clone, Debug, thiserror::Error)]
#[error("io_uring is not available: {why}")]
pub struct NoUring {
    /// What the kernel answered, if it was an error number.
    pub errno: Option<i32>,
    /// What that means and what to change.
    pub why: String,
}

impl NoUring {
    /// Finds it within an error of [`Uring::new`](super::Uring::new); any other error there is about the folder.
    pub fn within(error: &Error) -> Option<&NoUring> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// From an error of setting up a ring.
    pub(super) fn new(error: &Error) -> Self {
        let errno = error.raw_os_error();
        NoUring { errno, why: explain(error, errno.map(Errno::from_raw_os_error)) }
    }
}

/// What an error of setting up a ring means, and what to change.
fn explain(error: &Error, errno: Option<Errno>) -> String {
    let advice = match errno {
        Some(Errno::NOSYS) => {
            "the kernel is too old or built without it, or a sandbox hides it; it takes Linux 5.11 or newer"
        }
        Some(Errno::PERM | Errno::ACCESS) => {
            let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            match setting.trim() {
                "2" => "it is switched off: set sysctl kernel.io_uring_disabled to 0",
                "1" => {
                    "it is kept for privileged processes: set sysctl kernel.io_uring_disabled to 0, or join \
                     the group of sysctl kernel.io_uring_group"
                }
                _ => {
                    "a seccomp filter (of a container, say) forbids it: allow io_uring_setup, io_uring_enter \
                     and io_uring_register in its profile"
                }
            }
        }
        Some(Errno::NOMEM) => {
            "no memory for the ring; before Linux 5.12 it counts as locked memory: raise RLIMIT_MEMLOCK (ulimit -l)"
        }
        Some(Errno::MFILE | Errno::NFILE) => "too many open files: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "the ring cannot be set up",
    };
    format!("{advice} ({error})")
}
