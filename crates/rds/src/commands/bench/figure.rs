//! A measured figure, its floor and its limit. Pure.

use std::time::Instant;

use serde::Serialize;

use crate::output;

/// What a figure may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Limit {
    /// So many times its floor.
    Times(f64),
    /// So much more than its floor.
    Plus(f64),
    /// This itself.
    AtMost(f64),
    /// Whatever it is: it is there to be known.
    Any,
}

/// A measured figure.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    measured: f64,
    /// The same work without the server, and what that is.
    floor: Option<f64>,
    floor_is: &'static str,
    limit: Limit,
}

impl Figure {
    /// Milliseconds beside those of the same work without the server, which `floor_is` names.
    pub(crate) fn beside(
        name: impl Into<String>,
        measured: f64,
        floor: f64,
        floor_is: &'static str,
        limit: Limit,
    ) -> Self {
        Self { name: name.into(), unit: "ms", measured, floor: Some(floor), floor_is, limit }
    }

    /// A figure without a floor: its limit is [`Limit::AtMost`] or [`Limit::Any`].
    pub(crate) fn alone(name: impl Into<String>, unit: &'static str, measured: f64, limit: Limit) -> Self {
        Self { name: name.into(), unit, measured, floor: None, floor_is: "", limit }
    }

    /// The same figure in another unit than milliseconds.
    pub(crate) fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// The largest value that passes.
    fn allowed(&self) -> f64 {
        let floor = self.floor.unwrap_or_default();
        match self.limit {
            Limit::Times(factor) => floor * factor,
            Limit::Plus(more) => floor + more,
            Limit::AtMost(most) => most,
            Limit::Any => f64::MAX,
        }
    }

    /// Whether it keeps to its limit.
    pub(crate) fn passes(&self) -> bool {
        self.measured <= self.allowed()
    }

    fn row(&self) -> Vec<String> {
        let unit = self.unit;
        let shown = |value: f64| format!("{value:.1} {unit}");
        let compared = match (self.limit, self.floor) {
            (Limit::Plus(_), Some(floor)) => format!("{:+.1} {unit}", self.measured - floor),
            (_, Some(floor)) => format!("{:.2} ×", self.measured / floor),
            _ => String::from("-"),
        };
        let limit = match self.limit {
            Limit::Times(factor) => format!("{factor} ×"),
            Limit::Plus(more) => format!("+{more} {unit}"),
            Limit::AtMost(most) => format!("{most} {unit}"),
            Limit::Any => "-".into(),
        };
        let floor = self.floor.map_or_else(|| "-".into(), shown);
        let verdict = if self.passes() { "pass" } else { "FAIL" };
        vec![self.name.clone(), shown(self.measured), floor, compared, limit, verdict.into(), self.floor_is.into()]
    }
}

/// The figures for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let rows: Vec<Vec<String>> = figures.iter().map(Figure::row).collect();
    output::table(&["FIGURE", "MEASURED", "FLOOR", "RATIO", "LIMIT", "", "THE FLOOR IS"], &rows)
}

/// The value below which `share` (0 to 1) of the samples lie.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small count is a small count"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Milliseconds since then.
pub(crate) fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

/// The middle sample.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(measured: f64, floor: Option<f64>, limit: Limit) -> Figure {
        match floor {
            Some(floor) => Figure::beside("f", measured, floor, "", limit),
            None => Figure::alone("f", "ms", measured, limit),
        }
    }

    #[test]
    fn a_figure_passes_up_to_its_limit() {
        // A factor that a double holds exactly, so that the limit itself can be tried.
        assert!(figure(125.0, Some(100.0), Limit::Times(1.25)).passes());
        assert!(!figure(125.1, Some(100.0), Limit::Times(1.25)).passes());
        assert!(figure(9.0, Some(5.0), Limit::Plus(4.0)).passes());
        assert!(!figure(9.1, Some(5.0), Limit::Plus(4.0)).passes());
        assert!(!figure(41.0, None, Limit::AtMost(40.0)).passes());
        assert!(!figure(f64::NAN, None, Limit::AtMost(40.0)).passes(), "nothing measured is no pass");
        assert!(figure(41.0, None, Limit::Any).passes() && !figure(f64::NAN, None, Limit::Any).passes());
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((median(&samples), percentile(&samples, 0.99), percentile(&samples, 1.0)), (50.0, 99.0, 100.0));
    }
}
