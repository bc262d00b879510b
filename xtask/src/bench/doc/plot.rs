//! Lines over an axis, as SVG.

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::FontStyle;

/// In pixels.
const SIZE: (u32, u32) = (900, 480);
/// Beside the plot, for the lines' names.
const NAMES: u32 = 230;
/// Told apart also by those who do not see red and green as different (Okabe and Ito).
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 140),
];

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Of its file.
    pub name: String,
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is on it, and its unit.
    pub label: String,
    pub scale: Scale,
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero on.
    Linear,
    /// In powers of ten.
    Log,
}

/// A line with its points.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Thin and with hollow points: another figure of what the line before it is about, in its colour.
    pub second: bool,
}

impl Line {
    /// A line of its own.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, second: false }
    }
}

impl Axis {
    /// From zero on.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Linear }
    }

    /// In powers of ten. What is not positive is not drawn.
    pub fn log(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Log }
    }

    /// Where a value is.
    fn place(&self, value: f64) -> Option<f64> {
        match self.scale {
            Scale::Linear => Some(value),
            Scale::Log => (value > 0.0).then(|| value.log10()),
        }
    }
}

impl Plot {
    /// Draws it.
    pub fn svg(&self) -> Result<String> {
        let lines = self.placed()?;
        let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
        let x =
            Ticks::of(&self.x, all().map(|(x, _)| x)).with_context(|| format!("{} is empty", self.name))?;
        let y =
            Ticks::of(&self.y, all().map(|(_, y)| y)).with_context(|| format!("{} is empty", self.name))?;
        let mut text = String::new();
        self.draw(&mut text, &lines, x, y).map_err(|error| anyhow!("drawing {}: {error}", self.name))?;
        Ok(text)
    }

    /// The lines' points, where they are to be.
    fn placed(&self) -> Result<Vec<Placed<'_>>> {
        let mut lines = Vec::new();
        for line in &self.lines {
            let finite = line.points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
            ensure!(finite, "{} of {} has a point that is no number", line.name, self.name);
            let place = |(x, y): &(f64, f64)| Some((self.x.place(*x)?, self.y.place(*y)?));
            lines.push((line, line.points.iter().filter_map(place).collect()));
        }
        Ok(lines)
    }

    fn draw(
        &self,
        into: &mut String,
        lines: &[Placed<'_>],
        x: Ticks,
        y: Ticks,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(into, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // The names of lines are beside the plot, where they cover none.
        let (plot, names) = area.split_horizontally(SIZE.0 - NAMES);
        let (x_of, y_of) = (x.scale, y.scale);
        let mut chart = ChartBuilder::on(&plot)
            .caption(&self.title, ("sans-serif", 17).into_font().style(FontStyle::Bold))
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .x_label_formatter(&|at| number(x_of, *at))
            .y_label_formatter(&|at| number(y_of, *at))
            .draw()?;
        let mut last = 0;
        for (number, (line, points)) in lines.iter().enumerate() {
            let color = if line.second { last } else { color(&line.name, number) };
            last = color;
            let color = COLORS[color % COLORS.len()];
            let width = if line.second { 1 } else { 2 };
            let inside = if line.second { WHITE.filled() } else { color.filled() };
            let y = 52 + 22 * i32::try_from(number)?;
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(width)))?;
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 4, inside)))?;
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 4, color.stroke_width(2))))?;
            names.draw(&PathElement::new([(4, y), (26, y)], color.stroke_width(width)))?;
            names.draw(&Circle::new((15, y), 4, inside))?;
            names.draw(&Circle::new((15, y), 4, color.stroke_width(2)))?;
            names.draw(&Text::new(line.name.clone(), (32, y - 7), ("sans-serif", 14)))?;
        }
        area.present()?;
        drop((chart, plot, names));
        Ok(())
    }
}

/// The same one for the same thing in all plots.
fn color(name: &str, number: usize) -> usize {
    let known = [
        ("floor", 6),
        ("none", 0),
        ("apart", 0),
        ("direct", 2),
        ("relay", 4),
        ("graft", 3),
        ("agent", 2),
        ("haproxy", 1),
        ("envoy", 5),
        ("prox", 5),
    ];
    known.iter().find(|(part, _)| name.to_lowercase().contains(part)).map_or(number, |(_, color)| *color)
}

/// A line, and where its points are.
type Placed<'a> = (&'a Line, Vec<(f64, f64)>);

/// A range with marks at round numbers, of values or of their powers of ten.
#[derive(Clone, Debug)]
struct Ticks {
    scale: Scale,
    range: std::ops::Range<f64>,
    marks: Vec<f64>,
}

impl Ticks {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let (low, high, marks) = match axis.scale {
            Scale::Linear => linear(low, high),
            Scale::Log => log(low, high),
        };
        Some(Self { scale: axis.scale, range: low..high, marks })
    }
}

