//! When to try the broker again. A plain value; time and randomness come from outside.
//!
//! A fleet that loses its broker must not come back as one. What a broker can do in a second is some hundreds of
//! TLS handshakes; agents that all try at once fill its queue with handshakes that time out before their turn, which it
//! then has done for nothing. So the first try after a loss is drawn from a whole span already, and every further one
//! from a longer one. An agent that starts tries sooner: machines do not start in the same second. It may find its own
//! predecessor still at the queue, until the broker has seen that one's connection end: that passes in a moment, and
//! concerns one host, so it is no reason to wait longer.

use std::time::Duration;

use muster_daemon::Backoff;
use rand::Rng;

/// Longest first pause of an agent that has not been connected yet.
const START_BASE: Duration = Duration::from_secs(1);

/// How much longer each pause may be than the one before, at the start.
const START_FACTOR: f64 = 2.0;

/// The same after a connection was lost. Slower, so that the last agents of a fleet are not away much longer than the
/// broker was.
const LOST_FACTOR: f64 = 1.5;

/// A connection that lived this long counts as a success: the next pauses begin anew.
pub(crate) const PROVEN: Duration = Duration::from_secs(30);

/// What the broker said to a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: nobody was reached.
    None,
    /// Somebody else reads the host's queue, most likely a connection of this host that the broker has not given up yet.
    InUse,
    /// It did not let the agent in, or did not keep it.
    Refused,
}

/// The pauses between tries.
#[derive(Debug)]
pub(crate) struct Reconnect {
    backoff: Backoff,
    /// The span over which agents that have lost their connection come back.
    spread: Duration,
    max: Duration,
}

impl Reconnect {
    /// Pauses of an agent that starts.
    pub(crate) fn new(spread: Duration, max: Duration) -> Self {
        let spread = spread.min(max);
        Self { backoff: Backoff::new(START_BASE.min(spread), max, START_FACTOR), spread, max }
    }

    /// A connection ended that lived so long.
    pub(crate) fn lost(&mut self, lived: Duration) {
        if lived >= PROVEN {
            self.backoff = Backoff::new(self.spread, self.max, LOST_FACTOR);
        }
    }

    /// The way to the broker was replaced: whatever was wrong, the next try is a first one.
    pub(crate) fn replaced(&mut self) {
        self.backoff.reset();
    }

