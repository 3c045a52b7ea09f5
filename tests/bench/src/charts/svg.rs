//! Writes SVG: shapes with classes, and one style sheet that knows light and dark.
//!
//! Coordinates have one decimal, so that the same numbers always give the same bytes.

use std::fmt::Write as _;

/// Colours of lines and areas, as classes `a` to `f`; each is readable on white and, in its second form, on black.
const COLOURS: [(char, &str, &str); 6] = [
    ('a', "#1f5fbf", "#6ea8fe"),
    ('b', "#c2410c", "#fb923c"),
    ('c', "#0f766e", "#2dd4bf"),
    ('d', "#7e22ce", "#c084fc"),
    ('e', "#a16207", "#facc15"),
    ('f', "#be185d", "#f472b6"),
];

/// Where a text is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows.
#[derive(Debug)]
pub(super) struct Svg {
    width: u32,
    height: u32,
    body: String,
}

impl Svg {
    /// An empty drawing with a title that readers of the picture hear.
    pub(super) fn new(width: u32, height: u32, title: &str) -> Self {
        let mut drawing = Self { width, height, body: String::new() };
        drawing.push(&format!("<title>{}</title>", escape(title)));
        drawing
    }

    fn push(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// Text with a class: empty, `muted` or `title`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        self.push(&format!("<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text)));
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(&format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut list = String::new();
        for (x, y) in points {
            write!(list, "{x:.1},{y:.1} ").expect("a string takes everything");
        }
        self.push(&format!("<polyline class=\"{class}\" points=\"{}\"/>", list.trim_end()));
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64)) {
        self.push(&format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"));
    }

    /// An area.
    pub(super) fn area(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.push(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    /// The file.
    pub(super) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n{}{body}</svg>\n",
            style()
        )
    }
}

/// The class of the series with this number: the first six differ.
pub(super) fn colour(index: usize) -> char {
    COLOURS[index % COLOURS.len()].0
}

fn style() -> String {
    let mut light = String::from(
        "text{font:12px system-ui,sans-serif;fill:#1f2430}.title{font-size:15px;font-weight:600}.muted{fill:#5b6472}\
         .grid{stroke:#d9dde4}.limit{stroke:#5b6472;stroke-dasharray:5 4}.line{fill:none;stroke-width:2}.whisker{stroke-width:1.5}",
    );
    let mut dark = String::from("text{fill:#e5e8ee}.muted{fill:#a3acba}.grid{stroke:#3b424e}.limit{stroke:#a3acba}");
    for (name, on_light, on_dark) in COLOURS {
        for (sheet, colour) in [(&mut light, on_light), (&mut dark, on_dark)] {
            write!(
                sheet,
                ".line.{name},.whisker.{name}{{stroke:{colour}}}.dot.{name},.area.{name},.label.{name}{{fill:{colour}}}"
            )
            .expect("a string takes everything");
        }
    }
    format!("<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>\n")
}

/// Text inside of an element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_coordinates_have_one_decimal() {
        let mut drawing = Svg::new(10, 20, "a < b");
        drawing.text((1.0 / 3.0, 2.0), Anchor::End, "", "1 & <2>");
        drawing.path("line a", &[(0.0, 1.0), (2.05, 3.0)]);
        let file = drawing.finish();
        for expected in [
            "<title>a &lt; b</title>",
            "<text x=\"0.3\" y=\"2.0\" text-anchor=\"end\">1 &amp; &lt;2&gt;</text>",
            "points=\"0.0,1.0 2.0,3.0\"",
            "prefers-color-scheme:dark",
        ] {
            assert!(file.contains(expected), "{expected}\n{file}");
        }
    }

    #[test]
    fn every_colour_can_be_read_on_its_ground() {
        // Relative luminance and contrast as WCAG 2 has them; 3 is its least for graphics.
        let channel = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |colour: &str| {
            let part = |at: usize| channel(u8::from_str_radix(&colour[at..at + 2], 16).unwrap());
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        let contrast = |one: f64, other: f64| (one.max(other) + 0.05) / (one.min(other) + 0.05);
        for (name, on_light, on_dark) in COLOURS {
            assert!(contrast(luminance(on_light), luminance("#ffffff")) >= 4.5, "{name}");
            assert!(contrast(luminance(on_dark), luminance("#0d1117")) >= 4.5, "{name}");
        }
    }
}
