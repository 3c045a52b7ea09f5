//! Lines over the number of hosts, both axes logarithmic, as SVG that reads on white and on black.

use std::fmt::Write as _;

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub subtitle: String,
    /// Lines, in the order of the legend.
    pub lines: Vec<Line>,
}

/// One line, or points without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Whether the points are joined: a prediction. Otherwise they are what was measured.
    pub joined: bool,
    /// Places and values, all above nought.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// Colours that people with any sight tell apart (Okabe and Ito), which also show on black.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];

struct Axis {
    least: i32,
    most: i32,
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole powers of ten around the values.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let most = values.fold(0.0, f64::max).log10().ceil();
        #[expect(clippy::cast_possible_truncation, reason = "powers of ten of a number are few")]
        let (least, most) = (least as i32, most as i32);
        Self { least, most: most.max(least + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.least)) / f64::from(self.most - self.least);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.least..=self.most).map(|power| 10_f64.powi(power))
    }
}

/// A number with few digits: `1,000`, `0.01`.
#[must_use]
pub fn short(value: f64) -> String {
    if value >= 1.0 { thousands(value) } else { format!("{value}") }
}

/// A whole number with commas.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    /// Draws it. A chart without points is its titles.
    #[must_use]
    pub fn draw(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>text {{ fill: #777 }} .title {{ font-size: 16px; font-weight: bold }} line {{ stroke: #777; stroke-opacity: 0.3 }}</style>\n"
        );
        let mut text = |x: f64, y: f64, attributes: &str, words: &str| {
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{}</text>", escaped(words))
                .expect("it is a string");
        };
        text(LEFT, 24.0, "class=\"title\"", &self.title);
        text(LEFT, 44.0, "", &self.subtitle);
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        if points().next().is_some() {
            let across = Axis::around(points().map(|(at, _)| at), LEFT, WIDTH - RIGHT);
            let up = Axis::around(points().map(|(_, value)| value), HEIGHT - BOTTOM, TOP);
            for mark in across.marks() {
                text(across.place(mark), HEIGHT - BOTTOM + 18.0, "text-anchor=\"middle\"", &short(mark));
            }
            for mark in up.marks() {
                text(LEFT - 8.0, up.place(mark) + 4.0, "text-anchor=\"end\"", &short(mark));
            }
            text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "text-anchor=\"middle\"", "hosts");
            for (index, line) in self.lines.iter().enumerate() {
                let y = TOP + 10.0 + 20.0 * f64::from(u32::try_from(index).unwrap_or(0));
                text(WIDTH - RIGHT + 32.0, y + 4.0, "", &line.name);
            }
            self.marks_and_lines(&mut svg, &across, &up);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn marks_and_lines(&self, svg: &mut String, across: &Axis, up: &Axis) {
        let mut add = |text: std::fmt::Arguments<'_>| writeln!(svg, "{text}").expect("writing to a string succeeds");
        for mark in up.marks() {
            let y = up.place(mark);
            add(format_args!("<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT));
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let places: Vec<(f64, f64)> =
                line.points.iter().map(|(at, value)| (across.place(*at), up.place(*value))).collect();
            let legend = TOP + 10.0 + 20.0 * f64::from(u32::try_from(index).unwrap_or(0));
            let mut dots = places.clone();
            dots.push((WIDTH - RIGHT + 18.0, legend));
            if line.joined {
                let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                add(format_args!(
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                    path.join(" ")
                ));
            }
            let radius = if line.joined { 2.5 } else { 4.5 };
            for (x, y) in dots {
                add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let line = |name: &str, joined, points| Line { name: name.to_owned(), joined, points };
        Chart {
            title: "a < b".to_owned(),
            subtitle: "seconds".to_owned(),
            lines: vec![
                line("model", true, vec![(100.0, 0.02), (10_000.0, 1.5)]),
                line("measured", false, vec![(100.0, 0.03), (1_000.0, 0.2)]),
            ],
        }
    }

    #[test]
    fn a_chart_has_its_lines_marks_and_words() {
        let svg = chart().draw();
        assert_eq!(svg, chart().draw());
        assert!(svg.contains("a &lt; b") && svg.contains(">10,000<") && svg.contains(">0.01<") && svg.contains(">10<"));
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 2 + 2 + 2));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        // The same value is drawn higher than a smaller one, and within the picture.
        assert!(svg.contains("points=\"70.0,"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_no_panic() {
        let svg = Chart { lines: Vec::new(), ..chart() }.draw();
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn numbers_are_read_easily() {
        let cases = [(0.01, "0.01"), (1.0, "1"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.0, "1,234,567")];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
        assert_eq!(thousands(-1_234.0), "-1,234");
    }
}
