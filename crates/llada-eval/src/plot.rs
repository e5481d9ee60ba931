//! The pictures of the experiments.

mod tradeoff;

use llada_diffusion::PredictorKind;
use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
    RGBColor, Rectangle, SVGBackend, SeriesLabelPosition,
};
use plotters::style::{BLACK, Color, WHITE};

use crate::{Error, Figure, Result, ScalingPoint};

pub use tradeoff::tradeoff_svg;

const SIZE: (u32, u32) = (960, 540);
/// Half the width of the caps of an error bar, as a share of the axis.
const CAP: f64 = 0.006;

type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn color(kind: PredictorKind) -> RGBColor {
    match kind {
        PredictorKind::Diffusion => RGBColor(31, 78, 121),
        PredictorKind::Autoregressive => RGBColor(200, 80, 20),
    }
}

fn label(kind: PredictorKind) -> &'static str {
    match kind {
        PredictorKind::Diffusion => "LLaDA (masked diffusion)",
        PredictorKind::Autoregressive => "autoregressive twin",
    }
}

fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = draw(&root).and_then(|()| root.present());
    drawn.map_err(|error| Error::Plot {
        reason: error.to_string(),
    })?;
    drop(root);
    Ok(svg)
}

/// Accuracy forward and in reversal of each model, as bars with their standard errors, as an SVG.
///
/// # Errors
/// [`Error::Plot`] if the drawing library fails.
pub fn reversal_svg(models: &[(PredictorKind, [Figure; 2])]) -> Result<String> {
    svg(SIZE, |root| draw_reversal(root, models))
}

fn draw_reversal(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    models: &[(PredictorKind, [Figure; 2])],
) -> Drawn {
    const DIRECTIONS: [&str; 2] = ["forward: the second line", "reversal: the first line"];
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..2.0, 0.0..1.2)?; // room for the legend
    let direction = |x: &f64| {
        let is_middle = |at: f64| (x - at).abs() < 1e-9;
        let found = [0.5, 1.5].into_iter().position(is_middle);
        found.map_or(String::new(), |i| DIRECTIONS[i].to_owned())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(5)
        .y_desc("lines recalled without an error")
        .x_label_formatter(&direction)
        .y_label_formatter(&|y| match *y < 1.01 {
            true => format!("{:.0} %", y * 100.0),
            false => String::new(),
        })
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .light_line_style(BLACK.mix(0.03))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let width = 0.7 / models.len().max(1) as f64;
    for (at, &(kind, figures)) in models.iter().enumerate() {
        let color = color(kind);
        let place = |direction: usize| direction as f64 + 0.15 + width * at as f64;
        let bars = figures.iter().enumerate().map(|(direction, figure)| {
            let left = place(direction);
            let corners = [(left, 0.0), (left + 0.9 * width, figure.mean)];
            Rectangle::new(corners, color.filled())
        });
        chart
            .draw_series(bars)?
            .label(label(kind))
            .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 24, y + 6)], color.filled()));
        for (direction, figure) in figures.iter().enumerate() {
            let (x, reach) = (place(direction) + 0.45 * width, 2.0 * CAP);
            let ends = ends(figure.mean, figure.standard_error);
            let lines = error_bar(x, ends, [x - reach, x + reach]);
            let paths = lines.map(|line| PathElement::new(line, BLACK.stroke_width(2)));
            chart.draw_series(paths)?;
        }
    }
    legend(&mut chart)
}

fn ends(mean: f64, error: f64) -> [f64; 2] {
    [mean - error, mean + error]
}

/// A bar at `x` and its two caps.
fn error_bar(x: f64, [low, high]: [f64; 2], [left, right]: [f64; 2]) -> [[(f64, f64); 2]; 3] {
    [
        [(x, low), (x, high)],
        [(left, low), (right, low)],
        [(left, high), (right, high)],
    ]
}

/// The held-out bound of each model against the operations of its training, on a logarithmic axis,
/// a line for each kind, with standard errors, as an SVG.
///
/// # Errors
/// [`Error::Empty`] without points, [`Error::Plot`] if the drawing library fails.
pub fn scaling_svg(points: &[ScalingPoint]) -> Result<String> {
    if points.is_empty() {
        return Err(Error::Empty { what: "runs" });
    }
    svg(SIZE, |root| draw_scaling(root, points))
}

fn draw_scaling(root: &DrawingArea<SVGBackend<'_>, Shift>, points: &[ScalingPoint]) -> Drawn {
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        })
    };
    let (left, right) = range(&mut points.iter().map(ScalingPoint::flops));
    let of_bound =
        |point: &ScalingPoint| ends(point.bound.nats_per_token, point.bound.standard_error);
    let (low, high) = range(&mut points.iter().flat_map(of_bound));
    let margin = (0.1 * (high - low)).max(0.01);

    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (left / 1.5..right * 1.5).log_scale(),
            low - margin..high + margin,
        )?;
    chart
        .configure_mesh()
        .x_desc("operations of the training, 6 N D")
        .y_desc("held-out bound, nats per token")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .x_label_formatter(&|flops| {
            // The others would not fit beside each other.
            let label = format!("{flops:.0e}");
            match label.starts_with(['1', '2', '5']) {
                true => label,
                false => String::new(),
            }
        })
        .y_labels(13)
        .y_label_formatter(&|nats| format!("{nats:.2}"))
        .light_line_style(BLACK.mix(0.03))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let cap = (right / left * 2.25).powf(CAP);
    for kind in [PredictorKind::Diffusion, PredictorKind::Autoregressive] {
        let mut own: Vec<&ScalingPoint> = points.iter().filter(|p| p.kind == kind).collect();
        if own.is_empty() {
            continue;
        }
        own.sort_by(|a, b| a.flops().total_cmp(&b.flops()));
        let color = color(kind);
        let place = |point: &&ScalingPoint| (point.flops(), point.bound.nats_per_token);
        chart
            .draw_series(LineSeries::new(
                own.iter().map(place),
                color.stroke_width(2),
            ))?
            .label(label(kind))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(2)));
        let dots = own.iter().map(|p| Circle::new(place(p), 4, color.filled()));
        chart.draw_series(dots)?;
        let bars = own.iter().flat_map(|point| {
            let x = point.flops();
            error_bar(x, of_bound(point), [x / cap, x * cap])
        });
        let paths = bars.map(|line| PathElement::new(line, color.stroke_width(1)));
        chart.draw_series(paths)?;
    }
    legend(&mut chart)
}

/// What the colors mean.
fn legend<'a, C: plotters::coord::CoordTranslate>(
    chart: &mut plotters::chart::ChartContext<'a, SVGBackend<'a>, C>,
) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()
}