/// From zero to the first mark at or above the highest value, five to ten marks.
fn linear(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let span = (high - low.min(0.0)).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf((span / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| span / step <= 8.0);
    let step = step.unwrap_or(10.0 * power);
    let first = (low.min(0.0) / step).floor();
    let last = (high / step).ceil().max(first + 1.0);
    let marks = steps(first, last).into_iter().map(|n| n * step).collect();
    (first * step, last * step, marks)
}

/// Whole powers of ten; and 2 and 5 times each, where there are few.
fn log(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let (margin_low, margin_high) = (low - 0.04, high + 0.04);
    let powers = steps(low.floor(), high.ceil());
    let factors: &[f64] = if high - low < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let marks: Vec<_> =
        powers.iter().flat_map(|power| factors.iter().map(move |n| power + n.log10())).collect();
    // Reach to the marks around, where they are not far.
    let before = marks.iter().copied().filter(|mark| *mark <= margin_low).fold(f64::NEG_INFINITY, f64::max);
    let after = marks.iter().copied().filter(|mark| *mark >= margin_high).fold(f64::INFINITY, f64::min);
    let from = if margin_low - before < 0.4 { before } else { margin_low };
    let to = if after - margin_high < 0.4 { after } else { margin_high };
    let marks = marks.into_iter().filter(|mark| (from..=to).contains(mark)).collect();
    (from, to, marks)
}

/// Whole numbers.
fn steps(first: f64, last: f64) -> Vec<f64> {
    std::iter::successors(Some(first), |n| Some(n + 1.0)).take_while(|n| *n <= last + 1e-9).collect()
}

/// As few digits as it takes.
fn number(scale: Scale, at: f64) -> String {
    let value = if scale == Scale::Log { 10_f64.powf(at) } else { at };
    let thousands = |text: String| {
        let (whole, rest) =
            text.split_once('.').map_or((&*text, String::new()), |(w, r)| (w, format!(".{r}")));
        let digits = whole.len();
        let grouped: String = whole
            .chars()
            .enumerate()
            .flat_map(|(n, c)| {
                (n > 0 && (digits - n).is_multiple_of(3)).then_some(',').into_iter().chain([c])
            })
            .collect();
        grouped + &rest
    };
    let rounded = (value * 1e6).round() / 1e6;
    thousands(format!("{rounded}"))
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range.clone()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Some plot.
    pub fn plot() -> Plot {
        Plot {
            name: "a-plot".to_owned(),
            title: "Response time".to_owned(),
            x: Axis::log("clients"),
            y: Axis::linear("p50 (us)"),
            lines: vec![
                Line::new("none", vec![(1.0, 90.0), (64.0, 700.0)]),
                Line::new("relay", vec![(1.0, 190.0), (64.0, 1400.0)]),
                Line { second: true, ..Line::new("relay's CPU", vec![(1.0, 90.0), (64.0, 95.0)]) },
            ],
        }
    }

    #[test]
    fn a_plot_names_its_axes_its_lines_and_round_numbers() {
        let svg = plot().svg().expect("a drawing");
        for text in ["Response time", "clients", "p50 (us)", "none", "relay", "1,400", "200", "50"] {
            assert!(
                svg.contains(&format!("\n{text}\n")) || svg.contains(&format!(">{text}<")),
                "no {text} in {svg}"
            );
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn marks_are_round_and_around_all_values() {
        assert_eq!(
            linear(90.0, 1400.0),
            (0.0, 1400.0, vec![0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0, 1400.0])
        );
        assert_eq!(linear(0.2, 0.93).2.last(), Some(&1.0));
        assert!((linear(-3.0, 4.0).0 + 3.0).abs() < 1e-9);
        let (from, to, marks) = log(0.0, 5.0);
        assert!(from <= 0.0 && to >= 5.0 && marks == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{marks:?}");
        let few = log(26.0_f64.log10(), 240.0_f64.log10()).2;
        assert_eq!(
            few.iter().map(|at| number(Scale::Log, *at)).collect::<Vec<_>>(),
            ["20", "50", "100", "200", "500"]
        );
        assert_eq!(number(Scale::Log, 4.0), "10,000");
        assert_eq!(number(Scale::Linear, 0.25), "0.25");
        assert_eq!(number(Scale::Linear, 1_234_567.0), "1,234,567");
        assert_eq!(number(Scale::Linear, 0.0), "0");
    }

    #[test]
    fn the_same_thing_has_the_same_colour() {
        assert_eq!(color("picop-direct", 0), color("direct", 5));
        assert_eq!(color("shared, picop relays", 3), color("relay", 1));
        assert_ne!(color("envoy-per-service", 1), color("haproxy", 1));
        assert_eq!(color("update", 7), 7);
    }

    #[test]
    fn nothing_and_what_is_no_number_is_not_drawn() {
        let mut empty = plot();
        empty.lines.clear();
        assert!(empty.svg().is_err());
        let mut broken = plot();
        broken.lines[0].points[0].1 = f64::NAN;
        assert!(broken.svg().is_err());
        let mut zero = plot();
        zero.lines[0].points[0].0 = 0.0;
        assert!(zero.svg().is_ok(), "no power of ten is zero: left out");
    }
}
