//! Two kinds of picture: lines over the number of hosts, and bars made of parts.

use super::svg::{Anchor, Svg, colour};
use crate::results::digits;
use crate::statistics::Spread;

/// Lines over the number of hosts, which is drawn logarithmically.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lines {
    pub(super) title: &'static str,
    pub(super) subtitle: String,
    /// Whether the values are drawn logarithmically, too.
    pub(super) logarithmic: bool,
    /// A dashed line with its words.
    pub(super) limit: Option<(f64, String)>,
    pub(super) series: Vec<Series>,
}

/// One line: a spread for each number of hosts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(usize, Spread)>,
}

/// Horizontal bars, each of several parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bars {
    pub(super) title: &'static str,
    pub(super) subtitle: String,
    pub(super) parts: Vec<&'static str>,
    pub(super) bars: Vec<(String, Vec<f64>)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
/// Room for the names of the lines.
const RIGHT: f64 = 220.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// Lines of text nearer than this cannot be told apart.
const LABEL_GAP: f64 = 15.0;

/// A number on an axis.
#[expect(clippy::cast_precision_loss, reason = "hosts and places are far below 2^52")]
fn float(number: usize) -> f64 {
    number as f64
}

/// From a value to its place.
#[derive(Debug, Clone, Copy)]
struct Scale {
    logarithmic: bool,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.least) / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }
}

/// Round numbers from nothing to at least `most`, four to eight of them.
fn round_steps(most: f64) -> Vec<f64> {
    let rough = most.max(f64::MIN_POSITIVE) / 5.0;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * magnitude).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let mut steps = vec![0.0];
    while steps.last().is_none_or(|last| *last < most) {
        steps.push(step * float(steps.len()));
    }
    steps
}

/// 1, 2 and 5 times powers of ten that enclose the values; only the powers where those are many.
fn logarithmic_steps(least: f64, most: f64) -> Vec<f64> {
    let mut steps = Vec::new();
    let mut power = 10_f64.powf(least.log10().floor());
    while power <= most * 10.0 {
        steps.extend([power, 2.0 * power, 5.0 * power]);
        power *= 10.0;
    }
    let from = steps.iter().rposition(|step| *step <= least).unwrap_or(0);
    let to = steps.iter().position(|step| *step >= most).unwrap_or(steps.len() - 1);
    let mut steps = steps[from..=to.max(from + 1)].to_vec();
    if steps.len() > 8 {
        let ends = (steps[0], steps[steps.len() - 1]);
        steps.retain(|step| *step == ends.0 || *step == ends.1 || step.log10().fract().abs() < 1e-9);
    }
    steps
}

/// Moves places apart, downwards in the order of their places, so that no two are nearer than `gap`, and none is below
/// `most`. Gives them in the order in which they came.
fn apart(places: &[f64], gap: f64, most: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|one, other| places[*one].total_cmp(&places[*other]));
    let mut moved = places.to_vec();
    for pair in order.windows(2) {
        moved[pair[1]] = moved[pair[1]].max(moved[pair[0]] + gap);
    }
    let mut bound = most;
    for index in order.iter().rev() {
        moved[*index] = moved[*index].min(bound);
        bound = moved[*index] - gap;
    }
    moved
}

impl Lines {
    /// Whether there is anything to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The picture.
    pub(super) fn draw(&self) -> String {
        let mut svg = Svg::new(760, 400, self.title);
        svg.text((LEFT - 48.0, 24.0), Anchor::Start, "title", self.title);
        svg.text((LEFT - 48.0, 44.0), Anchor::Start, "muted", &self.subtitle);
        let points = || self.series.iter().flat_map(|series| &series.points);
        let mut hosts: Vec<usize> = points().map(|(hosts, _)| *hosts).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let limit = self.limit.as_ref().map(|(limit, _)| *limit);
        let values = || points().flat_map(|(_, spread)| [spread.least, spread.most]).chain(limit);
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        let steps = if self.logarithmic {
            let least = values().filter(|value| *value > 0.0).fold(most, f64::min);
            logarithmic_steps(least, most)
        } else {
            round_steps(most)
        };
        let (from, to) = (HEIGHT - BOTTOM, TOP);
        let y = Scale { logarithmic: self.logarithmic, least: steps[0], most: steps[steps.len() - 1], from, to };
        for step in &steps {
            let at = y.place(*step);
            svg.line("grid", (LEFT, at), (WIDTH - RIGHT, at));
            svg.text((LEFT - 8.0, at + 4.0), Anchor::End, "muted", &step_words(*step));
        }
        let (first, last) = (float(hosts.first().copied().unwrap_or(1)), float(hosts.last().copied().unwrap_or(1)));
        let x = Scale { logarithmic: true, least: first / 1.3, most: last * 1.3, from: LEFT, to: WIDTH - RIGHT };
        for count in &hosts {
            let at = x.place(float(*count));
            svg.text((at, HEIGHT - BOTTOM + 18.0), Anchor::Middle, "muted", &digits(float(*count)));
        }
        svg.text((f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 8.0), Anchor::Middle, "muted", "hosts");
        if let Some((limit, words)) = &self.limit {
            let at = y.place(*limit);
            svg.line("limit", (LEFT, at), (WIDTH - RIGHT, at));
            svg.text((LEFT + 6.0, at - 5.0), Anchor::Start, "muted", words);
        }
        let drawn: Vec<(usize, &Series)> =
            self.series.iter().enumerate().filter(|(_, series)| !series.points.is_empty()).collect();
        for (index, series) in &drawn {
            let colour = colour(*index);
            let place = |(hosts, value): (usize, f64)| (x.place(float(hosts)), y.place(value));
            let path: Vec<(f64, f64)> =
                series.points.iter().map(|(hosts, spread)| place((*hosts, spread.median))).collect();
            svg.path(&format!("line {colour}"), &path);
            for (hosts, spread) in &series.points {
                let (least, most) = (place((*hosts, spread.least)), place((*hosts, spread.most)));
                svg.line(&format!("whisker {colour}"), least, most);
                svg.dot(&format!("dot {colour}"), place((*hosts, spread.median)));
            }
        }
        let end = |series: &Series| series.points[series.points.len() - 1];
        let places: Vec<f64> = drawn.iter().map(|(_, series)| y.place(end(series).1.median)).collect();
        for ((index, series), at) in drawn.iter().zip(apart(&places, LABEL_GAP, HEIGHT - BOTTOM)) {
            let (hosts, spread) = end(series);
            let beside = x.place(float(hosts)) + 10.0;
            let words = format!("{} {}", series.name, digits(spread.median));
            svg.text((beside, at + 4.0), Anchor::Start, &format!("label {}", colour(*index)), &words);
        }
        svg.finish()
    }
}

