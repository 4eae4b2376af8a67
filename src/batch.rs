//! Batches: puts and deletes over directories of one root, committed as one.

use crate::engine::{Directory, EngineInner};
use crate::error::{Error, Result};
use crate::limits;
use crate::path::Name;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// One operation, borrowed from wherever it lies.
#[derive(Clone, Copy)]
pub(crate) struct OpRef<'a> {
    pub(crate) name: &'a Name,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

impl OpRef<'_> {
    /// What the operation counts towards limits, budgets and the schedule.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len) + limits::OPERATION_BYTES_OVERHEAD
    }

    /// Checks key and value against the limits.
    pub(crate) fn check(&self) -> Result<()> {
        check_key(self.key)?;
        match self.value {
            Some(value) if value.len() > limits::VALUE_BYTES_MAX => Err(Error::invalid(
                "value",
                format!("{} bytes long; at most {} are allowed", value.len(), limits::VALUE_BYTES_MAX),
            )),
            _ => Ok(()),
        }
    }
}

/// Checks a key against the limits.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("key", "empty; a key has at least one byte"));
    }
    if key.len() > limits::KEY_BYTES_MAX {
        let why = format!("{} bytes long; at most {} are allowed", key.len(), limits::KEY_BYTES_MAX);
        return Err(Error::invalid("key", why));
    }
    Ok(())
}

/// Checks the keys of a batched get.
pub(crate) fn check_keys<K: AsRef<[u8]>>(keys: &[K]) -> Result<()> {
    if keys.len() > limits::GET_KEYS_MAX {
        let why = format!("{} of them; at most {} are allowed at a time", keys.len(), limits::GET_KEYS_MAX);
        return Err(Error::invalid("keys", why));
    }
    keys.iter().try_for_each(|key| check_key(key.as_ref()))
}

struct BatchOp {
    name: u32,
    key: Range<u32>,
    /// Empty and `delete` for a delete.
    value: Range<u32>,
    delete: bool,
}

