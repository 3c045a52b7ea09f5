//! Medians and ratios of few samples.

use serde::Serialize;

/// What a series of samples comes to. No mean: one disturbed round must not move the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the samples are at most this.
    pub median: f64,
    /// The smallest sample.
    pub least: f64,
    /// The largest sample.
    pub most: f64,
}

/// Summarises samples; `None` where there are none, or one of them is no number.
#[must_use]
pub fn spread(samples: &[f64]) -> Option<Spread> {
    if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    Some(Spread { median, least: sorted[0], most: sorted[sorted.len() - 1] })
}

/// Divides each round by the same round of the baseline, so that what disturbed both cancels out. Empty where the
/// two do not have the same rounds, or a round of the baseline took nothing.
#[must_use]
pub fn ratios(samples: &[f64], baseline: &[f64]) -> Vec<f64> {
    if samples.len() != baseline.len() || baseline.iter().any(|base| *base <= 0.0) {
        return Vec::new();
    }
    samples.iter().zip(baseline).map(|(sample, base)| sample / base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_least_and_most() {
        type Case<'a> = (&'a [f64], Option<(f64, f64, f64)>);
        let cases: &[Case<'_>] = &[
            (&[], None),
            (&[f64::NAN, 1.0], None),
            (&[1.0, f64::INFINITY], None),
            (&[7.0], Some((7.0, 7.0, 7.0))),
            (&[9.0, 1.0], Some((5.0, 1.0, 9.0))),
            (&[3.0, 1.0, 2.0], Some((2.0, 1.0, 3.0))),
            (&[100.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 100.0))),
        ];
        for (samples, expected) in cases {
            let found = spread(samples).map(|spread| (spread.median, spread.least, spread.most));
            assert_eq!(found, *expected, "{samples:?}");
        }
    }

    #[test]
    fn ratios_go_round_by_round() {
        let cases: &[(&[f64], &[f64], &[f64])] = &[
            (&[2.0, 30.0], &[1.0, 10.0], &[2.0, 3.0]),
            (&[2.0], &[1.0, 1.0], &[]),
            (&[2.0], &[0.0], &[]),
            (&[], &[], &[]),
        ];
        for (samples, baseline, expected) in cases {
            assert_eq!(ratios(samples, baseline), *expected, "{samples:?} {baseline:?}");
        }
    }
}
