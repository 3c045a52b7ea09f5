//! Seeds: the same does the same, those that failed are good now, and new ones are tried.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use muster_simulation::{FaultKind, Options, Outcome, Site, run};

/// How long new seeds are tried, and how many at most.
const FRESH_TIME: Duration = Duration::from_secs(120);
const FRESH_SEEDS: u64 = 8;

static SITE: LazyLock<Arc<Site>> = LazyLock::new(|| Arc::new(Site::new(100).unwrap()));

fn told(outcome: &Outcome) -> String {
    let broken: Vec<String> =
        outcome.violations.iter().map(|violation| format!("{}: {}", violation.invariant, violation.what)).collect();
    let (lines, command) = (outcome.last_lines.join("\n"), outcome.options.command());
    format!("{lines}\n\nseed {} broke:\n{}\nagain: {command} --trace", outcome.options.seed, broken.join("\n"))
}

#[track_caller]
fn check(options: &Options) -> Outcome {
    let outcome = run(options, &SITE);
    assert!(outcome.violations.is_empty(), "{}", told(&outcome));
    outcome
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [11, 12, 13] {
        let options = Options { hosts: Some(4), ..Options::new(seed) };
        let (one, other) = (run(&options, &SITE), run(&options, &SITE));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        assert_eq!(one.tally.counts(), other.tally.counts(), "seed {seed}");
        assert!(one.digest.1 > 50, "seed {seed} did next to nothing");
    }
    // With other certificates too: nothing may depend on keys.
    let options = Options { hosts: Some(4), ..Options::new(11) };
    assert_eq!(run(&options, &SITE).digest, run(&options, &Arc::new(Site::new(4).unwrap())).digest);
}

#[test]
fn another_seed_does_something_else() {
    let of = |seed| run(&Options { hosts: Some(2), ..Options::new(seed) }, &SITE).digest;
    assert_ne!(of(21), of(22));
}

#[test]
fn without_faults_everything_is_done() {
    let without = FaultKind::ALL.into_iter().collect();
    let outcome = check(&Options { hosts: Some(5), steps: Some(6), without, ..Options::new(31) });
    let counts = outcome.tally.counts();
    assert!(counts["starts of changing actions"] > 10, "{}", outcome.tally);
    assert_eq!(counts["requests"], counts["requests that ended"], "each question is one request");
    assert!(!counts.keys().any(|what| what.starts_with("fault") || what.starts_with("attack")), "{}", outcome.tally);
}

#[test]
fn seeds_that_failed_once_are_good() {
    let list = include_str!("../../seeds.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    for line in lines {
        let (seed, found) = line.split_once(' ').expect("a seed, and what it found");
        assert!(!found.trim().is_empty(), "`{line}` does not say what it found");
        check(&Options::new(seed.parse().expect("a seed is a number")));
    }
}

#[test]
fn fresh_seeds_are_good() {
    let (first, began) = (u64::from(rand::random::<u32>()), Instant::now());
    for seed in first..first + FRESH_SEEDS {
        if began.elapsed() > FRESH_TIME {
            break;
        }
        check(&Options::new(seed));
    }
}
