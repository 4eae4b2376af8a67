//! How far a read or write has come: what to make of the kernel's answer to one call. Pure, and the same for every
//! disk, the simulated one included.
//!
//! 1. An interrupted call, or one that the kernel had no resources for (EINTR, EAGAIN), is tried again, within bounds.
//! 2. A short one is continued behind what is done.
//! 3. One that transfers nothing and gives no error has come to the end of the file (a read), or is stuck (a write).

use rustix::io::Errno;
use std::io::{Error, ErrorKind};

/// How often an operation is tried again that the kernel interrupted or had no resources for (EINTR, EAGAIN).
pub(super) const RETRIES_MAX: u16 = 100;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Read,
    Write,
}

/// What to do after a call.
#[derive(Debug)]
pub(super) enum Next {
    /// Call again, for what is behind [`Progress::done`].
    Again,
    /// It is over, in full.
    Done,
    /// A read came to an end before its buffer did.
    Ended,
    /// It has failed.
    Failed(Error),
}

/// How far an operation has come.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Progress {
    /// Bytes transferred.
    pub(super) done: usize,
    retries: u16,
}

impl Progress {
    /// Whether an operation that was answered with an error is to be tried again.
    pub(super) fn retries(&mut self, errno: Errno) -> bool {
        let again = matches!(errno, Errno::INTR | Errno::AGAIN) && self.retries < RETRIES_MAX;
        self.retries += u16::from(again);
        again
    }

    /// What to do after a call on a buffer of `length` bytes was answered.
    pub(super) fn answered(&mut self, way: Way, length: usize, answer: Result<usize, Errno>) -> Next {
        match (way, answer) {
            (_, Err(errno)) if self.retries(errno) => Next::Again,
            (Way::Read, Ok(0)) => Next::Ended,
            // Past a file's odd end no aligned read is possible, which direct I/O says by EINVAL.
            (Way::Read, Err(Errno::INVAL)) if self.done > 0 => Next::Ended,
            (Way::Write, Ok(0)) => Next::Failed(stuck_write()),
            (_, Ok(bytes)) => {
                self.done += bytes;
                self.retries = 0;
                debug_assert!(self.done <= length);
                if self.done >= length { Next::Done } else { Next::Again }
            }
            (_, Err(errno)) => Next::Failed(errno.into()),
        }
    }
}

/// The error for a write that the kernel accepts none of.
fn stuck_write() -> Error {
    Error::new(ErrorKind::WriteZero, "the kernel wrote nothing and gave no error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_calls_are_continued_and_interrupted_ones_tried_again() {
        let mut progress = Progress::default();
        assert!(matches!(progress.answered(Way::Write, 10, Ok(4)), Next::Again));
        assert!(matches!(progress.answered(Way::Write, 10, Err(Errno::AGAIN)), Next::Again));
        assert!(matches!(progress.answered(Way::Write, 10, Err(Errno::INTR)), Next::Again));
        assert_eq!(progress.done, 4);
        assert!(matches!(progress.answered(Way::Write, 10, Ok(6)), Next::Done));
    }

    #[test]
    fn retries_are_bounded_and_counted_anew_after_progress() {
        let mut progress = Progress::default();
        for _ in 0..RETRIES_MAX {
            assert!(matches!(progress.answered(Way::Read, 10, Err(Errno::AGAIN)), Next::Again));
        }
        assert!(matches!(progress.answered(Way::Read, 10, Ok(1)), Next::Again));
        for _ in 0..RETRIES_MAX {
            assert!(progress.retries(Errno::AGAIN));
        }
        assert!(matches!(progress.answered(Way::Read, 10, Err(Errno::AGAIN)), Next::Failed(_)));
    }

    #[test]
    fn nothing_is_an_end_for_a_read_and_an_error_for_a_write() {
        let mut progress = Progress::default();
        assert!(matches!(progress.answered(Way::Read, 10, Ok(0)), Next::Ended));
        assert!(matches!(progress.answered(Way::Read, 10, Err(Errno::INVAL)), Next::Failed(_)));
        assert!(matches!(progress.answered(Way::Read, 10, Ok(5)), Next::Again));
        assert!(matches!(progress.answered(Way::Read, 10, Err(Errno::INVAL)), Next::Ended));
        let stuck = Progress::default().answered(Way::Write, 10, Ok(0));
        assert!(matches!(stuck, Next::Failed(error) if error.kind() == ErrorKind::WriteZero));
    }
}
