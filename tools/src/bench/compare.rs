//! `quipu bench compare`: two JSON reports, phase by phase, as ratios.
//!
//! Phases are matched by name, their operations too. What the two runs did not have in common (machine, options, sources)
//! is said first: a ratio means the engine only where everything else is the same.

use super::FORMAT;
use super::table::Table;
use crate::failure::Failure;
use crate::out::say;
use crate::units;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What is laid side by side of an operation: its name and where it stands.
const FIGURES: [(&str, &str); 5] = [
    ("rate", "/rate"),
    ("p50", "/latency_ns/p50"),
    ("p99", "/latency_ns/p99"),
    ("p99.9", "/latency_ns/p99.9"),
    ("max", "/latency_ns/max"),
];

/// Where two runs may differ, other than in the engine, so that their figures say little.
const SETUP: [(&str, &str); 9] = [
    ("CPU", "/machine/cpu"),
    ("cores", "/machine/cores"),
    ("kernel", "/machine/kernel"),
    ("file system", "/engine/file_system/kind"),
    ("device", "/engine/file_system/device/name"),
    ("I/O", "/engine/io"),
    ("shards", "/engine/shards"),
    ("build", "/build/profile"),
    ("commit", "/build/commit"),
];

/// Options that say where a run goes to, not what it does.
const OUTPUTS: [&str; 6] = ["json", "html", "histograms", "flamegraph", "path", "keep"];

/// Prints the figures of two reports side by side.
pub(crate) fn compare(before: &Path, after: &Path) -> Result<(), Failure> {
    let [a, b] = [read(before)?, read(after)?];
    say(format!("a: {}\nb: {}\n", describe(before, &a), describe(after, &b)));
    for difference in differences(&a, &b) {
        say(format!("differs: {difference}"));
    }
    let table = ratios(&a, &b);
    match table.rows.is_empty() {
        true => return Err(Failure::input("the two reports have no phase in common")),
        false => say(format!("\n{}", table.write().trim_end())),
    }
    say("\nb/a: above 1.00 is more; more is better for rates, worse for latencies.");
    Ok(())
}

fn read(path: &Path) -> Result<Value, Failure> {
    let cannot = |why: &dyn std::fmt::Display| Failure::input(format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| cannot(&error))?;
    let report: Value = serde_json::from_slice(&bytes).map_err(|error| cannot(&error))?;
    match report["format"].as_u64() {
        Some(FORMAT) if report["phases"].is_array() => Ok(report),
        Some(format) if format != FORMAT => {
            Err(cannot(&format!("a report of format {format}; this program reads {FORMAT}")))
        }
        _ => Err(cannot(&"not a report of quipu bench")),
    }
}

fn describe(path: &Path, report: &Value) -> String {
    let at = |pointer: &str| report.pointer(pointer).map_or(String::new(), plain);
    format!("{}  (quipu {} {})", path.display(), at("/build/version"), at("/build/commit"))
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// What the two runs did not have in common.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |name: &str, a: &Value, b: &Value| {
        if a != b {
            differences.push(format!("{name}: {} / {}", plain(a), plain(b)));
        }
    };
    for (name, pointer) in SETUP {
        let at = |report: &Value| report.pointer(pointer).cloned().unwrap_or_default();
        differ(name, &at(a), &at(b));
    }
    if let (Some(left), Some(right)) = (a["options"].as_object(), b["options"].as_object()) {
        for (name, value) in left.iter().filter(|(name, _)| !OUTPUTS.contains(&name.as_str())) {
            differ(name, value, right.get(name).unwrap_or(&Value::Null));
        }
    }
    differences
}

/// The phases of a report, the load included.
fn phases(report: &Value) -> impl Iterator<Item = &Value> {
    let load = Some(&report["load"]).filter(|load| load.is_object());
    load.into_iter().chain(report["phases"].as_array().into_iter().flatten())
}

/// A row for each operation that both have: each figure of both, and their ratio.
fn ratios(a: &Value, b: &Value) -> Table {
    let mut table = Table::new(&["phase", "operation", "figure", "a", "b", "b/a"]);
    for left in phases(a) {
        let Some(right) = phases(b).find(|phase| phase["name"] == left["name"]) else { continue };
        for one in left["operations"].as_array().into_iter().flatten() {
            let others = right["operations"].as_array().into_iter().flatten();
            let Some(other) = others.into_iter().find(|other| other["operation"] == one["operation"]) else {
                continue;
            };
            for (at, (figure, pointer)) in FIGURES.into_iter().enumerate() {
                let value = |of: &Value| of.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
                let (before, after) = (value(one), value(other));
                let write = |value: f64| match figure {
                    "rate" => units::rate(value),
                    _ => units::latency(value as u64),
                };
                let first = |text: &Value| if at == 0 { plain(text) } else { String::new() };
                let ratio = if before > 0.0 { format!("{:.2}", after / before) } else { "-".to_string() };
                table.row(vec![
                    first(&left["name"]),
                    first(&one["operation"]),
                    figure.to_string(),
                    write(before),
                    write(after),
                    ratio,
                ]);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(rate: f64, p99: u64, seed: u64) -> Value {
        let latency = json!({ "p50": 1000, "p99": p99, "p99.9": 3 * p99, "max": 9 * p99 });
        let operation = json!({ "operation": "commit", "rate": rate, "latency_ns": latency });
        let phase = json!({ "name": "commits", "operations": [operation] });
        json!({ "format": FORMAT, "load": null, "phases": [phase], "options": { "seed": seed, "json": seed } })
    }

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let table = ratios(&report(1000.0, 50_000, 1), &report(2500.0, 25_000, 1));
        let ratio = |figure: &str| {
            table.rows.iter().find(|row| row[2] == figure).map(|row| row[5].clone()).unwrap_or_default()
        };
        assert_eq!([ratio("rate"), ratio("p50"), ratio("p99")], ["2.50", "1.00", "0.50"]);
    }

    #[test]
    fn what_differs_is_said_but_not_where_it_went() {
        let differences = differences(&report(1.0, 1, 1), &report(1.0, 1, 2));
        assert_eq!(differences, ["seed: 1 / 2"]);
        let none = json!({ "format": FORMAT, "phases": [{ "name": "mix", "operations": [] }] });
        assert!(ratios(&report(1.0, 1, 1), &none).rows.is_empty());
    }
}
