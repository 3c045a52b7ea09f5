//! From constants and results to the files in `docs/performance/growth`: tables as Markdown, pictures as SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::chart::{Chart, Line, thousands};
use crate::constants::{Constant, Constants};
use crate::curve::Curve;
use crate::engine::count;
use crate::model::{Layout, Outcome, Shape, play};
use crate::plan::{Candidate, candidates, certificates, narrowest, needs};

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: String,
}

/// What a plan is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Numbers of hosts.
    pub hosts: Vec<usize>,
    /// Numbers of sites.
    pub sites: Vec<usize>,
    /// Numbers of hosts in the picture.
    pub drawn: Vec<usize>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { hosts: vec![100_000, 1_000_000], sites: vec![10, 100], drawn: vec![1_000, 10_000, 100_000, 1_000_000] }
    }
}

/// A measured ping beside the model's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// How many hosts.
    pub hosts: usize,
    /// Measured.
    pub measured_ms: f64,
    /// Predicted.
    pub predicted_ms: f64,
}

impl Compared {
    /// How far the prediction is off: 0.1 is a tenth too long.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.predicted_ms / self.measured_ms - 1.0
    }
}

/// Plays each measured ping on the machine that it was measured on, with `cores`. The constants are of one number of hosts;
/// what is predicted are the others.
#[must_use]
pub fn compare(curve: &Curve, constants: &Constants, cores: usize) -> Vec<Compared> {
    let predict = |hosts| play(&Shape::ping(hosts, Layout::Together { cores }), constants).seconds * 1_000.0;
    let compared = |point: &crate::curve::Point| Compared {
        hosts: point.hosts,
        measured_ms: point.complete_ms,
        predicted_ms: predict(point.hosts),
    };
    curve.points.iter().map(compared).collect()
}

/// All files.
#[must_use]
pub fn files(
    constants: &Constants,
    table: &BTreeMap<String, Constant>,
    curve: &Curve,
    cores: usize,
    asked: &Asked,
) -> Vec<File> {
    let compared = compare(curve, constants, cores);
    let played: Vec<(Candidate, Outcome)> = asked
        .hosts
        .iter()
        .flat_map(|hosts| candidates(*hosts, &asked.sites))
        .map(|candidate| {
            let outcome = play(&candidate.shape, constants);
            (candidate, outcome)
        })
        .collect();
    let mut tables = String::from(
        "# Growth: the tables\n\nMade by `cargo xtask growth` from `constants.json` and the benchmark's results; [growth.md](../growth.md) says what they mean.\n",
    );
    tables.push_str(&curve_table(curve));
    tables.push_str(&compared_table(&compared, cores));
    tables.push_str(&plan_table(&played, constants));
    tables.push_str(&certificate_table(&asked.hosts, constants));
    tables.push_str(&constant_table(table));
    vec![
        File { name: "tables.md", text: tables },
        File { name: "curve.svg", text: curve_chart(&compared).draw() },
        File { name: "work.svg", text: work_chart(curve).draw() },
        File { name: "plan.svg", text: plan_chart(constants, asked).draw() },
    ]
}

fn section(title: &str, words: &str, heads: &[&str]) -> String {
    let rule: Vec<&str> = heads.iter().map(|_| "---").collect();
    format!("\n## {title}\n\n{words}\n\n| {} |\n|{}|\n", heads.join(" | "), rule.join("|"))
}

fn row(text: &mut String, cells: &[String]) {
    writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a string succeeds");
}

fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn bytes(value: f64) -> String {
    let (divisor, unit) = match value {
        small if small < 1e4 => (1.0, "B"),
        small if small < 1e7 => (1e3, "kB"),
        small if small < 1e10 => (1e6, "MB"),
        small if small < 1e13 => (1e9, "GB"),
        _ => (1e12, "TB"),
    };
    format!("{} {unit}", thousands(value / divisor))
}

fn seconds(value: f64) -> String {
    match value {
        short if short < 120.0 => format!("{} s", digits(short)),
        short if short < 7_200.0 => format!("{} min", digits(short / 60.0)),
        short if short < 172_800.0 => format!("{} h", digits(short / 3_600.0)),
        long => format!("{} days", digits(long / 86_400.0)),
    }
}