/// Puts and deletes over directories of one root, committed as one: all of it or nothing, seen at once.
///
/// Operations apply in their order: of two on one key, the later wins. What breaks a rule (an oversize key, a
/// second root) is told when the batch is committed, and then nothing of it is.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let engine = quipu::Options::new().shards(1).open(folder.path())?;
/// let users = engine.directory("acme/users")?;
/// let emails = engine.directory("acme/emails")?;
/// let mut batch = quipu::Batch::new();
/// batch.put(&users, "1", "ada").put(&emails, "ada@example.org", "1").delete(&users, "0");
/// engine.commit(batch).wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Batch {
    /// Whose directories it is over; `None` while empty, or where the engine itself made it.
    engine: Option<Weak<EngineInner>>,
    /// Of a batch of one operation, this and the next one take no memory of their own: what a client allocates a shard frees, and an
    /// allocator that keeps its memory by thread makes that dear.
    names: SmallVec<[Name; 1]>,
    ops: SmallVec<[BatchOp; 1]>,
    bytes: Vec<u8>,
    wrong: Option<Error>,
    /// Sum of [`OpRef::bytes`] of what was added.
    weight: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets a key to a value.
    pub fn put(
        &mut self,
        directory: &Directory,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.own(directory);
        self.add(directory.name(), key.as_ref(), Some(value.as_ref()));
        self
    }

    /// Removes a key. In a directory that does not exist there is nothing to remove, and it is not made.
    pub fn delete(&mut self, directory: &Directory, key: impl AsRef<[u8]>) -> &mut Self {
        self.own(directory);
        self.add(directory.name(), key.as_ref(), None);
        self
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it holds no operation.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Its size as it counts towards [`limits::BATCH_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        self.weight
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.engine = None;
        self.names.clear();
        self.ops.clear();
        self.bytes.clear();
        self.wrong = None;
        self.weight = 0;
    }

    /// Notes whose directories the batch is over.
    fn own(&mut self, directory: &Directory) {
        match &self.engine {
            None => self.engine = Some(Arc::downgrade(directory.engine())),
            Some(engine) if engine.as_ptr() == Arc::as_ptr(directory.engine()) => {}
            Some(_) => {
                let error = Error::invalid("batch", "over directories of two engines");
                self.wrong.get_or_insert(error);
            }
        }
    }

    fn add(&mut self, name: &Name, key: &[u8], value: Option<&[u8]>) {
        if self.wrong.is_some() {
            return;
        }
        let op = OpRef { name, key, value };
        self.weight += op.bytes();
        if let Err(error) = op.check().and_then(|()| self.check_sizes()) {
            self.wrong = Some(error);
            return;
        }
        if !self.names.last().is_some_and(|last| last.same(name)) {
            if let Some(first) = self.names.first().filter(|first| first.root() != name.root()) {
                let (first, second) = (first.root().to_string(), name.root().to_string());
                self.wrong = Some(Error::TwoRoots { first, second });
                return;
            }
            self.names.push(name.clone());
        }
        // The sizes are bounded by `BATCH_BYTES_MAX`, far below 4 GiB.
        let value_bytes = value.unwrap_or_default();
        self.bytes.reserve(key.len() + value_bytes.len());
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value_bytes);
        let end = self.bytes.len() as u32;
        let name = self.names.len() as u32 - 1;
        self.ops.push(BatchOp { name, key: start..middle, value: middle..end, delete: value.is_none() });
    }

    fn check_sizes(&self) -> Result<()> {
        if self.weight > limits::BATCH_BYTES_MAX {
            let why = format!(
                "{} bytes with the operation at hand; at most {} are allowed",
                self.weight,
                limits::BATCH_BYTES_MAX
            );
            return Err(Error::invalid("batch", why));
        }
        if self.ops.len() >= limits::BATCH_OPERATIONS_MAX {
            let why = format!("at most {} operations are allowed", limits::BATCH_OPERATIONS_MAX);
            return Err(Error::invalid("batch", why));
        }
        Ok(())
    }

    /// What is wrong with the batch, if anything is, for the engine that is to commit it.
    pub(crate) fn check(&self, engine: *const EngineInner) -> Result<()> {
        if self.engine.as_ref().is_some_and(|own| own.as_ptr() != engine) {
            return Err(Error::invalid(
                "batch",
                "over directories of another engine, or of an earlier opening",
            ));
        }
        match &self.wrong {
            Some(error) => Err(error.clone()),
            None if self.ops.is_empty() => Err(Error::invalid("batch", "empty; a commit needs an operation")),
            None => Ok(()),
        }
    }

    /// The name of the first operation; its root and shard are those of all.
    pub(crate) fn first_name(&self) -> Option<&Name> {
        self.names.first()
    }

    /// The names that it touches; one may come more than once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    /// The operations, in order.
    pub(crate) fn ops(&self) -> impl Iterator<Item = OpRef<'_>> + Clone {
        self.ops.iter().map(|op| OpRef {
            name: &self.names[op.name as usize],
            key: &self.bytes[op.key.start as usize..op.key.end as usize],
            value: (!op.delete).then(|| &self.bytes[op.value.start as usize..op.value.end as usize]),
        })
    }

    /// A copy to keep while the original is reused.
    pub(crate) fn copy(&self) -> Batch {
        let ops = self.ops.iter().map(|op| BatchOp {
            name: op.name,
            key: op.key.clone(),
            value: op.value.clone(),
            delete: op.delete,
        });
        Batch {
            engine: self.engine.clone(),
            names: self.names.clone(),
            ops: ops.collect(),
            bytes: self.bytes.clone(),
            wrong: self.wrong.clone(),
            weight: self.weight,
        }
    }

    /// A batch of one operation.
    pub(crate) fn one(name: &Name, key: &[u8], value: Option<&[u8]>) -> Batch {
        let mut batch = Batch::new();
        batch.add(name, key, value);
        batch
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} operations, {} bytes)", self.len(), self.weight)
    }
}
