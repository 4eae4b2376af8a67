//! The plain model: what the directories of a shard hold after each commit.
//!
//! A [`Model`] is one state, as ordered maps; applying a [`Step`] makes the next. States share what did not
//! change, so keeping one for every commit of a run is cheap.

use quipu::Bytes;
use std::collections::BTreeMap;
use std::rc::Rc;

/// All directories that histories use, sorted.
pub const PATHS: [&str; 12] =
    ["r", "r/a", "r/a/x", "r/a/y", "r/a/y/deep", "r/b", "r/b/x", "r/c", "r/c/d", "s", "s/t", "s/u"];

/// The entries of a directory.
pub type Map = BTreeMap<Bytes, Bytes>;

/// One put or delete: directory, key, and the value of a put.
pub type Change = (&'static str, Bytes, Option<Bytes>);

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts and deletes.
    Batch(Vec<Change>),
    /// A directory's rename.
    Rename(&'static str, &'static str),
    /// A directory's drop.
    Remove(&'static str),
}

/// Why a step is refused in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The directory does not exist.
    NoDirectory,
    /// The target of a rename does.
    DirectoryExists,
}

/// The state after a commit: every directory's entries.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    directories: BTreeMap<Rc<str>, Rc<Map>>,
}

/// Whether a path is another or lies under it.
pub fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Model {
    /// Whether a directory exists.
    pub fn exists(&self, path: &str) -> bool {
        self.directories.contains_key(path)
    }

    /// A directory's entries.
    pub fn map(&self, path: &str) -> Rc<Map> {
        self.directories.get(path).cloned().unwrap_or_default()
    }

    /// The value of a key.
    pub fn get(&self, path: &str, key: &[u8]) -> Option<&Bytes> {
        self.directories.get(path)?.get(key)
    }

    /// The directories that exist. Renames may have moved some away from [`PATHS`].
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.directories.keys().map(|path| &**path)
    }

    /// The names right under a directory, or of the top level.
    pub fn children(&self, path: Option<&str>) -> Vec<String> {
        let names = self.paths().filter_map(|child| match path {
            None => Some(child),
            Some(path) => child.strip_prefix(path)?.strip_prefix('/'),
        });
        names.filter(|name| !name.contains('/')).map(str::to_string).collect()
    }

    fn make(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if !self.exists(&path[..at]) {
                self.directories.insert(path[..at].into(), Rc::default());
            }
        }
    }

    /// Why a step would be refused, if so.
    pub fn refusal(&self, step: &Step) -> Option<Refusal> {
        match step {
            Step::Batch(_) => None,
            Step::Rename(from, _) | Step::Remove(from) if !self.exists(from) => Some(Refusal::NoDirectory),
            Step::Rename(_, to) if self.exists(to) => Some(Refusal::DirectoryExists),
            _ => None,
        }
    }

    /// Makes a step that is not refused.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Batch(changes) => {
                for (path, key, value) in changes {
                    if value.is_some() {
                        self.make(path);
                    }
                    let Some(map) = self.directories.get_mut(*path) else { continue };
                    let map = Rc::make_mut(map);
                    match value {
                        Some(value) => drop(map.insert(key.clone(), value.clone())),
                        None => drop(map.remove(key)),
                    }
                }
            }
            Step::Rename(from, to) => {
                if let Some((parent, _)) = to.rsplit_once('/') {
                    self.make(parent);
                }
                let moved: Vec<Rc<str>> =
                    self.directories.keys().filter(|path| is_within(path, from)).cloned().collect();
                for path in moved {
                    let map = self.directories.remove(&path).unwrap_or_default();
                    self.directories.insert(format!("{to}{}", &path[from.len()..]).into(), map);
                }
            }
            Step::Remove(path) => self.directories.retain(|other, _| !is_within(other, path)),
        }
    }
}