fn curve_table(curve: &Curve) -> String {
    let words = "Medians of full pings: TLS, every command and answer signed and verified, everything on one machine.";
    let heads = [
        "hosts",
        "time",
        "raw echo",
        "ratio",
        "broker a host",
        "raw broker a host",
        "agent a host",
        "controller a reply",
        "controller's memory",
    ];
    let mut text = section("The measured curve", words, &heads);
    for point in &curve.points {
        row(
            &mut text,
            &[
                thousands(count(point.hosts)),
                format!("{} ms", digits(point.complete_ms)),
                format!("{} ms", digits(point.raw_complete_ms)),
                format!("{:.2}", point.complete_ms / point.raw_complete_ms),
                format!("{} µs", digits(point.broker_us)),
                format!("{} µs", digits(point.raw_broker_us)),
                format!("{} µs", digits(point.agents_us)),
                format!("{} µs", digits(point.controller_us)),
                bytes(point.controller_peak_bytes),
            ],
        );
    }
    text.push_str("\nStraight lines through them (least squares, each point weighed by the inverse square of its hosts):\n\n| of | each host adds | without hosts | R² |\n|---|---|---|---|\n");
    for (name, line, unit) in [
        ("the broker's work", curve.broker, "µs"),
        ("the raw echo's broker work", curve.raw_broker, "µs"),
        ("the time", curve.complete, "ms"),
        ("the controller's memory", curve.controller_memory, "B"),
    ] {
        if let Some(line) = line {
            let cell =
                |value: f64| format!("{} {unit}", if unit == "ms" { format!("{value:.4}") } else { digits(value) });
            row(&mut text, &[name.to_owned(), cell(line.each), cell(line.at_nought), format!("{:.4}", line.r_squared)]);
        }
    }
    text
}

fn compared_table(compared: &[Compared], cores: usize) -> String {
    let words = format!(
        "The model with {cores} cores for everything, its constants from one row of the table above, against each row."
    );
    let mut text = section("The model against the measurement", &words, &["hosts", "measured", "predicted", "off by"]);
    for it in compared {
        row(
            &mut text,
            &[
                thousands(count(it.hosts)),
                format!("{} ms", digits(it.measured_ms)),
                format!("{} ms", digits(it.predicted_ms)),
                format!("{:+.0} %", it.error() * 100.0),
            ],
        );
    }
    text
}

fn plan_table(played: &[(Candidate, Outcome)], constants: &Constants) -> String {
    let words = "A full ping, played: 2 ms to a host and up to 5 ms more to think, 20 ms to a site over 1 Gbit/s; 16 cores for each broker in the centre, 8 at a site, one for each controller.";
    let heads = ["hosts", "layout", "last answer", "half", "99 %", "brokers' work", "narrowest", "waiting at most"];
    let mut text = section("The plan: time", words, &heads);
    for (candidate, outcome) in played {
        let narrow = narrowest(outcome);
        row(
            &mut text,
            &[
                thousands(count(candidate.shape.hosts)),
                candidate.name.clone(),
                seconds(outcome.seconds),
                seconds(outcome.median_s),
                seconds(outcome.p99_s),
                format!("{} core-s", digits(outcome.broker_s)),
                narrow.map_or_else(String::new, |load| format!("{} ({:.0} %)", load.name, load.share * 100.0)),
                format!("{} answers", thousands(count(outcome.waiting_most))),
            ],
        );
    }
    let words = "The same layouts, by arithmetic: what the fullest broker, the centre and a controller hold, and how long coming back takes.";
    let heads = [
        "hosts",
        "layout",
        "hosts a broker",
        "its memory for them",
        "keys at the centre",
        "link binds anew",
        "all reconnect",
        "spread",
        "definitions",
        "import",
        "a controller's memory",
    ];
    text.push_str(&section("The plan: what it needs", words, &heads));
    for (candidate, _) in played {
        let needs = needs(&candidate.shape, constants);
        let or_none = |value: f64, shown: String| if value > 0.0 { shown } else { "–".to_owned() };
        row(
            &mut text,
            &[
                thousands(count(candidate.shape.hosts)),
                candidate.name.clone(),
                thousands(needs.hosts_a_broker),
                bytes(needs.broker_bytes),
                or_none(needs.center_key_bytes, bytes(needs.center_key_bytes)),
                or_none(needs.link_again_s, seconds(needs.link_again_s)),
                seconds(needs.storm_s),
                seconds(needs.spread_s),
                bytes(needs.definitions_bytes),
                seconds(needs.definitions_s),
                bytes(needs.controller_bytes),
            ],
        );
    }
    text
}

