//! Removing large files a piece at a time.
//!
//! A file system that is mounted to `discard` tells the device about space that it gives back, and some devices do
//! nothing else meanwhile: 64 MiB at once held back every durable write beside it for 25 ms on a virtio disk, a piece of
//! 1 MiB for less than one. So a large file is cut from its end, piece by piece, until the rest can go with the name;
//! and one file at a time. (RocksDB's `DeleteScheduler` does the same.)
//!
//! A failure does not stop it: the file is cut no further, then closed and removed all the same. What remains after a crash
//! is an orphan, whole or cut, which the next opening removes.

use super::{FileId, Op, OpenHow, Outcome};
use crate::limits::REMOVAL_PIECE_BYTES;
use std::collections::VecDeque;
use std::io::Result;

/// The operation in flight, on the file that is on its way out.
enum Step {
    /// Closing the file that was open for reading.
    Close { name: String, bytes: u64 },
    /// Opening it for writing.
    Open { name: String },
    /// Cutting it to so many bytes.
    Cut { name: String, file: FileId, bytes: u64 },
    /// Closing it again.
    CloseCut { name: String },
    /// Removing its name.
    Remove,
}

/// A file that is to go.
struct Removal {
    name: String,
    bytes: u64,
    open: Option<FileId>,
}

/// Files on their way out, first come first served. Decides the next operation; does nothing itself.
pub(super) struct Removals {
    pub(super) piece_bytes: u64,
    waiting: VecDeque<Removal>,
    step: Option<Step>,
}

impl Removals {
    pub(super) fn new() -> Self {
        Removals { piece_bytes: REMOVAL_PIECE_BYTES, waiting: VecDeque::new(), step: None }
    }

    /// Takes in a file of so many bytes, and closes it first if it is open. Answers what to start, if nothing is under way.
    pub(super) fn push(&mut self, name: String, bytes: u64, open: Option<FileId>) -> Option<Op> {
        self.waiting.push_back(Removal { name, bytes, open });
        if self.step.is_some() { None } else { self.begin() }
    }

    /// Whether nothing is on its way out.
    pub(super) fn is_empty(&self) -> bool {
        self.step.is_none()
    }

    /// What follows what has just completed.
    pub(super) fn next(&mut self, result: Result<Outcome>) -> Option<Op> {
        match (self.step.take()?, result) {
            (Step::Close { name, bytes }, _) => Some(self.closed(name, bytes)),
            (Step::Open { name }, Ok(Outcome::Opened { file, bytes })) => Some(self.cut(name, file, bytes)),
            (Step::Cut { name, file, bytes }, Ok(_)) => Some(self.cut(name, file, bytes)),
            (Step::Cut { name, file, .. }, Err(_)) => Some(self.close(name, file)),
            (Step::Open { name } | Step::CloseCut { name }, _) => Some(self.remove(name)),
            (Step::Remove, _) => self.begin(),
        }
    }

    fn begin(&mut self) -> Option<Op> {
        let Removal { name, bytes, open } = self.waiting.pop_front()?;
        Some(match open {
            Some(file) => self.start(Step::Close { name, bytes }, Op::Close { file }),
            None => self.closed(name, bytes),
        })
    }

    fn closed(&mut self, name: String, bytes: u64) -> Op {
        if bytes <= self.piece_bytes {
            return self.remove(name);
        }
        let how = OpenHow { write: true, ..OpenHow::default() };
        let open = Op::Open { name: name.clone(), how };
        self.start(Step::Open { name }, open)
    }

    /// Cuts the next piece from what has so many bytes, unless the rest is one.
    fn cut(&mut self, name: String, file: FileId, bytes: u64) -> Op {
        if bytes <= self.piece_bytes {
            return self.close(name, file);
        }
        let bytes = bytes - self.piece_bytes;
        self.start(Step::Cut { name, file, bytes }, Op::Truncate { file, bytes })
    }

    fn close(&mut self, name: String, file: FileId) -> Op {
        self.start(Step::CloseCut { name }, Op::Close { file })
    }

    fn remove(&mut self, name: String) -> Op {
        self.start(Step::Remove, Op::Remove { name })
    }

    fn start(&mut self, step: Step, op: Op) -> Op {
        self.step = Some(step);
        op
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    /// Files of so many bytes, of which one is being looked at, on a disk where every `fails`-th operation fails. Answers
    /// what was done.
    fn run(sizes: &[u64], piece_bytes: u64, fails: usize) -> Vec<Op> {
        let mut files: BTreeMap<String, u64> =
            (0..).zip(sizes).map(|(number, &bytes): (u32, _)| (number.to_string(), bytes)).collect();
        let mut removals = Removals { piece_bytes, ..Removals::new() };
        let mut open: Vec<FileId> = sizes.first().map(|_| FileId(7)).into_iter().collect();
        let mut first = Vec::new();
        for (name, &bytes) in &files {
            let looked_at = (name == "0").then_some(FileId(7));
            first.extend(removals.push(name.clone(), bytes, looked_at));
        }
        assert_eq!(first.len(), usize::from(!sizes.is_empty()), "one at a time");
        let (mut next, mut done) = (first.pop(), Vec::new());
        let mut opened = String::new();
        while let Some(op) = next {
            let result = match &op {
                Op::Remove { name } => {
                    assert!(open.is_empty(), "closed before it goes");
                    files.remove(name).map(|_| Outcome::Done).ok_or_else(|| ErrorKind::NotFound.into())
                }
                Op::Close { file } => {
                    open.retain(|other| other != file);
                    Ok(Outcome::Done)
                }
                _ if done.len() % fails == fails - 1 => Err(ErrorKind::Other.into()),
                Op::Open { name, .. } => {
                    open.push(FileId(9));
                    opened.clone_from(name);
                    Ok(Outcome::Opened { file: FileId(9), bytes: files[name] })
                }
                Op::Truncate { file, bytes } => {
                    assert_eq!(open, [*file]);
                    let now = files.get_mut(&opened).expect("opened before");
                    assert_eq!(*now - bytes, piece_bytes, "a piece at a time");
                    *now = *bytes;
                    Ok(Outcome::Done)
                }
                other => panic!("removing has no business with {other:?}"),
            };
            done.push(op);
            next = removals.next(result);
        }
        assert!(files.is_empty() && open.is_empty(), "{files:?}");
        done
    }

    #[test]
    fn files_go_a_piece_at_a_time_whatever_fails() {
        let sizes = [1000, 0, 100, 101, 99, 5000];
        for fails in 1..40 {
            run(&sizes, 100, fails);
        }
        let cuts = run(&sizes, 100, usize::MAX).iter().filter(|op| matches!(op, Op::Truncate { .. })).count();
        assert_eq!(cuts, 9 + 1 + 49, "what remains goes with the name, and is one piece at most");
        assert!(run(&[], 100, 1).is_empty());
    }
}
