//! Files that carries have begun and that are not installed.
//!
//! A carry that is given up leaves its file behind, and perhaps an operation on the file's name that lands only
//! later. Both must be over before the name is used again, or a late removal would take a new file away. So:
//!
//! 1. A name is noted before its file is made, and until the file is installed or removed.
//! 2. An operation on a name whose carry is dropped meanwhile is kept, and waited for
//!    ([`Loose::remove_all`]) before anything is tried again.

use crate::disk::io::{Io, Ticket};
use crate::disk::{Op, Outcome};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Loose {
    names: RefCell<BTreeSet<String>>,
    /// Operations on names whose carries were dropped.
    adrift: RefCell<Vec<Ticket>>,
}

impl Loose {
    /// A file is about to be made.
    pub(super) fn begin(&self, name: &str) {
        self.names.borrow_mut().insert(name.to_string());
    }

    /// A file is installed, or sees to its own end.
    pub(crate) fn settle(&self, name: &str) {
        self.names.borrow_mut().remove(name);
    }

    /// Runs an operation on a name. Should the future be dropped, [`Loose::remove_all`] waits for it.
    pub(super) async fn run(&self, io: &Io, op: Op) -> io::Result<Outcome> {
        let mut carried = Carried { loose: self, ticket: Some(io.start(op)) };
        let done = poll_fn(|cx| match &mut carried.ticket {
            Some(ticket) => Pin::new(ticket).poll(cx),
            None => Poll::Pending,
        });
        let done = done.await;
        carried.ticket = None;
        done.result
    }

    /// Removes all that is loose. No carry may be at work.
    pub(crate) async fn remove_all(&self, io: &Io) {
        let adrift = self.adrift.take();
        for ticket in adrift {
            if let Ok(Outcome::Opened { file, .. }) = ticket.await.result {
                let _ = io.run(Op::Close { file }).await;
            }
        }
        let names = self.names.take();
        for name in names {
            // Should this fail, recovery finds the file as an orphan.
            let _ = io.run(Op::Remove { name }).await;
        }
    }
}

/// An operation that is kept where its future is dropped.
struct Carried<'a> {
    loose: &'a Loose,
    ticket: Option<Ticket>,
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.loose.adrift.borrow_mut().extend(self.ticket.take());
    }
}
