//! The report as text, to be read at a glance.

use super::engine_stats::GROUP_SIZES;
use super::report::{PhaseReport, Report};
use crate::units;
use std::fmt::Write;

/// Writes the report.
pub(crate) fn write(report: &Report) -> String {
    let mut text = String::from("\n");
    // Writing to a string cannot fail.
    if report.phases.is_empty() {
        text.push_str("nothing was measured\n\n");
    } else {
        let _ = latencies(&mut text, report);
        let _ = costs(&mut text, report);
    }
    let _ = stages(&mut text, report);
    let _ = end(&mut text, report);
    text
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut table =
        Table::new(&["phase", "operation", "rate", "p50", "p90", "p99", "p99.9", "p99.99", "max", "samples"]);
    for phase in &report.phases {
        for (at, operation) in phase.operations.iter().enumerate() {
            let latency = &operation.latency_ns;
            let mut row = vec![
                if at == 0 { phase.name.to_string() } else { String::new() },
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
        "memory",
    ]);
    for phase in &report.phases {
        let slowest = phase.slowest_second.map_or("-".to_string(), |slowest| {
            format!("{} ({:.0} %)", units::rate(slowest.rate), slowest.of_mean * 100.0)
        });
        let (written, parts) = phase.written_per_byte.map_or(("-".into(), "-".into()), |written| {
            let parts = format!("{:.2} + {:.2}", written.log, written.segments);
            (format!("{:.2}", written.log + written.segments), parts)
        });
        table.row(vec![
            phase.name.to_string(),
            format!("{} {}", phase.in_flight, phase.clients),
            units::rate(phase.rate),
            slowest,
            written,
            parts,
            phase.commits_per_log_write.map_or("-".to_string(), |commits| format!("{commits:.1}")),
            format!("{:.2} us", phase.cpu_us_per_operation),
            units::bytes(phase.memory_bytes),
        ]);
    }
    writeln!(
        text,
        "Cost by phase (slowest second: share of the mean; CPU: user and system, clients included)"
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
    for phase in &report.phases {
        reads(text, phase)?;
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

/// What the reads of a phase found.
fn reads(text: &mut String, phase: &PhaseReport) -> std::fmt::Result {
    let samples = |name| {
        let operation = phase.operations.iter().find(|operation| operation.operation == name);
        operation.map_or(0, |operation| operation.latency_ns.samples)
    };
    let (reads, scans) = (samples("read"), samples("scan"));
    if reads > 0 {
        let share = phase.found.values as f64 * 100.0 / reads as f64;
        writeln!(text, "{}: {share:.1} % of reads found a value", phase.name)?;
    }
    if scans > 0 {
        let entries = phase.found.entries as f64 / scans as f64;
        writeln!(text, "{}: {entries:.1} entries a scan", phase.name)?;
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

/// A table: the first column to the left, numbers to the right.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|cell| cell.to_string()).collect(), rows: Vec::new() }
    }

    fn row(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    fn write(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        // A column of words is one whose cells do not start with a digit; it stands to the left.
        let words: Vec<bool> = (0..self.head.len())
            .map(|at| !self.rows.iter().any(|row| row[at].starts_with(|c: char| c.is_ascii_digit())))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().enumerate().map(|(at, cell)| match words[at] {
                true => format!("{cell:<width$}", width = widths[at]),
                false => format!("{cell:>width$}", width = widths[at]),
            });
            text.push_str("  ");
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(&["phase", "rate"]);
        table.row(vec!["mix".into(), "1,000/s".into()]);
        table.row(vec!["commits".into(), "9/s".into()]);
        assert_eq!(table.write(), "  phase       rate\n  mix      1,000/s\n  commits      9/s\n");
    }
}
