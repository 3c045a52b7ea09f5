//! From results to pictures: a pure function, so that the same results always give the same files.

mod plot;
mod svg;

use muster_fleet::BrokerKind;
use plot::{Bars, Lines, Series};

use crate::results::{Outcome, Quantity, Results, Scenario, digits};
use crate::statistics::Spread;

/// A picture: name of its file, what it shows in words, and the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Such as `ping.svg`.
    pub file: &'static str,
    /// What it shows.
    pub words: &'static str,
    /// SVG.
    pub svg: String,
}

/// Draws everything that the results have something for.
#[must_use]
pub fn draw(results: &Results) -> Vec<Picture> {
    let lines = [
        ("ratio.svg", ratio(results, BrokerKind::RabbitMq, "Muster against the raw echo, RabbitMQ")),
        ("ratio-embedded.svg", ratio(results, BrokerKind::Embedded, "Muster against the raw echo, embedded broker")),
        ("ping.svg", ping(results)),
        ("broker.svg", broker(results)),
        ("controller.svg", controller(results)),
        ("memory.svg", memory(results)),
        ("storm.svg", storm(results)),
    ];
    let lines = lines.into_iter().filter(|(_, lines)| !lines.is_empty());
    let mut pictures: Vec<Picture> =
        lines.map(|(file, lines)| Picture { file, words: lines.title, svg: lines.draw() }).collect();
    let processor = processor(results);
    if !processor.is_empty() {
        pictures.push(Picture { file: "processor.svg", words: processor.title, svg: processor.draw() });
    }
    pictures
}

/// Outcomes of a scenario on a broker that count.
fn complete(results: &Results, scenario: Scenario, broker: BrokerKind) -> impl Iterator<Item = &Outcome> {
    results.of(scenario).filter(move |outcome| outcome.failed.is_none() && outcome.broker == broker)
}

/// One line: a quantity in a scenario on a broker, divided by `divisor`.
fn series(
    results: &Results,
    broker: BrokerKind,
    (name, scenario, quantity, divisor): (&str, Scenario, Quantity, f64),
) -> Series {
    let scaled = |spread: Spread| Spread {
        median: spread.median / divisor,
        least: spread.least / divisor,
        most: spread.most / divisor,
    };
    let points = complete(results, scenario, broker)
        .filter_map(|outcome| Some((outcome.hosts, scaled(outcome.spread(quantity)?))));
    Series { name: format!("{name}, {broker}"), points: points.collect() }
}

/// The same lines for each broker.
fn on_both(results: &Results, lines: &[(&str, Scenario, Quantity, f64)]) -> Vec<Series> {
    let of = |broker| lines.iter().map(move |line| series(results, broker, *line));
    BrokerKind::ALL.into_iter().flat_map(of).collect()
}

fn ratio(results: &Results, broker: BrokerKind, title: &'static str) -> Lines {
    let scenarios =
        [Scenario::Ping, Scenario::Filter, Scenario::Run1k, Scenario::Run64k, Scenario::Named, Scenario::Two];
    let line = |scenario: Scenario| {
        let points =
            complete(results, scenario, broker).filter_map(|outcome| Some((outcome.hosts, outcome.against_raw()?)));
        Series { name: scenario.title().to_owned(), points: points.collect() }
    };
    Lines {
        title,
        subtitle: "time until everything is verified, divided by the raw echo's of the same round; median, least, most"
            .to_owned(),
        logarithmic: false,
        limit: Some((1.25, "target of the full ping: 1.25".to_owned())),
        series: scenarios.into_iter().map(line).collect(),
    }
}

fn ping(results: &Results) -> Lines {
    let mut series = on_both(
        results,
        &[
            ("Muster, verified", Scenario::Ping, Quantity::CompleteMs, 1.0),
            ("raw echo", Scenario::Ping, Quantity::RawCompleteMs, 1.0),
        ],
    );
    series.extend(on_both(results, &[("lapin echo", Scenario::Lapin, Quantity::RawCompleteMs, 1.0)]));
    Lines {
        title: "Full ping",
        subtitle: "milliseconds from sending until the last answer, both axes logarithmic".to_owned(),
        logarithmic: true,
        limit: None,
        series,
    }
}

fn broker(results: &Results) -> Lines {
    Lines {
        title: "The broker's work a host",
        subtitle: "microseconds of processor time of the broker for each host of a full ping; level is linear growth"
            .to_owned(),
        logarithmic: false,
        limit: None,
        series: on_both(
            results,
            &[
                ("Muster", Scenario::Ping, Quantity::BrokerUs, 1.0),
                ("raw echo", Scenario::Ping, Quantity::RawBrokerUs, 1.0),
            ],
        ),
    }
}

