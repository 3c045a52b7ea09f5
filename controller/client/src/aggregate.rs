//! What the outputs of many hosts come to: the functions that a plugin's description names.
//!
//! The names and options are Choria's (`summary`, `average`, `boolean_summary`, `chart`), so that its
//! descriptions work as they are; `percentiles` stands beside them. Only answers of hosts that did what they were asked
//! go in. Values keep their types: the number 1 and the text "1" are two values, an answer without the
//! output is counted apart, and a value that a function cannot use is counted and not guessed at.
//!
//! Pure: data in, numbers and words out.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::ddl::{Action, Aggregate};
use serde_json::Value;

mod printf;
#[cfg(test)]
mod tests;

use printf::{Argument, Printf};

/// Most different values of a summary that are told; of more only the number is.
const VALUES_MAX: usize = 1_000;

/// Most bars of a chart.
const BARS_MAX: usize = 8;

/// What one function made of one output.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregated {
    /// The function as the description names it.
    pub function: String,
    /// The output that was summed up; empty if the description names none.
    pub output: String,
    /// The heading over it: the output's own, or its name.
    pub heading: String,
    /// How many values went in. An element of a list is one in a summary.
    pub values: usize,
    /// How many answers had no such output, or `null`.
    pub missing: usize,
    /// How many answers had a value that the function cannot use, such as a text where a number is averaged.
    pub unusable: usize,
    /// What came out.
    pub sum: Sum,
    /// The same in lines for people. Empty for a chart, which is drawn, and where nothing came out.
    pub lines: Vec<String>,
    /// The description's `format`, where it is none that this program can follow. The lines are then its own.
    pub bad_format: Option<String>,
}

/// What came out of a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Sum {
    /// `summary` and `boolean_summary`: how often each value occurs, the most frequent first.
    Summary {
        /// The values.
        counts: Vec<ValueCount>,
        /// How many more different values there are.
        more: usize,
    },
    /// `average`.
    Average(f64),
    /// `percentiles`, by the nearest rank: a value that really occurs.
    Percentiles(Percentiles),
    /// `chart`: how many values lie in each of some ranges of the same width.
    Chart(Vec<Bar>),
    /// No answer had a value that could be used.
    Nothing,
    /// The function is not known here.
    UnknownFunction,
    /// The description names no output, or one that the action does not have.
    UnknownOutput,
}

/// How often a value occurs.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueCount {
    /// The value.
    pub value: Value,
    /// What stands for it on screen.
    pub title: String,
    /// How often.
    pub count: usize,
}

/// Where the values lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// The smallest.
    pub min: f64,
    /// Half of the values are at most this.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// One range of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Smallest value in it.
    pub from: f64,
    /// Where it ends. The last bar holds this value too, the others do not.
    pub to: f64,
    /// How many values.
    pub count: usize,
}

/// Runs every function of an action over the data of the hosts that did what they were asked.
pub fn aggregate<V: Borrow<Value>>(action: &Action, answers: impl IntoIterator<Item = V> + Clone) -> Vec<Aggregated> {
    action.aggregate.iter().map(|spec| one(action, spec, answers.clone())).collect()
}

fn one<V: Borrow<Value>>(action: &Action, spec: &Aggregate, answers: impl IntoIterator<Item = V>) -> Aggregated {
    let name = spec.output().unwrap_or_default();
    let output = action.output.get(name);
    let heading = output.map(|output| output.display_as.trim()).filter(|heading| !heading.is_empty()).unwrap_or(name);
    let mut aggregated = Aggregated {
        function: spec.function.clone(),
        output: name.to_owned(),
        heading: heading.to_owned(),
        values: 0,
        missing: 0,
        unusable: 0,
        sum: Sum::Nothing,
        lines: Vec::new(),
        bad_format: None,
    };
    if output.is_none() {
        aggregated.sum = Sum::UnknownOutput;
        return aggregated;
    }
    let present: Vec<Value> = answers
        .into_iter()
        .filter_map(|data| {
            let value = data.borrow().get(name).filter(|value| !value.is_null()).cloned();
            aggregated.missing += usize::from(value.is_none());
            value
        })
        .collect();
    let present: Vec<&Value> = present.iter().collect();
    match spec.function.as_str() {
        "summary" => summary(&mut aggregated, spec, &present),
        "boolean_summary" => {
            let booleans: Vec<&Value> = present.iter().copied().filter(|value| value.is_boolean()).collect();
            aggregated.unusable = present.len() - booleans.len();
            summary(&mut aggregated, spec, &booleans);
        }
        "average" | "percentiles" | "chart" => numbers(&mut aggregated, spec, &present),
        _ => aggregated.sum = Sum::UnknownFunction,
    }
    aggregated
}

/// Counts values. A list counts as its elements.
fn summary(aggregated: &mut Aggregated, spec: &Aggregate, present: &[&Value]) {
    let mut counts: BTreeMap<String, (&Value, usize)> = BTreeMap::new();
    for value in present {
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            value => std::slice::from_ref(*value),
        };
        for element in elements.iter().filter(|element| !element.is_null()) {
            // The JSON text tells the number 1 from the text "1".
            counts.entry(element.to_string()).or_insert((element, 0)).1 += 1;
            aggregated.values += 1;
        }
    }
    if counts.is_empty() {
        return;
    }
    let mut counts: Vec<ValueCount> = counts
        .into_values()
        .map(|(value, count)| ValueCount { value: value.clone(), title: title(spec, value), count })
        .collect();
    // Stable: values that occur equally often stay in the order of their texts.
    counts.sort_by_key(|counted| usize::MAX - counted.count);
    let more = counts.len().saturating_sub(VALUES_MAX);
    counts.truncate(VALUES_MAX);
    let format = read_format(aggregated, spec, 2);
    let own = || {
        let widest = counts.iter().map(|counted| counted.count.to_string().len()).max().unwrap_or(0);
        counts.iter().map(|counted| format!("{:>widest$} {}", counted.count, counted.title)).collect()
    };
    aggregated.lines = format
        .and_then(|format| {
            counts
                .iter()
                .map(|counted| format.write(&[Argument::Text(&counted.title), Argument::Count(counted.count)]))
                .collect()
        })
        .unwrap_or_else(own);
    aggregated.sum = Sum::Summary { counts, more };
}

