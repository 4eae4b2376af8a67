//! The report as text, to be read at a glance.

use super::choices::Sweep;
use super::engine_stats::GROUP_SIZES;
use super::record::Latency;
use super::report::{PhaseReport, Report};
use super::table::Table;
use crate::units;
use std::fmt::Write;

/// Writes the report.
pub(crate) fn write(report: &Report) -> String {
    let mut text = String::from("\n");
    // Writing to a string cannot fail.
    if report.measured().next().is_none() {
        text.push_str("nothing was measured\n\n");
    } else {
        let _ = latencies(&mut text, report);
        let _ = open_loops(&mut text, report);
        let _ = sweeps(&mut text, report);
        let _ = costs(&mut text, report);
    }
    let _ = stages(&mut text, report);
    let _ = end(&mut text, report);
    text
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut table =
        Table::new(&["phase", "operation", "rate", "p50", "p90", "p99", "p99.9", "p99.99", "max", "samples"]);
    for phase in report.measured() {
        for (at, operation) in phase.operations.iter().enumerate() {
            let latency = &operation.latency_ns;
            let mut row = vec![
                if at == 0 { phase.name.clone() } else { String::new() },
                operation.operation.to_string(),
                units::rate(operation.rate),
            ];
            row.extend(
                [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.p99_99, latency.max]
                    .map(units::latency),
            );
            row.push(units::thousands(latency.samples));
            table.row(row);
        }
    }
    writeln!(text, "Latency by phase and operation\n{}", table.write())
}

/// What an open loop tells beside response times.
fn open_loops(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut table =
        Table::new(&["phase", "", "offered", "done", "p50", "p90", "p99", "p99.9", "max", "samples"]);
    for phase in &report.phases {
        let Some(offered) = phase.offered else { continue };
        let (offered, done) = (units::rate(offered.rate), units::rate(phase.rate));
        let mut row = |what: String, rates: [&str; 2], latency: &Latency| {
            let mut row = vec![phase.name.clone(), what];
            row.extend(rates.map(str::to_string));
            let percentiles = [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max];
            row.extend(percentiles.map(units::latency));
            row.push(units::thousands(latency.samples));
            table.row(row);
        };
        for operation in &phase.operations {
            let kind = operation.operation;
            row(format!("{kind} response"), [&offered, &done], &operation.latency_ns);
            if let Some(service) = &operation.service_ns {
                row(format!("{kind} service"), ["", ""], service);
            }
        }
        if let Some(lag) = &phase.lag_ns {
            row("generator's lag".to_string(), ["", ""], lag);
        }
    }
    if table.rows.is_empty() {
        return Ok(());
    }
    writeln!(text, "Open loop (response: from the intended start; service: from the actual one)")?;
    writeln!(text, "{}", table.write())
}

fn sweeps(text: &mut String, report: &Report) -> std::fmt::Result {
    for sweep in &report.sweeps {
        let mut table =
            Table::new(&["offered", "done", "p50", "p99", "p99.9", "lag p99", "never started", ""]);
        for point in &sweep.points {
            let latency = &point.response_ns;
            let mut row = vec![point.offered.map_or("closed loop".to_string(), units::rate)];
            row.push(units::rate(point.rate));
            row.extend([latency.p50, latency.p99, latency.p99_9, point.lag_p99_ns].map(units::latency));
            row.push(units::thousands(point.unstarted));
            row.push(if point.sustained { "sustained" } else { "" }.to_string());
            table.row(row);
        }
        let found = match (sweep.found, sweep.looks_for) {
            (None, _) => "no rate was sustained".to_string(),
            (Some(found), Sweep::Highest) => format!("highest rate sustained: {}", units::rate(found)),
            (Some(found), Sweep::P99(bound)) => {
                format!("highest rate with p99 within {}: {}", units::duration(bound), units::rate(found))
            }
        };
        writeln!(text, "Sweep of {}: {found}\n{}", sweep.phase, table.write())?;
    }
    Ok(())
}

fn costs(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut table = Table::new(&[
        "phase",
        "clients",
        "all together",
        "slowest second",
        "written/byte",
        "log + segments",
        "commits/log write",
        "CPU/op",
        "stolen",
        "memory",
    ]);
    for phase in report.measured() {
        let slowest = phase.slowest_second.map_or("-".to_string(), |slowest| {
            format!("{} ({:.0} %)", units::rate(slowest.rate), slowest.of_mean * 100.0)
        });
        let (written, parts) = phase.written_per_byte.map_or(("-".into(), "-".into()), |written| {
            let parts = format!("{:.2} + {:.2}", written.log, written.segments);
            (format!("{:.2}", written.log + written.segments), parts)
        });
        table.row(vec![
            phase.name.to_string(),
            phase.pace(),
            units::rate(phase.rate),
            slowest,
            written,
            parts,
            phase.commits_per_log_write.map_or("-".to_string(), |commits| format!("{commits:.1}")),
            format!("{:.2} us", phase.cpu_us_per_operation),
            format!("{:.0} %", phase.stolen * 100.0),
            units::bytes(phase.memory_bytes),
        ]);
    }
    writeln!(
        text,
        "Cost by phase (slowest second: share of the mean; CPU: user and system, clients included; stolen: the share of\n\
         the machine's processor time that its hypervisor gave to others)"
    )?;
    writeln!(text, "{}", table.write())
}

