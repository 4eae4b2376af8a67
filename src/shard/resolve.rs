//! Resolving paths: from the cache where it knows, else component by component through the catalog.

use super::catalog::Known;
use super::sequence::Resolving;
use super::{Core, TOP};
use crate::entry::DirectoryId;
use crate::error::Result;
use crate::path::{Name, hash_of, split};
use crate::read;
use crate::view::Frame;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

impl Core {
    /// The directory that a name leads to, as of a frame's commit.
    #[inline]
    pub(crate) async fn directory_of(&self, frame: &Frame, name: &Name) -> Result<Option<DirectoryId>> {
        self.known_or_walk(self.known_directory(frame, name), frame, name.path()).await
    }

    /// What is known of the directory that a name leads to, as of a frame's commit, without a look at the catalog.
    #[inline]
    pub(super) fn known_directory(&self, frame: &Frame, name: &Name) -> Known {
        let state = &mut *self.state.borrow_mut();
        let newest = state.tip.schedule.at == frame.commit;
        state.catalog.look_name_at(name, frame.commit, newest)
    }

    /// The directory that a path leads to, as of a frame's commit.
    pub(crate) async fn directory_at(&self, frame: &Frame, path: &str) -> Result<Option<DirectoryId>> {
        let known = self.state.borrow_mut().catalog.look_at(path, hash_of(path), frame.commit);
        self.known_or_walk(known, frame, path).await
    }

    async fn known_or_walk(&self, known: Known, frame: &Frame, path: &str) -> Result<Option<DirectoryId>> {
        match known {
            Known::Is(id) => Ok(Some(id)),
            Known::Absent => Ok(None),
            // Boxed: a read of a path that is known need not carry the state of one that is not.
            Known::Unknown => Box::pin(self.walk(frame, path)).await,
        }
    }

    /// Reads the way to a path from the catalog, and caches what it finds if that is the newest state.
    async fn walk(&self, frame: &Frame, path: &str) -> Result<Option<DirectoryId>> {
        let mut parent = Some(DirectoryId(TOP));
        let mut end = 0;
        for component in path.split('/') {
            end += component.len();
            let above = &path[..end];
            end += 1;
            let known = self.state.borrow_mut().catalog.look_at(above, hash_of(above), frame.commit);
            parent = match (known, parent) {
                (Known::Is(id), _) => Some(id),
                (Known::Absent, _) | (_, None) => None,
                (Known::Unknown, Some(parent)) => {
                    let (_, name) = split(above);
                    let key = Core::catalog_key(parent.0, name);
                    read::catalog_entry(frame, &self.cache, &key).await?
                }
            };
            let mut state = self.state.borrow_mut();
            // Only the newest state is cached: nothing was sequenced since the frame was taken.
            if state.tip.schedule.at == frame.commit {
                state.catalog.bind(above, parent, frame.commit);
            }
        }
        Ok(parent)
    }

    /// Makes the cache know a path as of the newest commit.
    async fn resolve(&self, name: &Name) -> Result<()> {
        loop {
            let frame = self.frame();
            let commit = frame.commit;
            self.walk(&frame, name.path()).await?;
            // Something may have been sequenced while the disk was read; then what was read is old. The blocks are
            // cached by now, so the next round is over without a wait, unless the cache is far too small.
            if self.last() == commit {
                return Ok(());
            }
        }
    }

    /// Makes the cache know a path, if that takes no wait for the disk. `None` where it does.
    pub(super) fn resolve_now(&self, name: &Name) -> Option<Result<()>> {
        let resolve = pin!(self.resolve(name));
        match resolve.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Makes the cache know a path in a task. A path that cannot be read fails the commit that needs it.
    pub(super) fn resolve_later(self: &Rc<Self>, name: Name, resolving: Rc<Resolving>) {
        let core = self.clone();
        resolving.under_way.set(resolving.under_way.get() + 1);
        self.tasks.run(async move {
            if let Err(error) = core.resolve(&name).await {
                *resolving.failed.borrow_mut() = Some(error);
            }
            resolving.under_way.set(resolving.under_way.get() - 1);
            core.kick();
        });
    }
}
