use muster_protocol::ddl::Ddl;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn action(aggregate: &Value) -> Action {
    let ddl = json!({
        "metadata": {
            "name": "thing", "description": "d", "author": "a", "license": "l", "version": "1.0.0", "url": "u", "timeout": 5
        },
        "actions": [{
            "action": "look", "description": "d", "display": "always", "input": {},
            "output": {
                "state": {"description": "d", "display_as": "State", "type": "string"},
                "size": {"description": "d", "display_as": "", "type": "integer"}
            },
            "aggregate": aggregate
        }]
    });
    Ddl::parse(&ddl.to_string()).unwrap().actions.into_iter().next().unwrap()
}

fn run(aggregate_spec: Value, answers: &[Value]) -> Aggregated {
    let mut all = aggregate(&action(&json!([aggregate_spec])), answers);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn values_keep_their_types_and_what_is_missing_is_counted_apart() {
    let answers = [
        json!({"state": "1"}),
        json!({"state": 1}),
        json!({"state": "1"}),
        json!({"state": null}),
        json!({}),
        json!(null),
        json!({"state": ["a", "1", null]}),
    ];
    let sum = run(json!({"function": "summary", "args": ["state"]}), &answers);
    assert_eq!((sum.heading.as_str(), sum.values, sum.missing, sum.unusable), ("State", 5, 3, 0));
    assert_eq!(sum.lines, ["3 1", "1 a", "1 1"]);
    let Sum::Summary { counts, more: 0 } = sum.sum else { panic!("{:?}", sum.sum) };
    assert_eq!((&counts[0].value, &counts[2].value), (&json!("1"), &json!(1)));
}

#[test]
fn titles_and_formats_of_choria_and_mcollective_are_honoured() {
    let answers = [json!({"state": true}), json!({"state": false}), json!({"state": true}), json!({"state": "odd"})];
    let check = |options: Value, lines: &[&str]| {
        let sum = run(json!({"function": "boolean_summary", "args": ["state", options]}), &answers);
        assert_eq!(sum.lines, lines);
        assert_eq!((sum.values, sum.unusable), (3, 1));
    };
    check(json!({"titles": {"true": "On", "false": "Off"}}), &["2 On", "1 Off"]);
    check(json!({"true": "On", "false": "Off", "format": "%-5s%d"}), &["On   2", "Off  1"]);
    check(json!({}), &["2 true", "1 false"]);
    let sum = run(json!({"function": "summary", "args": ["state", {"format": "%q"}]}), &answers);
    assert_eq!(sum.bad_format.as_deref(), Some("%q"));
    assert_eq!(sum.lines, ["2 true", "1 odd", "1 false"]);
}

#[test]
fn numbers_are_numbers() {
    let answers: Vec<Value> = (1..=100).map(|size| json!({"size": size})).collect();
    let with = |function: &str| json!({"function": function, "args": ["size"]});
    let average = run(with("average"), &answers);
    assert_eq!((average.sum, average.lines), (Sum::Average(50.5), vec!["50.5".to_owned()]));
    let formatted = run(json!({"function": "average", "args": ["size", {"format": "%.1f MB"}]}), &answers);
    assert_eq!(formatted.lines, ["50.5 MB"]);
    let percentiles = run(with("percentiles"), &answers);
    assert_eq!(percentiles.heading, "size", "without a heading the name");
    assert_eq!(
        percentiles.sum,
        Sum::Percentiles(Percentiles { min: 1.0, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 })
    );
    assert_eq!(percentiles.lines, ["min 1  p50 50  p90 90  p99 99  max 100"]);
    let Sum::Chart(bars) = run(with("chart"), &answers).sum else { panic!("a chart") };
    assert_eq!(bars.len(), 8);
    assert_eq!((bars[0].from, bars[0].to, bars[0].count), (1.0, 14.0, 13));
    assert_eq!(bars.iter().map(|bar| bar.count).sum::<usize>(), 100);
    let odd = [json!({"size": "12.5"}), json!({"size": true}), json!({"size": "NaN"}), json!({"size": {}}), json!({})];
    let average = run(with("average"), &odd);
    assert_eq!((average.values, average.missing, average.unusable), (1, 1, 3));
    assert_eq!(average.sum, Sum::Average(12.5));
}

#[test]
fn few_whole_numbers_get_a_bar_each() {
    let answers: Vec<Value> = [2, 2, 3, 5].iter().map(|size| json!({"size": size})).collect();
    let Sum::Chart(bars) = run(json!({"function": "chart", "args": ["size"]}), &answers).sum else { panic!() };
    assert_eq!(
        bars,
        [
            Bar { from: 2.0, to: 3.0, count: 2 },
            Bar { from: 3.0, to: 4.0, count: 1 },
            Bar { from: 4.0, to: 5.0, count: 1 }
        ]
    );
}

#[test]
fn what_cannot_be_summed_up_is_named() {
    let answers = [json!({"state": "a"})];
    assert_eq!(run(json!({"function": "sumary", "args": ["state"]}), &answers).sum, Sum::UnknownFunction);
    assert_eq!(run(json!({"function": "summary", "args": ["stat"]}), &answers).sum, Sum::UnknownOutput);
    assert_eq!(run(json!({"function": "summary"}), &answers).sum, Sum::UnknownOutput);
    assert_eq!(run(json!({"function": "average", "args": ["state"]}), &answers).sum, Sum::Nothing);
    assert_eq!(run(json!({"function": "summary", "args": ["state"]}), &[]).sum, Sum::Nothing);
}

#[test]
fn the_functions_that_descriptions_may_name_are_those_that_are_here() {
    let answers = [json!({"size": 1})];
    for function in muster_protocol::ddl::AGGREGATE_FUNCTIONS {
        let sum = run(json!({"function": function, "args": ["size"]}), &answers).sum;
        assert_ne!(sum, Sum::UnknownFunction, "{function}");
    }
}

#[test]
fn ten_thousand_different_values_stay_readable() {
    let answers: Vec<Value> = (0..3_000).map(|n| json!({"state": format!("v{n}")})).collect();
    let sum = run(json!({"function": "summary", "args": ["state"]}), &answers);
    let Sum::Summary { counts, more } = sum.sum else { panic!() };
    assert_eq!((counts.len(), more, sum.values), (1_000, 2_000, 3_000));
}

#[test]
fn numbers_are_shown_short() {
    for (number, expected) in
        [(0.0, "0"), (-0.0001, "0"), (12.0, "12"), (1.0 / 3.0, "0.333"), (-2.5, "-2.5"), (1e300, "1e300")]
    {
        assert_eq!(shown(number), expected);
    }
}

proptest! {
    #[test]
    fn the_laws_of_numbers_hold(sizes in proptest::collection::vec(prop_oneof![any::<i32>().prop_map(f64::from), any::<f64>()], 1..60)) {
        let finite: Vec<f64> = sizes.iter().copied().filter(|size| size.is_finite()).collect();
        let answers: Vec<Value> = sizes.iter().map(|size| json!({"size": size})).collect();
        let with = |function: &str| run(json!({"function": function, "args": ["size"]}), &answers);
        let average = with("average");
        prop_assert_eq!(average.values + average.unusable + average.missing, sizes.len());
        prop_assert_eq!(average.values, finite.len());
        let (min, max) = finite.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), size| (min.min(*size), max.max(*size)));
        match (average.sum, with("percentiles").sum, with("chart").sum) {
            (Sum::Average(mean), Sum::Percentiles(p), Sum::Chart(bars)) => {
                prop_assert!(min <= mean && mean <= max, "{} {} {}", min, mean, max);
                prop_assert!(p.min <= p.p50 && p.p50 <= p.p90 && p.p90 <= p.p99 && p.p99 <= p.max);
                prop_assert!(p.min == min && p.max == max && finite.contains(&p.p50));
                prop_assert_eq!(bars.iter().map(|bar| bar.count).sum::<usize>(), finite.len());
                prop_assert!(bars.len() <= BARS_MAX && bars[0].from == min && bars[bars.len() - 1].to == max);
                for pair in bars.windows(2) {
                    prop_assert!(pair[0].to == pair[1].from && pair[0].from < pair[0].to, "{:?}", bars);
                }
            }
            (Sum::Nothing, Sum::Nothing, Sum::Nothing) => prop_assert!(finite.is_empty()),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn order_does_not_matter_and_counts_add_up(mut states in proptest::collection::vec("[a-c]{0,2}", 0..40)) {
        let count = |states: &[String]| {
            let answers: Vec<Value> = states.iter().map(|state| json!({"state": state})).collect();
            run(json!({"function": "summary", "args": ["state"]}), &answers)
        };
        let one = count(&states);
        states.reverse();
        prop_assert_eq!(&one, &count(&states));
        if let Sum::Summary { counts, .. } = one.sum {
            prop_assert_eq!(counts.iter().map(|counted| counted.count).sum::<usize>(), states.len());
            prop_assert!(counts.is_sorted_by(|one, other| one.count >= other.count));
        }
    }

    #[test]
    fn no_format_breaks_it(format in "[%a-z0-9. -]{0,12}") {
        let answers = [json!({"state": "a", "size": 3})];
        for function in ["summary", "average", "percentiles"] {
            let output = if function == "summary" { "state" } else { "size" };
            let sum = run(json!({"function": function, "args": [output, {"format": format}]}), &answers);
            prop_assert!(!sum.lines.is_empty());
        }
    }
}
