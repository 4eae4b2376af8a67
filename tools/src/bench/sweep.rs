//! A sweep: looks for the highest rate that is sustained, or whose p99 stays under a bound, and shows what shares of it
//! are worth.
//!
//! 1. A closed loop with the chosen number in flight says where to begin.
//! 2. The [`Search`] asks for rates; each is run as an open loop for a step.
//! 3. What was found is run at [`SHARES`] for as long as a phase is.

use super::choices::Sweep;
use super::pace::Pace;
use super::record::Latency;
use super::report::{PhaseReport, SweepPoint, SweepReport};
use super::search::Search;
use super::session::Plan;
use crate::out::say;
use crate::units;
use std::time::Duration;

/// The most rates that are tried.
const TRIES: u32 = 14;

/// What of the highest rate is run in the end, in percent.
const SHARES: [u32; 3] = [50, 80, 95];

/// A rate is sustained where at least this share of the operations that were to start has ended in time...
const ENDED_MIN: f64 = 0.98;

/// ... and no more than this share of them never started.
const UNSTARTED_MAX: f64 = 0.001;

/// How a sweep went.
pub(crate) struct Swept {
    pub(crate) report: SweepReport,
    /// The runs at shares of the rate that was found.
    pub(crate) runs: Vec<PhaseReport>,
}

/// Sweeps the phase that `plan` describes. `at` makes the pace of a rate; `measure` runs a phase, and gives nothing where
/// the run is to end.
pub(crate) fn run(
    plan: &Plan,
    looks_for: Sweep,
    step: Duration,
    at: impl Fn(f64) -> Pace,
    mut measure: impl FnMut(Plan) -> Option<PhaseReport>,
) -> Swept {
    let (points, runs) = (Vec::new(), Vec::new());
    let report = SweepReport { phase: plan.name.clone(), looks_for, points, found: None };
    let mut swept = Swept { report, runs };
    // Each step warms up by a quarter of its length: what the rate before left behind is not counted.
    let warmup = step / 4;
    let step = |pace: Pace, name: String| Plan { name, pace, warmup, length: Some(step), ..plan.clone() };

    let Some(closed) = measure(step(plan.pace.clone(), format!("{} closed", plan.name))) else {
        return swept;
    };
    let hint = match looks_for {
        Sweep::Highest => closed.rate,
        // A closed loop saturates, so that its p99 is a queue's.
        Sweep::P99(_) => closed.rate / 2.0,
    };
    swept.report.points.push(point(&closed, looks_for));
    let mut search = Search::new(hint, TRIES);
    while let Some(rate) = search.next() {
        let Some(tried) = measure(step(at(rate), format!("{} sweep", plan.name))) else { return swept };
        let point = point(&tried, looks_for);
        say(format!(
            "{:<13} {}: {} done, p99 {}: {}",
            "",
            units::rate(rate),
            units::rate(point.rate),
            units::latency(point.response_ns.p99),
            if point.sustained { "sustained" } else { "too much" }
        ));
        search.tell(rate, point.sustained);
        swept.report.points.push(point);
        swept.report.found = search.found();
    }
    let Some(found) = search.found() else { return swept };
    let shares: &[u32] = match looks_for {
        Sweep::Highest => &SHARES,
        Sweep::P99(_) => &[100],
    };
    for share in shares {
        let run = Plan {
            name: format!("{} {share}%", plan.name),
            pace: at(found * f64::from(*share) / 100.0),
            length: plan.length.map(|length| length / shares.len() as u32),
            ..plan.clone()
        };
        let Some(ran) = measure(run) else { return swept };
        swept.report.points.push(point(&ran, looks_for));
        swept.runs.push(ran);
    }
    swept
}

fn point(phase: &PhaseReport, looks_for: Sweep) -> SweepPoint {
    let response_ns = Latency::from(&phase.histograms.all());
    let sustained = sustained(
        phase.offered.map(|offered| offered.rate),
        phase.rate,
        (response_ns.samples, phase.unstarted),
        Duration::from_nanos(response_ns.p99),
        looks_for,
    );
    SweepPoint {
        offered: phase.offered.map(|offered| offered.rate),
        rate: phase.rate,
        lag_p99_ns: phase.lag_ns.as_ref().map_or(0, |lag| lag.p99),
        unstarted: phase.unstarted,
        response_ns,
        sustained,
    }
}

/// Whether a rate counts as sustained: what was to start did and ended in time, and its p99 keeps the bound, if there is
/// one. A closed loop sustains nothing that was asked for.
fn sustained(
    offered: Option<f64>,
    rate: f64,
    (started, unstarted): (u64, u64),
    p99: Duration,
    looks_for: Sweep,
) -> bool {
    let arrived = (started + unstarted) as f64;
    let kept_up = unstarted as f64 <= UNSTARTED_MAX * arrived;
    let (Some(offered), true) = (offered, started > 0 && kept_up) else { return false };
    let bounded = match looks_for {
        Sweep::Highest => true,
        Sweep::P99(bound) => p99 <= bound,
    };
    // Arrivals are random too: at low rates fewer may have come than offered, by a few standard deviations.
    let slack = 4.0 * (offered.max(1.0) * started as f64 / rate.max(1.0)).sqrt() / started as f64;
    bounded && rate >= offered * (ENDED_MIN - slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_falls_behind_is_not_sustained() {
        let highest = Sweep::Highest;
        assert!(sustained(Some(100_000.0), 99_900.0, (200_000, 0), MS, highest));
        assert!(!sustained(Some(100_000.0), 95_000.0, (200_000, 0), MS, highest), "ends too late");
        assert!(!sustained(Some(100_000.0), 99_900.0, (199_000, 1000), MS, highest), "never starts");
        assert!(!sustained(Some(100_000.0), 0.0, (0, 200_000), MS, highest));
        assert!(!sustained(None, 100_000.0, (200_000, 0), MS, highest), "a closed loop");
        // Few arrivals spread widely: 80 of 100 expected is nothing unusual.
        assert!(sustained(Some(50.0), 40.0, (80, 0), MS, highest));
    }

    #[test]
    fn a_bound_on_p99_is_kept() {
        let under = Sweep::P99(Duration::from_millis(5));
        let at = |p99| sustained(Some(1000.0), 1000.0, (2000, 0), p99, under);
        assert!(at(5 * MS) && !at(6 * MS));
    }
}
