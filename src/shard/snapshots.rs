//! The snapshots that clients hold open, by number.

use super::mailbox::Mailbox;
use crate::error::{Error, Result};
use crate::limits::SNAPSHOTS_MAX;
use crate::view::Frame;
use std::collections::HashMap;

/// See the module's text. Snapshots of tasks on the shard's thread are plain frames, and only counted.
#[derive(Default)]
pub(crate) struct Snapshots {
    next: u64,
    open: HashMap<u64, Frame>,
    /// So many of those released can be let go once so many requests more are taken up.
    leaving: (usize, usize),
}

impl Snapshots {
    /// Keeps a frame until it is released.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`].
    pub(crate) fn open(&mut self, frame: Frame) -> Result<u64> {
        if self.open.len() >= SNAPSHOTS_MAX {
            return Err(Error::TooMany { what: "snapshots and scans", limit: SNAPSHOTS_MAX });
        }
        self.next += 1;
        self.open.insert(self.next, frame);
        Ok(self.next)
    }

    /// An open snapshot's frame.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where its handle has gone away already.
    pub(crate) fn get(&self, snapshot: u64) -> Result<Frame> {
        self.open.get(&snapshot).cloned().ok_or_else(|| {
            Error::invalid(
                "snapshot",
                "its handle was dropped before the read was taken up; keep it until then",
            )
        })
    }

    /// A request was taken up, or there is none (`empty`): lets go of those that were released before it was
    /// posted. A mailbox under load is never empty, so it must not wait for that.
    pub(crate) fn release(&mut self, mailbox: &Mailbox, empty: bool) {
        let (mut count, mut after) = self.leaving;
        if count == 0 {
            (count, after) = mailbox.released();
        } else {
            after = if empty { 0 } else { after.saturating_sub(1) };
        }
        if after == 0 {
            while count > 0
                && let Some(snapshot) = mailbox.pop_released()
            {
                self.open.remove(&snapshot);
                count -= 1;
            }
            count = 0;
        }
        self.leaving = (count, after);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
