use super::testing::{sample_machine, sample_results, sample_run};
use super::*;

#[test]
fn results_survive_json_as_they_were() {
    let results = sample_results();
    let read = Results::parse(&results.to_json()).unwrap();
    assert_eq!(read.to_json(), results.to_json());
    assert!(read == results);
}

#[test]
fn foreign_and_contradicting_results_are_refused() {
    let good = sample_results().to_json();
    let cases = [
        ("", "no results"),
        ("[]", "no results"),
        (&good.replace("muster-bench/1", "muster-bench/2"), "take them anew"),
        (&good.replacen("\"run\": 0", "\"run\": 1", 1), "names run 1, and there are 1"),
        (&good.replacen("\"hosts\"", "\"guests\"", 1), "unknown field `guests`"),
        (&good.replacen("complete_ms", "completed_ms", 1), "unknown variant `completed_ms`"),
    ];
    for (text, expected) in cases {
        let error = format!("{:#}", Results::parse(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_later_run_replaces_what_it_measured_and_keeps_the_rest() {
    let before = sample_results();
    let later = Run { taken_at: "2026-02-02T00:00:00Z".to_owned(), ..sample_run() };
    let mut results = before.clone().continue_with(&sample_machine(), later.clone()).unwrap();
    let mut ping = Outcome::new(Scenario::Ping, 100);
    ping.add(Quantity::CompleteMs, 1.0);
    results.put(ping);
    assert_eq!(results.outcomes.len(), before.outcomes.len());
    let found: Vec<(usize, usize)> = results.of(Scenario::Ping).map(|outcome| (outcome.hosts, outcome.run)).collect();
    assert_eq!(found, [(100, 1), (1_000, 0)]);
    let other = Machine { processors: 64, ..sample_machine() };
    assert!(before.clone().continue_with(&other, later.clone()).is_err());
    // A run of which nothing is left is forgotten.
    let replaced = before.outcomes.clone();
    let mut anew = before.continue_with(&sample_machine(), later.clone()).unwrap();
    replaced.into_iter().for_each(|outcome| anew.put(outcome));
    let anew = anew.without_idle_runs();
    assert_eq!(anew.runs, [later]);
    assert!(anew.outcomes.iter().all(|outcome| outcome.run == 0));
}

#[test]
fn rates_are_compared_where_there_are_rates_and_times_elsewhere() {
    let results = sample_results();
    let ratio = |scenario| results.of(scenario).next().and_then(Outcome::against_raw).map(|spread| spread.median);
    let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
    assert!(near(ratio(Scenario::Ping), 1.2));
    assert!(near(ratio(Scenario::Storm), 0.8));
    assert_eq!(ratio(Scenario::Idle), None);
}
