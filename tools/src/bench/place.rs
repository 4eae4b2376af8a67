//! Where a run keeps its data: a folder of its own on a real disk, gone at the end.
//!
//! By default `quipu-data` beside the build (in cargo's target folder, else in the current folder), and where that
//! is in memory (tmpfs), the next candidate that is not. A folder that the user names is taken as it is, with a
//! warning where it is in memory.

use super::device::Device;
use crate::failure::Failure;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The most folders of runs beside each other.
const RUNS_MAX: u32 = 10_000;

/// The name of the default folder.
const DATA_FOLDER: &str = "quipu-data";

/// What lies under a folder.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileSystem {
    /// Its type, as the mount table has it ("ext4"), or its magic number.
    pub(crate) kind: String,
    /// The device it is on, as the mount table names it.
    pub(crate) source: String,
    /// The options that it is mounted with.
    pub(crate) options: String,
    /// What the system tells of the device.
    pub(crate) device: Device,
    /// Whether it is in memory, so that nothing measured there means anything.
    pub(crate) in_memory: bool,
}

/// The folder of one run. Dropped, it is removed with what was made for it, unless it is kept.
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Folders made on the way to it, the outermost first.
    made: Vec<PathBuf>,
    keep: bool,
}

impl RunFolder {
    /// Makes a folder for this run in `parent`, or in the default place.
    pub(crate) fn create(parent: Option<&Path>, keep: bool) -> Result<Self, Failure> {
        let parent = match parent {
            Some(parent) => parent.to_path_buf(),
            None => default_parent()?,
        };
        if fs::metadata(&parent).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(Failure::input(format!("{}: is a file, not a folder", parent.display())));
        }
        let cannot = |path: &Path, error: io::Error| {
            Failure::input(format!("cannot make the data folder {}: {error}", path.display()))
        };
        let mut missing: Vec<PathBuf> = parent
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_path_buf)
            .collect();
        missing.reverse();
        // From here on, dropping removes what was made so far.
        let mut folder = RunFolder { path: PathBuf::new(), made: Vec::new(), keep };
        for ancestor in missing {
            match fs::create_dir(&ancestor) {
                Ok(()) => folder.made.push(ancestor),
                // Another run makes it too.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot(&ancestor, error)),
            }
        }
        // The first number that is free: others belong to runs beside this one, were kept, or were killed.
        for number in 1..=RUNS_MAX {
            let path = parent.join(format!("run-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    folder.path = path;
                    return Ok(folder);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot(&path, error)),
            }
        }
        Err(Failure::input(format!("{}: {RUNS_MAX} runs have left their folders there", parent.display())))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder even where it was to be kept: the run never began.
    pub(crate) fn abandon(mut self) {
        self.keep = false;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if !self.path.as_os_str().is_empty()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("quipu: cannot remove {}: {error}", self.path.display());
        }
        for folder in self.made.iter().rev() {
            // Not empty where another run uses it too; then that one's data stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The first of the default places that is not in memory.
fn default_parent() -> Result<PathBuf, Failure> {
    let build = std::env::current_exe().ok().and_then(|executable| {
        // Cargo marks the folder of its builds so.
        executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf)
    });
    let candidates = [build, std::env::current_dir().ok(), Some(PathBuf::from("/var/tmp"))];
    candidates
        .into_iter()
        .flatten()
        .find(|folder| !file_system(folder).in_memory)
        .map(|folder| folder.join(DATA_FOLDER))
        .ok_or_else(|| {
            Failure::input("every default place for data is in memory (tmpfs): name a folder with --path")
        })
}

/// What lies under a folder (or, where it does not exist yet, under the nearest one above it that does).
pub(crate) fn file_system(folder: &Path) -> FileSystem {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let existing = absolute.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    let existing = existing.unwrap_or_else(|| PathBuf::from("/"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Mount { kind, source, options, number } = mount_of(&existing, &mounts).unwrap_or_default();
    let kind = if kind.is_empty() { "unknown".to_string() } else { kind };
    let device = Device::of(&number, Path::new("/sys"));
    let in_memory = match nix::sys::statfs::statfs(&existing) {
        Ok(stat) => {
            let magic = stat.filesystem_type();
            // The second is ramfs, which nix has no name for (linux/magic.h).
            magic == nix::sys::statfs::TMPFS_MAGIC || magic.0 == 0x8584_58f6
        }
        Err(_) => matches!(&kind[..], "tmpfs" | "ramfs"),
    };
    FileSystem { kind, source, options, device, in_memory }
}

/// A line of the mount table.
#[derive(Default)]
struct Mount {
    kind: String,
    source: String,
    options: String,
    /// Major and minor number of the device, like "254:0".
    number: String,
}

/// The innermost mount that holds a path; of several at one place, the last, which hides the others. See
/// proc_pid_mountinfo(5) for the columns.
fn mount_of(path: &Path, mounts: &str) -> Option<Mount> {
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let point = left.get(4)?.replace("\\040", " ");
            let mut right = right.split(' ');
            let (kind, source) = (right.next()?.to_string(), right.next()?.to_string());
            // Those of the mount, then those of the file system.
            let options = format!("{},{}", left.get(5)?, right.next().unwrap_or_default());
            let mount = Mount { kind, source, options, number: left.get(2)?.to_string() };
            path.starts_with(&point).then_some((point.len(), mount))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, mount)| mount)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            23 22 0:21 / /tmp rw - tmpfs tmpfs rw\n\
            24 22 0:22 / /data/with\\040space rw - xfs /dev/vdb rw\n";
        let kind = |path: &str| mount_of(Path::new(path), mounts).map(|mount| mount.kind);
        assert_eq!(kind("/home/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmpfoo").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/with space/x").as_deref(), Some("xfs"));
        assert!(mount_of(Path::new("/x"), "").is_none());
        let root = mount_of(Path::new("/home"), mounts).unwrap();
        assert_eq!((&root.number[..], &root.source[..]), ("254:0", "/dev/vda"));
        assert_eq!(root.options, "rw,relatime,rw");
    }

    #[test]
    fn a_run_folder_leaves_nothing_behind() {
        let base = tempfile::tempdir().unwrap();
        let parent = base.path().join("a/b");
        let folder = RunFolder::create(Some(&parent), false).unwrap();
        fs::write(folder.path().join("data"), b"x").unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);

        fs::create_dir_all(&parent).unwrap();
        drop(RunFolder::create(Some(&parent), false).unwrap());
        assert!(parent.exists(), "a folder that was there stays");

        let kept = RunFolder::create(Some(&parent), true).unwrap().path().to_path_buf();
        assert!(kept.exists());
        let beside = RunFolder::create(Some(&parent), false).unwrap();
        assert_ne!(beside.path(), kept, "the folder of another run is not taken");
        drop(beside);
        assert!(kept.exists(), "nor removed");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, b"x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let failure = RunFolder::create(Some(&path), false).err().unwrap();
            assert!(failure.to_string().contains(file.to_str().unwrap()), "{failure}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
