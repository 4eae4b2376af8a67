//! The command where io_uring is forbidden, as containers often do it: it runs, says so, and verifies.

#![allow(clippy::unwrap_used)]

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The command, in a process to which io_uring is forbidden.
fn quipu_without_io_uring() -> Command {
    // io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
    let rules = [425, 426, 427].map(|call| (call, Vec::new()));
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(1), // EPERM
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
    // SAFETY: between fork and exec it makes two system calls and allocates nothing unless they fail.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&program).map_err(std::io::Error::other));
    }
    command
}

fn short(path: &Path) -> Command {
    let mut command = quipu_without_io_uring();
    command.args(["bench", "--warmup", "0.1s", "--seconds", "0.4", "--keys", "5000", "--directories", "50"]);
    command.args(["--in-flight", "32", "--shards", "2", "--memtable-bytes", "64MiB", "--path"]).arg(path);
    command
}

#[test]
fn a_run_without_io_uring_says_so_and_verifies() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = short(&folder.path().join("data")).output().unwrap();
    let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{told}");
    assert!(out.contains("plain system calls"), "{out}");
    assert!(out.contains("all as acknowledged"), "{out}");
    assert_eq!(told.matches("io_uring is not used").count(), 1, "said once: {told}");
    assert!(told.contains("seccomp"), "with what to change: {told}");
}

#[test]
fn insisting_on_io_uring_is_refused() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = short(&folder.path().join("data")).args(["--io", "io_uring"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("io_uring is not available") && told.contains("allow io_uring_setup"), "{told}");
    assert!(!folder.path().join("data").exists(), "nothing is left behind");
}
