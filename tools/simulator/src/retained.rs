//! Which commits can be read as of: the promise of the retentions, worked out commit by commit.
//!
//! The engine works it out from the boundaries of levels ([`History`](quipu::levels::History)), and so do its merges: a
//! mistake there looks right from within. This is the same promise told another way, slow and plain:
//!
//! 1. With each commit one leaves the last so many; it stays where it is a boundary that the retention keeps for ever.
//! 2. With a change of the retention only what the new one asks for stays: boundaries; and of the last so many, as far
//!    back as nothing is missing.

use quipu::Retention;
use quipu::levels::{Commit, Divisor, Level};

/// How many of the last commits a retention keeps, and the level whose boundaries it keeps for ever.
fn asks(retention: Retention) -> (u64, Option<Level>) {
    match retention {
        Retention::Forever => (1, Some(Level(0))),
        Retention::None => (1, None),
        Retention::Level(level) => (1, Some(level)),
        Retention::Last(last) => (last.max(1), None),
        Retention::LastAndLevel(last, level) => (last.max(1), Some(level)),
    }
}

/// Why a commit can be read as of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    /// It cannot.
    Gone,
    /// As a boundary.
    Boundary,
    /// As every commit after it can.
    Every,
}

/// Whether each commit up to the newest can be read as of, given the retentions and the commits at which they began;
/// the first at 0.
pub fn retained(changes: &[(Commit, Retention)], divisor: Divisor, newest: Commit) -> Vec<bool> {
    let as_boundary = |commit: usize, level: Option<Level>| match level {
        Some(Level(0)) => Kept::Every,
        Some(level)
            if (commit as u64).is_multiple_of(u64::from(divisor.get()).saturating_pow(level.0.into())) =>
        {
            Kept::Boundary
        }
        _ => Kept::Gone,
    };
    let mut changes = changes.iter().peekable();
    let (mut last, mut level) = (1, None);
    let mut kept: Vec<Kept> = Vec::new();
    for n in 0..=newest.0 as usize {
        kept.push(Kept::Every);
        if let Some(leaves) = n.checked_sub(last as usize).filter(|&leaves| kept[leaves] == Kept::Every) {
            kept[leaves] = as_boundary(leaves, level);
        }
        while let Some(&(_, to)) = changes.next_if(|(from, _)| from.0 as usize <= n) {
            (last, level) = asks(to);
            let whole = kept.iter().rposition(|&kept| kept != Kept::Every).map_or(0, |missing| missing + 1);
            for (commit, kept) in kept.iter_mut().enumerate().filter(|(_, kept)| **kept != Kept::Gone) {
                *kept = match as_boundary(commit, level) {
                    _ if commit >= whole && ((n - commit) as u64) < last => Kept::Every,
                    Kept::Every if commit < whole => Kept::Boundary,
                    other => other,
                };
            }
        }
    }
    kept.into_iter().map(|kept| kept != Kept::Gone).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use quipu::levels::History;

    /// Both ways to tell the promise agree, over random changes.
    #[test]
    fn it_is_what_the_engine_says() {
        let random = &mut quipu::disk::simulated::SplitMix64::new(7);
        for _ in 0..400 {
            let divisor = Divisor::new(2 + random.below(4) as u32).unwrap();
            let first = crate::choices::retention(random);
            let (mut history, mut changes) = (History::new(first), vec![(Commit::ZERO, first)]);
            let mut newest = Commit::ZERO;
            for _ in 0..random.below(5) {
                newest = Commit(newest.0 + random.below(60));
                let to = crate::choices::retention(random);
                history = history.change(to, newest);
                changes.push((newest, to));
            }
            newest = Commit(newest.0 + random.below(60));
            let ours = retained(&changes, divisor, newest);
            let theirs: Vec<bool> =
                (0..=newest.0).map(|commit| history.retained(divisor, Commit(commit), newest)).collect();
            assert_eq!(ours, theirs, "{changes:?} at {newest}, divisor {}", divisor.get());
        }
    }
}
