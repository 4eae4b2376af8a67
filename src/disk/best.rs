//! The choice between the two real disks.

use super::{Disk, NoUring, Plain, Uring};
use crate::error::{Error, Result};
use std::path::Path;

/// The ring's size: so many operations go to the kernel in one call, and twice as many can be in flight
/// there. Random reads gain nothing beyond some hundred in flight; what exceeds it waits in a queue.
pub const RING_ENTRIES: u32 = 256;

/// Which of the real disks to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring if it is to be had, else plain system calls.
    #[default]
    Auto,
    /// io_uring or an error that says what to change.
    Require,
    /// Plain system calls.
    Plain,
}

/// Opens a disk over an existing folder, on the thread that is going to use it.
///
/// With [`IoChoice::Auto`] and no io_uring to be had, the disk is a [`Plain`] one and the second value is the
/// reason, with what to change.
///
/// # Errors
///
/// [`Error::NoIoUring`] where it was required; [`Error::Io`] where the folder cannot be opened.
pub fn open_best(folder: &Path, choice: IoChoice) -> Result<(Box<dyn Disk>, Option<String>)> {
    let failed = |source| Error::io("open folder", folder.display().to_string(), source);
    let plain = || Plain::new(folder).map(|disk| Box::new(disk) as Box<dyn Disk>).map_err(failed);
    if choice == IoChoice::Plain {
        return Ok((plain()?, None));
    }
    match Uring::new(folder, RING_ENTRIES) {
        Ok(disk) => Ok((Box::new(disk), None)),
        Err(error) => match NoUring::within(&error) {
            Some(no_uring) if choice == IoChoice::Require => {
                Err(Error::NoIoUring { why: no_uring.why.clone() })
            }
            Some(no_uring) => Ok((plain()?, Some(no_uring.why.clone()))),
            None => Err(failed(error)),
        },
    }
}
