//! Bakes the commit of the source into the command, so that the line that repeats a failure names it.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.is_empty());
    println!("cargo::rustc-env=SIMULATOR_COMMIT={commit}{}", if changed { "+changes" } else { "" });
    // `HEAD` is where the branch is named; its log grows with each commit.
    for path in ["HEAD", "logs/HEAD"].iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-changed=../../src");
    println!("cargo::rerun-if-changed=src");
}
