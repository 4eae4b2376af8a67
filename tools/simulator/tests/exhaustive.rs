//! All that can be gone through where a history is small: crashes at every moment of it, and failures of every call to the
//! disk. Here each third moment, and some of the failures; the command `simulator exhaustive` goes through all of it.

#![allow(clippy::unwrap_used)]

use quipu_simulator::calls::{self, fail_each};
use quipu_simulator::exhaustive::{self, Counts, explore};
use quipu_simulator::histories::histories;
use quipu_simulator::whole::for_each;

/// A minute and a half of a core's time for both tests together.
const THREADS: usize = 2;

#[test]
fn crashes_of_small_histories() {
    let limits = exhaustive::Limits {
        changes_in_recovery: 5,
        tears: 1,
        recoveries: 1,
        stride: 3,
        phase: 1,
        moods: 1,
        ..exhaustive::Limits::WHOLE
    };
    let histories = histories();
    let mut sum = Counts::default();
    for (history, result) in
        histories.iter().zip(for_each(&histories, THREADS, |history| explore(history, limits)))
    {
        let report = result.unwrap_or_else(|failure| panic!("{} ({})", failure.message, failure.place));
        println!("{}: {}", history.name, report.counts);
        let had = |part: &str| report.files.iter().any(|name| name.starts_with(part));
        // Each does what it is called by.
        assert!(
            match history.name {
                "a log of several files" => had("log-02"),
                "carries through several levels" => had("segment-04-"),
                "generations of the manifest" => had("manifest-00000005"),
                "a base, and a drop" => had("base-"),
                "spills" => had("spill-"),
                _ => true,
            },
            "{}: {:?}",
            history.name,
            report.files
        );
        sum.merge(&report.counts);
    }
    println!("in all: {sum}");
    assert!(sum.disks > 2000 && sum.recovery_moments > 10_000, "{sum}");
}

#[test]
fn failing_calls_in_small_histories() {
    let limits = calls::Limits { stride: 17, phase: 3 };
    let histories = histories();
    let mut sum = calls::Counts::default();
    for result in for_each(&histories, THREADS, |history| fail_each(history, limits)) {
        sum.merge(&result.unwrap_or_else(|failure| panic!("{} ({})", failure.message, failure.place)));
    }
    println!("{sum}");
    assert!(sum.runs > 2000, "{sum}");
}
