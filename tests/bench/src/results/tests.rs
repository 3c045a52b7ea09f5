use super::testing::{sample_machine, sample_results, sample_run};
use super::*;

#[test]
fn results_from_before_there_were_two_brokers_are_of_rabbitmq() {
    let now = sample_results();
    let text = now.to_json().replace("      \"broker\": \"rabbitmq\",\n", "");
    assert!(text.len() < now.to_json().len() && Results::parse(&text).unwrap() == now);
}

#[test]
fn a_baseline_that_is_given_up_leaves_what_was_measured_of_muster() {
    let mut results = sample_results();
    let ping = &mut results.outcomes[0];
    ping.give_baseline_up("answers are missing".to_owned());
    ping.give_baseline_up("again".to_owned());
    assert_eq!(ping.baseline_failed.as_deref(), Some("answers are missing"));
    assert_eq!((ping.failed.as_ref(), ping.against_raw(), ping.spread(Quantity::RawBrokerUs)), (None, None, None));
    assert!(ping.spread(Quantity::CompleteMs).is_some());
}

#[test]
fn a_counterpart_is_the_same_on_the_other_broker_if_both_count() {
    let mut results = sample_results();
    let find = |results: &Results| {
        let ping = results.of(Scenario::Ping).find(|outcome| outcome.broker == BrokerKind::Embedded).unwrap();
        let found = results.counterpart(ping, BrokerKind::RabbitMq);
        found.map(|found| (found.scenario, found.hosts, found.broker))
    };
    assert_eq!(find(&results), Some((Scenario::Ping, 100, BrokerKind::RabbitMq)));
    results.outcomes[0].failed = Some("no".to_owned());
    assert_eq!(find(&results), None);
    results.outcomes.remove(0);
    assert_eq!(find(&results), None);
}

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
        (&good.replacen("\"run\": 0", "\"run\": 1", 1), "on RabbitMQ names run 1, and there are 1"),
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
    let mut ping = Outcome::new(Scenario::Ping, 100, BrokerKind::Embedded);
    ping.add(Quantity::CompleteMs, 1.0);
    results.put(ping);
    assert_eq!(results.outcomes.len(), before.outcomes.len());
    let found: Vec<(usize, BrokerKind, usize)> =
        results.of(Scenario::Ping).map(|outcome| (outcome.hosts, outcome.broker, outcome.run)).collect();
    let [one, other] = BrokerKind::ALL;
    assert_eq!(found, [(100, one, 0), (100, other, 1), (1_000, one, 0), (1_000, other, 0)]);
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
