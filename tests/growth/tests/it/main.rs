//! The files beside the documents: complete, up to date, and held against what was measured.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::PathBuf;

use muster_growth::constants::{Constants, MEASURED};
use muster_growth::curve::{self, Curve};
use muster_growth::page::{Asked, compare, files};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance/growth")
}

fn measured() -> Curve {
    curve::read(&std::fs::read_to_string(folder().join("measured.json")).unwrap()).unwrap()
}

/// Cores of the machine that `measured.json` was taken on.
const CORES: usize = 2;

/// How far a prediction may be off. The tables say how far each is.
const ERROR_MOST: f64 = 0.35;

#[test]
fn the_model_predicts_what_was_measured() {
    let (constants, _) = Constants::parse(MEASURED).unwrap();
    for it in compare(&measured(), &constants, CORES) {
        assert!(it.error().abs() <= ERROR_MOST, "{it:?}: off by {:+.0} %", it.error() * 100.0);
    }
}

#[test]
fn a_model_of_another_machine_does_not_predict_it() {
    let (constants, _) = Constants::parse(MEASURED).unwrap();
    let slow = Constants { command_us: 3.0 * constants.command_us, report_us: 3.0 * constants.report_us, ..constants };
    let compared = compare(&measured(), &slow, CORES);
    assert!(compared.iter().any(|it| it.error() > ERROR_MOST), "the test could not fail: {compared:?}");
}

#[test]
fn the_measured_cost_of_a_host_does_not_grow() {
    let curve = measured();
    let broker = curve.broker.unwrap();
    assert!(broker.r_squared > 0.9, "{broker:?}");
    let (first, last) = (curve.points.first().unwrap(), curve.points.last().unwrap());
    assert!(first.hosts <= 100 && last.hosts >= 1_000, "the curve spans {} to {} hosts", first.hosts, last.hosts);
}

#[test]
fn the_checked_in_tables_and_pictures_are_what_their_numbers_give() {
    let (constants, table) = Constants::parse(MEASURED).unwrap();
    // The large fleets take a minute where nothing is optimised; `cargo xtask growth --check` compares the files themselves.
    let asked = Asked { hosts: vec![2_000], sites: vec![10], drawn: vec![1_000, 2_000] };
    let made = files(&constants, &table, &measured(), CORES, &asked);
    assert_eq!(made, files(&constants, &table, &measured(), CORES, &asked), "the same numbers, the same files");
    for file in &made {
        let there = std::fs::read_to_string(folder().join(file.name)).unwrap();
        match file.name {
            // What does not depend on the fleets that are asked for.
            "curve.svg" | "work.svg" => assert_eq!(there, file.text, "{}: run `cargo xtask growth`", file.name),
            "tables.md" => {
                let section = |text: &str, from: &str| {
                    let rest = text.split_once(from).unwrap().1;
                    rest.split("\n## ").next().unwrap().to_owned()
                };
                for title in ["## The measured curve", "## The model against", "## The constants"] {
                    assert_eq!(section(&there, title), section(&file.text, title), "{title}: run `cargo xtask growth`");
                }
            }
            _ => assert!(!there.is_empty()),
        }
    }
}
