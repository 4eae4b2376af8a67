//! The report: Markdown for people, JSON for programs.

use crate::environment::Environment;
use crate::row::{Figure, Goal, Row, Side, best};
use crate::shared::units::{self, thousands};
use serde::Serialize;
use std::fmt::Write;

/// Rises when a field changes its meaning.
const FORMAT: u32 = 1;

/// Everything that a run found.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) environment: Environment,
    /// Whether sizes and times were those of the short run.
    pub(crate) quick: bool,
    pub(crate) seconds: f64,
    pub(crate) rounds: u32,
    pub(crate) rows: Vec<Row>,
    /// What failed, by row.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// A report without rows.
    pub(crate) fn new(environment: Environment, quick: bool, seconds: f64, rounds: u32) -> Self {
        Report { format: FORMAT, environment, quick, seconds, rounds, rows: Vec::new(), failures: Vec::new() }
    }

    /// As Markdown. The plots lie beside it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Quipu beside its peers\n\n");
        head(&mut text, self);
        text.push_str("\n## All rows\n\n");
        text.push_str("| row | work | goal | reached | |\n| --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            summary(&mut text, row);
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\n**Failed:** {failure}");
        }
        for row in &self.rows {
            row_of(&mut text, row);
        }
        text
    }
}

fn head(text: &mut String, report: &Report) {
    let Environment { machine, build, file_system, versions, command, .. } = &report.environment;
    let device = &file_system.device;
    let unknown = || "unknown".to_string();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "- {name}: {value}");
    };
    line("command", format!("`quipu-peers {command}`"));
    line(
        "measured",
        format!(
            "{} s for each trial, {} round{}, sizes of the {} run",
            report.seconds,
            report.rounds,
            if report.rounds == 1 { "" } else { "s" },
            if report.quick { "short" } else { "full" }
        ),
    );
    line(
        "machine",
        format!(
            "{}, {} cores, {} of memory, Linux {}, load average {} at the start",
            machine.cpu,
            machine.cores,
            units::bytes(machine.memory_bytes),
            machine.kernel,
            machine.load_average.map_or_else(unknown, |load| load.to_string())
        ),
    );
    line(
        "disk",
        format!(
            "{} ({}), device {}, write cache {}, FUA {}, scheduler {}",
            file_system.kind,
            file_system.options,
            device.name.clone().unwrap_or_else(unknown),
            device.write_cache.clone().unwrap_or_else(unknown),
            device.fua.map_or("unknown", |fua| if fua { "yes" } else { "no" }),
            device.scheduler.clone().unwrap_or_else(unknown)
        ),
    );
    line(
        "built",
        format!("{}, {}, {}, commit {}", build.compiler, build.profile, instructions(), build.commit),
    );
    for (engine, version) in versions {
        line(engine, version.clone());
    }
    text.push_str(
        "\nStolen: the share of the machine's processor time that its hypervisor gave to others during a trial. Where it differs, \
         so did the machine.\n",
    );
    if file_system.in_memory {
        text.push_str(
            "\n**The data lies in memory (tmpfs): nothing here is durable, no figure means anything.**\n",
        );
    }
}

fn summary(text: &mut String, row: &Row) {
    if row.goals.is_empty() {
        let _ = writeln!(text, "| {} | {} | | | |", row.number, row.title);
    }
    for goal in &row.goals {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.number,
            row.title,
            goal.text,
            reached(goal),
            goal.verdict()
        );
    }
}

