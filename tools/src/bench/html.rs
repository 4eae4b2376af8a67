//! The report as one page: plots, tables and the text, all within the file. It loads nothing, so it can be kept, sent
//! and opened anywhere.

use super::plots::{self, Plot};
use super::report::{PhaseReport, Report};
use crate::units;
use std::fmt::Write;

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { margin-top: 2.2em; border-bottom: 1px solid #ddd; } h3 { margin: 1.4em 0 0.2em; font-size: 1em; }
table { border-collapse: collapse; margin: 0.8em 0; font-size: 14px; }
td, th { padding: 0.2em 0.9em 0.2em 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eee; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f7f7f7; padding: 1em; overflow-x: auto; font-size: 12px; line-height: 1.35; }
svg { max-width: 100%; height: auto; } .note { color: #555; margin: 0.2em 0 0.6em; } .bad { color: #b00020; font-weight: 600; }
nav a { margin-right: 1em; }";

/// Writes the page; `text` is the report as it was printed.
pub(crate) fn page(report: &Report, text: &str) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut page, report, text);
    page
}

fn write(page: &mut String, report: &Report, text: &str) -> std::fmt::Result {
    let names: Vec<String> = report.measured().map(|phase| phase.name.clone()).collect();
    let title = format!("quipu bench: {}", names.join(", "));
    writeln!(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>")?;
    writeln!(page, "<meta name=\"viewport\" content=\"width=device-width\"/>")?;
    writeln!(page, "<title>{}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>", escape(&title))?;
    writeln!(page, "<h1>quipu bench</h1>\n<p class=\"note\">{}</p>", escape(&report.command.join(" ")))?;
    if !report.passed() {
        let why = report.failure.as_deref().unwrap_or("the engine does not hold what it acknowledged");
        writeln!(page, "<p class=\"bad\">FAILED: {}</p>", escape(why))?;
    }
    if report.interrupted {
        writeln!(page, "<p class=\"bad\">Interrupted: this is the report so far.</p>")?;
    }
    summary(page, report)?;
    for (at, sweep) in report.sweeps.iter().enumerate() {
        writeln!(page, "<h2 id=\"sweep-{at}\">Sweep of {}</h2>", escape(&sweep.phase))?;
        let found = match sweep.found {
            Some(found) => format!("highest rate found: {}", units::rate(found)),
            None => "no rate was sustained".to_string(),
        };
        writeln!(page, "<p class=\"note\">Looks for {}; {found}.</p>", escape(&sweep.looks_for.to_string()))?;
        figure(page, "Latency against rate", plots::sweep(sweep))?;
    }
    for (at, phase) in report.measured().enumerate() {
        self::phase(page, at, phase)?;
    }
    setup(page, report)?;
    writeln!(page, "<h2>The report as printed</h2>\n<pre>{}</pre>\n</body>\n</html>", escape(text.trim()))
}

fn summary(page: &mut String, report: &Report) -> std::fmt::Result {
    let head = ["phase", "operation", "rate", "p50", "p99", "p99.9", "max"];
    write!(page, "<table>\n<tr>")?;
    for (at, cell) in head.iter().enumerate() {
        let class = if at < 2 { "" } else { " class=\"number\"" };
        write!(page, "<th{class}>{cell}</th>")?;
    }
    writeln!(page, "</tr>")?;
    for (at, phase) in report.measured().enumerate() {
        for operation in &phase.operations {
            let latency = &operation.latency_ns;
            let name = escape(&phase.name);
            write!(page, "<tr><td><a href=\"#phase-{at}\">{name}</a></td><td>{}</td>", operation.operation)?;
            write!(page, "<td class=\"number\">{}</td>", units::rate(operation.rate))?;
            for ns in [latency.p50, latency.p99, latency.p99_9, latency.max] {
                write!(page, "<td class=\"number\">{}</td>", units::latency(ns))?;
            }
            writeln!(page, "</tr>")?;
        }
    }
    writeln!(page, "</table>")
}

fn phase(page: &mut String, at: usize, phase: &PhaseReport) -> std::fmt::Result {
    writeln!(page, "<h2 id=\"phase-{at}\">{}</h2>", escape(&phase.name))?;
    let slowest = phase.slowest_second.map_or(String::new(), |slowest| {
        format!(", slowest second {:.0} % of the mean", slowest.of_mean * 100.0)
    });
    writeln!(
        page,
        "<p class=\"note\">{}; keys {}, directories {}; {} over {:.1} s{slowest}.</p>",
        escape(&phase.pace()),
        phase.recipe.keys,
        phase.recipe.directories,
        units::rate(phase.rate),
        phase.seconds,
    )?;
    if phase.operations.is_empty() {
        return writeln!(page, "<p>Nothing was measured.</p>");
    }
    figure(page, "Latency by percentile", plots::percentiles(phase))?;
    if let Some(lag) = &phase.lag_ns {
        writeln!(
            page,
            "<p class=\"note\">Response times count from the intended start. The generator itself started operations \
             late by {} at p50, {} at p99, {} at most; {} never started.</p>",
            units::latency(lag.p50),
            units::latency(lag.p99),
            units::latency(lag.max),
            units::thousands(phase.unstarted),
        )?;
    }
    figure(
        page,
        "Rate and latency over time, with the carries in flight and installed",
        plots::timeline(phase),
    )?;
    figure(page, "Time by stage inside the engine", plots::stages(&phase.stages))
}

fn figure(page: &mut String, title: &str, plot: Plot) -> std::fmt::Result {
    writeln!(page, "<h3>{title}</h3>")?;
    match plot {
        Ok(svg) => writeln!(page, "{}", svg.trim()),
        Err(error) => writeln!(page, "<p class=\"bad\">{}</p>", escape(&error.to_string())),
    }
}

/// What is needed to repeat the run.
fn setup(page: &mut String, report: &Report) -> std::fmt::Result {
    let Report { machine, engine, build, options, .. } = report;
    let (system, device) = (&engine.file_system, &engine.file_system.device);
    let unknown = || "unknown".to_string();
    let rows = [
        (
            "built",
            format!("quipu {} ({}), {}, {}", build.version, build.commit, build.compiler, build.profile),
        ),
        (
            "machine",
            format!("{} cores, {}, {}", machine.cores, machine.cpu, units::bytes(machine.memory_bytes)),
        ),
        ("kernel", format!("Linux {}, {}", machine.kernel, machine.architecture)),
        ("file system", format!("{} on {}, {}", system.kind, system.source, system.options)),
        (
            "device",
            format!(
                "{}, write cache: {}, scheduler: {}",
                device.name.clone().unwrap_or_else(unknown),
                device.write_cache.clone().unwrap_or_else(unknown),
                device.scheduler.clone().unwrap_or_else(unknown)
            ),
        ),
        ("engine", format!("{} shards, {}, durability {}", engine.shards, engine.io, options.durability)),
        (
            "data",
            format!(
                "{} keys of {} bytes in {} directories, values of {} bytes, seed {}",
                units::thousands(options.keys.into()),
                options.key_bytes,
                units::thousands(options.directories.into()),
                options.value_bytes,
                options.seed
            ),
        ),
    ];
    writeln!(page, "<h2>What it ran on</h2>\n<table>")?;
    for (name, value) in rows {
        writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value))?;
    }
    writeln!(page, "</table>")
}

/// Text within an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