fn certificate_table(hosts: &[usize], constants: &Constants) -> String {
    let words = "Whatever the layout. The list holds one host in a hundred a year, each until its certificate would have ended.";
    let heads = ["hosts", "issue all", "renewals a day", "revocation list", "sending it to all", "the idle fleet"];
    let mut text = section("Certificates and silence", words, &heads);
    for &number in hosts {
        let it = certificates(number, constants);
        row(
            &mut text,
            &[
                thousands(count(number)),
                seconds(it.issue_s),
                thousands(it.renewals_a_day),
                bytes(it.revocation_bytes),
                bytes(it.distribution_bytes),
                format!("{}/s", bytes(it.idle_bytes_per_second)),
            ],
        );
    }
    text
}

fn constant_table(table: &BTreeMap<String, Constant>) -> String {
    let words = "Everything above follows from these and from the measured curve.";
    let mut text = section("The constants", words, &["constant", "value", "what", "from"]);
    for (name, constant) in table {
        let value = format!("{} {}", digits(constant.value), constant.unit);
        row(&mut text, &[format!("`{name}`"), value, constant.what.clone(), constant.from.clone()]);
    }
    text
}

fn line(name: impl Into<String>, joined: bool, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.into(), joined, points }
}

fn curve_chart(compared: &[Compared]) -> Chart {
    let points = |value: &dyn Fn(&Compared) -> f64| compared.iter().map(|it| (count(it.hosts), value(it))).collect();
    Chart {
        title: "A full ping, measured and predicted".to_owned(),
        subtitle: "milliseconds until the last answer is verified, everything on one machine".to_owned(),
        lines: vec![
            line("measured", false, points(&|it| it.measured_ms)),
            line("the model", true, points(&|it| it.predicted_ms)),
        ],
    }
}

fn work_chart(curve: &Curve) -> Chart {
    let points = |value: &dyn Fn(&crate::curve::Point) -> f64| {
        curve.points.iter().map(|point| (count(point.hosts), value(point) * count(point.hosts) / 1_000.0)).collect()
    };
    let fitted = |of: Option<crate::fit::Line>| {
        let places = curve.points.iter().map(|point| count(point.hosts));
        of.map_or_else(Vec::new, |line| places.map(|at| (at, (line.at(at) / 1_000.0).max(0.001))).collect())
    };
    Chart {
        title: "The broker's work for a full ping".to_owned(),
        subtitle: "milliseconds of processor time; a straight line is a cost that does not grow".to_owned(),
        lines: vec![
            line("measured", false, points(&|point| point.broker_us)),
            line("straight line", true, fitted(curve.broker)),
            line("raw echo, measured", false, points(&|point| point.raw_broker_us)),
            line("straight line", true, fitted(curve.raw_broker)),
        ],
    }
}

/// Each layout over fleets of several sizes.
fn plan_chart(constants: &Constants, asked: &Asked) -> Chart {
    let mut lines: Vec<Line> = Vec::new();
    for &hosts in &asked.drawn {
        for (index, candidate) in candidates(hosts, &asked.sites).iter().enumerate() {
            let point = (count(hosts), play(&candidate.shape, constants).seconds);
            match lines.get_mut(index) {
                Some(line) => line.points.push(point),
                None => {
                    lines.push(line(candidate.name.replace(", 10 sub-collectives", ", 10 parts"), true, vec![point]))
                }
            }
        }
    }
    Chart {
        title: "A full ping of larger fleets, played".to_owned(),
        subtitle: "seconds until the last answer is verified".to_owned(),
        lines,
    }
}