fn reached(goal: &Goal) -> String {
    match goal.reached {
        None => "-".to_string(),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn row_of(text: &mut String, row: &Row) {
    let _ = writeln!(text, "\n## {}. {}\n\n{}\n", row.number, row.title, row.what);
    if row.matrix {
        matrix(text, row);
    } else {
        figures(text, row);
    }
    for goal in &row.goals {
        let _ = writeln!(
            text,
            "\nGoal: {}. Reached: {} ({}): **{}**.",
            goal.text,
            reached(goal),
            goal.compared,
            goal.verdict()
        );
    }
    for note in &row.notes {
        let _ = writeln!(text, "\n{note}");
    }
    let _ = writeln!(text, "\n![{}]({})", row.title, plot_name(row.number));
    text.push_str("\n<details><summary>Settings</summary>\n\n");
    for (engine, settings) in &row.settings {
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let _ = writeln!(text, "- **{engine}**: {}", settings.join("; "));
    }
    text.push_str("\n</details>\n");
}

/// The file that holds a row's plot.
pub(crate) fn plot_name(row: u32) -> String {
    format!("row-{row:02}.svg")
}

fn figures(text: &mut String, row: &Row) {
    let _ = writeln!(
        text,
        "| engine | clients | {} | rounds | p50 | p99 | p99.9 | max | slowest second | stolen |",
        row.unit
    );
    text.push_str("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |\n");
    let sides = [Side::Ours, Side::Peer, Side::Floor].map(|side| row.of(side));
    let bests: Vec<&Figure> = sides.iter().filter_map(|figures| best(figures)).collect();
    for figure in &row.figures {
        let time =
            |nanoseconds: u64| if figure.max == 0 { "".to_string() } else { units::latency(nanoseconds) };
        let is_best = bests.iter().any(|best| best.engine == figure.engine && best.clients == figure.clients);
        let mark = if is_best && row.goals.iter().any(|goal| goal.at_least) { "**" } else { "" };
        let rounds = match figure.rounds.len() {
            0 | 1 => String::new(),
            _ => figure.rounds.iter().map(|&value| number(value)).collect::<Vec<_>>().join(", "),
        };
        let stolen: Vec<String> =
            figure.stolen.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
        let stolen = stolen.join(", ");
        let _ = writeln!(
            text,
            "| {} | {} | {mark}{}{mark} | {rounds} | {} | {} | {} | {} | {} | {stolen} |",
            figure.engine,
            figure.clients,
            number(figure.value),
            time(figure.p50),
            time(figure.p99),
            time(figure.p999),
            time(figure.max),
            figure.slowest.map_or(String::new(), |share| format!("{:.0} %", share * 100.0))
        );
    }
}

/// Engines side by side, a phase a line.
fn matrix(text: &mut String, row: &Row) {
    let (engines, phases) = axes(row);
    let _ = writeln!(text, "| | {} |", engines.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(engines.len()));
    for (phase, occurrence) in phases {
        let cells: Vec<String> = engines
            .iter()
            .map(|engine| {
                cell(row, engine, &phase, occurrence).map_or("-".to_string(), |figure| number(figure.value))
            })
            .collect();
        let _ = writeln!(text, "| {phase} | {} |", cells.join(" | "));
    }
}

/// The engines and the phases of a matrix in their order; a phase that is repeated is counted.
pub(crate) fn axes(row: &Row) -> (Vec<String>, Vec<(String, usize)>) {
    let (mut engines, mut phases): (Vec<String>, Vec<(String, usize)>) = (Vec::new(), Vec::new());
    for figure in &row.figures {
        if !engines.contains(&figure.engine) {
            engines.push(figure.engine.clone());
        }
    }
    for engine in &engines {
        let mut seen: Vec<&str> = Vec::new();
        for figure in row.figures.iter().filter(|figure| figure.engine == *engine) {
            let occurrence = seen.iter().filter(|&&phase| phase == figure.clients).count();
            seen.push(&figure.clients);
            let phase = (figure.clients.clone(), occurrence);
            if !phases.contains(&phase) {
                phases.push(phase);
            }
        }
    }
    (engines, phases)
}

/// One cell of a matrix.
pub(crate) fn cell<'a>(row: &'a Row, engine: &str, phase: &str, occurrence: usize) -> Option<&'a Figure> {
    row.figures.iter().filter(|figure| figure.engine == engine && figure.clients == phase).nth(occurrence)
}

/// A value with as many digits as say something.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => thousands(value.round() as u64),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_string(),
        value => format!("{value:.3}"),
    }
}

/// What RocksDB's checksums can use: it asks the compiler, not the processor.
fn instructions() -> &'static str {
    if cfg!(any(not(target_arch = "x86_64"), target_feature = "sse4.2")) {
        "for this processor"
    } else {
        "for any x86-64 (RocksDB's checksums would be faster with RUSTFLAGS=-Ctarget-cpu=native)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let mut row = Row::new(3, "commits", "Commits.", "commits/s");
        row.figures = vec![
            Figure::value(Side::Ours, "Quipu", "on-core", 2000.0),
            Figure::value(Side::Peer, "redb", "1 thread", 100.0),
            Figure::value(Side::Peer, "redb", "8 threads", 90.0),
        ];
        row.goals.push(Goal::over("4 x", 4.0, &row.of(Side::Ours), &row.of(Side::Peer)));
        row.settings.push(("redb".to_string(), vec![("cache".to_string(), "1 MiB".to_string())]));
        row
    }

    #[test]
    fn a_row_says_its_figures_its_goal_and_its_settings() {
        let mut text = String::new();
        row_of(&mut text, &row());
        for part in [
            "## 3. commits",
            "| Quipu | on-core | **2,000** |",
            "| redb | 1 thread | **100** |",
            "| redb | 8 threads | 90.0 |",
            "Reached: 20.0 (Quipu (on-core) over redb (1 thread)): **reached**",
            "cache: 1 MiB",
            "row-03.svg",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let mut text = String::new();
        summary(&mut text, &row());
        assert_eq!(text, "| 3 | commits | 4 x | 20.0 | reached |\n");
    }

    #[test]
    fn a_matrix_keeps_repeated_phases_apart() {
        let mut row = Row::new(17, "phases", "", "s");
        for (engine, phase, value) in [
            ("a", "reads", 1.0),
            ("a", "reads", 2.0),
            ("b", "reads", 3.0),
            ("b", "reads", 4.0),
            ("b", "compaction", 5.0),
        ] {
            row.figures.push(Figure::value(Side::Peer, engine, phase, value));
        }
        let mut text = String::new();
        matrix(&mut text, &row);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            ["| reads | 1.00 | 3.00 |", "| reads | 2.00 | 4.00 |", "| compaction | - | 5.00 |"]
        );
    }

    #[test]
    fn numbers_have_three_digits_or_all_of_the_whole_ones() {
        let numbers = [1_234_567.8, 123.4, 12.34, 1.234, 0.1234, 0.0].map(number);
        assert_eq!(numbers, ["1,234,568", "123", "12.3", "1.23", "0.123", "0"]);
    }
}
