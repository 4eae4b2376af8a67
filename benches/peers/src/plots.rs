//! The plots, one SVG a row: bars, a figure each; for the long run the rate over time; for phases bars by phase.

use crate::report::{axes, cell, number};
use crate::row::{Figure, Row};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What drawing may fail with.
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 960;
/// Pixels for names, to the left of the bars.
const NAMES: i32 = 390;
/// Pixels for numbers, to the right.
const NUMBERS: i32 = 110;
const LINE: i32 = 24;
const HEAD: i32 = 46;
const FONT: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Colours that also colour-blind eyes tell apart (Okabe and Ito 2008), by engine.
fn colour(engine: &str) -> RGBColor {
    let colours = [
        ("Quipu", RGBColor(0, 114, 178)),
        ("RocksDB", RGBColor(213, 94, 0)),
        ("fjall", RGBColor(0, 158, 115)),
        ("redb", RGBColor(204, 121, 167)),
        ("LMDB", RGBColor(230, 159, 0)),
    ];
    let found = colours.iter().find(|(name, _)| engine.starts_with(name));
    found.map_or(RGBColor(90, 90, 90), |(_, colour)| *colour)
}

fn style(size: i32, horizontal: HPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT).pos(Pos::new(horizontal, VPos::Center))
}

/// Draws a row.
pub(crate) fn row(row: &Row) -> Result<String, Box<dyn std::error::Error>> {
    if row.matrix {
        return phases(row);
    }
    let over_time: Vec<&Figure> =
        row.figures.iter().filter(|figure| row.over_time && figure.seconds.len() > 1).collect();
    let bars_height = HEAD + LINE * row.figures.len() as i32 + 14;
    let lines_height = if over_time.is_empty() { 0 } else { 300 };
    svg((bars_height + lines_height) as u32, |area| {
        let (above, below) = area.split_vertically(bars_height);
        bars(&above, row)?;
        if over_time.is_empty() { Ok(()) } else { rates_over_time(&below, &over_time, &row.unit) }
    })
}

fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(svg)
}

fn title(area: &Area<'_>, text: String) -> Drawn {
    area.draw(&Text::new(text, (14, 22), style(17, HPos::Left)))?;
    Ok(())
}

fn bars(area: &Area<'_>, row: &Row) -> Drawn {
    title(area, format!("{}. {}: {}", row.number, row.title, row.unit))?;
    let most = row.figures.iter().map(|figure| figure.value).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH as i32 - NAMES - NUMBERS);
    for (figure, at) in row.figures.iter().zip(0..) {
        let y = HEAD + LINE * at + LINE / 2;
        let end = NAMES + (figure.value / most * room).round() as i32;
        let name = format!("{} · {}", figure.engine, figure.clients);
        area.draw(&Text::new(name, (NAMES - 8, y), style(12, HPos::Right)))?;
        let bar = [(NAMES, y - 8), (end.max(NAMES + 1), y + 8)];
        area.draw(&Rectangle::new(bar, colour(&figure.engine).filled()))?;
        area.draw(&Text::new(number(figure.value), (end + 6, y), style(12, HPos::Left)))?;
    }
    Ok(())
}

fn rates_over_time(area: &Area<'_>, figures: &[&Figure], unit: &str) -> Drawn {
    let seconds = figures.iter().map(|figure| figure.seconds.len()).max().unwrap_or(1);
    let most = figures.iter().flat_map(|figure| &figure.seconds).copied().max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(84)
        .build_cartesian_2d(0..seconds, 0..most + most / 10)?;
    chart
        .configure_mesh()
        .x_desc("second")
        .y_desc(unit)
        .y_label_formatter(&|rate| number(*rate as f64))
        .label_style((FONT, 12).into_font().color(&TEXT))
        .axis_style(TEXT.mix(0.6))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for figure in figures {
        let points = figure.seconds.iter().copied().enumerate();
        chart.draw_series(LineSeries::new(points, colour(&figure.engine).stroke_width(2)))?;
    }
    Ok(())
}

/// A group of bars for each phase, each group on a scale of its own: phases take from milliseconds to minutes.
fn phases(row: &Row) -> Result<String, Box<dyn std::error::Error>> {
    const BAR: i32 = 15;
    let (engines, phases) = axes(row);
    let group = BAR * engines.len() as i32 + 12;
    svg((HEAD + group * phases.len() as i32 + 14) as u32, |area| {
        title(area, format!("{}. {}: seconds, each phase on a scale of its own", row.number, row.title))?;
        let room = f64::from(WIDTH as i32 - NAMES - NUMBERS);
        for ((phase, occurrence), at) in phases.iter().zip(0..) {
            let top = HEAD + group * at;
            area.draw(&Text::new(phase.clone(), (14, top + group / 2 - 6), style(13, HPos::Left)))?;
            let value = |engine: &str| cell(row, engine, phase, *occurrence).map(|figure| figure.value);
            let most = engines.iter().filter_map(|engine| value(engine)).fold(f64::MIN_POSITIVE, f64::max);
            for (engine, line) in engines.iter().zip(0..) {
                let y = top + BAR * line + BAR / 2;
                area.draw(&Text::new(engine.clone(), (NAMES - 8, y), style(11, HPos::Right)))?;
                let Some(value) = value(engine) else { continue };
                let end = NAMES + (value / most * room).round() as i32;
                let bar = [(NAMES, y - 5), (end.max(NAMES + 1), y + 5)];
                area.draw(&Rectangle::new(bar, colour(engine).filled()))?;
                area.draw(&Text::new(number(value), (end + 6, y), style(11, HPos::Left)))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::row::Side;

    #[test]
    fn every_figure_is_drawn() {
        let mut one = Row::new(1, "commits", "", "commits/s");
        one.figures = vec![
            Figure::value(Side::Ours, "Quipu", "on-core", 1e6),
            Figure::value(Side::Peer, "redb", "1 thread", 0.0),
        ];
        let plot = row(&one).unwrap();
        assert!(
            plot.contains("Quipu · on-core")
                && plot.contains("1,000,000")
                && plot.contains("redb · 1 thread")
        );
        one.figures[0].seconds = vec![5; 20];
        one.over_time = true;
        assert!(row(&one).unwrap().len() > plot.len(), "and the rate over time");
        one.matrix = true;
        assert!(row(&one).unwrap().contains("1 thread"));
        one.figures.clear();
        assert!(row(&one).is_ok());
    }
}
