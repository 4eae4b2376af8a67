//! The snapshots that clients hold open, by number; and with them the walks of scans between two pages.
//!
//! A walk that is kept saves its scan a seek for the next page, and pins what it walks, as its snapshot does. So few are
//! kept: where there are too many, or they take too much memory, those left alone longest go, and their scans seek
//! again. They go with their snapshot in any case.

use super::mailbox::Mailbox;
use crate::error::{Error, Result};
use crate::limits::{SNAPSHOTS_MAX, WALKS_KEPT_BYTES_MAX, WALKS_KEPT_MAX};
use crate::read::Walk;
use crate::view::Frame;
use std::collections::{HashMap, VecDeque};

/// See the module's text. Snapshots of tasks on the shard's thread are plain frames, and only counted.
#[derive(Default)]
pub(crate) struct Snapshots {
    next: u64,
    open: HashMap<u64, Frame>,
    /// The one left alone longest first.
    walks: VecDeque<Kept>,
    walks_bytes: usize,
    /// So many of those released can be let go once so many requests more are taken up.
    leaving: (usize, usize),
}

/// A walk between two pages of the scan that has the snapshot.
struct Kept {
    snapshot: u64,
    back: bool,
    walk: Walk,
    bytes: usize,
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
                self.drop_walks(snapshot);
                count -= 1;
            }
            count = 0;
        }
        self.leaving = (count, after);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Keeps a scan's walk for its next page from the same end, if the scan is still there.
    pub(crate) fn keep_walk(&mut self, snapshot: u64, back: bool, walk: Walk) {
        if !self.open.contains_key(&snapshot) {
            return;
        }
        // There may be one that was left by a page that nobody waited for.
        drop(self.take_walk(snapshot, back));
        let bytes = walk.memory();
        self.walks_bytes += bytes;
        self.walks.push_back(Kept { snapshot, back, walk, bytes });
        while self.walks.len() > WALKS_KEPT_MAX || self.walks_bytes > WALKS_KEPT_BYTES_MAX {
            let Some(oldest) = self.walks.pop_front() else { break };
            self.walks_bytes -= oldest.bytes;
        }
    }

    /// The walk that was kept, if it still is.
    pub(crate) fn take_walk(&mut self, snapshot: u64, back: bool) -> Option<Walk> {
        let at = self.walks.iter().position(|kept| kept.snapshot == snapshot && kept.back == back)?;
        let kept = self.walks.remove(at)?;
        self.walks_bytes -= kept.bytes;
        Some(kept.walk)
    }

    fn drop_walks(&mut self, snapshot: u64) {
        self.walks.retain(|kept| kept.snapshot != snapshot);
        self.walks_bytes = self.walks.iter().map(|kept| kept.bytes).sum();
    }

    /// How many walks are kept.
    pub(crate) fn walks(&self) -> usize {
        self.walks.len()
    }
}