    /// The pause before the next try. A broker that answered, and did not let the agent in or keep it, has paid for a
    /// handshake, so the span is never short then. Where the queue is in use the span is that of the tries so far: after
    /// a loss a whole fleet may find its old connections there, after a start it is one host.
    pub(crate) fn pause(&mut self, answer: Answer, random: &mut impl Rng) -> Duration {
        let least = match answer {
            Answer::None | Answer::InUse => Duration::ZERO,
            Answer::Refused => self.spread,
        };
        self.backoff.next_within(least.min(self.max), random)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    const SPREAD: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_secs(60);

    /// The longest of many draws, in seconds, rounded up: about the ceiling.
    fn ceiling(mut prepare: impl FnMut() -> Reconnect, answer: Answer) -> u64 {
        let mut random = SmallRng::seed_from_u64(3);
        let longest = (0..2_000).map(|_| prepare().pause(answer, &mut random)).max().unwrap();
        longest.as_millis().div_ceil(1_000).try_into().unwrap()
    }

    #[test]
    fn pauses_by_what_was_before() {
        let fresh = || Reconnect::new(SPREAD, MAX);
        let lost = |lived: u64| {
            move || {
                let mut reconnect = fresh();
                reconnect.lost(Duration::from_secs(lived));
                reconnect
            }
        };
        let tried = |times: usize| {
            move || {
                let mut reconnect = lost(30)();
                let mut random = SmallRng::seed_from_u64(1);
                let pauses: Vec<_> = (0..times).map(|_| reconnect.pause(Answer::None, &mut random)).collect();
                assert!(pauses.iter().all(|pause| *pause <= MAX));
                reconnect
            }
        };
        assert_eq!(ceiling(fresh, Answer::None), 1, "at the start");
        assert_eq!(ceiling(fresh, Answer::Refused), 10, "a broker that refuses");
        assert_eq!(ceiling(fresh, Answer::InUse), 1, "an agent that starts finds its predecessor at the queue");
        assert_eq!(ceiling(lost(3600), Answer::InUse), 10, "a fleet that comes back finds its old connections");
        assert_eq!(ceiling(lost(3600), Answer::None), 10, "after a connection that worked");
        assert_eq!(ceiling(lost(29), Answer::None), 1, "one that did not last changes nothing");
        assert_eq!(ceiling(tried(1), Answer::None), 15);
        assert_eq!(ceiling(tried(50), Answer::None), 60);
        let replaced = || {
            let mut reconnect = tried(50)();
            reconnect.replaced();
            reconnect
        };
        assert_eq!(ceiling(replaced, Answer::None), 10);
    }

    #[test]
    fn a_span_beyond_the_longest_pause_is_cut() {
        let short = || {
            let mut reconnect = Reconnect::new(Duration::from_secs(60), Duration::from_secs(2));
            reconnect.lost(PROVEN);
            reconnect
        };
        assert_eq!(ceiling(short, Answer::Refused), 2);
    }

    /// How many of a fleet come in the busiest second after a broker was away for so long, where a try while it is
    /// away fails at once; and when each of them comes.
    fn busiest_second(agents: u64, away: Duration, same: bool) -> (u32, Vec<Duration>) {
        let mut seconds = std::collections::BTreeMap::<u64, u32>::new();
        let mut pauses = Vec::new();
        for agent in 0..agents {
            let mut random = SmallRng::seed_from_u64(if same { 7 } else { agent });
            let mut reconnect = Reconnect::new(SPREAD, MAX);
            reconnect.lost(PROVEN);
            let mut at = reconnect.pause(Answer::None, &mut random);
            while at < away {
                at += reconnect.pause(Answer::None, &mut random);
            }
            *seconds.entry((at - away).as_secs()).or_default() += 1;
            pauses.push(at - away);
        }
        (seconds.into_values().max().unwrap_or(0), pauses)
    }

    /// The probability that so many tries are made before `away`, and the span of the next one, for each number of
    /// tries. The sum of k even draws is less than `away` with `away^k / (k! * spans)`, if none of the spans is shorter.
    fn tries_before(away: f64) -> impl Iterator<Item = (f64, f64)> {
        let first = (1.0, SPREAD.as_secs_f64());
        let following =
            move |&(before, span): &(f64, f64), tries: f64| (before * away / (span * tries), span * LOST_FACTOR);
        (1_u8..12).scan(first, move |now, tries| {
            let was = *now;
            *now = following(now, f64::from(tries));
            Some((was.0.min(1.0), was.1.min(MAX.as_secs_f64())))
        })
    }

    /// How many agents come at most in the busiest second, on average: each number of tries before falls into a given
    /// second with one second in its span. After longer outages spans are longer, and it is never more.
    fn rate(agents: f64, away: f64) -> f64 {
        tries_before(away.min(SPREAD.as_secs_f64())).map(|(before, span)| agents * before / span).sum()
    }

    #[test]
    fn a_fleet_comes_back_spread_whatever_the_outage() {
        for away_s in [0_u16, 1, 5, 9, 15, 60, 600] {
            let away = f64::from(away_s);
            let (busiest, pauses) = busiest_second(2_000, Duration::from_secs(away_s.into()), false);
            // The mean and six deviations of it.
            let rate = rate(2_000.0, away + 1.0);
            let most = rate + 6.0 * rate.sqrt();
            assert!(f64::from(busiest) <= most, "after {away_s} s: {busiest} of 2000 in one second, at most {most}");
            assert!(most < 500.0, "a quarter of the fleet at once is no spread: {most}");
            // Short outages are not made long ones: one in a hundred has tried more often than this and waits longer.
            let longest = tries_before(away).take_while(|(before, _)| *before > 0.01).map(|(_, span)| span).last();
            let late = pauses.iter().filter(|pause| pause.as_secs_f64() > longest.unwrap()).count();
            assert!(late <= 40, "after {away_s} s: {late} of 2000 later than {longest:?} s");
        }
        let (busiest, _) = busiest_second(2_000, Duration::from_secs(15), true);
        assert_eq!(busiest, 2_000, "without random pauses all come at once");
    }
}
