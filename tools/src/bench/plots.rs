//! The plots of a report, each an SVG to be put into a page. Drawn by `plotters`; light, with units on every axis.

use super::engine_stats::{CarryName, GROUP_SIZES, Stage};
use super::op::OpKind;
use super::report::{PhaseReport, SweepPoint, SweepReport};
use crate::units;
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use quipu::CarryKind;
use std::collections::BTreeMap;
use std::ops::Range;

/// A plot, or why there is none.
pub(crate) type Plot = Result<String, Box<dyn std::error::Error>>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 960;
/// Pixels to the right of a plot, for its legend.
const LEGEND: u32 = 170;
const FONT: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Colours that also colour-blind eyes tell apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

fn colour(at: usize) -> RGBColor {
    COLOURS[at % COLOURS.len()]
}

fn small() -> TextStyle<'static> {
    (FONT, 13).into_font().color(&TEXT)
}

/// Names lines to the right of a plot, from `top` pixels down.
fn legend<'a>(
    area: &Area<'_>,
    top: i32,
    lines: impl IntoIterator<Item = (&'a str, ShapeStyle)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let left = (WIDTH - LEGEND) as i32 + 14;
    for ((name, style), at) in lines.into_iter().zip(0..) {
        let y = top + at * 20;
        area.draw(&PathElement::new(vec![(left, y), (left + 20, y)], style))?;
        area.draw(&Text::new(name.to_string(), (left + 27, y - 6), small()))?;
    }
    Ok(())
}

/// Draws on an area of this height, and returns the SVG.
fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>) -> Plot {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(svg)
}