/// A step of an axis: as few digits as it has.
fn step_words(step: f64) -> String {
    let words = digits(step);
    if words.contains('.') { words.trim_end_matches('0').trim_end_matches('.').to_owned() } else { words }
}

const BAR: f64 = 18.0;
const BAR_GAP: f64 = 10.0;
const BARS_LEFT: f64 = 200.0;

impl Bars {
    /// Whether there is anything to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// The picture.
    pub(super) fn draw(&self) -> String {
        let height = TOP + 26.0 + float(self.bars.len()) * (BAR + BAR_GAP) + 8.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred pixels")]
        let mut svg = Svg::new(760, height.ceil() as u32, self.title);
        svg.text((LEFT - 48.0, 24.0), Anchor::Start, "title", self.title);
        svg.text((LEFT - 48.0, 44.0), Anchor::Start, "muted", &self.subtitle);
        let mut at = BARS_LEFT;
        for (index, part) in self.parts.iter().enumerate() {
            svg.area(&format!("area {}", colour(index)), (at, TOP - 4.0), (12.0, 12.0));
            svg.text((at + 18.0, TOP + 6.0), Anchor::Start, "", part);
            at += 130.0;
        }
        let total = |parts: &[f64]| parts.iter().sum::<f64>();
        let most = self.bars.iter().map(|(_, parts)| total(parts)).fold(f64::MIN_POSITIVE, f64::max);
        let x = Scale { logarithmic: false, least: 0.0, most, from: BARS_LEFT, to: WIDTH - 70.0 };
        for (row, (name, parts)) in self.bars.iter().enumerate() {
            let top = TOP + 26.0 + float(row) * (BAR + BAR_GAP);
            svg.text((BARS_LEFT - 10.0, top + BAR - 5.0), Anchor::End, "", name);
            let mut from = 0.0;
            for (index, part) in parts.iter().enumerate() {
                let (left, right) = (x.place(from), x.place(from + part));
                svg.area(&format!("area {}", colour(index)), (left, top), (right - left, BAR));
                from += part;
            }
            svg.text((x.place(from) + 8.0, top + BAR - 5.0), Anchor::Start, "muted", &digits(from));
        }
        svg.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_that_enclose_the_values() {
        let cases: &[(f64, &[f64])] = &[
            (1.3, &[0.0, 0.5, 1.0, 1.5]),
            (1.25, &[0.0, 0.25, 0.5, 0.75, 1.0, 1.25]),
            (40.0, &[0.0, 10.0, 20.0, 30.0, 40.0]),
            (201.0, &[0.0, 50.0, 100.0, 150.0, 200.0, 250.0]),
        ];
        for (most, expected) in cases {
            assert_eq!(round_steps(*most), *expected, "{most}");
        }
        let cases: &[(f64, f64, &[f64])] = &[
            (6.0, 30.0, &[5.0, 10.0, 20.0, 50.0]),
            (10.0, 10.0, &[10.0, 20.0]),
            (3.0, 4_000.0, &[2.0, 10.0, 100.0, 1_000.0, 5_000.0]),
        ];
        for (least, most, expected) in cases {
            assert_eq!(logarithmic_steps(*least, *most), *expected, "{least} {most}");
        }
    }

    #[test]
    fn labels_are_moved_apart_in_their_order_and_stay_inside() {
        let cases: &[(&[f64], &[f64])] = &[
            (&[10.0, 50.0], &[10.0, 50.0]),
            (&[50.0, 10.0, 12.0], &[50.0, 10.0, 25.0]),
            (&[95.0, 99.0, 98.0], &[70.0, 100.0, 85.0]),
            (&[], &[]),
        ];
        for (places, expected) in cases {
            assert_eq!(apart(places, 15.0, 100.0), *expected, "{places:?}");
        }
    }

    #[test]
    fn places_follow_the_scale() {
        let linear = Scale { logarithmic: false, least: 0.0, most: 10.0, from: 100.0, to: 0.0 };
        let logarithmic = Scale { logarithmic: true, least: 1.0, most: 100.0, from: 0.0, to: 100.0 };
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(near(linear.place(2.5), 75.0) && near(linear.place(20.0), 0.0));
        assert!(near(logarithmic.place(10.0), 50.0) && near(logarithmic.place(0.0), 0.0));
    }
}
