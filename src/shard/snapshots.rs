//! The snapshots that clients hold open, by number.

use crate::error::{Error, Result};
use crate::limits::SNAPSHOTS_MAX;
use crate::view::Frame;
use std::collections::HashMap;

/// See the module's text. Snapshots of tasks on the shard's thread are plain frames, and only counted.
#[derive(Default)]
pub(crate) struct Snapshots {
    next: u64,
    open: HashMap<u64, Frame>,
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

    /// Lets a snapshot go.
    pub(crate) fn release(&mut self, snapshot: u64) {
        self.open.remove(&snapshot);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
