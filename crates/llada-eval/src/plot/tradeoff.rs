//! Time against agreement.

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, EmptyElement, RGBColor, SVGBackend, Text,
};
use plotters::style::{BLACK, Color, IntoFont, WHITE};

use super::{Drawn, SIZE, svg};
use crate::{Error, Measured, Result};

/// Width of the list of flags.
const LIST: u32 = 430;

/// The share of equal answers of each setting against its seconds, numbered as the settings are,
/// from 1, beside the list of their flags, as an SVG.
///
/// # Errors
/// [`Error::Empty`] without settings, [`Error::Plot`] if the drawing library fails.
pub fn tradeoff_svg(measured: &[Measured]) -> Result<String> {
    if measured.is_empty() {
        return Err(Error::Empty { what: "settings" });
    }
    let height = SIZE
        .1
        .max(40 + 16 * u32::try_from(measured.len()).unwrap_or(u32::MAX / 32));
    svg((SIZE.0 + LIST, height), |root| draw(root, measured))
}

fn color(measured: &Measured) -> RGBColor {
    match (
        measured.setting.is_rule_alone(),
        measured.setting.flags().contains("--cache"),
    ) {
        (true, _) => RGBColor(31, 78, 121),
        (false, true) => RGBColor(200, 80, 20),
        (false, false) => RGBColor(40, 40, 40),
    }
}

fn draw(root: &DrawingArea<SVGBackend<'_>, Shift>, measured: &[Measured]) -> Drawn {
    root.fill(&WHITE)?;
    let (picture, list) = root.split_horizontally(SIZE.0);
    let slowest = measured.iter().map(|row| row.seconds).fold(0.0, f64::max);
    let least = (measured.iter())
        .map(|row| row.agreement.texts.mean)
        .fold(1.0, f64::min);
    let mut chart = ChartBuilder::on(&picture)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..1.05 * slowest, (least - 0.05).max(0.0)..1.02)?;
    chart
        .configure_mesh()
        .x_desc("seconds of an answer")
        .y_desc("answers as those of the first setting")
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .light_line_style(BLACK.mix(0.03))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let points = measured.iter().enumerate().map(|(at, row)| {
        let color = color(row);
        EmptyElement::at((row.seconds, row.agreement.texts.mean))
            + Circle::new((0, 0), 4, color.filled())
            + Text::new(
                (at + 1).to_string(),
                (6, -6),
                ("sans-serif", 13).into_font().color(&color),
            )
    });
    chart.draw_series(points)?;
    for (at, row) in measured.iter().enumerate() {
        let flags = match row.setting.flags() {
            flags if flags.is_empty() => "(one token a step)".to_owned(),
            flags => flags,
        };
        let place = (4, 20 + 16 * i32::try_from(at).unwrap_or(i32::MAX / 32));
        let style = ("sans-serif", 13).into_font().color(&color(row));
        list.draw(&Text::new(format!("{:>2}  {flags}", at + 1), place, style))?;
    }
    Ok(())
}
