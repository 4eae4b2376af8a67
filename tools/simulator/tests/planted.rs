//! The bugs of the tester's test, without planting them: there are enough, each says what it is, and each still applies
//! to the source as it is. That each is found, `simulator planted` shows.

#![allow(clippy::unwrap_used)]

use quipu_simulator::planted::{bugs, header_of, read_back, repository};
use std::process::Command;

#[test]
fn there_are_enough_and_each_says_what_is_wrong() {
    let bugs = bugs().unwrap();
    assert!(bugs.len() >= 30, "{}", bugs.len());
    for bug in &bugs {
        assert!(bug.patch.extension().is_some_and(|ending| ending == "patch"), "{:?}", bug.patch);
        assert!(bug.header.len() > 40 && bug.header.ends_with('.'), "{}: {}", bug.name, bug.header);
    }
}

#[test]
fn each_applies_to_the_source_as_it_is() {
    let git = |arguments: &[&str]| Command::new("git").current_dir(repository()).args(arguments).output();
    if !git(&["rev-parse", "--show-toplevel"]).is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no git, or no git checkout");
        return;
    }
    for bug in bugs().unwrap() {
        let output = git(&["apply", "--check", bug.patch.to_str().unwrap()]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} does not apply any more:\n{said}", bug.name);
    }
}

#[test]
fn headers_and_results_read_back() {
    let patch = "What is wrong,\nin two lines.\n\n--- a/src/lib.rs\n+++ b/src/lib.rs\n";
    assert_eq!(header_of(patch).as_deref(), Some("What is wrong, in two lines."));
    assert_eq!(header_of("--- a/src/lib.rs\n"), None);
    let clean = read_back("12 seeds from 34, source abc: 5 crash-and-recover cycles in 1.0 s\n");
    assert_eq!((clean.seeds, clean.failure), (12, None));
    let found =
        read_back("2 seeds from 34, source abc: 5 cycles\n\nFAILED: seed 35, source abc: lost (a.rs:1)\n");
    assert_eq!((found.seeds, found.failure.as_deref()), (2, Some("seed 35, source abc: lost (a.rs:1)")));
}