/// A latency on an axis: "10 us", "1 ms".
fn latency_label(nanoseconds: &f64) -> String {
    let ns = nanoseconds.max(0.0);
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

/// A rate on an axis: "250 k/s".
fn rate_label(rate: &f64) -> String {
    let (value, unit) = match *rate {
        rate if rate < 1e3 => (rate, "/s"),
        rate if rate < 1e6 => (rate / 1e3, " k/s"),
        rate => (rate / 1e6, " M/s"),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

/// An axis with labels at given places; linear, or logarithmic.
struct Axis {
    range: Range<f64>,
    log: bool,
    places: Vec<f64>,
}

impl Axis {
    fn linear(range: Range<f64>, places: impl IntoIterator<Item = f64>) -> Self {
        Axis { range, log: false, places: places.into_iter().collect() }
    }

    /// A logarithmic axis with room for these values; where there are none, from 1 to 10 us. It has a handful of labels
    /// however short it is, which plotters' own has not.
    fn log(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|&value| value > 0.0)
            .fold((f64::INFINITY, 0.0f64), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if most > 0.0 { (least / 1.3, most * 1.3) } else { (1e3, 1e4) };
        let range = least.min(most / 4.0)..most;
        let steps: &[f64] = match (range.end / range.start).log10() {
            decades if decades > 3.0 => &[1.0],
            decades if decades > 1.3 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        };
        let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
        let places = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        let places = places.filter(|place| range.contains(place)).collect();
        Axis { range, log: true, places }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let scale = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let (start, end) = (scale(self.range.start), scale(self.range.end));
        let share = (scale(*value) - start) / (end - start);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.places.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A line of a plot.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    colour: RGBColor,
    thin: bool,
}

/// Latency by percentile, for each operation of a phase; in an open loop response and service times.
pub(crate) fn percentiles(phase: &PhaseReport) -> Plot {
    let mut lines = Vec::new();
    for (at, kind) in OpKind::ALL.into_iter().filter(|&kind| phase.histograms.of(kind).is_some()).enumerate()
    {
        let service = phase.histograms.service[kind as usize].as_ref();
        let (response_of, service_of) =
            (format!("{} response", kind.name()), format!("{} service", kind.name()));
        let response_of = if service.is_some() { response_of } else { kind.name().to_string() };
        for (label, histogram, thin) in
            [(response_of, phase.histograms.of(kind), false), (service_of, service, true)]
        {
            let Some(histogram) = histogram else { continue };
            lines.push(Line { label, points: by_nines(histogram), colour: colour(at), thin });
        }
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let nines = points().map(|point| point.0).fold(1.0, f64::max);
    let y = Axis::log(points().map(|point| point.1));
    svg(420, |area| {
        // The places of the axis' labels: 0, 50, 90, 99, 99.9 ... %.
        let ticks = [0.0, 0.5f64.log10().abs()].into_iter().chain((1..=nines as u32).map(f64::from));
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(LEGEND)
            .x_label_area_size(52)
            .y_label_area_size(84)
            .build_cartesian_2d(Axis::linear(0.0..nines, ticks), y)?;
        chart
            .configure_mesh()
            .x_desc("percentile of operations")
            .y_desc("latency")
            .x_label_formatter(&|nines| percent_label(*nines))
            .y_label_formatter(&latency_label)
            .label_style(small())
            .axis_desc_style(small())
            .axis_style(TEXT.mix(0.6))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for Line { points, colour, thin, .. } in &lines {
            let style = colour.stroke_width(if *thin { 1 } else { 2 });
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        }
        legend(
            area,
            26,
            lines
                .iter()
                .map(|line| (&line.label[..], line.colour.stroke_width(if line.thin { 1 } else { 3 }))),
        )?;
        Ok(())
    })
}

/// The distribution of a histogram, percentiles as the number of nines: 1 is 90 %, 2 is 99 %, and so on up to the one
/// sample that is the maximum.
fn by_nines(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = (histogram.len() as f64).log10();
    histogram
        .iter_quantiles(10)
        .map(|step| {
            let nines = -(1.0 - step.quantile_iterated_to()).max(1e-18).log10();
            (nines.clamp(0.0, most), step.value_iterated_to().max(1) as f64)
        })
        .collect()
}

/// "99.9 %" for three nines.
fn percent_label(nines: f64) -> String {
    let decimals = (nines.round() as usize).saturating_sub(2);
    format!("{:.decimals$} %", (1.0 - 10f64.powf(-nines)) * 100.0)
}

/// Rate and p99 over time, and below them the carries, a row a level: those in flight at the end of a second, and those installed in it.
pub(crate) fn timeline(phase: &PhaseReport) -> Plot {
    let seconds = phase.seconds.max(0.1);
    let mut rows: BTreeMap<CarryName, Vec<u64>> = BTreeMap::new();
    for second in &phase.timeline {
        let in_flight =
            second.carries.iter().flatten().map(|carry| (CarryName::new(carry.kind, carry.level), 1));
        let installed = second.carries_installed.iter().flatten().map(|(&name, &count)| (name, count));
        for (name, count) in in_flight.chain(installed) {
            // Of many, more would be no darker.
            let cells = std::iter::repeat_n(second.second, count.min(4) as usize);
            rows.entry(name).or_default().extend(cells);
        }
    }
    let height = 50 + 24 * rows.len().max(2) as u32;
    svg(440 + height, |area| {
        let (rate_area, rest) = area.split_vertically(230);
        let (p99_area, carries_area) = rest.split_vertically(190);
        rates(&rate_area, phase, seconds)?;
        p99s(&p99_area, phase, seconds)?;
        let names: Vec<String> = rows.keys().map(CarryName::to_string).collect();
        let ticks = (0..names.len()).map(|at| at as f64);
        let range = Axis::linear(-0.5..names.len().max(1) as f64 - 0.5, ticks);
        let mut chart = ChartBuilder::on(&carries_area)
            .margin_left(14)
            .margin_right(LEGEND)
            .margin_bottom(8)
            .x_label_area_size(40)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..seconds, range)?;
        chart
            .configure_mesh()
            .x_desc("seconds since the start of the phase")
            .x_label_formatter(&|second| format!("{second}"))
            .y_desc("carries")
            .y_label_formatter(&|row| names.get(row.round() as usize).cloned().unwrap_or_default())
            .label_style(small())
            .axis_desc_style(small())
            .axis_style(TEXT.mix(0.6))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (at, (name, cells)) in rows.iter().enumerate() {
            // Several at once are darker.
            chart.draw_series(cells.iter().map(|&second| {
                let (left, middle) = (second as f64, at as f64);
                let corners = [(left, middle - 0.36), ((left + 1.0).min(seconds), middle + 0.36)];
                Rectangle::new(corners, colour(name.kind as usize).mix(0.55).filled())
            }))?;
        }
        let kinds = [(CarryKind::Segment, "carry"), (CarryKind::Fold, "fold"), (CarryKind::Spill, "spill")];
        let present = kinds.into_iter().filter(|(kind, _)| rows.keys().any(|name| name.kind == *kind));
        let line = |kind| colour(kind as usize).mix(0.55).stroke_width(9);
        legend(&carries_area, 8, present.map(|(kind, name)| (name, line(kind))))?;
        if names.is_empty() {
            let text = "no carry was installed, and none was in flight at the end of any second";
            let at = (WIDTH as i32 / 2 - 150, 12);
            carries_area.draw(&Text::new(text, at, small()))?;
        }
        Ok(())
    })
}

fn rates(area: &Area<'_>, phase: &PhaseReport, seconds: f64) -> Result<(), Box<dyn std::error::Error>> {
    let bars: Vec<(f64, f64, f64)> = phase
        .timeline
        .iter()
        .map(|second| {
            let left = second.second as f64;
            let right = (left + 1.0).min(seconds);
            let count: u64 = second.operations.values().map(|operation| operation.count).sum();
            (left, right, count as f64 / (right - left).max(0.01))
        })
        .collect();
    let most = bars.iter().map(|bar| bar.2).fold(phase.rate, f64::max).max(1.0) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(LEGEND)
        .margin_bottom(4)
        .x_label_area_size(20)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .y_desc("operations a second")
        .y_labels(5)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&rate_label)
        .label_style(small())
        .axis_desc_style(small())
        .axis_style(TEXT.mix(0.6))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(bars.iter().map(|&(left, right, rate)| {
        let gap = (right - left) * 0.06;
        Rectangle::new([(left + gap, 0.0), (right - gap, rate)], colour(0).mix(0.7).filled())
    }))?;
    let mean = [(0.0, phase.rate), (seconds, phase.rate)];
    let style = colour(1).stroke_width(2);
    chart.draw_series(DashedLineSeries::new(mean, 6, 4, style))?;
    legend(area, 26, [(&format!("mean {}", units::rate(phase.rate))[..], style)])?;
    Ok(())
}

fn p99s(area: &Area<'_>, phase: &PhaseReport, seconds: f64) -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<&str> = phase.operations.iter().map(|operation| operation.operation).collect();
    let of = |name: &str| -> Vec<(f64, f64)> {
        let points = phase.timeline.iter().filter_map(|second| {
            let operation = second.operations.get(name).filter(|operation| operation.p99_ns > 0)?;
            Some((second.second as f64 + 0.5, operation.p99_ns as f64))
        });
        points.filter(|&(at, _)| at < seconds).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = names.into_iter().map(|name| (name, of(name))).collect();
    let y = Axis::log(lines.iter().flat_map(|(_, points)| points).map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_left(14)
        .margin_right(LEGEND)
        .x_label_area_size(20)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..seconds, y)?;
    chart
        .configure_mesh()
        .y_desc("p99 of each second")
        .y_labels(5)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&latency_label)
        .label_style(small())
        .axis_desc_style(small())
        .axis_style(TEXT.mix(0.6))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (at, (_, points)) in lines.iter().enumerate() {
        let style = colour(at).stroke_width(2);
        chart.draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?;
    }
    legend(area, 20, lines.iter().enumerate().map(|(at, (name, _))| (*name, colour(at).stroke_width(3))))?;
    Ok(())
}

/// One of a latency's percentiles.
type Percentile = fn(&super::record::Latency) -> u64;

/// Latency against rate: what a sweep tried.
pub(crate) fn sweep(sweep: &SweepReport) -> Plot {
    let offered = sweep.points.iter().filter_map(|point| Some((point.offered?, point)));
    let mut points: Vec<(f64, &SweepPoint)> = offered.collect();
    points.sort_by(|one, next| one.0.total_cmp(&next.0));
    let series: [(&str, Percentile); 3] =
        [("p50", |latency| latency.p50), ("p99", |latency| latency.p99), ("p99.9", |latency| latency.p99_9)];
    let values = || points.iter().flat_map(|(_, point)| series.map(|(_, of)| of(&point.response_ns) as f64));
    let most = points.iter().map(|point| point.0).fold(1.0, f64::max) * 1.05;
    svg(440, |area| {
        let y = Axis::log(values());
        let (low, high) = (y.range.start, y.range.end);
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(LEGEND)
            .x_label_area_size(52)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..most, y)?;
        chart
            .configure_mesh()
            .x_desc("operations a second that were to start (hollow: not sustained)")
            .y_desc("response time")
            .x_labels(8)
            .x_label_formatter(&rate_label)
            .y_label_formatter(&latency_label)
            .label_style(small())
            .axis_desc_style(small())
            .axis_style(TEXT.mix(0.6))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (at, (_, of)) in series.into_iter().enumerate() {
            let style = colour(at).stroke_width(2);
            let line = points.iter().map(|(rate, point)| (*rate, of(&point.response_ns).max(1) as f64));
            chart.draw_series(LineSeries::new(line, style))?;
            chart.draw_series(points.iter().map(|(rate, point)| {
                let fill = if point.sustained { colour(at).filled() } else { style };
                Circle::new((*rate, of(&point.response_ns).max(1) as f64), 4, fill)
            }))?;
        }
        if let Some(found) = sweep.found {
            let style = TEXT.stroke_width(1);
            chart.draw_series(DashedLineSeries::new([(found, low), (found, high)], 5, 4, style))?;
        }
        let found = sweep.found.map(|found| format!("found: {}", units::rate(found)));
        let names = series.iter().enumerate().map(|(at, (name, _))| (*name, colour(at).stroke_width(3)));
        legend(area, 26, names.chain(found.iter().map(|found| (&found[..], TEXT.stroke_width(1)))))?;
        Ok(())
    })
}

/// Time by stage inside the engine: for each, from its median to its p99.9.
pub(crate) fn stages(stages: &[Stage]) -> Plot {
    let stages: Vec<&Stage> =
        stages.iter().filter(|stage| stage.name != GROUP_SIZES && stage.values.samples > 0).rev().collect();
    let x = Axis::log(stages.iter().flat_map(|stage| [stage.values.p50 as f64, stage.values.p99_9 as f64]));
    svg(80 + 34 * stages.len().max(1) as u32, |area| {
        let ticks = (0..stages.len()).map(|at| at as f64);
        let rows = Axis::linear(-0.6..stages.len().max(1) as f64 - 0.4, ticks);
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(LEGEND)
            .x_label_area_size(46)
            .y_label_area_size(150)
            .build_cartesian_2d(x, rows)?;
        chart
            .configure_mesh()
            .x_desc("time")
            .x_label_formatter(&latency_label)
            .y_label_formatter(&|row| {
                stages.get(row.round() as usize).map_or(String::new(), |stage| stage.name.to_string())
            })
            .label_style(small())
            .axis_desc_style(small())
            .axis_style(TEXT.mix(0.6))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (at, stage) in stages.iter().enumerate() {
            let row = at as f64;
            let marks = [stage.values.p50, stage.values.p99, stage.values.p99_9].map(|ns| ns.max(1) as f64);
            chart.draw_series([PathElement::new(
                vec![(marks[0], row), (marks[2], row)],
                TEXT.mix(0.35).stroke_width(3),
            )])?;
            chart.draw_series(
                marks.iter().enumerate().map(|(mark, &ns)| Circle::new((ns, row), 6, colour(mark).filled())),
            )?;
        }
        let names = ["p50", "p99", "p99.9"].into_iter().enumerate();
        legend(area, 26, names.map(|(at, name)| (name, colour(at).stroke_width(6))))?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_units_and_no_needless_digits() {
        assert_eq!(latency_label(&1e6), "1 ms");
        assert_eq!(latency_label(&25e3), "25 us");
        assert_eq!(latency_label(&2.5e9), "2.5 s");
        assert_eq!(rate_label(&250e3), "250 k/s");
        assert_eq!(
            [0.0, 2f64.log10(), 1.0, 2.0, 3.0, 5.0].map(percent_label),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }

    #[test]
    fn a_logarithmic_axis_holds_its_values_and_always_has_labels() {
        for (least, most) in [(2e3, 9e6), (5e3, 5e3), (1.2e7, 8e7), (1.0, 1e11), (0.0, 0.0)] {
            let axis = Axis::log([least, most].into_iter());
            assert!(most == 0.0 || (axis.range.contains(&least) && axis.range.contains(&most)));
            assert!((3..=12).contains(&axis.places.len()), "{least} to {most}: {:?}", axis.places);
            assert!(axis.places.is_sorted());
            assert_eq!(
                (axis.map(&axis.range.start, (10, 110)), axis.map(&axis.range.end, (10, 110))),
                (10, 110)
            );
        }
        assert_eq!(Axis::log([1e3, 1e9].into_iter()).map(&1e6, (0, 1000)), 500);
    }
}