fn controller(results: &Results) -> Lines {
    Lines {
        title: "The controller's work a reply",
        subtitle: "microseconds of processor time for each verified reply of a full ping".to_owned(),
        logarithmic: false,
        limit: Some((40.0, "target: 40 µs".to_owned())),
        series: on_both(
            results,
            &[
                ("open session", Scenario::Ping, Quantity::ControllerUs, 1.0),
                ("`muster ping`", Scenario::Cpu, Quantity::ProgramUs, 1.0),
            ],
        ),
    }
}

fn memory(results: &Results) -> Lines {
    Lines {
        title: "The controller's memory with 64 KiB from all",
        subtitle: "megabytes, the most that the process held".to_owned(),
        logarithmic: false,
        limit: Some((200.0, "target: 200 MB".to_owned())),
        series: on_both(
            results,
            &[
                ("`muster run`", Scenario::Run64k, Quantity::ProgramPeakBytes, 1e6),
                ("client library", Scenario::Run64k, Quantity::ControllerPeakBytes, 1e6),
            ],
        ),
    }
}

fn storm(results: &Results) -> Lines {
    Lines {
        title: "Connect storm",
        subtitle: "connections a second that come to consume, TLS with certificates on both sides".to_owned(),
        logarithmic: false,
        limit: None,
        series: on_both(
            results,
            &[
                ("agents", Scenario::Storm, Quantity::ReadyPerSecond, 1.0),
                ("raw", Scenario::Storm, Quantity::RawReadyPerSecond, 1.0),
            ],
        ),
    }
}

fn processor(results: &Results) -> Bars {
    use Quantity as Q;
    let rows = [
        ("Muster", [Some(Q::BrokerUs), Some(Q::AgentsUs), Some(Q::ControllerUs), None]),
        ("raw", [Some(Q::RawBrokerUs), None, None, Some(Q::RawOwnUs)]),
    ];
    let mut bars = Vec::new();
    for outcome in results.of(Scenario::Ping).filter(|outcome| outcome.failed.is_none()) {
        for (name, quantities) in rows {
            let part = |quantity: Option<Quantity>| match quantity {
                Some(quantity) => outcome.spread(quantity).map(|spread| spread.median),
                None => Some(0.0),
            };
            if let Some(parts) = quantities.into_iter().map(part).collect::<Option<Vec<f64>>>() {
                #[expect(clippy::cast_precision_loss, reason = "hosts are far below 2^52")]
                let hosts = digits(outcome.hosts as f64);
                bars.push((format!("{name}, {}, {hosts} hosts", outcome.broker), parts));
            }
        }
    }
    Bars {
        title: "Where the processor time of a full ping goes",
        subtitle: "microseconds for each host, all processes together".to_owned(),
        parts: vec!["broker", "agents", "controller", "raw hosts and controller"],
        bars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::testing::sample_results;

    #[test]
    fn the_same_results_give_the_same_pictures() {
        let (one, other) = (draw(&sample_results()), draw(&sample_results()));
        assert_eq!(one, other);
        let files: Vec<&str> = one.iter().map(|picture| picture.file).collect();
        let expected = [
            "ratio.svg",
            "ratio-embedded.svg",
            "ping.svg",
            "broker.svg",
            "controller.svg",
            "memory.svg",
            "storm.svg",
            "processor.svg",
        ];
        assert_eq!(files, expected);
    }

    #[test]
    fn a_picture_is_what_it_was() {
        let pictures = draw(&sample_results());
        for name in ["ping.svg", "processor.svg"] {
            let picture = pictures.iter().find(|picture| picture.file == name).unwrap();
            insta::assert_snapshot!(name, picture.svg);
        }
    }

    #[test]
    fn what_failed_or_was_not_measured_is_not_drawn() {
        let mut results = sample_results();
        results.outcomes.retain(|outcome| outcome.scenario == Scenario::Ping);
        let files: Vec<&str> = draw(&results).iter().map(|picture| picture.file).collect();
        assert_eq!(
            files,
            ["ratio.svg", "ratio-embedded.svg", "ping.svg", "broker.svg", "controller.svg", "processor.svg"]
        );
        results.outcomes.iter_mut().for_each(|outcome| outcome.failed = Some("no".to_owned()));
        assert_eq!(draw(&results), []);
    }

    #[test]
    fn every_picture_is_well_formed() {
        for picture in draw(&sample_results()) {
            let opened = picture.svg.matches('<').count() - picture.svg.matches("</").count();
            let closed = picture.svg.matches("/>").count() + picture.svg.matches("</").count();
            assert_eq!(opened, closed, "{}", picture.file);
            assert!(!picture.svg.contains("NaN") && !picture.svg.contains("inf"), "{}", picture.file);
        }
    }
}
