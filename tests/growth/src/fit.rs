//! A straight line through measured points, and how straight they are.

/// `value = at_nought + each * hosts`, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// What one more host adds.
    pub each: f64,
    /// What is there without a host.
    pub at_nought: f64,
    /// Part of the differences that the line explains: 1 is all.
    pub r_squared: f64,
}

/// Fits a line. `None` with fewer than three points, or if all have the same place.
///
/// Each point counts by the inverse square of its place, so that a hundred hosts say as much about the cost of a host as ten
/// thousand; without that the largest fleet alone would decide.
#[must_use]
pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
    if points.len() < 3 || points.iter().any(|(at, _)| *at <= 0.0) {
        return None;
    }
    let weight = |at: f64| 1.0 / (at * at);
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(at, value)| weight(*at) * of(*at, *value)).sum::<f64>();
    let total = sum(&|_, _| 1.0);
    let (mean_at, mean) = (sum(&|at, _| at) / total, sum(&|_, value| value) / total);
    let spread = sum(&|at, _| (at - mean_at).powi(2));
    if spread <= f64::EPSILON {
        return None;
    }
    let each = sum(&|at, value| (at - mean_at) * (value - mean)) / spread;
    let at_nought = mean - each * mean_at;
    let unexplained = sum(&|at, value| (value - at_nought - each * at).powi(2));
    let all = sum(&|_, value| (value - mean).powi(2));
    let r_squared = if all <= f64::EPSILON { 1.0 } else { 1.0 - unexplained / all };
    Some(Line { each, at_nought, r_squared })
}

impl Line {
    /// What the line says for so many hosts.
    #[must_use]
    pub fn at(&self, hosts: f64) -> f64 {
        self.at_nought + self.each * hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let points: Vec<(f64, f64)> = [100.0, 1_000.0, 5_000.0, 10_000.0].map(|at| (at, 7.0 + 0.3 * at)).into();
        let line = fit(&points).unwrap();
        assert!((line.each - 0.3).abs() < 1e-9 && (line.at_nought - 7.0).abs() < 1e-6, "{line:?}");
        assert!((line.r_squared - 1.0).abs() < 1e-9);
        assert!((line.at(20_000.0) - 6_007.0).abs() < 1e-3);
    }

    #[test]
    fn what_grows_faster_is_seen() {
        let straight = fit(&[100.0, 1_000.0, 5_000.0, 10_000.0].map(|at| (at, 0.2 * at))).unwrap();
        let curved = fit(&[100.0, 1_000.0, 5_000.0, 10_000.0].map(|at| (at, 0.2 * at * at / 1_000.0))).unwrap();
        assert!(curved.r_squared < 0.95 && straight.r_squared > 0.999, "{curved:?}");
    }

    #[test]
    fn too_little_is_no_line() {
        assert_eq!(fit(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(fit(&[(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]), None);
        assert_eq!(fit(&[(0.0, 1.0), (5.0, 2.0), (6.0, 3.0)]), None);
    }
}
