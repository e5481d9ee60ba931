//! The picture of the loss.

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition,
};
use plotters::style::{BLACK, Color, WHITE};

use crate::{Error, LossWeight, MetricsLine, Result};

const SIZE: (u32, u32) = (960, 540);
/// More points than pixels would only make the file larger.
const MAX_POINTS: usize = 900;
const MAX_DOTS: usize = 150;
const RAW: RGBColor = RGBColor(176, 196, 222);
const SMOOTH: RGBColor = RGBColor(31, 78, 121);
const HELD_OUT: RGBColor = RGBColor(200, 80, 20);

type Point = (f64, f64);

/// Training loss (raw and smoothed) and held-out bound against optimizer steps, as an SVG. With
/// uniform weights the legend says that the two are different sums.
///
/// # Errors
/// [`Error::Plot`] if the drawing library fails.
pub fn loss_svg(lines: &[MetricsLine], loss_weight: LossWeight) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(&root, lines, loss_weight).map_err(|error| Error::Plot {
        reason: error.to_string(),
    })?;
    drop(root);
    Ok(svg)
}

fn draw(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[MetricsLine],
    loss_weight: LossWeight,
) -> std::result::Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let raw: Vec<Point> = lines
        .iter()
        .map(|line| (line.step as f64, line.loss))
        .collect();
    let raw = binned(&raw, MAX_POINTS);
    let smooth = smoothed(&raw);
    let held_out = thinned(lines.iter().filter_map(held_out_point).collect(), MAX_DOTS);
    let (low, high) = y_range(&raw, &smooth, &held_out);
    let last_step = raw.last().map_or(1.0, |point| point.0).max(1.0);

    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last_step, low..high)?;
    chart
        .configure_mesh()
        .x_desc("optimizer step")
        .y_desc("loss, nats per token")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .light_line_style(BLACK.mix(0.03))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;

    let smooth_label = match loss_weight {
        LossWeight::InverseP => "training loss, smoothed",
        LossWeight::Uniform => "smoothed: mean of masked tokens, another sum than the bound",
    };
    for (points, label, color, width) in [
        (&raw, "training loss", RAW, 1),
        (&smooth, smooth_label, SMOOTH, 2),
    ] {
        let clipped = points.iter().map(|&(x, y)| (x, y.clamp(low, high)));
        chart
            .draw_series(LineSeries::new(clipped, color.stroke_width(width)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(2)));
    }
    if !held_out.is_empty() {
        let bars = held_out.iter().map(|&((x, y), error)| {
            PathElement::new([(x, y - error), (x, y + error)], HELD_OUT.stroke_width(1))
        });
        chart.draw_series(bars)?;
        let dot = |center| Circle::new(center, 4, HELD_OUT.filled());
        chart
            .draw_series(held_out.iter().map(|&(point, _)| dot(point)))?
            .label("held-out bound ± standard error")
            .legend(|(x, y)| Circle::new((x + 12, y), 4, HELD_OUT.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()
}

fn held_out_point(line: &MetricsLine) -> Option<(Point, f64)> {
    let error = line.validation_standard_error.unwrap_or(0.0);
    Some(((line.step as f64, line.validation_bound?), error))
}

/// At most `n` points at even distances, the last among them.
fn thinned<T>(points: Vec<T>, n: usize) -> Vec<T> {
    let stride = points.len().div_ceil(n).max(1);
    let skipped = points.len().saturating_sub(1) % stride;
    points.into_iter().skip(skipped).step_by(stride).collect()
}

/// Means of neighbors, so that there are at most `n` points.
fn binned(raw: &[Point], n: usize) -> Vec<Point> {
    let size = raw.len().div_ceil(n).max(1);
    let bin = |points: &[Point]| {
        let sum: f64 = points.iter().map(|point| point.1).sum();
        (points[points.len() - 1].0, sum / points.len() as f64)
    };
    raw.chunks(size).map(bin).collect()
}

/// Mean over a window of 1/25 of the points.
fn smoothed(raw: &[Point]) -> Vec<Point> {
    let reach = raw.len() / 50;
    let mean = |at: usize| {
        let near = &raw[at.saturating_sub(reach)..(at + reach + 1).min(raw.len())];
        near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64
    };
    raw.iter()
        .enumerate()
        .map(|(at, point)| (point.0, mean(at)))
        .collect()
}

/// Everything smooth, all held-out points and 98 % of the raw points are inside.
fn y_range(raw: &[Point], smooth: &[Point], held_out: &[(Point, f64)]) -> (f64, f64) {
    let mut sorted: Vec<f64> = raw.iter().map(|point| point.1).collect();
    sorted.sort_by(f64::total_cmp);
    let outside = sorted.len() / 100;
    let inside = &sorted[outside..sorted.len() - outside];
    let bounds = held_out
        .iter()
        .flat_map(|&((_, y), error)| [y - error, y + error]);
    let all = inside
        .iter()
        .copied()
        .chain(smooth.iter().map(|point| point.1))
        .chain(bounds);
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    if low > high {
        return (0.0, 1.0);
    }
    let margin = (0.05 * (high - low)).max(1e-3);
    ((low - margin).max(0.0), high + margin)
}

#[cfg(test)]
mod tests;