fn stages(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut table = Table::new(&["stage", "p50", "p99", "p99.9", "max", "samples"]);
    for stage in report.stages.iter().filter(|stage| stage.values.samples > 0) {
        let write = if stage.name == GROUP_SIZES { units::thousands } else { units::latency };
        let values = &stage.values;
        let mut row = vec![stage.name.to_string()];
        row.extend([values.p50, values.p99, values.p99_9, values.max].map(write));
        row.push(units::thousands(values.samples));
        table.row(row);
    }
    match table.rows.is_empty() {
        true => Ok(()),
        false => writeln!(text, "Stages inside the engine, over the whole run\n{}", table.write()),
    }
}

fn end(text: &mut String, report: &Report) -> std::fmt::Result {
    for phase in report.measured() {
        found(text, phase)?;
    }
    for phase in report.measured() {
        let carries = phase.after.carries_since(&phase.before);
        let carries: Vec<String> = carries.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        let carries = if carries.is_empty() { "none was installed".to_string() } else { carries.join(", ") };
        writeln!(text, "carries   {}: {carries}", phase.name)?;
    }
    writeln!(text, "memory    {} at most", units::bytes(report.memory_peak_bytes))?;
    if let Some(seconds) = report.close_seconds {
        writeln!(text, "close     {}", seconds_text(seconds))?;
    }
    if let Some(recovery) = &report.recovery {
        writeln!(
            text,
            "recovery  {} ({} commits replayed from {} of log; {} to open)",
            seconds_text(recovery.seconds),
            units::thousands(recovery.commits_replayed),
            units::bytes(recovery.log_bytes),
            seconds_text(recovery.open_seconds),
        )?;
    }
    if let Some(verification) = &report.verification {
        let verdict = match (verification.passed(), verification.interrupted) {
            (true, false) => "all as acknowledged".to_string(),
            (true, true) => "as acknowledged, as far as they were read".to_string(),
            (false, _) => format!("{} WRONG", units::thousands(verification.wrong)),
        };
        writeln!(
            text,
            "verified  {} keys, {} of them written: {verdict} ({})",
            units::thousands(verification.keys),
            units::thousands(verification.acknowledged),
            seconds_text(verification.seconds),
        )?;
        for example in verification.examples.iter().chain(&verification.error) {
            writeln!(text, "          {example}")?;
        }
    }
    if let Some(failure) = &report.failure {
        writeln!(text, "FAILED    {failure}")?;
    }
    if report.interrupted {
        writeln!(text, "interrupted: this is the report so far")?;
    }
    Ok(())
}

/// What the operations of a phase found and wrote.
fn found(text: &mut String, phase: &PhaseReport) -> std::fmt::Result {
    let samples = |names: &[&str]| -> f64 {
        let of = phase.operations.iter().filter(|operation| names.contains(&operation.operation));
        of.map(|operation| operation.rate * phase.seconds).sum()
    };
    let (reads, scans) = (samples(&["read", "rmw", "as-of"]), samples(&["scan", "newest"]));
    let batches = samples(&["batch"]);
    if reads > 0.5 {
        let share = phase.found.values as f64 * 100.0 / reads;
        writeln!(text, "{}: {share:.1} % of reads found a value", phase.name)?;
    }
    if scans > 0.5 {
        let entries = phase.found.entries as f64 / scans;
        writeln!(text, "{}: {entries:.1} entries a scan", phase.name)?;
    }
    if batches > 0.5 {
        let puts = units::rate(phase.found.puts as f64 / phase.seconds);
        writeln!(text, "{}: {puts} keys, {:.1} a batch", phase.name, phase.found.puts as f64 / batches)?;
    }
    if phase.unstarted > 0 {
        let unstarted = units::thousands(phase.unstarted);
        writeln!(
            text,
            "{}: {unstarted} operations that were to start never did: too high a rate",
            phase.name
        )?;
    }
    if phase.wrong_reads > 0 {
        let wrong = units::thousands(phase.wrong_reads);
        writeln!(text, "{}: {wrong} reads did NOT return what was acknowledged", phase.name)?;
    }
    Ok(())
}

fn seconds_text(seconds: f64) -> String {
    units::latency((seconds * 1e9) as u64)
}
