//! Figures out of several rounds.

/// What was measured of ours and of its yardstick, round by round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paired {
    ours: Vec<f64>,
    ratios: Vec<f64>,
    differences: Vec<f64>,
}

impl Paired {
    /// Adds a round.
    pub(crate) fn push(&mut self, ours: f64, yardstick: f64) {
        self.ours.push(ours);
        self.ratios.push(ours / yardstick);
        self.differences.push(ours - yardstick);
    }

    /// The median of ours.
    pub(crate) fn ours(&self) -> f64 {
        median(self.ours.clone())
    }

    /// The median of the multiples.
    pub(crate) fn multiple(&self) -> f64 {
        median(self.ratios.clone())
    }

    /// The median of how much more ours is than its yardstick.
    pub(crate) fn more(&self) -> f64 {
        median(self.differences.clone())
    }

    /// The lowest and the highest multiple.
    pub(crate) fn spread(&self) -> (f64, f64) {
        self.ratios.iter().fold((f64::INFINITY, 0.0), |(low, high), ratio| (ratio.min(low), ratio.max(high)))
    }
}

/// The value in the middle, 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => 0.0,
        (half, 0) => f64::midpoint(values[half - 1], values[half]),
        (half, _) => values[half],
    }
}
