//! What is aimed at, and whether it was reached. Shown beside the results; nothing ever fails by it.

use muster_fleet::BrokerKind;

use crate::results::{Outcome, Quantity, Results, Scenario};
use crate::statistics::Spread;

/// What a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A quantity's median.
    Of(Quantity),
    /// The median of the ratios to the raw baseline.
    AgainstRaw,
}

/// On which side of the bound it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at least this.
    AtLeast(f64),
}

/// One target, for each number of hosts and broker that it is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Where it is measured.
    pub scenario: Scenario,
    /// For which number of hosts; `None`: for every.
    pub hosts: Option<usize>,
    /// On which broker; `None`: on both.
    pub broker: Option<BrokerKind>,
    /// What.
    pub subject: Subject,
    /// How much.
    pub bound: Bound,
    /// What it is, in words.
    pub words: &'static str,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        scenario: Scenario::Ping,
        hosts: None,
        broker: None,
        subject: Subject::AgainstRaw,
        bound: Bound::AtMost(1.25),
        words: "full ping against the raw echo",
    },
    Target {
        scenario: Scenario::Ping,
        hosts: Some(10_000),
        broker: Some(BrokerKind::Embedded),
        subject: Subject::Of(Quantity::CompleteMs),
        bound: Bound::AtMost(600.0),
        words: "full ping",
    },
    Target {
        scenario: Scenario::Ping,
        hosts: Some(50_000),
        broker: Some(BrokerKind::Embedded),
        subject: Subject::Of(Quantity::CompleteMs),
        bound: Bound::AtMost(3_500.0),
        words: "full ping",
    },
    Target {
        scenario: Scenario::Storm,
        hosts: None,
        broker: Some(BrokerKind::Embedded),
        subject: Subject::Of(Quantity::ConnectionBytes),
        bound: Bound::AtMost(40e3),
        words: "memory of the broker a TLS connection",
    },
    Target {
        scenario: Scenario::Ping,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::ControllerUs),
        bound: Bound::AtMost(40.0),
        words: "controller's processor time a verified reply, open session",
    },
    Target {
        scenario: Scenario::Cpu,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::ProgramUs),
        bound: Bound::AtMost(40.0),
        words: "processor time of `muster ping` a verified reply",
    },
    Target {
        scenario: Scenario::Run64k,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::ProgramPeakBytes),
        bound: Bound::AtMost(200e6),
        words: "memory of `muster run` with 64 KiB from all",
    },
    Target {
        scenario: Scenario::Storm,
        hosts: None,
        broker: None,
        subject: Subject::AgainstRaw,
        bound: Bound::AtLeast(0.9),
        words: "connect storm against raw connections",
    },
    Target {
        scenario: Scenario::Idle,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::IdlePssBytes),
        bound: Bound::AtMost(5e6),
        words: "proportional memory of an idle agent",
    },
    Target {
        scenario: Scenario::Idle,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::AgentBinaryBytes),
        bound: Bound::AtMost(8e6),
        words: "size of `musterd`",
    },
    Target {
        scenario: Scenario::Few,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::WarmExitMs),
        bound: Bound::AtMost(60.0),
        words: "`muster ping --all` of five hosts, whole",
    },
    Target {
        scenario: Scenario::Few,
        hosts: None,
        broker: None,
        subject: Subject::Of(Quantity::NamedExitMs),
        bound: Bound::AtMost(60.0),
        words: "`muster ping -H` of five hosts, whole",
    },
];

/// A target and what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<'a> {
    /// The target.
    pub target: &'a Target,
    /// Hosts of the fleet.
    pub hosts: usize,
    /// The broker.
    pub broker: BrokerKind,
    /// What was measured; `None` where the scenario failed.
    pub measured: Option<Spread>,
}

impl Verdict<'_> {
    /// Whether it was reached. A failed scenario reaches nothing.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.measured.is_some_and(|measured| self.target.holds(measured.median))
    }

    /// `reached`, `not reached` or `failed`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.measured, self.is_reached()) {
            (None, _) => "failed",
            (_, true) => "reached",
            (_, false) => "not reached",
        }
    }
}

impl Target {
    fn is_about(&self, outcome: &Outcome) -> bool {
        self.hosts.is_none_or(|hosts| hosts == outcome.hosts)
            && self.broker.is_none_or(|broker| broker == outcome.broker)
    }