/// What stands for a value: its title in the description (Choria's `titles`, or MCollective's keys beside
/// `format`), else the value itself.
fn title(spec: &Aggregate, value: &Value) -> String {
    let plain = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let options = spec.args.get(1).and_then(Value::as_object);
    let titles = spec.option("titles").and_then(Value::as_object);
    let reserved = plain == "format" || plain == "titles";
    let given = titles
        .and_then(|titles| titles.get(&plain))
        .or_else(|| options.filter(|_| !reserved).and_then(|options| options.get(&plain)));
    given.and_then(Value::as_str).map_or(plain, str::to_owned)
}

fn numbers(aggregated: &mut Aggregated, spec: &Aggregate, present: &[&Value]) {
    let mut numbers: Vec<f64> = present.iter().filter_map(|value| number(value)).collect();
    aggregated.unusable = present.len() - numbers.len();
    aggregated.values = numbers.len();
    numbers.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (numbers.first().copied(), numbers.last().copied()) else { return };
    match spec.function.as_str() {
        "average" => {
            let average = average(&numbers);
            let format = read_format(aggregated, spec, 1);
            let line = format.and_then(|format| format.write(&[Argument::Number(average)]));
            aggregated.lines = vec![line.unwrap_or_else(|| shown(average))];
            aggregated.sum = Sum::Average(average);
        }
        "percentiles" => {
            let rank = |percent: usize| numbers[(numbers.len() * percent).div_ceil(100).saturating_sub(1)];
            let percentiles = Percentiles { min, p50: rank(50), p90: rank(90), p99: rank(99), max };
            let named = [("min", min), ("p50", percentiles.p50), ("p90", percentiles.p90), ("p99", percentiles.p99)];
            let named = named.into_iter().chain([("max", max)]);
            let format = read_format(aggregated, spec, 2);
            let formatted = format.and_then(|format| {
                let write = |(name, value)| format.write(&[Argument::Text(name), Argument::Number(value)]);
                named.clone().map(write).collect::<Option<Vec<String>>>()
            });
            let own = || {
                let words: Vec<String> =
                    named.clone().map(|(name, value)| format!("{name} {}", shown(value))).collect();
                vec![words.join("  ")]
            };
            aggregated.lines = formatted.unwrap_or_else(own);
            aggregated.sum = Sum::Percentiles(percentiles);
        }
        _ => {
            let whole = numbers.iter().all(|number| number.fract() == 0.0);
            aggregated.sum = Sum::Chart(bars(&numbers, min, max, whole));
        }
    }
}

/// The number that a value is. External agents write numbers as texts, and Choria averages those too.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// The mean, without a sum that could overflow.
fn average(numbers: &[f64]) -> f64 {
    let mut mean = 0.0;
    let mut count = 0.0;
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for number in numbers {
        count += 1.0;
        mean += number / count - mean / count;
        min = min.min(*number);
        max = max.max(*number);
    }
    // Rounding may lead just outside of what the values allow.
    mean.clamp(min, max)
}

/// Ranges of the same width over all values: of whole numbers where the values are.
fn bars(sorted: &[f64], min: f64, max: f64, whole: bool) -> Vec<Bar> {
    if min == max {
        return vec![Bar { from: min, to: max, count: sorted.len() }];
    }
    let distinct: BTreeSet<u64> = sorted.iter().map(|number| number.to_bits()).take(BARS_MAX * 64).collect();
    let bars_wanted = distinct.len().clamp(2, BARS_MAX);
    #[expect(clippy::cast_precision_loss, reason = "at most eight")]
    let parts = bars_wanted as f64;
    // Halved first, so that the difference of two huge numbers is still a number.
    let exact = (max / parts) - (min / parts);
    let width = if whole && exact > 1.0 {
        exact.ceil()
    } else if whole {
        1.0
    } else {
        exact
    };
    let mut bars: Vec<Bar> = Vec::with_capacity(bars_wanted);
    let mut from = min;
    while bars.len() < bars_wanted && (from < max || bars.is_empty()) {
        // The last one ends with the values, so that rounding loses none of them.
        let end = from + width;
        let to = if bars.len() + 1 == bars_wanted || end >= max || end <= from { max } else { end };
        bars.push(Bar { from, to, count: 0 });
        from = to;
    }
    let last = bars.len() - 1;
    for number in sorted {
        let place = bars.iter().position(|bar| *number < bar.to).unwrap_or(last);
        bars[place].count += 1;
    }
    bars
}

fn read_format(aggregated: &mut Aggregated, spec: &Aggregate, arguments: usize) -> Option<Printf> {
    let text = spec.option("format")?;
    let format = text.as_str().and_then(|text| Printf::parse(text, arguments));
    if format.is_none() {
        aggregated.bad_format = Some(text.as_str().map_or_else(|| text.to_string(), str::to_owned));
    }
    format
}

/// A number for people: up to three decimals.
#[must_use]
pub fn shown(number: f64) -> String {
    if number.abs() >= 1e15 {
        return format!("{number:e}");
    }
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}
