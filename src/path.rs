//! Paths of directories: their grammar, their root, and the shard that the root decides.
//!
//! A path is one to [`PATH_COMPONENTS_MAX`](limits::PATH_COMPONENTS_MAX) components joined by `/`, each 1 to
//! [`COMPONENT_BYTES_MAX`](limits::COMPONENT_BYTES_MAX) bytes of UTF-8. The first `k` components (chosen at
//! creation) are its root; `xxh3_64(root) % shards` is its shard, and that hash is part of the format.

use crate::error::{Error, Result};
use crate::limits;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// A checked path with what is derived from it once. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Name {
    inner: Arc<Inner>,
}

struct Inner {
    path: Box<str>,
    hash: u64,
    root_bytes: usize,
    shard: u16,
    /// The directory that the path led to when its shard last looked, and the epoch of the shard's catalog in
    /// which it did. Only the shard's thread uses them; they are atomic because handles may be anywhere.
    known: AtomicU64,
    known_in: AtomicU64,
}

impl Name {
    /// Checks a path against the grammar and routes it.
    pub(crate) fn new(path: &[u8], root_components: u8, shards: u16) -> Result<Self> {
        let named = || format!("path {:?}", shorten(path));
        let text = std::str::from_utf8(path)
            .map_err(|error| Error::invalid(named(), format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        if text.len() > limits::PATH_BYTES_MAX {
            let why = format!("{} bytes long; at most {} are allowed", text.len(), limits::PATH_BYTES_MAX);
            return Err(Error::invalid(named(), why));
        }
        let mut root_bytes = 0;
        let mut count = 0;
        let mut at = 0;
        for component in text.split('/') {
            if component.is_empty() {
                let why = "empty, or with an empty component; write components joined by single slashes";
                return Err(Error::invalid(named(), why));
            }
            if component.len() > limits::COMPONENT_BYTES_MAX {
                let why = format!(
                    "a component of {} bytes; at most {} are allowed",
                    component.len(),
                    limits::COMPONENT_BYTES_MAX
                );
                return Err(Error::invalid(named(), why));
            }
            at += component.len() + 1;
            count += 1;
            if count == usize::from(root_components) {
                root_bytes = at - 1;
            }
        }
        if count > limits::PATH_COMPONENTS_MAX {
            let why = format!("{count} components; at most {} are allowed", limits::PATH_COMPONENTS_MAX);
            return Err(Error::invalid(named(), why));
        }
        if count < usize::from(root_components) {
            let why = format!("{count} components, but a root of this engine has {root_components}");
            return Err(Error::invalid(named(), why));
        }
        let shard = (xxh3_64(&path[..root_bytes]) % u64::from(shards)) as u16;
        let inner = Inner {
            path: text.into(),
            hash: hash_of(text),
            root_bytes,
            shard,
            known: AtomicU64::new(0),
            known_in: AtomicU64::new(0),
        };
        Ok(Name { inner: Arc::new(inner) })
    }

    pub(crate) fn path(&self) -> &str {
        &self.inner.path
    }

    pub(crate) fn root(&self) -> &str {
        &self.inner.path[..self.inner.root_bytes]
    }

    pub(crate) fn is_root(&self) -> bool {
        self.inner.root_bytes == self.inner.path.len()
    }

    pub(crate) fn shard(&self) -> u16 {
        self.inner.shard
    }

    /// The hash of the whole path, for tables in memory.
    pub(crate) fn hash(&self) -> u64 {
        self.inner.hash
    }

    /// The directory that the path leads to, if that was noted in this epoch of its shard's catalog.
    #[inline]
    pub(crate) fn known(&self, epoch: u64) -> Option<u64> {
        (self.inner.known_in.load(Ordering::Relaxed) == epoch)
            .then(|| self.inner.known.load(Ordering::Relaxed))
    }

    /// Notes the directory that the path leads to for as long as the epoch lasts. Only for its shard's thread.
    pub(crate) fn note(&self, id: u64, epoch: u64) {
        self.inner.known.store(id, Ordering::Relaxed);
        self.inner.known_in.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn same(&self, other: &Name) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
            || (self.inner.hash == other.inner.hash && self.inner.path == other.inner.path)
    }
}

/// The hash under which a path is cached.
pub(crate) fn hash_of(path: &str) -> u64 {
    xxh3_64(path.as_bytes())
}

/// Splits a path into its parent's path and its last component; a path of one component has no parent.
pub(crate) fn split(path: &str) -> (Option<&str>, &str) {
    match path.rsplit_once('/') {
        Some((parent, name)) => (Some(parent), name),
        None => (None, path),
    }
}

/// What an error shows of a long path.
fn shorten(path: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(&path[..path.len().min(SHOWN)]);
    if path.len() > SHOWN { format!("{text}…") } else { text.into_owned() }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.inner.hash);
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_kept() {
        let ok = |path: &str| Name::new(path.as_bytes(), 1, 4).is_ok();
        assert!(ok("a") && ok("a/b/c") && ok("ä/ö") && ok(&"x".repeat(255)));
        assert!(!ok("") && !ok("/") && !ok("a/") && !ok("/a") && !ok("a//b") && !ok(&"x".repeat(256)));
        assert!(Name::new(b"a/\xff", 1, 4).is_err());
        assert!(ok(&vec!["x"; 32].join("/")) && !ok(&vec!["x"; 33].join("/")));
        assert!(Name::new(b"a", 2, 4).is_err(), "shorter than a root");
    }

    #[test]
    fn the_root_alone_decides_the_shard() {
        let shard = |path: &str| Name::new(path.as_bytes(), 2, 7).map(|name| name.shard()).ok();
        assert_eq!(shard("a/b"), shard("a/b/c/d"));
        assert_eq!(
            Name::new(b"a/b/c", 2, 7).map(|name| name.root().to_string()).ok(),
            Some("a/b".to_string())
        );
        let spread: std::collections::BTreeSet<_> = (0..100).map(|i| shard(&format!("a/{i}"))).collect();
        assert_eq!(spread.len(), 7, "roots spread over all shards");
        assert_eq!(
            shard("acme/users"),
            Some(xxh3_64(b"acme/users") as u16 % 7).map(|_| (xxh3_64(b"acme/users") % 7) as u16)
        );
    }
}