    fn holds(&self, median: f64) -> bool {
        match self.bound {
            Bound::AtMost(most) => median <= most,
            Bound::AtLeast(least) => median >= least,
        }
    }

    /// A value of its subject, for people.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        match self.subject {
            Subject::Of(quantity) => quantity.words().0.show(value),
            Subject::AgainstRaw => format!("{value:.2}"),
        }
    }

    /// Its bound, for people.
    #[must_use]
    pub fn show_bound(&self) -> String {
        match self.bound {
            Bound::AtMost(most) => format!("≤ {}", self.show(most)),
            Bound::AtLeast(least) => format!("≥ {}", self.show(least)),
        }
    }

    fn measured(&self, outcome: &Outcome) -> Option<Spread> {
        match self.subject {
            Subject::Of(quantity) => outcome.spread(quantity),
            Subject::AgainstRaw => outcome.against_raw(),
        }
    }
}

/// Judges everything that was measured, in the order of the targets.
#[must_use]
pub fn judge(results: &Results) -> Vec<Verdict<'static>> {
    let of = |target: &'static Target| {
        results.of(target.scenario).filter(|outcome| target.is_about(outcome)).filter_map(move |outcome| {
            let (hosts, broker) = (outcome.hosts, outcome.broker);
            let measured = target.measured(outcome);
            match &outcome.failed {
                Some(_) => Some(Verdict { target, hosts, broker, measured: None }),
                None => measured.map(|_| Verdict { target, hosts, broker, measured }),
            }
        })
    };
    TARGETS.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::testing::sample_results;

    #[test]
    fn a_target_is_judged_by_the_median_and_a_failure_reaches_nothing() {
        let mut results = sample_results();
        let of = |results: &Results, scenario, hosts, broker| -> Vec<(String, &'static str)> {
            judge(results)
                .iter()
                .filter(|verdict| (verdict.target.scenario, verdict.hosts, verdict.broker) == (scenario, hosts, broker))
                .map(|verdict| (verdict.target.show_bound(), verdict.word()))
                .collect()
        };
        let bounds =
            |words: [&'static str; 2]| vec![("≤ 1.25".to_owned(), words[0]), ("≤ 40.0 µs".to_owned(), words[1])];
        let [rabbitmq, embedded] = BrokerKind::ALL;
        assert_eq!(of(&results, Scenario::Ping, 100, rabbitmq), bounds(["reached", "not reached"]));
        assert_eq!(of(&results, Scenario::Storm, 100, rabbitmq), [("≥ 0.90".to_owned(), "not reached")]);
        let storm = [("≤ 40.0 kB".to_owned(), "reached"), ("≥ 0.90".to_owned(), "not reached")];
        assert_eq!(of(&results, Scenario::Storm, 100, embedded), storm);
        let ping = results.outcomes.iter_mut().find(|outcome| outcome.scenario == Scenario::Ping).unwrap();
        ping.failed = Some("99 of 100 answered".to_owned());
        assert_eq!(of(&results, Scenario::Ping, 100, rabbitmq), bounds(["failed", "failed"]));
    }

    #[test]
    fn what_is_aimed_at_for_one_broker_and_number_of_hosts_is_judged_there_only() {
        let mut results = sample_results();
        for broker in BrokerKind::ALL {
            let mut ping = Outcome::new(Scenario::Ping, 10_000, broker);
            ping.add(Quantity::CompleteMs, 601.0);
            results.put(ping);
        }
        let found: Vec<_> = judge(&results)
            .into_iter()
            .filter(|verdict| verdict.target.words == "full ping")
            .map(|verdict| (verdict.hosts, verdict.broker, verdict.target.show_bound(), verdict.word()))
            .collect();
        assert_eq!(found, [(10_000, BrokerKind::Embedded, "≤ 600 ms".to_owned(), "not reached")]);
    }

    #[test]
    fn the_bound_itself_is_reached() {
        let target = &TARGETS[0];
        assert!(target.holds(1.25) && !target.holds(1.2501));
        let of_storm = |target: &&Target| (target.scenario, target.subject) == (Scenario::Storm, Subject::AgainstRaw);
        let storm = TARGETS.iter().find(of_storm).unwrap();
        assert!(storm.holds(0.9) && !storm.holds(0.8999));
    }
}
