//! What tests with real folders, threads and processes share.
//!
//! A test that needs another process runs its own binary again ([`child`]): with a variable of the environment
//! set, the `#[test]` function named there plays the child's part; without it, it does nothing.

#![allow(dead_code)] // each test binary uses some of it

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer hangs: no machine is so slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A folder on the disk of the build: the system's folder for temporary files may be in memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A number from a seed (splitmix64), so that a failure can be repeated.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number mixed from several.
    pub(crate) fn of(parts: &[u64]) -> Self {
        let mut mixed = Seeded(0);
        for part in parts {
            mixed.0 = mixed.next() ^ part;
        }
        Seeded(mixed.next())
    }
}

/// The variable that makes a test function play a child's part.
const ROLE: &str = "QUIPU_TEST_ROLE";

/// This test binary again, running only the test function `role`, with what it is to do in variables.
pub(crate) fn child(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([role, "--exact", "--nocapture", "--test-threads=1", "--quiet"]);
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

/// Whether this process is to play that part.
pub(crate) fn plays(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|value| value == role)
}

/// A line to whoever started this process, past the capture of the test harness.
pub(crate) fn report(line: &str) {
    // In one write: the lines of several threads must not mix. The parent may be gone.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

/// The files under a folder with their contents, except the lock.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

/// Calls `check` until it answers true; fails where it never does.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a function that could hang on a thread of its own; fails where it does.
pub(crate) fn within_minutes<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let result = work();
        let _ = done.send(());
        result
    });
    match finished.recv_timeout(PATIENCE) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("not done within {PATIENCE:?}: {what}"),
        _ => worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Runs this test binary again as [`child`] does, as if by the superuser, with file systems of its own: `mounts` are
/// commands of a shell by which it gets them, with `path` in `$0`. Errs with what the system said where it forbids that, as
/// many containers do.
pub(crate) fn child_with_mounts(role: &str, path: &Path, mounts: &str) -> Result<(), String> {
    let begun = "the mounts are there";
    let child = child(role);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{mounts} && echo '{begun}' && exec \"$@\"")).arg(path);
    command.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !told.contains(begun) {
        return Err(errors.into_owned());
    }
    print!("{told}");
    assert!(output.status.success(), "{role}: {errors}");
    Ok(())
}
